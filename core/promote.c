/* promote.c - which dtype an op computes in. The table and its three classes are PyTorch's (torch.result_type). */
#include "dispatch.h"

/* Order within a kind; f16 and bf16 meet in f32, for neither holds the other. */
static int rank_of(td_dtype dt)
{
    static const int rank[] = {[TD_BOOL] = 0, [TD_U8] = 1,   [TD_I32] = 2, [TD_I64] = 3,
                               [TD_F16] = 4,  [TD_BF16] = 4, [TD_F32] = 5, [TD_F64] = 6};
    return rank[dt];
}

static td_dtype promote_pair(td_dtype a, td_dtype b)
{
    if (a == b) return a;
    if (rank_of(a) == rank_of(b)) return TD_F32;
    return rank_of(a) > rank_of(b) ? a : b;
}

enum { NONE = -1 };

static int kind_of(td_dtype dt) { return dt == TD_BOOL ? 0 : td_dtype_is_float(dt) ? 2 : 1; }

static int join(int a, td_dtype b) { return a == NONE ? (int)b : (int)promote_pair((td_dtype)a, b); }

/* A weaker class changes the result only where it is of a higher kind. */
static int combine(int strong, int weak)
{
    if (strong == NONE) return weak;
    if (weak == NONE || kind_of((td_dtype)strong) >= kind_of((td_dtype)weak)) return strong;
    return (int)promote_pair((td_dtype)strong, (td_dtype)weak);
}

td_dtype tdi_promote(const td_view *const *in, const uint8_t *marks, uint32_t n)
{
    int tensor = NONE, zero_dim = NONE, number = NONE;
    for (uint32_t i = 0; i < n; i++) {
        const td_view *v = in[i];
        if (!v || marks[i] & TDI_AS_IS) continue;
        if (v->flags & TD_V_NUMBER) number = join(number, v->dt);
        else if (v->nd == 0) zero_dim = join(zero_dim, v->dt);
        else tensor = join(tensor, v->dt);
    }
    /* Numbers among themselves keep their precision (1 - beta^t); beside a tensor a fraction counts as the default, f32. */
    if (number != NONE && (tensor != NONE || zero_dim != NONE) && td_dtype_is_float((td_dtype)number)) number = TD_F32;
    int all = combine(tensor, combine(zero_dim, number));
    if (all != NONE) return (td_dtype)all;
    for (uint32_t i = 0; i < n; i++)
        if (in[i]) return in[i]->dt;
    return TD_F32;
}
