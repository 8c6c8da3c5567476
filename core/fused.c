/* fused.c - an optimizer's step as one op over lists of all parameters. td_optim.fused names the op and what it takes:
 *
 *     "adam_step p*& g* m*& v*& vmax*?& step. lr. weight_decay. decoupled=true"
 *
 * p and g are parameters and gradients, other lists states, scalars live options or step. An attribute of the op is what a word
 * name=value says, else the option of its name; betaK is element K of the option betas; else its default. */
#include "optim.h"
#include "literal.h"
#include "loader.h"
#include "schema.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *name_of(const td_optimizer *o) { return o->kind->t.name; }

#define BAD(o, ...) bad((o), __VA_ARGS__)
static bool bad(const td_optimizer *o, const char *fmt, const char *word)
{
    char text[128];
    snprintf(text, sizeof text, fmt, word);
    return td_fail_as(TD_EPLUGIN, "%s: fused: \"%.200s\": %s", name_of(o), o->kind->t.fused, text);
}

/* ---- signature ---- */

static int32_t state_place(const td_optimizer *o, const char *name)
{
    for (uint32_t k = 0; k < o->n_state; k++)
        if (!strcmp(o->spec[k].name, name)) return (int32_t)k;
    return -1;
}

static bool bind_name(td_optimizer *o, uint32_t i)
{
    const char *name = o->fused_sig.name[i];
    int32_t place = 0;
    if (o->fused_sig.scalar >> i & 1) {
        o->from[i] = TDI_FROM_LIVE;
        place = tdi_live_place(o, name);
    } else if (!strcmp(name, "p") || !strcmp(name, "g")) {
        o->from[i] = *name == 'p' ? TDI_FROM_PARAM : TDI_FROM_GRAD;
    } else {
        o->from[i] = TDI_FROM_STATE;
        place = state_place(o, name);
    }
    if (place < 0) return BAD(o, "%s is no state, live option or step", name);
    o->place[i] = (uint32_t)place;
    return true;
}

/* Splits "op names... words=..." into the op's name and its signature. */
static bool split(const td_optimizer *o, char *op, size_t op_room, char *sig, size_t sig_room)
{
    const char *text = o->kind->t.fused;
    size_t n = strcspn(text, " "), at = 0;
    if (n >= op_room || strlen(text) >= sig_room) return BAD(o, "it is too long%s", "");
    memcpy(op, text, n);
    op[n] = 0;
    for (const char *w = text + n; *w;) {
        w += strspn(w, " ");
        n = strcspn(w, " ");
        if (n && !memchr(w, '=', n))
            at += (size_t)snprintf(sig + at, sig_room - at, "%s%.*s", at ? " " : "", (int)n, w);
        w += n;
    }
    sig[at] = 0;
    return true;
}

static bool read_signature(td_optimizer *o)
{
    char op[64], sig[512];
    if (!split(o, op, sizeof op, sig, sizeof sig)) return false;
    tdi_op *found = tdi_op_find(op);
    if (!found) return !tdi_failed(); /* without the op, step() does the work */
    if (!tdi_sig_parse(name_of(o), sig, &o->fused_sig)) return false;
    const tdi_sig *a = &o->fused_sig, *b = &found->in;
    if (a->n != b->n || a->list != b->list || a->scalar != b->scalar || (a->optional & ~b->optional))
        return BAD(o, "does not fit the op's signature, \"%.60s\"", found->t.in);
    for (uint32_t i = 0; i < a->n; i++)
        if (!bind_name(o, i)) return false;
    o->fused = found;
    return true;
}

/* ---- attributes ---- */

static bool copy_option(const td_optimizer *o, const td_opt *attr, const td_opt *opt)
{
    char *to = o->attr;
    const char *from = o->self.opts;
    bool there = !opt->has || from[opt->has - 1];
    if (!there && !attr->has)
        return td_fail("%s: %s is none, which the op %s cannot take", name_of(o), opt->name, o->fused->t.name);
    if (attr->has) to[attr->has - 1] = there;
    memcpy(to + attr->off, from + opt->off, attr->size);
    return true;
}

/* betaK is element K of the option betas. */
static bool copy_element(const td_optimizer *o, const td_opt *attr, bool *found)
{
    char list[64];
    size_t n = strlen(attr->name);
    *found = false;
    if (n < 2 || n + 1 > sizeof list || attr->name[n - 1] < '1' || attr->name[n - 1] > '9' ||
        tdi_option_type(attr) != TD_O_NUM)
        return true;
    int64_t k = attr->name[n - 1] - '1';
    snprintf(list, sizeof list, "%.*ss", (int)(n - 1), attr->name);
    uint32_t i = tdi_option_index(o->self.schema, list);
    if (i == o->self.schema->n || tdi_option_type(&o->self.schema->v[i]) != TD_O_NUMS) return true;
    const td_nums *v = (const void *)((const char *)o->self.opts + o->self.schema->v[i].off);
    if (k >= v->n)
        return td_fail("%s: %s: expected at least %lld numbers, got %lld", name_of(o), list, (long long)k + 1,
                       (long long)v->n);
    *(double *)(void *)((char *)o->attr + attr->off) = v->v[k];
    *found = true;
    return true;
}

