#include "script_site.h"

#include "common/clock.h"
#include "common/file.h"
#include "crypto/rng.h"
#include "federation/round_config.h"
#include "ledger/event.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BEAT_MS = 500, RECORDS = 1000, BATCH = 16 };

static void note(script_site *s, const char *text)
{
    snprintf(s->words, sizeof s->words, "%s", text);
}

static void send_frame(script_site *s, dure_span control, const dure_payload *payload)
{
    if (!s->dealer) return;
    dure_err err = dure_dealer_send(s->dealer, control, payload);
    /* While the connection is away, HELLO will bring everything up again. */
    assert_true(err == DURE_OK || err == DURE_ERR_NET || err == DURE_ERR_BUSY);
    if (!err && s->hook) s->hook(s->hook_state, true, (dure_msg_type)control.data[1]);
    if (!err) s->sent_bytes += control.n + (payload ? payload->bytes.n : 0);
}

static void send_msg(script_site *s, const dure_msg *msg, const dure_payload *payload)
{
    dure_buf frame;
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    dure_diag diag = {{0}};
    if (dure_msg_encode(&frame, msg, &diag)) fail_msg("%s", diag.text);
    send_frame(s, dure_buf_span(&frame), payload);
    dure_buf_fini(&frame);
}

/* ---- life ---- */

void script_site_make(script_site *s, const char *invitation_path, const char *folder)
{
    *s = (script_site){.seed = 1};
    dure_diag diag = {{0}};
    if (dure_invitation_read(&s->invitation, &s->invite, invitation_path, &diag))
        fail_msg("%s", diag.text);
    snprintf(s->name, sizeof s->name, "%s", s->invitation.name);
    snprintf(s->folder, sizeof s->folder, "%s", folder);
    assert_ok(dure_dir_make(folder, NULL));
    assert_ok(dure_sign_generate(&s->own));
    assert_ok(dure_curve_generate(&s->curve));
    assert_ok(dure_roster_new(&s->roster, s->invitation.root_public));
    script_site_reopen(s);
}

void script_site_reopen(script_site *s)
{
    char origin[DURE_ORIGIN_SIZE], path[512];
    dure_hash id;
    assert_ok(dure_federation_id(&id, s->invitation.root_public, s->invitation.terms.federation));
    dure_checkpoint_origin(origin, s->invitation.terms.federation, &id);
    snprintf(path, sizeof path, "%s/witness", s->folder);
    dure_witness_close(&s->witness);
    assert_ok(dure_witness_open(&s->witness, path, origin, s->invitation.coordinator_sign, NULL));
}

static void leave_round(script_site *s)
{
    dure_secagg_client_free(&s->client);
    dure_config_free(&s->config);
    dure_buf_fini(&s->r0);
    free(s->units);
    s->units = NULL;
    s->mask_ready = false;
    s->fetch.n_chunks = 0;
}

void script_site_die(script_site *s)
{
    leave_round(s);
    dure_dealer_close(&s->dealer);
    s->connects = 0;
}

void script_site_end(script_site *s)
{
    script_site_die(s);
    dure_roster_free(&s->roster);
    dure_witness_close(&s->witness);
    dure_buf_fini(&s->blob);
    dure_buf_fini(&s->log);
    dure_buf_fini(&s->note);
    dure_buf_fini(&s->cited);
}

void script_site_connect(script_site *s, bool join)
{
    const dure_dealer_opts opts = {.endpoint = s->invitation.endpoint,
                                   .key = &s->curve,
                                   .server_public = s->invitation.coordinator_curve,
                                   .reconnect_ms = 50,
                                   .reconnect_max_ms = 200,
                                   .linger_ms = 1};
    s->joined = !join;
    assert_ok(dure_dealer_open(&s->dealer, &opts, NULL));
}

/* ---- joining and greeting ---- */

