/* A coordinator that shows different things to different sites, each of them valid by itself, or
 * that wants one vector twice. It keeps to no rule of the server machine: the hooks speak for it.
 */
#include "crypto/wipe.h"
#include "secagg/client_int.h"
#include "support/check.h"
#include "world.h"

#include <string.h>

enum { N = 5 };

/* Decoded messages are the tests' own memory: hooks may write through their const pointers. */
#define WRITABLE(type, pointer) ((type *)(uintptr_t)(pointer))

static uint32_t n_sent[WORLD_MAX][DURE_MSG_ABORT + 1]; /* by site and type */

static int setup(void **state)
{
    (void)state;
    memset(n_sent, 0, sizeof n_sent);
    return 0;
}

static void observe(bool to_server, uint32_t member, const dure_msg *msg)
{
    if (to_server && msg->type <= DURE_MSG_ABORT) n_sent[member][msg->type]++;
}

/* ---- two configurations, as two models ---- */

static dure_config other_config;
static dure_hash other_hash;
static dure_round_keys heard[N];
static uint8_t heard_kem[N][DURE_MSG_KEM_KEYS_BYTES]; /* the messages go */

/* The lying coordinator keeps the R0s and answers nothing by itself. */
static bool collect_r0(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    observe(to_server, member, msg);
    if (to_server && msg->type == DURE_MSG_ADVERTISE) {
        heard[member] = msg->u.advertise.keys;
        heard[member].member = member;
        if (heard[member].kem.n) {
            memcpy(heard_kem[member], heard[member].kem.data, heard[member].kem.n);
            heard[member].kem.data = heard_kem[member];
        }
    }
    return !to_server;
}

/* Site 0 is told of the same round with another adapter to start from. */
static void give_site_0_another_model(world *w)
{
    dure_buf encoding;
    other_config = w->config;
    other_config.adapter_digest[0] ^= 1;
    dure_buf_init(&encoding, DURE_CONFIG_BYTES_MAX);
    assert_ok(dure_config_encode(&encoding, &other_config, NULL));
    assert_ok(dure_hash_bytes(&other_hash, dure_buf_span(&encoding)));
    dure_buf_fini(&encoding);
    dure_secagg_client_opts opts = w->clients[0]->opts;
    opts.config = &other_config;
    opts.config_hash = other_hash;
    dure_secagg_client_free(&w->clients[0]);
    assert_ok(dure_secagg_client_new(&w->clients[0], &opts, NULL));
}

static void test_views_two_models_share_nothing(void **state)
{
    (void)state;
    world *w = world_new(N, 5);
    give_site_0_another_model(w);
    w->hook = collect_r0;
    world_start(w);
    world_deliver(w);
    dure_msg a1 = {.type = DURE_MSG_KEYS, .u.keys = {.entries = heard, .n_entries = N}};
    for (uint32_t i = 0; i < N; i++) {
        const dure_hash *hash = i ? &w->config_hash : &other_hash;
        memcpy(a1.u.keys.config_hash, hash->b, DURE_DIGEST_BYTES);
        world_name_entries(w, &a1);
        world_post(w, false, i, &a1);
    }
    world_deliver(w);
    for (uint32_t i = 0; i < N; i++) {
        assert_err(w->client_err[i], DURE_ERR_AUTH);
        assert_int_equal(n_sent[i][DURE_MSG_SHARES], 0);
        assert_int_equal(dure_secagg_client_stage(w->clients[i]), DURE_STAGE_IDLE);
    }
    world_free(&w);
}

/* ---- two lists of keys ---- */

static uint8_t sealed[N][DURE_SECAGG_SEALED_BYTES]; /* for site 0 */
static uint8_t kem[N][DURE_MSG_KEM_MAX];
static dure_forwarded forwarded[N];

static void keep_r1(const world *w, uint32_t from, const dure_msg *msg)
{
    dure_hash digest;
    const dure_msg_shares *r1 = &msg->u.shares;
    assert_ok(dure_secagg_digest_r1(&digest, &w->clients[from]->t1, from, r1));
    dure_forwarded *f = &forwarded[from];
    *f = (dure_forwarded){.member = from};
    memcpy(f->r1_hash, digest.b, sizeof f->r1_hash);
    memcpy(f->signature, r1->signature, sizeof f->signature);
    if (from == 0) return;
    assert_int_equal(r1->entries[0].member, 0);
    memcpy(sealed[from], r1->entries[0].sealed.data, sizeof sealed[from]);
    f->sealed = (dure_span){sealed[from], sizeof sealed[from]};
    f->kem = (dure_span){kem[from], r1->entries[0].kem.n};
    if (f->kem.n) memcpy(kem[from], r1->entries[0].kem.data, f->kem.n);
}

