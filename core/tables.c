/* tables.c - what a table must be before the registry takes it. Every sentence names the table and the field. */
#include "loader.h"
#include "schema.h"
#include <stdio.h>
#include <string.h>

#define BAD(...) td_fail_as(TD_EPLUGIN, __VA_ARGS__)

/* The kind and name of a table, in a per-thread buffer:  op "my.swiglu" */
static const char *who_is(const char *kind, const char *name)
{
    static __thread char text[96];
    snprintf(text, sizeof text, "%s \"%.63s\"", kind, name ? name : "");
    return text;
}

/* what: "op: name" */
static bool check_name(const char *what, const char *name, bool dots)
{
    return tdi_is_name(name, dots) ||
           BAD("%s: expected letters, digits and _, at most 63, got \"%.80s\"", what, name ? name : "");
}

static uint64_t names_mask(const tdi_sig *s) { return (1ull << s->n) - 1; }

/* ---- ops ---- */

static const uint32_t op_flags = TD_OP_PRIM | TD_OP_BWD_DIFF | TD_OP_ONCE_DIFF | TD_OP_RNG | TD_OP_HOST_SYNC |
                                 TD_OP_VIEW | TD_OP_GOUT_NULL | TD_OP_OPTIONAL | TD_OP_NO_PROMOTE | TD_OP_ROW_MAJOR |
                                 TD_OP_ALIKE;

static bool check_signatures(const char *who, const td_op *t, tdi_sig *in, tdi_sig *out)
{
    if (!tdi_sig_parse(who, t->in, in) || !tdi_sig_parse(who, t->out, out)) return false;
    if (in->aux) return BAD("%s: in: \"%s\": the mark ! is for outputs", who, t->in);
    if (out->written || out->optional || out->scalar || out->mask)
        return BAD("%s: out: \"%s\": the marks & ? . ~ are for inputs", who, t->out);
    if (out->list && out->n > 1) return BAD("%s: out: \"%s\": a list must be the only output", who, t->out);
    if (t->flags & TD_OP_ALIKE &&
        (out->n != 1 || out->list || out->index || out->aux || !in->n || in->n > TDI_ALIKE_MAX || in->list ||
         in->optional || in->index || in->mask || in->scalar || in->written))
        return BAD("%s: flags: ALIKE is for one to %d inputs and one output without marks", who, TDI_ALIKE_MAX);
    if (!out->n && !in->written) return BAD("%s: out: an op without outputs must write an input (mark &)", who);
    if (t->save_in & ~names_mask(in))
        return BAD("%s: save_in: a bit beyond the %u names of \"%s\"", who, in->n, t->in ? t->in : "");
    if (t->save_out & ~names_mask(out))
        return BAD("%s: save_out: a bit beyond the %u names of \"%s\"", who, out->n, t->out ? t->out : "");
    return true;
}

static bool check_ways(const char *who, const td_op *t)
{
    uint32_t f = t->flags;
    if (f & ~op_flags) return BAD("%s: flags: 0x%x has bits that mean nothing", who, f & ~op_flags);
    if (f & TD_OP_BWD_DIFF && f & TD_OP_ONCE_DIFF)
        return BAD("%s: flags: BWD_DIFF and ONCE_DIFF exclude each other", who);
    if (f & TD_OP_VIEW && !t->view) return BAD("%s: view: TD_OP_VIEW needs it", who);
    if (!(f & TD_OP_VIEW) && t->view) return BAD("%s: view: is set without TD_OP_VIEW", who);
    if (f & TD_OP_ALIKE && f & (TD_OP_VIEW | TD_OP_RNG | TD_OP_HOST_SYNC | TD_OP_NO_PROMOTE))
        return BAD("%s: flags: ALIKE is for ops that only compute", who);
    if (f & (TD_OP_OPTIONAL | TD_OP_VIEW)) return true;
    if (f & TD_OP_PRIM && t->decompose) return BAD("%s: decompose: a primitive (TD_OP_PRIM) has none", who);
    if (!(f & TD_OP_PRIM) && !t->decompose)
        return BAD("%s: decompose: needed, for the op is no primitive (TD_OP_PRIM)", who);
    return true;
}

