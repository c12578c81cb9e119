/* The budget ledger's file: crashes, damage, other processes, older copies. */
#include "common/file.h"
#include "ledger/site_ledger.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static ino_t synced_folder; /* the last one that was */

/* In place of the library's: notes which folders are synced. */
int fsync(int fd)
{
    struct stat info;
    if (fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) synced_folder = info.st_ino;
    return (int)syscall(SYS_fsync, fd);
}

typedef struct fixture {
    temp_dir dir;
    char path[300], mark[310];
    dure_diag diag;
} fixture;

static const dure_privacy budget = {8, 1e-5};
enum { RECORDS = 10000 };

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    temp_dir_make(&f->dir);
    snprintf(f->path, sizeof f->path, "%s", temp_dir_file(&f->dir, "ledger"));
    snprintf(f->mark, sizeof f->mark, "%s.head", f->path);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

static dure_dp_plan small_plan(void)
{
    dure_dp_plan plan = {.mechanism = DURE_DP_POISSON_GAUSSIAN,
                         .sigma_num = 2 * DURE_DP_SIGMA_DEN,
                         .clip = 1,
                         .grid_bits = 15,
                         .steps = 10};
    assert_ok(dure_dp_plan_set_batch(&plan, 128, RECORDS, NULL));
    return plan;
}

static dure_site_ledger *opened(fixture *f)
{
    dure_site_ledger *ledger = NULL;
    if (dure_site_ledger_open(&ledger, f->path, &f->diag)) fail_msg("%s", f->diag.text);
    assert_ok(dure_site_ledger_create_source(ledger, "orders", budget, RECORDS, &f->diag));
    return ledger;
}

static dure_reservation_id reserved(fixture *f, dure_site_ledger *ledger)
{
    dure_dp_plan plan = small_plan();
    dure_reservation_id id;
    assert_ok(dure_site_ledger_reserve(&id, ledger, "orders", &plan, "test", &f->diag));
    return id;
}

static dure_buf contents(fixture *f)
{
    dure_buf text;
    assert_ok(dure_file_read(&text, f->path, 1 << 20, &f->diag));
    return text;
}

