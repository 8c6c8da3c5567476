/* registered.h - what the tests of the registry and of plugins share. */
#ifndef TIDE_TEST_REGISTERED_H
#define TIDE_TEST_REGISTERED_H
#include <tide/tide.h>

/** The pending error's sentence, which is taken. */
static inline const char *taken(void)
{
    const char *msg;
    td_error_take(&msg);
    return msg;
}

/** The result of an op of one input. */
static inline td_tensor *call1(const char *name, td_tensor *x)
{
    td_tensor *y = NULL;
    uint32_t n = 1, id = TD->op_id(name);
    return id != UINT32_MAX && TD->call(id, &x, 1, NULL, &y, &n) ? y : NULL;
}

#endif
