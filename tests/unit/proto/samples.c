#include "samples.h"

#include <stdio.h>
#include <string.h>

static uint8_t hashes[DURE_MSG_PROOF_MAX][DURE_DIGEST_BYTES];
static uint8_t bytes[DURE_MSG_ENTRY_MAX];
static dure_span spans[DURE_MSG_ENTRIES_MAX];
static dure_round_keys keys[DURE_NEAR_MAX];
static dure_sealed sealed[DURE_NEAR_MAX];
static dure_forwarded forwarded[DURE_NEAR_MAX];
static dure_survivor survivors[DURE_NEAR_MAX];
static dure_attested attested[DURE_ROUND_MEMBERS_MAX];
static dure_revealed revealed[DURE_NEAR_MAX];

static void fill_lists(void)
{
    memset(hashes, 0x48, sizeof hashes);
    memset(bytes, 0x42, sizeof bytes);
    for (uint32_t i = 0; i < DURE_ROUND_MEMBERS_MAX; i++)
        attested[i] = (dure_attested){.member = i, .signature = {3}};
    for (uint32_t i = 0; i < DURE_NEAR_MAX; i++) {
        keys[i] = (dure_round_keys){.member = i, .chain_length = 7, .nonce = {1, 2, 3}};
        sealed[i] = (dure_sealed){.member = i, .sealed = {bytes, 116}};
        forwarded[i] = (dure_forwarded){.member = i, .sealed = {bytes, 116}, .r1_hash = {5}};
        survivors[i] = (dure_survivor){.member = i, .root = {9}};
        revealed[i] = (dure_revealed){i, i % 2 ? DURE_SHARE_MASK : DURE_SHARE_SELF, {8}};
    }
    for (size_t i = 0; i < DURE_MSG_ENTRIES_MAX; i++) {
        spans[i] = (dure_span){bytes, 1 + i};
    }
}

static void sample_lists(dure_msg *m, size_t n)
{
    switch (m->type) {
    case DURE_MSG_OPEN:
        m->u.open = (dure_msg_open){.config = {bytes, 300},
                                    .roster = spans,
                                    .n_roster = n,
                                    .checkpoint = {bytes, 40},
                                    .consistency = hashes,
                                    .n_consistency = n < DURE_MSG_PROOF_MAX ? n : 1};
        break;
    case DURE_MSG_KEYS:
        m->u.keys = (dure_msg_keys){.entries = keys,
                                    .n_entries = n,
                                    .members = {bytes, DURE_MEMBERS_BYTES_MAX},
                                    .proof = hashes,
                                    .n_proof = DURE_MSG_ROLL_PROOF_MAX,
                                    .beacon = {bytes, DURE_SIGNATURE_BYTES}};
        break;
    case DURE_MSG_SHARES:
        m->u.shares = (dure_msg_shares){.entries = sealed, .n_entries = n};
        break;
    case DURE_MSG_SHARES_FOR:
        m->u.shares_for = (dure_msg_shares_for){.entries = forwarded,
                                                .n_entries = n,
                                                .members = {bytes, 13},
                                                .proof = hashes,
                                                .n_proof = 2};
        break;
    case DURE_MSG_SURVIVORS:
        m->u.survivors =
            (dure_msg_survivors){.entries = survivors, .n_entries = n, .members = {bytes, 1}};
        break;
    case DURE_MSG_SIGNATURES:
        m->u.signatures = (dure_msg_signatures){.entries = attested, .n_entries = n};
        break;
    case DURE_MSG_UNMASK:
        m->u.unmask = (dure_msg_unmask){.entries = revealed, .n_entries = n};
        break;
    case DURE_MSG_RESULT:
        m->u.result = (dure_msg_result){.leaf = {bytes, 200},
                                        .leaf_index = 4,
                                        .checkpoint = {bytes, 90},
                                        .inclusion = hashes,
                                        .n_inclusion = 3,
                                        .consistency = hashes,
                                        .n_consistency = 2};
        break;
    default:
        break;
    }
}

