/* What `dure` says when a file, a record, a figure or a disk is not as it should be: one plain
 * sentence that names the place and the fix, exit status 1 or 2, nothing on stdout, nothing lost.
 * Errors of registries are in test_cli_adapter.c, of ledgers in test_cli_audit.c and
 * test_cli_train.c. */
#include "common/file.h"
#include "support/check.h"
#include "support/program.h"
#include "support/tiny_model.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

static program p;
static dure_buf model; /* the bytes of model.gguf */

/* One wrong use: the arguments, the exit status, and what the sentence must hold. */
typedef struct wrong {
    const char *arguments;
    int status;
    const char *sentence;
} wrong;

static void check_refused(const char *arguments, int status, const char *sentence)
{
    const int got = program_run(&p, "%s", arguments);
    if (got != status) fail_msg("%s: exit %d, %s", arguments, got, p.err);
    if (p.out[0]) fail_msg("%s: stdout has %s", arguments, p.out);
    if (strncmp(p.err, "dure", 4) != 0) fail_msg("%s: %s", arguments, p.err);
    program_says(&p, sentence);
}

static void check_all(const wrong *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check_refused(rows[i].arguments, rows[i].status, rows[i].sentence);
}
#define CHECK_ALL(rows) check_all(rows, sizeof(rows) / sizeof(rows)[0])

#define LONG_PROMPT_WORDS 300

/* A prompt that is longer than the tiny model's context of 512 tokens. */
static void put_long_prompts(const char *name, int n)
{
    dure_buf text;
    dure_buf_init(&text, 1 << 20);
    for (int i = 0; i < n; i++) {
        dure_put_format(&text, "{\"prompt\":\"");
        for (int k = 0; k < LONG_PROMPT_WORDS; k++)
            dure_put_format(&text, "xy ");
        dure_put_format(&text, "\",\"response\":\"z\"}\n");
    }
    assert_ok(dure_buf_err(&text));
    assert_ok(
        dure_file_write_atomic(temp_dir_file(&p.dir, name), dure_buf_span(&text), 0644, NULL));
    dure_buf_fini(&text);
}

