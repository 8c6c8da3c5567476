/* recurrent.h - what LSTM, GRU and RNN have in common: options, parameters, and the stack of layers and directions; their
 * cells are in recurrent_cell.h.
 * x (T, N, I), or (N, T, I) where batch first, or (T, I) of one sequence   y (T, N, D H), D = 2 for both directions
 * h0, h (L D, N, H): layer 1 forward, layer 1 backward, layer 2 forward, … */
#ifndef TIDE_LAYERS_RECURRENT_H
#define TIDE_LAYERS_RECURRENT_H
#include <tide/plugin.h>

typedef struct {
    int64_t input_size, hidden_size, num_layers;
    bool bias, batch_first;
    double dropout;
    bool bidirectional;
    int32_t nonlinearity; /* RNN */
} recurrent_options;

#define RECURRENT_OPTS                                                                                              \
    TD_OPT(recurrent_options, input_size, TD_O_INT, NULL, ">= 1", "features of a step of x"),                       \
        TD_OPT(recurrent_options, hidden_size, TD_O_INT, NULL, ">= 1, <= 16777216", "hidden units of a direction"), \
        TD_OPT(recurrent_options, num_layers, TD_O_INT, "1", ">= 1, <= 1000",                                       \
               "layers, each on the outputs of the one below"),                                                     \
        TD_OPT(recurrent_options, bias, TD_O_BOOL, "true", NULL, "whether there are biases"),                       \
        TD_OPT(recurrent_options, batch_first, TD_O_BOOL, "false", NULL, "x and y (N, T, .) instead of (T, N, .)"), \
        TD_OPT(recurrent_options, dropout, TD_O_NUM, "0", ">= 0, <= 1",                                             \
               "probability of a zero in what goes from layer to layer, in training"),                              \
        TD_OPT(recurrent_options, bidirectional, TD_O_BOOL, "false", NULL,                                          \
               "a second direction, from the last step to the first, beside the first one in y")

/** The parameters of one layer and direction; biases may be NULL. */
typedef struct {
    td_tensor *w_ih, *w_hh, *b_ih, *b_hh;
} recurrent_weights;

/** One layer in one direction: x (T, N, I), h and c (N, H) or NULL at its start, the last ones at its end. */
typedef td_tensor *recurrent_run(const recurrent_options *o, td_tensor *x, recurrent_weights w, bool reverse,
                                 td_tensor **h, td_tensor **c);

/** What tells one kind from the others. */
typedef struct {
    const char *name;
    int64_t gates;
    int n_state; /* 2: h and c, else h */
    recurrent_run *run;
} recurrent_kind;

/** PyTorch's names: weight_ih_l0, weight_hh_l0_reverse, … */
static inline const char *recurrent_name(char to[48], const char *what, int64_t layer, bool reverse)
{
    snprintf(to, 48, "%s_l%lld%s", what, (long long)layer, reverse ? "_reverse" : "");
    return to;
}

/** Declares all parameters, uniform in +-1 / sqrt(hidden_size). */
static inline bool recurrent_init(td_module *self, const recurrent_kind *k, const recurrent_options *o)
{
    int64_t width = k->gates * o->hidden_size, directions = o->bidirectional ? 2 : 1;
    double fan = (double)o->hidden_size;
    char name[48];
    for (int64_t l = 0; l < o->num_layers; l++) {
        int64_t in = l == 0 ? o->input_size : directions * o->hidden_size;
        for (int64_t d = 0; d < directions; d++) {
            td_new_param(self, recurrent_name(name, "weight_ih", l, d), td_dims(width, in), "fan_in", fan, 0);
            td_new_param(self, recurrent_name(name, "weight_hh", l, d), td_dims(width, o->hidden_size), "fan_in", fan,
                         0);
            if (!o->bias) continue;
            td_new_param(self, recurrent_name(name, "bias_ih", l, d), td_dims(width), "fan_in", fan, 0);
            td_new_param(self, recurrent_name(name, "bias_hh", l, d), td_dims(width), "fan_in", fan, 0);
        }
    }
    return !td_failed();
}

static inline recurrent_weights recurrent_weights_of(td_module *self, const recurrent_options *o, int64_t layer,
                                                     bool reverse)
{
    char name[48];
    recurrent_weights w = {td_param(self, recurrent_name(name, "weight_ih", layer, reverse)), NULL, NULL, NULL};
    w.w_hh = td_param(self, recurrent_name(name, "weight_hh", layer, reverse));
    if (!o->bias) return w;
    w.b_ih = td_param(self, recurrent_name(name, "bias_ih", layer, reverse));
    w.b_hh = td_param(self, recurrent_name(name, "bias_hh", layer, reverse));
    return w;
}

