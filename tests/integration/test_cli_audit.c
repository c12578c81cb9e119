/* `dure audit` from the outside, on a coordinator's folder with a real roster: three sites joined,
 * one revoked later, two rounds, cosigned. */
#include "common/file.h"
#include "coordinator/folder.h"
#include "federation/roster.h"
#include "ledger/journal.h"
#include "support/check.h"
#include "support/program.h"
#include "support/temp_dir.h"

#include "../unit/federation/fixture.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SITES = 3 };
static const char *const names[SITES] = {"clinic", "harbour", "mill"};

static struct {
    temp_dir dir;
    fixture federation;
    fixture_site sites[SITES];
    dure_roster *roster;
    dure_journal *journal;
    dure_event *event;
    dure_hash adapter;
    char output[16384];
} d;

static int run(const char *arguments)
{
    char command[1024];
    snprintf(command, sizeof command, "audit %s 2>&1", arguments);
    return program_run_in(d.output, sizeof d.output, d.dir.path, DURE_BINARY, command);
}

static void says(const char *what)
{
    if (!strstr(d.output, what)) fail_msg("'%s' is not in: %s", what, d.output);
}

static void append(dure_event_kind kind)
{
    d.event->kind = kind;
    d.event->time_s = 1772000000;
    assert_ok(dure_journal_append(NULL, d.journal, d.event, NULL));
    memset(d.event, 0, sizeof *d.event);
}

static void append_genesis(void)
{
    dure_event_genesis *g = &d.event->u.genesis;
    snprintf(g->federation, sizeof g->federation, "%s", d.federation.terms.federation);
    assert_ok(dure_federation_id(&g->federation_id, d.federation.root.public_, g->federation));
    assert_ok(dure_terms_hash(&g->terms, &d.federation.terms));
    memcpy(g->root_public, d.federation.root.public_, 32);
    memcpy(g->coordinator_sign, d.federation.coordinator_sign.public_, 32);
    g->collusion = 1;
    append(DURE_EVENT_GENESIS);
}

static void append_roster(void)
{
    dure_event_roster *r = &d.event->u.roster;
    r->size = dure_roster_entries(d.roster);
    r->head = dure_roster_head(d.roster);
    for (size_t i = 0; i < SITES; i++) {
        const dure_roster_member *member = dure_roster_by_name(d.roster, names[i]);
        if (!member) continue;
        dure_site_key *site = &r->sites[r->n_sites++];
        snprintf(site->name, sizeof site->name, "%s", names[i]);
        memcpy(site->sign_public, member->join.sign_public, 32);
    }
    append(DURE_EVENT_ROSTER);
}

static void append_round(dure_event_kind kind, uint64_t round)
{
    dure_event_round *r = &d.event->u.round;
    r->run_id = 1;
    r->round = round;
    memset(r->h_c.b, (int)round, 32);
    r->roster_size = dure_roster_entries(d.roster);
    r->roster_head = dure_roster_head(d.roster);
    r->checkpoint_n = round == 2 ? 4 : 0;
    r->privacy_mode = DURE_PRIVACY_RECORD;
    r->base = d.federation.terms.base.digest;
    r->adapter_in = d.adapter;
    if (kind == DURE_EVENT_CLOSED) {
        memset(r->t3.b, 3, 32);
        memset(r->result.b, 5, 32);
        memset(r->adapter_out.b, 0x80 + (int)round, 32);
        d.adapter = r->adapter_out;
    }
    for (size_t i = 0; i < SITES; i++) {
        dure_event_member *m = &r->members[r->n_members++];
        snprintf(m->name, sizeof m->name, "%s", names[i]);
        memcpy(m->sign_public, d.sites[i].own.public_, 32);
        m->part = kind == DURE_EVENT_CLOSED ? DURE_PART_SUMMED : DURE_PART_NONE;
        m->plan = (dure_dp_plan){.mechanism = DURE_DP_POISSON_GAUSSIAN,
                                 .sigma_num = d.sites[i].join.declared.sigma_num,
                                 .clip = d.federation.terms.training.clip,
                                 .grid_bits = d.federation.terms.training.grid_bits,
                                 .steps = d.federation.terms.training.steps};
        assert_ok(dure_dp_plan_set_batch(&m->plan, 16, 1000, NULL));
    }
    append(kind);
}