static int setup(void **state)
{
    (void)state;
    dure_buf text;
    program_make(&p, DURE_BINARY);
    tiny_model_write(temp_dir_file(&p.dir, "model.gguf"), &(tiny_model_opts){.seed = 5});
    tiny_model_write(temp_dir_file(&p.dir, "twin.gguf"), &(tiny_model_opts){.seed = 6});
    tiny_model_write(temp_dir_file(&p.dir, "small.gguf"), &(tiny_model_opts){.n_embd = 32});
    assert_ok(dure_file_read(&model, temp_dir_file(&p.dir, "model.gguf"), 1 << 24, NULL));
    dure_buf_init(&text, 1 << 16);
    for (int i = 0; i < 32; i++)
        dure_put_format(&text, "{\"prompt\":\"say %d\",\"response\":\"word\"}\n", i);
    assert_ok(dure_file_write_atomic(temp_dir_file(&p.dir, "data.jsonl"), dure_buf_span(&text),
                                     0644, NULL));
    dure_buf_fini(&text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dure_buf_fini(&model);
    unsetenv("DURE_LEDGER");
    unsetenv("DURE_MAX_CPU_ISA");
    umount(temp_dir_file(&p.dir, "small")); /* where a test made a disk of it */
    program_end(&p);
    return 0;
}

/* ---- files ---- */

static void test_errors_missing_files_are_named(void **state)
{
    (void)state;
    static const wrong rows[] = {
        {"eval --model absent.gguf --data data.jsonl", 1, "cannot open absent.gguf: there is no"},
        {"eval --model model.gguf --data absent.jsonl", 1, "absent.jsonl: there is no such file"},
        {"generate --model absent.gguf --prompt x", 1, "check the path"},
        {"generate --model model.gguf --adapter absent.gguf --prompt x", 1, "open absent.gguf"},
        {"model info absent.gguf", 1, "absent.gguf: there is no such file"},
        {"train --model model.gguf --data absent.jsonl --no-dp --out a", 1, "open absent.jsonl"},
        {"train --model absent.gguf --data data.jsonl --no-dp --out a", 1, "open absent.gguf"},
        {"serve --model absent.gguf --listen 127.0.0.1:0", 1, "cannot open absent.gguf"},
        {"init fed --model absent.gguf --eval data.jsonl --endpoint tcp://h:1", 1, "absent.gguf"},
        {"init fed --model model.gguf --eval absent.jsonl --endpoint tcp://h:1", 1, "absent.jsonl"},
        {"coordinator run absent", 1, "absent is no coordinator's folder"},
        {"status absent", 1, "absent is no federation's folder"},
        {"invite absent north", 1, "absent is no admin folder"},
        {"privacy status", 1, "there is no privacy ledger at ledger: name one with --ledger"},
        {"eval --model . --data data.jsonl", 1, ". is not a file; name the GGUF file in it"},
        {"eval --model model.gguf --data .", 1, "it is a folder; name a file"},
        {"eval --model model.gguf/x --data data.jsonl", 1, "a part of the path is a file"},
    };
    CHECK_ALL(rows);
    assert_false(program_has(&p, "a") || program_has(&p, "fed") || program_has(&p, "ledger"));
}

static void put_bytes(const char *name, const void *bytes, size_t n)
{
    assert_ok(
        dure_file_write_atomic(temp_dir_file(&p.dir, name), dure_span_of(bytes, n), 0644, NULL));
}

#define EVAL_BROKEN "eval --model broken.gguf --data data.jsonl --threads 1"

static void test_errors_a_truncated_model_is_told_at_every_length(void **state)
{
    (void)state;
    static const size_t kept[] = {24, 40, 100, 1000, 5000, 20000, 100000};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        put_bytes("broken.gguf", model.data, kept[i]);
        check_refused(EVAL_BROKEN, 1, "broken.gguf: ");
        program_says(&p, "the file is damaged, get it again");
    }
    put_bytes("broken.gguf", model.data, model.n - 1);
    check_refused(EVAL_BROKEN, 1, "output_norm.weight: the tensor's data end after the file");
    put_bytes("broken.gguf", model.data, 10);
    check_refused(EVAL_BROKEN, 1, "this is not a GGUF file; give a model or adapter");
    put_bytes("broken.gguf", "", 0);
    check_refused(EVAL_BROKEN, 1, "broken.gguf is empty; get it again");
}

static void test_errors_a_foreign_file_is_not_taken_for_a_model(void **state)
{
    (void)state;
    static const char zip[64] = "PK\003\004", safetensors[64] = "\010\0\0\0\0\0\0\0{}";
    put_bytes("broken.gguf", zip, sizeof zip);
    check_refused(EVAL_BROKEN, 1, "broken.gguf: this is not a GGUF file; give a model");
    put_bytes("broken.gguf", safetensors, sizeof safetensors);
    check_refused(EVAL_BROKEN, 1, "this is not a GGUF file");
    check_refused("model info broken.gguf", 1, "this is not a GGUF file");
    check_refused("eval --model data.jsonl --data data.jsonl", 1, "this is not a GGUF file");
}

/* A header of this version that promises these counts, and nothing behind it. */
static void put_header(uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    uint8_t bytes[256] = "GGUF";
    memcpy(bytes + 4, &version, 4);
    memcpy(bytes + 8, &n_tensors, 8);
    memcpy(bytes + 16, &n_keys, 8);
    memset(bytes + 24, 0xff, 8); /* the first key's length */
    put_bytes("broken.gguf", bytes, sizeof bytes);
}

static void test_errors_a_hostile_model_is_refused_before_it_costs_anything(void **state)
{
    (void)state;
    put_header(3, UINT64_MAX, UINT64_MAX);
    check_refused(EVAL_BROKEN, 1, "declares more tensors or keys than the limit");
    put_header(3, 1000, 1000);
    check_refused(EVAL_BROKEN, 1, "declares more tensors and keys than it holds");
    put_header(3, 1, 1);
    check_refused(EVAL_BROKEN, 1, "a text is longer than the limit");
    put_header(1, 1, 1);
    check_refused(EVAL_BROKEN, 1, "GGUF version 1 is not supported; convert the model again");
    put_header(0x03000000, 1, 1);
    check_refused(EVAL_BROKEN, 1, "big-endian; convert it with gguf_convert_endian.py");
}