void script_site_sign_join(const script_site *s, dure_join *join)
{
    *join = (dure_join){.invitation = s->invitation};
    memcpy(join->sign_public, s->own.public_, 32);
    memcpy(join->curve_public, s->curve.public_, 32);
    join->base_digest = s->invitation.terms.base.digest;
    join->declared = (dure_declared){.n_pub = RECORDS,
                                     .q_k = (uint64_t)(((unsigned __int128)BATCH << 64) / RECORDS),
                                     .batch = BATCH,
                                     .sigma_num = 65536,
                                     .sigma_den = 65536};
    assert_ok(dure_join_sign(join, &s->invite, &s->own, NULL));
}

static void say_join(script_site *s)
{
    dure_buf invitation, record;
    dure_join *join = calloc(1, sizeof *join);
    assert_non_null(join);
    script_site_sign_join(s, join);
    dure_buf_init(&invitation, DURE_INVITATION_MAX_BYTES);
    dure_buf_init(&record, DURE_ROSTER_ENTRY_MAX_BYTES);
    dure_invitation_put(&invitation, &s->invitation);
    dure_join_put(&record, join);
    const dure_msg msg = {.type = DURE_MSG_JOIN,
                          .u.join = {dure_buf_span(&invitation), dure_buf_span(&record)}};
    send_msg(s, &msg, NULL);
    dure_buf_fini(&invitation);
    dure_buf_fini(&record);
    free(join);
}

static void say_hello(script_site *s)
{
    dure_msg msg = {.type = DURE_MSG_HELLO,
                    .u.hello = {.version = DURE_MSG_VERSION,
                                .last_round = s->claims_round ? s->claims_round : s->last_round,
                                .roster_size = dure_roster_entries(s->roster) +
                                               (s->lie == SCRIPT_LENGTHENS_ROSTER)}};
    dure_hash id;
    const dure_merkle_head head = dure_witness_head(s->witness);
    assert_ok(dure_federation_id(&id, s->invitation.root_public, s->invitation.terms.federation));
    memcpy(msg.u.hello.federation_id, id.b, 32);
    msg.u.hello.checkpoint_size = head.n + (s->lie == SCRIPT_CLAIMS_MORE ? 10 : 0);
    if (head.n) memcpy(msg.u.hello.checkpoint_root, head.root.b, 32);
    msg.u.hello.chain_length = s->chain_length;
    memset(msg.u.hello.chain_head, (int)s->chain_length, 32);
    if (s->client) {
        memcpy(msg.u.hello.config_hash, s->config_hash.b, 32);
        msg.u.hello.stage = dure_secagg_client_stage(s->client);
    }
    send_msg(s, &msg, NULL);
}

static void say_cosign(script_site *s)
{
    dure_cosignature cosignature;
    const dure_merkle_head head = dure_witness_head(s->witness);
    if (head.n == 0) return;
    assert_ok(
        dure_witness_cosign(&cosignature, s->witness, &s->own, (uint64_t)dure_clock_wall_s()));
    dure_msg msg = {.type = DURE_MSG_COSIGN,
                    .u.cosign = {.checkpoint_size = head.n, .time_s = cosignature.time_s}};
    memcpy(msg.u.cosign.checkpoint_root, head.root.b, 32);
    memcpy(msg.u.cosign.signature, cosignature.signature, 64);
    send_msg(s, &msg, NULL);
}

static void say_heartbeat(script_site *s)
{
    dure_msg msg = {.type = DURE_MSG_HEARTBEAT};
    if (s->client) memcpy(msg.u.heartbeat.config_hash, s->config_hash.b, 32);
    send_msg(s, &msg, NULL);
}

/* ---- a round ---- */

/* Small values that differ by site and round. */
static void give_update(script_site *s);

static void keep_r0(script_site *s, dure_span frame)
{
    if (frame.data[1] == DURE_MSG_ADVERTISE && !s->r0.n) {
        dure_buf_init(&s->r0, DURE_MSG_BYTES_MAX);
        dure_put_raw(&s->r0, frame.data, frame.n);
    }
    if (frame.data[1] == DURE_MSG_CONSISTENCY && s->vice == SCRIPT_R0_AFTER_R3)
        send_frame(s, dure_buf_span(&s->r0), NULL);
}

