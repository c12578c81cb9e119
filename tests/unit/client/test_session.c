/* The checks of a site before a round and after it, against a coordinator that lies. No socket is
 * connected here: what the session would send is lost, as with a coordinator that is away. */
#include "client/global_adapter.h"
#include "client/session_int.h"
#include "coordinator/adapter_step.h"
#include "federation/round_config.h"
#include "federation/server_step.h"
#include "ledger/round_event.h"
#include "secagg/transcript.h"
#include "support/check.h"
#include "support/temp_dir.h"
#include "unit/federation/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SITES = 3 };

typedef struct stage {
    temp_dir dir;
    fixture f;
    fixture_site others[SITES - 1];
    dure_session *s;
    dure_roster *roster;                     /* the coordinator's */
    dure_config *config;                     /* of the next OPEN */
    dure_buf adapter;                        /* that it starts from */
    char event[64], why[DURE_MSG_TEXT_SIZE]; /* the last one */
    unsigned n_open, n_done;
    bool break_signature;
    uint64_t roster_from;
    dure_buf note; /* checkpoint that comes with OPEN */
    dure_merkle_proof proof;
} stage;

static stage *st;

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
static void make_config(uint64_t round)
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

static int setup(void **state)
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
    assert_ok(dure_adapter_first(&st->adapter, &st->f.terms, NULL));
    make_config(1);
    return 0;
}

static int teardown(void **state)
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

static void open_round(void)
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

static void assert_refused(const char *says)
{
    assert_null(st->s->round.config);
    assert_int_equal(st->n_open, 0);
    if (!strstr(st->why, says)) fail_msg("%s: \"%s\" does not say %s", st->event, st->why, says);
}

/* ---- before a round ---- */

static void test_session_takes_part_in_an_honest_round(void **state)
{
    (void)state;
    open_round();
    assert_non_null(st->s->round.client);
    assert_int_equal(st->n_open, 1);
    assert_int_equal(dure_secagg_client_stage(st->s->round.client), DURE_STAGE_ADVERTISED);
    assert_int_equal(st->s->load.what, DOWNLOAD_ADAPTER);
    open_round(); /* once more: the same round */
    assert_int_equal(st->n_open, 1);
}

static void test_session_refuses_an_unsigned_configuration(void **state)
{
    (void)state;
    st->break_signature = true;
    open_round();
    assert_refused("");
}

static void test_session_refuses_a_replayed_round(void **state)
{
    (void)state;
    st->s->site.state.last_round = 1;
    open_round();
    assert_refused("opened again");
}

static void test_session_refuses_altered_terms(void **state)
{
    (void)state;
    st->config->learning_rate *= 2;
    open_round();
    assert_refused("training");
    make_config(1);
    st->config->share_lifetime_ms *= 2;
    open_round();
    assert_refused("cohort");
}

static void test_session_refuses_less_noise_than_declared(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < SITES; i++) {
        st->config->members[i].sigma_num /= 2;
    }
    open_round();
    assert_refused("declared");
}

static void test_session_refuses_what_its_policy_forbids(void **state)
{
    (void)state;
    st->s->site.policy.min_noise = 5;
    open_round();
    assert_refused("min_noise");
    st->s->site.policy.min_noise = 0;
    st->s->site.policy.min_sites = 4;
    open_round();
    assert_refused("min_sites");
}

static void test_session_refuses_when_the_plan_is_used(void **state)
{
    (void)state;
    st->s->site.state.steps_used = st->s->plan.steps - 2; /* a round takes three */
    open_round();
    assert_refused("steps are used");
    assert_string_equal(st->event, "budget_refused");
}

/* ---- what is paid ---- */

/* The folder goes back to before the payment; the owner's ledger does not. */
static void test_session_restored_to_an_older_folder_uses_no_step_twice(void **state)
{
    (void)state;
    dure_site_state *site = &st->s->site.state;
    dure_diag diag = {0};
    open_round();
    if (session_pay(st->s, &diag)) fail_msg("%s", diag.text);
    assert_int_equal(site->steps_used, 3);
    session_drop_round(st->s);
    site->steps_used = site->last_round = 0;
    st->n_open = 0;
    open_round();
    assert_refused("opened again");
    make_config(2);
    open_round();
    assert_int_equal(st->n_open, 1);
    assert_int_equal(site->steps_used, 3);
    if (session_pay(st->s, &diag)) fail_msg("%s", diag.text);
    session_drop_round(st->s);
    site->steps_used = site->last_round = 0;
    st->n_open = 0;
    make_config(3);
    open_round();
    assert_refused("steps are used"); /* two rounds of three were the whole plan */
}