/* Writes the model with the first query matrix said to be of another type. */
static void put_with_tensor_type(uint32_t type)
{
    static const char name[] = "blk.0.attn_q.weight";
    uint8_t *at = memmem(model.data, model.n, name, sizeof name - 1);
    assert_non_null(at);
    at += sizeof name - 1 + 4 + 2 * 8; /* the number of dimensions, and two of them */
    uint32_t kept;
    memcpy(&kept, at, 4);
    memcpy(at, &type, 4);
    put_bytes("broken.gguf", model.data, model.n);
    memcpy(at, &kept, 4);
}

static void test_errors_unsupported_types_and_architectures_name_what_works(void **state)
{
    (void)state;
    put_with_tensor_type(999);
    check_refused(EVAL_BROKEN, 1, "blk.0.attn_q.weight: tensor type 999 is not one");
    program_says(&p, "use a file whose tensors are of the types F32, F16, BF16");
    put_with_tensor_type(24); /* I8: known, of a size, and no weight */
    check_refused(EVAL_BROKEN, 1, "blk.0.");
    tiny_model_write(temp_dir_file(&p.dir, "broken.gguf"), &(tiny_model_opts){.arch = "mamba"});
    check_refused(EVAL_BROKEN, 1, "the architecture 'mamba' is not supported; use a model of");
    check_refused("init fed --model broken.gguf --eval data.jsonl --endpoint tcp://h:1", 1,
                  "'mamba' is not supported");
    assert_false(program_has(&p, "fed"));
}

/* ---- records ---- */

static void check_data(const char *sentence)
{
    check_refused("eval --model model.gguf --data bad.jsonl --threads 1", 1, sentence);
    check_refused("train --model model.gguf --data bad.jsonl --no-dp --steps 1 --batch 1 --out a",
                  1, sentence);
    check_refused("init fed --model model.gguf --eval bad.jsonl --endpoint tcp://h:1", 1, sentence);
    assert_false(program_has(&p, "a") || program_has(&p, "fed"));
}

#define GOOD_LINE "{\"prompt\":\"Hi\",\"response\":\"Hello\"}\n"

static void test_errors_bad_records_are_named_by_their_line(void **state)
{
    (void)state;
    program_put(&p, "bad.jsonl", GOOD_LINE "\n" GOOD_LINE "nonsense\n" GOOD_LINE);
    check_data("bad.jsonl, line 4: it is not valid JSON: each line holds one record");
    program_put(&p, "bad.jsonl", GOOD_LINE "{\"prompt\":\"x\"}\n");
    check_data("bad.jsonl, line 2: \"prompt\" and \"response\" must both be there");
    program_put(&p, "bad.jsonl", GOOD_LINE "{\"prompt\":\"x\",\"response\":\"\"}\n");
    check_data("bad.jsonl, line 2: the record has no response to learn from: give it a");
    program_put(&p, "bad.jsonl", GOOD_LINE "{\"prompt\":\"\xff\",\"response\":\"y\"}\n");
    check_data("bad.jsonl, line 2: it is not UTF-8");
    program_put(&p, "bad.jsonl", "");
    check_data("bad.jsonl holds no record; write one JSON object a line");
    program_put(&p, "bad.jsonl", "\n \n");
    check_data("bad.jsonl holds no record");
    put_long_prompts("bad.jsonl", 1);
    check_data("more than the maximum length of 512; shorten it or raise --max-length");
    program_says(&p, "line 1: the record has ");
}

#define PRIVATE                                                                                    \
    "train --model model.gguf --batch 8 --steps 2 --threads 1 --source orders --records 1000 "

