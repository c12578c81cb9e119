#include "client/enrol.h"

#include "client/work.h"
#include "common/clock.h"
#include "crypto/wipe.h"
#include "dp/calibrate.h"
#include "federation/plan.h"
#include "model/base_digest.h"
#include "net/dealer.h"
#include "proto/messages.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECV_MS = 500, SAY_EVERY_MS = 10000, ASK_AGAIN_MS = 10000 };

typedef struct enrolment {
    const dure_enrol_opts *opts;
    dure_invitation invitation;
    dure_sign_key invite; /* wiped */
    dure_policy policy;
    dure_site site;
    bool site_open, fresh;
    dure_site_ledger *ledger;
    dure_declared declared;
    dure_dp_plan plan; /* of them and the terms */
    dure_dealer *dealer;
} enrolment;

/* ---- before anything is sent ---- */

static bool without_privacy(const enrolment *e)
{
    return e->invitation.terms.training.privacy_mode == DURE_PRIVACY_NONE;
}

static bool of_mode(const enrolment *e, dure_privacy_mode mode)
{
    return e->invitation.terms.training.privacy_mode == mode;
}

static dure_err copy_text(char *out, size_t size, const char *text, const char *what,
                          dure_diag *diag)
{
    if (strlen(text) >= size) {
        return dure_diag_set(diag, DURE_ERR_USAGE, "%s is longer than %zu bytes", what, size - 1);
    }
    memcpy(out, text, strlen(text) + 1);
    return DURE_OK;
}

/* site.yaml outlives the folder that the command was given in. */
static dure_err absolute(char out[DURE_POLICY_PATH_SIZE], const char *path, const char *what,
                         dure_diag *diag)
{
    char *full = realpath(path, NULL);
    if (!full) return dure_file_errno(diag, "find", path);
    dure_err err = copy_text(out, DURE_POLICY_PATH_SIZE, full, what, diag);
    free(full);
    return err;
}

static dure_err ledger_path(char out[DURE_POLICY_PATH_SIZE], const char *given, dure_diag *diag)
{
    char *path = NULL, *here = NULL, *joined = NULL;
    dure_err err = dure_site_ledger_path(&path, given, diag);
    if (!err && path[0] != '/') {
        here = realpath(".", NULL);
        joined = here ? dure_path_join(here, path) : NULL;
        err = joined ? DURE_OK : DURE_ERR_NOMEM;
    }
    if (!err) {
        err = copy_text(out, DURE_POLICY_PATH_SIZE, joined ? joined : path, "--ledger", diag);
    }
    free(path);
    free(here);
    free(joined);
    return err;
}

/* The policy that join writes: what was asked for, and the federation's terms as the limits, so
 * that later terms that are laxer find a rule against them. */
static dure_err make_policy(enrolment *e, dure_diag *diag)
{
    const dure_enrol_opts *o = e->opts;
    const dure_terms *t = &e->invitation.terms;
    dure_policy *p = &e->policy;
    const double usual = of_mode(e, DURE_PRIVACY_CLIENT) ? t->training.delta : 1e-5;
    const double delta = o->delta > 0 ? o->delta : fmin(usual, 0.1 / (double)o->records);
    uint32_t collusion = o->collusion ? o->collusion : 1;
    *p = (dure_policy){.records = o->records,
                       .budget = {o->epsilon, delta},
                       .per_subject = o->per_subject,
                       .ignore_subjects = o->ignore_subjects,
                       .memory_mb = o->memory_mb,
                       .modes =
                           DURE_POLICY_MODE(of_mode(e, DURE_PRIVACY_SUBJECT) ? DURE_PRIVACY_SUBJECT
                                                                             : DURE_PRIVACY_RECORD),
                       .collusion = collusion,
                       .min_sites = dure_members_least(collusion),
                       .max_rate = 1,
                       .max_clip = t->training.clip,
                       .max_steps = (uint64_t)t->training.rounds * t->training.steps,
                       .n_bases = 1,
                       .bases = {t->base.digest}};
    if (o->accept_no_privacy) p->modes |= DURE_POLICY_MODE(DURE_PRIVACY_NONE);
    if (o->accept_site_level) p->modes |= DURE_POLICY_MODE(DURE_PRIVACY_CLIENT);
    memcpy(p->federation, t->federation, sizeof p->federation);
    memcpy(p->name, e->invitation.name, sizeof p->name);
    memcpy(p->endpoint, e->invitation.endpoint, sizeof p->endpoint);
    dure_err err = absolute(p->data, o->data, "--data", diag);
    if (!err) err = absolute(p->model, o->model, "--model", diag);
    if (!err) err = ledger_path(p->ledger, o->ledger, diag);
    if (!err) err = copy_text(p->source, sizeof p->source, o->source, "--source", diag);
    return err;
}