static void act(script_site *s, dure_secagg_actions *actions)
{
    for (size_t i = 0; i < actions->n && s->client; i++) {
        const dure_secagg_action *a = &actions->items[i];
        if (a->kind == DURE_SECAGG_SEND) send_frame(s, a->bytes, NULL);
        if (a->kind == DURE_SECAGG_SEND) keep_r0(s, a->bytes);
        if (a->kind == DURE_SECAGG_MASK) s->mask_ready = true;
        if (a->kind == DURE_SECAGG_END) note(s, a->text);
    }
    dure_secagg_actions_fini(actions);
    if (s->client && dure_secagg_client_stage(s->client) == DURE_STAGE_IDLE) leave_round(s);
}

static void give_update(script_site *s)
{
    const size_t n = s->config->n_words;
    dure_secagg_actions actions = {0};
    s->mask_ready = false;
    if (s->vice == SCRIPT_DIES_TRAINING) {
        script_site_die(s);
        return;
    }
    s->units = calloc(n, sizeof *s->units);
    assert_non_null(s->units);
    for (size_t i = 0; i < n; i++) {
        s->seed = s->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        s->units[i] = (int32_t)(s->seed >> 40) % 2000 - 1000;
    }
    dure_diag diag = {{0}};
    if (dure_secagg_client_update(&actions, s->client, s->units, n, &diag))
        fail_msg("%s", diag.text);
    if (s->chain_length) s->chain_length++; /* it pays */
    act(s, &actions);
}

static void on_open(script_site *s, const dure_msg_open *open)
{
    dure_config *config = NULL;
    dure_hash hash;
    dure_diag diag = {{0}};
    dure_secagg_actions actions = {0};
    assert_ok(dure_round_config_hash(&hash, open->config));
    if (s->client && dure_hash_equal(&hash, &s->config_hash)) {
        assert_ok(dure_secagg_client_start(&actions, s->client, NULL));
        act(s, &actions);
        return;
    }
    leave_round(s);
    dure_err err = dure_round_config_verify_signature(&hash, open->signature,
                                                      s->invitation.coordinator_sign, &diag);
    for (size_t i = 0; !err && i < open->n_roster; i++)
        if (open->roster_from + i >= dure_roster_entries(s->roster))
            err = dure_roster_append(s->roster, open->roster[i], &diag);
    if (!err) err = dure_config_decode(&config, open->config, &diag);
    if (!err) err = dure_round_config_verify(config, &s->invitation.terms, s->roster, &diag);
    dure_merkle_proof proof = {.n = open->n_consistency};
    for (size_t i = 0; i < proof.n && i < DURE_MERKLE_PROOF_MAX; i++)
        memcpy(proof.nodes[i].b, open->consistency[i], 32);
    /* An older checkpoint than the last one seen is fine: the newer did not get its quorum. */
    if (!err && config->checkpoint_size >= dure_witness_head(s->witness).n &&
        config->checkpoint_size)
        err = dure_witness_update(s->witness, open->checkpoint, &proof, &diag);
    if (err) {
        note(s, diag.text);
        dure_config_free(&config);
        return;
    }
    if (open->checkpoint.n) {
        if (!s->n_cited++) dure_buf_init(&s->cited, 1 << 20);
        dure_put_bytes(&s->cited, open->checkpoint.data, open->checkpoint.n);
    }
    s->config = config;
    s->config_hash = hash;
    dure_secagg_client_opts opts = {
        .config = config,
        .config_hash = hash,
        .sign = &s->own,
        .coordinator_sign = s->invitation.coordinator_sign,
        .rng = dure_rng_system(),
        .floors = {.collusion = s->collusion ? s->collusion : 1, .threshold = 3, .u_min = 3},
        .last_round = s->last_round,
        .chain_length = s->chain_length};
    memset(opts.chain_head.b, (int)s->chain_length, 32);
    err = dure_secagg_client_new(&s->client, &opts, &diag);
    if (err) {
        note(s, diag.text);
        leave_round(s);
        return;
    }
    if (s->vice == SCRIPT_REFUSES)
        assert_ok(dure_secagg_client_abort(&actions, s->client, DURE_ABORT_BUDGET, "no budget"));
    else
        assert_ok(dure_secagg_client_start(&actions, s->client, NULL));
    s->last_round = config->round;
    act(s, &actions);
}

