/* module.c - modules: made from a layer's table and options, run, and asked for their tensors. declare.c has what init() calls. */
#include "module.h"
#include "loader.h"
#include "trace.h"
#include <tide/capture.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* MAX_NESTING: of modules inside each other's init or forward: a layer that holds itself ends here.
 * ENOUGH: a message of that length gets no more context, so that its end, where the cause is, is not pushed out */
enum { MAX_NESTING = 64, ENOUGH = 400 };

static __thread uint32_t nesting;

const char *tdi_module_name(const td_module *m)
{
    return m->layer ? m->layer->t.name : m->optimizer ? td_optimizer_kind(m->optimizer)->name : "module";
}

void tdi_name_error(const char *who)
{
    const char *msg = tdi_ctx()->msg;
    size_t n = strlen(who);
    if (strncmp(msg, who, n) || msg[n] != ':') tdi_error_in("%s", who);
}

void tdi_error_in(const char *fmt, const char *name)
{
    char where[96];
    if (strlen(tdi_ctx()->msg) > ENOUGH) return;
    snprintf(where, sizeof where, fmt, name);
    tdi_error_prefix("%s: ", where);
}

static bool enter(const char *who)
{
    if (nesting >= MAX_NESTING)
        return td_fail_as(TD_EPLUGIN, "%s: modules are nested %d deep: does one hold itself?", who, MAX_NESTING);
    nesting++;
    return true;
}

/* ---- life ---- */

/* All names in one list, so that td_module_tensor is a lookup and its names live as long as the module. */
static bool flatten(td_module *m)
{
    uint32_t n = m->n_member, at = 0;
    for (uint32_t i = 0; i < m->n_child; i++) n += m->child[i].m->n_flat;
    m->flat = calloc(n + 1, sizeof *m->flat);
    if (!m->flat) return td_fail_as(TD_ENOMEM, "%s: out of memory", tdi_module_name(m));
    for (; at < m->n_member; at++) m->flat[at] = (tdi_flat){m->member[at].name, m, at};
    m->n_flat = at;
    for (uint32_t i = 0; i < m->n_child; i++) {
        const td_module *c = m->child[i].m;
        for (uint32_t k = 0; k < c->n_flat; k++, at++) {
            tdi_flat f = c->flat[k];
            if (asprintf(&f.name, "%s.%s", m->child[i].name, c->flat[k].name) < 0)
                return td_fail_as(TD_ENOMEM, "%s: out of memory", tdi_module_name(m));
            m->flat[at] = f;
            m->n_flat = at + 1;
        }
    }
    return true;
}

static bool run_init(td_module *m)
{
    const td_layer *t = &m->layer->t;
    if (!enter(t->name)) return false;
    m->declaring = m->began = true;
    bool grad = td_grad_enable(false); /* so that init may write to a parameter */
    tdi_scope_push();
    bool ok = !t->init || t->init(m, m->opts);
    if (!ok && !tdi_failed())
        td_fail_as(TD_EPLUGIN, "%s: its init failed without saying why (plugin %s)", t->name,
                   tdi_plugin_name(m->layer->from));
    tdi_scope_pop(NULL);
    td_grad_enable(grad);
    m->declaring = false;
    nesting--;
    return !tdi_failed();
}

td_module *td_module_new(const td_layer *t, const td_args *given)
{
    const tdi_layer *l = tdi_failed() ? NULL : tdi_layer_of(t);
    if (!l) return NULL;
    td_module *m = calloc(1, sizeof *m);
    void *opts = calloc(1, t->opts.out_size ? t->opts.out_size : 1);
    if (!m || !opts) {
        free(m);
        free(opts);
        td_fail_as(TD_ENOMEM, "%s: out of memory", t->name);
        return NULL;
    }
    atomic_init(&m->refs, 1);
    m->layer = l;
    m->schema = &l->t.opts;
    m->opts = opts;
    m->training = true;
    if (td_options_fill(m->schema, t->name, given, m->opts) && run_init(m) && flatten(m)) return m;
    tdi_name_error(t->name);
    td_module_release(m);
    return NULL;
}

