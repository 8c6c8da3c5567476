/* literal.h - the values that a schema's defaults and a child's options are written in: a small part of Lua's syntax. */
#ifndef TIDE_LITERAL_H
#define TIDE_LITERAL_H
#include <tide/tide.h>

enum { TDI_LITERAL_ITEMS = 64, TDI_LITERAL_NAMED = 32, TDI_LITERAL_TEXT = 1024 };

/** A parsed text and all that its values point to. Constant size: a longer text is refused. */
typedef struct {
    td_value item[TDI_LITERAL_ITEMS];
    td_named named[TDI_LITERAL_NAMED];
    char text[TDI_LITERAL_TEXT];
    uint32_t n_item, n_named;
    size_t n_text;
} tdi_literal;

/**
 * One value:  12  -1e-5  inf  nan  "text"  true  nil  mean  {1, 2}.  A bare word, none among them, is a string.
 *
 * store   what value borrows from
 * why     after false: what is wrong with the text
 */
bool tdi_literal_value(const char *text, tdi_literal *store, td_value *value, char *why, size_t room);

/** Arguments of a constructor:  {3, 4, bias = false}  or nothing. */
bool tdi_literal_args(const char *text, tdi_literal *store, td_args *args, char *why, size_t room);

#endif
