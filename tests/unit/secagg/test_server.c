/* What lying sites do to the sum, and what the server ever gets to see. */
#include "secagg/server_int.h"
#include "support/check.h"
#include "world.h"

#include <stdlib.h>
#include <string.h>

#define WRITABLE(type, pointer) ((type *)(uintptr_t)(pointer))

static bool was_blamed(const world *w, uint32_t member)
{
    for (uint32_t i = 0; i < w->n_blamed; i++) {
        if (w->blamed[i] == member) return true;
    }
    return false;
}

static void assert_sum_over(const world *w, uint64_t u3_bits)
{
    dure_members u3 = {{u3_bits, 0}};
    dure_members got = dure_secagg_server_set(w->server, 3);
    uint32_t plain[WORLD_WORDS];
    if (!w->summed) fail_msg("no sum: %s", w->last_error);
    assert_true(dure_members_equal(&got, &u3));
    world_plain_sum(plain, w, &u3);
    assert_memory_equal(w->sum, plain, sizeof plain);
}

static void sign_r4(world *w, uint32_t member, dure_msg_unmask *r4)
{
    dure_hash t3, digest;
    memcpy(t3.b, r4->t3, sizeof t3.b);
    dure_secagg_who who = {&w->config_hash, member};
    assert_ok(dure_secagg_digest_r4(&digest, who, &t3, r4->entries, r4->n_entries));
    assert_ok(
        dure_sign(r4->signature, &w->keys[member], DURE_SECAGG_LABEL_R4, dure_hash_span(&digest)));
}

static bool wrong_shares_of_1(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (to_server && member == 1 && msg->type == DURE_MSG_UNMASK) {
        for (size_t i = 0; i < msg->u.unmask.n_entries; i++) {
            WRITABLE(dure_revealed, msg->u.unmask.entries)[i].share[43] ^= 1;
        }
        sign_r4(w, 1, &msg->u.unmask);
    }
    return true;
}

static void test_server_names_the_sender_of_wrong_shares(void **state)
{
    (void)state;
    world *w = world_new(5, 2);
    w->hook = wrong_shares_of_1;
    world_run(w);
    assert_true(was_blamed(w, 1));
    assert_int_equal(w->n_blamed, 1);
    assert_sum_over(w, 0x1f); /* its vector was honest and stays in the sum */
    world_free(&w);
}

static bool wrong_mask_shares_of_1(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (to_server && member == 1 && msg->type == DURE_MSG_UNMASK) {
        for (size_t i = 0; i < msg->u.unmask.n_entries; i++) {
            dure_revealed *r = &WRITABLE(dure_revealed, msg->u.unmask.entries)[i];
            if (r->kind == DURE_SHARE_MASK) r->share[43] ^= 1;
        }
        sign_r4(w, 1, &msg->u.unmask);
    }
    return true;
}

static void test_server_recovers_dropped_masks_despite_wrong_shares(void **state)
{
    (void)state;
    world *w = world_new(7, 2);
    w->dies[6] = WORLD_R2;
    w->hook = wrong_mask_shares_of_1;
    world_run(w);
    assert_true(was_blamed(w, 1));
    assert_sum_over(w, 0x3f);
    world_free(&w);
}

static void test_server_fails_cleanly_when_too_few_shares_are_right(void **state)
{
    (void)state;
    world *w = world_new(3, 2); /* t = 3 of 3 */
    w->hook = wrong_shares_of_1;
    world_run(w);
    assert_true(w->failed);
    assert_false(w->summed);
    assert_string_equal(w->ended,
                        "too many of the 3 shares of site-0000 that were revealed are wrong");
    world_free(&w);
}

static void test_server_says_whose_shares_are_too_few(void **state)
{
    (void)state;
    world *w = world_new(3, 2);
    w->dies[2] = WORLD_R4;
    world_run(w);
    assert_true(w->failed);
    assert_string_equal(w->ended,
                        "only 2 holders of the shares of site-0000 are left; the round needs 3");
    world_free(&w);
}

