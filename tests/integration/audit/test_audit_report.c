/* `dure audit report` from the outside: the page and the JSON of a long history, of one that does
 * not verify, and of one whose reasons try to be HTML. */
#include "common/file.h"
#include "history.h"
#include "support/check.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static history h;

static const char hostile[] = "</td><script>alert(\"x\")</script> <img src=x onerror='y'> & so on";

static int setup(void **state)
{
    (void)state;
    double loss = 2.31;
    history_begin(&h);
    for (int i = 0; i < 14; i++) {
        history_round_open(&h);
        if (i == 3) {
            history_round_abort(&h, 2, hostile);
            continue;
        }
        double next = i == 9 ? loss + 0.05 : loss - 0.28 / (1 + 0.4 * i);
        history_round_close(&h, i == 6 ? 1 : 0, loss, next);
        loss = next;
        if (i == 8) history_release(&h, DURE_EVENT_PROMOTED, h.round, "the gate passed");
        if (i == 11) history_release(&h, DURE_EVENT_PROMOTED, h.round, "the gate passed");
    }
    history_release(&h, DURE_EVENT_ROLLED_BACK, 9, "answers in the wrong language");
    history_revoke(&h, 2);
    history_round_open(&h); /* and never ended */
    if (history_run(&h, "audit export fed -o fed.dure")) fail_msg("%s", h.output);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    history_end(&h);
    return 0;
}

static char *read_text(const char *name)
{
    dure_buf bytes;
    assert_ok(dure_file_read(&bytes, temp_dir_file(&h.dir, name), 1 << 24, NULL));
    char *text = calloc(1, bytes.n + 1);
    assert_non_null(text);
    memcpy(text, bytes.data, bytes.n);
    dure_buf_fini(&bytes);
    return text;
}

static void has(const char *page, const char *what)
{
    if (!strstr(page, what)) fail_msg("'%s' is not on the page", what);
}

static void test_report_page_says_what_a_reader_asks(void **state)
{
    (void)state;
    if (history_run(&h, "audit report fed.dure -o fed.html --json fed.json --checkpoint seen"))
        fail_msg("%s", h.output);
    char *page = read_text("fed.html");
    has(page, "Privacy statement of the federation coast-hospitals");
    has(page, "<b>Verified</b>");
    has(page, "5 sites of 4 organisations");
    has(page, "record-level differential privacy");
    has(page, "What is not covered");
    has(page, "Round 4 ended without a sum");
    has(page, "was completed without 1 of its members");
    has(page, "Round 15 was opened and has no end");
    has(page, "The site jeju-clinic (Jeju-Health) was revoked");
    has(page, "The adapter of round 10 did not pass");
    has(page, "taken back to that of round 9: answers in the wrong language");
    has(page, "X25519 keys, AES-256-CTR masks");
    has(page, "<path class=\"line s4\"");
    free(page);
}

/* Nothing is fetched and nothing runs, whatever is opened: no script, no address, no handler. */
static void test_report_page_is_self_contained(void **state)
{
    (void)state;
    assert_int_equal(history_run(&h, "audit report fed.dure -o fed.html"), 0);
    char *page = read_text("fed.html");
    static const char *const banned[] = {"<script", "<img",    "<iframe", "<link",   "src=",
                                         "href=",   "@import", "url(",    "http://", "https://"};
    has(page, "&lt;/td&gt;&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &lt;img");
    char *hidden = strstr(page, "&lt;img src=x onerror=&#39;y&#39;&gt;");
    assert_non_null(hidden);
    for (char *at = page; (at = strstr(at, "&lt;img src=x")); at++)
        memset(at, '.', strlen("&lt;img src=x")); /* text, not a tag */
    for (size_t i = 0; i < sizeof banned / sizeof *banned; i++)
        if (strstr(page, banned[i])) fail_msg("'%s' is on the page", banned[i]);
    free(page);
}

static void test_report_names_the_hybrid_suite(void **state)
{
    (void)state;
    history_end(&h);
    history_begin_hybrid(&h);
    history_round_open(&h);
    history_round_close(&h, 0, 2, 1);
    assert_int_equal(history_run(&h, "audit export fed -o fed.dure"), 0);
    if (history_run(&h, "audit report fed.dure -o fed.html --json fed.json"))
        fail_msg("%s", h.output);
    char *page = read_text("fed.html"), *json = read_text("fed.json");
    has(page, "X25519 with ML-KEM-768");
    has(json, "X25519 with ML-KEM-768");
    free(page);
    free(json);
}

