/* A whole round of the secure sum driven by bytes: the machine of every site and the coordinator's,
 * with a network between them that delivers in any order, repeats, changes, misdelivers and loses,
 * and a coordinator and sites that crash, leave and give up. The first byte chooses the round; then
 * each byte is an act. When they run out, what is still on its way arrives.
 *
 * Whatever happens, a site signs one list of shares, one T3 and one R4; of a member's two secrets
 * the shares of one kind alone are revealed, by anybody; a sum that comes out is the plain sum of
 * the survivors; the coordinator comes to an end; and if nobody left and no byte was changed, that
 * end is a sum. */
#include "crypto/hash.h"
#include "secagg/client.h"
#include "secagg/graph.h"
#include "secagg/server.h"
#include "support/round_config.h"
#include "support/seeded_rng.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { SITES_MAX = 8, WORDS = 20, LETTERS_MAX = 512, ACTS_MAX = 400, DELIVERIES_MAX = 20000 };

/* Rounds that pass dure_config_check(); 0 neighbours: the complete graph. */
typedef struct shape {
    uint32_t n, neighbours, threshold, collusion, u_min;
} shape;
static const shape shapes[] = {
    {4, 0, 3, 1, 3}, {5, 0, 4, 1, 3}, {3, 0, 3, 1, 3}, {8, 4, 3, 0, 6}, {8, 4, 4, 1, 7},
};

typedef struct letter {
    bool to_server;
    uint32_t member;
    uint8_t *bytes;
    size_t n;
} letter;

/* What a site may say once only, as a digest of it. */
typedef struct once {
    bool said;
    dure_hash digest;
} once;

typedef struct fuzz_site {
    dure_secagg_client *client; /* NULL: it crashed with secrets that nobody else has */
    once r1, r3, r4;
    uint8_t spool[WORDS * 3];
    dure_vector_tree tree;
} fuzz_site;

typedef struct fuzz_round {
    const uint8_t *data; /* the acts that are left */
    size_t n_data;
    seeded_rng random; /* of the machines' secrets: the same bytes are the same round */
    dure_rng rng;      /* draws from it */
    dure_config *config;
    dure_hash config_hash;
    fuzz_site sites[SITES_MAX];
    dure_secagg_server *server;
    dure_buf records[4];
    size_t n_records;
    uint32_t kinds[SITES_MAX]; /* bits of dure_share_kind that were revealed about a member */
    letter letters[LETTERS_MAX];
    size_t n_letters, n_delivered;
    bool disturbed, dies_when_synced, summed;
} fuzz_round;

static dure_sign_key coordinator, beacon, keys[SITES_MAX];

static void must(bool held)
{
    if (!held) abort();
}

static uint32_t next(fuzz_round *r)
{
    if (!r->n_data) return 0;
    r->n_data--;
    return *r->data++;
}

static int32_t unit(uint32_t site, uint32_t word)
{
    return (int32_t)(site * 7919 + word * 104729) % 4001 - 2000;
}

/* ---- letters ---- */

static void post(fuzz_round *r, bool to_server, uint32_t member, dure_span bytes)
{
    if (r->n_letters == LETTERS_MAX) {
        r->disturbed = true;
        return;
    }
    letter *l = &r->letters[r->n_letters];
    *l = (letter){to_server, member, malloc(bytes.n), bytes.n};
    if (!l->bytes) return;
    memcpy(l->bytes, bytes.data, bytes.n);
    r->n_letters++;
}

static letter take_letter(fuzz_round *r, size_t i)
{
    const letter l = r->letters[i];
    r->n_letters--;
    memmove(&r->letters[i], &r->letters[i + 1], (r->n_letters - i) * sizeof l);
    return l;
}

/* ---- what sites do ---- */

static void say_once(once *said, dure_span bytes)
{
    dure_hash digest;
    must(dure_hash_bytes(&digest, bytes) == DURE_OK);
    must(!said->said || dure_hash_equal(&digest, &said->digest));
    *said = (once){true, digest};
}