/* Site 1 wraps what it encapsulated for its masks so that it does not open; then it drops out, as
 * its own machine finds other shares in A2 than it made. */
static bool wrap_nothing(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (to_server && member == 1 && msg->type == DURE_MSG_SHARES) {
        dure_msg_shares *r1 = &msg->u.shares;
        dure_hash digest;
        WRITABLE(uint8_t, r1->wrapped.data)[r1->wrapped.n - 1] ^= 1;
        assert_ok(dure_secagg_digest_r1(&digest, &w->server->t1, 1, r1));
        assert_ok(
            dure_sign(r1->signature, &w->keys[1], DURE_SECAGG_LABEL_R1, dure_hash_span(&digest)));
    }
    return true;
}

/* Only the hybrid suite wraps (secagg.server_hybrid). */
static void test_server_names_who_wrapped_what_does_not_open(void **state)
{
    (void)state;
    world *w = world_new(5, 2);
    if (!dure_suite_is_hybrid(&w->config)) {
        world_free(&w);
        skip();
    }
    w->hook = wrap_nothing;
    world_run(w);
    assert_true(w->failed);
    assert_int_equal(w->n_blamed, 1);
    assert_int_equal(w->blamed[0], 1);
    assert_string_equal(w->ended, "the masks of site-0001, which dropped out, cannot be removed");
    world_free(&w);
}

static bool other_vector(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    if (to_server && member == 1 && msg->type == DURE_MSG_MASKED) {
        msg->u.masked.root[0] ^= 1; /* signed one vector, uploaded another */
    }
    return true;
}

static void test_server_drops_a_vector_that_was_not_signed(void **state)
{
    (void)state;
    world *w = world_new(5, 2);
    w->hook = other_vector;
    world_run(w);
    assert_true(was_blamed(w, 1));
    assert_sum_over(w, 0x1d);
    world_free(&w);
}

static bool bad_signature(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    if (to_server && member == 2 && msg->type == DURE_MSG_SHARES) msg->u.shares.signature[7] ^= 1;
    return true;
}

static void test_server_drops_a_site_whose_signature_fails(void **state)
{
    (void)state;
    world *w = world_new(5, 2);
    w->hook = bad_signature;
    world_run(w);
    assert_true(was_blamed(w, 2));
    assert_sum_over(w, 0x1b);
    world_free(&w);
}

static bool shares_for_few(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (to_server && member == 2 && msg->type == DURE_MSG_SHARES) {
        dure_msg_shares *r1 = &msg->u.shares;
        dure_hash digest;
        r1->n_entries--;
        assert_ok(dure_secagg_digest_r1(&digest, &w->server->t1, 2, r1));
        assert_ok(
            dure_sign(r1->signature, &w->keys[2], DURE_SECAGG_LABEL_R1, dure_hash_span(&digest)));
    }
    return true;
}

static void test_server_drops_a_site_that_leaves_one_out(void **state)
{
    (void)state;
    world *w = world_new(5, 2);
    w->hook = shares_for_few;
    world_run(w);
    assert_true(was_blamed(w, 2));
    assert_sum_over(w, 0x1b);
    world_free(&w);
}

static dure_msg *first_r4;
static dure_revealed altered[WORLD_MAX];

/* Site 0 unmasks, then sends another R4 with a share changed. */
static bool two_r4(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (!to_server || member != 0 || msg->type != DURE_MSG_UNMASK || first_r4) return true;
    first_r4 = msg;
    dure_msg again = *msg;
    memcpy(altered, msg->u.unmask.entries, msg->u.unmask.n_entries * sizeof altered[0]);
    altered[0].share[43] ^= 1;
    again.u.unmask.entries = altered;
    sign_r4(w, 0, &again.u.unmask);
    /* It must come before the others' R4s, or the sum is done without it. */
    dure_secagg_actions actions = {0};
    assert_ok(dure_secagg_server_step(&actions, w->server, 0, msg, NULL, NULL));
    assert_ok(dure_secagg_server_step(&actions, w->server, 0, msg, NULL, NULL)); /* a repeat */
    assert_err(dure_secagg_server_step(&actions, w->server, 0, &again, NULL, NULL), DURE_ERR_PROTO);
    assert_int_equal(actions.n, 1);
    assert_int_equal(actions.items[0].kind, DURE_SECAGG_BLAME);
    dure_secagg_actions_fini(&actions);
    return false;
}

