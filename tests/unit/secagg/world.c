#include "world.h"

#include "crypto/kem.h"
#include "crypto/rng.h"
#include "proto/neighbours.h"
#include "secagg/graph.h"
#include "support/check.h"
#include "support/round_config.h"
#include "support/seeded_rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool hybrid_is_asked(void)
{
    const char *suite = getenv("DURE_TEST_SUITE");
    return suite && strcmp(suite, "hybrid") == 0;
}

bool world_lacks_suite(void)
{
    if (!hybrid_is_asked() || dure_kem_available()) return false;
    print_message("skipped: this machine's OpenSSL has no ML-KEM-768\n");
    return true;
}

static void sample_config(world *w)
{
    dure_config *c = &w->config;
    round_config(c, w->n);
    if (hybrid_is_asked()) c->suite = DURE_SUITE_HYBRID_AES256CTR;
    c->round = 5;
    c->threshold = (w->n + 1) / 2 + 1;
    c->u_min = 3;
    c->collusion = 1;
    c->n_words = WORLD_WORDS;
    c->chunk_words = 32;
    c->q_max = 65536;
    c->share_lifetime_ms = 1000000;
    c->privacy_mode = DURE_PRIVACY_RECORD;
    for (uint32_t i = 0; i < w->n; i++) {
        dure_member *m = &c->members[i];
        m->q_k = UINT64_C(1) << 60;
        m->sigma_num = 1;
        memcpy(m->sign_public, w->keys[i].public_, DURE_KEY_BYTES);
        m->curve_public[0] = (uint8_t)(i + 1);
    }
}

static world *world_blank(uint32_t n, uint64_t seed)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->n = n;
    w->now_ms = 1;
    seeded_rng state;
    dure_rng rng = seeded_rng_of(&state, seed);
    assert_ok(dure_sign_generate(&w->coordinator));
    assert_ok(dure_sign_generate(&w->beacon));
    for (uint32_t i = 0; i < n; i++) {
        assert_ok(dure_sign_generate(&w->keys[i]));
        for (size_t j = 0; j < WORLD_WORDS; j++) {
            uint32_t random = 0;
            assert_ok(dure_rng_fill(&rng, &random, sizeof random));
            w->units[i][j] = (int32_t)(random % (2 * 65536 + 1)) - 65536;
        }
    }
    for (size_t i = 0; i < 4; i++) {
        dure_buf_init(&w->records[i], 4u << 20);
    }
    sample_config(w);
    return w;
}

/* The configuration is final: the machines begin. */
static world *begin(world *w)
{
    dure_buf encoding;
    dure_diag diag = {0};
    dure_buf_init(&encoding, DURE_CONFIG_BYTES_MAX);
    if (dure_config_encode(&encoding, &w->config, &diag)) fail_msg("%s", diag.text);
    assert_ok(dure_hash_bytes(&w->config_hash, dure_buf_span(&encoding)));
    dure_buf_fini(&encoding);
    for (uint32_t i = 0; i < w->n; i++) {
        dure_secagg_client_opts opts = {.config = &w->config,
                                        .config_hash = w->config_hash,
                                        .sign = &w->keys[i],
                                        .coordinator_sign = w->coordinator.public_,
                                        .rng = dure_rng_system(),
                                        .floors = {1, 0, 3},
                                        .last_round = 4,
                                        .beacon = {w->beacon.public_, w->config.beacon_index}};
        assert_ok(dure_secagg_client_new(&w->clients[i], &opts, NULL));
    }
    dure_secagg_server_opts opts = {&w->config, w->config_hash, &w->coordinator};
    assert_ok(dure_secagg_server_new(&w->server, &opts, NULL));
    return w;
}

world *world_new(uint32_t n, uint64_t seed)
{
    return begin(world_blank(n, seed));
}

world *world_new_sparse(uint32_t n, uint64_t seed, uint32_t c, uint32_t u_min)
{
    world *w = world_blank(n, seed);
    dure_graph_choice choice = {.n = n, .c = c, .dropouts = n - u_min};
    assert_true(dure_graph_choose(&choice));
    assert_true(choice.k + 1 < n);
    w->config.neighbours = choice.k;
    w->config.threshold = choice.t;
    w->config.collusion = c;
    w->config.u_min = u_min;
    w->config.beacon_index = 77;
    memcpy(w->config.beacon_public, w->beacon.public_, DURE_KEY_BYTES);
    return begin(w);
}