static dure_err check_model(const enrolment *e, dure_diag *diag)
{
    dure_hash digest;
    dure_err err = dure_base_digest(&digest, e->policy.model, diag);
    if (err) return err;
    if (dure_hash_equal(&digest, &e->invitation.terms.base.digest)) return DURE_OK;
    char hex[65];
    dure_hex_encode(hex, e->invitation.terms.base.digest.b, DURE_HASH_BYTES);
    return dure_diag_set(diag, DURE_ERR_STATE,
                         "%s is not the base model of federation %s, whose SHA-256 is %s; give the "
                         "right file with --model",
                         e->policy.model, e->policy.federation, hex);
}

/* A site that would be refused its records, model or memory later, with the plan reserved, is told
 * now. */
static dure_err check_work(const enrolment *e, dure_diag *diag)
{
    dure_site *site = calloc(1, sizeof *site);
    if (!site) return DURE_ERR_NOMEM;
    site->policy = e->policy;
    site->invitation = e->invitation;
    site->state.declared = e->declared;
    dure_err err = dure_work_check(site, diag);
    free(site);
    return err;
}

static dure_err read_invitation(enrolment *e, dure_diag *diag)
{
    dure_err err = dure_invitation_read(&e->invitation, &e->invite, e->opts->invitation, diag);
    if (!err) err = dure_invitation_in_time(&e->invitation, dure_clock_wall_s(), diag);
    return err;
}

static uint64_t asked_batch(const enrolment *e)
{
    return e->opts->batch ? e->opts->batch : e->invitation.terms.training.batch;
}

/* q and L as declared, and the noise where it is the terms'. */
static dure_err shape_plan(enrolment *e, dure_diag *diag)
{
    const dure_training_terms *t = &e->invitation.terms.training;
    dure_dp_plan rate = {0};
    dure_err err = dure_dp_plan_set_batch(&rate, asked_batch(e), e->opts->records, diag);
    e->declared = (dure_declared){.n_pub = rate.n_pub,
                                  .q_k = rate.full ? 0 : rate.q_k,
                                  .batch = (uint32_t)rate.batch,
                                  .sigma_num = t->sigma_num,
                                  .sigma_den = without_privacy(e) ? 1 : DURE_DP_SIGMA_DEN};
    e->plan = dure_federation_plan(&e->invitation.terms, &e->declared, t->rounds);
    return err;
}

/* The noise is the least with which the whole plan fits the budget, or has to fit as the terms say.
 */
static dure_err find_noise(enrolment *e, dure_diag *diag)
{
    if (of_mode(e, DURE_PRIVACY_CLIENT))
        return dure_site_ledger_check(e->ledger, e->policy.source, &e->plan, diag);
    dure_err err = dure_site_ledger_least_noise(&e->plan, e->ledger, e->policy.source, diag);
    e->declared.sigma_num = e->plan.sigma_num;
    return err;
}

/* A budget never changes once the ledger has it, so it is not put there for a plan that it does not
 * allow. Where the noise is the site's own, there is always enough. */
static dure_err check_new_source(const enrolment *e, dure_diag *diag)
{
    dure_source_status source;
    const dure_privacy budget = e->policy.budget;
    bool fits = true;
    double epsilon = INFINITY;
    if (!of_mode(e, DURE_PRIVACY_CLIENT)) return DURE_OK;
    dure_err err = dure_site_ledger_source(&source, e->ledger, e->policy.source, NULL);
    if (err != DURE_ERR_NOT_FOUND) return err;
    if (budget.delta > DURE_DP_SITE_DELTA_MAX) {
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "--delta must be at most %g in a federation that protects whole "
                             "sites: one in ten times the sites that it can have",
                             DURE_DP_SITE_DELTA_MAX);
    }
    err = dure_calibrate_fits(&fits, &e->plan, NULL, budget);
    if (err || fits) return err;
    err = dure_calibrate_epsilon(&epsilon, &e->plan, NULL, budget.delta);
    return err ? err
               : dure_diag_set(diag, DURE_ERR_BUDGET,
                               "the federation's plan, %llu rounds with noise %.4g, spends epsilon "
                               "%.4g at delta %.3g, and '%s' would have %.4g; give it a larger "
                               "--epsilon, or ask the admin for fewer rounds or more noise",
                               (unsigned long long)e->plan.steps, dure_dp_plan_sigma(&e->plan),
                               epsilon, budget.delta, e->policy.source, budget.epsilon);
}