static void put_back(fixture *f, const void *data, size_t n)
{
    FILE *file = fopen(f->path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

/* Another ledger, as if it came from another machine: without its mark. */
static void replace(fixture *f, const void *data, size_t n)
{
    (void)unlink(f->mark);
    put_back(f, data, n);
}

/* What a run does to the ledger, one call after another; it dies after `steps` of them. */
static void die_after(fixture *f, int steps)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dure_site_ledger *ledger = opened(f);
        dure_reservation_id id = {{0}};
        if (steps > 0) id = reserved(f, ledger);
        if (steps > 1 && dure_site_ledger_spend(ledger, &id, &f->diag)) _exit(1);
        kill(getpid(), SIGKILL);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
}

static void test_ledger_file_keeps_every_step_of_a_killed_process(void **state)
{
    fixture *f = *state;
    for (int steps = 0; steps < 3; steps++) {
        die_after(f, steps);
        dure_site_ledger *ledger = opened(f);
        dure_source_status s;
        assert_ok(dure_site_ledger_source(&s, ledger, "orders", &f->diag));
        assert_int_equal(s.n_reserved, steps == 1);
        assert_int_equal(s.n_spent, steps > 1);
        assert_true((s.epsilon_committed > 0) == (steps > 0));
        dure_site_ledger_close(&ledger);
        if (steps != 1) continue;
        assert_int_equal(unlink(f->path), 0);
        assert_int_equal(unlink(f->mark), 0);
    }
}

/* A torn line was never acknowledged: whatever its length, it is cut off and nothing else. */
static void test_ledger_file_survives_a_torn_tail(void **state)
{
    fixture *f = *state;
    dure_site_ledger *ledger = opened(f);
    reserved(f, ledger);
    dure_buf before = contents(f);
    dure_reservation_id id = reserved(f, ledger);
    assert_ok(dure_site_ledger_spend(ledger, &id, &f->diag));
    dure_site_ledger_close(&ledger);
    dure_buf after = contents(f);
    for (size_t n = before.n; n < after.n; n += 7) {
        replace(f, after.data, n);
        ledger = opened(f);
        dure_source_status s;
        assert_ok(dure_site_ledger_source(&s, ledger, "orders", &f->diag));
        assert_true(s.n_reserved >= 1 && s.n_spent == 0);
        reserved(f, ledger);
        dure_site_ledger_close(&ledger);
        ledger = opened(f); /* and what was appended after it verifies */
        dure_site_ledger_close(&ledger);
    }
    dure_buf_fini(&before);
    dure_buf_fini(&after);
}

static size_t line_of(const dure_buf *text, size_t at)
{
    size_t line = 1;
    for (size_t i = 0; i < at; i++)
        line += text->data[i] == '\n';
    return line;
}

/* A slip in --ledger must not cost a file: only what may be the rest of a first line is cut off. */
static void test_ledger_file_leaves_other_files_alone(void **state)
{
    fixture *f = *state;
    static const char *const others[] = {"words", "{",      "{\"entry\":[]}", "{\"prompt\":\"x\"}",
                                         "\n",    "words\n"};
    dure_site_ledger *ledger = NULL;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        replace(f, others[i], strlen(others[i]));
        dure_err err = dure_site_ledger_open(&ledger, f->path, &f->diag);
        dure_site_ledger_close(&ledger);
        dure_buf text = contents(f);
        if (i == 1) { /* it may be the rest of a first line */
            assert_ok(err);
            assert_true(text.n > 100);
        } else {
            assert_int_equal(err, DURE_ERR_FORMAT);
            assert_non_null(strstr(f->diag.text, "with --ledger"));
            assert_true(text.n == strlen(others[i]) && !memcmp(text.data, others[i], text.n));
        }
        dure_buf_fini(&text);
    }
}

static void test_ledger_file_names_the_entry_with_a_flipped_byte(void **state)
{
    fixture *f = *state;
    dure_site_ledger *ledger = opened(f);
    dure_reservation_id id = reserved(f, ledger);
    assert_ok(dure_site_ledger_spend(ledger, &id, &f->diag));
    dure_site_ledger_close(&ledger);
    dure_buf text = contents(f);
    for (size_t at = 0; at + 1 < text.n; at += 3) {
        if (text.data[at] == '\n') continue;
        char expected[40];
        snprintf(expected, sizeof expected, "entry %zu of", line_of(&text, at));
        text.data[at] ^= 1;
        replace(f, text.data, text.n);
        text.data[at] ^= 1;
        assert_err(dure_site_ledger_open(&ledger, f->path, &f->diag), DURE_ERR_FORMAT);
        assert_null(ledger);
        if (!strstr(f->diag.text, expected)) fail_msg("byte %zu: %s", at, f->diag.text);
    }
    dure_buf_fini(&text);
}

/* The start of the line after the one that begins at `line`. */
static const uint8_t *after_line(const uint8_t *line, const dure_buf *text)
{
    const uint8_t *end = memchr(line, '\n', text->n - (size_t)(line - text->data));
    assert_non_null(end);
    return end + 1;
}

static void test_ledger_file_refuses_removed_and_swapped_lines(void **state)
{
    fixture *f = *state;
    dure_site_ledger *ledger = opened(f);
    reserved(f, ledger);
    reserved(f, ledger);
    dure_site_ledger_close(&ledger);
    dure_buf text = contents(f);
    const uint8_t *second = after_line(text.data, &text);
    const uint8_t *third = after_line(second, &text), *fourth = after_line(third, &text);
    size_t tail = text.n - (size_t)(fourth - text.data);
    dure_buf changed;
    dure_buf_init(&changed, 1 << 20);
    dure_put_raw(&changed, text.data, (size_t)(third - text.data)); /* the third line is gone */
    dure_put_raw(&changed, fourth, tail);
    replace(f, changed.data, changed.n);
    assert_err(dure_site_ledger_open(&ledger, f->path, &f->diag), DURE_ERR_FORMAT);
    assert_non_null(strstr(f->diag.text, "entry 3 of"));
    changed.n = (size_t)(third - text.data);
    dure_put_raw(&changed, fourth, tail);
    dure_put_raw(&changed, third, (size_t)(fourth - third));
    replace(f, changed.data, changed.n);
    assert_err(dure_site_ledger_open(&ledger, f->path, &f->diag), DURE_ERR_FORMAT);
    dure_buf_fini(&changed);
    dure_buf_fini(&text);
}