static void test_session_pays_for_no_step_that_another_copy_paid_for(void **state)
{
    (void)state;
    uint64_t before = 0, after = 0;
    dure_hash head;
    dure_diag diag = {0};
    open_round();
    assert_ok(session_pay(st->s, NULL));
    dure_site_ledger_head(&head, &before, st->s->ledger);
    st->s->site.state.steps_used = 0; /* as the copy believes */
    assert_err(session_pay(st->s, &diag), DURE_ERR_STATE);
    assert_non_null(strstr(diag.text, "another copy"));
    assert_int_equal(st->s->site.state.steps_used, 0);
    dure_site_ledger_head(&head, &after, st->s->ledger);
    assert_int_equal(after, before);
}

static void test_session_does_not_open_under_a_tightened_budget(void **state)
{
    (void)state;
    char dir[512], yaml[600];
    dure_diag diag = {0};
    snprintf(dir, sizeof dir, "%s", temp_dir_file(&st->dir, "ash"));
    snprintf(yaml, sizeof yaml, "%s/" DURE_SITE_YAML, dir);
    const dure_session_opts opts = {.dir = dir};
    dure_policy policy = st->s->site.policy;
    assert_ok(dure_site_save_state(&st->s->site, NULL));
    dure_session_close(&st->s);
    policy.budget.epsilon = 0.01;
    assert_ok(dure_policy_write(yaml, &policy, NULL));
    assert_err(dure_session_open(&st->s, &opts, &diag), DURE_ERR_POLICY);
    if (!strstr(diag.text, "epsilon")) fail_msg("%s", diag.text);
    policy.budget.epsilon = 50;
    assert_ok(dure_policy_write(yaml, &policy, NULL));
    assert_err(dure_session_open(&st->s, &opts, &diag), DURE_ERR_NOT_FOUND); /* the model */
}

/* The owner reads the path of his ledger; the coordinator does not. */
static void test_session_tells_the_coordinator_a_fixed_sentence(void **state)
{
    (void)state;
    char before[DURE_MSG_TEXT_SIZE] = "";
    for (dure_abort_code code = DURE_ABORT_CHECK; code <= DURE_ABORT_RESTARTED; code++) {
        dure_msg msg;
        dure_hash hash = {{1}}, digest;
        assert_ok(session_make_refusal(&msg, st->s, &hash, 0, code));
        const dure_msg_abort *abort = &msg.u.abort;
        assert_int_equal(abort->code, code);
        assert_true(abort->text[0] != 0);
        assert_null(strstr(abort->text, "/"));
        const dure_secagg_who who = {&hash, 0};
        assert_ok(dure_secagg_digest_abort(&digest, who, code, abort->text));
        assert_ok(dure_sign_verify(st->s->site.sign.public_, DURE_SECAGG_LABEL_ABORT,
                                   dure_hash_span(&digest), abort->signature));
        if (code <= DURE_ABORT_BUDGET) assert_string_not_equal(abort->text, before);
        snprintf(before, sizeof before, "%s", abort->text);
    }
}

static void test_session_refuses_a_rewritten_roster(void **state)
{
    (void)state;
    open_round();
    session_drop_round(st->s);
    st->n_open = 0;
    /* The same sites in another order: entry 0 is not the one that was seen. */
    dure_join own = dure_roster_at(st->roster, 0)->join;
    dure_roster_free(&st->roster);
    assert_ok(dure_roster_new(&st->roster, st->f.root.public_));
    assert_ok(dure_roster_add(st->roster, &st->others[0].join, FIXTURE_JOINED, NULL));
    assert_ok(dure_roster_add(st->roster, &own, FIXTURE_JOINED, NULL));
    assert_ok(dure_roster_add(st->roster, &st->others[1].join, FIXTURE_JOINED, NULL));
    make_config(2);
    open_round();
    assert_refused("rewritten");
}

static void test_session_refuses_a_roster_with_a_gap(void **state)
{
    (void)state;
    st->roster_from = 1;
    open_round();
    assert_refused("left out entries");
}