/* Site 0 does not hear of site 4, the others do. */
static bool two_lists(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_KEYS) {
        msg->u.keys.n_entries = N - 1;
        world_name_entries(w, msg);
    }
    if (!to_server || msg->type != DURE_MSG_SHARES) return true;
    keep_r1(w, member, msg);
    return false;
}

static void test_views_two_lists_of_keys_open_no_share(void **state)
{
    (void)state;
    world *w = world_new(N, 5);
    w->hook = two_lists;
    world_start(w);
    world_deliver(w);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(n_sent[i][DURE_MSG_SHARES], 1);
    }
    dure_msg a2 = {.type = DURE_MSG_SHARES_FOR,
                   .u.shares_for = {.entries = forwarded, .n_entries = N - 1}};
    memcpy(a2.u.shares_for.config_hash, w->config_hash.b, DURE_DIGEST_BYTES);
    world_name_entries(w, &a2);
    world_post(w, false, 0, &a2);
    world_deliver(w);
    assert_err(w->client_err[0], DURE_ERR_AUTH);
    assert_non_null(strstr(w->last_error, "do not open"));
    assert_int_equal(n_sent[0][DURE_MSG_MASKED], 0);
    world_free(&w);
}

/* ---- two sets of sharers ---- */

static dure_survivor apart[N];

/* Site 0 is told that site 4 sent no shares, and its vector is shown to the others all the same. */
static bool two_sets_of_sharers(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server && member == 0 && msg->type == DURE_MSG_SHARES_FOR) {
        msg->u.shares_for.n_entries = N - 1;
        world_name_entries(w, msg);
    }
    if (to_server && member == 0 && msg->type == DURE_MSG_MASKED) {
        memcpy(apart[0].root, msg->u.masked.root, sizeof apart[0].root);
        memcpy(apart[0].signature, msg->u.masked.signature, sizeof apart[0].signature);
        return false;
    }
    if (!to_server && msg->type == DURE_MSG_SURVIVORS) {
        assert_int_equal(msg->u.survivors.n_entries, N - 1);
        memcpy(apart + 1, msg->u.survivors.entries, (N - 1) * sizeof apart[0]);
        msg->u.survivors.entries = apart;
        msg->u.survivors.n_entries = N;
        world_name_entries(w, msg);
    }
    return true;
}

static void test_views_two_sets_of_sharers_reveal_nothing(void **state)
{
    (void)state;
    world *w = world_new(N, 5);
    w->hook = two_sets_of_sharers;
    world_run(w);
    assert_true(w->failed);
    assert_int_equal(n_sent[0][DURE_MSG_MASKED], 1);
    for (uint32_t i = 1; i < N; i++) {
        assert_err(w->client_err[i], DURE_ERR_AUTH);
        assert_int_equal(n_sent[i][DURE_MSG_CONSISTENCY], 0);
        assert_int_equal(n_sent[i][DURE_MSG_UNMASK], 0);
    }
    world_free(&w);
}

/* ---- the suite ---- */

/* Site 2 colludes and signs keys of the other suite. */
static bool keys_of_the_other_suite(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    static const uint8_t more[DURE_MSG_KEM_KEYS_BYTES];
    observe(to_server, member, msg);
    if (to_server || member != 0 || msg->type != DURE_MSG_KEYS) return true;
    dure_round_keys *k = &WRITABLE(dure_round_keys, msg->u.keys.entries)[2];
    dure_hash digest;
    k->kem = dure_suite_is_hybrid(&w->config) ? (dure_span){0} : (dure_span){more, sizeof more};
    assert_ok(dure_secagg_digest_r0(&digest, (dure_secagg_who){&w->config_hash, 2}, k));
    assert_ok(dure_sign(k->signature, &w->keys[2], DURE_SECAGG_LABEL_R0, dure_hash_span(&digest)));
    return true;
}