static void watch(fuzz_round *r, uint32_t member, dure_span bytes)
{
    fuzz_site *site = &r->sites[member];
    dure_msg *msg = NULL;
    must(dure_msg_decode(&msg, bytes, NULL) == DURE_OK);
    if (msg->type == DURE_MSG_SHARES) say_once(&site->r1, bytes);
    if (msg->type == DURE_MSG_CONSISTENCY) say_once(&site->r3, bytes);
    if (msg->type == DURE_MSG_UNMASK) say_once(&site->r4, bytes);
    if (msg->type == DURE_MSG_ABORT) r->disturbed = true;
    for (size_t i = 0; msg->type == DURE_MSG_UNMASK && i < msg->u.unmask.n_entries; i++) {
        const dure_revealed *e = &msg->u.unmask.entries[i];
        must(e->member < r->config->n_members);
        uint32_t *kinds = &r->kinds[e->member];
        *kinds |= 1u << e->kind;
        must((*kinds & (*kinds - 1)) == 0);
    }
    dure_msg_free(&msg);
}

static void mask(fuzz_round *r, uint32_t member, dure_secagg_actions *actions)
{
    int32_t units[WORDS];
    for (uint32_t i = 0; i < WORDS; i++)
        units[i] = unit(member, i);
    dure_secagg_client *client = r->sites[member].client;
    must(dure_secagg_client_update(actions, client, units, WORDS, NULL) == DURE_OK);
    /* A second time it must not be masked. */
    must(dure_secagg_client_update(actions, client, units, WORDS, NULL) == DURE_ERR_STATE);
}

/* The coordinator fetches all of it at once. */
static void upload(fuzz_round *r, uint32_t member, dure_secagg_actions *actions)
{
    fuzz_site *site = &r->sites[member];
    const dure_span vector = dure_secagg_client_vector(site->client);
    const size_t stride = dure_config_chunk_bytes(r->config, 0);
    if (!vector.n) return;
    must(vector.n == sizeof site->spool);
    memcpy(site->spool, vector.data, vector.n);
    site->tree = (dure_vector_tree){0};
    for (uint32_t i = 0; i < dure_config_chunks(r->config); i++) {
        const dure_span chunk = {site->spool + i * stride, dure_config_chunk_bytes(r->config, i)};
        must(dure_vector_tree_add(&site->tree, r->config, chunk) == DURE_OK);
        must(dure_secagg_client_sent(actions, site->client, i, NULL) == DURE_OK);
    }
}

/* The list grows while it is carried out. */
static void do_site(fuzz_round *r, uint32_t member, dure_secagg_actions *actions)
{
    for (size_t i = 0; i < actions->n; i++) {
        const dure_secagg_action_kind kind = actions->items[i].kind;
        if (kind == DURE_SECAGG_MASK) mask(r, member, actions);
        if (kind == DURE_SECAGG_UPLOAD) upload(r, member, actions);
        if (kind != DURE_SECAGG_SEND) continue;
        watch(r, member, actions->items[i].bytes);
        post(r, true, member, actions->items[i].bytes);
    }
    dure_secagg_actions_fini(actions);
}

static void begin_site(fuzz_round *r, uint32_t member)
{
    dure_secagg_actions actions = {0};
    const dure_secagg_client_opts opts = {.config = r->config,
                                          .config_hash = r->config_hash,
                                          .sign = &keys[member],
                                          .coordinator_sign = coordinator.public_,
                                          .rng = r->rng,
                                          .floors = {r->config->collusion, 0, 3},
                                          .beacon = {beacon.public_, 1}};
    must(dure_secagg_client_new(&r->sites[member].client, &opts, NULL) == DURE_OK);
    must(dure_secagg_client_start(&actions, r->sites[member].client, NULL) == DURE_OK);
    do_site(r, member, &actions);
}

/* Before R1 a restarted site begins anew; after it, its number is used up. */
static void crash_site(fuzz_round *r, uint32_t member)
{
    r->disturbed = true;
    dure_secagg_client_free(&r->sites[member].client);
    if (!r->sites[member].r1.said) begin_site(r, member);
}