static void test_session_refuses_to_leave_the_last_result(void **state)
{
    (void)state;
    dure_site_state *site = &st->s->site.state;
    memset(site->result_t3.b, 0x33, 32);
    memset(site->result_adapter.b, 0x44, 32);
    memset(st->config->previous_t3, 0x33, 32);
    open_round();
    assert_refused("does not start from its adapter");
    memcpy(site->result_adapter.b, st->config->adapter_digest, 32);
    open_round();
    assert_int_equal(st->n_open, 1);
}

static void test_session_refuses_an_adapter_with_another_frozen_factor(void **state)
{
    (void)state;
    dure_terms other = st->f.terms;
    dure_buf file = {0};
    other.layout.seed++;
    assert_ok(dure_global_adapter_check(&st->f.terms, dure_buf_span(&st->adapter), NULL));
    assert_ok(dure_adapter_first(&file, &other, NULL));
    assert_err(dure_global_adapter_check(&st->f.terms, dure_buf_span(&file), NULL), DURE_ERR_AUTH);
    open_round();
    assert_int_equal(st->s->load.what, DOWNLOAD_ADAPTER);
    dure_put_raw(&st->s->load.bytes, file.data, file.n);
    assert_ok(session_on_adapter(st->s, NULL));
    assert_int_equal(st->s->adapter.n, 0);
    assert_null(st->s->round.config);
    dure_buf_fini(&file);
}

/* ---- the log that a round cites ---- */

/* A log of `n` leaves, signed by the coordinator and cosigned by the first `n_cosigned` others. */
static void cite(uint64_t n, uint8_t fill, unsigned n_cosigned)
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
        dure_event_site site = {.name = "x"};
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

static void test_session_takes_a_checkpoint_with_a_quorum(void **state)
{
    (void)state;
    cite(4, 0, 3);
    open_round();
    assert_int_equal(st->n_open, 1);
    assert_int_equal(dure_witness_head(st->s->witness).n, 4);
}

static void test_session_refuses_a_checkpoint_without_a_quorum(void **state)
{
    (void)state;
    cite(4, 0, 2); /* 2 * 2 is not above 3 + 1 */
    open_round();
    assert_refused("cosigned");
}

static void test_session_refuses_a_checkpoint_that_is_not_the_one_sent(void **state)
{
    (void)state;
    cite(4, 0, 3);
    st->config->checkpoint_root[0] ^= 1;
    open_round();
    assert_refused("not the one that was sent");
}

static void test_session_refuses_a_forked_log(void **state)
{
    (void)state;
    cite(4, 0, 3);
    open_round();
    session_drop_round(st->s);
    st->n_open = 0;
    make_config(2);
    cite(4, 9, 3); /* as many leaves, others */
    open_round();
    assert_refused("");
    make_config(2);
    cite(6, 0, 3); /* longer, but without the proof */
    open_round();
    assert_refused("");
}

static void test_session_refuses_to_go_back_to_an_older_checkpoint(void **state)
{
    (void)state;
    cite(4, 0, 3);
    open_round();
    session_drop_round(st->s);
    st->n_open = 0;
    make_config(2); /* cites nothing, and sends no note */
    dure_buf_fini(&st->note);
    open_round();
    assert_refused("rolled back or forked");
    make_config(2);
    cite(2, 0, 3);
    open_round();
    assert_refused("rolled back or forked");
    make_config(2);
    cite(4, 0, 3); /* the same again */
    open_round();
    assert_int_equal(st->n_open, 1);
}

/* ---- after a round ---- */

typedef struct outcome {
    dure_msg *msg; /* RESULT, as received */
    dure_buf sum;  /* the blob */
    dure_buf next; /* the right adapter */
} outcome;

/* What an honest coordinator makes of sums of ones. */
static void make_sum(outcome *o)
{
    size_t n = (size_t)st->f.terms.layout.n_active;
    int32_t *sum = calloc(n, sizeof *sum);
    uint8_t *bytes = calloc(n, 4);
    for (size_t i = 0; i < n; i++) {
        sum[i] = (int32_t)(i % 7) - 3;
    }
    dure_server_step_sum_put(bytes, sum, n);
    dure_buf_init(&o->sum, 4 * n);
    dure_put_raw(&o->sum, bytes, 4 * n);
    assert_ok(
        dure_adapter_next(&o->next, &st->f.terms, dure_buf_span(&st->adapter), sum, SITES, NULL));
    free(sum);
    free(bytes);
}