static void test_views_keys_of_the_other_suite_are_refused(void **state)
{
    (void)state;
    world *w = world_new(N, 5);
    w->hook = keys_of_the_other_suite;
    world_run(w);
    assert_err(w->client_err[0], DURE_ERR_PROTO);
    assert_int_equal(n_sent[0][DURE_MSG_SHARES], 0);
    world_free(&w);
}

static size_t altered_at;

/* One bit of what site 2 encapsulated for site 4, for their channel or their mask. */
static bool alter_ciphertext(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    observe(to_server, member, msg);
    if (!to_server && member == 4 && msg->type == DURE_MSG_SHARES_FOR)
        WRITABLE(uint8_t, msg->u.shares_for.entries[2].kem.data)[altered_at] ^= 1;
    return true;
}

static void test_views_altered_ciphertexts_are_refused(void **state)
{
    (void)state;
    static const size_t places[] = {0, DURE_KEM_CIPHERTEXT_BYTES - 1, DURE_KEM_CIPHERTEXT_BYTES,
                                    2 * DURE_KEM_CIPHERTEXT_BYTES - 1};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        world *w = world_new(N, 5);
        const bool hybrid = dure_suite_is_hybrid(&w->config);
        altered_at = places[i];
        w->hook = alter_ciphertext;
        if (hybrid) world_run(w);
        if (hybrid) assert_err(w->client_err[4], DURE_ERR_AUTH);
        world_free(&w);
        if (!hybrid) skip();
    }
}

/* Site 1 wraps other secrets than it sent, and drops: the coordinator ends the round, no more. */
static bool wrap_something_else(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server || member != 1 || msg->type != DURE_MSG_SHARES) return true;
    dure_msg_shares *r1 = &msg->u.shares;
    dure_hash digest;
    WRITABLE(uint8_t, r1->wrapped.data)[20] ^= 1;
    assert_ok(dure_secagg_digest_r1(&digest, &w->clients[1]->t1, 1, r1));
    assert_ok(dure_sign(r1->signature, &w->keys[1], DURE_SECAGG_LABEL_R1, dure_hash_span(&digest)));
    w->clients[1]->own_r1 = digest;
    return true;
}

static void test_views_wrong_wrapped_secrets_end_the_round(void **state)
{
    (void)state;
    world *w = world_new(N, 5);
    const bool hybrid = dure_suite_is_hybrid(&w->config);
    w->dies[1] = WORLD_R2;
    w->hook = wrap_something_else;
    if (hybrid) world_run(w);
    if (hybrid) assert_true(w->failed && !w->summed);
    world_free(&w);
    if (!hybrid) skip();
}

/* ---- one vector, one round ---- */

static void test_views_a_vector_is_masked_once(void **state)
{
    (void)state;
    world *w = world_new(N, 5);
    dure_secagg_actions actions = {0};
    uint8_t before[WORLD_WORDS * 3];
    w->hook = two_sets_of_sharers; /* the coordinator says that it never got site 0's vector */
    world_start(w);
    world_deliver(w);
    const dure_span vector = dure_secagg_client_vector(w->clients[0]);
    assert_int_equal(vector.n, sizeof before);
    memcpy(before, vector.data, sizeof before);
    assert_err(dure_secagg_client_update(&actions, w->clients[0], w->units[1], WORLD_WORDS, NULL),
               DURE_ERR_STATE);
    assert_int_equal(actions.n, 0);
    assert_memory_equal(dure_secagg_client_vector(w->clients[0]).data, before, sizeof before);
    world_free(&w);
}

/* ---- a vector that is said to be late ---- */

enum { LATE = 2 };

static dure_share of_late[N];
static size_t n_of_late;

static bool keep_shares_of_late(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    observe(to_server, member, msg);
    if (!to_server || msg->type != DURE_MSG_UNMASK) return true;
    for (size_t i = 0; i < msg->u.unmask.n_entries; i++) {
        const dure_revealed *r = &msg->u.unmask.entries[i];
        if (r->member != LATE) continue;
        assert_int_equal(r->kind, DURE_SHARE_MASK);
        assert_ok(dure_share_decode(&of_late[n_of_late++], r->share));
    }
    return true;
}

