/* optim.c - td_optimizer_*: parameters, states, options and the step. live.c has the live scalars, fused.c the fused call. */
#include "optim.h"
#include "loader.h"
#include "schema.h"
#include "trace.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *name_of(const td_optimizer *o) { return o->kind->t.name; }

static bool no_memory(const td_optimizer *o) { return td_fail_as(TD_ENOMEM, "%s: out of memory", name_of(o)); }

/* ---- states ---- */

/* "m v vmax?amsgrad mu.": checked when the table was registered. */
static void read_specs(td_optimizer *o)
{
    for (const char *w = o->kind->t.state ? o->kind->t.state : ""; *w;) {
        w += strspn(w, " ");
        size_t len = strcspn(w, " "), stem = strcspn(w, " ?.");
        if (!len) break;
        tdi_state_spec *s = &o->spec[o->n_state++];
        snprintf(s->name, sizeof s->name, "%.*s", (int)stem, w);
        s->scalar = w[stem] == '.';
        stem += s->scalar;
        s->option = -1;
        if (w[stem] == '?') {
            char option[64];
            snprintf(option, sizeof option, "%.*s", (int)(len - stem - 1), w + stem + 1);
            s->option = (int32_t)tdi_option_index(o->self.schema, option);
        }
        w += len;
    }
}

/* Whether an option is neither zero, false, none nor empty. */
static bool is_on(const td_optimizer *o, uint32_t option)
{
    const td_opt *opt = &o->self.schema->v[option];
    const char *base = o->self.opts;
    const void *field = base + opt->off;
    if (opt->has && !base[opt->has - 1]) return false;
    switch (tdi_option_type(opt)) {
    case TD_O_NUM: return *(const double *)field != 0;
    case TD_O_BOOL: return *(const bool *)field;
    case TD_O_STR: return *(const char *const *)field != NULL;
    case TD_O_ENUM: return *(const int32_t *)field != 0;
    case TD_O_INT:
    case TD_O_AXIS:
    case TD_O_INDEX: return *(const int64_t *)field != 0;
    default: return *(const int64_t *)field != 0; /* a list's n */
    }
}

static void options_changed(td_optimizer *o)
{
    for (uint32_t k = 0; k < o->n_state; k++)
        o->active[k] = o->spec[k].option < 0 || is_on(o, (uint32_t)o->spec[k].option);
    o->attr_stale = true;
}

static bool same_shape(const td_view *a, const td_view *b)
{
    return a->nd == b->nd && !memcmp(a->dim, b->dim, (size_t)a->nd * sizeof *a->dim);
}

/* A zero state on p's device, given to the caller's scope. */
static td_tensor *zero_state(const tdi_state_spec *s, const td_tensor *p, td_device *dev)
{
    td_context *ctx = tdi_ctx();
    td_device *before = ctx->device;
    ctx->device = dev;
    td_tensor *t = s->scalar ? td_zeros(td_dims_n(0, NULL), TD_F64) : td_zeros(td_dims_n(p->v.nd, p->v.dim), p->v.dt);
    ctx->device = before;
    return t;
}

/* Follows a parameter that was moved to another device or dtype. */
static td_tensor *moved_state(const tdi_state_spec *s, td_tensor *t, const td_tensor *p, td_device *dev)
{
    if (t->st->dev != dev) t = td_tensor_to(t, dev->name);
    if (t && !s->scalar && t->v.dt != p->v.dt) t = td_cast(t, p->v.dt);
    return t;
}

static bool replace(td_tensor **slot, td_tensor *t)
{
    if (!t) return false;
    if (t == *slot) return true;
    tdi_keep(t);
    tdi_release(*slot);
    *slot = t;
    return true;
}

static bool state_fits(const tdi_state_spec *s, const td_tensor *t, const td_tensor *p)
{
    return t && t->st->dev == p->st->dev && (s->scalar || (t->v.dt == p->v.dt && same_shape(&t->v, &p->v)));
}

static bool ensure_one(td_optimizer *o, uint32_t i, uint32_t k)
{
    td_tensor *p = o->param[i], **slot = &o->state[i * o->n_state + k];
    const tdi_state_spec *s = &o->spec[k];
    if (state_fits(s, *slot, p)) return true;
    tdi_scope_push();
    bool keep = *slot && (s->scalar || same_shape(&(*slot)->v, &p->v));
    bool ok = replace(slot, keep ? moved_state(s, *slot, p, p->st->dev) : zero_state(s, p, p->st->dev));
    tdi_scope_pop(NULL);
    return ok;
}

static bool ensure_states(td_optimizer *o, uint32_t i)
{
    for (uint32_t k = 0; k < o->n_state; k++)
        if (o->active[k] && !ensure_one(o, i, k)) return false;
    return true;
}

