/* bind_print.c - tostring(x): nested braces as a script would write them, in aligned columns, then what the tensor is.
 *
 *     {{ 0.1234, -1.5000},
 *      { 2.0000,  3.0000}}
 *     [f32 (2, 2) cpu, requires_grad]
 *
 * Of more than 1000 elements only the first and last three of each axis are read and shown. */
#include "bind.h"
#include <math.h>
#include <stdlib.h>

enum { SHOW_ALL = 1000, EDGE = 3, LINE = 96, CELL = 40 };

/* ---- numbers ---- */

typedef enum { PLAIN, FIXED, SCIENTIFIC } notation;

typedef struct {
    notation how;
    int width;
} format;

/* Whole numbers plainly; else 4 decimals, or powers of ten where those would lose small ones or run wide. */
static notation choose(const double *v, int64_t n)
{
    double most = 0, least = INFINITY;
    bool whole = true;
    for (int64_t i = 0; i < n; i++) {
        double a = fabs(v[i]);
        if (!isfinite(a)) continue;
        whole &= a == floor(a);
        if (a > most) most = a;
        if (a > 0 && a < least) least = a;
    }
    if (whole) return most < 1e8 ? PLAIN : SCIENTIFIC;
    return most >= 1e5 || least < 1e-3 || (least < INFINITY && most / least > 1e6) ? SCIENTIFIC : FIXED;
}

static int cell_float(char *to, double v, notation how)
{
    if (isnan(v)) return snprintf(to, CELL, "nan");
    if (isinf(v)) return snprintf(to, CELL, v > 0 ? "inf" : "-inf");
    switch (how) {
    case PLAIN: return snprintf(to, CELL, "%.0f", v);
    case FIXED: return snprintf(to, CELL, "%.4f", v);
    default: return snprintf(to, CELL, "%.3e", v);
    }
}

/* ---- what is shown ---- */

typedef struct {
    luaL_Buffer *b;
    const char *p; /* the next element: double or int64_t */
    td_dtype dt;
    int nd;
    int64_t dim[TD_MAX_DIM]; /* of what was read  */
    bool cut[TD_MAX_DIM];    /* axis is summarised */
    format f;
} printer;

static int cell(const printer *pr, const char *p, char *to)
{
    int64_t i;
    double d;
    memcpy(&i, p, 8);
    memcpy(&d, p, 8);
    if (td_dtype_is_float(pr->dt)) return cell_float(to, d, pr->f.how);
    if (pr->dt == TD_BOOL) return snprintf(to, CELL, i ? "true" : "false");
    return snprintf(to, CELL, "%lld", (long long)i);
}

static void add_element(printer *pr)
{
    char text[CELL];
    int n = cell(pr, pr->p, text);
    pr->p += 8;
    for (int i = n; i < pr->f.width; i++) luaL_addchar(pr->b, ' ');
    luaL_addlstring(pr->b, text, (size_t)n);
}

static void new_line(printer *pr, int depth, int lines)
{
    for (int i = 0; i < lines; i++) luaL_addchar(pr->b, '\n');
    for (int i = 0; i < depth; i++) luaL_addchar(pr->b, ' ');
}

/* The last axis: elements in lines that are filled. */
static void add_row(printer *pr, int depth)
{
    int64_t n = pr->dim[depth];
    int per_line = (LINE - depth) / (pr->f.width + 2), on_line = 0;
    if (per_line < 1) per_line = 1;
    luaL_addchar(pr->b, '{');
    for (int64_t i = 0; i < n; i++) {
        if (i) luaL_addchar(pr->b, ',');
        if (pr->cut[depth] && i == EDGE) {
            luaL_addstring(pr->b, " …,");
            on_line++;
        }
        if (i && on_line >= per_line) {
            new_line(pr, depth + 1, 1);
            on_line = 0;
        } else if (i) {
            luaL_addchar(pr->b, ' ');
        }
        add_element(pr);
        on_line++;
    }
    luaL_addchar(pr->b, '}');
}

