#include "fixture.h"

#include "common/base64.h"
#include "ledger/cosign.h"

#include <stdlib.h>
#include <string.h>

/* Key ids in two published verifier keys of the signed-note format: that of sum.golang.org, and the
 * one in the documentation of Go's golang.org/x/mod/sumdb/note. */
static void test_note_key_ids_match_published_keys(void **state)
{
    (void)state;
    static const struct {
        const char *name, *id, *key;
    } keys[] = {
        {"sum.golang.org", "033de0ae", "Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"},
        {"PeterNeumann", "c74f20a3", "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"},
    };
    for (size_t i = 0; i < 2; i++) {
        uint8_t bytes[33], want[4], id[4];
        size_t n = 0;
        assert_ok(dure_base64_take(bytes, &n, sizeof bytes, dure_span_of_text(keys[i].key)));
        assert_int_equal(n, 33);
        assert_ok(dure_hex_decode(want, 4, keys[i].id));
        assert_ok(dure_note_key_id(id, keys[i].name, bytes[0], bytes + 1));
        assert_memory_equal(id, want, 4);
    }
}

static dure_checkpoint example(const fixture *f)
{
    dure_checkpoint checkpoint = {.head = {.n = 42, .root = fixture_hash(0xab)}};
    memcpy(checkpoint.origin, f->origin, sizeof checkpoint.origin);
    return checkpoint;
}

static void sign_example(dure_buf *text, const fixture *f)
{
    dure_checkpoint checkpoint = example(f);
    dure_buf_init(text, DURE_NOTE_MAX);
    assert_ok(dure_checkpoint_sign(text, &checkpoint, &f->coordinator));
}

static void test_checkpoint_has_the_lines_of_the_format(void **state)
{
    (void)state;
    static const char want[] = "dure/valley/"
                               "f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1\n"
                               "42\n"
                               "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n"
                               "\n"
                               "\xe2\x80\x94 dure/valley/f1f1";
    fixture f;
    dure_buf text;
    fixture_make(&f);
    sign_example(&text, &f);
    assert_true(text.n > sizeof want);
    assert_memory_equal(text.data, want, sizeof want - 1);
    assert_int_equal(text.data[text.n - 1], '\n');
    dure_buf_fini(&text);
    fixture_free(&f);
}

static void test_checkpoint_verifies_and_refuses_others(void **state)
{
    (void)state;
    fixture f;
    dure_buf text;
    dure_note *note = malloc(sizeof *note);
    assert_non_null(note);
    fixture_make(&f);
    sign_example(&text, &f);
    assert_ok(dure_note_parse(note, dure_buf_span(&text), NULL));
    assert_int_equal(note->checkpoint.head.n, 42);
    assert_ok(dure_note_verify(note, f.origin, f.coordinator.public_, NULL));
    assert_err(dure_note_verify(note, "dure/other/00", f.coordinator.public_, NULL), DURE_ERR_AUTH);
    assert_err(dure_note_verify(note, f.origin, f.root.public_, NULL), DURE_ERR_AUTH);
    note->checkpoint.head.n++;
    assert_err(dure_note_verify(note, f.origin, f.coordinator.public_, NULL), DURE_ERR_AUTH);
    free(note);
    dure_buf_fini(&text);
    fixture_free(&f);
}

/* Every changed byte is noticed, by the parser or by the signature. */
static void test_checkpoint_refuses_every_changed_byte(void **state)
{
    (void)state;
    fixture f;
    dure_buf text;
    dure_note *note = malloc(sizeof *note);
    assert_non_null(note);
    fixture_make(&f);
    sign_example(&text, &f);
    for (size_t i = 0; i < text.n; i++) {
        text.data[i] ^= 2;
        dure_err err = dure_note_parse(note, dure_buf_span(&text), NULL);
        if (!err) err = dure_note_verify(note, f.origin, f.coordinator.public_, NULL);
        assert_int_not_equal(err, DURE_OK);
        text.data[i] ^= 2;
    }
    free(note);
    dure_buf_fini(&text);
    fixture_free(&f);
}

static void test_note_parse_refuses_malformed_texts(void **state)
{
    (void)state;
#define ROOT "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n"
    static const char *const texts[] = {
        "",
        "a\n",
        "a\n1\n",
        "a\n1\n" ROOT,
        "a\n1\n" ROOT "\n",
        "a\n01\n" ROOT "\n\xe2\x80\x94 a AAAA\n",
        "a\n-1\n" ROOT "\n\xe2\x80\x94 a AAAA\n",
        "a\n18446744073709551616\n" ROOT "\n\xe2\x80\x94 a AAAA\n",
        "a b\n1\n" ROOT "\n\xe2\x80\x94 a AAAA\n",
        "a\n1\n" ROOT "an extension\n\n\xe2\x80\x94 a AAAA\n",
        "a\n1\n" ROOT "\n- a AAAA\n",
        "a\n1\n" ROOT "\n\xe2\x80\x94 a AAAA\n",
        "a\n1\n" ROOT "\n\xe2\x80\x94 a\n",
    };
#undef ROOT
    dure_note *note = malloc(sizeof *note);
    assert_non_null(note);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        dure_diag diag = {{0}};
        assert_err(dure_note_parse(note, dure_span_of_text(texts[i]), &diag), DURE_ERR_FORMAT);
        assert_true(diag.text[0] != 0);
    }
    free(note);
}

