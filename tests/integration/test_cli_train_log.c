/* What `dure train` writes beside the adapter: the log and TensorBoard's event file. */
#include "integration/train_desk.h"

#include <dirent.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The log without what is measured by the clock. */
static char *timeless(const char *name)
{
    char *text = desk_file(name, NULL), *out = calloc(1, strlen(text) + 1);
    assert_non_null(out);
    for (size_t i = 0;; i++) {
        json_t *line = json_line(text, i);
        if (!line) break;
        json_object_del(line, "seconds");
        json_object_del(line, "of_peak");
        json_object_del(line, "run");
        char *words = json_dumps(line, JSON_COMPACT);
        strcat(strcat(out, words), "\n");
        free(words);
        json_decref(line);
    }
    free(text);
    return out;
}

static void test_train_log_has_a_line_a_step(void **state)
{
    (void)state;
    struct stat info;
    desk_run(PLAIN "--steps 4 --eval held.jsonl --eval-every 2 --log log.jsonl --out a");
    assert_int_equal(stat(temp_dir_file(&desk.dir, "log.jsonl"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    char *text = desk_file("log.jsonl", NULL);
    for (size_t i = 1; i <= 4; i++) {
        json_t *line = json_line(text, i);
        assert_true(json_figure(line, "step") == (double)i && json_figure(line, "loss") > 0);
        assert_true(json_figure(line, "gradient_norm") > 0);
        assert_int_equal(json_object_get(line, "eval_loss") != NULL, i % 2 == 0);
        json_decref(line);
    }
    assert_null(json_line(text, 5));
    free(text);
}

/* Killed and taken up again, with saved states behind it, the log reads as if nothing was. */
static void test_train_log_of_a_killed_run_has_no_gap_and_no_repeat(void **state)
{
    (void)state;
    static const char run[] = PLAIN "--steps 600 --save-every 7 --json ";
    char command[512];
    snprintf(command, sizeof command, "%s --log log-%s --out %s", run, "a", "a");
    desk_run(command);
    for (int lines = 5; lines < 300; lines += 90) {
        snprintf(command, sizeof command, "%s --log log-%s --out %s", run, "b", "b");
        assert_true(desk_kill_after(command, lines));
    }
    desk_run(command);
    char *a = timeless("log-a"), *b = timeless("log-b");
    assert_string_equal(a, b);
    free(a);
    free(b);
    desk_same_bytes("a/adapter.gguf", "b/adapter.gguf");
}

static void test_train_log_is_not_written_over_another_file(void **state)
{
    (void)state;
    assert_int_equal(program_run(&desk, PLAIN "--steps 2 --log held.jsonl --out a"), 1);
    program_says(&desk, "choose another --log");
    char *text = desk_file("held.jsonl", NULL);
    assert_non_null(strstr(text, "say apple 100"));
    free(text);
}

/* The one event file in the folder; the caller frees it. */
static char *event_file(const char *folder, size_t *n)
{
    char name[600] = "";
    DIR *d = opendir(temp_dir_file(&desk.dir, folder));
    assert_non_null(d);
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        if (strstr(e->d_name, "tfevents")) snprintf(name, sizeof name, "%s/%s", folder, e->d_name);
    closedir(d);
    return desk_file(name, n);
}

static uint32_t crc32c(const char *data, size_t n)
{
    uint32_t c = UINT32_MAX;
    for (size_t i = 0; i < 8 * n; i++) {
        uint32_t bit = (uint32_t)((unsigned char)data[i / 8] >> i % 8 & 1);
        c = (c ^ bit) & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
    }
    return ~c;
}

static uint32_t unmasked(const char *at)
{
    uint32_t c;
    memcpy(&c, at, sizeof c);
    c -= 0xa282ead8u;
    return c >> 17 | c << 15;
}

/* Frame by frame, with both checksums; counts the frames that hold `tag`. */
static size_t count_frames(const char *file, size_t n, const char *tag)
{
    size_t found = 0;
    for (size_t at = 0; at < n;) {
        uint64_t length;
        assert_true(n - at >= 12);
        memcpy(&length, file + at, sizeof length);
        assert_int_equal(unmasked(file + at + 8), crc32c(file + at, 8));
        at += 12;
        assert_true(length + 4 <= n - at);
        assert_int_equal(unmasked(file + at + length), crc32c(file + at, length));
        found += memmem(file + at, length, tag, strlen(tag)) != NULL;
        at += length + 4;
    }
    return found;
}

static void test_train_event_file_is_framed_and_checked(void **state)
{
    (void)state;
    assert_int_equal(crc32c("123456789", 9), 0xe3069283u); /* RFC 3720's check value */
    desk_run(PLAIN "--steps 6 --eval held.jsonl --eval-every 3 --sample-prompt hi "
                   "--sample-every 3 --sample-tokens 2 --tensorboard board --out a");
    size_t n = 0;
    char *file = event_file("board", &n);
    assert_int_equal(count_frames(file, n, "brain.Event:2"), 1);
    assert_int_equal(count_frames(file, n, "train/loss"), 6);
    assert_int_equal(count_frames(file, n, "train/gradient_norm"), 6);
    assert_int_equal(count_frames(file, n, "eval/loss"), 2);
    assert_int_equal(count_frames(file, n, "sample"), 2);
    assert_int_equal(count_frames(file, n, "privacy/epsilon"), 0);
    free(file);
}

/* What the steps so far would have spent rises to what the whole plan reserved. */
static void test_train_private_progress_counts_epsilon(void **state)
{
    (void)state;
    desk_run(PRIVATE "--steps 5 --log log.jsonl --out a");
    program_says(&desk, "of 8");
    char *text = desk_file("log.jsonl", NULL);
    json_t *first = json_line(text, 1), *last = json_line(text, 5);
    assert_true(json_figure(first, "epsilon") > 0);
    assert_true(json_figure(first, "epsilon") < json_figure(last, "epsilon"));
    assert_true(json_figure(last, "epsilon") > 7.9 && json_figure(last, "epsilon") <= 8);
    assert_null(json_object_get(last, "gradient_norm"));
    json_decref(first);
    json_decref(last);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, desk_set_up, desk_tear_down)
        ROW(test_train_log_has_a_line_a_step),
        ROW(test_train_log_of_a_killed_run_has_no_gap_and_no_repeat),
        ROW(test_train_log_is_not_written_over_another_file),
        ROW(test_train_event_file_is_framed_and_checked),
        ROW(test_train_private_progress_counts_epsilon),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
