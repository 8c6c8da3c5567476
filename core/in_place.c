/* in_place.c - what may be written in place, and what follows from it. See ABI.md, rule 11. */
#include "run.h"
#include <string.h>

/* Whether two elements may share memory: taken from the least stride up, each must lead past all that lies below it. */
static bool overlaps_itself(const td_view *v)
{
    int32_t by_stride[TD_MAX_DIM], n = 0;
    if (td_view_dense(v) || td_view_numel(v) <= 1) return false;
    for (int32_t i = 0; i < v->nd; i++) {
        if (v->dim[i] <= 1) continue;
        int32_t at = n++;
        for (; at > 0 && v->stride[by_stride[at - 1]] > v->stride[i]; at--) by_stride[at] = by_stride[at - 1];
        by_stride[at] = i;
    }
    int64_t below = 0;
    for (int32_t k = 0; k < n; k++) {
        int32_t i = by_stride[k];
        if (v->stride[i] <= below) return true;
        below += (v->dim[i] - 1) * v->stride[i];
    }
    return false;
}

/* "the output", or the name of input `place`: made only for a message, for optimizers write hundreds of inputs. */
static const char *written_name(const tdi_runner *r, int64_t place)
{
    return place < 0 ? "the output" : tdi_place_name(r->op, (uint32_t)place, r->n_list);
}

static bool may_be_written(const tdi_runner *r, const td_tensor *t)
{
    bool plain = t->st && !t->shell && (td_view_dense(&t->v) || !overlaps_itself(&t->v));
    return plain && (!r->ctx->grad || (!t->requires_grad && !(t->is_view && (r->wants_grad || t->node))));
}

/* place: of an input, or -1 */
static bool check_written(const tdi_runner *r, const td_tensor *t, int64_t place)
{
    if (may_be_written(r, t)) return true;
    const char *op = r->op->t.name, *what = written_name(r, place);
    if (tdi_is_number(t)) return td_fail("%s: %s is a plain number and cannot be written in place", op, what);
    if (t->shell) return td_fail_as(TD_EPLUGIN, "%s: %s was not saved for backward and cannot be written", op, what);
    if (overlaps_itself(&t->v))
        return td_fail(
            "%s: %s is broadcast or overlaps itself (several elements share memory) and cannot be written in place", op,
            what);
    if (!r->ctx->grad) return true;
    if (t->requires_grad)
        return td_fail(
            "%s: %s is a leaf that wants a gradient and cannot be changed in place; do so inside tide.no_grad", op,
            what);
    if (t->is_view && (r->wants_grad || t->node))
        return td_fail("%s: %s is a view, and a recorded change in place of a view would be lost to its base; "
                       "use where, cat, stack or index_copy, or work on a clone",
                       op, what);
    return true;
}

bool tdi_check_into(const tdi_runner *r)
{
    for (uint32_t i = 0; i < r->n_out; i++) {
        const td_tensor *to = r->into[i];
        const td_view *v = r->ov[i];
        if (!check_written(r, to, -1)) return false;
        if (to->st->dev != r->dev)
            return td_fail_as(TD_EDEVICE, "%s: the output is on %s, the inputs on %s", r->op->t.name, to->st->dev->name,
                              r->dev->name);
        if (!tdi_same_dims(&to->v, v))
            return td_fail_as(TD_ESHAPE, "%s: a result %s does not fit in place into %s", r->op->t.name,
                              tdi_describe(r->out[i]), tdi_describe(to));
        bool loses = td_dtype_is_float(v->dt) && !td_dtype_is_float(to->v.dt);
        if (loses || (to->v.dt == TD_BOOL && v->dt != TD_BOOL))
            return td_fail_as(TD_EDTYPE, "%s: a result of dtype %s cannot be written in place into %s", r->op->t.name,
                              td_dtype_name(v->dt), td_dtype_name(to->v.dt));
    }
    return true;
}

bool tdi_check_written_inputs(const tdi_runner *r)
{
    for (uint32_t i = 0; i < r->n_in; i++)
        if (r->in[i] && r->marks[i] & TDI_WRITTEN && !check_written(r, r->in[i], i)) return false;
    return true;
}

static void bump(td_storage *st, bool recorded)
{
    atomic_fetch_add_explicit(&st->version, 1, memory_order_relaxed);
    if (recorded) atomic_fetch_add_explicit(&st->rebased, 1, memory_order_relaxed);
}

void tdi_bump_versions(const tdi_runner *r, bool recorded)
{
    for (uint32_t i = 0; r->into && i < r->n_out; i++) bump(r->into[i]->st, recorded);
    if (!r->op->in.written) return;
    for (uint32_t i = 0; i < r->n_in; i++)
        if (r->in[i] && r->marks[i] & TDI_WRITTEN) bump(r->in[i]->st, recorded);
}

/* Whether the kernel may write straight into a given output: dtype and strides suit it, and no input would be overwritten
 * before it is read. */
bool tdi_may_write_into(const tdi_runner *r, const td_kernel *k, const td_tensor *to, td_dtype dt)
{
    if (to->v.dt != dt || (!(k->flags & TD_K_STRIDED) && !td_view_dense(&to->v))) return false;
    for (uint32_t i = 0; i < r->n_in; i++) {
        const td_tensor *t = r->in[i];
        if (!t || t->st != to->st || r->iv[i] != &t->v) continue;
        bool same = t->v.p == to->v.p && tdi_same_dims(&t->v, &to->v) &&
                    !memcmp(t->v.stride, to->v.stride, (size_t)t->v.nd * sizeof *t->v.stride);
        if (!same || !(k->flags & TD_K_ALIAS_OK)) return false;
    }
    return true;
}