static void checkpoint(void)
{
    dure_buf text;
    dure_note *note = calloc(1, sizeof *note);
    assert_non_null(note);
    dure_buf_init(&text, DURE_NOTE_MAX);
    assert_ok(dure_journal_checkpoint(&text, d.journal, &d.federation.coordinator_sign, NULL));
    assert_ok(dure_note_parse(note, dure_buf_span(&text), NULL));
    for (size_t i = 0; i < SITES; i++) {
        dure_cosignature c;
        assert_ok(dure_cosign(&c, &note->checkpoint, 1772000200, &d.sites[i].own));
        dure_site_key site = {.name = ""};
        snprintf(site.name, sizeof site.name, "%s", names[i]);
        memcpy(site.sign_public, d.sites[i].own.public_, 32);
        assert_ok(dure_journal_cosign(d.journal, note->checkpoint.head.n, &site, &c, NULL));
    }
    assert_ok(
        dure_file_write_atomic(temp_dir_file(&d.dir, "seen"), dure_buf_span(&text), 0600, NULL));
    free(note);
    dure_buf_fini(&text);
}

static int setup(void **state)
{
    (void)state;
    dure_revocation revocation = {.revoked_s = FIXTURE_JOINED};
    temp_dir_make(&d.dir);
    fixture_make(&d.federation);
    d.event = calloc(1, sizeof *d.event);
    assert_non_null(d.event);
    assert_ok(dure_dir_make(temp_dir_file(&d.dir, "fed/coordinator"), NULL));
    assert_ok(dure_journal_open(&d.journal, temp_dir_file(&d.dir, "fed/coordinator/ledger"),
                                DURE_LEAF_LOG_WRITE, NULL));
    assert_ok(dure_roster_new(&d.roster, d.federation.root.public_));
    append_genesis();
    for (size_t i = 0; i < SITES; i++) {
        fixture_site_make(&d.sites[i], &d.federation, names[i]);
        assert_ok(dure_roster_add(d.roster, &d.sites[i].join, FIXTURE_JOINED, NULL));
    }
    append_roster();
    for (uint64_t round = 1; round <= 2; round++) {
        append_round(DURE_EVENT_OPENED, round);
        append_round(DURE_EVENT_CLOSED, round);
        checkpoint();
    }
    memcpy(revocation.invite_public, d.sites[2].invite.public_, 32);
    assert_ok(dure_revocation_sign(&revocation, &d.federation.root));
    assert_ok(dure_roster_revoke(d.roster, &revocation, NULL));
    append_roster();
    assert_ok(dure_folder_roster_write(temp_dir_file(&d.dir, "fed/coordinator"), d.roster, NULL));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dure_journal_close(&d.journal);
    dure_roster_free(&d.roster);
    free(d.event);
    temp_dir_remove(&d.dir);
    return 0;
}

static void test_audit_verifies_what_it_exported(void **state)
{
    (void)state;
    /* While the coordinator holds the ledger open for writing, as it does when it runs. */
    assert_int_equal(run("export fed/coordinator -o fed.dure"), 0);
    says("7 entries");
    assert_int_equal(run("verify fed.dure"), 0);
    says("2 closed, 0 aborted");
    says("complete up to entry 5");
    says("harbour");
    assert_int_equal(run("verify fed.dure --checkpoint seen"), 0);
    says("the 6 entries that the site has seen");
}