static void send_chunk(script_site *s, uint32_t chunk, size_t n_bytes)
{
    const dure_span vector = dure_secagg_client_vector(s->client);
    const size_t at = chunk * dure_config_chunk_bytes(s->config, 0);
    dure_msg msg = {.type = DURE_MSG_CHUNK,
                    .u.chunk = {.chunk = chunk, .n_bytes = (uint32_t)n_bytes}};
    memcpy(msg.u.chunk.config_hash, s->config_hash.b, 32);
    const dure_payload payload = {.bytes = dure_span_of(vector.data + at, n_bytes)};
    send_msg(s, &msg, &payload);
}

/* What the coordinator gave credit for, as soon as there is a vector to send. */
static void serve_fetch(script_site *s)
{
    if (!s->client || s->hold_upload || dure_secagg_client_vector(s->client).n == 0) return;
    const dure_msg_fetch fetch = s->fetch;
    const uint32_t first = fetch.first_chunk;
    s->fetch.n_chunks = 0;
    for (uint32_t i = 0; i < fetch.n_chunks && s->client; i++) {
        const size_t n = dure_config_chunk_bytes(s->config, first + i);
        dure_secagg_actions actions = {0};
        if (s->vice == SCRIPT_SHORT_CHUNK) {
            send_chunk(s, first + i, n - 3);
            return;
        }
        if (s->vice == SCRIPT_UNASKED_CHUNK) {
            dure_msg msg = {.type = DURE_MSG_CHUNK, .u.chunk = {.chunk = 900, .n_bytes = 3}};
            const dure_payload payload = {.bytes = dure_span_of("abc", 3)};
            memcpy(msg.u.chunk.config_hash, s->config_hash.b, 32);
            send_msg(s, &msg, &payload);
            return;
        }
        send_chunk(s, first + i, n);
        if (s->vice == SCRIPT_DUPLICATE) send_chunk(s, first + i, n);
        if (s->vice == SCRIPT_DIES_UPLOADING) {
            script_site_turn(s, 20); /* lets the chunk leave */
            script_site_die(s);
            return;
        }
        assert_ok(dure_secagg_client_sent(&actions, s->client, first + i, NULL));
        if (s->vice == SCRIPT_DUPLICATE)
            for (size_t k = 0; k < actions.n; k++)
                if (actions.items[k].kind == DURE_SECAGG_SEND)
                    send_frame(s, actions.items[k].bytes, NULL);
        act(s, &actions);
        if (s->vice == SCRIPT_CHUNK_AFTER_R2 && s->client &&
            dure_secagg_client_stage(s->client) == DURE_STAGE_MASKED)
            send_chunk(s, 0, 3);
        if (s->vice == SCRIPT_DIES_MASKED && s->client &&
            dure_secagg_client_stage(s->client) == DURE_STAGE_MASKED) {
            script_site_turn(s, 20);
            script_site_die(s);
            return;
        }
    }
}

static void on_fetch(script_site *s, const dure_msg_fetch *fetch)
{
    s->fetch = *fetch;
    serve_fetch(s);
}

