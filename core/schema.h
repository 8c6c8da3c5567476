/* schema.h - an option schema as the core uses it: checked once, with its defaults as a ready struct and its bounds parsed. */
#ifndef TIDE_SCHEMA_H
#define TIDE_SCHEMA_H
#include <tide/tide.h>

enum { TDI_MAX_OPTIONS = 64 };

/** What "allowed" says. Bounds are as a user writes them, so 1-based for AXIS and INDEX. */
typedef struct {
    double lo, hi;
    bool lo_open, hi_open, nan;
    uint32_t n_words;
    char **word; /* "a|b|c" of ENUM and STR                                       */
} tdi_rule;

typedef struct tdi_schema {
    struct tdi_schema *next;
    const td_opt *v; /* the key: schemas are constant and live for ever               */
    uint32_t n;
    size_t out_size;
    uint64_t required, strings; /* a bit for each option                                      */
    tdi_rule *rule;
    void *image; /* the struct with all defaults; its strings are ours            */
} tdi_schema;

/**
 * The checked form of a schema, made at the first call and kept for ever.
 *
 * who    begins the message
 * return NULL after an error that names the option and the field that is wrong
 */
const tdi_schema *tdi_schema_of(const td_opts *, const char *who);

/** Stores one given value in the option's field; strings are copied. dflt: it is the default, whose none is no word. */
bool tdi_option_store(const tdi_schema *, const char *who, uint32_t option, const td_value *given, void *out,
                      bool dflt);

/** Place of an option by name, or schema->n. */
uint32_t tdi_option_index(const td_opts *, const char *name);

static inline td_otype tdi_option_type(const td_opt *o) { return (td_otype)(o->type & 0xffu); }
static inline bool tdi_option_is_list(const td_opt *o)
{
    td_otype t = tdi_option_type(o);
    return t == TD_O_INTS || t == TD_O_NUMS || t == TD_O_AXES;
}

/** Whether s is a name: letters, digits and underscores, not a digit first, at most 63; with dots = true in parts, "myns.op". */
bool tdi_is_name(const char *s, bool dots);

#endif
