/* The client's life: its keys, the dispatch of what the coordinator says, masking, and the end. */
#include "secagg/client.h"

#include "crypto/wipe.h"
#include "proto/neighbours.h"
#include "secagg/client_int.h"
#include "secagg/vector.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_MAX (320u * 1024)

dure_secagg_who client_who(const dure_secagg_client *c, uint32_t member)
{
    return (dure_secagg_who){&c->opts.config_hash, member};
}

/* Members that this site, being one of U0, has as neighbours, and itself. */
static size_t n_near(const dure_secagg_client *c)
{
    return (size_t)dure_config_degree(c->opts.config) + 1;
}

size_t client_rank(const dure_secagg_client *c, uint32_t member)
{
    return dure_members_rank(&c->near, member);
}

void client_forget(dure_secagg_client *c)
{
    client_secrets *secrets = &c->secrets;
    if (secrets->held) dure_wipe(secrets->held, n_near(c) * sizeof *secrets->held);
    if (secrets->kem) dure_wipe(secrets->kem, n_near(c) * sizeof *secrets->kem);
    free(secrets->held);
    free(secrets->kem);
    dure_wipe(secrets, sizeof *secrets);
    if (c->vector) dure_wipe(c->vector, c->vector_bytes);
    free(c->vector);
    free(c->chunk_sent);
    c->vector = NULL;
    c->chunk_sent = NULL;
    c->vector_bytes = 0;
}

void dure_secagg_client_free(dure_secagg_client **client)
{
    if (!client || !*client) return;
    client_forget(*client);
    free((*client)->kem_keys);
    free((*client)->keys);
    for (size_t i = 0; i < CLIENT_STEPS; i++) {
        dure_buf_fini(&(*client)->replies[i]);
    }
    dure_wipe(*client, sizeof **client);
    free(*client);
    *client = NULL;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* The configuration against the site's floors: it may be stricter, never laxer. */
static dure_err check_floors(const dure_secagg_client *c, dure_diag *diag)
{
    const dure_config *config = c->opts.config;
    const dure_secagg_floors *floors = &c->opts.floors;
    if (config->round <= c->opts.last_round) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "round %llu was opened, but this site took part in round %llu already",
                             (unsigned long long)config->round,
                             (unsigned long long)c->opts.last_round);
    }
    if (config->threshold < floors->threshold) {
        return dure_diag_set(diag, DURE_ERR_POLICY, "the threshold %u is below the policy's %u",
                             config->threshold, floors->threshold);
    }
    const uint32_t degree = dure_config_degree(config);
    const uint32_t liars = dure_graph_colluders(config->n_members, degree, c->collusion);
    if (2 * config->threshold <= degree + 1 + liars) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "the threshold %u of %u sites does not withstand %u colluding ones",
                             config->threshold, degree + 1, liars);
    }
    if (config->n_members < c->least) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "the round has %u sites; the policy asks for at least %u",
                             config->n_members, c->least);
    }
    return DURE_OK;
}

/* On a sparse graph the coordinator must not have had a hand in the order. */
static dure_err check_beacon(const dure_secagg_client *c, dure_diag *diag)
{
    const dure_config *config = c->opts.config;
    const dure_secagg_beacon *trusted = &c->opts.beacon;
    if (!config->neighbours) return DURE_OK;
    if (!trusted->public_) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "the round is on a sparse graph; this site takes part in rounds on "
                             "the complete graph only");
    }
    if (!dure_ct_equal(config->beacon_public, trusted->public_, DURE_KEY_BYTES) ||
        dure_ct_equal(config->beacon_public, c->opts.coordinator_sign, DURE_KEY_BYTES)) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "the order of the round's sites would come from another beacon than "
                             "the one that this site trusts");
    }
    if (config->beacon_index < trusted->next) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "the order of the round's sites follows from number %llu of the "
                             "beacon, which was out before the round opened: it may have been "
                             "chosen",
                             (unsigned long long)config->beacon_index);
    }
    return DURE_OK;
}