static dure_site_key site_of(const fixture *f, size_t i)
{
    static const char *const names[] = {"clinic", "harbour", "mill"};
    dure_site_key site = {.name = {0}};
    memcpy(site.name, names[i], strlen(names[i]));
    memcpy(site.sign_public, f->sites[i].public_, 32);
    return site;
}

static void test_cosign_counts_each_site_once(void **state)
{
    (void)state;
    fixture f;
    dure_buf text;
    dure_note *note = malloc(sizeof *note);
    dure_cosign_tally tally;
    bool signed_by[3];
    assert_non_null(note);
    fixture_make(&f);
    sign_example(&text, &f);
    dure_checkpoint checkpoint = example(&f);
    dure_site_key sites[3] = {site_of(&f, 0), site_of(&f, 1), site_of(&f, 2)};
    for (size_t k = 0; k < 3; k++) {
        size_t i = k == 1 ? 0 : k; /* site 0 twice, site 2 once */
        dure_cosignature cosignature;
        assert_ok(dure_cosign(&cosignature, &checkpoint, 1000 + k, &f.sites[i]));
        assert_ok(dure_cosign_append(&text, &cosignature, &sites[i]));
    }
    assert_ok(dure_note_parse(note, dure_buf_span(&text), NULL));
    assert_ok(dure_cosign_count(&tally, signed_by, note, &(dure_cosigners){sites, 3, 0}));
    assert_int_equal(tally.n, 2);
    assert_true(signed_by[0] && !signed_by[1] && signed_by[2]);
    assert_int_equal(tally.seen_s, 1002);
    assert_ok(dure_cosign_count(&tally, NULL, note, &(dure_cosigners){sites, 3, 1}));
    assert_int_equal(tally.seen_s, 1000);
    assert_ok(dure_cosign_count(&tally, NULL, note, &(dure_cosigners){sites, 3, 2}));
    assert_int_equal(tally.seen_s, 0); /* every one of them may lie */
    assert_ok(dure_note_verify(note, f.origin, f.coordinator.public_, NULL));
    free(note);
    dure_buf_fini(&text);
    fixture_free(&f);
}

static void test_cosign_verifies_checkpoint_time_and_key(void **state)
{
    (void)state;
    fixture f;
    dure_cosignature cosignature;
    fixture_make(&f);
    dure_checkpoint checkpoint = example(&f);
    assert_ok(dure_cosign(&cosignature, &checkpoint, 1000, &f.sites[0]));
    assert_ok(dure_cosign_verify(&cosignature, &checkpoint, f.sites[0].public_));
    assert_err(dure_cosign_verify(&cosignature, &checkpoint, f.sites[1].public_), DURE_ERR_AUTH);
    cosignature.time_s++;
    assert_err(dure_cosign_verify(&cosignature, &checkpoint, f.sites[0].public_), DURE_ERR_AUTH);
    cosignature.time_s--;
    checkpoint.head.root.b[0] ^= 1;
    assert_err(dure_cosign_verify(&cosignature, &checkpoint, f.sites[0].public_), DURE_ERR_AUTH);
    fixture_free(&f);
}

/* Two quorums share more than c sites. */
static void test_cosign_quorum_is_more_than_half_of_n_plus_c(void **state)
{
    (void)state;
    assert_false(dure_cosign_quorum(2, 3, 1));
    assert_true(dure_cosign_quorum(3, 3, 1));
    assert_false(dure_cosign_quorum(4, 7, 1));
    assert_true(dure_cosign_quorum(5, 7, 1));
    assert_true(dure_cosign_quorum(2, 3, 0));
    for (uint32_t n = 1; n <= 100; n++) {
        for (uint32_t c = 0; c < n; c++) {
            for (uint32_t m = 0; m <= n; m++) {
                if (dure_cosign_quorum(m, n, c)) assert_true(2 * m - n > c);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_note_key_ids_match_published_keys),
        cmocka_unit_test(test_checkpoint_has_the_lines_of_the_format),
        cmocka_unit_test(test_checkpoint_verifies_and_refuses_others),
        cmocka_unit_test(test_checkpoint_refuses_every_changed_byte),
        cmocka_unit_test(test_note_parse_refuses_malformed_texts),
        cmocka_unit_test(test_cosign_counts_each_site_once),
        cmocka_unit_test(test_cosign_verifies_checkpoint_time_and_key),
        cmocka_unit_test(test_cosign_quorum_is_more_than_half_of_n_plus_c),
    };
    return cmocka_run_group_tests_name("ledger.checkpoint", tests, NULL, NULL);
}