static dure_err find_plan(enrolment *e, dure_diag *diag)
{
    dure_err err = shape_plan(e, diag);
    if (err || without_privacy(e)) return err;
    err = dure_site_ledger_open(&e->ledger, e->policy.ledger, diag);
    if (!err) err = check_new_source(e, diag);
    if (!err) {
        err = dure_site_ledger_create_source(e->ledger, e->policy.source, e->policy.budget,
                                             e->policy.records, diag);
    }
    return err ? err : find_noise(e, diag);
}

/* ---- the folder ---- */

/* The whole plan under the name that the state holds already; fine if it was reserved before. */
static dure_err reserve_as_kept(enrolment *e, dure_diag *diag)
{
    char purpose[DURE_PURPOSE_SIZE];
    dure_site_state *s = &e->site.state;
    snprintf(purpose, sizeof purpose, "federation %s, %u rounds", e->policy.federation,
             e->invitation.terms.training.rounds);
    dure_err err = dure_site_ledger_reserve_as(e->ledger, &s->reservation, e->policy.source,
                                               &e->plan, purpose, diag);
    if (err) return err;
    s->reserved = true;
    dure_site_note_ledger(&e->site, e->ledger);
    return dure_site_save_state(&e->site, diag);
}

/* What the reservation is called and holds is kept before it is made: cut off in between, the same
 * command finds it in the ledger as its own, and nothing is reserved twice or given back. */
static dure_err reserve(enrolment *e, dure_diag *diag)
{
    dure_site_state *s = &e->site.state;
    s->declared = e->declared;
    if (without_privacy(e)) return dure_site_save_state(&e->site, diag);
    dure_err err = dure_reservation_id_make(&s->reservation, diag);
    if (!err) dure_site_note_ledger(&e->site, e->ledger);
    if (!err) err = dure_site_save_state(&e->site, diag);
    return err ? err : reserve_as_kept(e, diag);
}

/* Of the folder what was made here. A ledger that was put in it stays. */
static void remove_folder(const enrolment *e)
{
    static const char *const made[] = {DURE_SITE_YAML, "keys", "federation.bin", "state.bin",
                                       "lock"};
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        char *path = dure_path_join(e->opts->dir, made[i]);
        if (path) (void)!dure_dir_remove(path, NULL);
        free(path);
    }
    (void)!rmdir(e->opts->dir);
}

/* All that can be refused comes before the ledger names a source, since a budget never changes. */
static dure_err check_new(enrolment *e, dure_diag *diag)
{
    dure_err err = make_policy(e, diag);
    if (!err) err = check_model(e, diag);
    if (!err) err = shape_plan(e, diag);
    if (!err) {
        err = dure_policy_check_terms(&e->policy, &e->invitation.terms,
                                      without_privacy(e) ? NULL : &e->plan, diag);
    }
    return err ? err : check_work(e, diag);
}

static dure_err start_new(enrolment *e, dure_diag *diag)
{
    dure_err err = check_new(e, diag);
    if (err) return err;
    err = dure_site_make(&e->site, e->opts->dir, &e->policy, &e->invitation, diag);
    if (err) return err;
    e->site_open = true;
    err = find_plan(e, diag);
    if (err) { /* nobody was told the keys */
        remove_folder(e);
        return err;
    }
    e->fresh = true;
    return reserve(e, diag);
}

/* The settings of the command, as site.yaml keeps them; the rules may have been edited there. The
 * batch is in the state, once it is declared. */
static bool same_settings(const dure_policy *a, const dure_policy *b)
{
    return strcmp(a->data, b->data) == 0 && strcmp(a->model, b->model) == 0 &&
           strcmp(a->source, b->source) == 0 && strcmp(a->ledger, b->ledger) == 0 &&
           a->records == b->records && a->per_subject == b->per_subject &&
           a->ignore_subjects == b->ignore_subjects && a->memory_mb == b->memory_mb &&
           a->collusion == b->collusion && a->budget.epsilon == b->budget.epsilon &&
           a->budget.delta == b->budget.delta;
}