static void leave(fuzz_round *r, uint32_t member, bool expires)
{
    dure_secagg_actions actions = {0};
    dure_secagg_client *client = r->sites[member].client;
    r->disturbed = true;
    if (!client) return;
    dure_err err = expires ? dure_secagg_client_tick(&actions, client, UINT64_MAX)
                           : dure_secagg_client_abort(&actions, client, DURE_ABORT_LOCAL, "gone");
    must(err == DURE_OK);
    do_site(r, member, &actions);
}

/* ---- what the coordinator does ---- */

static void check_sum(fuzz_round *r)
{
    const dure_members u3 = dure_secagg_server_set(r->server, 3);
    const size_t stride = dure_config_chunk_bytes(r->config, 0);
    uint32_t sum[2 * 16] = {0};
    must(dure_members_count(&u3) >= r->config->u_min);
    for (uint32_t c = 0; c < dure_config_chunks(r->config); c++) {
        uint32_t *part = sum + c * r->config->chunk_words;
        for (uint32_t u = 0; u < r->config->n_members; u++) {
            if (!dure_members_has(&u3, u)) continue;
            const dure_span chunk = {r->sites[u].spool + c * stride,
                                     dure_config_chunk_bytes(r->config, c)};
            dure_vector_add_packed(part, chunk, r->config);
        }
        must(dure_masks_apply(part, dure_secagg_server_unmasker(r->server), c) == DURE_OK);
    }
    for (uint32_t i = 0; i < WORDS; i++) {
        int64_t plain = 0;
        for (uint32_t u = 0; u < r->config->n_members; u++)
            plain += dure_members_has(&u3, u) ? unit(u, i) : 0;
        must(dure_mask_value(sum[i], r->config->word_bits) == plain);
    }
    r->summed = true;
}

static void crash_server(fuzz_round *r);

static void do_server(fuzz_round *r, dure_secagg_actions *actions)
{
    bool crashes = false;
    for (size_t i = 0; i < actions->n && !crashes; i++) {
        const dure_secagg_action *a = &actions->items[i];
        if (a->kind == DURE_SECAGG_SEND) post(r, false, a->member, a->bytes);
        if (a->kind == DURE_SECAGG_UNMASK) check_sum(r);
        if (a->kind == DURE_SECAGG_BLAME) must(r->disturbed);
        if (a->kind != DURE_SECAGG_PERSIST) continue;
        must(a->record == r->n_records + 1);
        dure_buf_init(&r->records[r->n_records], 1u << 20);
        dure_put_raw(&r->records[r->n_records++], a->bytes.data, a->bytes.n);
        crashes = r->dies_when_synced;
    }
    dure_secagg_actions_fini(actions);
    if (crashes) crash_server(r);
}

static void speak_beacon(fuzz_round *r)
{
    uint8_t signature[DURE_SIGNATURE_BYTES];
    dure_secagg_actions actions = {0};
    const dure_span span = {signature, sizeof signature};
    if (!r->config->neighbours) return;
    must(dure_beacon_sign(signature, &coordinator, r->config->federation_id, 1) == DURE_OK);
    must(dure_secagg_server_beacon(&actions, r->server, span, NULL) != DURE_OK);
    must(dure_beacon_sign(signature, &beacon, r->config->federation_id, 1) == DURE_OK);
    const dure_err err = dure_secagg_server_beacon(&actions, r->server, span, NULL);
    must(err == DURE_OK || err == DURE_ERR_STATE);
    do_server(r, &actions);
}

/* It goes on from what was synced, also when a sum was there that was not stored. Sites connect
 * again, and say again what it asks for. */
static void crash_server(fuzz_round *r)
{
    dure_span records[4];
    dure_secagg_actions actions = {0};
    const dure_secagg_server_opts opts = {r->config, r->config_hash, &coordinator};
    if (dure_secagg_server_phase(r->server) == DURE_SECAGG_PHASE_FAILED) return; /* it is closed */
    for (size_t i = 0; i < r->n_records; i++)
        records[i] = dure_buf_span(&r->records[i]);
    r->dies_when_synced = false;
    dure_secagg_server_free(&r->server);
    must(dure_secagg_server_resume(&r->server, &actions, &opts, records, r->n_records, NULL) ==
         DURE_OK);
    do_server(r, &actions);
    if (r->n_records) return;
    for (uint32_t u = 0; u < r->config->n_members; u++) {
        dure_err err = r->sites[u].client
                           ? dure_secagg_client_start(&actions, r->sites[u].client, NULL)
                           : DURE_OK;
        must(err == DURE_OK || err == DURE_ERR_STATE);
        do_site(r, u, &actions);
    }
    speak_beacon(r);
}