static dure_err draw_keys(dure_secagg_client *c)
{
    const dure_config *config = c->opts.config;
    uint8_t seed[DURE_ROUND_SEED_BYTES];
    dure_err err = dure_rng_fill(&c->opts.rng, seed, sizeof seed);
    if (!err)
        err = dure_round_key_make(&c->secrets.channel, c->own_kem, seed, config, DURE_FOR_CHANNELS);
    if (!err) err = dure_rng_fill(&c->opts.rng, seed, sizeof seed);
    if (!err)
        err = dure_round_key_make(&c->secrets.mask, c->own_kem + DURE_KEM_PUBLIC_BYTES, seed,
                                  config, DURE_FOR_MASKS);
    dure_wipe(seed, sizeof seed);
    if (!err) err = dure_rng_fill(&c->opts.rng, c->secrets.b, sizeof c->secrets.b);
    if (!err) err = dure_rng_fill(&c->opts.rng, c->own.nonce, sizeof c->own.nonce);
    return err;
}

/* R0's content: public keys, the commitment to b_u, the head of the budget chain, signed. */
static dure_err make_own(dure_secagg_client *c)
{
    dure_hash commitment;
    dure_err err = dure_secagg_commit(&commitment, client_who(c, c->self), c->secrets.b);
    if (err) return err;
    c->own.member = c->self;
    memcpy(c->own.channel_public, c->secrets.channel.kx.public_, DURE_KEY_BYTES);
    memcpy(c->own.mask_public, c->secrets.mask.kx.public_, DURE_KEY_BYTES);
    memcpy(c->own.commitment, commitment.b, DURE_DIGEST_BYTES);
    c->own.chain_length = c->opts.chain_length;
    c->own.kem = (dure_span){c->own_kem, dure_hybrid_keys_bytes(c->opts.config)};
    memcpy(c->own.chain_head, c->opts.chain_head.b, DURE_DIGEST_BYTES);
    err = dure_secagg_digest_r0(&c->own_r0, client_who(c, c->self), &c->own);
    if (err) return err;
    return dure_sign(c->own.signature, c->opts.sign, DURE_SECAGG_LABEL_R0,
                     dure_hash_span(&c->own_r0));
}

dure_err dure_secagg_client_new(dure_secagg_client **out, const dure_secagg_client_opts *opts,
                                dure_diag *diag)
{
    *out = NULL;
    dure_secagg_client *c = calloc(1, sizeof *c);
    if (!c) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    c->opts = *opts;
    c->collusion = larger(opts->config->collusion, opts->floors.collusion);
    c->least =
        larger(larger(opts->config->u_min, opts->floors.u_min), dure_members_least(c->collusion));
    c->run_colluders = dure_graph_run_colluders(opts->config->n_members,
                                                dure_config_degree(opts->config), c->collusion);
    for (size_t i = 0; i < CLIENT_STEPS; i++) {
        dure_buf_init(&c->replies[i], FRAME_MAX);
    }
    dure_err err = dure_config_find(&c->self, opts->config, opts->sign->public_);
    if (err) {
        err = dure_diag_set(diag, DURE_ERR_POLICY, "this site is not a member of the round");
        goto out;
    }
    c->keys = calloc(n_near(c), sizeof *c->keys);
    c->secrets.held = calloc(n_near(c), sizeof *c->secrets.held);
    c->secrets.kem = calloc(n_near(c), sizeof *c->secrets.kem);
    if (!c->keys || !c->secrets.held || !c->secrets.kem) {
        err = dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
        goto out;
    }
    err = check_floors(c, diag);
    if (!err) err = check_beacon(c, diag);
    if (err) goto out;
    err = draw_keys(c);
    if (!err) err = make_own(c);
    if (err) {
        dure_diag_set(diag, err, "the round's keys cannot be made: %s", dure_err_text(err));
        goto out;
    }
    *out = c;
    c = NULL;
out:
    dure_secagg_client_free(&c);
    return err;
}

/* ---- sending ---- */

static dure_err send_frame(dure_secagg_actions *actions, dure_span frame)
{
    return dure_secagg_actions_add(actions,
                                   &(dure_secagg_action){.kind = DURE_SECAGG_SEND, .bytes = frame});
}

dure_err client_reply(dure_secagg_actions *actions, dure_secagg_client *c, unsigned step,
                      const dure_msg *msg, dure_diag *diag)
{
    dure_err err = dure_msg_encode(&c->replies[step], msg, diag);
    if (err) return err;
    dure_span frame = dure_buf_span(&c->replies[step]);
    /* R4's reply is all that outlives the secrets; it must be there before it can be sent, so
     * that a restarted site repeats it instead of knowing nothing. */
    if (step == 4) {
        err =
            dure_secagg_actions_add(actions, &(dure_secagg_action){.kind = DURE_SECAGG_PERSIST,
                                                                   .record = DURE_SECAGG_RECORD_R4,
                                                                   .bytes = frame});
    }
    return err ? err : send_frame(actions, frame);
}