void world_free(world **w)
{
    for (uint32_t i = 0; i < (*w)->n; i++) {
        dure_secagg_client_free(&(*w)->clients[i]);
    }
    for (size_t i = 0; i < (*w)->n_letters; i++) {
        dure_buf_fini(&(*w)->letters[i].frame);
    }
    for (size_t i = 0; i < 4; i++) {
        dure_buf_fini(&(*w)->records[i]);
    }
    free((*w)->letters);
    dure_secagg_server_free(&(*w)->server);
    free(*w);
    *w = NULL;
}

static void post_frame(world *w, bool to_server, uint32_t member, dure_span frame)
{
    if (w->n_letters == w->capacity) {
        w->capacity = w->capacity ? 2 * w->capacity : 64;
        w->letters = realloc(w->letters, w->capacity * sizeof *w->letters);
        assert_non_null(w->letters);
    }
    world_letter *letter = &w->letters[w->n_letters++];
    *letter = (world_letter){.to_server = to_server, .member = member};
    dure_buf_init(&letter->frame, DURE_MSG_BYTES_MAX);
    dure_put_raw(&letter->frame, frame.data, frame.n);
    assert_ok(dure_buf_err(&letter->frame));
}

void world_post(world *w, bool to_server, uint32_t member, const dure_msg *msg)
{
    dure_buf frame;
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    dure_diag diag = {0};
    if (dure_msg_encode(&frame, msg, &diag)) fail_msg("%s", diag.text);
    post_frame(w, to_server, member, dure_buf_span(&frame));
    dure_buf_fini(&frame);
}

static world_step step_of(dure_msg_type type)
{
    switch (type) {
    case DURE_MSG_ADVERTISE:
        return WORLD_R0;
    case DURE_MSG_SHARES:
        return WORLD_R1;
    case DURE_MSG_MASKED:
        return WORLD_R2;
    case DURE_MSG_CONSISTENCY:
        return WORLD_R3;
    case DURE_MSG_UNMASK:
        return WORLD_R4;
    default:
        return WORLD_NEVER;
    }
}

/* The server fetches every chunk, as the coordinator's spool does. */
static void upload(world *w, uint32_t member)
{
    dure_span vector = dure_secagg_client_vector(w->clients[member]);
    size_t stride = dure_config_chunk_bytes(&w->config, 0);
    memcpy(w->spool[member], vector.data, vector.n);
    w->trees[member] = (dure_vector_tree){0};
    dure_secagg_actions actions = {0};
    for (uint32_t i = 0; i < dure_config_chunks(&w->config); i++) {
        dure_span chunk = {w->spool[member] + i * stride, dure_config_chunk_bytes(&w->config, i)};
        assert_ok(dure_vector_tree_add(&w->trees[member], &w->config, chunk));
        assert_ok(dure_secagg_client_sent(&actions, w->clients[member], i, NULL));
    }
    world_client_actions(w, member, &actions);
}

static void mask(world *w, uint32_t member)
{
    dure_secagg_actions actions = {0};
    assert_ok(dure_secagg_client_update(&actions, w->clients[member], w->units[member], WORLD_WORDS,
                                        NULL));
    world_client_actions(w, member, &actions);
}

void world_client_actions(world *w, uint32_t member, dure_secagg_actions *actions)
{
    for (size_t i = 0; i < actions->n; i++) {
        const dure_secagg_action *a = &actions->items[i];
        if (w->dead[member]) break;
        if (a->kind == DURE_SECAGG_MASK) {
            if (!w->hold_masks) mask(w, member);
        } else if (a->kind == DURE_SECAGG_UPLOAD) {
            upload(w, member);
        } else if (a->kind == DURE_SECAGG_PERSIST) {
            w->signed_t3 += a->record == DURE_SECAGG_RECORD_R3;
        } else if (a->kind == DURE_SECAGG_SEND) {
            dure_msg *msg = NULL;
            assert_ok(dure_msg_decode(&msg, a->bytes, NULL));
            world_step step = step_of(msg->type);
            if (step != WORLD_NEVER && step == w->dies[member]) w->dead[member] = true;
            if (!w->dead[member]) post_frame(w, true, member, a->bytes);
            dure_msg_free(&msg);
        }
    }
    dure_secagg_actions_fini(actions);
}

