/* A fresh folder below $TMPDIR for one test, removed with all it holds. */
#pragma once

typedef struct temp_dir {
    char path[256];
} temp_dir;

/* Aborts the test program on failure: a test cannot go on without its folder. */
void temp_dir_make(temp_dir *dir);
void temp_dir_remove(temp_dir *dir);

/* One folder for a program whose tests need no more: fixtures of cmocka that make and remove it. */
extern temp_dir test_dir;
int test_dir_setup(void **state);
int test_dir_teardown(void **state);

/* dir->path + "/" + name; static storage for eight results, then reused. */
const char *temp_dir_file(const temp_dir *dir, const char *name);
