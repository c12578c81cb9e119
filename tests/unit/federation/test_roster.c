#include "federation/roster.h"
#include "fixture.h"
#include "support/check.h"

#include <stdio.h>
#include <string.h>

static dure_roster *roster_of(const fixture *f, const char *const *names, size_t n)
{
    dure_roster *roster;
    assert_ok(dure_roster_new(&roster, f->root.public_));
    for (size_t i = 0; i < n; i++) {
        fixture_site site;
        fixture_site_make(&site, f, names[i]);
        assert_ok(dure_roster_add(roster, &site.join, FIXTURE_JOINED, NULL));
    }
    return roster;
}

static void revoke(dure_roster *roster, const fixture *f, const char *name)
{
    const dure_roster_member *m = dure_roster_by_name(roster, name);
    assert_non_null(m);
    dure_revocation r = {.revoked_s = FIXTURE_JOINED + 1};
    memcpy(r.invite_public, m->join.invitation.invite_public, 32);
    assert_ok(dure_revocation_sign(&r, &f->root));
    assert_ok(dure_roster_revoke(roster, &r, NULL));
}

static const char *const three[] = {"north", "south", "west"};

static void test_roster_round_trips_and_keeps_its_head(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_roster *roster = roster_of(&f, three, 3), *back;
    revoke(roster, &f, "south");
    dure_buf bytes;
    dure_buf_init(&bytes, DURE_ROSTER_MAX_BYTES);
    assert_ok(dure_roster_encode(&bytes, roster));
    dure_diag diag = {0};
    if (dure_roster_parse(&back, f.root.public_, dure_buf_span(&bytes), &diag))
        fail_msg("%s", diag.text);
    const dure_hash a = dure_roster_head(roster), b = dure_roster_head(back);
    assert_true(dure_hash_equal(&a, &b));
    assert_int_equal(dure_roster_entries(back), 4);
    assert_int_equal(dure_roster_count(back), 3);
    assert_int_equal(dure_roster_in_force(back), 2);
    assert_null(dure_roster_by_name(back, "south"));
    dure_buf_fini(&bytes);
    dure_roster_free(&roster);
    dure_roster_free(&back);
}

static void test_roster_finds_members_by_their_signing_key(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_roster *roster = roster_of(&f, three, 3);
    fixture_site site;
    fixture_site_make(&site, &f, "west");
    const dure_roster_member *m = dure_roster_by_sign(roster, site.own.public_);
    assert_non_null(m);
    assert_string_equal(m->join.invitation.name, "west");
    assert_null(dure_roster_by_sign(roster, site.join.curve_public));
    dure_roster_free(&roster);
}

static void test_roster_refuses_an_invitation_used_twice(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_roster *roster = roster_of(&f, three, 3);
    fixture_site again;
    fixture_site_make(&again, &f, "west");
    assert_ok(dure_sign_generate(&again.own));
    memset(again.join.curve_public, 0x77, 32);
    assert_ok(dure_join_sign(&again.join, &again.invite, &again.own, NULL));
    dure_diag diag = {0};
    assert_err(dure_roster_add(roster, &again.join, FIXTURE_JOINED, &diag), DURE_ERR_EXISTS);
    assert_non_null(strstr(diag.text, "used already"));
    assert_int_equal(dure_roster_entries(roster), 3);
    assert_true(dure_roster_invitation_used(roster, again.invite.public_));
    dure_roster_free(&roster);
}

static void test_roster_refuses_an_expired_invitation(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_roster *roster = roster_of(&f, three, 0);
    fixture_site site;
    fixture_site_make(&site, &f, "west");
    assert_err(dure_roster_add(roster, &site.join, FIXTURE_EXPIRES + 1, NULL), DURE_ERR_EXPIRED);
    dure_roster_free(&roster);
}

static void test_roster_refuses_a_site_of_another_federation(void **state)
{
    (void)state;
    fixture f, other;
    fixture_make(&f);
    other = f;
    assert_ok(dure_sign_generate(&other.root));
    dure_roster *roster = roster_of(&f, three, 0);
    fixture_site site;
    fixture_site_make(&site, &other, "west");
    assert_err(dure_roster_add(roster, &site.join, FIXTURE_JOINED, NULL), DURE_ERR_AUTH);
    dure_roster_free(&roster);
}

