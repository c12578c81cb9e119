#include "federation/round_config.h"
#include "fixture.h"
#include "support/check.h"

#include <stdlib.h>
#include <string.h>

typedef struct round_fixture {
    fixture f;
    dure_roster *roster;
    dure_config *config;
    uint8_t sign[3][32];
    dure_round_facts facts;
} round_fixture;

static void setup(round_fixture *r, bool shared)
{
    /* Out of order on purpose: the configuration sorts by name. */
    static const char *const names[] = {"west", "north", "south"};
    *r = (round_fixture){.facts = {.run_id = 1, .round = 4, .checkpoint_size = 3}};
    fixture_make(&r->f);
    if (shared) fixture_share_noise(&r->f);
    assert_ok(dure_roster_new(&r->roster, r->f.root.public_));
    for (size_t i = 0; i < 3; i++) {
        fixture_site site;
        fixture_site_make(&site, &r->f, names[i]);
        assert_ok(dure_roster_add(r->roster, &site.join, FIXTURE_JOINED, NULL));
        memcpy(r->sign[i], site.own.public_, 32);
    }
    r->config = calloc(1, sizeof *r->config);
    assert_non_null(r->config);
    dure_diag diag = {0};
    if (dure_round_config_make(r->config, &r->f.terms, r->roster, &r->facts,
                               (const uint8_t(*)[32])r->sign, 3, &diag))
        fail_msg("%s", diag.text);
}

static void round_setup(round_fixture *r)
{
    setup(r, false);
}

static void round_teardown(round_fixture *r)
{
    dure_roster_free(&r->roster);
    free(r->config);
}

static void test_round_config_makes_what_verifies(void **state)
{
    (void)state;
    round_fixture r;
    round_setup(&r);
    dure_diag diag = {0};
    if (dure_round_config_verify(r.config, &r.f.terms, r.roster, &diag)) fail_msg("%s", diag.text);
    assert_string_equal(r.config->members[0].name, "north");
    assert_string_equal(r.config->members[2].name, "west");
    assert_int_equal(r.config->threshold, 3);
    round_teardown(&r);
}

static void test_round_config_signature_covers_every_field(void **state)
{
    (void)state;
    round_fixture r;
    round_setup(&r);
    dure_buf bytes;
    dure_hash h, other;
    uint8_t signature[64];
    dure_buf_init(&bytes, DURE_CONFIG_BYTES_MAX);
    assert_ok(dure_config_encode(&bytes, r.config, NULL));
    assert_ok(dure_round_config_hash(&h, dure_buf_span(&bytes)));
    assert_ok(dure_round_config_sign(signature, &h, &r.f.coordinator_sign));
    const uint8_t *key = r.f.coordinator_sign.public_;
    assert_ok(dure_round_config_verify_signature(&h, signature, key, NULL));
    bytes.data[bytes.n - 1] ^= 1;
    assert_ok(dure_round_config_hash(&other, dure_buf_span(&bytes)));
    assert_err(dure_round_config_verify_signature(&other, signature, key, NULL), DURE_ERR_AUTH);
    dure_buf_fini(&bytes);
    round_teardown(&r);
}

static void assert_altered(const round_fixture *r, const char *names)
{
    dure_diag diag = {0};
    assert_int_not_equal(dure_round_config_verify(r->config, &r->f.terms, r->roster, &diag),
                         DURE_OK);
    if (!strstr(diag.text, names)) fail_msg("\"%s\" does not name %s", diag.text, names);
}

static void test_round_config_names_what_was_altered(void **state)
{
    (void)state;
    round_fixture r;
    round_setup(&r);
    const dure_config good = *r.config;
    r.config->clip = 2;
    assert_altered(&r, "privacy plan");
    *r.config = good;
    r.config->learning_rate *= 2;
    assert_altered(&r, "training");
    *r.config = good;
    r.config->base_digest[0] ^= 1;
    assert_altered(&r, "base model");
    *r.config = good;
    r.config->members[1].sigma_num -= 1;
    assert_altered(&r, "declared");
    *r.config = good;
    r.config->members[1].sign_public[0] ^= 1;
    assert_altered(&r, "member in force");
    *r.config = good;
    r.config->roster_hash[0] ^= 1;
    assert_altered(&r, "roster");
    *r.config = good;
    r.config->federation_id[5] ^= 1;
    assert_altered(&r, "federation");
    round_teardown(&r);
}

/* Where noise is shared every figure that it rests on is the root's: fewer sites in a sum, more
 * that may collude, less noise for all or for one, a coarser grid, and a shorter way to go on. */