/* Whether the ledger holds what the join that was cut off meant to reserve. Its ledger is open. */
static bool has_reserved(const enrolment *e)
{
    const dure_reservation *r = NULL;
    return !dure_site_ledger_reservation(&r, e->ledger, &e->site.state.reservation, NULL) &&
           r->state != DURE_RESERVATION_RELEASED;
}

/* Declared and reserved as far as it went before; nothing was sent unless all of it was done. */
static dure_err take_up_plan(enrolment *e, dure_diag *diag)
{
    const dure_site_state *s = &e->site.state;
    bool declared = s->declared.batch != 0;
    dure_err err = DURE_OK;
    if (!without_privacy(e)) {
        err = dure_site_open_ledger(&e->ledger, &e->site, diag);
        if (err) return err;
        declared = declared && has_reserved(e);
    }
    if (!declared) {
        dure_site_ledger_close(&e->ledger);
        err = find_plan(e, diag);
        return err ? err : reserve(e, diag);
    }
    err = dure_site_plan(&e->plan, &e->invitation.terms, &s->declared, diag);
    if (err || s->reserved || without_privacy(e)) return err;
    return reserve_as_kept(e, diag);
}

/* The same command after it was cut off: the folder is there, but nobody said Joined yet. */
static dure_err take_up(enrolment *e, dure_diag *diag)
{
    dure_err err = dure_site_open(&e->site, e->opts->dir, diag);
    if (err) return err;
    e->site_open = true;
    if (e->site.state.joined ||
        !dure_ct_equal(e->site.invitation.invite_public, e->invitation.invite_public, 32)) {
        return dure_diag_set(diag, DURE_ERR_EXISTS,
                             "%s is a site's folder already (%s in federation %s); start it with "
                             "'dure client run', or choose another folder",
                             e->opts->dir, e->site.policy.name, e->site.policy.federation);
    }
    err = make_policy(e, diag);
    if (err) return err;
    if (!same_settings(&e->policy, &e->site.policy)) {
        return dure_diag_set(diag, DURE_ERR_EXISTS,
                             "%s is left from a join with other settings, which its site.yaml "
                             "keeps; repeat that command, or choose another folder",
                             e->opts->dir);
    }
    const uint32_t batch = e->site.state.declared.batch;
    if (batch && batch != asked_batch(e)) {
        return dure_diag_set(diag, DURE_ERR_EXISTS,
                             "%s is left from a join with --batch %u; repeat that command, or "
                             "choose another folder",
                             e->opts->dir, batch);
    }
    e->policy = e->site.policy;
    return take_up_plan(e, diag);
}

/* New keys for the folder's site; its policy, plan and reservation stay what they are. */
static dure_err start_renewal(enrolment *e, dure_diag *diag)
{
    dure_err err = dure_site_open_to_renew(&e->site, e->opts->dir, diag);
    if (err) return err;
    e->site_open = true;
    if (!e->site.state.joined) {
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "%s has not joined yet; run 'dure join' with its invitation",
                             e->opts->dir);
    }
    e->policy = e->site.policy;
    err = dure_site_renew(&e->fresh, &e->site, &e->invitation, diag);
    if (err || without_privacy(e)) return err;
    err = dure_site_open_ledger(&e->ledger, &e->site, diag);
    if (err) return err;
    return dure_site_plan(&e->plan, &e->invitation.terms, &e->site.state.declared, diag);
}

static dure_err start(enrolment *e, dure_diag *diag)
{
    if (e->opts->renew) return start_renewal(e, diag);
    return dure_site_there(e->opts->dir) ? take_up(e, diag) : start_new(e, diag);
}

/* ---- the conversation ---- */

static dure_err send_msg(enrolment *e, const dure_msg *msg, dure_diag *diag)
{
    dure_buf frame;
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    dure_err err = dure_msg_encode(&frame, msg, diag);
    if (!err) {
        err = dure_dealer_send(e->dealer, dure_buf_span(&frame), NULL);
        if (err) dure_diag_set(diag, err, "the coordinator's connection broke");
    }
    dure_buf_fini(&frame);
    return err;
}

