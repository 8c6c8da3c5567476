/* optim.c - optimizer steps over lists of parameters: sgd_step adam_step rmsprop_step. Only shape rules: they have
 * kernels where a backend offers them, and elsewhere the step() of the optimizer that names them runs. */
#include "common.h"

/* The inputs: n_lists lists (an absent one is NULLs), then three scalars, step, lr and weight_decay. */
static bool step_ok(const char *op, td_infer *q, const char *const *name, uint32_t n_lists)
{
    static const char *const scalar[] = {"step", "lr", "weight_decay"};
    uint32_t n = q->n_list;
    for (uint32_t i = 0; i < n; i++) {
        const td_view *p = q->in[i];
        if (!tdi_float_ok(op, p->dt)) return false;
        for (uint32_t k = 0; k < n_lists; k++) {
            const td_view *t = q->in[k * n + i];
            if (!t) continue;
            if (t->dt != q->in[0]->dt)
                return td_fail_as(TD_EDTYPE, "%s: %s %u is %s, but parameter 1 is %s, and one call takes one dtype", op,
                                  name[k], i + 1, td_dtype_name(t->dt), td_dtype_name(q->in[0]->dt));
            if (!tdi_same_shape(t, p))
                return td_fail_as(TD_ESHAPE, "%s: %s %u has shape %s, but its parameter %s", op, name[k], i + 1,
                                  tdi_shape_text(t), tdi_shape_text(p));
        }
    }
    for (uint32_t k = 0; k < 3; k++) {
        const td_view *t = q->in[n_lists * n + k];
        if (t->dt != TD_F64 || t->nd)
            return td_fail_as(TD_EDTYPE, "%s: %s: expected a 0-dim f64 tensor, got %s %s", op, scalar[k],
                              td_dtype_name(t->dt), tdi_shape_text(t));
    }
    return true;
}

/* An option that is on needs the state that it works with. */
static bool state_ok(const char *op, td_infer *q, bool on, const char *option, const char *name, uint32_t list)
{
    return !on || !q->n_list || q->in[list * q->n_list] || td_fail("%s: %s needs the list %s", op, option, name);
}

static bool sgd_step_infer(td_infer *q)
{
    static const char *const name[] = {"p", "g", "buf"};
    const td_sgd_step_attr *a = q->attr;
    return step_ok("sgd_step", q, name, 3) && state_ok("sgd_step", q, a->momentum != 0, "momentum", "buf", 2);
}

static bool adam_step_infer(td_infer *q)
{
    static const char *const name[] = {"p", "g", "m", "v", "vmax"};
    const td_adam_step_attr *a = q->attr;
    return step_ok("adam_step", q, name, 5) && state_ok("adam_step", q, a->amsgrad, "amsgrad", "vmax", 4);
}

static bool rmsprop_step_infer(td_infer *q)
{
    static const char *const name[] = {"p", "g", "v", "buf", "avg"};
    const td_rmsprop_step_attr *a = q->attr;
    return step_ok("rmsprop_step", q, name, 5) && state_ok("rmsprop_step", q, a->momentum != 0, "momentum", "buf", 3) &&
           state_ok("rmsprop_step", q, a->centered, "centered", "avg", 4);
}

/* ---- samples ---- */

static td_tensor *scalar(double x) { return td_from_data(TD_F64, (td_ints){0, {0}}, &x); }

/* Two parameters where there is room for them, else one. Lists whose bit in `absent` is set stay NULL. Those from 2 on
 * are state, above 0.5 but for the last, which stays below: so a second moment is more than a squared mean. */
static void step_case(td_sample *s, uint32_t n_lists, uint32_t absent)
{
    uint32_t n = s->n_in >= 2 * n_lists + 3 ? 2 : 1, at = 0;
    for (uint32_t k = 0; k < n_lists; k++)
        for (uint32_t i = 0; i < n; i++) {
            td_ints d = i == 0 ? td_dims(3, 2) : td_dims(5);
            td_tensor *state = td_mul(td_rand(d, TD_F32), td_number(0.5));
            if (k < n_lists - 1) state = td_add(state, td_number(0.5));
            s->in[at++] = absent >> k & 1 ? NULL : k < 2 ? tdi_normal(d) : state;
        }
    s->in[at++] = scalar(3);
    s->in[at++] = scalar(0.1);
    s->in[at++] = scalar(0.01);
    s->n_in = at;
}

static bool sgd_step_sample(uint32_t i, td_sample *s)
{
    td_sgd_step_attr *a = s->opts;
    step_case(s, 3, i == 0 ? 4 : 0);
    if (i == 1) *a = (td_sgd_step_attr){.momentum = 0.9, .nesterov = true};
    if (i == 2) *a = (td_sgd_step_attr){.momentum = 0.5, .dampening = 0.25, .maximize = true};
    return i < 3;
}

static bool adam_step_sample(uint32_t i, td_sample *s)
{
    td_adam_step_attr *a = s->opts;
    step_case(s, 5, i == 2 ? 0 : 16);
    if (i == 1) a->decoupled = true;
    if (i == 2) a->amsgrad = a->maximize = true;
    return i < 3;
}

static bool rmsprop_step_sample(uint32_t i, td_sample *s)
{
    td_rmsprop_step_attr *a = s->opts;
    step_case(s, 5, i == 0 ? 24 : 0);
    if (i == 1) {
        a->momentum = 0.9;
        a->centered = true;
    }
    return i < 2;
}

/* & inputs cannot be cast: no promotion */
enum { STEP = TD_OP_OPTIONAL | TD_OP_NO_PROMOTE };

const td_op tdi_op_sgd_step = {TD_ROW_sgd_step, .flags = STEP, .infer = sgd_step_infer, .sample = sgd_step_sample};
const td_op tdi_op_adam_step = {TD_ROW_adam_step, .flags = STEP, .infer = adam_step_infer, .sample = adam_step_sample};
const td_op tdi_op_rmsprop_step = {TD_ROW_rmsprop_step, .flags = STEP, .infer = rmsprop_step_infer,
                                   .sample = rmsprop_step_sample};
