/* host.c - the host table: the one way in for plugins, for programs, and for the core's own op definitions. */
#include "dispatch.h"
#include "module.h"

const td_host *TD; /* set before main by the constructor below: op definitions in core/ops use it as plugins do */

static tdi_op *checked_op(uint32_t id)
{
    tdi_op *op = tdi_op_by_id(id);
    if (!op) td_fail("call: %u is no op", id);
    return op;
}

static uint32_t op_id(const char *name)
{
    if (tdi_failed()) return UINT32_MAX;
    tdi_op *op = tdi_op_find(name);
    if (op) return op->id;
    td_fail_as(TD_ENOKERNEL, "no op is named %s, and no plugin on the search path provides one", name);
    return UINT32_MAX;
}

static bool call(uint32_t id, td_tensor *const *in, uint32_t n_in, const void *attr, td_tensor **out, uint32_t *n_out)
{
    if (tdi_failed()) return false;
    tdi_op *op = checked_op(id);
    return op && tdi_run(op, in, n_in, attr, NULL, out, n_out);
}

static bool call_into(uint32_t id, td_tensor *const *in, uint32_t n_in, const void *attr, td_tensor *const *out,
                      uint32_t n_out)
{
    if (tdi_failed()) return false;
    tdi_op *op = checked_op(id);
    if (!op) return false;
    if (op->t.flags & TD_OP_VIEW) return td_fail("%s: a view has no form with a given output", op->t.name);
    if (op->out.list || n_out != op->out.n)
        return td_fail("%s: expected %u given outputs (%s), got %u", op->t.name, op->out.n, op->t.out, n_out);
    for (uint32_t i = 0; i < n_out; i++)
        if (!out[i]) return td_fail("%s: given output %u is missing", op->t.name, i + 1);
    td_tensor *got[TD_MAX_OUT];
    uint32_t room = TD_MAX_OUT;
    return tdi_run(op, in, n_in, attr, out, got, &room);
}

static td_tensor *keep(td_tensor *t) { return t && !tdi_failed() ? tdi_keep(t) : NULL; }

static void release(td_tensor *t) { tdi_release(t); }

static const void *extension(const char *name, uint32_t min_version)
{
    (void)name;
    (void)min_version;
    return NULL; /* none yet; what comes later is found by name */
}

static const td_host table = {
    .size = sizeof(td_host),
    .abi_major = TD_ABI_MAJOR,
    .abi_minor = TD_ABI_MINOR,
    .add = tdi_add,
    .fail = tdi_fail,
    .error = tdi_error,
    .op_id = op_id,
    .call = call,
    .call_into = call_into,
    .item = tdi_item,
    .from_data = tdi_from_data,
    .view = tdi_view,
    .dim = tdi_dim,
    .keep = keep,
    .release = release,
    .used_on = tdi_used_on,
    .scope_push = tdi_scope_push,
    .scope_pop = tdi_scope_pop,
    .new_param = tdi_module_new_param,
    .new_buffer = tdi_module_new_buffer,
    .new_child = tdi_module_new_child,
    .run_child = tdi_module_run_child,
    .param = tdi_module_param,
    .has_param = tdi_module_has_param,
    .scalar = tdi_module_scalar,
    .options = tdi_module_options,
    .training = tdi_module_training,
    .user = tdi_module_user,
    .extension = extension,
};

const td_host *td_host_get(void) { return &table; }

__attribute__((constructor)) static void set_host(void) { TD = &table; }