td_module *td_module_keep(td_module *m)
{
    if (m) atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

/* An error of drop() has nobody to report to, and the one that was pending before stays. */
static void run_drop(td_module *m)
{
    bool failed = tdi_failed();
    m->layer->t.drop(m);
    if (!failed) td_error_take(NULL);
}

void td_module_release(td_module *m)
{
    if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1) return;
    if (m->began && m->layer->t.drop) run_drop(m);
    for (uint32_t i = m->n_member; i < m->n_flat; i++) free(m->flat[i].name);
    free(m->flat);
    for (uint32_t i = 0; i < m->n_member; i++) {
        free(m->member[i].name);
        tdi_release(m->member[i].t);
    }
    free(m->member);
    for (uint32_t i = 0; i < m->n_child; i++) {
        free(m->child[i].name);
        td_module_release(m->child[i].m);
    }
    free(m->child);
    td_options_clear(m->schema, m->opts);
    free(m->opts);
    free(m);
}

/* ---- running ---- */

/* "1 input (x)", "1 to 2 inputs (x target weight?)" */
static bool wrong_count(const td_module *m, uint32_t n_in)
{
    const tdi_sig *s = &m->layer->in;
    uint32_t least = s->n;
    while (least && s->optional >> (least - 1) & 1) least--;
    if (s->list) return td_fail("%s: %u inputs do not fit its signature (%s)", m->layer->t.name, n_in, m->layer->t.in);
    if (least < s->n)
        return td_fail("%s: expected %u to %u inputs (%s), got %u", m->layer->t.name, least, s->n, m->layer->t.in,
                       n_in);
    return td_fail("%s: expected %u input%s (%s), got %u", m->layer->t.name, s->n, s->n == 1 ? "" : "s", m->layer->t.in,
                   n_in);
}

static bool missing(const td_module *m, const char *name)
{
    return td_fail("%s: input %s is missing", m->layer->t.name, name);
}

/* Inputs by place. Optional ones at the end may be left out; then all is copied, with NULLs, to padded. */
static bool check_inputs(const td_module *m, td_tensor *const **in, uint32_t *n_in, td_tensor **padded)
{
    const tdi_sig *s = &m->layer->in;
    uint32_t lists = (uint32_t)__builtin_popcountll(s->list), single = s->n - lists, n_list = 0;
    if (lists) {
        if (*n_in < single || (*n_in - single) % lists) return wrong_count(m, *n_in);
        n_list = (*n_in - single) / lists;
    } else if (*n_in > s->n) {
        return wrong_count(m, *n_in);
    }
    uint32_t place = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t places = s->list >> i & 1 ? n_list : 1;
        for (uint32_t k = 0; k < places; k++, place++) {
            if (s->optional >> i & 1) continue;
            if (place >= *n_in) return wrong_count(m, *n_in);
            if (!(*in)[place]) return missing(m, s->name[i]);
        }
    }
    if (*n_in == place) return true;
    for (uint32_t i = 0; i < place; i++) padded[i] = i < *n_in ? (*in)[i] : NULL;
    *in = padded;
    *n_in = place;
    return true;
}

static bool check_outputs(const td_module *m, td_tensor *const *out)
{
    const tdi_sig *s = &m->layer->out;
    const char *plugin = tdi_plugin_name(m->layer->from);
    for (uint32_t i = 0; i < s->n; i++) {
        if (out[i] || s->optional >> i & 1) continue;
        if (m->layer->t.forward1)
            return td_fail_as(TD_EPLUGIN, "%s: its forward1 returned NULL without saying why (plugin %s)",
                              m->layer->t.name, plugin);
        return td_fail_as(TD_EPLUGIN, "%s: its forward gave no output %s (plugin %s)", m->layer->t.name, s->name[i],
                          plugin);
    }
    return true;
}

static bool run_forward(td_module *m, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    const td_layer *t = &m->layer->t;
    bool ok;
    if (t->forward1) ok = (out[0] = t->forward1(m, in[0])) != NULL || !tdi_failed();
    else ok = t->forward(m, in, n_in, out);
    if (tdi_failed()) return false;
    if (!ok)
        return td_fail_as(TD_EPLUGIN, "%s: its forward failed without saying why (plugin %s)", t->name,
                          tdi_plugin_name(m->layer->from));
    return check_outputs(m, out);
}

