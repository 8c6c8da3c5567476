/* recipe.c - how a result can be had again: which steps have to run once more, and where what they read is found. The answer is
 * exact: memory counts as unchanged only where no recorded step between has written to it, through whatever view. */
#include "recompute.h"
#include "profile.h"
#include <stdlib.h>
#include <string.h>

/* DEPTH: of steps that run again for steps that run again. SMALL: an input that many times smaller than the result is rather kept.
 * A step costs as much as moving STEP_BYTES beside what it moves. */
enum { DEPTH = 4, SMALL = 8, STEP_BYTES = 1 << 14, FLOPS_A_BYTE = 8 };

/* ---- steps ---- */

static uint32_t n_places(const tdi_step *s) { return s->n_in + s->n_out; }

/* What a kernel is told about the operands before they are bound; v has room for all of them. */
static td_kargs question(const tdi_program *p, const tdi_step *s, const td_view **v)
{
    for (uint32_t k = 0; k < n_places(s); k++) {
        const tdi_operand *o = &p->operand[s->first + k];
        v[k] = o->slot == TDI_NO_SLOT && !o->v.nd ? NULL : &o->v;
    }
    return (td_kargs){.n_in = s->n_in,
                      .n_out = s->n_out,
                      .n_list = s->n_list,
                      .compute = s->compute,
                      .in = v,
                      .out = v + s->n_in,
                      .attr = s->attr};
}

int64_t tdi_again_reads(const tdi_program *p, const tdi_step *s)
{
    const td_kernel *k = s->choice.kernel;
    const td_view *v[TDI_MOST_READS];
    if (!k->again) return INT64_MAX;
    if (n_places(s) > TDI_MOST_READS) return -1;
    td_kargs a = question(p, s, v);
    return k->again_reads(&a);
}

/* Whether the first output of step i can be computed once more, and from which inputs. */
static bool is_cheap(const tdi_program *p, uint32_t i, int64_t *inputs)
{
    const tdi_step *s = &p->step[i];
    if (p->fate[i] != TDI_EACH || s->optimizer || s->op->in.written) return false;
    const td_kernel *k = s->choice.kernel;
    const uint32_t needed = TD_K_CAPTURABLE | TD_K_DETERMINISTIC;
    if ((k->flags & needed) != needed) return false;
    if (!k->again && (s->n_out != 1 || !(k->flags & (TD_K_POINTWISE | TD_K_CHEAP)))) return false;
    for (uint32_t o = 0; o < s->n_out; o++)
        if (p->operand[s->first + s->n_in + o].given) return false;
    *inputs = tdi_again_reads(p, s);
    return *inputs >= 0;
}

static double operand_bytes(const tdi_operand *o)
{
    return o->slot < 0 ? 0 : (double)td_view_numel(&o->v) * (double)td_dtype_size(o->v.dt);
}

double tdi_program_work(const tdi_program *p)
{
    double n = 0;
    uint32_t most = 1;
    for (uint32_t i = 0; i < p->n_step; i++)
        if (n_places(&p->step[i]) > most) most = n_places(&p->step[i]);
    const td_view **v = malloc(most * sizeof *v);
    for (uint32_t i = 0; i < p->n_step && v; i++) {
        const tdi_step *s = &p->step[i];
        if (p->fate[i] != TDI_EACH || s->optimizer) continue;
        td_kargs a = question(p, s, v);
        n += STEP_BYTES + (s->again ? 0 : tdi_flops(s->op->t.name, &a) / FLOPS_A_BYTE);
        for (uint32_t k = 0; k < n_places(s); k++) n += operand_bytes(&p->operand[s->first + k]);
    }
    free(v);
    return n;
}

/* ---- the view of a program ---- */

static bool index_uses(tdi_plan_view *v)
{
    const tdi_program *p = v->p;
    uint32_t n_slot = p->trace->n_slot;
    v->use_at = calloc(n_slot + 2, sizeof *v->use_at);
    v->use = malloc((p->n_operand + 1) * sizeof *v->use);
    if (!v->use_at || !v->use) return tdi_program_no_memory();
    for (int fill = 0; fill < 2; fill++) {
        for (uint32_t i = 0; i < p->n_step; i++) {
            const tdi_step *s = &p->step[i];
            for (uint32_t k = 0; p->fate[i] != TDI_DEAD && !s->optimizer && k < n_places(s); k++) {
                int32_t slot = p->operand[s->first + k].slot;
                if (slot < 0) continue;
                if (fill) v->use[v->use_at[slot + 1]++] = i;
                else v->use_at[slot + 2]++;
            }
        }
        for (uint32_t s = 2; !fill && s < n_slot + 2; s++) v->use_at[s] += v->use_at[s - 1];
    }
    return true;
}