static dure_err take_result(script_site *s, const dure_msg_result *r, dure_diag *diag)
{
    dure_merkle_proof inclusion = {.n = r->n_inclusion}, consistency = {.n = r->n_consistency};
    for (size_t i = 0; i < inclusion.n; i++)
        memcpy(inclusion.nodes[i].b, r->inclusion[i], 32);
    for (size_t i = 0; i < consistency.n; i++)
        memcpy(consistency.nodes[i].b, r->consistency[i], 32);
    dure_err err = dure_witness_update(s->witness, r->checkpoint, &consistency, diag);
    if (!err) {
        dure_buf_fini(&s->note);
        dure_buf_init(&s->note, DURE_NOTE_MAX);
        dure_put_raw(&s->note, r->checkpoint.data, r->checkpoint.n);
    }
    dure_hash leaf;
    const dure_merkle_head head = dure_witness_head(s->witness);
    if (!err) err = dure_merkle_leaf(&leaf, r->leaf);
    if (!err) err = dure_merkle_verify_inclusion(&head, r->leaf_index, &leaf, &inclusion);
    return err;
}

/* It signed these survivors, so its vector is in the sum. */
static bool is_in_sum(const script_site *s, const dure_msg_result *r)
{
    dure_members u3;
    dure_hash t3;
    return s->client && !dure_secagg_client_survivors(&u3, &t3, s->client) &&
           memcmp(r->t3, t3.b, sizeof t3.b) == 0;
}

static void on_result(script_site *s, const dure_msg_result *r)
{
    dure_diag diag = {{0}};
    if (take_result(s, r, &diag)) {
        note(s, diag.text);
        return;
    }
    say_cosign(s);
    if (!is_in_sum(s, r)) {
        s->n_others_results++;
        if (s->client && memcmp(r->config_hash, s->config_hash.b, sizeof s->config_hash.b) == 0)
            leave_round(s);
        return;
    }
    s->result = *r;
    s->n_results++;
    dure_secagg_client_free(&s->client);
    dure_config_free(&s->config);
}

static void on_blob_chunk(script_site *s, const dure_msg_blob_chunk *c, dure_span payload)
{
    assert_int_equal(payload.n, c->n_bytes);
    assert_int_equal(c->offset, s->blob.n);
    s->blob_total = c->total_bytes;
    dure_put_raw(&s->blob, payload.data, payload.n);
    if (s->blob.n >= s->blob_total) return;
    dure_msg msg = {.type = DURE_MSG_BLOB_REQUEST,
                    .u.blob_request = {.offset = s->blob.n, .n_bytes = DURE_MSG_PAYLOAD_MAX}};
    memcpy(msg.u.blob_request.digest, s->blob_digest.b, 32);
    send_msg(s, &msg, NULL);
}

void script_site_fetch_blob(script_site *s, const uint8_t digest[32])
{
    dure_buf_fini(&s->blob);
    dure_buf_init(&s->blob, 1 << 28);
    s->blob_total = UINT64_MAX;
    memcpy(s->blob_digest.b, digest, 32);
    dure_msg msg = {.type = DURE_MSG_BLOB_REQUEST,
                    .u.blob_request = {.offset = 0, .n_bytes = DURE_MSG_PAYLOAD_MAX}};
    memcpy(msg.u.blob_request.digest, digest, 32);
    send_msg(s, &msg, NULL);
}

/* ---- what a coordinator lost ---- */

static void on_entries(script_site *s, const dure_msg_entries *e, dure_span payload)
{
    if (e->kind != DURE_ENTRIES_LOG || e->from != s->log_n) return;
    if (!s->log_n) dure_buf_init(&s->log, 1 << 24);
    dure_put_raw(&s->log, payload.data, payload.n);
    s->log_n += e->n_entries;
}

/* Entries of `all` from number `from` on. */
static void tell_from(dure_buf *out, dure_msg_entries *e, dure_span all, const script_site *s)
{
    dure_reader r = dure_reader_of(all);
    dure_span entry;
    for (uint64_t i = 0; !dure_take_bytes(&entry, &r, DURE_LEAF_MAX); i++) {
        if (i < e->from || (s->lie == SCRIPT_SENDS_SCRAPS && e->n_entries)) continue;
        dure_put_bytes(out, entry.data, entry.n);
        e->n_entries++;
    }
}

