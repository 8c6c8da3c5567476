/* einsum.c - sums of products over named axes, as views, sums and matrix products.
 *
 * Each axis has a label: a letter, or for axes under "..." a label of its own, counted from the right so that they
 * broadcast. Operands are taken from left to right. A label is summed as soon as neither the result nor a later operand
 * has it. Two operands meet in one batched matrix product: labels of both that stay are the batch, labels of both that
 * go are the inner axis, and what only one has are its rows or columns. */
#include "rules.h"
#include <string.h>

enum { LETTERS = 52, LABELS = LETTERS + TD_MAX_DIM, MAX_OPERANDS = 16, MAX_TERM = 2 * TD_MAX_DIM };

/* Labels of the axes of an operand or of the result. */
typedef struct {
    int n;
    uint8_t at[MAX_TERM];
} term;

/* An equation, matched with the shapes of the operands. */
typedef struct {
    const char *text;
    uint32_t n_in;
    term in[MAX_OPERANDS], out;
    int under_dots[MAX_OPERANDS]; /* axes that "..." stands for */
    int most_dots;
    int64_t extent[LABELS]; /* -1: no operand has the label */
} equation;

static uint64_t bit(int label) { return UINT64_C(1) << label; }

static uint64_t labels_of(const term *t)
{
    uint64_t set = 0;
    for (int k = 0; k < t->n; k++) set |= bit(t->at[k]);
    return set;
}