static void test_audit_json_gives_each_site_s_epsilon(void **state)
{
    (void)state;
    assert_int_equal(run("export fed -o fed.dure --json"), 0);
    assert_int_equal(run("verify fed.dure --json"), 0);
    json_t *report = json_loads(d.output, 0, NULL);
    assert_non_null(report);
    assert_true(json_is_true(json_object_get(report, "verified")));
    assert_int_equal(json_integer_value(json_object_get(report, "entries")), 7);
    assert_int_equal(json_integer_value(json_object_get(report, "shown_entries")), 6);
    json_t *sites = json_object_get(report, "sites");
    assert_int_equal(json_array_size(sites), 3);
    json_t *site = json_array_get(sites, 0);
    assert_string_equal(json_string_value(json_object_get(site, "name")), "clinic");
    assert_int_equal(json_integer_value(json_object_get(site, "steps")), 6);
    assert_true(json_real_value(json_object_get(site, "epsilon")) > 0.1);
    json_decref(report);
}

/* Changes one byte of an exported file where entry `index` lies. */
static void change_entry(const char *file, size_t index)
{
    dure_buf bytes, leaf;
    const char *path = temp_dir_file(&d.dir, file);
    assert_ok(dure_file_read(&bytes, path, 1 << 20, NULL));
    assert_ok(dure_leaf_log_read(&leaf, dure_journal_log(d.journal), index, NULL));
    uint8_t *at = memmem(bytes.data, bytes.n, leaf.data, leaf.n);
    assert_non_null(at);
    at[leaf.n / 2] ^= 1;
    assert_ok(dure_file_write_atomic(path, dure_buf_span(&bytes), 0600, NULL));
    dure_buf_fini(&leaf);
    dure_buf_fini(&bytes);
}

static void test_audit_names_the_entry_with_a_changed_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < 7; i++) {
        char words[64];
        assert_int_equal(run("export fed/coordinator -o bad.dure"), 0);
        change_entry("bad.dure", i);
        assert_int_equal(run("verify bad.dure"), 1);
        snprintf(words, sizeof words, "bad.dure: entry %zu was changed", i);
        says(words);
        assert_int_equal(run("verify bad.dure --json 2>/dev/null"), 1);
        snprintf(words, sizeof words, "\"entry\":%zu", i);
        says(words);
    }
}

/* A ledger whose roster entry names other keys than the root signed. */
static void test_audit_checks_the_roster_against_the_root(void **state)
{
    (void)state;
    dure_roster *short_roster = NULL;
    const char *coordinator = temp_dir_file(&d.dir, "fed/coordinator");
    assert_ok(dure_roster_new(&short_roster, d.federation.root.public_));
    assert_ok(dure_roster_add(short_roster, &d.sites[0].join, FIXTURE_JOINED, NULL));
    assert_ok(dure_folder_roster_write(coordinator, short_roster, NULL));
    assert_int_equal(run("export fed/coordinator -o bad.dure"), 0);
    assert_int_equal(run("verify bad.dure"), 1);
    says("entry 1: the roster in the file has 1 entries");
    assert_ok(dure_folder_roster_write(coordinator, d.roster, NULL));
    dure_roster_free(&short_roster);
}

static void test_audit_checks_the_root_key_that_is_given(void **state)
{
    (void)state;
    char command[256], hex[65];
    assert_int_equal(run("export fed/coordinator -o fed.dure"), 0);
    dure_hex_encode(hex, d.federation.root.public_, 32);
    snprintf(command, sizeof command, "verify fed.dure --root %s", hex);
    assert_int_equal(run(command), 0);
    hex[5] = hex[5] == '0' ? '1' : '0';
    snprintf(command, sizeof command, "verify fed.dure --root %s", hex);
    assert_int_equal(run(command), 1);
    says("another federation");
    assert_int_equal(run("verify fed.dure --root zz"), 2);
}

static void put_file(const char *name, const char *text)
{
    assert_ok(
        dure_file_write_atomic(temp_dir_file(&d.dir, name), dure_span_of_text(text), 0644, NULL));
}

/* Whoever gives a checkpoint wants it looked at: an empty file is none, and not "none given". */
static void test_audit_does_not_pass_over_an_empty_checkpoint(void **state)
{
    (void)state;
    assert_int_equal(run("export fed/coordinator -o fed.dure"), 0);
    put_file("nothing", "");
    assert_int_equal(run("verify fed.dure --checkpoint nothing"), 1);
    says("nothing is empty; give the checkpoint as the site keeps it");
    assert_int_equal(run("report fed.dure -o page.html --checkpoint nothing"), 1);
    put_file("nothing", "words\n");
    assert_int_equal(run("verify fed.dure --checkpoint nothing"), 1);
    says("the site's checkpoint: it is not a signed checkpoint");
    assert_int_equal(run("verify fed.dure --root ''"), 2);
}