/* ---- life ---- */

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (td_tensor *const *)a, y = (uintptr_t) * (td_tensor *const *)b;
    return x < y ? -1 : x > y;
}

static bool check_params(const td_optimizer *o, td_tensor *const *params, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const td_tensor *p = params[i];
        if (!p) return td_fail("%s: parameter %u is missing", name_of(o), i + 1);
        if (tdi_is_number(p) || !td_dtype_is_float(p->v.dt))
            return td_fail_as(TD_EDTYPE, "%s: parameter %u: expected a tensor of a float dtype, got %s", name_of(o),
                              i + 1, tdi_describe(p));
        if (p->node)
            return td_fail("%s: parameter %u is the result of %s, not a leaf", name_of(o), i + 1, td_made_by(p));
    }
    return true;
}

static bool check_twice(const td_optimizer *o)
{
    td_tensor **sorted = o->grad; /* room for n */
    memcpy(sorted, o->param, o->n * sizeof *sorted);
    qsort(sorted, o->n, sizeof *sorted, by_address);
    for (uint32_t i = 1; i < o->n; i++) {
        if (sorted[i] != sorted[i - 1]) continue;
        uint32_t at = 0;
        while (o->param[at] != sorted[i]) at++;
        return td_fail("%s: parameter %u is given twice", name_of(o), at + 1);
    }
    return true;
}

static bool take_params(td_optimizer *o, td_tensor *const *params, uint32_t n)
{
    if (!check_params(o, params, n)) return false;
    o->param = calloc(n + 1, sizeof *o->param);
    o->state = calloc((size_t)n * o->n_state + 1, sizeof *o->state);
    o->with_grad = calloc(n + 1, sizeof *o->with_grad);
    o->grad = calloc(n + 1, sizeof *o->grad);
    if (!o->param || !o->state || !o->with_grad || !o->grad) return no_memory(o);
    for (; o->n < n; o->n++) o->param[o->n] = tdi_keep(params[o->n]);
    return check_twice(o);
}

td_optimizer *td_optimizer_new(const td_optim *t, td_tensor *const *params, uint32_t n, const td_args *given)
{
    const tdi_optim *kind = tdi_failed() ? NULL : tdi_optim_of(t);
    if (!kind) return NULL;
    td_optimizer *o = calloc(1, sizeof *o);
    void *opts = calloc(1, t->opts.out_size ? t->opts.out_size : 1);
    if (!o || !opts) {
        free(o);
        free(opts);
        td_fail_as(TD_ENOMEM, "%s: out of memory", t->name);
        return NULL;
    }
    atomic_init(&o->self.refs, 1);
    o->self.optimizer = o;
    o->self.schema = &t->opts;
    o->self.opts = opts;
    o->self.training = true;
    o->kind = kind;
    read_specs(o);
    bool ok =
        td_options_fill(o->self.schema, t->name, given, opts) && take_params(o, params, n) && tdi_fused_prepare(o);
    if (!ok) {
        td_optimizer_free(o);
        return NULL;
    }
    options_changed(o);
    return o;
}

td_optimizer *tdi_optimizer_keep(td_optimizer *o)
{
    atomic_fetch_add_explicit(&o->self.refs, 1, memory_order_relaxed);
    return o;
}

void td_optimizer_free(td_optimizer *o)
{
    if (!o || atomic_fetch_sub_explicit(&o->self.refs, 1, memory_order_acq_rel) != 1) return;
    for (uint32_t i = 0; i < o->n; i++) tdi_release(o->param[i]);
    for (size_t i = 0; o->state && i < (size_t)o->n * o->n_state; i++) tdi_release(o->state[i]);
    tdi_live_free(o);
    tdi_fused_free(o);
    td_options_clear(o->self.schema, o->self.opts);
    free(o->self.opts);
    free(o->param);
    free(o->state);
    free(o->with_grad);
    free(o->grad);
    free(o);
}

/* ---- the step ---- */

static bool step_one(td_optimizer *o, uint32_t i, td_tensor *g)
{
    td_tensor *state[TDI_MAX_NAMES + 1] = {NULL};
    for (uint32_t k = 0; k < o->n_state; k++)
        if (o->active[k]) state[k] = o->state[i * o->n_state + k];
    o->dev = o->param[i]->st->dev;
    tdi_scope_push();
    bool ok = o->kind->t.step(&o->self, o->param[i], g, state);
    if (!ok && !tdi_failed())
        td_fail_as(TD_EPLUGIN, "%s: its step failed without saying why (plugin %s)", name_of(o),
                   tdi_plugin_name(o->kind->from));
    tdi_scope_pop(NULL);
    o->dev = NULL;
    return !tdi_failed();
}

