/* What a lying coordinator or a lying site tries, and what the honest sites do about it. */
#include "crypto/wipe.h"
#include "secagg/client_int.h"
#include "support/check.h"
#include "world.h"

#include <string.h>

/* Decoded messages are the tests' own memory: hooks may write through their const pointers. */
#define WRITABLE(type, pointer) ((type *)(uintptr_t)(pointer))

static uint32_t revealed[WORLD_MAX][WORLD_MAX]; /* [by][about]: bits of dure_share_kind */
static uint32_t r3_seen[WORLD_MAX], r4_seen[WORLD_MAX], aborts_seen[WORLD_MAX];

/* Counts what every site gave out; called for each message before it is changed. */
static void observe(bool to_server, uint32_t member, const dure_msg *msg)
{
    if (!to_server) return;
    r3_seen[member] += msg->type == DURE_MSG_CONSISTENCY;
    r4_seen[member] += msg->type == DURE_MSG_UNMASK;
    aborts_seen[member] += msg->type == DURE_MSG_ABORT;
    if (msg->type != DURE_MSG_UNMASK) return;
    for (size_t i = 0; i < msg->u.unmask.n_entries; i++) {
        const dure_revealed *r = &msg->u.unmask.entries[i];
        revealed[member][r->member] |= 1u << r->kind;
    }
}

static int setup(void **state)
{
    (void)state;
    memset(revealed, 0, sizeof revealed);
    memset(r3_seen, 0, sizeof r3_seen);
    memset(r4_seen, 0, sizeof r4_seen);
    memset(aborts_seen, 0, sizeof aborts_seen);
    return 0;
}

static void assert_never_both(void)
{
    for (size_t u = 0; u < WORLD_MAX; u++) {
        for (size_t v = 0; v < WORLD_MAX; v++) {
            uint32_t both = 1u << DURE_SHARE_SELF | 1u << DURE_SHARE_MASK;
            assert_true((revealed[u][v] & both) != both);
        }
    }
}

/* Runs five sites under `hook`; the attack is on site 0, which must refuse with `err` and reveal
 * nothing. */
static void assert_site_0_refuses(world_hook *hook, dure_err err)
{
    world *w = world_new(5, 5);
    w->hook = hook;
    world_run(w);
    if (w->client_err[0] != err) {
        fail_msg("site 0 said %s: %s", dure_err_text(w->client_err[0]), w->last_error);
    }
    assert_int_equal(r4_seen[0], 0);
    assert_int_equal(aborts_seen[0], 1);
    assert_int_equal(dure_secagg_client_stage(w->clients[0]), DURE_STAGE_IDLE);
    client_secrets zero;
    memset(&zero, 0, sizeof zero);
    assert_true(dure_ct_equal(&w->clients[0]->secrets, &zero, sizeof zero));
    world_free(&w);
}

static void sign_r0(world *w, dure_round_keys *k, uint32_t with)
{
    dure_hash digest;
    assert_ok(dure_secagg_digest_r0(&digest, (dure_secagg_who){&w->config_hash, k->member}, k));
    assert_ok(
        dure_sign(k->signature, &w->keys[with], DURE_SECAGG_LABEL_R0, dure_hash_span(&digest)));
}

/* ---- A1 ---- */

static bool replace_key(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_KEYS) {
        dure_round_keys *k = WRITABLE(dure_round_keys, &msg->u.keys.entries[1]);
        k->channel_public[0] ^= 1;
        sign_r0(w, k, 2); /* the coordinator has another member's key at best */
    }
    return true;
}

static void test_attack_replaced_key(void **state)
{
    (void)state;
    assert_site_0_refuses(replace_key, DURE_ERR_AUTH);
}

static bool change_own_entry(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_KEYS) {
        dure_round_keys *k = WRITABLE(dure_round_keys, &msg->u.keys.entries[0]);
        k->mask_public[0] ^= 1;
        sign_r0(w, k, 0); /* as an entry that the site signed before it restarted */
    }
    return true;
}