/** Whether x and the states given fit the options. */
static inline bool recurrent_inputs_ok(const char *who, const recurrent_options *o, td_tensor *x, td_tensor *h0,
                                       td_tensor *c0)
{
    int nd = td_ndim(x);
    if (nd < 2 || nd > 3 || td_dim(x, -1) != o->input_size)
        return td_fail_as(TD_ESHAPE, "%s: expected x (%s, %lld) or (T, %lld), got %s", who,
                          o->batch_first ? "N, T" : "T, N", (long long)o->input_size, (long long)o->input_size,
                          td_describe(x).s);
    if (td_dim(x, nd == 3 && o->batch_first ? 1 : 0) == 0)
        return td_fail_as(TD_ESHAPE, "%s: expected at least one step, got x %s", who, td_describe(x).s);
    int64_t pieces = o->num_layers * (o->bidirectional ? 2 : 1),
            rows = nd == 2 ? -1 : td_dim(x, o->batch_first ? 0 : 1);
    td_tensor *const state[] = {h0, c0};
    for (int i = 0; i < 2; i++) {
        td_tensor *s = state[i];
        if (!s) continue;
        bool fits = td_ndim(s) == nd && td_dim(s, 0) == pieces && td_dim(s, -1) == o->hidden_size &&
                    (nd == 2 || td_dim(s, 1) == rows);
        if (fits) continue;
        const char *name = i ? "c0" : "h0";
        if (nd == 2)
            return td_fail_as(TD_ESHAPE, "%s: expected %s (%lld, %lld), got %s", who, name, (long long)pieces,
                              (long long)o->hidden_size, td_describe(s).s);
        return td_fail_as(TD_ESHAPE, "%s: expected %s (%lld, %lld, %lld), got %s", who, name, (long long)pieces,
                          (long long)rows, (long long)o->hidden_size, td_describe(s).s);
    }
    return true;
}

/** Runs the stack: x and states given -> y and the last states. */
static inline bool recurrent_forward(td_module *self, const recurrent_kind *k, td_tensor *const *in, td_tensor **out)
{
    const recurrent_options *o = td_options(self);
    const bool cells = k->n_state == 2;
    td_tensor *x = in[0], *h0 = in[1], *c0 = cells ? in[2] : NULL;
    if (cells && !h0 != !c0) return td_fail("%s: expected both h0 and c0 or none of them", k->name);
    if (!recurrent_inputs_ok(k->name, o, x, h0, c0)) return false;
    bool single = td_ndim(x) == 2;
    int directions = o->bidirectional ? 2 : 1;
    if (single) { /* as a batch of one */
        x = td_unsqueeze(x, 1);
        h0 = h0 ? td_unsqueeze(h0, 1) : NULL;
        c0 = c0 ? td_unsqueeze(c0, 1) : NULL;
    } else if (o->batch_first) {
        x = td_transpose(x, 0, 1);
    }
    td_tensor *last_h = NULL, *last_c = NULL; /* gathered piece by piece, so that many layers need no list */
    for (int64_t l = 0; l < o->num_layers && !td_failed(); l++) {
        td_tensor *part[2] = {NULL, NULL}, *hs[2] = {NULL, NULL}, *cs[2] = {NULL, NULL};
        if (l > 0 && o->dropout > 0 && td_training(self)) x = td_dropout(x, o->dropout);
        for (int d = 0; d < directions; d++) {
            int64_t place = l * directions + d;
            hs[d] = h0 ? td_select(h0, 0, place) : NULL;
            cs[d] = c0 ? td_select(c0, 0, place) : NULL;
            part[d] = k->run(o, x, recurrent_weights_of(self, o, l, d), d == 1, &hs[d], &cs[d]);
        }
        x = directions == 2 ? td_cat(part, 2, 2) : part[0];
        td_tensor *all[] = {last_h, td_stack(hs, (uint32_t)directions, 0)};
        last_h = l ? td_cat(all, 2, 0) : all[1];
        if (!cells) continue;
        td_tensor *all_c[] = {last_c, td_stack(cs, (uint32_t)directions, 0)};
        last_c = l ? td_cat(all_c, 2, 0) : all_c[1];
    }
    if (td_failed()) return false;
    out[0] = single ? td_squeeze(x, td_dims(1)) : o->batch_first ? td_transpose(x, 0, 1) : x;
    out[1] = single ? td_squeeze(last_h, td_dims(1)) : last_h;
    if (cells) out[2] = single ? td_squeeze(last_c, td_dims(1)) : last_c;
    return !td_failed();
}

/** Cases: plain · states given, batch first · two layers in both directions, without biases · one sequence. */
static inline bool recurrent_sample(uint32_t i, td_sample *s, const recurrent_kind *kind)
{
    static const recurrent_options cases[] = {
        {2, 3, 1, true, false, 0, false, 0},
        {2, 3, 1, true, true, 0, false, 0},
        {3, 2, 2, false, false, 0, true, 0},
        {2, 2, 1, true, false, 0, false, 0},
    };
    if (i >= sizeof cases / sizeof *cases) return false;
    *(recurrent_options *)s->opts = cases[i];
    s->in[0] = i == 3 ? td_randn(td_dims(3, 2), TD_F32) : td_randn(td_dims(3, 2, cases[i].input_size), TD_F32);
    for (int k = 1; k <= kind->n_state && i == 1; k++) s->in[k] = td_randn(td_dims(1, 3, 3), TD_F32);
    for (int k = 1; k <= kind->n_state && i == 2; k++) s->in[k] = td_randn(td_dims(4, 2, 2), TD_F32);
    return true;
}

#endif
