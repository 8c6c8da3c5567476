/* block.h - small blocks of memory from per-thread free lists: what recording takes and gives back at every op. */
#ifndef TIDE_BLOCK_H
#define TIDE_BLOCK_H
#include <stddef.h>

/** size bytes, undefined. NULL after TD_ENOMEM. Freed by tdi_block_free with the same size, by any thread. */
void *tdi_block_alloc(size_t size);
void tdi_block_free(void *block, size_t size);

#endif