static void test_attack_own_entry_changed(void **state)
{
    (void)state;
    assert_site_0_refuses(change_own_entry, DURE_ERR_AUTH);
}

static bool two_sites_one_key(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_KEYS) {
        dure_round_keys *k = WRITABLE(dure_round_keys, msg->u.keys.entries);
        memcpy(k[2].mask_public, k[1].mask_public, DURE_KEY_BYTES);
        sign_r0(w, &k[2], 2); /* site 2 colludes */
    }
    return true;
}

static void test_attack_copied_key(void **state)
{
    (void)state;
    assert_site_0_refuses(two_sites_one_key, DURE_ERR_PROTO);
}

static bool few_keys(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_KEYS) {
        msg->u.keys.n_entries = 3;
        world_name_entries(w, msg);
    }
    return true;
}

static void test_attack_small_u1(void **state)
{
    (void)state;
    assert_site_0_refuses(few_keys, DURE_ERR_POLICY);
}

static bool without_me(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_KEYS) {
        msg->u.keys.entries++;
        msg->u.keys.n_entries--;
        world_name_entries(w, msg);
    }
    return true;
}

static void test_attack_left_out_of_u1(void **state)
{
    (void)state;
    assert_site_0_refuses(without_me, DURE_ERR_PROTO);
}

static bool second_keys(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SHARES_FOR) {
        dure_msg again = {.type = DURE_MSG_KEYS};
        memcpy(again.u.keys.config_hash, w->config_hash.b, DURE_DIGEST_BYTES);
        world_name_entries(w, &again);
        w->hook = NULL;
        world_post(w, false, 0, &again);
        w->hook = second_keys;
    }
    return true;
}

static void test_attack_second_a1(void **state)
{
    (void)state;
    assert_site_0_refuses(second_keys, DURE_ERR_PROTO);
}

/* ---- A2 ---- */

static bool alter_shares(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SHARES_FOR) {
        WRITABLE(uint8_t, msg->u.shares_for.entries[1].sealed.data)[40] ^= 1;
    }
    return true;
}

static void test_attack_altered_shares(void **state)
{
    (void)state;
    assert_site_0_refuses(alter_shares, DURE_ERR_AUTH);
}

static bool swap_shares(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SHARES_FOR) {
        dure_forwarded *e = WRITABLE(dure_forwarded, msg->u.shares_for.entries);
        dure_span sealed = e[1].sealed;
        e[1].sealed = e[2].sealed;
        e[2].sealed = sealed;
    }
    return true;
}

static void test_attack_swapped_shares(void **state)
{
    (void)state;
    assert_site_0_refuses(swap_shares, DURE_ERR_AUTH);
}

static bool alter_r1_hash(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SHARES_FOR) {
        WRITABLE(dure_forwarded, msg->u.shares_for.entries)[1].r1_hash[0] ^= 1;
    }
    return true;
}

static void test_attack_altered_r1_hash(void **state)
{
    (void)state;
    assert_site_0_refuses(alter_r1_hash, DURE_ERR_AUTH);
}

static bool few_shares(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SHARES_FOR) {
        msg->u.shares_for.n_entries = 3;
        world_name_entries(w, msg);
    }
    return true;
}

static void test_attack_small_u2(void **state)
{
    (void)state;
    assert_site_0_refuses(few_shares, DURE_ERR_POLICY);
}

/* ---- A3 ---- */

static bool few_survivors(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SURVIVORS) {
        msg->u.survivors.n_entries = 3;
        world_name_entries(w, msg);
    }
    return true;
}

static void test_attack_small_u3(void **state)
{
    (void)state;
    assert_site_0_refuses(few_survivors, DURE_ERR_POLICY);
}

static bool change_own_root(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SURVIVORS) {
        dure_survivor *s = WRITABLE(dure_survivor, &msg->u.survivors.entries[0]);
        dure_hash root, digest;
        s->root[0] ^= 1;
        memcpy(root.b, s->root, sizeof root.b);
        dure_secagg_who who = {&w->config_hash, 0};
        assert_ok(dure_secagg_digest_r2(&digest, who, &w->clients[0]->t2, &root));
        assert_ok(
            dure_sign(s->signature, &w->keys[0], DURE_SECAGG_LABEL_R2, dure_hash_span(&digest)));
    }
    return true;
}

