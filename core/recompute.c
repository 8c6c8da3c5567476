/* recompute.c - memory for work: a result that is cheap to compute, read soon after it was made and again much later (in backward),
 * is computed once more before its later use, and its memory is free between (Chen et al. 2016, arXiv:1604.06174). The same
 * kernels on the same inputs, so the same bits.
 *
 * Greedy: where most memory is in use, drop the result that frees most there for the work that it costs; look again. */
#include "recompute.h"
#include <stdlib.h>
#include <string.h>

/* Smaller results than LEAST, or than 1 / SHARE of all, are not worth a step. PATIENCE: choices in a row that may fail to lower
 * the plan. At most 1 / WORK of the program's work is done twice. What saves less than 1 / GAIN is not done. */
enum { LEAST = 1 << 14, SHARE = 256, PATIENCE = 24, MOST_CHOICES = 1024, WORK = 16, GAIN = 50 };

/* The steps of a program at one time. */
typedef struct {
    tdi_step *step;
    tdi_operand *operand;
    tdi_fate *fate;
    uint32_t n_step, n_operand;
} version;

typedef struct {
    tdi_program *p;
    version best; /* with the least memory so far     */
    int32_t *same;
    uint32_t n_first;
    size_t before; /* what the plan took at first */
} choice;

static void *twin(const void *from, size_t bytes)
{
    void *p = malloc(bytes + 1);
    if (p) memcpy(p, from, bytes);
    return p;
}

static void version_free(version *v)
{
    free(v->step);
    free(v->operand);
    free(v->fate);
    *v = (version){NULL, NULL, NULL, 0, 0};
}

static bool remember(choice *c)
{
    const tdi_program *p = c->p;
    version_free(&c->best);
    c->best = (version){.step = twin(p->step, p->n_step * sizeof *p->step),
                        .operand = twin(p->operand, p->n_operand * sizeof *p->operand),
                        .fate = twin(p->fate, p->n_step * sizeof *p->fate),
                        .n_step = p->n_step,
                        .n_operand = p->n_operand};
    return (c->best.step && c->best.operand && c->best.fate) || tdi_program_no_memory();
}

/* The program takes over the best version. */
static void recall(choice *c)
{
    tdi_program *p = c->p;
    if (p->step != p->trace->step) free(p->step);
    if (p->operand != p->trace->operand) free(p->operand);
    free(p->fate);
    p->step = c->best.step;
    p->operand = c->best.operand;
    p->fate = c->best.fate;
    p->n_step = c->best.n_step;
    p->n_operand = c->best.n_operand;
    c->best = (version){NULL, NULL, NULL, 0, 0};
}

/* ---- doing what a recipe says ---- */

static bool make_room(choice *c, const tdi_recipe *r, uint32_t operands)
{
    tdi_program *p = c->p;
    tdi_trace *t = p->trace;
    tdi_step *step = malloc((p->n_step + r->n) * sizeof *step);
    tdi_operand *operand = malloc((p->n_operand + operands) * sizeof *operand);
    tdi_fate *fate = malloc((p->n_step + r->n + 1) * sizeof *fate);
    tdi_slot *slot = realloc(t->slot, (t->n_slot + r->n) * sizeof *slot);
    int32_t *same = realloc(c->same, (t->n_slot + r->n) * sizeof *same);
    if (slot) t->slot = slot;
    if (same) c->same = same;
    if (!step || !operand || !fate || !slot || !same) {
        free(step);
        free(operand);
        free(fate);
        return tdi_program_no_memory();
    }
    t->cap_slot = t->n_slot + r->n;
    memcpy(operand, p->operand, p->n_operand * sizeof *operand);
    memcpy(step, p->step, r->at * sizeof *step);
    memcpy(fate, p->fate, r->at * sizeof *fate);
    memcpy(step + r->at + r->n, p->step + r->at, (p->n_step - r->at) * sizeof *step);
    memcpy(fate + r->at + r->n, p->fate + r->at, (p->n_step - r->at) * sizeof *fate);
    version old = {p->step == t->step ? NULL : p->step, p->operand == t->operand ? NULL : p->operand, p->fate, 0, 0};
    version_free(&old);
    p->step = step;
    p->operand = operand;
    p->fate = fate;
    return true;
}

static int32_t add_slot(choice *c, int32_t like)
{
    tdi_trace *t = c->p->trace;
    tdi_slot *s = &t->slot[t->n_slot];
    *s = (tdi_slot){.kind = TDI_PASSING, .bytes = t->slot[like].bytes, .dev = t->slot[like].dev, .written = true};
    c->same[t->n_slot] = c->same[like];
    return (int32_t)t->n_slot++;
}