/* `twist` changes the event before it is logged. */
static void make_result(outcome *o, void (*twist)(dure_event *event))
{
    dure_event *event = calloc(1, sizeof *event);
    dure_hash leaves[2], t3;
    dure_buf leaf, note, frame;
    memset(t3.b, 0x73, sizeof t3.b);
    make_sum(o);
    dure_round_outcome facts = {.config_hash = st->s->round.hash,
                                .t3 = t3,
                                .u2 = dure_members_first(SITES),
                                .u3 = dure_members_first(SITES)};
    assert_ok(dure_hash_bytes(&facts.sum, dure_buf_span(&o->sum)));
    assert_ok(dure_hash_bytes(&facts.adapter_out, dure_buf_span(&o->next)));
    dure_round_event_make(event, DURE_EVENT_CLOSED, st->s->round.config, &facts, FIXTURE_JOINED);
    event->index = 1;
    if (twist) twist(event);
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    dure_buf_init(&note, DURE_NOTE_MAX);
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    assert_ok(dure_event_encode(&leaf, event, NULL));
    assert_ok(dure_merkle_leaf(&leaves[0], dure_span_of_text("genesis")));
    assert_ok(dure_merkle_leaf(&leaves[1], dure_buf_span(&leaf)));
    dure_checkpoint checkpoint = {.head.n = 2};
    dure_checkpoint_origin(checkpoint.origin, "village", &st->s->federation_id);
    assert_ok(dure_merkle_root(&checkpoint.head.root, leaves, 2));
    assert_ok(dure_checkpoint_sign(&note, &checkpoint, &st->f.coordinator_sign));
    dure_msg msg = {.type = DURE_MSG_RESULT,
                    .u.result = {.leaf = dure_buf_span(&leaf),
                                 .leaf_index = 1,
                                 .checkpoint = dure_buf_span(&note),
                                 .inclusion = (const uint8_t(*)[32])leaves,
                                 .n_inclusion = 1}};
    memcpy(msg.u.result.config_hash, st->s->round.hash.b, 32);
    memcpy(msg.u.result.t3, event->u.round.t3.b, 32);
    memcpy(msg.u.result.sum_digest, event->u.round.result.b, 32);
    memcpy(msg.u.result.adapter_digest, event->u.round.adapter_out.b, 32);
    assert_ok(dure_msg_encode(&frame, &msg, NULL));
    assert_ok(dure_msg_decode(&o->msg, dure_buf_span(&frame), NULL));
    dure_buf_fini(&leaf);
    dure_buf_fini(&note);
    dure_buf_fini(&frame);
    free(event);
}

/* As after R4: the update was charged, and this T3 was signed. */
static void pretend_summed(void)
{
    open_round();
    assert_non_null(st->s->round.config);
    dure_buf_init(&st->s->adapter, st->adapter.n);
    dure_put_raw(&st->s->adapter, st->adapter.data, st->adapter.n);
    assert_ok(dure_hash_bytes(&st->s->adapter_digest, dure_buf_span(&st->adapter)));
    st->s->round.charged = true;
    st->s->site.state.steps_used = 3;
    st->s->site.state.signed_round = 1;
    memset(st->s->site.state.signed_t3.b, 0x73, 32);
    st->s->site.state.round_hash = st->s->round.hash;
    st->s->site.state.round_u2 = dure_members_first(SITES);
    st->s->site.state.round_u3 = dure_members_first(SITES);
}

static dure_err deliver(outcome *o, dure_diag *diag)
{
    dure_err err = session_on_result(st->s, &o->msg, diag);
    dure_msg_free(&o->msg);
    if (err || st->s->load.what != DOWNLOAD_SUM) return err;
    dure_put_raw(&st->s->load.bytes, o->sum.data, o->sum.n);
    return session_on_sum(st->s, diag);
}

static void outcome_fini(outcome *o)
{
    dure_msg_free(&o->msg);
    dure_buf_fini(&o->sum);
    dure_buf_fini(&o->next);
}

static void test_session_follows_the_sum_to_the_same_adapter(void **state)
{
    (void)state;
    outcome o = {0};
    dure_diag diag = {0};
    pretend_summed();
    make_result(&o, NULL);
    if (deliver(&o, &diag)) fail_msg("%s", diag.text);
    assert_int_equal(st->n_done, 1);
    assert_null(st->s->round.config);
    assert_int_equal(st->s->site.state.rounds_done, 1);
    assert_int_equal(dure_witness_head(st->s->witness).n, 2);
    assert_int_equal(st->s->adapter.n, o.next.n);
    assert_memory_equal(st->s->adapter.data, o.next.data, o.next.n);
    outcome_fini(&o);
}