static void report_says(const char *canary, const char *words)
{
    dure_buf page;
    put_file("canary.json", canary);
    assert_int_equal(run("report fed.dure -o page.html --canary canary.json"), 0);
    assert_ok(dure_file_read(&page, temp_dir_file(&d.dir, "page.html"), 1 << 20, NULL));
    if (!memmem(page.data, page.n, words, strlen(words))) fail_msg("no '%s'", words);
    dure_buf_fini(&page);
}

/* What speaks against the claim is said, be it a bound, no bound at all or the noise alone; and
 * what is no result is not taken for a good one. */
static void test_audit_report_tells_a_canary_s_finding(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "{}", "[]", "nonsense",
        "{\"holds\":true,\"canaries\":10000,\"confidence\":0.95,\"epsilon_lower\":1}",
        "{\"canaries\":10000,\"confidence\":0.95,\"epsilon_claimed\":2,\"epsilon_lower\":1}"};
#define RESULT(holds, lower)                                                                       \
    "{\"holds\":" holds ",\"canaries\":10000,\"confidence\":0.95,\"epsilon_claimed\":2,"           \
    "\"epsilon_lower\":" lower "}"
    assert_int_equal(run("export fed/coordinator -o fed.dure"), 0);
    report_says(RESULT("true", "1.25"), "Nothing speaks against the claim.");
    report_says(RESULT("false", "2.5"), "The claim does not hold.");
    report_says(RESULT("true", "2.5"), "The claim does not hold.");
    report_says(RESULT("false", "null"), "The claim does not hold.");
    report_says(RESULT("false", "1.25"), "noise that was measured is not the planned one");
#undef RESULT
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        put_file("canary.json", wrong[i]);
        assert_int_equal(run("report fed.dure -o page.html --canary canary.json"), 1);
        says("canary.json");
    }
}

static void test_audit_says_what_is_wrong_with_files_and_commands(void **state)
{
    (void)state;
    assert_int_equal(run("verify nothing.dure"), 1);
    says("nothing.dure");
    assert_int_equal(run("verify seen"), 1);
    says("not a ledger export");
    dure_buf whole;
    assert_int_equal(run("export fed/coordinator -o whole.dure"), 0);
    assert_ok(dure_file_read(&whole, temp_dir_file(&d.dir, "whole.dure"), 1 << 20, NULL));
    for (size_t n = 0; n < whole.n; n += 57) {
        const char *cut = temp_dir_file(&d.dir, "cut.dure");
        assert_ok(dure_file_write_atomic(cut, dure_span_of(whole.data, n), 0644, NULL));
        assert_int_equal(run("verify cut.dure"), 1);
        says("dure audit export");
    }
    dure_buf_fini(&whole);
    assert_int_equal(run("export nowhere -o x"), 1);
    says("nowhere has no ledger: give the folder of a coordinator that has run");
    assert_int_equal(run("export fed/coordinator"), 2);
    assert_int_equal(run("burn fed.dure"), 2);
    assert_int_equal(run("--help"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_audit_verifies_what_it_exported),
        cmocka_unit_test(test_audit_json_gives_each_site_s_epsilon),
        cmocka_unit_test(test_audit_names_the_entry_with_a_changed_byte),
        cmocka_unit_test(test_audit_checks_the_roster_against_the_root),
        cmocka_unit_test(test_audit_checks_the_root_key_that_is_given),
        cmocka_unit_test(test_audit_does_not_pass_over_an_empty_checkpoint),
        cmocka_unit_test(test_audit_report_tells_a_canary_s_finding),
        cmocka_unit_test(test_audit_says_what_is_wrong_with_files_and_commands),
    };
    return cmocka_run_group_tests_name("cli.audit", tests, setup, teardown);
}