/* All that the coordinator can compute of the late site's masks; with b also its own. */
static dure_masks *masks_of_late(const world *w, const uint8_t *b)
{
    uint8_t secret[DURE_SHAMIR_SECRET_BYTES], key[DURE_SECAGG_KEY_BYTES];
    dure_masks *masks = NULL;
    dure_kx_key mask;
    const dure_hash *t2 = &w->clients[0]->t2;
    assert_ok(dure_shamir_combine(secret, of_late, w->config.threshold));
    assert_ok(dure_kx_from_secret(&mask, secret));
    assert_ok(dure_masks_new(&masks, &w->config, N));
    for (uint32_t u = 0; u < N; u++) {
        const uint32_t pair[2] = {LATE, u};
        if (u == LATE) continue;
        const dure_agreement between = {&mask, w->clients[0]->keys[u].mask_public, NULL};
        assert_ok(dure_secagg_pair_key(key, t2, &between, pair, &w->config));
        assert_ok(dure_masks_add(masks, key, u > LATE));
    }
    if (!b) return masks;
    assert_ok(dure_secagg_self_key(key, t2, b, LATE, &w->config));
    assert_ok(dure_masks_add(masks, key, true));
    return masks;
}

/* The first chunk of the late vector without those masks: is it the plain one? */
static bool is_plain(const world *w, const uint8_t *vector, const uint8_t *b)
{
    const size_t n = w->config.chunk_words;
    uint32_t words[WORLD_WORDS] = {0};
    dure_masks *masks = masks_of_late(w, b);
    dure_vector_add_packed(words, (dure_span){vector, n * 3}, &w->config);
    assert_ok(dure_masks_apply(words, masks, 0));
    dure_masks_free(&masks);
    size_t equal = 0;
    for (size_t i = 0; i < n; i++)
        equal += (words[i] & 0xffffff) == dure_mask_word(w->units[LATE][i], 24);
    return equal > n / 2;
}

/* The coordinator has the whole vector of a site and calls it dropped. The shares that this earns
 * take the masks of its pairs off, and not its own. */
static void test_views_a_vector_called_late_stays_masked(void **state)
{
    (void)state;
    world *w = world_new(N, 5);
    uint8_t b[DURE_SHAMIR_SECRET_BYTES], vector[WORLD_WORDS * 3];
    if (dure_suite_is_hybrid(&w->config)) {
        world_free(&w);
        skip(); /* the site's own mask is the same in either suite */
    }
    n_of_late = 0;
    w->hook = keep_shares_of_late;
    memcpy(b, w->clients[LATE]->secrets.b, sizeof b);
    w->dies[LATE] = WORLD_R2;
    world_run(w);
    assert_true(w->summed);
    assert_true(n_of_late >= w->config.threshold);
    const dure_span late = dure_secagg_client_vector(w->clients[LATE]);
    assert_int_equal(late.n, sizeof vector);
    memcpy(vector, late.data, sizeof vector);
    assert_false(is_plain(w, vector, NULL));
    assert_true(is_plain(w, vector, b)); /* what one more secret would have told */
    world_free(&w);
}

/* A key of one round would unmask another in which it comes again. */
static void test_views_keys_and_secrets_are_fresh_each_round(void **state)
{
    (void)state;
    world *w = world_new(N, 5);
    dure_secagg_client *again = NULL;
    assert_ok(dure_secagg_client_new(&again, &w->clients[0]->opts, NULL));
    const client_secrets *a = &w->clients[0]->secrets, *b = &again->secrets;
    assert_false(dure_ct_equal(a->channel.seed, b->channel.seed, sizeof a->channel.seed));
    assert_false(dure_ct_equal(a->mask.seed, b->mask.seed, sizeof a->mask.seed));
    assert_false(dure_ct_equal(a->b, b->b, sizeof a->b));
    dure_secagg_client_free(&again);
    world_free(&w);
}

int main(void)
{
    if (world_lacks_suite()) return WORLD_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_views_two_models_share_nothing, setup),
        cmocka_unit_test_setup(test_views_two_lists_of_keys_open_no_share, setup),
        cmocka_unit_test_setup(test_views_two_sets_of_sharers_reveal_nothing, setup),
        cmocka_unit_test_setup(test_views_keys_of_the_other_suite_are_refused, setup),
        cmocka_unit_test_setup(test_views_altered_ciphertexts_are_refused, setup),
        cmocka_unit_test_setup(test_views_wrong_wrapped_secrets_end_the_round, setup),
        cmocka_unit_test_setup(test_views_a_vector_is_masked_once, setup),
        cmocka_unit_test_setup(test_views_a_vector_called_late_stays_masked, setup),
        cmocka_unit_test_setup(test_views_keys_and_secrets_are_fresh_each_round, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
