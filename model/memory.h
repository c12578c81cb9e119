/* Large blocks of memory, zeroed, on large pages where the system has them: weights and activations
 * are read in panels that would otherwise cross a page for every line of them. */
#pragma once

#include <stddef.h>

/* NULL when there is no memory. The caller owns it, dure_block_free() with the same size. */
void *dure_block_new(size_t bytes);
void dure_block_free(void *block, size_t bytes); /* NULL-safe */

/* What the machine has. */
size_t dure_machine_memory_bytes(void);
