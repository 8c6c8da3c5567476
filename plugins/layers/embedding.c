/* embedding.c - y = rows of w at indices i        i (...)   w (num_embeddings, embedding_dim)   y (..., embedding_dim)
 * w starts standard normal; row padding_idx starts at zero and gets no gradient. */
#include <tide/plugin.h>

typedef struct {
    int64_t num_embeddings, embedding_dim, padding_idx;
    bool has_padding_idx;
} options;
static const td_opt opts[] = {
    TD_OPT(options, num_embeddings, TD_O_INT, NULL, ">= 1", "rows of w"),
    TD_OPT(options, embedding_dim, TD_O_INT, NULL, ">= 1", "length of a row"),
    TD_OPT_MAYBE(options, padding_idx, TD_O_INDEX, "none", NULL, "a row that is not trained; negative: from the end"),
};

/* 0-based, or TD_NONE. */
static int64_t padding(const options *o)
{
    if (!o->has_padding_idx) return TD_NONE;
    return o->padding_idx < 0 ? o->padding_idx + o->num_embeddings : o->padding_idx;
}

static bool init(td_module *self, const void *given)
{
    const options *o = given;
    int64_t row = padding(o);
    if (row != TD_NONE && (row < 0 || row >= o->num_embeddings))
        return td_fail("Embedding: padding_idx: expected a row of %lld, got %lld", (long long)o->num_embeddings,
                       (long long)(o->padding_idx < 0 ? o->padding_idx : o->padding_idx + 1));
    td_tensor *w = td_new_param(self, "weight", td_dims(o->num_embeddings, o->embedding_dim), "normal", 0, 1);
    return row == TD_NONE || td_zeros_into(td_select(w, 0, row), td_dims(o->embedding_dim), TD_F32);
}

static td_tensor *forward(td_module *self, td_tensor *i)
{
    return td_embedding(td_param(self, "weight"), i, padding(td_options(self)));
}

static bool sample(uint32_t i, td_sample *s) /* plain; with a padding row, which is not asked for; one index */
{
    *(options *)s->opts = (options){5, 3, 1, i == 1};
    s->in[0] = td_randint(i == 1 ? 2 : 0, 5, i == 2 ? td_dims(1) : td_dims(2, 4), TD_I64);
    return i < 3;
}

static const td_layer embedding = {
    .size = sizeof embedding,
    .kind = TD_LAYER,
    .name = "Embedding",
    .doc = "Rows of weight (num_embeddings, embedding_dim) at integer indices i (...), giving (..., embedding_dim). "
           "weight starts standard normal; row padding_idx starts at zero and gets no gradient.",
    .opts = TD_OPTS(options, opts),
    .in = "i#",
    .out = "y",
    .init = init,
    .forward1 = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&embedding); }
TD_PLUGIN("embedding", "1.0", "MIT", "layer:Embedding", reg, NULL)
