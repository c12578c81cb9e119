#include "unit/client/stage.h"

#include "federation/global_adapter.h"
#include "federation/round_config.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

stage *st;

static void on_event(void *state, const char *name, const json_t *facts)
{
    (void)state;
    const char *why = json_string_value(json_object_get(facts, "why"));
    snprintf(st->event, sizeof st->event, "%s", name);
    snprintf(st->why, sizeof st->why, "%s", why ? why : "");
    st->n_open += !strcmp(name, "round_open");
    st->n_done += !strcmp(name, "round_done");
}

static dure_policy make_policy(void)
{
    dure_policy p = {.federation = "village",
                     .name = "ash",
                     .endpoint = "tcp://127.0.0.1:1",
                     .data = "/nowhere",
                     .source = "records",
                     .records = 1000,
                     .model = "/nowhere",
                     .budget = {50, 1e-5},
                     .modes = DURE_POLICY_MODE(DURE_PRIVACY_RECORD),
                     .collusion = 1,
                     .min_sites = 3,
                     .max_rate = 1,
                     .max_clip = 1,
                     .max_steps = 100,
                     .n_bases = 1,
                     .bases = {st->f.terms.base.digest}};
    snprintf(p.ledger, sizeof p.ledger, "%s", temp_dir_file(&st->dir, "ledger"));
    return p;
}

static void make_site(void)
{
    dure_session *s = st->s;
    dure_invitation invitation;
    dure_sign_key invite;
    dure_policy policy = make_policy();
    dure_diag diag = {0};
    fixture_invite(&invitation, &invite, &st->f, "ash");
    if (dure_site_make(&s->site, temp_dir_file(&st->dir, "ash"), &policy, &invitation, &diag)) {
        fail_msg("%s", diag.text);
    }
    s->site_open = true;
    dure_join join = {.invitation = invitation,
                      .declared = st->others[0].join.declared,
                      .base_digest = st->f.terms.base.digest};
    memcpy(join.sign_public, s->site.sign.public_, 32);
    memcpy(join.curve_public, s->site.curve.public_, 32);
    assert_ok(dure_join_sign(&join, &invite, &s->site.sign, NULL));
    assert_ok(dure_roster_add(st->roster, &join, FIXTURE_JOINED, NULL));
    s->site.state.declared = join.declared;
    s->site.state.joined = true;
}

static void make_budget(void)
{
    dure_session *s = st->s;
    dure_diag diag = {0};
    assert_ok(dure_site_plan(&s->plan, &st->f.terms, &s->site.state.declared, NULL));
    assert_ok(dure_site_ledger_open(&s->ledger, s->site.policy.ledger, NULL));
    assert_ok(
        dure_site_ledger_create_source(s->ledger, "records", s->site.policy.budget, 1000, NULL));
    if (dure_site_ledger_reserve(&s->site.state.reservation, s->ledger, "records", &s->plan, "test",
                                 &diag)) {
        fail_msg("%s", diag.text);
    }
    s->site.state.reserved = true;
}

static void open_session(void)
{
    dure_session *s = st->s;
    char origin[DURE_ORIGIN_SIZE];
    assert_ok(dure_federation_id(&s->federation_id, st->f.root.public_, "village"));
    dure_checkpoint_origin(origin, "village", &s->federation_id);
    char *path = dure_site_path(&s->site, DURE_SITE_CHECKPOINT);
    assert_ok(dure_witness_open(&s->witness, path, origin, st->f.coordinator_sign.public_, NULL));
    free(path);
    const dure_dealer_opts opts = {.endpoint = "tcp://127.0.0.1:1",
                                   .key = &s->site.curve,
                                   .server_public = st->f.coordinator_curve};
    assert_ok(dure_dealer_open(&s->dealer, &opts, NULL));
    s->opts.event = on_event;
}

/* The configuration that an honest coordinator would open. */
void stage_make_config(uint64_t round)
{
    uint8_t keys[SITES][32];
    dure_round_facts facts = {.run_id = 1, .round = round};
    assert_ok(dure_hash_bytes(&facts.adapter_digest, dure_buf_span(&st->adapter)));
    memcpy(keys[0], st->s->site.sign.public_, 32);
    memcpy(keys[1], st->others[0].own.public_, 32);
    memcpy(keys[2], st->others[1].own.public_, 32);
    assert_ok(dure_round_config_make(st->config, &st->f.terms, st->roster, &facts,
                                     (const uint8_t(*)[32])keys, SITES, NULL));
}