static void test_server_refuses_a_second_r4(void **state)
{
    (void)state;
    world *w = world_new(5, 2);
    w->hook = two_r4;
    first_r4 = NULL;
    world_run(w);
    assert_non_null(first_r4);
    assert_sum_over(w, 0x1f); /* four others are enough */
    world_free(&w);
}

static bool wrong_kind(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (to_server && member == 3 && msg->type == DURE_MSG_UNMASK) {
        WRITABLE(dure_revealed, msg->u.unmask.entries)[0].kind = DURE_SHARE_MASK;
        sign_r4(w, 3, &msg->u.unmask);
    }
    return true;
}

static void test_server_refuses_shares_of_the_wrong_kind(void **state)
{
    (void)state;
    world *w = world_new(5, 2);
    w->hook = wrong_kind;
    world_run(w);
    assert_true(was_blamed(w, 3));
    assert_sum_over(w, 0x1f);
    world_free(&w);
}

static void test_server_goes_on_without_a_site_that_aborts(void **state)
{
    (void)state;
    world *w = world_new(5, 2);
    world_start(w);
    dure_secagg_actions actions = {0};
    assert_ok(dure_secagg_client_abort(&actions, w->clients[4], DURE_ABORT_BUDGET, "spent"));
    world_client_actions(w, 4, &actions);
    world_run(w);
    assert_sum_over(w, 0xf);
    assert_int_equal(w->n_blamed, 0);
    world_free(&w);
}

static void test_server_ignores_strangers_and_other_rounds(void **state)
{
    (void)state;
    world *w = world_new(3, 2);
    dure_secagg_actions actions = {0};
    dure_msg msg = {.type = DURE_MSG_ADVERTISE};
    assert_err(dure_secagg_server_step(&actions, w->server, 0, &msg, NULL, NULL), DURE_ERR_STATE);
    memcpy(msg.u.advertise.config_hash, w->config_hash.b, DURE_DIGEST_BYTES);
    assert_err(dure_secagg_server_step(&actions, w->server, 3, &msg, NULL, NULL), DURE_ERR_STATE);
    assert_int_equal(actions.n, 0);
    dure_secagg_actions_fini(&actions);
    world_free(&w);
}

/* ---- the vector ---- */

static void test_vector_of_the_wrong_length_is_refused(void **state)
{
    (void)state;
    world *w = world_new(3, 2);
    static uint8_t bytes[4 * 32 * 3];
    dure_vector_tree tree = {0};
    assert_err(dure_vector_tree_add(&tree, &w->config, (dure_span){bytes, 95}), DURE_ERR_PROTO);
    assert_err(dure_vector_tree_add(&tree, &w->config, (dure_span){bytes, 99}), DURE_ERR_PROTO);
    dure_hash root;
    for (int i = 0; i < 3; i++) {
        assert_ok(dure_vector_tree_add(&tree, &w->config, (dure_span){bytes, 96}));
        assert_err(dure_vector_tree_root(&root, &tree, &w->config), DURE_ERR_STATE);
    }
    assert_err(dure_vector_tree_add(&tree, &w->config, (dure_span){bytes, 96}), DURE_ERR_PROTO);
    assert_ok(dure_vector_tree_add(&tree, &w->config, (dure_span){bytes, 12}));
    assert_err(dure_vector_tree_add(&tree, &w->config, (dure_span){bytes, 12}), DURE_ERR_PROTO);
    assert_ok(dure_vector_tree_root(&root, &tree, &w->config));
    world_free(&w);
}