static void test_attack_own_vector_changed(void **state)
{
    (void)state;
    assert_site_0_refuses(change_own_root, DURE_ERR_AUTH);
}

static bool forge_survivor(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SURVIVORS) {
        WRITABLE(dure_survivor, msg->u.survivors.entries)[3].root[5] ^= 1;
    }
    return true;
}

static void test_attack_forged_survivor(void **state)
{
    (void)state;
    assert_site_0_refuses(forge_survivor, DURE_ERR_AUTH);
}

static dure_survivor five[5];

/* Site 4 left before R1, so it is not in U2; it colludes and signs for the coordinator. */
static bool add_to_u3(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SURVIVORS) {
        dure_hash root = {{1}}, digest;
        memcpy(five, msg->u.survivors.entries, 4 * sizeof five[0]);
        five[4] = (dure_survivor){.member = 4, .root = {1}};
        dure_secagg_who who = {&w->config_hash, 4};
        assert_ok(dure_secagg_digest_r2(&digest, who, &w->clients[0]->t2, &root));
        assert_ok(dure_sign(five[4].signature, &w->keys[4], DURE_SECAGG_LABEL_R2,
                            dure_hash_span(&digest)));
        msg->u.survivors.entries = five;
        msg->u.survivors.n_entries = 5;
        world_name_entries(w, msg);
    }
    return true;
}

static void test_attack_u3_is_no_subset_of_u2(void **state)
{
    (void)state;
    world *w = world_new(5, 5);
    w->dies[4] = WORLD_R1;
    w->hook = add_to_u3;
    world_run(w);
    assert_int_equal(w->client_err[0], DURE_ERR_PROTO);
    assert_int_equal(r3_seen[0], 0);
    assert_int_equal(r4_seen[0], 0);
    world_free(&w);
}

static dure_msg kept_a3;
static dure_survivor kept_entries[5];

/* After R3 the coordinator shows site 0 a second set of survivors, with site 4 called dropped. */
static bool second_survivors(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SURVIVORS) {
        memcpy(kept_entries, msg->u.survivors.entries,
               msg->u.survivors.n_entries * sizeof kept_entries[0]);
        kept_a3 = *msg;
        kept_a3.u.survivors.entries = kept_entries;
        kept_a3.u.survivors.n_entries = 4;
        world_name_entries(w, &kept_a3);
    }
    if (!to_server && member == 0 && msg->type == DURE_MSG_SIGNATURES) {
        *msg = kept_a3;
    }
    return true;
}

static void test_attack_second_a3_after_r3(void **state)
{
    (void)state;
    assert_site_0_refuses(second_survivors, DURE_ERR_PROTO);
    assert_int_equal(r3_seen[0], 1);
}

static bool equivocate(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    /* Sites 0 and 1 are told that site 4 dropped, the others that it survived. */
    if (!to_server && member < 2 && msg->type == DURE_MSG_SURVIVORS) {
        msg->u.survivors.n_entries = 4;
        world_name_entries(w, msg);
    }
    return true;
}

/* With two views of U3 neither gets a quorum of signatures: nobody reveals anything. */
static void test_attack_equivocated_u3(void **state)
{
    (void)state;
    world *w = world_new(5, 5);
    w->hook = equivocate;
    world_run(w);
    assert_true(w->failed);
    assert_false(w->summed);
    for (size_t u = 0; u < 5; u++) {
        assert_int_equal(r4_seen[u], 0);
    }
    world_free(&w);
}

/* ---- A4 ---- */

static bool few_signatures(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SIGNATURES) {
        msg->u.signatures.n_entries = 3;
    }
    return true;
}

static void test_attack_no_quorum(void **state)
{
    (void)state;
    assert_site_0_refuses(few_signatures, DURE_ERR_AUTH);
}