int stage_setup(void **state)
{
    (void)state;
    st = calloc(1, sizeof *st);
    st->s = calloc(1, sizeof *st->s);
    st->config = calloc(1, sizeof *st->config);
    temp_dir_make(&st->dir);
    fixture_make(&st->f);
    fixture_site_make(&st->others[0], &st->f, "birch");
    fixture_site_make(&st->others[1], &st->f, "cedar");
    assert_ok(dure_roster_new(&st->roster, st->f.root.public_));
    make_site();
    assert_ok(dure_roster_add(st->roster, &st->others[0].join, FIXTURE_JOINED, NULL));
    assert_ok(dure_roster_add(st->roster, &st->others[1].join, FIXTURE_JOINED, NULL));
    make_budget();
    open_session();
    assert_ok(dure_global_adapter_first(&st->adapter, &st->f.terms, NULL));
    stage_make_config(1);
    return 0;
}

int stage_teardown(void **state)
{
    (void)state;
    dure_session_close(&st->s);
    dure_roster_free(&st->roster);
    dure_buf_fini(&st->adapter);
    dure_buf_fini(&st->note);
    temp_dir_remove(&st->dir);
    free(st->config);
    free(st);
    return 0;
}

void stage_open_round(void)
{
    dure_buf encoding;
    dure_hash hash;
    dure_span entries[8];
    dure_buf_init(&encoding, DURE_CONFIG_BYTES_MAX);
    assert_ok(dure_config_encode(&encoding, st->config, NULL));
    assert_ok(dure_round_config_hash(&hash, dure_buf_span(&encoding)));
    size_t n = dure_roster_entries(st->roster);
    for (size_t i = 0; i < n; i++) {
        entries[i] = dure_roster_entry(st->roster, i);
    }
    dure_msg msg = {.type = DURE_MSG_OPEN,
                    .u.open = {.config = dure_buf_span(&encoding),
                               .roster_from = st->roster_from,
                               .roster = entries + (st->roster_from < n ? st->roster_from : 0),
                               .n_roster = st->roster_from < n ? n - (size_t)st->roster_from : 0,
                               .checkpoint = dure_buf_span(&st->note),
                               .consistency = (const uint8_t(*)[DURE_DIGEST_BYTES])st->proof.nodes,
                               .n_consistency = st->proof.n}};
    assert_ok(dure_round_config_sign(msg.u.open.signature, &hash, &st->f.coordinator_sign));
    if (st->break_signature) msg.u.open.signature[5] ^= 1;
    dure_diag diag = {0};
    if (session_on_open(st->s, &msg, &diag)) fail_msg("%s", diag.text);
    dure_buf_fini(&encoding);
}

/* A log of `n` leaves, signed by the coordinator and cosigned by the first `n_cosigned` others. */
void stage_cite(uint64_t n, uint8_t fill, unsigned n_cosigned)
{
    dure_hash leaves[8];
    dure_checkpoint checkpoint = {.head.n = n};
    dure_checkpoint_origin(checkpoint.origin, "village", &st->s->federation_id);
    for (uint64_t i = 0; i < n; i++) {
        uint8_t leaf[2] = {(uint8_t)i, fill};
        assert_ok(dure_merkle_leaf(&leaves[i], dure_span_of(leaf, 2)));
    }
    assert_ok(dure_merkle_root(&checkpoint.head.root, leaves, n));
    dure_buf_fini(&st->note);
    dure_buf_init(&st->note, DURE_NOTE_MAX);
    assert_ok(dure_checkpoint_sign(&st->note, &checkpoint, &st->f.coordinator_sign));
    for (unsigned i = 0; i < n_cosigned; i++) {
        const dure_sign_key *key = i ? &st->others[i - 1].own : &st->s->site.sign;
        dure_site_key site = {.name = "x"};
        dure_cosignature cosignature;
        snprintf(site.name, sizeof site.name, "%s",
                 i ? st->others[i - 1].join.invitation.name : "ash");
        memcpy(site.sign_public, key->public_, 32);
        assert_ok(dure_cosign(&cosignature, &checkpoint, FIXTURE_JOINED + 100, key));
        assert_ok(dure_cosign_append(&st->note, &cosignature, &site));
    }
    st->config->checkpoint_size = n;
    memcpy(st->config->checkpoint_root, checkpoint.head.root.b, DURE_DIGEST_BYTES);
}