static void assert_result_refused(void (*twist)(dure_event *event), const char *says)
{
    outcome o = {0};
    dure_diag diag = {0};
    pretend_summed();
    make_result(&o, twist);
    assert_err(deliver(&o, &diag), DURE_ERR_AUTH);
    if (!strstr(diag.text, says)) fail_msg("\"%s\" does not say %s", diag.text, says);
    assert_int_equal(st->n_done, 0);
    outcome_fini(&o);
}

static void twist_adapter(dure_event *event)
{
    event->u.round.adapter_out.b[0] ^= 1;
}

static void test_session_refuses_an_adapter_that_does_not_follow(void **state)
{
    (void)state;
    assert_result_refused(twist_adapter, "does not follow from the sum");
}

static void twist_survivors(dure_event *event)
{
    event->u.round.t3.b[0] ^= 1;
}

static void test_session_refuses_other_survivors(void **state)
{
    (void)state;
    assert_result_refused(twist_survivors, "other survivors");
}

static void twist_round(dure_event *event)
{
    event->u.round.h_c.b[0] ^= 1;
}

static void test_session_refuses_the_entry_of_another_round(void **state)
{
    (void)state;
    assert_result_refused(twist_round, "another round");
}

static void twist_charge(dure_event *event)
{
    event->u.round.members[0].part = DURE_PART_NONE; /* ash, the first by name */
}

static void test_session_refuses_an_entry_that_does_not_charge_it(void **state)
{
    (void)state;
    assert_result_refused(twist_charge, "charge");
}

static void twist_noise(dure_event *event)
{
    event->u.round.members[1].plan.sigma_num *= 10;
}

static void twist_part(dure_event *event)
{
    event->u.round.members[1].part = DURE_PART_NONE;
}

static void twist_count(dure_event *event)
{
    event->u.round.members[2].part = DURE_PART_UPLOADED;
}

static void twist_roster(dure_event *event)
{
    event->u.round.roster_head.b[0] ^= 1;
}

static void test_session_refuses_an_entry_with_more_noise_than_there_was(void **state)
{
    (void)state;
    assert_result_refused(twist_noise, "come to");
}

static void test_session_refuses_an_entry_that_spares_another_site(void **state)
{
    (void)state;
    assert_result_refused(twist_part, "come to");
}

static void test_session_refuses_an_entry_with_another_number_of_survivors(void **state)
{
    (void)state;
    assert_result_refused(twist_count, "come to");
}

static void test_session_refuses_an_entry_of_another_roster(void **state)
{
    (void)state;
    assert_result_refused(twist_roster, "come to");
}

static void twist_gate(dure_event *event)
{
    event->time_s++;
    event->u.round.gate = (dure_event_gate){DURE_VERDICT_PASSED, 10, 2.0, 1.5};
}

static void test_session_leaves_the_gate_to_the_coordinator(void **state)
{
    (void)state;
    outcome o = {0};
    dure_diag diag = {0};
    pretend_summed();
    make_result(&o, twist_gate);
    if (deliver(&o, &diag)) fail_msg("%s", diag.text);
    assert_int_equal(st->n_done, 1);
    outcome_fini(&o);
}

/* It dropped out before the survivors were named: it cannot say that the entry counts them right,
 * and follows no sum. */
static void test_session_does_not_follow_a_round_that_it_did_not_see_through(void **state)
{
    (void)state;
    outcome o = {0};
    dure_diag diag = {0};
    pretend_summed();
    st->s->site.state.signed_round = 0;
    st->s->site.state.round_hash = (dure_hash){{0}};
    make_result(&o, NULL);
    if (deliver(&o, &diag)) fail_msg("%s", diag.text);
    assert_int_equal(st->n_done, 1);
    assert_int_equal(dure_witness_head(st->s->witness).n, 2);
    assert_memory_equal(st->s->adapter.data, st->adapter.data, st->adapter.n);
    outcome_fini(&o);
}