/* Moves what is there of out[] to the caller's scope. */
static void pop_results(td_tensor *const *out, uint32_t n)
{
    td_tensor *there[TDI_MAX_NAMES];
    uint32_t k = 0;
    for (uint32_t i = 0; i < n; i++)
        if (out[i]) there[k++] = out[i];
    tdi_scope_pop_many(there, k);
}

bool td_module_forward(td_module *m, td_tensor *const *in, uint32_t n_in, td_tensor **out, uint32_t *n_out)
{
    td_tensor *padded[TDI_MAX_NAMES], *got[TDI_MAX_NAMES] = {NULL};
    if (tdi_failed()) return false;
    if (!m || !m->layer) return td_fail("forward: there is no layer");
    const tdi_sig *s = &m->layer->out;
    if (*n_out < s->n)
        return td_fail("%s: there is room for %u outputs, it has %u (%s)", m->layer->t.name, *n_out, s->n,
                       m->layer->t.out);
    if (!check_inputs(m, &in, &n_in, padded) || !enter(m->layer->t.name)) return false;
    tdi_scope_push();
    bool ok = run_forward(m, in, n_in, got);
    nesting--;
    if (!ok) {
        tdi_scope_pop(NULL);
        tdi_name_error(m->layer->t.name);
        return false;
    }
    pop_results(got, s->n);
    if (tdi_failed()) return false;
    memcpy(out, got, s->n * sizeof *out);
    *n_out = s->n;
    return true;
}

bool td_module_can_chain(const td_module *m, const td_module *then)
{
    return m && then && m->layer && then->layer && m->layer->t.forward_act && then->layer->t.acts_as;
}

bool td_module_forward_act(td_module *m, td_module *then, td_tensor *x, td_tensor **y)
{
    *y = NULL;
    if (tdi_failed()) return false;
    if (!td_module_can_chain(m, then) || !x) return true;
    td_activation act = then->layer->t.acts_as(then);
    if (act == TD_ACT_NONE) return !tdi_failed();
    if (!enter(m->layer->t.name)) return false;
    tdi_scope_push();
    td_tensor *got = m->layer->t.forward_act(m, x, act);
    nesting--;
    *y = tdi_scope_pop(got);
    if (!tdi_failed()) return true;
    tdi_name_error(m->layer->t.name);
    return false;
}

void td_module_train(td_module *m, bool on)
{
    if (m->training != on) td_mode_changed((uintptr_t)m);
    m->training = on;
    for (uint32_t i = 0; i < m->n_child; i++) td_module_train(m->child[i].m, on);
}

/* ---- asking ---- */

const td_layer *td_module_layer(const td_module *m) { return &m->layer->t; }
const void *td_module_options(const td_module *m) { return m->opts; }

td_tensor *td_module_tensor(const td_module *m, uint32_t i, const char **name, bool *is_buffer)
{
    if (i >= m->n_flat) return NULL;
    const tdi_member *e = &m->flat[i].owner->member[m->flat[i].member];
    if (name) *name = m->flat[i].name;
    if (is_buffer) *is_buffer = e->buffer;
    return e->t;
}

static bool same_shape(const td_view *a, const td_view *b)
{
    return a->nd == b->nd && !memcmp(a->dim, b->dim, (size_t)a->nd * sizeof *a->dim);
}

bool td_module_set_tensor(td_module *m, const char *name, td_tensor *t)
{
    if (tdi_failed()) return false;
    if (!t) return td_fail("%s: %s: expected a tensor", tdi_module_name(m), name);
    for (uint32_t i = 0; i < m->n_flat; i++) {
        if (strcmp(m->flat[i].name, name)) continue;
        tdi_member *e = &m->flat[i].owner->member[m->flat[i].member];
        if (tdi_is_number(t)) return td_fail("%s: %s: expected a tensor, got a plain number", tdi_module_name(m), name);
        if (!same_shape(&e->t->v, &t->v))
            return td_fail_as(TD_ESHAPE, "%s: %s: expected a tensor of the same shape as %s, got %s",
                              tdi_module_name(m), name, tdi_describe(e->t), tdi_describe(t));
        tdi_keep(t);
        tdi_release(e->t);
        e->t = t;
        tdi_data_changed();
        return true;
    }
    return td_fail("%s: it has no parameter or buffer %s", tdi_module_name(m), name);
}