static bool count_writes(tdi_plan_view *v)
{
    const tdi_program *p = v->p;
    const tdi_slot *slots = p->trace->slot;
    v->writes = calloc(p->trace->n_slot + 1, sizeof *v->writes);
    v->last_write = calloc(p->trace->n_slot + 1, sizeof *v->last_write);
    v->outside = calloc(p->n_step + 1, sizeof *v->outside);
    v->argument = calloc(p->n_step + 1, sizeof *v->argument);
    if (!v->writes || !v->last_write || !v->outside || !v->argument) return tdi_program_no_memory();
    for (uint32_t i = 0; i < p->n_step; i++) {
        const tdi_step *s = &p->step[i];
        v->outside[i + 1] = v->outside[i] + (s->optimizer != NULL); /* the host writes its live options */
        v->argument[i + 1] = v->argument[i];
        for (uint32_t k = 0; p->fate[i] != TDI_DEAD && !s->optimizer && k < n_places(s); k++) {
            int32_t slot = p->operand[s->first + k].slot;
            if (slot < 0 || !tdi_step_writes(s, k)) continue;
            v->writes[slot]++;
            v->last_write[slot] = i;
            v->outside[i + 1] += slots[slot].kind == TDI_OUTSIDE;
            v->argument[i + 1] += slots[slot].kind == TDI_ARGUMENT;
        }
    }
    return true;
}

/* Where most is in use: the first such step, and the last one of its chain. */
static bool find_peak(tdi_plan_view *v)
{
    const tdi_program *p = v->p;
    const tdi_trace *t = p->trace;
    int64_t *change = calloc(p->n_step + 2, sizeof *change), now = 0, most = -1; /* from one step to the next */
    v->chain_at = malloc((p->n_step + 1) * sizeof *v->chain_at);
    bool ok = (change && v->chain_at) || tdi_program_no_memory();
    for (uint32_t s = 0; ok && s < t->n_slot; s++) {
        if (t->slot[s].kind != TDI_PASSING || p->local[s]) continue;
        if (v->lives.first[s] == UINT32_MAX || v->lives.into[s] >= 0) continue;
        change[v->lives.first[s]] += (int64_t)t->slot[s].bytes;
        if (v->lives.last[s] < p->n_step) change[v->lives.last[s] + 1] -= (int64_t)t->slot[s].bytes;
    }
    for (uint32_t i = 0, c = 0; ok && i < p->n_step; i++) {
        while (c < p->n_chain && p->chain[c].last < i) c++;
        v->chain_at[i] = c < p->n_chain && i >= p->chain[c].first ? p->chain[c].first : i;
        const tdi_step *s = &p->step[i];
        bool works = p->fate[i] != TDI_DEAD && !s->optimizer;
        now += change[i];
        if (now + (int64_t)(works ? s->choice.ws_size : 0) <= most) continue;
        most = now + (int64_t)(works ? s->choice.ws_size : 0);
        v->peak = v->chain_at[i];
        v->peak_last = v->chain_at[i] < i || (c < p->n_chain && p->chain[c].first == i) ? p->chain[c].last : i;
    }
    v->most = most > 0 ? (size_t)most : 0;
    free(change);
    return ok;
}

bool tdi_plan_view_make(tdi_plan_view *v, const tdi_program *p, const int32_t *same, uint32_t n_first)
{
    *v = (tdi_plan_view){.p = p, .same = same, .n_first = n_first};
    return tdi_program_lives(p, &v->lives) && index_uses(v) && count_writes(v) && find_peak(v);
}

void tdi_plan_view_free(tdi_plan_view *v)
{
    tdi_lives_free(&v->lives);
    void *const parts[] = {v->use, v->use_at, v->writes, v->last_write, v->outside, v->argument, v->chain_at};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) free(parts[i]);
}

/* ---- what is still there ---- */

static uint32_t first_use(const tdi_plan_view *v, int32_t slot) { return v->use[v->use_at[slot]]; }

/* The last step that needs it there; constants are there to the end. */
static uint32_t last_use(const tdi_plan_view *v, int32_t slot)
{
    if (v->use_at[slot] == v->use_at[slot + 1]) return 0;
    if (v->p->fate[first_use(v, slot)] == TDI_ONCE) return v->p->n_step;
    return v->use[v->use_at[slot + 1] - 1];
}

static bool writes_slot(const tdi_program *p, uint32_t i, int32_t slot)
{
    const tdi_step *s = &p->step[i];
    for (uint32_t k = 0; k < n_places(s); k++)
        if (p->operand[s->first + k].slot == slot && tdi_step_writes(s, k)) return true;
    return false;
}

/* Whether nothing is written to a slot after the step `from` and before the step `to`. An argument may be any tensor, a parameter
 * too, so what is written to one may be written to the other. */