static bool hold_uploads(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w, (void)member;
    return !(to_server && msg->type == DURE_MSG_SHARES);
}

static void test_client_refuses_an_update_of_the_wrong_shape(void **state)
{
    (void)state;
    world *w = world_new(3, 2);
    w->hook = hold_uploads;
    world_start(w);
    world_deliver(w);
    dure_secagg_client *c = w->clients[0];
    dure_secagg_actions actions = {0};
    /* Too early: A2 has not come. */
    assert_err(dure_secagg_client_update(&actions, c, w->units[0], WORLD_WORDS, NULL),
               DURE_ERR_STATE);
    world_free(&w);
    w = world_new(3, 2);
    w->hold_masks = true;
    world_start(w);
    world_deliver(w);
    c = w->clients[0];
    assert_err(dure_secagg_client_update(&actions, c, w->units[0], WORLD_WORDS - 1, NULL),
               DURE_ERR_USAGE);
    w->units[0][99] = (int32_t)w->config.q_max + 1;
    assert_err(dure_secagg_client_update(&actions, c, w->units[0], WORLD_WORDS, NULL),
               DURE_ERR_USAGE);
    w->units[0][99] = INT32_MIN;
    assert_err(dure_secagg_client_update(&actions, c, w->units[0], WORLD_WORDS, NULL),
               DURE_ERR_USAGE);
    assert_int_equal(actions.n, 0);
    w->units[0][99] = -(int32_t)w->config.q_max;
    assert_ok(dure_secagg_client_update(&actions, c, w->units[0], WORLD_WORDS, NULL));
    /* The round has had its one vector. */
    assert_err(dure_secagg_client_update(&actions, c, w->units[0], WORLD_WORDS, NULL),
               DURE_ERR_STATE);
    world_free(&w);
    dure_secagg_actions_fini(&actions);
}

/* ---- what the server sees ---- */

static void pack(uint8_t *bytes, const world *w, uint32_t u)
{
    uint32_t words[WORLD_WORDS];
    for (size_t j = 0; j < WORLD_WORDS; j++) {
        words[j] = dure_mask_word(w->units[u][j], w->config.word_bits);
    }
    dure_mask_pack(bytes, words, WORLD_WORDS, w->config.word_bits);
}

/* True when any 8 words in a row of `plain` occur in `bytes` at any offset. */
static bool contains_plain(dure_span bytes, const uint8_t *plain)
{
    for (size_t at = 0; at + 24 <= WORLD_WORDS * 3; at += 3) {
        if (memmem(bytes.data, bytes.n, plain + at, 24)) return true;
    }
    return false;
}

/* As a cheating coordinator: takes all masks that it recovered off one site's vector alone. */
static void unmask_alone(uint8_t *bytes, world *w, uint32_t u)
{
    uint32_t words[WORLD_WORDS] = {0};
    dure_mask_add_packed(words, w->spool[u], WORLD_WORDS, w->config.word_bits);
    for (uint32_t c = 0; c < dure_config_chunks(&w->config); c++) {
        uint32_t *part = words + c * w->config.chunk_words;
        assert_ok(dure_masks_apply(part, dure_secagg_server_unmasker(w->server), c));
    }
    dure_mask_pack(bytes, words, WORLD_WORDS, w->config.word_bits);
}

/* Everything that reaches the coordinator or that it computes: frames, records, spools, partial
 * sums, and single vectors under the recovered masks. */