static void tell_log(dure_buf *out, dure_msg_entries *e, const script_site *s)
{
    e->total = s->log_n;
    tell_from(out, e, dure_buf_span(&s->log), s);
    /* The time of the first entry: 8 bytes behind version, kind and number. */
    if (s->lie == SCRIPT_ALTERS_LOG && out->n) out->data[4 + 11 + 1 + 8 + 7] ^= 1;
    if (s->lie == SCRIPT_SENDS_JUNK && out->n) memset(out->data + 4, 0x5a, 8);
}

static void tell_roster(dure_buf *out, dure_msg_entries *e, const script_site *s)
{
    const size_t n = dure_roster_entries(s->roster) - (s->lie == SCRIPT_HIDES_ROSTER);
    e->total = n + (s->lie == SCRIPT_LENGTHENS_ROSTER);
    for (size_t i = (size_t)e->from; i < n; i++, e->n_entries++) {
        const dure_span entry = dure_roster_entry(s->roster, i);
        dure_put_bytes(out, entry.data, entry.n);
    }
    if (s->lie != SCRIPT_LENGTHENS_ROSTER) return;
    dure_put_bytes(out, s->forged.data, s->forged.n);
    e->n_entries++;
}

static void on_entries_request(script_site *s, const dure_msg_entries_request *q)
{
    dure_buf bytes;
    dure_msg msg = {.type = DURE_MSG_ENTRIES, .u.entries = {.kind = q->kind, .from = q->from}};
    dure_msg_entries *e = &msg.u.entries;
    dure_buf_init(&bytes, DURE_ENTRIES_ANSWER_BYTES);
    if (q->kind == DURE_ENTRIES_LOG) tell_log(&bytes, e, s);
    if (q->kind == DURE_ENTRIES_ROSTER) tell_roster(&bytes, e, s);
    if (q->kind == DURE_ENTRIES_CHECKPOINT && s->note.n) {
        dure_put_bytes(&bytes, s->note.data, s->note.n);
        e->n_entries = 1;
        e->total = 1;
    }
    if (q->kind == DURE_ENTRIES_NOTES) {
        dure_put_raw(&bytes, s->cited.data, s->cited.n);
        e->total = e->n_entries = s->n_cited;
    }
    e->n_bytes = (uint32_t)bytes.n;
    const dure_payload payload = {.bytes = dure_buf_span(&bytes)};
    send_msg(s, &msg, &payload);
    dure_buf_fini(&bytes);
    if (q->kind == DURE_ENTRIES_NOTES) say_hello(s); /* a site says it after every answer */
}

/* The adapter, if it has fetched it. */
static void on_blob_request(script_site *s, const dure_msg_blob_request *q)
{
    dure_msg msg = {.type = DURE_MSG_BLOB_CHUNK, .u.blob_chunk = {.offset = q->offset}};
    dure_msg_blob_chunk *c = &msg.u.blob_chunk;
    dure_payload payload = {0};
    memcpy(c->digest, q->digest, 32);
    if (s->blob.n && memcmp(q->digest, s->blob_digest.b, 32) == 0 && q->offset < s->blob.n) {
        const uint64_t left = s->blob.n - q->offset;
        if (s->lie == SCRIPT_ALTERS_FILE) s->blob.data[s->blob.n / 2] ^= 1;
        c->total_bytes = s->blob.n;
        c->n_bytes = q->n_bytes < left ? q->n_bytes : (uint32_t)left;
        payload.bytes = dure_span_of(s->blob.data + q->offset, c->n_bytes);
    }
    send_msg(s, &msg, &payload);
}