static void test_session_refuses_an_entry_that_is_not_in_the_log(void **state)
{
    (void)state;
    outcome o = {0};
    dure_diag diag = {0};
    pretend_summed();
    make_result(&o, NULL);
    o.msg->u.result.leaf_index = 1;
    ((uint8_t *)(uintptr_t)o.msg->u.result.inclusion)[0] ^= 1;
    assert_err(deliver(&o, &diag), DURE_ERR_AUTH);
    assert_int_equal(st->n_done, 0);
    outcome_fini(&o);
}

/* The site has seen four entries; the round cites none, so as to show a log without them. */
static void test_session_refuses_a_result_in_a_forked_log(void **state)
{
    (void)state;
    outcome o = {0};
    dure_diag diag = {0};
    dure_merkle_proof none = {.n = 0};
    cite(4, 0, 0);
    assert_ok(dure_witness_update(st->s->witness, dure_buf_span(&st->note), &none, NULL));
    dure_buf_fini(&st->note);
    make_config(1);
    pretend_summed();
    make_result(&o, NULL);
    assert_err(deliver(&o, &diag), DURE_ERR_AUTH);
    if (!strstr(diag.text, "forked")) fail_msg("%s", diag.text);
    assert_int_equal(st->n_done, 0);
    assert_int_equal(dure_witness_head(st->s->witness).n, 4);
    outcome_fini(&o);
}

static void test_session_takes_a_result_after_a_restart(void **state)
{
    (void)state;
    outcome o = {0};
    dure_diag diag = {0};
    pretend_summed();
    make_result(&o, NULL);
    /* Only what is on disk is left of the round: its configuration and the reply. */
    dure_site_state *site = &st->s->site.state;
    dure_put_raw(&site->round_config, st->s->round.encoding.data, st->s->round.encoding.n);
    dure_put_raw(&site->reply, "reply", 5);
    site->round_hash = st->s->round.hash;
    session_drop_round(st->s);
    if (deliver(&o, &diag)) fail_msg("%s", diag.text);
    assert_int_equal(st->n_done, 1);
    assert_int_equal(site->reply.n, 0);
    outcome_fini(&o);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_session_takes_part_in_an_honest_round),
        TEST(test_session_refuses_an_unsigned_configuration),
        TEST(test_session_refuses_a_replayed_round),
        TEST(test_session_refuses_altered_terms),
        TEST(test_session_refuses_less_noise_than_declared),
        TEST(test_session_refuses_what_its_policy_forbids),
        TEST(test_session_refuses_when_the_plan_is_used),
        TEST(test_session_restored_to_an_older_folder_uses_no_step_twice),
        TEST(test_session_pays_for_no_step_that_another_copy_paid_for),
        TEST(test_session_does_not_open_under_a_tightened_budget),
        TEST(test_session_tells_the_coordinator_a_fixed_sentence),
        TEST(test_session_refuses_a_rewritten_roster),
        TEST(test_session_refuses_a_roster_with_a_gap),
        TEST(test_session_refuses_to_leave_the_last_result),
        TEST(test_session_refuses_an_adapter_with_another_frozen_factor),
        TEST(test_session_takes_a_checkpoint_with_a_quorum),
        TEST(test_session_refuses_a_checkpoint_without_a_quorum),
        TEST(test_session_refuses_a_checkpoint_that_is_not_the_one_sent),
        TEST(test_session_refuses_a_forked_log),
        TEST(test_session_refuses_to_go_back_to_an_older_checkpoint),
        TEST(test_session_follows_the_sum_to_the_same_adapter),
        TEST(test_session_refuses_an_adapter_that_does_not_follow),
        TEST(test_session_refuses_other_survivors),
        TEST(test_session_refuses_the_entry_of_another_round),
        TEST(test_session_refuses_an_entry_that_does_not_charge_it),
        TEST(test_session_refuses_an_entry_with_more_noise_than_there_was),
        TEST(test_session_refuses_an_entry_that_spares_another_site),
        TEST(test_session_refuses_an_entry_with_another_number_of_survivors),
        TEST(test_session_refuses_an_entry_of_another_roster),
        TEST(test_session_leaves_the_gate_to_the_coordinator),
        TEST(test_session_does_not_follow_a_round_that_it_did_not_see_through),
        TEST(test_session_refuses_an_entry_that_is_not_in_the_log),
        TEST(test_session_refuses_a_result_in_a_forked_log),
        TEST(test_session_takes_a_result_after_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