static void unmask(world *w)
{
    dure_members u3 = dure_secagg_server_set(w->server, 3);
    memset(w->sum, 0, sizeof w->sum);
    size_t stride = dure_config_chunk_bytes(&w->config, 0);
    for (uint32_t c = 0; c < dure_config_chunks(&w->config); c++) {
        uint32_t *part = w->sum + c * w->config.chunk_words;
        for (uint32_t u = 0; u < w->n; u++) {
            if (!dure_members_has(&u3, u)) continue;
            dure_span chunk = {w->spool[u] + c * stride, dure_config_chunk_bytes(&w->config, c)};
            dure_vector_add_packed(part, chunk, &w->config);
        }
        assert_ok(dure_masks_apply(part, dure_secagg_server_unmasker(w->server), c));
    }
    w->summed = true;
}

static void server_actions(world *w, dure_secagg_actions *actions)
{
    for (size_t i = 0; i < actions->n; i++) {
        const dure_secagg_action *a = &actions->items[i];
        if (a->kind == DURE_SECAGG_SEND) {
            post_frame(w, false, a->member, a->bytes);
        } else if (a->kind == DURE_SECAGG_PERSIST) {
            dure_buf *record = &w->records[a->record - 1];
            assert_int_equal(record->n, 0); /* never written twice */
            dure_put_raw(record, a->bytes.data, a->bytes.n);
            w->n_records = a->record;
        } else if (a->kind == DURE_SECAGG_BLAME) {
            assert_true(w->n_blamed < WORLD_MAX);
            w->blamed[w->n_blamed++] = a->member;
        } else if (a->kind == DURE_SECAGG_UNMASK) {
            unmask(w);
        } else if (a->kind == DURE_SECAGG_END) {
            w->failed = true;
            snprintf(w->ended, sizeof w->ended, "%s", a->text);
        }
    }
    dure_secagg_actions_fini(actions);
}

static void to_server(world *w, uint32_t member, const dure_msg *msg)
{
    dure_secagg_actions actions = {0};
    dure_diag diag = {0};
    dure_hash root;
    bool whole = dure_vector_tree_root(&root, &w->trees[member], &w->config) == DURE_OK;
    if (dure_secagg_server_step(&actions, w->server, member, msg, whole ? &root : NULL, &diag)) {
        memcpy(w->last_error, diag.text, sizeof w->last_error);
    }
    server_actions(w, &actions);
}

static void to_client(world *w, uint32_t member, const dure_msg *msg)
{
    if (w->dead[member]) return;
    dure_secagg_actions actions = {0};
    dure_diag diag = {0};
    dure_err err = dure_secagg_client_step(&actions, w->clients[member], msg, w->now_ms, &diag);
    if (err && !w->client_err[member]) { /* the first is the one that counts */
        w->client_err[member] = err;
        memcpy(w->last_error, diag.text, sizeof w->last_error);
        memcpy(w->said[member], diag.text, sizeof w->said[member]);
    }
    world_client_actions(w, member, &actions);
}

/* Once the round is open, the beacon signs its index. */
static void beacon_speaks(world *w)
{
    uint8_t signature[DURE_SIGNATURE_BYTES];
    dure_secagg_actions actions = {0};
    assert_ok(
        dure_beacon_sign(signature, &w->beacon, w->config.federation_id, w->config.beacon_index));
    assert_ok(dure_secagg_server_beacon(&actions, w->server,
                                        dure_span_of(signature, sizeof signature), NULL));
    server_actions(w, &actions);
}

void world_start(world *w)
{
    for (uint32_t i = 0; i < w->n; i++) {
        dure_secagg_actions actions = {0};
        assert_ok(dure_secagg_client_start(&actions, w->clients[i], NULL));
        world_client_actions(w, i, &actions);
    }
    if (w->config.neighbours) beacon_speaks(w);
}