/* One bad record does not stop a private run, none that is good does, before anything is spent. */
static void test_errors_a_private_run_with_nothing_to_learn_spends_nothing(void **state)
{
    (void)state;
    put_long_prompts("bad.jsonl", 12);
    check_refused(PRIVATE "--epsilon 8 --data bad.jsonl --out a", 1,
                  "none of its 12 records leaves a response to learn from within 512 tokens");
    program_says(&p, "'dure data check' says why, line by line");
    assert_false(program_has(&p, "a") || program_has(&p, "ledger"));
    assert_int_equal(program_run(&p, "data check --model model.gguf --data bad.jsonl"), 1);
    program_says(&p, "bad.jsonl, line 12: no part of the response is within the first 512");
}

/* ---- budgets ---- */

static void test_errors_epsilon_and_delta_out_of_range(void **state)
{
    (void)state;
    static const wrong rows[] = {
        {PRIVATE "--data data.jsonl --out a --epsilon 0", 2, "epsilon must be above 0 and at most"},
        {PRIVATE "--data data.jsonl --out a --epsilon -1", 2, "not -1; 8 is a usual choice"},
        {PRIVATE "--data data.jsonl --out a --epsilon 101", 2, "at most 100"},
        {PRIVATE "--data data.jsonl --out a --epsilon nan", 2, "--epsilon needs a number"},
        {PRIVATE "--data data.jsonl --out a --epsilon inf", 2, "--epsilon needs a number"},
        {PRIVATE "--data data.jsonl --out a --epsilon 8 --delta 0", 2, "delta must be above 0"},
        {PRIVATE "--data data.jsonl --out a --epsilon 8 --delta 1", 2, "below 1, not 1"},
        {PRIVATE "--data data.jsonl --out a --epsilon 8 --delta 0.01", 2,
         "delta 0.01 is too large for 1000 records; at most 1 / (10 x records) = 0.0001"},
        {"privacy plan --sample-rate 0.1 --steps 1 --epsilon 0", 2, "epsilon must be above 0"},
        {"privacy plan --sample-rate 0.1 --steps 1 --epsilon 1000", 2, "at most 100"},
        {"privacy plan --sample-rate 0.1 --steps 1 --epsilon 8 --delta 1", 2, "below 1, not 1"},
    };
    CHECK_ALL(rows);
    assert_false(program_has(&p, "a"));
}

static void check_unchanged(const char *name, const dure_buf *before)
{
    dure_buf now;
    assert_ok(dure_file_read(&now, temp_dir_file(&p.dir, name), 1 << 24, NULL));
    assert_int_equal(now.n, before->n);
    assert_memory_equal(now.data, before->data, now.n);
    dure_buf_fini(&now);
}

static void test_errors_a_spent_budget_stays_as_it_is(void **state)
{
    (void)state;
    dure_buf ledger;
    assert_int_equal(program_run(&p, PRIVATE "--data data.jsonl --out a --epsilon 3"), 0);
    assert_ok(dure_file_read(&ledger, temp_dir_file(&p.dir, "ledger"), 1 << 20, NULL));
    check_refused(PRIVATE "--data data.jsonl --out b --epsilon 3", 1,
                  "the privacy budget of 'orders', epsilon 3 at delta 1e-05, is used up");
    program_says(&p, "see 'dure privacy status', and train on records of another source");
    check_refused(PRIVATE "--data data.jsonl --out b --epsilon 8", 1,
                  "a budget does not change; use those figures");
    assert_false(program_has(&p, "b"));
    check_unchanged("ledger", &ledger);
    dure_buf_fini(&ledger);
}

/* ---- adapters ---- */