static void inspect(world *w)
{
    uint8_t plain[WORLD_WORDS * 3], seen[WORLD_WORDS * 3];
    uint32_t sum[WORLD_WORDS];
    dure_members u3 = dure_secagg_server_set(w->server, 3);
    for (uint32_t u = 0; u < w->n; u++) {
        pack(plain, w, u);
        assert_true(contains_plain((dure_span){plain, sizeof plain}, plain)); /* the probe works */
        for (size_t i = 0; i < w->n_letters; i++) {
            assert_false(contains_plain(dure_buf_span(&w->letters[i].frame), plain));
        }
        for (size_t i = 0; i < 4; i++) {
            assert_false(contains_plain(dure_buf_span(&w->records[i]), plain));
        }
        memset(sum, 0, sizeof sum);
        for (uint32_t v = 0; v < w->n; v++) {
            assert_false(contains_plain((dure_span){w->spool[v], WORLD_WORDS * 3}, plain));
            if (!dure_members_has(&u3, v)) continue;
            dure_vector_add_packed(sum, (dure_span){w->spool[v], WORLD_WORDS * 3}, &w->config);
            dure_mask_pack(seen, sum, WORLD_WORDS, w->config.word_bits);
            assert_false(contains_plain((dure_span){seen, sizeof seen}, plain));
            unmask_alone(seen, w, v);
            assert_false(contains_plain((dure_span){seen, sizeof seen}, plain));
        }
        dure_mask_pack(seen, w->sum, WORLD_WORDS, w->config.word_bits);
        assert_false(contains_plain((dure_span){seen, sizeof seen}, plain));
    }
}

static void test_server_never_holds_a_single_plain_vector(void **state)
{
    (void)state;
    for (int dies = WORLD_NEVER; dies <= WORLD_R4; dies++) {
        world *w = world_new(5, 77);
        w->dies[2] = (world_step)dies;
        world_run(w);
        assert_true(w->summed);
        inspect(w);
        world_free(&w);
    }
}

/* The masks that come off are those of the survivors' own and of dropped pairs: nothing of a
 * dropped site's own mask, so a vector that arrives after A3 stays masked. */
static void test_server_cannot_unmask_a_late_vector(void **state)
{
    (void)state;
    world *w = world_new(5, 78);
    w->dies[2] = WORLD_R2; /* its chunks were spooled, its final frame never came */
    world_run(w);
    assert_true(w->summed);
    uint8_t plain[WORLD_WORDS * 3], seen[WORLD_WORDS * 3];
    pack(plain, w, 2);
    dure_span late = dure_secagg_client_vector(w->clients[2]);
    assert_int_equal(late.n, sizeof seen);
    memcpy(w->spool[2], late.data, late.n);
    unmask_alone(seen, w, 2);
    assert_false(contains_plain((dure_span){seen, sizeof seen}, plain));
    world_free(&w);
}

int main(void)
{
    if (world_lacks_suite()) return WORLD_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server_names_the_sender_of_wrong_shares),
        cmocka_unit_test(test_server_recovers_dropped_masks_despite_wrong_shares),
        cmocka_unit_test(test_server_fails_cleanly_when_too_few_shares_are_right),
        cmocka_unit_test(test_server_says_whose_shares_are_too_few),
        cmocka_unit_test(test_server_names_who_wrapped_what_does_not_open),
        cmocka_unit_test(test_server_drops_a_vector_that_was_not_signed),
        cmocka_unit_test(test_server_drops_a_site_whose_signature_fails),
        cmocka_unit_test(test_server_drops_a_site_that_leaves_one_out),
        cmocka_unit_test(test_server_refuses_a_second_r4),
        cmocka_unit_test(test_server_refuses_shares_of_the_wrong_kind),
        cmocka_unit_test(test_server_goes_on_without_a_site_that_aborts),
        cmocka_unit_test(test_server_ignores_strangers_and_other_rounds),
        cmocka_unit_test(test_vector_of_the_wrong_length_is_refused),
        cmocka_unit_test(test_client_refuses_an_update_of_the_wrong_shape),
        cmocka_unit_test(test_server_never_holds_a_single_plain_vector),
        cmocka_unit_test(test_server_cannot_unmask_a_late_vector),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
