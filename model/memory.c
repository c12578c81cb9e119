#include "model/memory.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Of a line or a path; longer ones are cut, and a group that is not found has no limit. */
enum { PATH_BYTES = 4096 };

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

/* The number at the start of a text, SIZE_MAX if there is none ("max"). */
static size_t number_of(const char *text)
{
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    return end == text || errno || value > SIZE_MAX ? SIZE_MAX : (size_t)value;
}

/* The limit in the file `name` of one group; SIZE_MAX if there is no such file. */
static size_t limit_of(const char *group, const char *name)
{
    char path[PATH_BYTES + 64], text[64] = "";
    snprintf(path, sizeof path, "%s/%s", group, name);
    FILE *f = fopen(path, "r");
    if (!f) return SIZE_MAX;
    const bool any = fgets(text, sizeof text, f) != NULL;
    fclose(f);
    return any ? number_of(text) : SIZE_MAX;
}

/* The lowest limit of the group below `top` and of all above it. A container may see its own group
 * as `top` and be told the path that it has outside: what does not exist has no limit here. */
static size_t lowest_limit(const char *top, const char *group, const char *name)
{
    char path[PATH_BYTES];
    size_t least = SIZE_MAX;
    const size_t n_top = strlen(top);
    if (strstr(group, "/..")) group = ""; /* outside of what the container may see */
    const int n = snprintf(path, sizeof path, "%s%s", top, group);
    if (n < 0 || (size_t)n >= sizeof path) return SIZE_MAX;
    for (;;) {
        const size_t limit = limit_of(path, name);
        if (limit < least) least = limit;
        char *slash = strrchr(path + n_top, '/');
        if (!slash) return least;
        *slash = 0;
    }
}

/* "0::/PATH" is of version 2, "4:memory:/PATH" of version 1, where controllers are a list. */
static size_t limit_of_line(char *line, const char *root)
{
    char top[PATH_BYTES];
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group) return SIZE_MAX;
    *group++ = 0;
    controllers++;
    group[strcspn(group, "\n")] = 0;
    if (!*controllers) return lowest_limit(root, group, "memory.max");
    for (char *save, *one = strtok_r(controllers, ",", &save); one;
         one = strtok_r(NULL, ",", &save))
        if (!strcmp(one, "memory")) {
            snprintf(top, sizeof top, "%s/memory", root);
            return lowest_limit(top, group, "memory.limit_in_bytes");
        }
    return SIZE_MAX;
}

size_t dure_cgroup_memory_bytes(const char *membership, const char *root)
{
    char line[PATH_BYTES];
    size_t least = SIZE_MAX;
    FILE *f = fopen(membership, "r");
    if (!f) return SIZE_MAX;
    while (fgets(line, sizeof line, f)) {
        const size_t limit = limit_of_line(line, root);
        if (limit < least) least = limit;
    }
    fclose(f);
    return least;
}

size_t dure_machine_memory_bytes(void)
{
    const size_t limit = dure_cgroup_memory_bytes("/proc/self/cgroup", "/sys/fs/cgroup");
    const long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
    const size_t machine = pages > 0 && bytes > 0 ? (size_t)pages * (size_t)bytes : 0;
    return machine && machine < limit ? machine : limit;
}

size_t dure_memory_available_bytes(const char *path)
{
    static const char key[] = "MemAvailable:";
    char line[128];
    size_t kib = SIZE_MAX;
    FILE *f = fopen(path, "r");
    if (!f) return SIZE_MAX;
    while (kib == SIZE_MAX && fgets(line, sizeof line, f))
        if (!strncmp(line, key, sizeof key - 1)) kib = number_of(line + sizeof key - 1);
    fclose(f);
    return kib > SIZE_MAX / 1024 ? SIZE_MAX : kib * 1024;
}