static void test_errors_an_adapter_of_another_base(void **state)
{
    (void)state;
    static const wrong rows[] = {
        {"eval --model twin.gguf --data data.jsonl --adapter a/adapter.gguf", 1,
         "a/adapter.gguf was made for another base model, SHA-256 "},
        {"eval --model twin.gguf --data data.jsonl --adapter a", 1, "give that base, or --any-"},
        {"generate --model twin.gguf --prompt x --adapter a", 1, "and not for twin.gguf"},
        {"train --model twin.gguf --data data.jsonl --init a --no-dp --out b", 1, "another base"},
        {"serve --model twin.gguf --adapter x=a --listen 127.0.0.1:0", 1, "serve it with that"},
        {"eval --model small.gguf --data data.jsonl --adapter a/adapter.gguf", 1,
         "its dure.shape.embedding is 64, this base's is 32; give the base that the adapter was"},
        {"eval --model small.gguf --data data.jsonl --adapter a", 1, "give the base that the"},
        {"eval --model small.gguf --data data.jsonl --adapter a --any-base", 1, "another base"},
        {"generate --model model.gguf --prompt x --adapter model.gguf", 1,
         "model.gguf: this is a model, not an adapter; give the adapter's file or folder"},
        {"eval --model a/adapter.gguf --data data.jsonl", 1,
         "this is an adapter, not a base model; name the base with --model"},
        {"generate --model model.gguf --prompt x --adapter data.jsonl", 1, "not a GGUF file"},
    };
    assert_int_equal(program_run(&p, "train --model model.gguf --data data.jsonl --no-dp --steps 1 "
                                     "--threads 1 --out a"),
                     0);
    CHECK_ALL(rows);
    assert_false(program_has(&p, "b"));
    assert_int_equal(
        program_run(&p, "eval --model twin.gguf --data data.jsonl --adapter a --any-base"), 0);
}

/* ---- folders and ports ---- */

#define INIT(dir, port)                                                                            \
    "init " dir " --model model.gguf --eval data.jsonl --rank 4 --endpoint tcp://127.0.0.1:" port

static void test_errors_init_leaves_what_is_there(void **state)
{
    (void)state;
    dure_buf root;
    assert_int_equal(program_run(&p, INIT("fed", "7001")), 0);
    assert_ok(dure_file_read(&root, temp_dir_file(&p.dir, "fed/admin/root.key"), 1 << 16, NULL));
    check_refused(INIT("fed", "7001"), 1, "fed holds a federation already; choose another folder");
    check_unchanged("fed/admin/root.key", &root);
    dure_buf_fini(&root);
    program_put(&p, "notes", "mine");
    check_refused(INIT("notes", "7001"), 1, "notes is a file, not a folder; choose another name");
    assert_true(program_has(&p, "notes"));
    check_refused(INIT("other", ""), 2, "--endpoint must look like tcp://HOST:PORT, not 'tcp://");
    check_refused(INIT("other", "99999"), 2, "must look like tcp://HOST:PORT");
    check_refused(INIT("other", "7001 --min-sites 2"), 2,
                  "--min-sites needs a whole number from 3 to 100");
    check_refused(INIT("other", "7001 --rank 0"), 2, "rank");
    assert_false(program_has(&p, "other"));
    assert_int_equal(program_run(&p, "invite fed/admin north -o n.invitation"), 0);
    check_refused("invite fed/admin north -o n.invitation", 1, "exists already; choose another");
    check_refused("invite fed/admin 'a b'", 2, "must be 1 to 64 letters, digits");
    check_refused("site revoke fed/admin nobody", 1, "'dure site list' shows who was");
}

static void test_errors_a_port_in_use(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t n = sizeof address;
    char arguments[256];
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    const int port = ntohs(address.sin_port);
    assert_int_equal(program_run(&p,
                                 "init fed --model model.gguf --eval data.jsonl --rank 4 "
                                 "--endpoint tcp://127.0.0.1:%d",
                                 port),
                     0);
    check_refused("coordinator run fed", 1, "is in use by another program: stop it, or choose");
    snprintf(arguments, sizeof arguments, "serve --model model.gguf --listen 127.0.0.1:%d", port);
    check_refused(arguments, 1, "is in use by another program: stop it, or choose another port");
    close(fd);
    assert_int_equal(
        rename(temp_dir_file(&p.dir, "twin.gguf"), temp_dir_file(&p.dir, "model.gguf")), 0);
    check_refused("coordinator run fed", 1, "is not the base model that the federation was made");
    program_says(&p, "put the right file there, or set base.model in federation.yaml");
}

/* ---- the disk ---- */