static void test_roster_refuses_altered_declarations(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_roster *roster = roster_of(&f, three, 0);
    fixture_site site;
    fixture_site_make(&site, &f, "west");
    site.join.declared.sigma_num -= 1; /* the coordinator would like less noise */
    assert_err(dure_roster_add(roster, &site.join, FIXTURE_JOINED, NULL), DURE_ERR_AUTH);
    dure_roster_free(&roster);
}

/* What a site declares has to be a plan, whoever signs it. */
static void test_a_join_declares_a_rate_and_noise_that_can_be(void **state)
{
    (void)state;
    fixture f;
    fixture_site site;
    fixture_make(&f);
#define REFUSES(change, words)                                                                     \
    do {                                                                                           \
        dure_diag diag = {0};                                                                      \
        fixture_site_make(&site, &f, "west");                                                      \
        dure_declared *d = &site.join.declared;                                                    \
        change;                                                                                    \
        assert_err(dure_join_sign(&site.join, &site.invite, &site.own, &diag), DURE_ERR_POLICY);   \
        if (!strstr(diag.text, words)) fail_msg("%s: %s", #change, diag.text);                     \
    } while (0)
    REFUSES(d->n_pub = 0, "from 1 to the number of records");
    REFUSES(d->batch = 0, "from 1 to the number of records");
    REFUSES(d->batch = 1001, "from 1 to the number of records");
    REFUSES(d->q_k++, "sampling rate");
    REFUSES(d->q_k = 0, "sampling rate");
    REFUSES(d->n_pub *= 2, "sampling rate");
    REFUSES(d->sigma_num = 0, "does not fit the federation's privacy mode");
    REFUSES(d->sigma_den = 1, "does not fit the federation's privacy mode");
    REFUSES(
        (site.join.invitation.terms.training.privacy_mode = DURE_PRIVACY_NONE, d->sigma_den = 1),
        "does not fit the federation's privacy mode");
#undef REFUSES
}

static void test_roster_refuses_another_base_model(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_roster *roster = roster_of(&f, three, 0);
    fixture_site site;
    fixture_site_make(&site, &f, "west");
    site.join.base_digest.b[0] ^= 1;
    assert_ok(dure_join_sign(&site.join, &site.invite, &site.own, NULL));
    assert_err(dure_roster_add(roster, &site.join, FIXTURE_JOINED, NULL), DURE_ERR_POLICY);
    dure_roster_free(&roster);
}

static void test_roster_join_needs_a_rate_that_is_batch_over_records(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    fixture_site site;
    fixture_site_make(&site, &f, "west");
    site.join.declared.q_k++;
    assert_err(dure_join_sign(&site.join, &site.invite, &site.own, NULL), DURE_ERR_POLICY);
}

static void test_roster_keeps_a_revoked_site_out(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_roster *roster = roster_of(&f, three, 3);
    revoke(roster, &f, "south");
    fixture_site site;
    fixture_site_make(&site, &f, "south");
    assert_null(dure_roster_by_sign(roster, site.own.public_));
    assert_err(dure_roster_add(roster, &site.join, FIXTURE_JOINED, NULL), DURE_ERR_POLICY);
    dure_roster_free(&roster);
}

static void test_roster_refuses_a_revocation_by_anyone_but_the_root(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_roster *roster = roster_of(&f, three, 3);
    dure_revocation r = {.revoked_s = FIXTURE_JOINED};
    const dure_roster_member *m = dure_roster_by_name(roster, "south");
    memcpy(r.invite_public, m->join.invitation.invite_public, 32);
    assert_ok(dure_revocation_sign(&r, &f.coordinator_sign));
    assert_err(dure_roster_revoke(roster, &r, NULL), DURE_ERR_AUTH);
    assert_int_equal(dure_roster_in_force(roster), 3);
    dure_roster_free(&roster);
}

static void test_roster_notices_a_fork(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    const char *const forked[] = {"north", "west", "south"};
    dure_roster *a = roster_of(&f, three, 3), *b = roster_of(&f, forked, 3);
    dure_roster *prefix = roster_of(&f, three, 1);
    const dure_hash head_a = dure_roster_head(a), head_1 = dure_roster_head(prefix);
    assert_ok(dure_roster_extends(a, 1, &head_1, NULL));
    assert_ok(dure_roster_extends(b, 1, &head_1, NULL));
    assert_ok(dure_roster_extends(a, 3, &head_a, NULL));
    assert_err(dure_roster_extends(b, 3, &head_a, NULL), DURE_ERR_AUTH);
    assert_err(dure_roster_extends(prefix, 3, &head_a, NULL), DURE_ERR_AUTH);
    dure_roster_free(&a);
    dure_roster_free(&b);
    dure_roster_free(&prefix);
}

static void test_roster_refuses_a_changed_byte_anywhere(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_roster *roster = roster_of(&f, three, 1), *back;
    dure_buf bytes;
    dure_buf_init(&bytes, DURE_ROSTER_MAX_BYTES);
    assert_ok(dure_roster_encode(&bytes, roster));
    const dure_hash head = dure_roster_head(roster);
    for (size_t i = 0; i < bytes.n; i++) {
        bytes.data[i] ^= 1;
        dure_err err = dure_roster_parse(&back, f.root.public_, dure_buf_span(&bytes), NULL);
        /* The time of joining is the coordinator's word: it is bound by the chain alone. */
        if (!err) {
            assert_err(dure_roster_extends(back, 1, &head, NULL), DURE_ERR_AUTH);
            dure_roster_free(&back);
        }
        bytes.data[i] ^= 1;
    }
    dure_buf_fini(&bytes);
    dure_roster_free(&roster);
}

/* A round and an entry of the log hold a hundred sites: nobody in force is ever left out. */
static void test_roster_lists_all_in_force_and_takes_no_more_than_a_round_holds(void **state)
{
    (void)state;
    static dure_site_key sites[DURE_MEMBERS_MAX];
    fixture f;
    fixture_site site;
    dure_roster *roster;
    dure_diag diag = {0};
    char name[16];
    fixture_make(&f);
    assert_ok(dure_roster_new(&roster, f.root.public_));
    for (int i = DURE_MEMBERS_MAX; i > 0; i--) {
        snprintf(name, sizeof name, "site%03d", i);
        fixture_site_make(&site, &f, name);
        assert_ok(dure_roster_add(roster, &site.join, FIXTURE_JOINED, NULL));
    }
    fixture_site_make(&site, &f, "one-more");
    assert_err(dure_roster_add(roster, &site.join, FIXTURE_JOINED, &diag), DURE_ERR_LIMIT);
    assert_non_null(strstr(diag.text, "revoke one"));
    assert_int_equal(dure_roster_sites(sites, roster), DURE_MEMBERS_MAX);
    assert_string_equal(sites[0].name, "site001");
    assert_string_equal(sites[99].name, "site100");
    revoke(roster, &f, "site050");
    assert_int_equal(dure_roster_sites(sites, roster), DURE_MEMBERS_MAX - 1);
    assert_string_equal(sites[49].name, "site051");
    assert_ok(dure_roster_add(roster, &site.join, FIXTURE_JOINED, NULL));
    dure_roster_free(&roster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roster_round_trips_and_keeps_its_head),
        cmocka_unit_test(test_roster_finds_members_by_their_signing_key),
        cmocka_unit_test(test_roster_refuses_an_invitation_used_twice),
        cmocka_unit_test(test_roster_refuses_an_expired_invitation),
        cmocka_unit_test(test_roster_refuses_a_site_of_another_federation),
        cmocka_unit_test(test_roster_refuses_altered_declarations),
        cmocka_unit_test(test_a_join_declares_a_rate_and_noise_that_can_be),
        cmocka_unit_test(test_roster_refuses_another_base_model),
        cmocka_unit_test(test_roster_join_needs_a_rate_that_is_batch_over_records),
        cmocka_unit_test(test_roster_keeps_a_revoked_site_out),
        cmocka_unit_test(test_roster_refuses_a_revocation_by_anyone_but_the_root),
        cmocka_unit_test(test_roster_notices_a_fork),
        cmocka_unit_test(test_roster_refuses_a_changed_byte_anywhere),
        cmocka_unit_test(test_roster_lists_all_in_force_and_takes_no_more_than_a_round_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
