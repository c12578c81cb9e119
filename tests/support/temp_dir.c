#include "support/temp_dir.h"

#include "common/file.h"

#include <stdio.h>
#include <stdlib.h>

void temp_dir_make(temp_dir *dir)
{
    const char *base = getenv("TMPDIR");
    snprintf(dir->path, sizeof dir->path, "%s/dure-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(dir->path)) {
        perror("mkdtemp");
        abort();
    }
}

void temp_dir_remove(temp_dir *dir)
{
    if (dure_dir_remove(dir->path, NULL)) fprintf(stderr, "cannot remove %s\n", dir->path);
}

temp_dir test_dir;

int test_dir_setup(void **state)
{
    (void)state;
    temp_dir_make(&test_dir);
    return 0;
}

int test_dir_teardown(void **state)
{
    (void)state;
    temp_dir_remove(&test_dir);
    return 0;
}

const char *temp_dir_file(const temp_dir *dir, const char *name)
{
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir->path, name);
    return path;
}