/* A file system of 32 KiB at `small` in the folder; false, said loudly, where there is none. */
static int small_disk(void)
{
    const char *path = temp_dir_file(&p.dir, "small");
    assert_ok(dure_dir_make(path, NULL));
    if (mount("tmpfs", path, "tmpfs", 0, "size=32k") == 0) return 1;
    print_message("SKIPPED: a full disk needs a tmpfs, and mounting one needs root\n");
    return 0;
}

static void fill(const char *name, size_t leave_blocks)
{
    static const uint8_t block[4096];
    FILE *f = fopen(temp_dir_file(&p.dir, name), "w");
    assert_non_null(f);
    setvbuf(f, NULL, _IONBF, 0);
    size_t n = 0;
    while (n < 8 - leave_blocks && fwrite(block, sizeof block, 1, f) == 1)
        n++;
    fclose(f);
}

static void test_errors_a_full_disk_leaves_no_half_files(void **state)
{
    (void)state;
    if (!small_disk()) skip();
    assert_int_equal(program_run(&p, INIT("fed", "7001")), 0);
    fill("small/filler", 0);
    static const wrong rows[] = {
        {INIT("small/fed", "7001"), 1, "the disk is full; free some space and start again"},
        {"invite fed/admin north -o small/n.invitation", 1, "small/n.invitation"},
        {"audit export fed -o small/fed.dure", 1, "the disk is full; free some space"},
    };
    CHECK_ALL(rows);
    assert_int_equal(program_run(&p, "train --model model.gguf --data data.jsonl --no-dp --steps 1 "
                                     "--threads 1 --out small/a"),
                     1);
    program_says(&p, "the disk is full; free some space and start again");
    assert_false(program_has(&p, "small/n.invitation") || program_has(&p, "small/fed.dure"));
    assert_false(program_has(&p, "small/fed/admin") || program_has(&p, "small/a/adapter.gguf"));
    remove(temp_dir_file(&p.dir, "small/filler"));
    assert_int_equal(program_run(&p, "audit export fed -o small/fed.dure"), 0);
}

/* The disk fills up in the midst of an entry of the privacy ledger: what was reserved before stays
 * counted, and with space again the ledger verifies and goes on. */
static void test_errors_a_full_disk_keeps_the_privacy_ledger_whole(void **state)
{
    (void)state;
    if (!small_disk()) skip();
    int status = 0, n_done = 0;
    assert_int_equal(setenv("DURE_LEDGER", "small/ledger", 1), 0);
    for (int i = 0; status == 0 && i < 20; i++) {
        status = program_run(&p, PRIVATE "--epsilon 8 --noise 4 --data data.jsonl --out run%d", i);
        if (status == 0 && n_done++ == 0) fill("small/filler", 3);
    }
    assert_int_equal(status, 1);
    assert_true(n_done > 1);
    program_says(&p, "the disk is full; free some space and start again");
    remove(temp_dir_file(&p.dir, "small/filler"));
    assert_int_equal(
        program_run(&p, PRIVATE "--epsilon 8 --noise 4 --data data.jsonl --out run%d", n_done), 0);
    assert_int_equal(program_run(&p, "privacy status --json"), 0);
    json_t *report = program_json(&p);
    const json_t *source = json_array_get(json_object_get(report, "sources"), 0);
    assert_int_equal(json_integer_value(json_object_get(source, "spent")), n_done + 1);
    json_decref(report);
}