dure_err dure_secagg_client_start(dure_secagg_actions *actions, dure_secagg_client *c,
                                  dure_diag *diag)
{
    if (c->ended) return dure_diag_set(diag, DURE_ERR_STATE, "the round is over at this site");
    if (c->replies[0].n) return send_frame(actions, dure_buf_span(&c->replies[0]));
    dure_msg msg = {.type = DURE_MSG_ADVERTISE, .u.advertise.keys = c->own};
    msg.u.advertise.keys.member = 0; /* the wire's R0 does not name its sender */
    memcpy(msg.u.advertise.config_hash, c->opts.config_hash.b, DURE_DIGEST_BYTES);
    dure_err err = client_reply(actions, c, 0, &msg, diag);
    if (!err) c->stage = DURE_STAGE_ADVERTISED;
    return err;
}

/* ---- the end ---- */

static dure_err end(dure_secagg_actions *actions, dure_secagg_client *c, const char *text)
{
    client_forget(c);
    c->ended = true;
    c->stage = DURE_STAGE_IDLE;
    dure_secagg_action action = {.kind = DURE_SECAGG_END};
    snprintf(action.text, sizeof action.text, "%.255s", text);
    return dure_secagg_actions_add(actions, &action);
}

static dure_err send_abort(dure_secagg_actions *actions, const dure_secagg_client *c,
                           dure_abort_code code, const char *text)
{
    dure_msg msg = {.type = DURE_MSG_ABORT, .u.abort = {.code = code}};
    memcpy(msg.u.abort.config_hash, c->opts.config_hash.b, DURE_DIGEST_BYTES);
    dure_msg_text(msg.u.abort.text, text);
    dure_hash digest;
    dure_err err =
        dure_secagg_digest_abort(&digest, client_who(c, c->self), code, msg.u.abort.text);
    if (!err) {
        err = dure_sign(msg.u.abort.signature, c->opts.sign, DURE_SECAGG_LABEL_ABORT,
                        dure_hash_span(&digest));
    }
    dure_buf frame;
    dure_buf_init(&frame, FRAME_MAX);
    if (!err) err = dure_msg_encode(&frame, &msg, NULL);
    if (!err) err = send_frame(actions, dure_buf_span(&frame));
    dure_buf_fini(&frame);
    return err;
}

dure_err dure_secagg_client_abort(dure_secagg_actions *actions, dure_secagg_client *c,
                                  dure_abort_code code, const char *text)
{
    if (c->ended) return DURE_OK;
    /* The secrets go first: whatever fails afterwards, nothing more can be revealed. */
    client_forget(c);
    c->ended = true;
    dure_err err = send_abort(actions, c, code, text);
    dure_err last = end(actions, c, text);
    return err ? err : last;
}

dure_err dure_secagg_client_tick(dure_secagg_actions *actions, dure_secagg_client *c,
                                 uint64_t now_ms)
{
    if (c->ended || c->expires_ms == 0 || now_ms < c->expires_ms) return DURE_OK;
    /* After R4 there is nothing left to withhold, only a reply to stop repeating. */
    if (c->stage == DURE_STAGE_UNMASKED) return end(actions, c, "no result came in time");
    return dure_secagg_client_abort(actions, c, DURE_ABORT_EXPIRED,
                                    "the lifetime of the round's shares is over");
}

/* The coordinator's signed abort ends the round; an unsigned one is nobody's. */
static dure_err on_abort(dure_secagg_actions *actions, dure_secagg_client *c,
                         const dure_msg_abort *msg, dure_diag *diag)
{
    dure_err err = dure_secagg_verify_abort(msg, client_who(c, DURE_SECAGG_COORDINATOR),
                                            c->opts.coordinator_sign);
    if (err == DURE_ERR_AUTH) {
        return dure_diag_set(diag, DURE_ERR_STATE, "an abort without the coordinator's signature");
    }
    if (err) return err;
    return end(actions, c, msg->text);
}

/* ---- dispatch ---- */

