/* read.c - the ways from a tensor's memory to the host: all elements, or the one of item. */
#include "dispatch.h"
#include "half.h"
#include "trace.h"
#include <string.h>

static bool has_data(const char *who, const td_tensor *t)
{
    if (!t) return td_fail("%s: expected a tensor, got nothing", who);
    if (t->shell) return td_fail_as(TD_EPLUGIN, "%s: the data of %s was not saved for backward", who, tdi_describe(t));
    return true;
}

/* Dense elements of t's dtype to the host. */
static bool read_all(const td_tensor *t, void *to, size_t bytes)
{
    td_device *dev = t->st->dev;
    if (bytes == 0) return true;
    if (tdi_ctx()->trace && !tdi_trace_read(t, "reading a tensor's values")) return false;
    if (td_view_dense(&t->v)) return tdi_copy_to_host(dev, to, t->v.p, bytes);
    td_tensor *dense = tdi_tensor_alloc();
    if (!dense) return false;
    dense->v.dt = t->v.dt;
    dense->v.nd = t->v.nd;
    memcpy(dense->v.dim, t->v.dim, sizeof dense->v.dim);
    tdi_dense_strides(&dense->v);
    bool ok = tdi_tensor_allocate(dense, dev) && tdi_copy_raw(dense, t) && tdi_copy_to_host(dev, to, dense->v.p, bytes);
    tdi_release(dense);
    return ok;
}

bool td_tensor_read(td_tensor *t, void *to)
{
    size_t bytes;
    if (tdi_failed() || !has_data("read", t)) return false;
    if (!t->st) {
        memcpy(to, &t->num, sizeof t->num);
        return true;
    }
    return tdi_view_bytes("read", &t->v, &bytes) && read_all(t, to, bytes);
}

/* ---- one element ---- */

/* A value of any dtype: as an integer where the dtype holds integers, else as a number. */
typedef struct {
    bool integer;
    int64_t i;
    double d;
} element;

static element load(td_dtype dt, const void *p)
{
    union {
        float f;
        double d;
        uint16_t h;
        int32_t i32;
        int64_t i64;
        uint8_t u8;
    } u = {.i64 = 0};
    memcpy(&u, p, td_dtype_size(dt));
    switch (dt) {
    case TD_F32: return (element){false, 0, (double)u.f};
    case TD_F64: return (element){false, 0, u.d};
    case TD_F16: return (element){false, 0, (double)tdi_from_f16(u.h)};
    case TD_BF16: return (element){false, 0, (double)tdi_from_bf16(u.h)};
    case TD_I64: return (element){true, u.i64, 0};
    case TD_I32: return (element){true, u.i32, 0};
    case TD_BOOL: return (element){true, u.u8 != 0, 0};
    default: return (element){true, u.u8, 0};
    }
}

/* Towards zero; what lies outside becomes the nearest integer there is, NaN becomes 0. */
static int64_t integer_of(double d)
{
    if (!(d == d)) return 0;
    if (d >= 0x1p63) return INT64_MAX;
    return d < -0x1p63 ? INT64_MIN : (int64_t)d;
}

static void store(element e, td_dtype dt, void *to)
{
    double d = e.integer ? (double)e.i : e.d;
    float f = e.integer ? (float)e.i : (float)e.d;
    int64_t i = e.integer ? e.i : integer_of(e.d);
    switch (dt) {
    case TD_F32: memcpy(to, &f, sizeof f); break;
    case TD_F64: memcpy(to, &d, sizeof d); break;
    case TD_F16: memcpy(to, &(uint16_t){tdi_to_f16(f)}, 2); break;
    case TD_BF16: memcpy(to, &(uint16_t){tdi_to_bf16(f)}, 2); break;
    case TD_I64: memcpy(to, &i, sizeof i); break;
    case TD_I32: memcpy(to, &(int32_t){(int32_t)i}, 4); break;
    case TD_BOOL: *(uint8_t *)to = d != 0; break;
    default: *(uint8_t *)to = (uint8_t)i; break;
    }
}

bool tdi_item(td_tensor *t, td_dtype as, void *value)
{
    unsigned char raw[8] = {0};
    if (tdi_failed() || !has_data("item", t)) return false;
    if ((uint32_t)as >= TD_N_DTYPES) return td_fail_as(TD_EDTYPE, "item: %d is no dtype", (int)as);
    if (td_view_numel(&t->v) != 1)
        return td_fail_as(TD_ESHAPE, "item: expected a tensor of one element, got %s", tdi_describe(t));
    if (!t->st) memcpy(raw, &t->num, sizeof raw);
    else if (!read_all(t, raw, td_dtype_size(t->v.dt))) return false;
    store(load(t->v.dt, raw), as, value);
    return true;
}