static void test_ledger_file_shows_a_rolled_back_copy(void **state)
{
    fixture *f = *state;
    dure_site_ledger *ledger = opened(f);
    dure_hash early, late;
    uint64_t n_early = 0, n_late = 0;
    dure_buf backup = contents(f);
    dure_site_ledger_head(&early, &n_early, ledger);
    reserved(f, ledger);
    dure_site_ledger_head(&late, &n_late, ledger);
    assert_int_equal(n_late, n_early + 1);
    assert_true(dure_site_ledger_contains(ledger, &early));
    assert_true(dure_site_ledger_contains(ledger, &late));
    dure_site_ledger_close(&ledger);
    replace(f, backup.data, backup.n);
    ledger = opened(f); /* the copy verifies by itself; the head gives it away */
    assert_true(dure_site_ledger_contains(ledger, &early));
    assert_false(dure_site_ledger_contains(ledger, &late));
    reserved(f, ledger);
    assert_false(dure_site_ledger_contains(ledger, &late));
    dure_site_ledger_close(&ledger);
    dure_buf_fini(&backup);
}

static void refused_as_older(fixture *f)
{
    dure_site_ledger *ledger = NULL;
    assert_err(dure_site_ledger_open(&ledger, f->path, &f->diag), DURE_ERR_STATE);
    assert_non_null(strstr(f->diag.text, "an older copy was put back"));
    assert_err(dure_site_ledger_open_read(&ledger, f->path, &f->diag), DURE_ERR_STATE);
    assert_null(ledger);
}

/* Nobody else has to have seen the entry: the mark beside the ledger did. */
static void test_ledger_file_put_back_alone_is_refused(void **state)
{
    fixture *f = *state;
    dure_site_ledger *ledger = opened(f);
    dure_buf backup = contents(f);
    dure_reservation_id id = reserved(f, ledger);
    assert_ok(dure_site_ledger_spend(ledger, &id, &f->diag));
    dure_site_ledger_close(&ledger);
    dure_buf newest = contents(f);
    put_back(f, backup.data, backup.n);
    refused_as_older(f);
    refused_as_older(f); /* opening it does not make it the newest */
    assert_int_equal(unlink(f->path), 0);
    refused_as_older(f); /* nor is it forgotten by removing it */
    put_back(f, newest.data, newest.n);
    dure_site_ledger_close(&ledger);
    ledger = opened(f);
    dure_site_ledger_close(&ledger);
    assert_int_equal(unlink(f->mark), 0);
    put_back(f, backup.data, backup.n);
    ledger = opened(f);
    dure_site_ledger_close(&ledger);
    dure_buf_fini(&backup);
    dure_buf_fini(&newest);
}