/* Operands of a step of the recipe: it reads where the recipe says, and writes to a slot of its own. */
static void place_operands(tdi_program *p, const tdi_recipe *r, const tdi_step *s, tdi_step *to, uint32_t first_slot,
                           int32_t result)
{
    const int64_t inputs = tdi_again_reads(p, s);
    to->first = p->n_operand;
    for (uint32_t k = 0; k < s->n_in + s->n_out; k++) {
        tdi_operand *o = &p->operand[p->n_operand++];
        *o = p->operand[s->first + k];
        if (k == s->n_in) o->slot = result;
        else if (!tdi_reads_again(s, inputs, k)) *o = (tdi_operand){.slot = TDI_NO_SLOT};
        for (uint32_t i = 0; i < r->n_read && k != s->n_in && o->slot >= 0; i++) {
            if (r->read[i].slot != o->slot) continue;
            int32_t from = r->read[i].from;
            o->slot = from >= 0 ? from : (int32_t)first_slot - from - 1;
            break;
        }
    }
}

static bool follow(choice *c, const tdi_recipe *r)
{
    tdi_program *p = c->p;
    uint32_t operands = 0, first_slot = p->trace->n_slot;
    tdi_step again[TDI_MOST_STEPS];
    for (uint32_t i = 0; i < r->n; i++) {
        again[i] = p->step[r->step[i]];
        operands += again[i].n_in + again[i].n_out;
    }
    if (!make_room(c, r, operands)) return false;
    int32_t last = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        tdi_step s = again[i], *to = &p->step[r->at + i];
        last = add_slot(c, p->operand[s.first + s.n_in].slot);
        *to = s;
        to->again = true;
        p->fate[r->at + i] = TDI_EACH;
        place_operands(p, r, &s, to, first_slot, last);
    }
    p->n_step += r->n;
    for (uint32_t i = r->at; i < r->at + r->n; i++) p->step[i].backward = p->step[r->at + r->n].backward;
    for (uint32_t i = r->at + r->n; i < p->n_step; i++) /* who read the old one reads the new one */
        for (uint32_t k = 0; !p->step[i].optimizer && k < p->step[i].n_in + p->step[i].n_out; k++) {
            tdi_operand *o = &p->operand[p->step[i].first + k];
            if (o->slot == r->slot) o->slot = last;
        }
    return true;
}

/* ---- choosing ---- */

/* The recipe that frees most at the peak for what it costs; false where there is none. */
static bool choose(const tdi_plan_view *v, double budget, tdi_recipe *best)
{
    const tdi_trace *t = v->p->trace;
    double most = 0;
    for (uint32_t s = 0; s < t->n_slot; s++) {
        tdi_recipe r;
        if (t->slot[s].bytes < LEAST || t->slot[s].bytes < v->most / SHARE) continue;
        if (!tdi_recipe_find(v, (int32_t)s, &r) || r.cost > budget) continue;
        double worth = (double)(r.saved - r.kept) / r.cost;
        if (worth <= most) continue;
        most = worth;
        *best = r;
    }
    return most > 0;
}

static bool improve(choice *c)
{
    tdi_program *p = c->p;
    double budget = tdi_program_work(p) / WORK;
    size_t least = 0;
    for (uint32_t i = 0, vain = 0; i < MOST_CHOICES && vain < PATIENCE; i++) {
        tdi_plan_view v;
        tdi_recipe r = {.n = 0};
        size_t plan = tdi_tiles_find(p) ? tdi_program_plan(p) : 0;
        if (tdi_failed()) return false;
        if (!i) c->before = least = plan;
        vain = i && plan >= least ? vain + 1 : 0;
        if (!vain) least = plan;
        if (!vain && i && !remember(c)) return false;
        bool ok = tdi_plan_view_make(&v, p, c->same, c->n_first), more = ok && choose(&v, budget, &r);
        tdi_plan_view_free(&v);
        if (!ok) return false;
        if (!more) break;
        if (!follow(c, &r)) return false;
        budget -= r.cost;
    }
    p->saved = c->before - least;
    return true;
}

bool tdi_program_recompute(tdi_program *p)
{
    tdi_trace *t = p->trace;
    choice c = {.p = p, .n_first = t->n_slot};
    c.same = malloc((t->n_slot + 1) * sizeof *c.same);
    version first = {NULL, NULL, NULL, 0, 0};
    first.fate = twin(p->fate, p->n_step * sizeof *p->fate);
    bool ok = (c.same && first.fate) || tdi_program_no_memory();
    for (uint32_t s = 0; ok && s < t->n_slot; s++) c.same[s] = (int32_t)s;
    ok = ok && improve(&c);
    if (ok && (!c.best.step || p->saved < c.before / GAIN)) { /* all as it was */
        version_free(&c.best);
        c.best = (version){t->step, t->operand, first.fate, t->n_step, t->n_operand};
        first.fate = NULL;
        p->saved = 0;
    }
    if (ok) recall(&c);
    version_free(&c.best);
    version_free(&first);
    free(c.same);
    return ok;
}
