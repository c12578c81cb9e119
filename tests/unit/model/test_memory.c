/* How much memory there is, by the files in which the kernel says it. */
#include "common/file.h"
#include "model/memory.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GIB ((size_t)1 << 30)

static temp_dir dir;

static int setup(void **state)
{
    (void)state;
    temp_dir_make(&dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temp_dir_remove(&dir);
    return 0;
}

/* A file below the folder, with the folders that it lies in. */
static void put(const char *name, const char *text)
{
    char folder[512];
    snprintf(folder, sizeof folder, "%s", temp_dir_file(&dir, name));
    *strrchr(folder, '/') = 0;
    assert_ok(dure_dir_make(folder, NULL));
    assert_ok(
        dure_file_write_atomic(temp_dir_file(&dir, name), dure_span_of_text(text), 0644, NULL));
}

/* The limit of a process whose membership is this text. */
static size_t limit_of(const char *membership)
{
    char root[512];
    put("membership", membership);
    snprintf(root, sizeof root, "%s", temp_dir_file(&dir, "cgroup"));
    return dure_cgroup_memory_bytes(temp_dir_file(&dir, "membership"), root);
}

/* In a container with a name space of its own, the group is the root of what it sees. */
static void test_memory_of_a_container(void **state)
{
    (void)state;
    put("cgroup/memory.max", "2147483648\n");
    assert_int_equal(limit_of("0::/\n"), 2 * GIB);
    put("cgroup/memory.max", "max\n");
    assert_int_equal(limit_of("0::/\n"), SIZE_MAX);
}

/* Without one it is told the path outside, which is not there. */
static void test_memory_of_a_container_that_is_told_a_path_outside(void **state)
{
    (void)state;
    put("cgroup/memory.max", "2147483648\n");
    assert_int_equal(limit_of("0::/docker/0123abcd\n"), 2 * GIB);
    assert_int_equal(limit_of("0::/../../system.slice/x\n"), 2 * GIB);
    put("cgroup/memory/memory.limit_in_bytes", "1073741824\n");
    assert_int_equal(limit_of("5:cpu:/docker/ab\n4:memory:/docker/ab\n"), GIB);
}

/* The lowest of the group's and of those above it, whichever that is. */
static void test_memory_of_nested_groups(void **state)
{
    (void)state;
    put("cgroup/user.slice/memory.max", "3221225472\n");
    put("cgroup/user.slice/a.service/memory.max", "max\n");
    assert_int_equal(limit_of("0::/user.slice/a.service\n"), 3 * GIB);
    put("cgroup/user.slice/a.service/memory.max", "1073741824\n");
    assert_int_equal(limit_of("0::/user.slice/a.service\n"), GIB);
    assert_int_equal(limit_of("0::/user.slice/b.service\n"), 3 * GIB);
    assert_int_equal(limit_of("0::/system.slice\n"), SIZE_MAX);
}

/* Version 1, whose controllers may share a group; "no limit" is a number above every machine. */
static void test_memory_of_groups_of_version_1(void **state)
{
    (void)state;
    static const char membership[] =
        "12:cpu,cpuacct:/small\n4:hugetlb,memory:/site\n1:name=systemd:/small\n0::/small\n";
    put("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("cgroup/memory/small/memory.limit_in_bytes", "1048576\n");
    put("cgroup/memory/site/memory.limit_in_bytes", "4294967296\n");
    assert_int_equal(limit_of(membership), 4 * GIB);
    put("cgroup/memory/site/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(limit_of(membership), 9223372036854771712u);
}

static void test_memory_of_files_that_say_nothing(void **state)
{
    (void)state;
    static const char *const odd[] = {
        "", "\n", "0", "0:", "0:memory", "::", "4:memory:", "x:y:z\n"};
    char absent[512];
    snprintf(absent, sizeof absent, "%s", temp_dir_file(&dir, "absent"));
    assert_int_equal(dure_cgroup_memory_bytes(absent, absent), SIZE_MAX);
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        assert_int_equal(limit_of(odd[i]), SIZE_MAX);
    put("cgroup/memory.max", "");
    assert_int_equal(limit_of("0::/\n"), SIZE_MAX);
    put("cgroup/memory.max", "many\n");
    assert_int_equal(limit_of("0::/\n"), SIZE_MAX);
    char *path = malloc(9001);
    assert_non_null(path);
    memset(path, 'a', 9000);
    memcpy(path, "0::/", 4);
    path[9000] = 0;
    assert_int_equal(limit_of(path), SIZE_MAX);
    free(path);
}

/* What the machine has is the bound where no group says less, as on the machine at hand. */
static void test_memory_of_this_machine(void **state)
{
    (void)state;
    const size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    const size_t group = dure_cgroup_memory_bytes("/proc/self/cgroup", "/sys/fs/cgroup");
    assert_int_equal(dure_machine_memory_bytes(), group < machine ? group : machine);
}

static void test_memory_that_is_free(void **state)
{
    (void)state;
    char path[512];
    put("meminfo", "MemTotal:       16384000 kB\nMemFree:          100 kB\n"
                   "MemAvailable:    2097152 kB\n");
    snprintf(path, sizeof path, "%s", temp_dir_file(&dir, "meminfo"));
    assert_int_equal(dure_memory_available_bytes(path), 2 * GIB);
    put("meminfo", "MemTotal:       16384000 kB\n");
    assert_int_equal(dure_memory_available_bytes(path), SIZE_MAX);
    assert_int_equal(dure_memory_available_bytes(temp_dir_file(&dir, "absent")), SIZE_MAX);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_memory_of_a_container),
        TEST(test_memory_of_a_container_that_is_told_a_path_outside),
        TEST(test_memory_of_nested_groups),
        TEST(test_memory_of_groups_of_version_1),
        TEST(test_memory_of_files_that_say_nothing),
        TEST(test_memory_of_this_machine),
        TEST(test_memory_that_is_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