static bool is_letter(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

/* In the order of implicit results: capitals first. */
static int letter_label(char c) { return c <= 'Z' ? c - 'A' : 26 + c - 'a'; }
static char label_letter(int label) { return (char)(label < 26 ? 'A' + label : 'a' + label - 26); }

/* ---- reading ---- */

/* The letters of one term up to a comma, an arrow or the end. dots: the axes under "...", -1 where none may be. */
static bool read_term(const equation *e, const char **at, int dots, term *t)
{
    bool seen_dots = false;
    t->n = 0;
    for (; **at && **at != ',' && **at != '-'; ++*at) {
        const char *c = *at;
        int labels = *c == '.' ? dots : 1;
        if (*c == ' ') continue;
        if (*c == '.') {
            if (c[1] != '.' || c[2] != '.' || seen_dots || dots < 0)
                return td_fail("einsum: \"%s\": expected \"...\" at most once in a term", e->text);
            seen_dots = true;
            *at += 2;
        } else if (!is_letter(*c)) {
            return td_fail("einsum: \"%s\": expected letters, \"...\", \",\" and \"->\", got '%c'", e->text, *c);
        }
        if (t->n + labels > MAX_TERM) return td_fail("einsum: \"%s\": a term has too many letters", e->text);
        for (int k = 0; k < labels; k++) t->at[t->n++] = (uint8_t)(*c == '.' ? LABELS - labels + k : letter_label(*c));
    }
    return true;
}

/* How many axes "..." stands for in the term at `at`, whose operand has nd axes; -1 if there is no "...". */
static int axes_under_dots(const char *at, int nd)
{
    int letters = 0;
    bool dots = false;
    for (; *at && *at != ',' && *at != '-'; at++) {
        dots |= *at == '.';
        letters += is_letter(*at);
    }
    return !dots ? -1 : nd > letters ? nd - letters : 0;
}

static bool read_operands(equation *e, const char **at, const td_view *const *in)
{
    for (uint32_t i = 0; i < e->n_in; i++) {
        int dots = axes_under_dots(*at, in[i]->nd);
        e->under_dots[i] = dots < 0 ? 0 : dots;
        if (e->under_dots[i] > e->most_dots) e->most_dots = e->under_dots[i];
        if (!read_term(e, at, dots, &e->in[i])) return false;
        if (e->in[i].n != in[i]->nd)
            return td_fail_as(TD_ESHAPE, "einsum: \"%s\": operand %u: expected %d axes, got shape %s", e->text, i + 1,
                              e->in[i].n, tdi_shape_text(in[i]));
        bool last = i + 1 == e->n_in;
        if (!last && **at != ',')
            return td_fail("einsum: \"%s\": expected %u operands, as many as tensors, got %u", e->text, e->n_in, i + 1);
        if (last && **at == ',')
            return td_fail("einsum: \"%s\": expected %u operands, as many as tensors, got more", e->text, e->n_in);
        if (!last) ++*at;
    }
    return true;
}

/* Without "->": first what "..." stands for, then the letters that occur once, sorted. */
static void implicit_result(equation *e)
{
    int count[LABELS] = {0};
    for (uint32_t i = 0; i < e->n_in; i++)
        for (int k = 0; k < e->in[i].n; k++) count[e->in[i].at[k]]++;
    for (int label = LABELS - e->most_dots; label < LABELS; label++) e->out.at[e->out.n++] = (uint8_t)label;
    for (int label = 0; label < LETTERS && e->out.n < MAX_TERM; label++)
        if (count[label] == 1) e->out.at[e->out.n++] = (uint8_t)label;
}

static bool read_result(equation *e, const char *at)
{
    if (!*at) {
        implicit_result(e);
        return true;
    }
    if (at[0] != '-' || at[1] != '>') return td_fail("einsum: \"%s\": expected \"->\" after the operands", e->text);
    at += 2;
    if (!read_term(e, &at, e->most_dots, &e->out)) return false;
    if (*at) return td_fail("einsum: \"%s\": expected nothing after the result, got \"%s\"", e->text, at);
    for (int k = 0; k < e->out.n; k++) {
        for (int j = 0; j < k; j++)
            if (e->out.at[j] == e->out.at[k])
                return td_fail("einsum: \"%s\": the result has '%c' twice", e->text, label_letter(e->out.at[k]));
        if (e->extent[e->out.at[k]] < 0)
            return td_fail("einsum: \"%s\": the result has '%c', which no operand has", e->text,
                           label_letter(e->out.at[k]));
    }
    return true;
}

/* ---- extents: equal letters have equal extents, and an extent of 1 fits all ---- */

static bool match_extents(equation *e, const td_view *const *in)
{
    for (int label = 0; label < LABELS; label++) e->extent[label] = -1;
    for (uint32_t i = 0; i < e->n_in; i++) {
        int64_t mine[LABELS];
        for (int label = 0; label < LABELS; label++) mine[label] = -1;
        for (int k = 0; k < e->in[i].n; k++) {
            int label = e->in[i].at[k];
            int64_t n = in[i]->dim[k], *common = &e->extent[label];
            bool twice = mine[label] >= 0 && mine[label] != n;
            if (twice || (*common >= 0 && *common != n && *common != 1 && n != 1)) {
                char letter[] = {label < LETTERS ? label_letter(label) : 0, 0};
                return td_fail_as(TD_ESHAPE, "einsum: \"%s\": operand %u, %s: %s has extent %lld, elsewhere %lld",
                                  e->text, i + 1, tdi_shape_text(in[i]), *letter ? letter : "...", (long long)n,
                                  (long long)(twice ? mine[label] : *common));
            }
            mine[label] = n;
            if (*common < 0 || *common == 1) *common = n;
        }
    }
    return true;
}

static bool parse(equation *e, const char *text, const td_view *const *in, uint32_t n)
{
    memset(e, 0, sizeof *e);
    e->text = text ? text : "";
    e->n_in = n;
    if (n == 0) return td_fail("einsum: expected at least one tensor");
    if (n > MAX_OPERANDS) return td_fail("einsum: expected at most %d tensors, got %u", MAX_OPERANDS, n);
    const char *at = e->text;
    if (!read_operands(e, &at, in) || !match_extents(e, in) || !read_result(e, at)) return false;
    if (e->out.n > TD_MAX_DIM)
        return td_fail_as(TD_ESHAPE, "einsum: \"%s\": the result has %d axes, a tensor has at most %d", e->text,
                          e->out.n, TD_MAX_DIM);
    return true;
}

static bool einsum_infer(td_infer *i)
{
    equation e;
    td_view *y = i->out[0];
    if (!tdi_want_numbers("einsum", i)) return false;
    if (!parse(&e, ((const td_einsum_attr *)i->attr)->equation, i->in, i->n_in)) return false;
    tdi_compute_wide(i);
    y->nd = e.out.n;
    for (int k = 0; k < e.out.n; k++) y->dim[k] = e.extent[e.out.at[k]];
    return true;
}

/* ---- computing ---- */

/* A tensor whose axes have labels, no label twice. */
typedef struct {
    td_tensor *x;
    term axes;
} operand;

static int place_of(const term *t, int label)
{
    for (int k = 0; k < t->n; k++)
        if (t->at[k] == label) return k;
    return -1;
}

static void drop_place(term *t, int k)
{
    memmove(t->at + k, t->at + k + 1, (size_t)(t->n - k - 1));
    t->n--;
}

/* Repeated labels become one: td_diagonal puts the common axis last. */
static void take_diagonals(operand *o)
{
    for (int k = 0; k < o->axes.n; k++) {
        int label = o->axes.at[k], first = place_of(&o->axes, label);
        if (first == k) continue;
        o->x = td_diagonal(o->x, 0, first, k);
        drop_place(&o->axes, k);
        drop_place(&o->axes, first);
        o->axes.at[o->axes.n++] = (uint8_t)label;
        k = -1; /* from the start: places have moved */
    }
}

/* An axis of extent 1 that others broadcast adds nothing: it is dropped. */
static void drop_ones(operand *o, const equation *e)
{
    td_ints ones = {0, {0}};
    for (int k = o->axes.n - 1; k >= 0; k--)
        if (td_dim(o->x, k) == 1 && e->extent[o->axes.at[k]] != 1) ones.v[ones.n++] = k;
    if (!ones.n) return;
    for (int64_t k = 0; k < ones.n; k++) drop_place(&o->axes, (int)ones.v[k]);
    o->x = td_squeeze(o->x, ones);
}

/* Sums the labels that are not in keep. */
static void sum_others(operand *o, uint64_t keep)
{
    td_ints gone = {0, {0}};
    for (int k = o->axes.n - 1; k >= 0; k--)
        if (!(bit(o->axes.at[k]) & keep)) gone.v[gone.n++] = k;
    if (!gone.n) return;
    for (int64_t k = 0; k < gone.n; k++) drop_place(&o->axes, (int)gone.v[k]);
    o->x = td_sum(o->x, gone, false);
}

/* Axes in the order of these labels, all of which o has. */
static td_tensor *ordered(const operand *o, const term *order)
{
    td_ints axes = {order->n, {0}};
    bool same = true;
    for (int k = 0; k < order->n; k++) {
        axes.v[k] = place_of(&o->axes, order->at[k]);
        same &= axes.v[k] == k;
    }
    return same ? o->x : td_permute(o->x, axes);
}

static void append(term *to, const term *from, uint64_t set)
{
    for (int k = 0; k < from->n; k++)
        if (bit(from->at[k]) & set && to->n < MAX_TERM) to->at[to->n++] = from->at[k];
}

static int64_t product(const equation *e, const term *t, int from, int to)
{
    int64_t n = 1;
    for (int k = from; k < to; k++) n *= e->extent[t->at[k]];
    return n;
}

/* o's axes in this order: the first `batch` as one (if there are any), those up to `middle` as one, the rest as one. */
static td_tensor *as_matrices(const operand *o, const equation *e, const term *order, int batch, int middle)
{
    td_ints shape = {0, {0}};
    if (batch) shape.v[shape.n++] = product(e, order, 0, batch);
    shape.v[shape.n++] = product(e, order, batch, middle);
    shape.v[shape.n++] = product(e, order, middle, order->n);
    return tdi_shaped(ordered(o, order), shape);
}

/* Without an inner axis: an element-wise product, each operand with extent 1 where the other has rows or columns. */
static td_tensor *spread_product(const operand *a, const operand *b, const term *all)
{
    const operand *side[] = {a, b};
    td_tensor *part[2];
    for (int s = 0; s < 2; s++) {
        term order = {0, {0}};
        td_ints shape = {all->n, {0}};
        append(&order, all, labels_of(&side[s]->axes));
        td_tensor *x = ordered(side[s], &order);
        for (int k = 0, at = 0; k < all->n; k++)
            shape.v[k] = at < order.n && order.at[at] == all->at[k] ? td_dim(x, at++) : 1;
        part[s] = tdi_shaped(x, shape);
    }
    return td_mul(part[0], part[1]);
}

/* a and b with the labels that are in keep; the others, which both have, are summed. */
static bool contract(operand *a, const operand *b, const equation *e, uint64_t keep)
{
    uint64_t in_a = labels_of(&a->axes), in_b = labels_of(&b->axes), both = in_a & in_b;
    term batch = {0, {0}}, rows = {0, {0}}, inner = {0, {0}}, columns = {0, {0}}, all = {0, {0}};
    append(&batch, &a->axes, both & keep);
    append(&inner, &a->axes, both & ~keep);
    append(&rows, &a->axes, in_a & ~in_b);
    append(&columns, &b->axes, in_b & ~in_a);
    append(&all, &batch, keep);
    append(&all, &rows, keep);
    append(&all, &columns, keep);
    if (all.n > TD_MAX_DIM)
        return td_fail_as(TD_ESHAPE, "einsum: \"%s\": an intermediate result has %d axes, a tensor has at most %d",
                          e->text, all.n, TD_MAX_DIM);
    td_tensor *x;
    if (inner.n == 0) {
        x = spread_product(a, b, &all);
    } else {
        term left = batch, right = batch;
        append(&left, &rows, keep);
        append(&left, &inner, ~keep);
        append(&right, &inner, ~keep);
        append(&right, &columns, keep);
        td_ints shape = {all.n, {0}};
        for (int k = 0; k < all.n; k++) shape.v[k] = e->extent[all.at[k]];
        td_tensor *c = td_matmul(as_matrices(a, e, &left, batch.n, batch.n + rows.n),
                                 as_matrices(b, e, &right, batch.n, batch.n + inner.n));
        x = tdi_shaped(c, shape);
    }
    *a = (operand){x, all};
    return x != NULL;
}

static bool einsum_decompose(const td_call *c, td_tensor **out)
{
    equation e;
    operand o[MAX_OPERANDS];
    const td_view *view[MAX_OPERANDS];
    uint64_t behind, later[MAX_OPERANDS];
    for (uint32_t i = 0; i < c->n_in && i < MAX_OPERANDS; i++) view[i] = td_view_of(c->in[i]);
    if (!parse(&e, ((const td_einsum_attr *)c->attr)->equation, view, c->n_in)) return false;
    for (uint32_t i = 0; i < e.n_in; i++) {
        o[i] = (operand){c->in[i], e.in[i]};
        take_diagonals(&o[i]);
        drop_ones(&o[i], &e);
    }
    behind = labels_of(&e.out);
    for (uint32_t i = e.n_in; i-- > 0; behind |= labels_of(&o[i].axes)) later[i] = behind; /* result, operands > i */
    for (uint32_t i = 0; i < e.n_in; i++) {
        uint64_t others = later[i];
        for (uint32_t k = 0; k < i; k++) others |= labels_of(&o[k].axes);
        sum_others(&o[i], others); /* after this, each label of o[i] is in the result or in another operand */
    }
    for (uint32_t i = 1; i < e.n_in; i++)
        if (!contract(&o[0], &o[i], &e, later[i])) return false;
    td_tensor *y = ordered(&o[0], &e.out);
    bool view_only = e.n_in == 1 && labels_of(&e.in[0]) == labels_of(&e.out); /* y is the operand's memory */
    out[0] = view_only ? td_copy(y) : y;
    return out[0] != NULL;
}

/* ---- samples ---- */

static bool einsum_sample(uint32_t i, td_sample *s)
{
    static const struct {
        const char *equation;
        uint32_t n;
        td_ints shape[3];
    } cases[] = {
        {"ij,jk->ik", 2, {{2, {2, 3}}, {2, {3, 2}}}},
        {"bij,bjk", 2, {{3, {2, 2, 3}}, {3, {2, 3, 2}}}},
        {"ii->i", 1, {{2, {3, 3}}}},
        {"ij->", 1, {{2, {2, 3}}}},
        {"ij->ji", 1, {{2, {2, 3}}}},
        {"i,j->ij", 2, {{1, {2}}, {1, {3}}}},
        {"...ij,...j->...i", 2, {{3, {2, 2, 3}}, {2, {1, 3}}}},
        {"ij,ik,il->jkl", 3, {{2, {2, 3}}, {2, {2, 2}}, {2, {2, 2}}}},
        {"abc,cd,bd->ad", 3, {{3, {2, 3, 2}}, {2, {2, 3}}, {2, {3, 3}}}},
        {"ij,kj->i", 2, {{2, {2, 3}}, {2, {2, 1}}}},
    };
    if (i >= sizeof cases / sizeof *cases) return false;
    ((td_einsum_attr *)s->opts)->equation = cases[i].equation;
    for (uint32_t k = 0; k < cases[i].n; k++) s->in[k] = tdi_sample_signed(cases[i].shape[k], 3 * i + k);
    s->n_in = cases[i].n;
    return true;
}

const td_op tdi_op_einsum = {TD_ROW_einsum, .infer = einsum_infer, .decompose = einsum_decompose,
                             .sample = einsum_sample};
