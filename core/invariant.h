/* invariant.h - TD_ASSERT guards what only our own mistake can break: on in builds with -DTIDE_ASSERT=ON, nothing in others. */
#ifndef TIDE_INVARIANT_H
#define TIDE_INVARIANT_H
#ifdef TD_ASSERTS
#include <stdio.h>
#include <stdlib.h>
#define TD_ASSERT(condition)                                                                  \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            fprintf(stderr, "%s:%d: broken invariant: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                          \
        }                                                                                     \
    } while (0)
#else
#define TD_ASSERT(condition) ((void)sizeof(condition))
#endif
#endif