static dure_err send_join(enrolment *e, dure_diag *diag)
{
    dure_join *join = calloc(1, sizeof *join);
    dure_buf invitation, record;
    if (!join) return DURE_ERR_NOMEM;
    *join = (dure_join){.invitation = e->invitation,
                        .declared = e->site.state.declared,
                        .base_digest = e->invitation.terms.base.digest};
    memcpy(join->sign_public, e->site.sign.public_, sizeof join->sign_public);
    memcpy(join->curve_public, e->site.curve.public_, sizeof join->curve_public);
    dure_buf_init(&invitation, DURE_MSG_ENTRY_MAX);
    dure_buf_init(&record, DURE_MSG_ENTRY_MAX);
    dure_err err = dure_join_sign(join, &e->invite, &e->site.sign, diag);
    if (!err) {
        dure_invitation_put(&invitation, &e->invitation);
        dure_join_put(&record, join);
        err = dure_buf_err(&invitation);
    }
    if (!err) err = dure_buf_err(&record);
    if (!err) {
        dure_msg msg = {.type = DURE_MSG_JOIN,
                        .u.join = {dure_buf_span(&invitation), dure_buf_span(&record)}};
        err = send_msg(e, &msg, diag);
    }
    dure_buf_fini(&invitation);
    dure_buf_fini(&record);
    free(join);
    return err;
}

static dure_err send_hello(enrolment *e, dure_diag *diag)
{
    dure_hash id;
    dure_err err =
        dure_federation_id(&id, e->invitation.root_public, e->invitation.terms.federation);
    dure_msg msg = {.type = DURE_MSG_HELLO, .u.hello = {.version = DURE_MSG_VERSION}};
    memcpy(msg.u.hello.federation_id, id.b, sizeof id.b);
    if (e->opts->renew && e->ledger) {
        /* What a site of this name showed before counts for the new keys. */
        dure_site_ledger_head(&id, &msg.u.hello.chain_length, e->ledger);
        memcpy(msg.u.hello.chain_head, id.b, sizeof id.b);
    }
    return err ? err : send_msg(e, &msg, diag);
}

static dure_err refused(const enrolment *e, const dure_msg_refused *msg, dure_diag *diag)
{
    static const char *const ways_out[] = {
        /* Used and expired ones are told with their way out. */
        [DURE_REFUSAL_INVITATION_USED] = NULL,
        [DURE_REFUSAL_INVITATION_EXPIRED] = NULL,
        [DURE_REFUSAL_INVITATION_FOREIGN] = "it is of another federation or of older terms",
        [DURE_REFUSAL_NAME_TAKEN] = "ask for an invitation with another name",
        [DURE_REFUSAL_RECORD] = "see the coordinator's log",
        [DURE_REFUSAL_REVOKED] = "ask the admin",
        [DURE_REFUSAL_VERSION] = "install the version of Dure that the coordinator runs",
        [DURE_REFUSAL_FULL] = "the federation has as many sites as it can hold",
        [DURE_REFUSAL_LEDGER] = NULL};
    return dure_diag_set(
        diag, DURE_ERR_STATE, "the coordinator of %s refused to let %s join: %s%s%s",
        e->policy.federation, e->policy.name, msg->text, ways_out[msg->code] ? "; " : "",
        ways_out[msg->code] ? ways_out[msg->code] : "");
}

/* What one answer means. *done: joined. A member that repeats its join is greeted as a member. */
static dure_err hear(bool *done, enrolment *e, bool *asked_hello, const dure_msg *msg,
                     dure_diag *diag)
{
    switch (msg->type) {
    case DURE_MSG_JOINED:
    case DURE_MSG_WAITING:
    case DURE_MSG_OPEN:
        *done = true;
        return DURE_OK;
    case DURE_MSG_REFUSED:
        if (*asked_hello && msg->u.refused.code == DURE_REFUSAL_RECORD) {
            *asked_hello = false; /* not a member yet: join now */
            return send_join(e, diag);
        }
        return refused(e, &msg->u.refused, diag);
    default:
        return DURE_OK;
    }
}

static void say_waiting(const enrolment *e, uint64_t *said_ms, uint64_t now_ms)
{
    const dure_dealer_status *s = dure_dealer_status_of(e->dealer);
    if (s->connected || !e->opts->waiting || dure_elapsed_ms(now_ms, *said_ms) < SAY_EVERY_MS)
        return;
    char text[512];
    snprintf(text, sizeof text, "waiting for the coordinator at %s: %s", e->policy.endpoint,
             s->reason[0] ? s->reason : "no answer yet");
    e->opts->waiting(e->opts->state, text);
    *said_ms = now_ms;
}