static void test_round_config_cannot_weaken_shared_noise(void **state)
{
    (void)state;
    round_fixture r;
    setup(&r, true);
    assert_ok(dure_round_config_verify(r.config, &r.f.terms, r.roster, NULL));
    assert_int_equal(r.config->privacy_mode, DURE_PRIVACY_CLIENT);
    const dure_config good = *r.config;
    r.f.terms.cohort.u_min = 4; /* that is, the coordinator opens with one less */
    assert_altered(&r, "cohort rules");
    r.f.terms.cohort.u_min = 3;
    r.config->collusion = 0;
    assert_altered(&r, "cohort rules");
    *r.config = good;
    r.config->members[1].sigma_num--;
    assert_altered(&r, "not the same for all members");
    *r.config = good;
    for (size_t i = 0; i < 3; i++)
        r.config->members[i].sigma_num--;
    assert_altered(&r, "declared");
    *r.config = good;
    r.config->grid_bits++;
    assert_altered(&r, "privacy plan");
    *r.config = good;
    r.config->range *= 2;
    assert_altered(&r, "integer grid");
    *r.config = good;
    r.config->privacy_mode = DURE_PRIVACY_RECORD;
    assert_altered(&r, "privacy plan");
    *r.config = good;
    r.config->rounds++;
    assert_altered(&r, "privacy plan");
    round_teardown(&r);
}

/* The coordinator writes the configuration, so each figure of a plan is held to what was signed. */
static void test_round_config_cannot_alter_what_a_plan_is_made_of(void **state)
{
    (void)state;
    round_fixture r;
    round_setup(&r);
    const dure_config good = *r.config;
#define ALTERS(change, words)                                                                      \
    do {                                                                                           \
        dure_diag diag = {0};                                                                      \
        *r.config = good;                                                                          \
        change;                                                                                    \
        if (dure_config_check(r.config, &diag)) fail_msg("%s: %s", #change, diag.text);            \
        assert_altered(&r, words);                                                                 \
    } while (0)
    ALTERS(r.config->local_steps++, "privacy plan");
    ALTERS(r.config->rounds++, "privacy plan");
    ALTERS(r.config->clip *= 2, "privacy plan");
    ALTERS(r.config->grid_bits++, "privacy plan");
    ALTERS(r.config->members[1].n_pub *= 2, "declared");
    ALTERS(r.config->members[1].q_k *= 2, "declared");
    ALTERS(r.config->members[1].batch *= 2, "declared");
    ALTERS(r.config->members[1].sigma_den *= 2, "declared");
#undef ALTERS
    *r.config = good;
    r.f.terms.cohort.min_sites = 4; /* that is, it opens with one less */
    assert_altered(&r, "number of sites");
    round_teardown(&r);
}

/* All sites count on one share: nobody joins with another. */
static void test_a_join_declares_the_share_of_the_terms(void **state)
{
    (void)state;
    fixture f;
    fixture_site site;
    dure_diag diag = {0};
    fixture_make(&f);
    fixture_share_noise(&f);
    fixture_site_make(&site, &f, "west");
    assert_ok(dure_join_verify(&site.join, f.root.public_, NULL));
    site.join.declared.sigma_num++;
    assert_err(dure_join_sign(&site.join, &site.invite, &site.own, &diag), DURE_ERR_POLICY);
    assert_non_null(strstr(diag.text, "all share the same"));
}

/* The root signs the suite: nobody else lowers or raises it. */
static void test_round_config_has_the_suite_of_the_terms(void **state)
{
    (void)state;
    round_fixture r;
    round_setup(&r);
    assert_int_equal(r.config->suite, DURE_SUITE_X25519_AES256CTR);
    r.config->suite = DURE_SUITE_HYBRID_AES256CTR;
    assert_altered(&r, "suite");
    r.f.terms.cohort.post_quantum = true;
    assert_ok(dure_round_config_verify(r.config, &r.f.terms, r.roster, NULL));
    r.config->suite = DURE_SUITE_X25519_AES256CTR;
    assert_altered(&r, "suite");
    round_teardown(&r);
}

static void test_round_config_needs_enough_sites_in_force(void **state)
{
    (void)state;
    round_fixture r;
    round_setup(&r);
    const uint8_t(*sign)[32] = (const uint8_t(*)[32])r.sign;
    assert_err(dure_round_config_make(r.config, &r.f.terms, r.roster, &r.facts, sign, 2, NULL),
               DURE_ERR_STATE);
    dure_revocation revocation = {.revoked_s = FIXTURE_JOINED};
    const dure_roster_member *m = dure_roster_by_name(r.roster, "south");
    memcpy(revocation.invite_public, m->join.invitation.invite_public, 32);
    assert_ok(dure_revocation_sign(&revocation, &r.f.root));
    assert_ok(dure_roster_revoke(r.roster, &revocation, NULL));
    assert_err(dure_round_config_make(r.config, &r.f.terms, r.roster, &r.facts, sign, 3, NULL),
               DURE_ERR_STATE);
    round_teardown(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_config_makes_what_verifies),
        cmocka_unit_test(test_round_config_signature_covers_every_field),
        cmocka_unit_test(test_round_config_names_what_was_altered),
        cmocka_unit_test(test_round_config_cannot_weaken_shared_noise),
        cmocka_unit_test(test_round_config_cannot_alter_what_a_plan_is_made_of),
        cmocka_unit_test(test_a_join_declares_the_share_of_the_terms),
        cmocka_unit_test(test_round_config_has_the_suite_of_the_terms),
        cmocka_unit_test(test_round_config_needs_enough_sites_in_force),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