/* A process that dies between the entry and the mark leaves an older mark, which is no fault. */
static void test_ledger_file_may_be_ahead_of_its_mark(void **state)
{
    fixture *f = *state;
    dure_site_ledger *ledger = opened(f);
    dure_buf mark;
    assert_ok(dure_file_read(&mark, f->mark, 100, &f->diag));
    reserved(f, ledger);
    dure_site_ledger_close(&ledger);
    assert_ok(dure_file_write_atomic(f->mark, dure_buf_span(&mark), 0600, &f->diag));
    dure_buf backup = contents(f);
    ledger = opened(f);
    reserved(f, ledger);
    dure_site_ledger_close(&ledger);
    dure_buf newest = contents(f);
    assert_ok(dure_file_write_atomic(f->mark, dure_buf_span(&mark), 0600, &f->diag));
    ledger = opened(f); /* who acts on the last line has it marked first */
    dure_site_ledger_close(&ledger);
    put_back(f, backup.data, backup.n);
    refused_as_older(f);
    put_back(f, newest.data, newest.n);
    assert_ok(dure_file_write_atomic(f->mark, dure_span_of_text("torn"), 0600, &f->diag));
    refused_as_older(f);
    dure_buf_fini(&backup);
    dure_buf_fini(&newest);
    dure_buf_fini(&mark);
}

static void test_ledger_file_replaced_while_open_is_refused(void **state)
{
    fixture *f = *state;
    dure_site_ledger *ledger = opened(f);
    dure_reservation_id id = reserved(f, ledger);
    dure_buf text = contents(f);
    assert_int_equal(unlink(f->path), 0);
    replace(f, text.data, text.n);
    assert_err(dure_site_ledger_spend(ledger, &id, &f->diag), DURE_ERR_STATE);
    assert_int_equal(unlink(f->path), 0);
    assert_err(dure_site_ledger_spend(ledger, &id, &f->diag), DURE_ERR_STATE);
    dure_site_ledger_close(&ledger);
    replace(f, text.data, text.n);
    ledger = opened(f);
    assert_int_equal(truncate(f->path, (off_t)text.n - 5), 0);
    assert_err(dure_site_ledger_spend(ledger, &id, &f->diag), DURE_ERR_STATE);
    dure_site_ledger_close(&ledger);
    dure_buf_fini(&text);
}

static void test_ledger_file_is_busy_while_another_process_holds_it(void **state)
{
    fixture *f = *state;
    dure_site_ledger *ledger = opened(f);
    dure_reservation_id id = reserved(f, ledger);
    int fd = open(f->path, O_RDWR);
    assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
    assert_err(dure_site_ledger_spend(ledger, &id, &f->diag), DURE_ERR_BUSY);
    close(fd);
    assert_ok(dure_site_ledger_spend(ledger, &id, &f->diag));
    dure_site_ledger_close(&ledger);
}

/* Two processes that reserve as fast as they can never get more than the budget together. */
static void test_ledger_file_shares_one_budget_between_processes(void **state)
{
    fixture *f = *state;
    dure_site_ledger *ledger = opened(f);
    pid_t child = fork();
    assert_true(child >= 0);
    dure_site_ledger *mine = child == 0 ? opened(f) : ledger;
    dure_dp_plan plan = small_plan();
    dure_reservation_id id;
    plan.sigma_num = DURE_DP_SIGMA_DEN;
    plan.steps = 2000;
    dure_err err = DURE_OK;
    for (int i = 0; i < 60 && !err; i++)
        err = dure_site_ledger_reserve(&id, mine, "orders", &plan, "race", &f->diag);
    if (child == 0) _exit(err == DURE_ERR_BUDGET ? 0 : 1);
    assert_err(err, DURE_ERR_BUDGET);
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    assert_ok(dure_site_ledger_refresh(ledger, &f->diag));
    dure_source_status s;
    assert_ok(dure_site_ledger_source(&s, ledger, "orders", &f->diag));
    assert_true(s.filter_used <= 1 && s.epsilon_committed <= 8 && s.n_reserved > 2);
    dure_site_ledger_close(&ledger);
}