static bool unchanged(const tdi_plan_view *v, int32_t slot, uint32_t from, uint32_t to)
{
    tdi_slot_kind kind = v->p->trace->slot[slot].kind;
    if (kind == TDI_ARGUMENT || kind == TDI_OUTSIDE) {
        if (v->argument[to] != v->argument[from + 1]) return false;
        if (kind == TDI_ARGUMENT && v->outside[to] != v->outside[from + 1]) return false;
    }
    if (!v->writes[slot] || v->last_write[slot] <= from) return true;
    for (uint32_t k = v->use_at[slot]; k < v->use_at[slot + 1]; k++) {
        uint32_t i = v->use[k];
        if (i > from && i < to && writes_slot(v->p, i, slot)) return false;
    }
    return true;
}

/* An optimizer writes its live options behind the kernels' back: what lies outside is not trusted across its step. */
static bool host_writes(const tdi_plan_view *v, int32_t slot, uint32_t from, uint32_t to)
{
    if (v->p->trace->slot[slot].kind != TDI_OUTSIDE) return false;
    for (uint32_t i = from + 1; i < to; i++)
        if (v->p->step[i].optimizer) return true;
    return false;
}

/* A slot with the same content that is needed at a step anyway, or -1. */
static int32_t copy_at(const tdi_plan_view *v, int32_t slot, uint32_t at)
{
    for (uint32_t s = v->n_first; s < v->p->trace->n_slot; s++)
        if (v->same[s] == v->same[slot] && v->use_at[s] != v->use_at[s + 1] && first_use(v, (int32_t)s) < at &&
            last_use(v, (int32_t)s) >= at)
            return (int32_t)s;
    return -1;
}

/* ---- recipes ---- */

static bool add_read(tdi_recipe *r, int32_t slot, int32_t from)
{
    if (r->n_read == TDI_MOST_READS) return false;
    r->read[r->n_read].slot = slot;
    r->read[r->n_read++].from = from;
    return true;
}

static bool add_step(const tdi_plan_view *v, tdi_recipe *r, int32_t slot, uint32_t depth);

/* Finds what the step `reader` read in a slot, or how to have it again. */
static bool add_source(const tdi_plan_view *v, tdi_recipe *r, int32_t slot, uint32_t reader, uint32_t depth)
{
    for (uint32_t i = 0; i < r->n_read; i++)
        if (r->read[i].slot == slot) return true;
    if (!unchanged(v, slot, reader, r->at) || host_writes(v, slot, reader, r->at)) return false;
    const tdi_slot *s = &v->p->trace->slot[slot];
    uint32_t last = last_use(v, slot);
    if (s->kind != TDI_PASSING || last >= r->at) return add_read(r, slot, slot);
    int32_t copy = copy_at(v, slot, r->at);
    if (copy >= 0) return add_read(r, slot, copy);
    if (s->bytes * SMALL > v->p->trace->slot[r->slot].bytes && depth) {
        tdi_recipe before = *r;
        if (add_step(v, r, slot, depth - 1)) return true;
        *r = before;
    }
    if (last < v->peak) r->kept += s->bytes;
    return add_read(r, slot, slot);
}

/* Adds the step that makes a slot, after those that make what it reads. */
static bool add_step(const tdi_plan_view *v, tdi_recipe *r, int32_t slot, uint32_t depth)
{
    const tdi_program *p = v->p;
    uint32_t i = v->last_write[slot];
    int64_t inputs;
    if (v->writes[slot] != 1 || p->trace->slot[slot].kind != TDI_PASSING || !is_cheap(p, i, &inputs)) return false;
    const tdi_step *s = &p->step[i];
    if (p->operand[s->first + s->n_in].slot != slot) return false;
    for (uint32_t k = 0; k < n_places(s); k++) {
        const tdi_operand *o = &p->operand[s->first + k];
        int32_t from = o->slot;
        bool moved = k == s->n_in || tdi_reads_again(s, inputs, k);
        if (moved) r->cost += operand_bytes(o);
        if (from >= 0 && tdi_reads_again(s, inputs, k) && !add_source(v, r, from, i, depth)) return false;
    }
    if (r->n == TDI_MOST_STEPS) return false;
    r->step[r->n++] = i;
    r->cost += STEP_BYTES;
    return add_read(r, slot, -(int32_t)r->n);
}

bool tdi_recipe_find(const tdi_plan_view *v, int32_t slot, tdi_recipe *r)
{
    const tdi_program *p = v->p;
    uint32_t before = UINT32_MAX, after = UINT32_MAX;
    if (p->trace->slot[slot].kind != TDI_PASSING || p->local[slot]) return false;
    for (uint32_t k = v->use_at[slot]; k < v->use_at[slot + 1]; k++) {
        uint32_t i = v->use[k];
        if (i >= v->peak && i <= v->peak_last) return false;
        if (i < v->peak) before = i;
        else if (after == UINT32_MAX) after = i;
    }
    if (before == UINT32_MAX || after == UINT32_MAX) return false;
    *r = (tdi_recipe){.slot = slot, .at = v->chain_at[after]};
    if (!add_step(v, r, slot, DEPTH)) return false;
    r->saved = p->trace->slot[slot].bytes;
    return r->kept < r->saved;
}