dure_msg sample_message(dure_msg_type type, size_t n)
{
    fill_lists();
    dure_msg m = {.type = type};
    sample_lists(&m, n);
    switch (type) {
    case DURE_MSG_JOIN:
        m.u.join = (dure_msg_join){{bytes, 700}, {bytes, 400}};
        break;
    case DURE_MSG_REFUSED:
        m.u.refused = (dure_msg_refused){DURE_REFUSAL_NAME_TAKEN, "the name 서울 is taken"};
        break;
    case DURE_MSG_HELLO:
        m.u.hello = (dure_msg_hello){.version = DURE_MSG_VERSION,
                                     .stage = DURE_STAGE_TRAINING,
                                     .last_round = UINT64_MAX,
                                     .roster_size = 3};
        break;
    case DURE_MSG_FETCH:
        m.u.fetch = (dure_msg_fetch){.first_chunk = 3, .n_chunks = 1};
        break;
    case DURE_MSG_CHUNK:
        m.u.chunk = (dure_msg_chunk){.chunk = 3, .n_bytes = 196608};
        break;
    case DURE_MSG_BLOB_REQUEST:
        m.u.blob_request = (dure_msg_blob_request){.offset = 1u << 20, .n_bytes = 1000};
        break;
    case DURE_MSG_ENTRIES_REQUEST:
        m.u.entries_request = (dure_msg_entries_request){DURE_ENTRIES_ROSTER, 3};
        break;
    case DURE_MSG_NEW_EPOCH:
        m.u.new_epoch.leaf = dure_span_of(bytes, 300);
        break;
    case DURE_MSG_ENTRIES:
        m.u.entries = (dure_msg_entries){DURE_ENTRIES_LOG, 7, UINT64_MAX, 4, 4000};
        break;
    case DURE_MSG_ABORT:
        m.u.abort = (dure_msg_abort){.code = DURE_ABORT_BUDGET, .text = "the budget is spent"};
        break;
    case DURE_MSG_WAITING:
        m.u.waiting = (dure_msg_waiting){
            .sites_present = 2, .sites_needed = 3, .text = "2 of 3 sites are connected"};
        break;
    default:
        break;
    }
    return m;
}

void sample_config(dure_config *config, uint32_t n)
{
    *config = (dure_config){
        .suite = DURE_SUITE_X25519_AES256CTR,
        .run_id = 1,
        .round = 4,
        .roster_size = n,
        .n_members = n,
        .threshold = (n + 1) / 2 + 1,
        .u_min = 3,
        .collusion = 1,
        .n_words = 92160,
        .word_bits = 24,
        .chunk_words = 65536,
        .q_max = 65536,
        .range = 0.0625,
        .share_lifetime_ms = 3600000,
        .privacy_mode = DURE_PRIVACY_RECORD,
        .clip = 1.0,
        .grid_bits = 15,
        .rounds = 10,
        .local_steps = 4,
        .method = DURE_METHOD_FFA,
        .rank = 4,
        .alpha = 8,
        .targets = 5,
        .first_layer = 0,
        .init_seed = 1,
        .max_length = 512,
        .optimizer = DURE_LOCAL_ADAMW,
        .learning_rate = 2e-3,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .optimizer_epsilon = 1e-8,
        .weight_decay = 0,
        .server_rate = 1,
    };
    for (uint32_t i = 0; i < n; i++) {
        dure_member *m = &config->members[i];
        *m = (dure_member){.n_pub = 1000,
                           .q_k = UINT64_C(1) << 60,
                           .batch = 62,
                           .sigma_num = 70000,
                           .sigma_den = 65536};
        snprintf(m->name, sizeof m->name, "site-%03u", i);
        snprintf(m->organisation, sizeof m->organisation, "organisation %u", i / 2);
        memset(m->sign_public, (int)(i + 1), sizeof m->sign_public);
        memset(m->curve_public, (int)(i + 101), sizeof m->curve_public);
    }
}

dure_msg sample_hybrid_message(dure_msg_type type, size_t n)
{
    dure_msg msg = sample_message(type, n);
    for (uint32_t i = 0; i < DURE_NEAR_MAX; i++) {
        keys[i].kem = (dure_span){bytes, DURE_MSG_KEM_KEYS_BYTES};
        sealed[i].kem = forwarded[i].kem = (dure_span){bytes, DURE_MSG_KEM_MAX};
    }
    if (type == DURE_MSG_ADVERTISE) msg.u.advertise.keys.kem = keys[0].kem;
    if (type == DURE_MSG_SHARES) msg.u.shares.wrapped = (dure_span){bytes, DURE_MSG_WRAPPED_MAX};
    return msg;
}