static void test_ledger_file_for_reading_only(void **state)
{
    fixture *f = *state;
    dure_site_ledger *ledger = NULL;
    assert_err(dure_site_ledger_open_read(&ledger, f->path, &f->diag), DURE_ERR_NOT_FOUND);
    assert_false(dure_file_exists(f->path));
    ledger = opened(f);
    dure_reservation_id id = reserved(f, ledger);
    dure_site_ledger_close(&ledger);
    assert_ok(dure_site_ledger_open_read(&ledger, f->path, &f->diag));
    assert_err(dure_site_ledger_spend(ledger, &id, &f->diag), DURE_ERR_STATE);
    dure_site_ledger_close(&ledger);
    replace(f, "", 0);
    assert_err(dure_site_ledger_open_read(&ledger, f->path, &f->diag), DURE_ERR_FORMAT);
    assert_err(dure_site_ledger_open(&ledger, f->dir.path, &f->diag), DURE_ERR_IO);
}

static void test_ledger_file_is_the_owner_s_alone(void **state)
{
    fixture *f = *state;
    snprintf(f->path, sizeof f->path, "%s", temp_dir_file(&f->dir, "state/dure/ledger"));
    dure_site_ledger *ledger = opened(f);
    struct stat info;
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    dure_site_ledger_close(&ledger);
}

/* The file's name lies in its folder, which a power cut takes back unless it is synced too. */
static void test_ledger_file_is_durable_by_name(void **state)
{
    fixture *f = *state;
    struct stat folder;
    assert_int_equal(stat(f->dir.path, &folder), 0);
    synced_folder = 0;
    dure_site_ledger *ledger = opened(f);
    assert_true(synced_folder == folder.st_ino);
    dure_site_ledger_close(&ledger);
}

/* Ends the file by one more line, well linked, as a program without the rules might write it. */
static void append_entry(fixture *f, const char *entry)
{
    dure_site_ledger *ledger = NULL;
    dure_hash head, hash;
    uint64_t n = 0;
    char hex[2 * DURE_HASH_BYTES + 1];
    assert_ok(dure_site_ledger_open(&ledger, f->path, &f->diag));
    dure_site_ledger_head(&head, &n, ledger);
    dure_site_ledger_close(&ledger);
    const dure_span fields[] = {dure_hash_span(&head), dure_span_of_text(entry)};
    assert_ok(dure_hash_labeled(&hash, "dure/site-ledger/1", fields, 2));
    dure_hex_encode(hex, hash.b, sizeof hash.b);
    FILE *file = fopen(f->path, "ab");
    assert_non_null(file);
    assert_true(fprintf(file, "{\"entry\":%s,\"hash\":\"%s\"}\n", entry, hex) > 0);
    assert_int_equal(fclose(file), 0);
}

/* The limit on new budgets came later than some ledgers. */
static void test_ledger_file_with_a_large_budget_stays_readable(void **state)
{
    fixture *f = *state;
    dure_site_ledger *ledger = opened(f);
    dure_privacy large = {150, 1e-5};
    assert_err(dure_site_ledger_create_source(ledger, "big", large, RECORDS, &f->diag),
               DURE_ERR_USAGE);
    dure_site_ledger_close(&ledger);
    append_entry(f, "{\"at\":1,\"delta\":0.5,\"epsilon\":150.0,\"kind\":\"source\","
                    "\"n_pub\":10000,\"order\":1.5,\"source\":\"old\"}");
    if (dure_site_ledger_open(&ledger, f->path, &f->diag)) fail_msg("%s", f->diag.text);
    dure_source_status s;
    assert_ok(dure_site_ledger_source(&s, ledger, "old", &f->diag));
    assert_true(s.budget.epsilon == 150);
    dure_site_ledger_close(&ledger);
    append_entry(f, "{\"at\":1,\"delta\":0.5,\"epsilon\":-1.0,\"kind\":\"source\","
                    "\"n_pub\":10000,\"order\":1.5,\"source\":\"negative\"}");
    assert_err(dure_site_ledger_open(&ledger, f->path, &f->diag), DURE_ERR_FORMAT);
}

/* A well linked entry that notes steps or a round again is damage, as it is refused when written.
 */
