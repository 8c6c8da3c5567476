/* declare.c - the functions of the host table that take a module: parameters, buffers, children, options. */
#include "literal.h"
#include "loader.h"
#include "module.h"
#include "schema.h"
#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

static tdi_member *find_member(const td_module *m, const char *name)
{
    for (uint32_t i = 0; name && i < m->n_member; i++)
        if (!strcmp(m->member[i].name, name)) return &m->member[i];
    return NULL;
}

static tdi_child *find_child(const td_module *m, const char *name)
{
    for (uint32_t i = 0; name && i < m->n_child; i++)
        if (!strcmp(m->child[i].name, name)) return &m->child[i];
    return NULL;
}

static bool may_declare(const td_module *m, const char *what, const char *name)
{
    if (tdi_failed()) return false;
    if (!m) return td_fail_as(TD_EPLUGIN, "%s: there is no module (NULL)", what);
    const char *who = tdi_module_name(m);
    if (!m->declaring) return td_fail_as(TD_EPLUGIN, "%s: %s: is for init()", who, what);
    if (!tdi_is_name(name, false))
        return td_fail_as(TD_EPLUGIN, "%s: %s: \"%.63s\" is no name", who, what, name ? name : "");
    if (find_member(m, name) || find_child(m, name))
        return td_fail_as(TD_EPLUGIN, "%s: %s: there is a \"%s\" already", who, what, name);
    return true;
}

/* ---- parameters and buffers ---- */

static bool read_shape(const td_module *m, const char *name, td_dtype dt, int64_t nd, const int64_t *dim,
                       td_ints *shape)
{
    const char *who = tdi_module_name(m);
    if ((uint32_t)dt >= TD_N_DTYPES) return td_fail_as(TD_EPLUGIN, "%s: %s: %d is no dtype", who, name, (int)dt);
    if (nd < 0 || nd > TD_MAX_DIM || (nd && !dim))
        return td_fail_as(TD_ESHAPE, "%s: %s: expected 0 to %d extents, got %lld", who, name, TD_MAX_DIM,
                          (long long)nd);
    shape->n = nd;
    for (int64_t i = 0; i < nd; i++) {
        if (dim[i] < 0)
            return td_fail_as(TD_ESHAPE, "%s: %s: extent %lld is negative: %lld", who, name, (long long)i + 1,
                              (long long)dim[i]);
        shape->v[i] = dim[i];
    }
    return true;
}

/* Random numbers are drawn as f32 or f64; f16 and bf16 are rounded from f32. */
static td_tensor *draw(const char *who, td_ints shape, td_dtype dt, const char *init, double a, double b)
{
    td_dtype wide = dt == TD_F64 ? TD_F64 : TD_F32;
    td_tensor *t = NULL;
    if (!init) init = "?";
    if (!isfinite(a) || !isfinite(b))
        return td_fail_as(TD_EPLUGIN, "%s: init \"%s\": %g and %g must be finite", who, init, a, b);
    if (!strcmp(init, "constant")) return td_full(shape, a, dt);
    if (!strcmp(init, "fan_in")) { /* uniform as torch.nn's kaiming_uniform(a = sqrt(5)): He et al. 2015 */
        double bound = a > 0 ? 1.0 / sqrt(a) : 0.0;
        a = -bound;
        b = bound;
        init = "uniform";
    }
    if (!strcmp(init, "uniform")) t = td_add(td_mul(td_rand(shape, wide), td_number(b - a)), td_number(a));
    else if (!strcmp(init, "normal")) t = td_add(td_mul(td_randn(shape, wide), td_number(b)), td_number(a));
    else
        return td_fail_as(TD_EPLUGIN, "%s: init: expected uniform, normal, fan_in or constant, got \"%.40s\"", who,
                          init);
    return wide == dt ? t : td_cast(t, dt);
}

static td_tensor *append_member(td_module *m, const char *name, td_tensor *t, bool buffer)
{
    tdi_member *v = realloc(m->member, (m->n_member + 1) * sizeof *v);
    if (v) m->member = v;
    char *copy = v ? strdup(name) : NULL;
    if (!copy) return td_fail_as(TD_ENOMEM, "%s: %s: out of memory", tdi_module_name(m), name);
    m->member[m->n_member++] = (tdi_member){copy, tdi_keep(t), buffer};
    return t;
}

