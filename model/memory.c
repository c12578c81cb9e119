#include "model/memory.h"

#include <sys/mman.h>
#include <unistd.h>

void *dure_block_new(size_t bytes)
{
    void *block =
        mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) return NULL;
    /* Only speed depends on it. */
    (void)madvise(block, bytes, MADV_HUGEPAGE);
    return block;
}

void dure_block_free(void *block, size_t bytes)
{
    if (block) munmap(block, bytes ? bytes : 1);
}

size_t dure_machine_memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && bytes > 0 ? (size_t)pages * (size_t)bytes : 0;
}