static void test_ledger_file_refuses_steps_noted_twice(void **state)
{
    static const char *const bad[] = {"\"from\":2", "\"round\":1", "\"to\":11", "\"to\":3"};
    static const char *const good[] = {"\"from\":3", "\"round\":2", "\"to\":6", "\"to\":6"};
    fixture *f = *state;
    dure_site_ledger *ledger = opened(f);
    dure_reservation_id id = reserved(f, ledger);
    const dure_ledger_use first = {1, 0, 3};
    assert_ok(dure_site_ledger_spend(ledger, &id, &f->diag));
    assert_ok(dure_site_ledger_use(ledger, &id, &first, &f->diag));
    dure_site_ledger_close(&ledger);
    dure_buf text = contents(f);
    char hex[2 * sizeof id.b + 1], entry[256], changed[256];
    dure_hex_encode(hex, id.b, sizeof id.b);
    snprintf(entry, sizeof entry,
             "{\"at\":1,\"from\":3,\"id\":\"%s\",\"kind\":\"use\",\"round\":2,\"to\":6}", hex);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *at = strstr(entry, good[i]);
        assert_non_null(at);
        snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - entry), entry, bad[i],
                 at + strlen(good[i]));
        append_entry(f, changed);
        assert_err(dure_site_ledger_open(&ledger, f->path, &f->diag), DURE_ERR_FORMAT);
        assert_non_null(strstr(f->diag.text, "entry 6 of"));
        replace(f, text.data, text.n);
    }
    append_entry(f, entry);
    ledger = opened(f);
    assert_int_equal(dure_site_ledger_reservation_at(ledger, 0)->steps_used, 6);
    dure_site_ledger_close(&ledger);
    dure_buf_fini(&text);
}

static void test_ledger_path_comes_from_option_environment_or_home(void **state)
{
    fixture *f = *state;
    char *path = NULL;
    setenv("HOME", "/home/ann", 1);
    unsetenv("XDG_STATE_HOME");
    unsetenv("DURE_LEDGER");
    assert_ok(dure_site_ledger_path(&path, NULL, &f->diag));
    assert_string_equal(path, "/home/ann/.local/state/dure/ledger");
    free(path);
    setenv("XDG_STATE_HOME", "/state", 1);
    assert_ok(dure_site_ledger_path(&path, NULL, &f->diag));
    assert_string_equal(path, "/state/dure/ledger");
    free(path);
    setenv("DURE_LEDGER", "/srv/ledger", 1);
    assert_ok(dure_site_ledger_path(&path, NULL, &f->diag));
    assert_string_equal(path, "/srv/ledger");
    free(path);
    assert_ok(dure_site_ledger_path(&path, "mine", &f->diag));
    assert_string_equal(path, "mine");
    free(path);
    unsetenv("DURE_LEDGER");
    unsetenv("XDG_STATE_HOME");
    unsetenv("HOME");
    assert_err(dure_site_ledger_path(&path, NULL, &f->diag), DURE_ERR_NOT_FOUND);
    assert_null(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        ROW(test_ledger_file_keeps_every_step_of_a_killed_process),
        ROW(test_ledger_file_survives_a_torn_tail),
        ROW(test_ledger_file_leaves_other_files_alone),
        ROW(test_ledger_file_names_the_entry_with_a_flipped_byte),
        ROW(test_ledger_file_refuses_removed_and_swapped_lines),
        ROW(test_ledger_file_shows_a_rolled_back_copy),
        ROW(test_ledger_file_put_back_alone_is_refused),
        ROW(test_ledger_file_may_be_ahead_of_its_mark),
        ROW(test_ledger_file_replaced_while_open_is_refused),
        ROW(test_ledger_file_is_busy_while_another_process_holds_it),
        ROW(test_ledger_file_shares_one_budget_between_processes),
        ROW(test_ledger_file_for_reading_only),
        ROW(test_ledger_file_is_the_owner_s_alone),
        ROW(test_ledger_file_is_durable_by_name),
        ROW(test_ledger_file_with_a_large_budget_stays_readable),
        ROW(test_ledger_file_refuses_steps_noted_twice),
        ROW(test_ledger_path_comes_from_option_environment_or_home),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