/* A second derivative must be right or refused: by a differentiable backward, by decompose, or by ONCE_DIFF. */
static bool check_derivatives(const char *who, const td_op *t, const tdi_sig *in)
{
    if (!t->backward || t->flags & (TD_OP_BWD_DIFF | TD_OP_ONCE_DIFF)) return true;
    if (!t->decompose) return BAD("%s: flags: a backward without decompose must be BWD_DIFF or ONCE_DIFF", who);
    if (t->save_in != names_mask(in))
        return BAD("%s: save_in: must cover all inputs, for decompose of them gives the second derivative (or set "
                   "BWD_DIFF or ONCE_DIFF)",
                   who);
    return true;
}

bool tdi_check_op(const td_op *t, tdi_sig *in, tdi_sig *out)
{
    if (!check_name("op: name", t->name, true)) return false;
    const char *who = who_is("op", t->name);
    return check_signatures(who, t, in, out) && check_ways(who, t) && check_derivatives(who, t, in) &&
           tdi_schema_of(&t->attr, who);
}

/* ---- kernels and layouts ---- */

static const uint32_t kernel_flags = TD_K_STRIDED | TD_K_CAPTURABLE | TD_K_DETERMINISTIC | TD_K_ALIAS_OK | TD_K_LAYOUT |
                                     TD_K_POINTWISE | TD_K_CHEAP | TD_K_OVER_FIRST;

bool tdi_check_kernel(const td_kernel *t)
{
    char who[160];
    if (!check_name("kernel: op", t->op, true) || !check_name("kernel: device", t->device, false)) return false;
    snprintf(who, sizeof who, "kernel \"%s@%s\"", t->op, t->device);
    uint32_t known = TD_BIT(TD_N_DTYPES) - 1;
    if (!t->dtypes || t->dtypes & ~known)
        return BAD("%s: dtypes: expected TD_BIT of one dtype or more, got 0x%x", who, t->dtypes);
    if (t->flags & ~kernel_flags)
        return BAD("%s: flags: 0x%x has bits that mean nothing", who, t->flags & ~kernel_flags);
    if (!t->run) return BAD("%s: run: needed", who);
    if (!t->again != !t->again_reads) return BAD("%s: again and again_reads: both or neither", who);
    if (t->flags & TD_K_LAYOUT && (!t->layouts || !*t->layouts))
        return BAD("%s: layouts: TD_K_LAYOUT needs their names", who);
    return true;
}

bool tdi_check_layout(const td_layout *t)
{
    if (!check_name("layout: name", t->name, true) || !check_name("layout: device", t->device, false)) return false;
    const char *who = who_is("layout", t->name);
    if (!t->bytes) return BAD("%s: bytes: needed", who);
    if (!t->to_strided || !t->from_strided) return BAD("%s: to_strided and from_strided: both are needed", who);
    return true;
}

/* ---- backends ---- */

bool tdi_check_backend(const td_backend *t)
{
    if (!check_name("backend: name", t->name, false)) return false;
    const char *who = who_is("backend", t->name);
    if (strlen(t->name) > 15) return BAD("%s: name: at most 15 letters", who);
    const struct {
        bool set;
        const char *name;
    } needed[] = {{t->score, "score"}, {t->count, "count"}, {t->open, "open"}, {t->close, "close"}, {t->props, "props"},
                  {t->alloc, "alloc"}, {t->free, "free"},   {t->copy, "copy"}, {t->fill, "fill"}};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!needed[i].set) return BAD("%s: %s: needed", who, needed[i].name);
    int streams = !!t->stream_new + !!t->stream_free + !!t->stream_sync;
    int events =
        !!t->event_new + !!t->event_free + !!t->event_record + !!t->event_wait + !!t->event_done + !!t->event_sync;
    int capture = !!t->cap_begin + !!t->cap_end + !!t->cap_launch + !!t->cap_free;
    if (streams && streams != 3) return BAD("%s: stream_new, stream_free and stream_sync: all of them or none", who);
    if (events && events != 6) return BAD("%s: event_new to event_sync: all of them or none", who);
    if (capture && capture != 4) return BAD("%s: cap_begin to cap_free: all of them or none", who);
    return tdi_schema_of(&t->opts, who) != NULL;
}