static bool forged_signature(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SIGNATURES) {
        WRITABLE(dure_attested, msg->u.signatures.entries)[2].signature[9] ^= 1;
    }
    return true;
}

static void test_attack_forged_quorum(void **state)
{
    (void)state;
    assert_site_0_refuses(forged_signature, DURE_ERR_AUTH);
}

static bool other_t3(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SIGNATURES) {
        msg->u.signatures.t3[0] ^= 1;
        for (uint32_t u = 0; u < 4; u++) { /* everybody else colludes and signs it */
            dure_hash t3, digest;
            memcpy(t3.b, msg->u.signatures.t3, sizeof t3.b);
            dure_secagg_who who = {&w->config_hash, u};
            assert_ok(dure_secagg_digest_r3(&digest, who, &t3));
            assert_ok(dure_sign(WRITABLE(dure_attested, msg->u.signatures.entries)[u].signature,
                                &w->keys[u], DURE_SECAGG_LABEL_R3, dure_hash_span(&digest)));
        }
    }
    return true;
}

static void test_attack_quorum_on_another_t3(void **state)
{
    (void)state;
    assert_site_0_refuses(other_t3, DURE_ERR_AUTH);
}

static bool stranger_signs(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SIGNATURES) {
        dure_attested *a = WRITABLE(dure_attested, msg->u.signatures.entries);
        dure_hash digest;
        a[3].member = 4; /* dropped before R2; of U3 = {0, 1, 2, 3} one signature is missing */
        dure_secagg_who who = {&w->config_hash, 4};
        assert_ok(dure_secagg_digest_r3(&digest, who, &w->clients[0]->t3));
        assert_ok(
            dure_sign(a[3].signature, &w->keys[4], DURE_SECAGG_LABEL_R3, dure_hash_span(&digest)));
    }
    return true;
}

static void test_attack_signature_from_outside_u3(void **state)
{
    (void)state;
    world *w = world_new(5, 5);
    w->dies[4] = WORLD_R2;
    w->hook = stranger_signs;
    world_run(w);
    assert_int_equal(w->client_err[0], DURE_ERR_PROTO);
    assert_int_equal(r4_seen[0], 0);
    world_free(&w);
}

/* ---- asking again ---- */

static dure_buf stored[4];

static void store(const dure_msg *msg, size_t slot)
{
    dure_buf_init(&stored[slot], DURE_MSG_BYTES_MAX);
    assert_ok(dure_msg_encode(&stored[slot], msg, NULL));
}

static bool store_all(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    observe(to_server, member, msg);
    if (member != 0) return true;
    if (msg->type == DURE_MSG_SIGNATURES && !stored[0].n) store(msg, 0);
    if (msg->type == DURE_MSG_UNMASK && !stored[1].n) store(msg, 1);
    if (msg->type == DURE_MSG_SURVIVORS && !stored[2].n) store(msg, 2);
    if (msg->type == DURE_MSG_CONSISTENCY && !stored[3].n) store(msg, 3);
    return true;
}

static void run_and_store(world *w)
{
    memset(stored, 0, sizeof stored);
    w->hook = store_all;
    world_run(w);
    assert_true(w->summed);
}

static void forget_stored(void)
{
    for (size_t i = 0; i < 4; i++) {
        dure_buf_fini(&stored[i]);
    }
}

/* Feeds a stored frame to site 0 and returns the frame it answers with. */
static dure_err ask_again(dure_buf *reply, world *w, const dure_buf *frame, dure_msg *altered)
{
    dure_msg *msg = NULL;
    dure_secagg_actions actions = {0};
    if (frame) assert_ok(dure_msg_decode(&msg, dure_buf_span(frame), NULL));
    dure_err err =
        dure_secagg_client_step(&actions, w->clients[0], altered ? altered : msg, 2, NULL);
    dure_buf_init(reply, DURE_MSG_BYTES_MAX);
    for (size_t i = 0; i < actions.n; i++) {
        if (actions.items[i].kind == DURE_SECAGG_SEND) {
            dure_put_raw(reply, actions.items[i].bytes.data, actions.items[i].bytes.n);
        }
    }
    dure_secagg_actions_fini(&actions);
    dure_msg_free(&msg);
    return err;
}

