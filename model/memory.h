/* Large blocks of memory, zeroed, on large pages where the system has them: weights and activations
 * are read in panels that would otherwise cross a page for every line of them. And how much memory
 * there is. */
#pragma once

#include <stddef.h>

/* NULL when there is no memory. The caller owns it, dure_block_free() with the same size. */
void *dure_block_new(size_t bytes);
void dure_block_free(void *block, size_t bytes); /* NULL-safe */

/* What the machine has, or what this process's control group may have of it (a container's limit)
 * if that is less: over it the kernel ends processes. The same at every call, unless an
 * administrator changes the limit. */
size_t dure_machine_memory_bytes(void);
/* The lowest limit of the control groups that the file `membership` (/proc/self/cgroup) names and
 * of those above them, which lie below the folder `root` (/sys/fs/cgroup), of version 1 and 2;
 * SIZE_MAX if there is none. */
size_t dure_cgroup_memory_bytes(const char *membership, const char *root);
/* What programs could take of the machine's memory at this moment, as the kernel says in the file
 * `path` (/proc/meminfo); SIZE_MAX if it does not. */
size_t dure_memory_available_bytes(const char *path);
