/* scope.c - scopes: a stack of tensors per context, each with one reference, and a stack of marks where they begin. */
#include "tensor.h"
#include <stdlib.h>

static bool grow(void *stack, uint32_t *cap, size_t size)
{
    void **at = stack;
    uint32_t more = *cap ? *cap * 2 : 64;
    void *p = more > *cap ? realloc(*at, more * size) : NULL;
    if (!p) return td_fail_as(TD_ENOMEM, "out of memory: a scope cannot hold more than %u tensors", *cap);
    *at = p;
    *cap = more;
    return true;
}

td_tensor *tdi_own(td_context *c, td_tensor *t)
{
    if (!t) return NULL;
    if (__builtin_expect(c->own_n == c->own_cap, 0) && !grow(&c->own, &c->own_cap, sizeof *c->own)) {
        tdi_release(t);
        return NULL;
    }
    return c->own[c->own_n++] = t;
}

/* Works with a pending error, so that each pop finds its push. Where the stack cannot grow, only the count does: what
 * such a scope would own then falls to the one outside. */
void tdi_scope_push(void)
{
    td_context *c = tdi_ctx();
    if (c->mark_n < c->mark_cap || (c->mark_n == c->mark_cap && grow(&c->mark, &c->mark_cap, sizeof *c->mark)))
        c->mark[c->mark_n] = c->own_n;
    c->mark_n++;
}

/* Begins a pop; false where there is nothing to release. */
static bool pop_mark(td_context *c, uint32_t *base)
{
    if (c->mark_n == 0 || --c->mark_n >= c->mark_cap) return false;
    *base = c->mark[c->mark_n];
    return true;
}

/* Takes t's reference off the stack above base, or makes a new one where the scope does not own t. Results are mostly
 * on top. */
static td_tensor *take(td_context *c, uint32_t base, td_tensor *t)
{
    for (uint32_t i = c->own_n; i > base; i--)
        if (c->own[i - 1] == t) {
            c->own[i - 1] = NULL;
            return t;
        }
    return tdi_keep(t);
}

td_tensor *td_take(td_tensor *t)
{
    td_context *c = tdi_ctx();
    bool ours = t && c->mark_n && c->mark_n <= c->mark_cap && c->own_n > c->mark[c->mark_n - 1];
    if (ours && c->own[c->own_n - 1] == t) {
        c->own_n--;
        return t;
    }
    return t ? tdi_keep(t) : NULL;
}

/* The last reference to memory of others runs their code, which may open scopes of its own above own_n. */
static void release_above(td_context *c, uint32_t base)
{
    TD_ASSERT(base <= c->own_n);
    while (c->own_n > base) tdi_release(c->own[--c->own_n]);
}

td_tensor *tdi_scope_pop(td_tensor *to_caller)
{
    td_context *c = tdi_ctx();
    uint32_t base;
    if (c->err) to_caller = NULL;
    if (!pop_mark(c, &base)) return to_caller;
    if (to_caller) take(c, base, to_caller);
    release_above(c, base);
    return to_caller ? tdi_own(c, to_caller) : NULL;
}

void tdi_scope_pop_many(td_tensor *const *to_caller, uint32_t n)
{
    td_context *c = tdi_ctx();
    uint32_t base;
    if (!pop_mark(c, &base)) return;
    if (c->err) n = 0;
    for (uint32_t i = 0; i < n; i++)
        if (to_caller[i]) take(c, base, to_caller[i]);
    release_above(c, base);
    for (uint32_t i = 0; i < n; i++) tdi_own(c, to_caller[i]);
}