/* As a site does: what was lost is no part of its log any more. */
static void on_new_epoch(script_site *s, const dure_msg_new_epoch *e)
{
    dure_diag diag = {{0}};
    if (dure_witness_new_epoch(s->witness, e->leaf, s->invitation.root_public, &diag)) {
        note(s, diag.text);
        return;
    }
    s->n_epochs++;
    leave_round(s);
    dure_buf_fini(&s->log);
    s->log_n = 0;
    say_hello(s);
}

/* ---- messages ---- */

static void on_round_message(script_site *s, const dure_msg *msg)
{
    dure_secagg_actions actions = {0};
    dure_diag diag = {{0}};
    if (!s->client || (s->hold_r3 && msg->type == DURE_MSG_SURVIVORS)) return;
    dure_err err =
        dure_secagg_client_step(&actions, s->client, msg, dure_clock_monotonic_ms(), &diag);
    if (err && err != DURE_ERR_STATE) note(s, diag.text);
    act(s, &actions);
}

static void on_message(script_site *s, const dure_msg *msg, dure_span payload)
{
    switch (msg->type) {
    case DURE_MSG_JOINED:
        s->joined = true;
        say_hello(s);
        break;
    case DURE_MSG_REFUSED:
        s->refusal = msg->u.refused.code;
        note(s, msg->u.refused.text);
        break;
    case DURE_MSG_OPEN:
        on_open(s, &msg->u.open);
        break;
    case DURE_MSG_FETCH:
        on_fetch(s, &msg->u.fetch);
        break;
    case DURE_MSG_RESULT:
        on_result(s, &msg->u.result);
        break;
    case DURE_MSG_BLOB_CHUNK:
        on_blob_chunk(s, &msg->u.blob_chunk, payload);
        break;
    case DURE_MSG_ABORT:
        s->n_aborts++;
        note(s, msg->u.abort.text);
        on_round_message(s, msg);
        if (!s->client) leave_round(s);
        break;
    case DURE_MSG_ENTRIES:
        on_entries(s, &msg->u.entries, payload);
        break;
    case DURE_MSG_ENTRIES_REQUEST:
        on_entries_request(s, &msg->u.entries_request);
        break;
    case DURE_MSG_BLOB_REQUEST:
        on_blob_request(s, &msg->u.blob_request);
        break;
    case DURE_MSG_NEW_EPOCH:
        on_new_epoch(s, &msg->u.new_epoch);
        break;
    case DURE_MSG_HEARTBEAT:
    case DURE_MSG_WAITING:
        break;
    default:
        on_round_message(s, msg);
        break;
    }
}

static void keep_up(script_site *s)
{
    const dure_dealer_status *status = dure_dealer_status_of(s->dealer);
    if (status->connected && status->connects != s->connects) {
        s->connects = status->connects;
        if (s->joined) {
            say_hello(s);
            say_cosign(s); /* the one before may have been lost */
        } else {
            say_join(s);
        }
    }
    const uint64_t now_ms = dure_clock_monotonic_ms();
    if (status->connected && s->joined && now_ms - s->beat_ms >= BEAT_MS) {
        s->beat_ms = now_ms;
        say_heartbeat(s);
    }
    if (s->client && s->mask_ready && !s->hold) give_update(s);
    serve_fetch(s);
}

void script_site_turn(script_site *s, uint32_t wait_ms)
{
    for (int i = 0; i < 64 && s->dealer; i++) {
        dure_envelope envelope = {0};
        dure_msg *msg = NULL;
        dure_err err = dure_dealer_recv(&envelope, s->dealer, wait_ms);
        keep_up(s);
        if (!s->dealer || err == DURE_ERR_TIMEOUT) {
            dure_envelope_fini(&envelope);
            break;
        }
        if (!err) {
            dure_diag diag = {{0}};
            if (dure_msg_decode(&msg, envelope.control, &diag)) fail_msg("%s", diag.text);
            if (s->hook) s->hook(s->hook_state, false, msg->type);
            if (s->dealer) on_message(s, msg, envelope.payload);
            dure_msg_free(&msg);
        }
        dure_envelope_fini(&envelope);
        wait_ms = 0;
    }
}