/* Which A a message is, and the stage that waits for it; 0 for another type. */
static unsigned step_of(dure_stage *stage, const dure_msg *msg)
{
    switch (msg->type) {
    case DURE_MSG_KEYS:
        *stage = DURE_STAGE_ADVERTISED;
        return 1;
    case DURE_MSG_SHARES_FOR:
        *stage = DURE_STAGE_SHARED;
        return 2;
    case DURE_MSG_SURVIVORS:
        *stage = DURE_STAGE_MASKED;
        return 3;
    case DURE_MSG_SIGNATURES:
        *stage = DURE_STAGE_CONSISTENT;
        return 4;
    default:
        *stage = DURE_STAGE_IDLE;
        return 0;
    }
}

/* The codec has one encoding for each message, so this identifies what was received. */
static dure_err message_digest(dure_hash *out, const dure_msg *msg)
{
    dure_buf frame;
    dure_buf_init(&frame, FRAME_MAX);
    dure_err err = dure_msg_encode(&frame, msg, NULL);
    if (!err) err = dure_hash_bytes(out, dure_buf_span(&frame));
    dure_buf_fini(&frame);
    return err;
}

static dure_err handle(dure_secagg_actions *actions, dure_secagg_client *c, const dure_msg *msg,
                       dure_diag *diag)
{
    switch (msg->type) {
    case DURE_MSG_KEYS:
        return client_on_keys(actions, c, &msg->u.keys, diag);
    case DURE_MSG_SHARES_FOR:
        return client_on_shares(actions, c, &msg->u.shares_for, diag);
    case DURE_MSG_SURVIVORS:
        return client_on_survivors(actions, c, &msg->u.survivors, diag);
    default:
        return client_on_signatures(actions, c, &msg->u.signatures, diag);
    }
}

/* The same A again: the same reply again. A2 has no reply until the vector is sent. */
static dure_err repeat(dure_secagg_actions *actions, const dure_secagg_client *c, unsigned step)
{
    if (step == 2 && c->vector) {
        dure_err err =
            dure_secagg_actions_add(actions, &(dure_secagg_action){.kind = DURE_SECAGG_UPLOAD});
        if (err) return err;
    }
    dure_span frame = dure_buf_span(&c->replies[step]);
    return frame.n ? send_frame(actions, frame) : DURE_OK;
}

static dure_abort_code abort_code(dure_err err)
{
    switch (err) {
    case DURE_ERR_PROTO:
    case DURE_ERR_AUTH:
        return DURE_ABORT_CHECK;
    case DURE_ERR_POLICY:
        return DURE_ABORT_POLICY;
    default:
        return DURE_ABORT_LOCAL;
    }
}

/* Ends the round because of `err`; whatever the failed step had appended is taken back. */
static dure_err fail(dure_secagg_actions *actions, size_t mark, dure_secagg_client *c, dure_err err,
                     dure_diag *diag)
{
    dure_secagg_actions_cut(actions, mark);
    const char *text = diag->text[0] ? diag->text : dure_err_text(err);
    dure_err last = dure_secagg_client_abort(actions, c, abort_code(err), text);
    return last ? last : err;
}

static bool same_round(const dure_secagg_client *c, const dure_msg *msg)
{
    const uint8_t *hash = dure_msg_config_hash(msg);
    return hash && dure_ct_equal(hash, c->opts.config_hash.b, DURE_DIGEST_BYTES);
}

dure_err dure_secagg_client_step(dure_secagg_actions *actions, dure_secagg_client *c,
                                 const dure_msg *msg, uint64_t now_ms, dure_diag *diag)
{
    dure_diag own = {0};
    if (!diag) diag = &own;
    if (c->ended || !same_round(c, msg)) {
        return dure_diag_set(diag, DURE_ERR_STATE, "message %s is not of a round that is open here",
                             dure_msg_name(msg->type));
    }
    size_t mark = actions->n;
    if (c->expires_ms && now_ms >= c->expires_ms) {
        dure_diag_set(diag, DURE_ERR_EXPIRED, "the lifetime of the round's shares is over");
        dure_err err = dure_secagg_client_tick(actions, c, now_ms);
        return err ? err : DURE_ERR_EXPIRED;
    }
    if (msg->type == DURE_MSG_ABORT) return on_abort(actions, c, &msg->u.abort, diag);
    dure_stage expected = DURE_STAGE_IDLE;
    unsigned step = step_of(&expected, msg);
    dure_hash digest;
    dure_err err = message_digest(&digest, msg);
    if (step && !err && c->has_seen[step]) {
        if (dure_hash_equal(&digest, &c->seen[step])) return repeat(actions, c, step);
        dure_diag_set(diag, DURE_ERR_PROTO, "the coordinator sent two different %s in one round",
                      dure_msg_name(msg->type));
        return fail(actions, mark, c, DURE_ERR_PROTO, diag);
    }
    if (!step || c->stage != expected) {
        return dure_diag_set(diag, DURE_ERR_STATE, "message %s is not expected now",
                             dure_msg_name(msg->type));
    }
    if (!err) err = handle(actions, c, msg, diag);
    if (err) return fail(actions, mark, c, err, diag);
    c->seen[step] = digest;
    c->has_seen[step] = true;
    if (step == 1) c->expires_ms = now_ms + c->opts.config->share_lifetime_ms;
    return DURE_OK;
}