static void test_attack_repeated_request_gets_the_same_bytes(void **state)
{
    (void)state;
    world *w = world_new(5, 5);
    run_and_store(w);
    for (size_t i = 0; i < 4; i += 2) {
        dure_buf reply;
        assert_ok(ask_again(&reply, w, &stored[i], NULL));
        assert_int_equal(reply.n, stored[i + 1].n);
        assert_memory_equal(reply.data, stored[i + 1].data, reply.n);
        dure_buf_fini(&reply);
    }
    forget_stored();
    world_free(&w);
}

/* The second request names fewer signers: valid, but not the same bytes. */
static void test_attack_second_r4_request(void **state)
{
    (void)state;
    world *w = world_new(5, 5);
    run_and_store(w);
    dure_msg *msg = NULL;
    assert_ok(dure_msg_decode(&msg, dure_buf_span(&stored[0]), NULL));
    dure_msg altered = *msg;
    altered.u.signatures.n_entries--;
    dure_buf reply;
    assert_err(ask_again(&reply, w, NULL, &altered), DURE_ERR_PROTO);
    dure_msg *answer = NULL;
    assert_ok(dure_msg_decode(&answer, dure_buf_span(&reply), NULL));
    assert_int_equal(answer->type, DURE_MSG_ABORT);
    assert_never_both();
    dure_buf_fini(&reply);
    dure_msg_free(&answer);
    dure_msg_free(&msg);
    forget_stored();
    world_free(&w);
}

/* "Both shares": site 4 is first in U3; later the coordinator calls it dropped, with signatures of
 * all the others, who collude. */
static void test_attack_both_shares_of_one_site(void **state)
{
    (void)state;
    world *w = world_new(5, 5);
    run_and_store(w);
    dure_msg *a3 = NULL;
    assert_ok(dure_msg_decode(&a3, dure_buf_span(&stored[2]), NULL));
    dure_msg altered = *a3;
    altered.u.survivors.n_entries--;
    world_name_entries(w, &altered);
    dure_buf reply;
    assert_err(ask_again(&reply, w, NULL, &altered), DURE_ERR_PROTO);
    dure_buf_fini(&reply);
    /* It has ended: nothing that follows is answered. */
    assert_err(ask_again(&reply, w, &stored[0], NULL), DURE_ERR_STATE);
    assert_int_equal(reply.n, 0);
    dure_buf_fini(&reply);
    dure_msg_free(&a3);
    assert_never_both();
    forget_stored();
    world_free(&w);
}

static void test_attack_shares_are_chosen_by_u3_alone(void **state)
{
    (void)state;
    world *w = world_new(7, 5);
    w->dies[6] = WORLD_R2;
    w->dies[5] = WORLD_R2;
    w->hook = store_all;
    memset(stored, 0, sizeof stored);
    world_run(w);
    assert_true(w->summed);
    assert_never_both();
    for (size_t u = 0; u < 5; u++) {
        for (size_t v = 0; v < 7; v++) {
            assert_int_equal(revealed[u][v], 1u << (v < 5 ? DURE_SHARE_SELF : DURE_SHARE_MASK));
        }
    }
    forget_stored();
    world_free(&w);
}

/* ---- rounds and configurations ---- */

static dure_err new_client(const world *w, dure_secagg_client_opts opts)
{
    dure_secagg_client *client = NULL;
    opts.config = &w->config;
    opts.config_hash = w->config_hash;
    if (!opts.sign) opts.sign = &w->keys[0];
    opts.coordinator_sign = w->coordinator.public_;
    opts.rng = w->clients[0]->opts.rng;
    dure_err err = dure_secagg_client_new(&client, &opts, NULL);
    dure_secagg_client_free(&client);
    return err;
}