/* What the coordinator logs as the suite must be what the root signed. */
static void test_report_refuses_a_round_of_another_suite(void **state)
{
    (void)state;
    history_end(&h);
    history_begin_hybrid(&h);
    h.suite = 1;
    history_round_open(&h);
    history_round_close(&h, 0, 2, 1);
    assert_int_equal(history_run(&h, "audit export fed -o fed.dure"), 0);
    assert_int_equal(history_run(&h, "audit verify fed.dure"), 1);
    history_says(&h, "another rule for its secure sum");
}

static void test_report_json_has_every_item(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "federation", "dp_flavor", "accounting", "sites",     "privacy_loss", "model",
        "secure_sum", "releases",  "acts",       "incidents", "checks",       "shown_complete_to"};
    assert_int_equal(history_run(&h, "audit report fed.dure -o fed.html --json fed.json"), 0);
    char *text = read_text("fed.json");
    json_t *s = json_loads(text, 0, NULL);
    assert_non_null(s);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!json_object_get(s, keys[i])) fail_msg("no %s", keys[i]);
    assert_int_equal(json_array_size(json_object_get(s, "releases")), 15);
    assert_int_equal(json_array_size(json_object_get(s, "incidents")), 6);
    json_t *loss = json_array_get(json_object_get(s, "privacy_loss"), 0);
    double epsilon = json_real_value(json_object_get(loss, "epsilon"));
    double planned = json_real_value(json_object_get(loss, "epsilon_of_plan"));
    assert_true(epsilon > 0.1 && epsilon < planned);
    const json_t *found = json_object_get(s, "membership");
    const double at_100 = json_real_value(json_object_get(found, "found_at_0.01"));
    assert_true(at_100 > 0.01 && at_100 < 1);
    assert_true(json_real_value(json_object_get(found, "found_at_0.001")) < at_100);
    json_t *curve = json_object_get(loss, "over_time");
    assert_int_equal(json_array_size(curve), 15); /* 14 ends of rounds, and the account itself */
    for (size_t i = 1; i < json_array_size(curve); i++)
        assert_true(json_real_value(json_array_get(json_array_get(curve, i), 1)) >=
                    json_real_value(json_array_get(json_array_get(curve, i - 1), 1)));
    json_decref(s);
    free(text);
}

static void test_report_of_a_changed_ledger_has_no_figures(void **state)
{
    (void)state;
    dure_buf bytes;
    assert_ok(dure_file_read(&bytes, temp_dir_file(&h.dir, "fed.dure"), 1 << 24, NULL));
    bytes.data[bytes.n / 3] ^= 4;
    assert_ok(dure_file_write_atomic(temp_dir_file(&h.dir, "bad.dure"), dure_buf_span(&bytes), 0600,
                                     NULL));
    dure_buf_fini(&bytes);
    assert_int_equal(history_run(&h, "audit report bad.dure -o bad.html --json bad.json"), 1);
    history_says(&h, "was changed");
    char *page = read_text("bad.html"), *json = read_text("bad.json");
    has(page, "Does not verify");
    has(page, "was changed: it does not have its recorded hash");
    assert_null(strstr(page, "Privacy budget spent"));
    assert_null(strstr(page, "coast-hospitals"));
    has(json, "\"verified\": false");
    free(page);
    free(json);
}

static void test_report_says_what_is_wrong_with_files_and_commands(void **state)
{
    (void)state;
    assert_int_equal(history_run(&h, "audit report fed.dure"), 2);
    assert_int_equal(history_run(&h, "audit report nothing.dure -o x.html"), 1);
    history_says(&h, "nothing.dure");
    assert_false(dure_file_exists(temp_dir_file(&h.dir, "x.html")));
    assert_int_equal(history_run(&h, "audit report fed.dure -o nowhere/x.html"), 1);
    assert_int_equal(history_run(&h, "audit report fed.dure -o x.html --root 12"), 2);
    assert_int_equal(history_run(&h, "audit report --help"), 0);
    history_says(&h, "Example");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report_page_says_what_a_reader_asks),
        cmocka_unit_test(test_report_page_is_self_contained),
        cmocka_unit_test(test_report_json_has_every_item),
        cmocka_unit_test(test_report_of_a_changed_ledger_has_no_figures),
        cmocka_unit_test(test_report_says_what_is_wrong_with_files_and_commands),
        /* These begin histories of their own. */
        cmocka_unit_test(test_report_names_the_hybrid_suite),
        cmocka_unit_test(test_report_refuses_a_round_of_another_suite),
    };
    return cmocka_run_group_tests_name("cli.audit_report", tests, setup, teardown);
}