/* ---- masking ---- */

/* y_u = q_u + PRG(k_self(u)) + sum over v > u of PRG(k_mask) - sum over v < u, of neighbours v. */
static dure_err own_masks(dure_masks **out, const dure_secagg_client *c)
{
    const dure_config *config = c->opts.config;
    uint8_t key[DURE_SECAGG_KEY_BYTES];
    const dure_members with = dure_members_both(&c->near, &c->u2);
    dure_err err = dure_masks_new(out, config, n_near(c));
    if (!err) err = dure_secagg_self_key(key, &c->t2, c->secrets.b, c->self, config);
    if (!err) err = dure_masks_add(*out, key, false);
    for (uint32_t v = 0; !err && v < config->n_members; v++) {
        if (v == c->self || !dure_members_has(&with, v)) continue;
        const uint32_t pair[2] = {c->self, v};
        const size_t at = client_rank(c, v);
        const dure_agreement between = {&c->secrets.mask.kx, c->keys[at].mask_public,
                                        dure_suite_is_hybrid(config) ? c->secrets.kem[at] : NULL};
        err = dure_secagg_pair_key(key, &c->t2, &between, pair, config);
        if (!err) err = dure_masks_add(*out, key, v < c->self);
    }
    dure_wipe(key, sizeof key);
    if (err) dure_masks_free(out);
    return err;
}

/* Chunk by chunk, so that plain words exist in one chunk-sized buffer only. */
static dure_err mask_all(dure_secagg_client *c, dure_masks *masks, const int32_t *units)
{
    const dure_config *config = c->opts.config;
    uint32_t *words = calloc(config->chunk_words, sizeof *words);
    if (!words) return DURE_ERR_NOMEM;
    dure_vector_tree tree = {0};
    dure_err err = DURE_OK;
    for (uint32_t i = 0; !err && i < dure_config_chunks(config); i++) {
        size_t first = (size_t)i * config->chunk_words, n = dure_vector_chunk_words(config, i);
        uint8_t *bytes = c->vector + first * (config->word_bits / 8);
        for (size_t j = 0; j < n; j++) {
            words[j] = dure_mask_word(units[first + j], config->word_bits);
        }
        err = dure_masks_apply(words, masks, i);
        if (err) break;
        dure_mask_pack(bytes, words, n, config->word_bits);
        err = dure_vector_tree_add(&tree, config,
                                   (dure_span){bytes, dure_config_chunk_bytes(config, i)});
    }
    if (!err) err = dure_vector_tree_root(&c->root, &tree, config);
    dure_wipe(words, config->chunk_words * sizeof *words);
    free(words);
    return err;
}

static dure_err check_units(const dure_config *config, const int32_t *units, size_t n,
                            dure_diag *diag)
{
    if (n != config->n_words) {
        return dure_diag_set(diag, DURE_ERR_USAGE, "the update has %zu entries, the round %u", n,
                             config->n_words);
    }
    int64_t most = config->q_max;
    for (size_t i = 0; i < n; i++) {
        if (units[i] > most || units[i] < -most) {
            return dure_diag_set(diag, DURE_ERR_USAGE, "an entry of the update exceeds Q = %u",
                                 config->q_max);
        }
    }
    return DURE_OK;
}