static bool step_all(td_optimizer *o, uint32_t n)
{
    bool done = false;
    for (uint32_t j = 0; j < n; j++)
        if (!ensure_states(o, o->with_grad[j])) return false;
    if (o->fused && !tdi_fused_step(o, n, &done)) return false;
    for (uint32_t j = 0; j < n && !done; j++)
        if (!step_one(o, o->with_grad[j], o->grad[j])) return false;
    return true;
}

bool td_optimizer_step(td_optimizer *o)
{
    uint32_t n = 0;
    if (tdi_failed()) return false;
    for (uint32_t i = 0; i < o->n; i++) {
        td_tensor *g = td_grad_of(o->param[i]);
        if (!g) continue;
        o->with_grad[n] = i;
        o->grad[n++] = g;
    }
    if (tdi_failed() || (tdi_ctx()->trace && !tdi_trace_optimizer(o))) return false;
    bool recording = td_grad_enable(false);
    o->steps++;
    bool ok = step_all(o, n);
    td_grad_enable(recording);
    if (ok) return true;
    o->steps--;
    tdi_name_error(name_of(o));
    return false;
}

void td_optimizer_zero_grad(td_optimizer *o)
{
    for (uint32_t i = 0; i < o->n; i++) td_set_grad(o->param[i], NULL);
}

/* ---- options ---- */

static bool find_option(const td_optimizer *o, const char *name, uint32_t *option)
{
    *option = tdi_option_index(o->self.schema, name);
    if (*option < o->self.schema->n) return true;
    char usage[512];
    td_options_usage(o->self.schema, name_of(o), usage, sizeof usage);
    return td_fail("%s: there is no option \"%.60s\": %s", name_of(o), name, usage);
}

bool td_optimizer_set(td_optimizer *o, const char *name, const td_value *v)
{
    uint32_t i;
    if (tdi_failed() || !find_option(o, name, &i) || !td_option_set(o->self.schema, name_of(o), i, v, o->self.opts))
        return false;
    if (!(o->self.schema->v[i].type & TD_OPT_LIVE)) o->version++;
    options_changed(o);
    return true;
}

bool td_optimizer_get(td_optimizer *o, const char *name, td_value *v)
{
    uint32_t i;
    return !tdi_failed() && find_option(o, name, &i) && td_option_get(o->self.schema, i, o->self.opts, v);
}

/* ---- asking, and checkpoints ---- */

const td_optim *td_optimizer_kind(const td_optimizer *o) { return &o->kind->t; }
td_tensor *td_optimizer_param(const td_optimizer *o, uint32_t i) { return i < o->n ? o->param[i] : NULL; }
int64_t td_optimizer_steps(const td_optimizer *o) { return o->steps; }
void td_optimizer_set_steps(td_optimizer *o, int64_t n) { o->steps = n < 0 ? 0 : n; }

td_tensor *td_optimizer_state(const td_optimizer *o, uint32_t i, uint32_t k, const char **name)
{
    bool there = i < o->n && k < o->n_state;
    if (name) *name = there ? o->spec[k].name : NULL;
    return there ? o->state[i * o->n_state + k] : NULL;
}

bool td_optimizer_set_state(td_optimizer *o, uint32_t i, const char *name, td_tensor *t)
{
    uint32_t k = 0;
    if (tdi_failed()) return false;
    if (i >= o->n) return td_fail("%s: there is no parameter %u; it has %u", name_of(o), i + 1, o->n);
    while (k < o->n_state && strcmp(o->spec[k].name, name)) k++;
    if (k == o->n_state) return td_fail("%s: it keeps no state \"%.60s\"", name_of(o), name);
    const tdi_state_spec *s = &o->spec[k];
    const td_tensor *p = o->param[i];
    if (!t || tdi_is_number(t) || (s->scalar ? t->v.nd != 0 : !same_shape(&t->v, &p->v)))
        return td_fail_as(TD_ESHAPE, "%s: state %s of parameter %u: expected the shape of %s, got %s", name_of(o), name,
                          i + 1, s->scalar ? "a 0-dim tensor" : tdi_describe(p), t ? tdi_describe(t) : "nothing");
    bool recording = td_grad_enable(false);
    tdi_scope_push();
    td_tensor *copy = td_tensor_to(td_cast(td_tensor_detach(t), s->scalar ? TD_F64 : p->v.dt), p->st->dev->name);
    if (copy && copy->st == t->st) copy = td_copy(copy);
    bool ok = replace(&o->state[i * o->n_state + k], copy);
    tdi_data_changed();
    tdi_scope_pop(NULL);
    td_grad_enable(recording);
    return ok;
}