void world_name_entries(const world *w, dure_msg *msg)
{
    static uint8_t bits[64][DURE_MEMBERS_BYTES_MAX]; /* outlive the message, and are not many */
    static size_t at;
    dure_members set = {{0}};
    dure_span *members = msg->type == DURE_MSG_KEYS         ? &msg->u.keys.members
                         : msg->type == DURE_MSG_SHARES_FOR ? &msg->u.shares_for.members
                                                            : &msg->u.survivors.members;
    for (size_t i = 0; msg->type == DURE_MSG_KEYS && i < msg->u.keys.n_entries; i++)
        dure_members_add(&set, msg->u.keys.entries[i].member);
    for (size_t i = 0; msg->type == DURE_MSG_SHARES_FOR && i < msg->u.shares_for.n_entries; i++)
        dure_members_add(&set, msg->u.shares_for.entries[i].member);
    for (size_t i = 0; msg->type == DURE_MSG_SURVIVORS && i < msg->u.survivors.n_entries; i++)
        dure_members_add(&set, msg->u.survivors.entries[i].member);
    *members = dure_members_put(bits[at++ % 64], &set, w->n);
}

/* Everything in flight is lost; the machine is rebuilt from the synced records. */
static void crash_server(world *w)
{
    dure_span records[4];
    for (size_t i = 0; i < w->n_records; i++) {
        records[i] = dure_buf_span(&w->records[i]);
    }
    w->crash_after = 0;
    w->at = w->n_letters;
    dure_secagg_server_free(&w->server);
    dure_secagg_actions actions = {0};
    dure_secagg_server_opts opts = {&w->config, w->config_hash, &w->coordinator};
    dure_diag diag = {0};
    if (dure_secagg_server_resume(&w->server, &actions, &opts, records, w->n_records, &diag)) {
        fail_msg("%s", diag.text);
    }
    server_actions(w, &actions);
}

void world_deliver(world *w)
{
    while (w->at < w->n_letters) {
        world_letter *letter = &w->letters[w->at++];
        dure_msg *msg = NULL;
        assert_ok(dure_msg_decode(&msg, dure_buf_span(&letter->frame), NULL));
        bool server = letter->to_server;
        uint32_t member = letter->member;
        if (!w->hook || w->hook(w, server, member, msg)) {
            if (server) {
                to_server(w, member, msg);
            } else {
                to_client(w, member, msg);
            }
        }
        dure_msg_free(&msg);
        if (w->crash_after && w->n_records >= w->crash_after) crash_server(w);
    }
}

static bool over(const world *w)
{
    return dure_secagg_server_phase(w->server) >= DURE_SECAGG_PHASE_SUMMED;
}

void world_run(world *w)
{
    if (w->n_letters == 0) world_start(w);
    world_deliver(w);
    for (int guard = 0; !over(w) && guard < 100; guard++) {
        dure_members missing = dure_secagg_server_missing(w->server);
        dure_secagg_actions actions = {0};
        for (uint32_t i = 0; i < w->n; i++) {
            if (dure_members_has(&missing, i)) {
                assert_ok(dure_secagg_server_drop(&actions, w->server, i));
                break;
            }
        }
        server_actions(w, &actions);
        world_deliver(w);
    }
    assert_true(over(w));
}

bool world_expected(const world *w, dure_members *u3)
{
    size_t left[6] = {0};
    *u3 = (dure_members){{0}};
    for (uint32_t i = 0; i < w->n; i++) {
        for (int step = WORLD_R0; step <= WORLD_R4; step++) {
            if (w->dies[i] == WORLD_NEVER || (int)w->dies[i] > step) left[step]++;
        }
        if (w->dies[i] == WORLD_NEVER || w->dies[i] > WORLD_R2) dure_members_add(u3, i);
    }
    size_t t = w->config.threshold, least = t > w->config.u_min ? t : w->config.u_min;
    return left[WORLD_R2] >= least && left[WORLD_R3] >= t && left[WORLD_R4] >= t;
}

void world_plain_sum(uint32_t *sum, const world *w, const dure_members *u3)
{
    for (size_t j = 0; j < WORLD_WORDS; j++) {
        int64_t total = 0;
        for (uint32_t i = 0; i < w->n; i++) {
            if (dure_members_has(u3, i)) total += w->units[i][j];
        }
        sum[j] = dure_mask_word(total, w->config.word_bits);
    }
}