static void test_attack_replayed_round(void **state)
{
    (void)state;
    world *w = world_new(3, 5);
    assert_ok(new_client(w, (dure_secagg_client_opts){.last_round = 4}));
    assert_err(new_client(w, (dure_secagg_client_opts){.last_round = 5}), DURE_ERR_POLICY);
    assert_err(new_client(w, (dure_secagg_client_opts){.last_round = 6}), DURE_ERR_POLICY);
    world_free(&w);
}

static void test_attack_configuration_below_the_floors(void **state)
{
    (void)state;
    world *w = world_new(5, 5); /* c = 1, t = 4, u_min = 3 */
    assert_ok(new_client(w, (dure_secagg_client_opts){.floors = {2, 4, 5}}));
    assert_err(new_client(w, (dure_secagg_client_opts){.floors = {3, 0, 0}}), DURE_ERR_POLICY);
    assert_err(new_client(w, (dure_secagg_client_opts){.floors = {0, 5, 0}}), DURE_ERR_POLICY);
    assert_err(new_client(w, (dure_secagg_client_opts){.floors = {0, 0, 6}}), DURE_ERR_POLICY);
    assert_err(new_client(w, (dure_secagg_client_opts){.sign = &w->coordinator}), DURE_ERR_POLICY);
    world_free(&w);
}

/* Five sites of three organisations, where the policy asks for four. */
static void test_attack_one_organisation_with_many_seats(void **state)
{
    (void)state;
    world *w = world_new(5, 5);
    w->config.u_min = 4;
    strcpy(w->config.members[3].organisation, "organisation-4");
    strcpy(w->config.members[2].organisation, "organisation-4");
    for (size_t i = 0; i < 5; i++) {
        w->clients[i]->least = 4;
    }
    world_run(w);
    assert_true(w->failed); /* the server sees it first */
    world_free(&w);
    w = world_new(5, 5);
    strcpy(w->config.members[3].organisation, "organisation-4");
    strcpy(w->config.members[2].organisation, "organisation-4");
    w->clients[0]->least = 4; /* this site's own policy */
    world_run(w);
    assert_int_equal(w->client_err[0], DURE_ERR_POLICY);
    world_free(&w);
}

static void test_attack_message_of_another_round(void **state)
{
    (void)state;
    world *w = world_new(3, 5);
    dure_msg msg = {.type = DURE_MSG_KEYS};
    dure_secagg_actions actions = {0};
    assert_ok(dure_secagg_client_start(&actions, w->clients[0], NULL));
    assert_err(dure_secagg_client_step(&actions, w->clients[0], &msg, 1, NULL), DURE_ERR_STATE);
    assert_int_equal(dure_secagg_client_stage(w->clients[0]), DURE_STAGE_ADVERTISED);
    dure_secagg_actions_fini(&actions);
    world_free(&w);
}

static void test_attack_forged_abort(void **state)
{
    (void)state;
    world *w = world_new(3, 5);
    dure_secagg_actions actions = {0};
    assert_ok(dure_secagg_client_start(&actions, w->clients[0], NULL));
    dure_msg msg = {.type = DURE_MSG_ABORT, .u.abort = {.code = DURE_ABORT_CHECK, .text = "x"}};
    memcpy(msg.u.abort.config_hash, w->config_hash.b, DURE_DIGEST_BYTES);
    assert_err(dure_secagg_client_step(&actions, w->clients[0], &msg, 1, NULL), DURE_ERR_STATE);
    assert_int_equal(dure_secagg_client_stage(w->clients[0]), DURE_STAGE_ADVERTISED);
    dure_secagg_actions_fini(&actions);
    world_free(&w);
}

static bool hold_a3(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    observe(to_server, member, msg);
    return msg->type != DURE_MSG_SURVIVORS;
}