static dure_err converse(enrolment *e, dure_diag *diag)
{
    const uint64_t start_ms = dure_clock_monotonic_ms();
    uint64_t said_ms = start_ms - SAY_EVERY_MS + 2000, asked_ms = 0;
    uint32_t connects = 0;
    bool done = false, hello = !e->fresh;
    dure_err err = DURE_OK;
    while (!err && !done) {
        dure_envelope envelope = {0};
        dure_msg *msg = NULL;
        err = dure_dealer_recv(&envelope, e->dealer, RECV_MS);
        const uint64_t now_ms = dure_clock_monotonic_ms();
        if (!err) err = dure_msg_decode(&msg, envelope.control, diag);
        if (!err) err = hear(&done, e, &hello, msg, diag);
        if (err == DURE_ERR_TIMEOUT || err == DURE_ERR_NET || err == DURE_ERR_CANCELLED) {
            err = DURE_OK;
        }
        dure_msg_free(&msg);
        dure_envelope_fini(&envelope);
        const dure_dealer_status *s = dure_dealer_status_of(e->dealer);
        if (!err && !done && s->connected &&
            (s->connects != connects || now_ms - asked_ms > ASK_AGAIN_MS)) {
            /* After the first time a member's HELLO is the question that is safe to repeat. */
            hello = hello || connects != 0;
            connects = s->connects;
            asked_ms = now_ms;
            err = hello ? send_hello(e, diag) : send_join(e, diag);
            if (err == DURE_ERR_NET || err == DURE_ERR_BUSY) err = DURE_OK;
        }
        say_waiting(e, &said_ms, now_ms);
        if (!err && !done && e->opts->patience_ms && now_ms - start_ms > e->opts->patience_ms) {
            err = dure_diag_set(diag, DURE_ERR_TIMEOUT,
                                "the coordinator at %s did not answer (%s); the same command goes "
                                "on when it does",
                                e->policy.endpoint, s->reason[0] ? s->reason : "no answer yet");
        }
    }
    return err;
}

static dure_err connect_and_join(enrolment *e, dure_diag *diag)
{
    const dure_dealer_opts opts = {.endpoint = e->policy.endpoint,
                                   .key = &e->site.curve,
                                   .server_public = e->invitation.coordinator_curve};
    dure_err err = dure_dealer_open(&e->dealer, &opts, diag);
    if (!err) err = converse(e, diag);
    dure_dealer_close(&e->dealer);
    return err;
}

/* Refused for good: nothing was drawn and nothing but the record left, so the reservation goes, and
 * the folder. */
static void undo(enrolment *e)
{
    dure_site_state *s = &e->site.state;
    if (s->reserved && e->ledger) {
        (void)!dure_site_ledger_release(e->ledger, &s->reservation, NULL);
    }
    /* Cut off below, the folder is one that nothing was declared in. */
    s->declared = (dure_declared){.n_pub = 0};
    s->reserved = false;
    (void)!dure_site_save_state(&e->site, NULL);
    remove_folder(e);
}

static dure_err fill(dure_enrolled *out, const enrolment *e)
{
    *out = (dure_enrolled){.roster_size = 0};
    memcpy(out->federation, e->policy.federation, sizeof out->federation);
    memcpy(out->name, e->policy.name, sizeof out->name);
    if (without_privacy(e)) return DURE_OK;
    out->plan = e->plan;
    out->delta = e->policy.budget.delta;
    return dure_calibrate_epsilon(&out->epsilon, &e->plan, NULL, out->delta);
}

dure_err dure_enrol(dure_enrolled *out, const dure_enrol_opts *opts, dure_diag *diag)
{
    enrolment *e = calloc(1, sizeof *e);
    if (!e) return DURE_ERR_NOMEM;
    e->opts = opts;
    dure_err err = read_invitation(e, diag);
    if (!err) err = start(e, diag);
    if (!err) err = connect_and_join(e, diag);
    if (!err) {
        e->site.state.joined = true;
        err = opts->renew ? dure_site_adopt(&e->site, diag) : dure_site_save_state(&e->site, diag);
    } else if (err == DURE_ERR_STATE && e->site_open && !e->site.state.joined && e->fresh) {
        undo(e);
    }
    if (!err) err = fill(out, e);
    if (e->site_open) dure_site_close(&e->site);
    dure_site_ledger_close(&e->ledger);
    dure_wipe(&e->invite, sizeof e->invite);
    free(e);
    return err;
}