/* ---- layers and losses ---- */

static bool check_layer_signatures(const char *who, const td_layer *t, tdi_sig *in, tdi_sig *out)
{
    if (!tdi_sig_parse(who, t->in, in) || !tdi_sig_parse(who, t->out, out)) return false;
    if (in->aux || in->written || in->scalar)
        return BAD("%s: in: \"%s\": a layer's inputs may have the marks ? # ~ *", who, t->in);
    if (out->aux || out->written || out->scalar || out->list)
        return BAD("%s: out: \"%s\": a layer's outputs may have the marks ? # ~", who, t->out);
    if (!out->n) return BAD("%s: out: a layer needs an output", who);
    if (t->forward1 && (in->n != 1 || in->list || out->n != 1))
        return BAD("%s: forward1: is for one input and one output, the signature is \"%s -> %s\"", who, t->in, t->out);
    return true;
}

static bool check_loss(const char *who, const td_layer *t)
{
    uint32_t i = tdi_option_index(&t->opts, "reduction");
    const td_opt *o = i < t->opts.n ? &t->opts.v[i] : NULL;
    if (!o || tdi_option_type(o) != TD_O_ENUM || strcmp(o->allowed, "none|mean|sum"))
        return BAD("%s: opts: a loss has the option reduction of \"none|mean|sum\" (TD_LOSS_OPTS)", who);
    return true;
}

bool tdi_check_layer(td_layer *t, tdi_sig *in, tdi_sig *out)
{
    if (t->kind != TD_LAYER && t->kind != TD_LOSS)
        return BAD("layer: kind: expected TD_LAYER or TD_LOSS, got %u", t->kind);
    const char *kind = t->kind == TD_LOSS ? "loss" : "layer";
    if (!check_name(t->kind == TD_LOSS ? "loss: name" : "layer: name", t->name, true)) return false;
    const char *who = who_is(kind, t->name);
    if (t->reserved) return BAD("%s: reserved: must be 0", who);
    if (!t->forward1 == !t->forward) return BAD("%s: forward1 and forward: exactly one of them must be set", who);
    if (!t->in) t->in = "x";
    if (!t->out) t->out = "y";
    if (!check_layer_signatures(who, t, in, out) || !tdi_schema_of(&t->opts, who)) return false;
    return t->kind != TD_LOSS || check_loss(who, t);
}

/* ---- optimizers ---- */

/* "m v vmax?amsgrad mu." */
static bool check_state(const char *who, const td_optim *t)
{
    uint32_t n = 0;
    for (const char *w = t->state ? t->state : ""; *w; n++) {
        char name[64];
        w += strspn(w, " ");
        size_t len = strcspn(w, " "), stem = strcspn(w, " ?.");
        if (!len) break;
        if (stem >= sizeof name || len >= sizeof name) return BAD("%s: state: \"%.60s\" is too long", who, w);
        snprintf(name, sizeof name, "%.*s", (int)stem, w);
        if (!tdi_is_name(name, false)) return BAD("%s: state: \"%.*s\" is no name", who, (int)len, w);
        stem += w[stem] == '.';
        if (w[stem] == '?') {
            snprintf(name, sizeof name, "%.*s", (int)(len - stem - 1), w + stem + 1);
            if (tdi_option_index(&t->opts, name) == t->opts.n)
                return BAD("%s: state: \"%.*s\": there is no option %s", who, (int)len, w, name);
        } else if (stem != len) {
            return BAD("%s: state: \"%.*s\" is neither name, name. nor name?option", who, (int)len, w);
        }
        w += len;
    }
    return n <= TDI_MAX_NAMES || BAD("%s: state: at most %d names", who, TDI_MAX_NAMES);
}

bool tdi_check_optim(const td_optim *t)
{
    if (!check_name("optimizer: name", t->name, true)) return false;
    const char *who = who_is("optimizer", t->name);
    if (!t->step) return BAD("%s: step: needed", who);
    return tdi_schema_of(&t->opts, who) && check_state(who, t);
}