dure_err dure_secagg_client_update(dure_secagg_actions *actions, dure_secagg_client *c,
                                   const int32_t *units, size_t n, dure_diag *diag)
{
    dure_diag own = {0};
    if (!diag) diag = &own;
    if (c->stage != DURE_STAGE_TRAINING) {
        return dure_diag_set(diag, DURE_ERR_STATE, "no update is expected now");
    }
    dure_err err = check_units(c->opts.config, units, n, diag);
    if (err) return err;
    size_t mark = actions->n;
    dure_masks *masks = NULL;
    c->chunks_left = dure_config_chunks(c->opts.config);
    c->vector_bytes = dure_config_vector_bytes(c->opts.config);
    c->vector = calloc(1, c->vector_bytes);
    c->chunk_sent = calloc(1, c->chunks_left);
    err = c->vector && c->chunk_sent ? own_masks(&masks, c) : DURE_ERR_NOMEM;
    if (!err) err = mask_all(c, masks, units);
    dure_masks_free(&masks);
    if (!err) {
        err = dure_secagg_actions_add(actions, &(dure_secagg_action){.kind = DURE_SECAGG_UPLOAD});
    }
    if (err) return fail(actions, mark, c, err, diag);
    /* The masks are in the vector and are never needed again. */
    dure_wipe(&c->secrets.channel, sizeof c->secrets.channel);
    dure_wipe(&c->secrets.mask, sizeof c->secrets.mask);
    dure_wipe(c->secrets.b, sizeof c->secrets.b);
    dure_wipe(c->secrets.kem, n_near(c) * sizeof *c->secrets.kem);
    c->stage = DURE_STAGE_UPLOADING;
    return DURE_OK;
}

dure_span dure_secagg_client_vector(const dure_secagg_client *c)
{
    return (dure_span){c->vector, c->vector_bytes};
}

static dure_err send_final(dure_secagg_actions *actions, dure_secagg_client *c, dure_diag *diag)
{
    dure_msg msg = {.type = DURE_MSG_MASKED};
    memcpy(msg.u.masked.config_hash, c->opts.config_hash.b, DURE_DIGEST_BYTES);
    memcpy(msg.u.masked.t2, c->t2.b, DURE_DIGEST_BYTES);
    memcpy(msg.u.masked.root, c->root.b, DURE_DIGEST_BYTES);
    dure_hash digest;
    dure_err err = dure_secagg_digest_r2(&digest, client_who(c, c->self), &c->t2, &c->root);
    if (!err) {
        err = dure_sign(msg.u.masked.signature, c->opts.sign, DURE_SECAGG_LABEL_R2,
                        dure_hash_span(&digest));
    }
    if (!err) err = client_reply(actions, c, 2, &msg, diag);
    if (!err) c->stage = DURE_STAGE_MASKED;
    return err;
}

dure_err dure_secagg_client_sent(dure_secagg_actions *actions, dure_secagg_client *c,
                                 uint32_t chunk, dure_diag *diag)
{
    dure_diag own = {0};
    if (!diag) diag = &own;
    uint32_t n_chunks = dure_config_chunks(c->opts.config);
    if (!c->vector || chunk >= n_chunks) {
        return dure_diag_set(diag, DURE_ERR_STATE, "no chunk %u can have been sent", chunk);
    }
    /* A coordinator that lost its spool fetches again: the end of that is the final frame again. */
    if (c->stage != DURE_STAGE_UPLOADING) {
        if (chunk + 1 < n_chunks) return DURE_OK;
        return send_frame(actions, dure_buf_span(&c->replies[2]));
    }
    if (!c->chunk_sent[chunk]) {
        c->chunk_sent[chunk] = 1;
        c->chunks_left--;
    }
    if (c->chunks_left) return DURE_OK;
    size_t mark = actions->n;
    dure_err err = send_final(actions, c, diag);
    return err ? fail(actions, mark, c, err, diag) : DURE_OK;
}

dure_stage dure_secagg_client_stage(const dure_secagg_client *c)
{
    return c->stage;
}

dure_err dure_secagg_client_sharers(dure_members *u2, const dure_secagg_client *c)
{
    *u2 = (dure_members){{0}};
    if (!c->has_seen[2]) return DURE_ERR_STATE;
    *u2 = c->u2;
    return DURE_OK;
}

dure_err dure_secagg_client_survivors(dure_members *u3, dure_hash *t3, const dure_secagg_client *c)
{
    *u3 = (dure_members){{0}};
    *t3 = (dure_hash){{0}};
    if (!c->has_seen[3]) return DURE_ERR_STATE;
    *u3 = c->u3;
    *t3 = c->t3;
    return DURE_OK;
}