/* ---- the network ---- */

static void to_server(fuzz_round *r, uint32_t member, const dure_msg *msg)
{
    dure_secagg_actions actions = {0};
    dure_hash root;
    const bool whole = dure_vector_tree_root(&root, &r->sites[member].tree, r->config) == DURE_OK;
    const dure_err err =
        dure_secagg_server_step(&actions, r->server, member, msg, whole ? &root : NULL, NULL);
    must(err == DURE_OK || err == DURE_ERR_STATE ||
         (r->disturbed && (err == DURE_ERR_PROTO || err == DURE_ERR_AUTH)));
    do_server(r, &actions);
}

static void to_site(fuzz_round *r, uint32_t member, const dure_msg *msg)
{
    dure_secagg_actions actions = {0};
    dure_secagg_client *client = r->sites[member].client;
    if (!client) return;
    const dure_err err = dure_secagg_client_step(&actions, client, msg, 1, NULL);
    must(err == DURE_OK || err == DURE_ERR_STATE ||
         (r->disturbed &&
          (err == DURE_ERR_PROTO || err == DURE_ERR_AUTH || err == DURE_ERR_POLICY)));
    do_site(r, member, &actions);
}

static void deliver(fuzz_round *r, const letter *l)
{
    dure_msg *msg = NULL;
    must(++r->n_delivered < DELIVERIES_MAX); /* they do not answer each other for ever */
    if (dure_msg_decode(&msg, (dure_span){l->bytes, l->n}, NULL)) {
        must(r->disturbed);
        return;
    }
    if (l->to_server) {
        to_server(r, l->member, msg);
    } else {
        to_site(r, l->member, msg);
    }
    dure_msg_free(&msg);
}

static void repeat(fuzz_round *r, const letter *l)
{
    post(r, l->to_server, l->member, (dure_span){l->bytes, l->n});
}

static void change(fuzz_round *r, letter *l)
{
    const uint32_t at = next(r) << 8 | next(r), bits = next(r);
    r->disturbed = true;
    l->bytes[at % l->n] ^= (uint8_t)(bits ? bits : 1);
}

/* ---- acts ---- */

static void act_on_letter(fuzz_round *r, uint32_t act)
{
    if (!r->n_letters) return;
    letter l = take_letter(r, next(r) % r->n_letters);
    if (act == 4) repeat(r, &l);
    if (act == 5) change(r, &l);
    if (act == 6) l.member = next(r) % r->config->n_members;
    if (act >= 6) r->disturbed = true;
    if (act != 7) deliver(r, &l);
    free(l.bytes);
}

static void act_on_machines(fuzz_round *r, uint32_t act)
{
    dure_secagg_actions actions = {0};
    const uint32_t member = next(r) % r->config->n_members;
    dure_err err = DURE_OK;
    switch (act) {
    case 8:
        r->disturbed = true;
        err = dure_secagg_server_drop(&actions, r->server, member);
        break;
    case 9:
        r->disturbed = true;
        err = dure_secagg_server_advance(&actions, r->server);
        break;
    case 10:
        err = dure_secagg_server_repeat(&actions, r->server, member);
        break;
    case 11:
        crash_server(r);
        return;
    case 12:
        r->dies_when_synced = true;
        return;
    case 13:
        crash_site(r, member);
        return;
    case 14:
        leave(r, member, next(r) & 1);
        return;
    default:
        speak_beacon(r);
        return;
    }
    must(err == DURE_OK || err == DURE_ERR_STATE);
    do_server(r, &actions);
}