static void test_attack_shares_after_their_lifetime(void **state)
{
    (void)state;
    world *w = world_new(3, 5);
    w->hook = hold_a3;
    world_start(w);
    world_deliver(w);
    assert_int_equal(dure_secagg_client_stage(w->clients[0]), DURE_STAGE_MASKED);
    dure_secagg_actions actions = {0};
    assert_ok(dure_secagg_client_tick(&actions, w->clients[0], w->config.share_lifetime_ms));
    assert_int_equal(dure_secagg_client_stage(w->clients[0]), DURE_STAGE_MASKED);
    assert_ok(dure_secagg_client_tick(&actions, w->clients[0], w->config.share_lifetime_ms + 1));
    assert_int_equal(dure_secagg_client_stage(w->clients[0]), DURE_STAGE_IDLE);
    client_secrets zero;
    memset(&zero, 0, sizeof zero);
    assert_true(dure_ct_equal(&w->clients[0]->secrets, &zero, sizeof zero));
    assert_int_equal(dure_secagg_client_vector(w->clients[0]).n, 0);
    dure_secagg_actions_fini(&actions);
    world_free(&w);
}

static void test_attack_on_a_site_that_has_finished_finds_no_secret(void **state)
{
    (void)state;
    world *w = world_new(3, 5);
    world_run(w);
    assert_true(w->summed);
    client_secrets zero;
    memset(&zero, 0, sizeof zero);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(dure_secagg_client_stage(w->clients[i]), DURE_STAGE_UNMASKED);
        assert_true(dure_ct_equal(&w->clients[i]->secrets, &zero, sizeof zero));
        assert_int_equal(dure_secagg_client_vector(w->clients[i]).n, 0);
    }
    world_free(&w);
}

int main(void)
{
    if (world_lacks_suite()) return WORLD_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_attack_replaced_key, setup),
        cmocka_unit_test_setup(test_attack_own_entry_changed, setup),
        cmocka_unit_test_setup(test_attack_copied_key, setup),
        cmocka_unit_test_setup(test_attack_small_u1, setup),
        cmocka_unit_test_setup(test_attack_left_out_of_u1, setup),
        cmocka_unit_test_setup(test_attack_second_a1, setup),
        cmocka_unit_test_setup(test_attack_altered_shares, setup),
        cmocka_unit_test_setup(test_attack_swapped_shares, setup),
        cmocka_unit_test_setup(test_attack_altered_r1_hash, setup),
        cmocka_unit_test_setup(test_attack_small_u2, setup),
        cmocka_unit_test_setup(test_attack_small_u3, setup),
        cmocka_unit_test_setup(test_attack_own_vector_changed, setup),
        cmocka_unit_test_setup(test_attack_forged_survivor, setup),
        cmocka_unit_test_setup(test_attack_u3_is_no_subset_of_u2, setup),
        cmocka_unit_test_setup(test_attack_second_a3_after_r3, setup),
        cmocka_unit_test_setup(test_attack_equivocated_u3, setup),
        cmocka_unit_test_setup(test_attack_no_quorum, setup),
        cmocka_unit_test_setup(test_attack_forged_quorum, setup),
        cmocka_unit_test_setup(test_attack_quorum_on_another_t3, setup),
        cmocka_unit_test_setup(test_attack_signature_from_outside_u3, setup),
        cmocka_unit_test_setup(test_attack_repeated_request_gets_the_same_bytes, setup),
        cmocka_unit_test_setup(test_attack_second_r4_request, setup),
        cmocka_unit_test_setup(test_attack_both_shares_of_one_site, setup),
        cmocka_unit_test_setup(test_attack_shares_are_chosen_by_u3_alone, setup),
        cmocka_unit_test_setup(test_attack_replayed_round, setup),
        cmocka_unit_test_setup(test_attack_configuration_below_the_floors, setup),
        cmocka_unit_test_setup(test_attack_one_organisation_with_many_seats, setup),
        cmocka_unit_test_setup(test_attack_message_of_another_round, setup),
        cmocka_unit_test_setup(test_attack_forged_abort, setup),
        cmocka_unit_test_setup(test_attack_shares_after_their_lifetime, setup),
        cmocka_unit_test_setup(test_attack_on_a_site_that_has_finished_finds_no_secret, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