/* Made on the CPU, so that a seed gives the same parameters everywhere, then moved to the default device. */
static td_tensor *make_member(td_module *m, const char *name, td_ints shape, td_dtype dt, const char *init, double a,
                              double b, bool buffer)
{
    td_context *ctx = tdi_ctx();
    td_device *home = tdi_device_default(ctx), *cpu = home ? tdi_device("cpu") : NULL;
    td_tensor *t = NULL;
    if (!cpu) return NULL;
    bool grad = td_grad_enable(false);
    tdi_scope_push();
    ctx->device = cpu;
    t = draw(tdi_module_name(m), shape, dt, init, a, b);
    ctx->device = home;
    if (t && home != cpu) t = td_tensor_to(t, home->name);
    if (t && !buffer && !td_require_grad(t, true)) t = NULL;
    if (t) t = append_member(m, name, t, buffer);
    tdi_scope_pop(NULL);
    td_grad_enable(grad);
    return tdi_failed() ? NULL : t;
}

td_tensor *tdi_module_new_param(td_module *m, const char *name, td_dtype dt, int64_t nd, const int64_t *dim,
                                const char *init, double a, double b)
{
    td_ints shape;
    if (!may_declare(m, "new_param", name) || !read_shape(m, name, dt, nd, dim, &shape)) return NULL;
    if (!td_dtype_is_float(dt))
        return td_fail_as(TD_EDTYPE, "%s: %s: a parameter is of a float dtype, got %s", tdi_module_name(m), name,
                          td_dtype_name(dt));
    return make_member(m, name, shape, dt, init, a, b, false);
}

td_tensor *tdi_module_new_buffer(td_module *m, const char *name, td_dtype dt, int64_t nd, const int64_t *dim,
                                 double fill)
{
    td_ints shape;
    if (!may_declare(m, "new_buffer", name) || !read_shape(m, name, dt, nd, dim, &shape)) return NULL;
    return make_member(m, name, shape, dt, "constant", fill, 0, true);
}

/* ---- children ---- */

static bool append_child(td_module *m, const char *name, td_module *c)
{
    tdi_child *v = realloc(m->child, (m->n_child + 1) * sizeof *v);
    if (v) m->child = v;
    char *copy = v ? strdup(name) : NULL;
    if (!copy) return td_fail_as(TD_ENOMEM, "%s: %s: out of memory", tdi_module_name(m), name);
    m->child[m->n_child++] = (tdi_child){copy, c};
    return true;
}

td_module *tdi_module_new_child(td_module *m, const char *name, const char *layer, const char *opts_as_lua)
{
    tdi_literal store;
    td_args args;
    char why[160];
    if (!may_declare(m, "new_child", name)) return NULL;
    const char *who = tdi_module_name(m);
    const td_layer *t = td_layer_find(layer ? layer : "");
    if (!t) {
        if (!tdi_failed())
            td_fail_as(TD_EPLUGIN, "%s: child %s: no layer is named \"%.63s\"", who, name, layer ? layer : "");
        return NULL;
    }
    if (!tdi_literal_args(opts_as_lua, &store, &args, why, sizeof why)) {
        td_fail_as(TD_EPLUGIN, "%s: child %s: options: %s", who, name, why);
        return NULL;
    }
    td_module *c = td_module_new(t, &args);
    if (!c) {
        tdi_error_in("child %s", name);
        tdi_name_error(who);
        return NULL;
    }
    if (append_child(m, name, c)) return c;
    td_module_release(c);
    return NULL;
}

bool tdi_module_run_child(td_module *m, const char *name, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    if (tdi_failed()) return false;
    const tdi_child *c = m ? find_child(m, name) : NULL;
    if (!c)
        return td_fail_as(TD_EPLUGIN, "%s: there is no child \"%.63s\"", m ? tdi_module_name(m) : "run_child",
                          name ? name : "");
    uint32_t n_out = c->m->layer->out.n;
    if (td_module_forward(c->m, in, n_in, out, &n_out)) return true;
    tdi_error_in("child %s", name);
    return false;
}

/* ---- asking ---- */

td_tensor *tdi_module_param(td_module *m, const char *name)
{
    if (tdi_failed()) return NULL;
    const tdi_member *e = m ? find_member(m, name) : NULL;
    if (e) return e->t;
    return td_fail_as(TD_EPLUGIN, "%s: there is no parameter or buffer \"%.63s\"", m ? tdi_module_name(m) : "param",
                      name ? name : "");
}

bool tdi_module_has_param(td_module *m, const char *name) { return m && !tdi_failed() && find_member(m, name); }

td_tensor *tdi_module_scalar(td_module *m, const char *name)
{
    if (tdi_failed()) return NULL;
    if (m && m->optimizer && name) return tdi_optimizer_scalar(m->optimizer, name);
    return td_fail_as(TD_EPLUGIN, "%s: live options are those of an optimizer", m ? tdi_module_name(m) : "scalar");
}

/* These answer with a pending error too: a plugin reads through what they return. */
const void *tdi_module_options(td_module *m) { return m ? m->opts : NULL; }
void **tdi_module_user(td_module *m)
{
    static __thread void *nobody;
    return m ? &m->user : &nobody;
}
bool tdi_module_training(td_module *m) { return m && m->training; }