/* Everything arrives; who is still missing is gone. */
static void finish(fuzz_round *r)
{
    const uint32_t n = r->config->n_members;
    speak_beacon(r);
    for (uint32_t gone = 0; gone <= 8 * n; gone++) {
        while (r->n_letters) {
            letter l = take_letter(r, 0);
            deliver(r, &l);
            free(l.bytes);
        }
        if (dure_secagg_server_phase(r->server) >= DURE_SECAGG_PHASE_SUMMED) break;
        const dure_members missing = dure_secagg_server_missing(r->server);
        uint32_t u = 0;
        while (u < n && !dure_members_has(&missing, u))
            u++;
        dure_secagg_actions actions = {0};
        const dure_err err = u < n ? dure_secagg_server_drop(&actions, r->server, u)
                                   : dure_secagg_server_advance(&actions, r->server);
        must(err == DURE_OK);
        do_server(r, &actions);
    }
    must(dure_secagg_server_phase(r->server) >= DURE_SECAGG_PHASE_SUMMED);
    must(r->summed || r->disturbed);
}

/* ---- the round ---- */

static void make_keys(void)
{
    static bool made;
    seeded_rng random;
    const dure_rng rng = seeded_rng_of(&random, 7);
    uint8_t secret[DURE_SIGN_SECRET_BYTES];
    if (made) return;
    for (size_t i = 0; i < SITES_MAX + 2; i++) {
        dure_sign_key *key = i < SITES_MAX ? &keys[i] : i == SITES_MAX ? &coordinator : &beacon;
        must(dure_rng_fill(&rng, secret, sizeof secret) == DURE_OK);
        must(dure_sign_from_secret(key, secret) == DURE_OK);
    }
    made = true;
}

static void make_config(dure_config *c, const shape *s)
{
    round_config(c, s->n);
    c->threshold = s->threshold;
    c->u_min = s->u_min;
    c->collusion = s->collusion;
    c->n_words = WORDS;
    c->chunk_words = 16;
    c->q_max = 2000;
    c->share_lifetime_ms = 1000;
    c->neighbours = s->neighbours;
    c->beacon_index = s->neighbours ? 1 : 0;
    if (s->neighbours) memcpy(c->beacon_public, beacon.public_, DURE_KEY_BYTES);
    for (uint32_t i = 0; i < s->n; i++) {
        memcpy(c->members[i].sign_public, keys[i].public_, DURE_KEY_BYTES);
        memcpy(c->members[i].curve_public, keys[i].public_, DURE_KEY_BYTES);
    }
}

static void begin(fuzz_round *r, const shape *s)
{
    dure_buf encoding;
    dure_buf_init(&encoding, DURE_CONFIG_BYTES_MAX);
    r->rng = seeded_rng_of(&r->random, 0);
    make_config(r->config, s);
    must(dure_config_encode(&encoding, r->config, NULL) == DURE_OK);
    must(dure_hash_bytes(&r->config_hash, dure_buf_span(&encoding)) == DURE_OK);
    dure_buf_fini(&encoding);
    const dure_secagg_server_opts opts = {r->config, r->config_hash, &coordinator};
    must(dure_secagg_server_new(&r->server, &opts, NULL) == DURE_OK);
    for (uint32_t i = 0; i < s->n; i++)
        begin_site(r, i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    make_keys();
    fuzz_round *r = calloc(1, sizeof *r);
    must(r && (r->config = malloc(sizeof *r->config)));
    r->data = data;
    r->n_data = n;
    begin(r, &shapes[next(r) % (sizeof shapes / sizeof *shapes)]);
    for (int i = 0; i < ACTS_MAX && r->n_data; i++) {
        const uint32_t act = next(r) & 15;
        if (act < 8) {
            act_on_letter(r, act);
        } else {
            act_on_machines(r, act);
        }
    }
    finish(r);
    for (size_t i = 0; i < r->n_letters; i++)
        free(r->letters[i].bytes);
    for (size_t i = 0; i < r->n_records; i++)
        dure_buf_fini(&r->records[i]);
    for (uint32_t i = 0; i < SITES_MAX; i++)
        dure_secagg_client_free(&r->sites[i].client);
    dure_secagg_server_free(&r->server);
    free(r->config);
    free(r);
    return 0;
}