static void test_errors_a_result_that_cannot_be_written_is_no_success(void **state)
{
    (void)state;
    static const wrong rows[] = {
        {"eval --model model.gguf --data data.jsonl >/dev/full", 1, "could not be written"},
        {"eval --model model.gguf --data data.jsonl --json >/dev/full", 1, "its disk is full"},
        {"generate --model model.gguf --prompt x --max-tokens 2 >/dev/full", 1, "to stdout"},
        {"model info model.gguf >/dev/full", 1, "run the command again"},
        {"data check --model model.gguf --data data.jsonl >/dev/full", 1, "to stdout"},
        {"privacy plan --sample-rate 0.1 --steps 1 --epsilon 8 >/dev/full", 1, "to stdout"},
        {"--help >/dev/full", 1, "to stdout"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(program_run(&p, "%s", rows[i].arguments), rows[i].status);
        program_says(&p, rows[i].sentence);
    }
}

/* ---- command lines ---- */

static void test_errors_wrong_command_lines_exit_2(void **state)
{
    (void)state;
    static const wrong rows[] = {
        {"eval", 2, "--model is missing: give the base model, GGUF\nSee 'dure eval --help'."},
        {"eval --model model.gguf", 2, "--data is missing: give records"},
        {"eval --mdel x", 2, "there is no option --mdel"},
        {"eval --model a --model b", 2, "--model is given twice"},
        {"eval --model", 2, "--model needs a value (FILE)"},
        {"eval --model model.gguf --data data.jsonl more", 2, "'more' is one operand too many"},
        {"generate", 2, "--model is missing"},
        {"generate --model model.gguf --prompt x --device gpu", 2, "auto, cpu, cuda or cuda:N"},
        {"generate --model model.gguf", 2, "--prompt is missing: give what the user says"},
        {"generate --model model.gguf --prompt x --max-tokens 0", 2,
         "--max-tokens needs a whole number from 1 to 16777216, not '0'"},
        {"generate --model model.gguf --prompt x --raw --system y", 2, "leave out --system"},
        {"generate --model model.gguf --prompt x --any-base", 2, "--any-base is about --adapter"},
        {"eval --model model.gguf --data data.jsonl --any-base", 2, "is about --adapter"},
        {"eval --model model.gguf --data data.jsonl --threads 257", 2, "from 0 to 256, not '257'"},
        {"audit canary --model model.gguf --threads 257", 2, "from 0 to 256, not '257'"},
        {"generate --model model.gguf --prompt x --max-tokens x", 2, "needs a whole number"},
        {"generate --model model.gguf --prompt x --temperature -1", 2, "--temperature is at least"},
        {"serve", 2, "give --model or a coordinator's folder"},
        {"serve --model model.gguf --root 00", 2, "are about a coordinator's folder"},
        {"serve --model model.gguf --context 99999999", 2, "--context needs a whole number"},
        {"serve --model model.gguf --adapter a=data.jsonl", 1, "data.jsonl: this is not a GGUF"},
        {"serve --model model.gguf --device cuda:", 2, "auto, cpu, cuda or cuda:N"},
        {"serve --model model.gguf --listen nonsense", 2, "write 127.0.0.1:8080 or [::1]:8080"},
        {"serve --model model.gguf --listen 0.0.0.0:8000", 1, "give --api-key-file, --tls-cert"},
        {"train", 2, "--model is missing"},
        {"train --model model.gguf --data data.jsonl --out a", 2,
         "give --source, --records and --epsilon for private training, or --no-dp"},
        {"init", 2, "DIR is missing"},
        {"invite", 2, "DIR is missing: give the admin folder"},
        {"coordinator run", 2, "DIR is missing"},
        {"epoch draft fed --reason \"$(printf 'a\\nb')\"", 2,
         "--reason: a reason must be one line"},
        {"audit verify", 2, "FILE is missing"},
        {"adapter promote", 2, "DIR is missing"},
        {"data check --data data.jsonl", 2, "--model is missing"},
        {"audit report a.dure -o a.dure", 2, "must be two files, and neither FILE"},
        {"audit report a.dure -o b --json b", 2, "must be two files, and neither FILE"},
        {"privacy plan", 2, "give two of --noise, --steps and --epsilon"},
        {"privacy plan --sample-rate 0.1 --noise 1 --steps 10 --delta 2", 2,
         "--delta must be above 0 and below 1"},
        {"privacy plan --sample-rate 0.1 --noise 1 --steps 10 --targets v", 2, "are about --model"},
        {"data preview --data data.jsonl --model model.gguf --line 9999", 1,
         "data.jsonl has no record from line 9999 on"},
        {"nonsense", 2, "there is no command 'nonsense'; 'dure --help' lists them"},
        {"model nonsense", 2, "there is no 'nonsense'"},
        {"data nonsense", 2, "there is no 'nonsense'"},
        {"privacy nonsense", 2, "there is no 'nonsense'"},
        {"site nonsense", 2, "there is no 'nonsense'"},
        {"audit nonsense", 2, "there is no 'nonsense'"},
        {"adapter nonsense", 2, "there is no 'nonsense'"},
        {"coordinator nonsense", 2, "there is no 'nonsense'"},
    };
    CHECK_ALL(rows);
    assert_int_equal(program_run(&p, " "), 2);
}

static void test_errors_json_outputs_are_json(void **state)
{
    (void)state;
    static const char *const commands[] = {
        "eval --model model.gguf --data data.jsonl --per-record --threads 1 --json",
        "generate --model model.gguf --prompt x --max-tokens 4 --threads 1 --json",
        "model info model.gguf --json",
        "data check --model model.gguf --data data.jsonl --json",
        "data preview --model model.gguf --data data.jsonl --json",
        "privacy plan --sample-rate 0.1 --steps 1 --epsilon 8 --json",
        INIT("fed", "7001 --json"),
        "invite fed/admin north --json",
        "site list fed/admin --json",
        "status fed --json",
        "adapter list fed --json",
        "adapter list fed/admin --json",
        "audit export fed -o fed.dure --json",
        "audit verify fed.dure --json",
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (program_run(&p, "%s", commands[i])) fail_msg("%s: %s", commands[i], p.err);
        json_decref(program_json(&p));
    }
    assert_int_equal(rename(temp_dir_file(&p.dir, "fed/admin"), temp_dir_file(&p.dir, "desk")), 0);
    assert_int_equal(program_run(&p, "adapter list desk"), 1);
    program_says(&p, "is the admin's folder: give the coordinator's");
    assert_int_equal(program_run(&p, PRIVATE "--epsilon 8 --data data.jsonl --out a --json"), 0);
    json_t *line = program_last_json(&p);
    assert_non_null(json_object_get(line, "summary"));
    json_decref(line);
    assert_int_equal(program_run(&p, "privacy status --json"), 0);
    json_decref(program_json(&p));
}

static void test_errors_an_unknown_limit_of_the_cpu_is_refused(void **state)
{
    (void)state;
    static const char *const good[] = {"PORTABLE", "AVX2", "AVX512", "avx512", ""};
    static const char *const bad[] = {"AVX-512", "AVX5", "AVX5122", "SSE2", " AVX2", "0"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        setenv("DURE_MAX_CPU_ISA", good[i], 1);
        const int status = program_run(&p, "model info model.gguf");
        if (status) fail_msg("'%s': exit %d, %s", good[i], status, p.err);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("DURE_MAX_CPU_ISA", bad[i], 1);
        check_refused("model info model.gguf", 2, bad[i]);
        program_says(&p, "DURE_MAX_CPU_ISA may be PORTABLE, AVX2 or AVX512");
    }
    assert_int_equal(program_run(&p, "--version"), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_errors_missing_files_are_named),
        TEST(test_errors_a_truncated_model_is_told_at_every_length),
        TEST(test_errors_a_foreign_file_is_not_taken_for_a_model),
        TEST(test_errors_a_hostile_model_is_refused_before_it_costs_anything),
        TEST(test_errors_unsupported_types_and_architectures_name_what_works),
        TEST(test_errors_bad_records_are_named_by_their_line),
        TEST(test_errors_a_private_run_with_nothing_to_learn_spends_nothing),
        TEST(test_errors_epsilon_and_delta_out_of_range),
        TEST(test_errors_a_spent_budget_stays_as_it_is),
        TEST(test_errors_an_adapter_of_another_base),
        TEST(test_errors_init_leaves_what_is_there),
        TEST(test_errors_a_port_in_use),
        TEST(test_errors_a_full_disk_leaves_no_half_files),
        TEST(test_errors_a_full_disk_keeps_the_privacy_ledger_whole),
        TEST(test_errors_a_result_that_cannot_be_written_is_no_success),
        TEST(test_errors_wrong_command_lines_exit_2),
        TEST(test_errors_json_outputs_are_json),
        TEST(test_errors_an_unknown_limit_of_the_cpu_is_refused),
    };
    return cmocka_run_group_tests_name("cli.errors", tests, NULL, NULL);
}
