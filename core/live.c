/* live.c - live options and the step number of an optimizer as device scalars: 0-dim f64 tensors that promote nothing, one set
 * for each device, written only when the value has changed. So a recorded step reads what is current. */
#include "optim.h"
#include "schema.h"
#include <stdlib.h>
#include <string.h>

/* Places: options by their place in the schema, then "step". */
int32_t tdi_live_place(const td_optimizer *o, const char *name)
{
    const td_opts *s = o->self.schema;
    if (!strcmp(name, "step")) return (int32_t)s->n;
    uint32_t i = tdi_option_index(s, name);
    return i < s->n && s->v[i].type & TD_OPT_LIVE ? (int32_t)i : -1;
}

static tdi_live *set_on(td_optimizer *o, td_device *dev)
{
    tdi_live *l = o->live;
    while (l && l->dev != dev) l = l->next;
    if (l) return l;
    uint32_t n = o->self.schema->n + 1;
    l = calloc(1, sizeof *l);
    if (l) {
        l->dev = dev;
        l->t = calloc(n, sizeof *l->t);
        l->value = calloc(n, sizeof *l->value);
        l->next = o->live;
        o->live = l;
    }
    if (l && l->t && l->value) return l;
    td_fail_as(TD_ENOMEM, "%s: out of memory", tdi_module_name(&o->self));
    return NULL;
}

static double value_now(const td_optimizer *o, uint32_t place)
{
    const td_opts *s = o->self.schema;
    if (place == s->n) return (double)o->steps;
    return *(const double *)(const void *)((const char *)o->self.opts + s->v[place].off);
}

static td_tensor *new_scalar(td_device *dev)
{
    td_tensor *t = tdi_tensor_alloc();
    if (!t) return NULL;
    t->v.dt = TD_F64;
    if (!tdi_tensor_allocate(t, dev)) {
        tdi_release(t);
        return NULL;
    }
    t->v.flags |= TD_V_NUMBER; /* it has storage, so it is no plain number, but it promotes like one */
    return t;
}

static bool write_scalar(td_tensor *t, double value)
{
    if (t->st->dev->unified && !t->st->dev->async) {
        *(double *)t->v.p = value;
        return true;
    }
    bool grad = td_grad_enable(false);
    bool ok = td_full_into(t, td_dims_n(0, NULL), value, TD_F64) != NULL;
    td_grad_enable(grad);
    return ok;
}

td_tensor *tdi_live_scalar(td_optimizer *o, td_device *dev, uint32_t place)
{
    tdi_live *l = set_on(o, dev);
    if (!l) return NULL;
    double value = value_now(o, place);
    bool fresh = !l->t[place];
    if (fresh && !(l->t[place] = new_scalar(dev))) return NULL;
    if (!fresh && value == l->value[place]) return l->t[place];
    if (!write_scalar(l->t[place], value)) {
        tdi_release(l->t[place]);
        l->t[place] = NULL;
        return NULL;
    }
    l->value[place] = value;
    return l->t[place];
}

bool tdi_live_refresh(td_optimizer *o)
{
    for (tdi_live *l = o->live; l; l = l->next)
        for (uint32_t i = 0; i <= o->self.schema->n; i++)
            if (l->t[i] && !tdi_live_scalar(o, l->dev, i)) return false;
    return true;
}

td_tensor *tdi_optimizer_scalar(td_optimizer *o, const char *name)
{
    int32_t place = tdi_live_place(o, name);
    if (place < 0)
        return td_fail_as(TD_EPLUGIN, "%s: \"%.60s\" is neither a live option nor \"step\"", tdi_module_name(&o->self),
                          name);
    td_device *dev = o->dev ? o->dev : tdi_device_default(tdi_ctx());
    return dev ? tdi_live_scalar(o, dev, (uint32_t)place) : NULL;
}

void tdi_live_free(td_optimizer *o)
{
    for (tdi_live *l = o->live, *next; l; l = next) {
        next = l->next;
        for (uint32_t i = 0; l->t && i <= o->self.schema->n; i++) tdi_release(l->t[i]);
        free(l->t);
        free(l->value);
        free(l);
    }
}