static void add_table(printer *pr, int depth)
{
    if (depth == pr->nd) {
        add_element(pr);
        return;
    }
    if (depth + 1 == pr->nd) {
        add_row(pr, depth);
        return;
    }
    int lines = pr->nd - depth > 2 ? 2 : 1; /* an empty line between matrices */
    luaL_addchar(pr->b, '{');
    for (int64_t i = 0; i < pr->dim[depth]; i++) {
        if (i) {
            luaL_addchar(pr->b, ',');
            new_line(pr, depth + 1, lines);
        }
        if (pr->cut[depth] && i == EDGE) {
            luaL_addstring(pr->b, "…,");
            new_line(pr, depth + 1, lines);
        }
        add_table(pr, depth + 1);
    }
    luaL_addchar(pr->b, '}');
}

static void measure(printer *pr, int64_t n)
{
    char text[CELL];
    pr->f.how = PLAIN;
    pr->f.width = 0;
    if (td_dtype_is_float(pr->dt)) pr->f.how = choose((const double *)(const void *)pr->p, n);
    for (int64_t i = 0; i < n; i++) {
        int w = cell(pr, pr->p + 8 * i, text);
        if (w > pr->f.width) pr->f.width = w;
    }
}

/* "[f32 (2, 2) cpu, requires_grad]" */
static void add_footer(luaL_Buffer *b, const td_view *v, const char *device, bool needs_grad, const char *made_by)
{
    char text[64];
    luaL_addchar(b, '[');
    luaL_addstring(b, td_dtype_name(v->dt));
    luaL_addstring(b, " (");
    for (int i = 0; i < v->nd; i++) {
        snprintf(text, sizeof text, i ? ", %lld" : "%lld", (long long)v->dim[i]);
        luaL_addstring(b, text);
    }
    luaL_addstring(b, ") ");
    luaL_addstring(b, device);
    if (made_by) {
        luaL_addstring(b, ", by ");
        luaL_addstring(b, made_by);
    } else if (needs_grad) {
        luaL_addstring(b, ", requires_grad");
    }
    luaL_addchar(b, ']');
}

/* The edges of x, inside a stay. */
static td_tensor *edges(td_tensor *x, bool *cut)
{
    for (int a = 0; x && a < td_ndim(x); a++) {
        int64_t n = td_dim(x, a);
        cut[a] = n > 2 * EDGE;
        if (!cut[a]) continue;
        td_tensor *two[2] = {td_narrow(x, a, 0, EDGE), td_narrow(x, a, n - EDGE, EDGE)};
        x = td_cat(two, 2, a);
    }
    return x;
}

/* Whether there is more than is shown whole; axes without elements do not hide the length of others. */
static bool is_long(const td_tensor *x)
{
    int64_t span = 1;
    for (int a = 0; a < td_ndim(x); a++)
        if (td_dim(x, a) && (td_dim(x, a) > SHOW_ALL || (span *= td_dim(x, a)) > SHOW_ALL)) return true;
    return false;
}

int tdl_tensor_tostring(lua_State *L)
{
    tdl_state *S = TDL_STATE(L);
    tdl_slot *part = tdl_slot_at(L, 1);
    luaL_Buffer b;
    if (part && !part->t) {
        lua_pushliteral(L, "[Tensor that was freed]");
        return 1;
    }
    part = tdl_new(L); /* what is shown of x */
    td_tensor *x = tdl_check_tensor(L, 1);
    printer pr = {.dt = td_dtype_of(x), .nd = td_ndim(x)};
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool before = td_grad_enable(false);
    td_tensor *y = is_long(x) ? edges(x, pr.cut) : x;
    td_grad_enable(before);
    tdl_return(L, S, &stay, part, y, true);

    int64_t n = td_numel(part->t);
    pr.p = (const char *)lua_newuserdatauv(L, n ? (size_t)n * 8 : 8, 0);
    x = tdl_check_tensor(L, 1);
    tdl_enter(L, S, &stay);
    before = td_grad_enable(false);
    bool ok = tdl_read_numbers(part->t, (void *)(uintptr_t)pr.p);
    td_grad_enable(before);
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);

    td_view v = *td_view_of(x), shown = *td_view_of(part->t);
    memcpy(pr.dim, shown.dim, sizeof pr.dim);
    measure(&pr, n);
    luaL_buffinit(L, &b);
    pr.b = &b;
    add_table(&pr, 0);
    luaL_addstring(&b, v.nd ? "\n" : "  ");
    x = tdl_check_tensor(L, 1);
    add_footer(&b, &v, td_tensor_device(x), td_needs_grad(x), td_made_by(x));
    luaL_pushresult(&b);
    return 1;
}