/* The value of a word name=value, copied to room; false: there is none. */
static bool constant(const td_optimizer *o, const char *name, char *to, size_t room)
{
    size_t len = strlen(name);
    for (const char *w = o->kind->t.fused; *w;) {
        w += strspn(w, " ");
        size_t n = strcspn(w, " ");
        if (n > len + 1 && n - len - 1 < room && !memcmp(w, name, len) && w[len] == '=') {
            snprintf(to, room, "%.*s", (int)(n - len - 1), w + len + 1);
            return true;
        }
        w += n;
    }
    return false;
}

static bool set_constant(const td_optimizer *o, uint32_t i, const char *text)
{
    tdi_literal store;
    td_value v;
    char why[160];
    if (!tdi_literal_value(text, &store, &v, why, sizeof why)) return BAD(o, "%s", why);
    return td_option_set(&o->fused->t.attr, name_of(o), i, &v, o->attr);
}

static bool fill_one(const td_optimizer *o, uint32_t i)
{
    const td_opt *attr = &o->fused->t.attr.v[i];
    char text[64];
    if (constant(o, attr->name, text, sizeof text)) return set_constant(o, i, text);
    uint32_t k = tdi_option_index(o->self.schema, attr->name);
    const td_opt *opt = k < o->self.schema->n ? &o->self.schema->v[k] : NULL;
    if (opt && tdi_option_type(opt) == tdi_option_type(attr) && tdi_option_type(attr) != TD_O_STR)
        return copy_option(o, attr, opt);
    bool found;
    if (!copy_element(o, attr, &found)) return false;
    if (!found && !attr->dflt) return BAD(o, "nothing says what the op's attribute %s is", attr->name);
    return true;
}

static bool fill_attr(td_optimizer *o)
{
    const td_opts *s = &o->fused->t.attr;
    if (!o->attr_stale || !s->n) return true;
    for (uint32_t i = 0; i < s->n; i++)
        if (!fill_one(o, i)) return false;
    o->attr_stale = false;
    return true;
}

/* Defaults where there are some; what is required is filled by fill_one. */
static bool default_attr(td_optimizer *o)
{
    const td_opts *s = &o->fused->t.attr;
    const tdi_schema *schema = tdi_schema_of(s, o->fused->t.name);
    o->attr = calloc(1, s->out_size ? s->out_size : 1);
    if (!schema || !o->attr) return td_fail_as(TD_ENOMEM, "%s: out of memory", name_of(o));
    if (schema->strings) return BAD(o, "attributes that are strings cannot be filled (%s)", o->fused->t.name);
    if (s->out_size) memcpy(o->attr, schema->image, s->out_size);
    return true;
}

bool tdi_fused_prepare(td_optimizer *o)
{
    if (!o->kind->t.fused || !*o->kind->t.fused) return true;
    if (!read_signature(o)) return false;
    if (!o->fused) return true;
    uint32_t lists = (uint32_t)__builtin_popcountll(o->fused_sig.list), single = o->fused_sig.n - lists;
    o->flat = malloc(((size_t)lists * o->n + single + 1) * sizeof *o->flat);
    if (!o->flat) return td_fail_as(TD_ENOMEM, "%s: out of memory", name_of(o));
    o->attr_stale = true;
    return default_attr(o) && fill_attr(o);
}

void tdi_fused_free(td_optimizer *o)
{
    free(o->attr);
    free(o->flat);
}

/* ---- the call ---- */

static bool plain(const td_tensor *t, const td_device *dev)
{
    return t && t->st && t->st->dev == dev && t->v.dt == TD_F32 && td_view_dense(&t->v);
}

/* Whether all is dense f32 on one device that has a kernel. */
static bool applies(td_optimizer *o, uint32_t n, td_device **dev)
{
    if (!n) return false;
    *dev = o->param[o->with_grad[0]]->st->dev;
    for (uint32_t j = 0; j < n; j++) {
        uint32_t i = o->with_grad[j];
        if (!plain(o->param[i], *dev) || !plain(o->grad[j], *dev)) return false;
        for (uint32_t k = 0; k < o->n_state; k++)
            if (o->active[k] && !o->spec[k].scalar && !plain(o->state[i * o->n_state + k], *dev)) return false;
    }
    return td_has_kernel(o->fused->id, (*dev)->be->t.name, TD_F32);
}

static td_tensor *list_item(const td_optimizer *o, uint32_t name, uint32_t j)
{
    uint32_t i = o->with_grad[j], k = o->place[name];
    switch (o->from[name]) {
    case TDI_FROM_PARAM: return o->param[i];
    case TDI_FROM_GRAD: return o->grad[j];
    default: return o->active[k] ? o->state[i * o->n_state + k] : NULL;
    }
}

bool tdi_fused_step(td_optimizer *o, uint32_t n, bool *done)
{
    td_device *dev;
    uint32_t at = 0, n_out = 0;
    td_tensor *none;
    *done = false;
    if (tdi_ctx()->decompose || !applies(o, n, &dev)) return !tdi_failed();
    if (!fill_attr(o)) return false;
    for (uint32_t name = 0; name < o->fused_sig.n; name++) {
        if (o->from[name] == TDI_FROM_LIVE) {
            if (!(o->flat[at++] = tdi_live_scalar(o, dev, o->place[name]))) return false;
        } else {
            for (uint32_t j = 0; j < n; j++) o->flat[at++] = list_item(o, name, j);
        }
    }
    *done = true;
    return TD->call(o->fused->id, o->flat, at, o->fused->t.attr.n ? o->attr : NULL, &none, &n_out);
}
