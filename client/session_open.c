/* The checks of a new round, before anything is sent or drawn for it. */
#include "client/session_int.h"

#include "common/clock.h"
#include "common/log.h"
#include "crypto/wipe.h"
#include "federation/global_adapter.h"
#include "federation/round_config.h"
#include "secagg/transcript.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How far a round's number may be ahead of the last that this site took part in; the coordinator's
 * bound on what sites claim is a millionth of it (coordinator/sites.c). */
#define ROUNDS_AHEAD_MAX (UINT64_C(1) << 40)

/* Whether this site knows of the result of any round. */
static bool has_result(const dure_session *s)
{
    static const dure_hash none;
    return !dure_hash_equal(&s->site.state.result_t3, &none);
}

/* ---- the roster ---- */

/* Entries the site has must be the same; new ones are verified and appended. */
static dure_err extend_roster(dure_session *s, const dure_msg_open *open, dure_diag *diag)
{
    size_t have = dure_roster_entries(s->site.roster);
    if (open->roster_from > have) {
        return dure_diag_set(diag, DURE_ERR_PROTO,
                             "the coordinator left out entries of the roster");
    }
    bool grown = false;
    for (size_t i = 0; i < open->n_roster; i++) {
        size_t number = (size_t)open->roster_from + i;
        if (number < have) {
            dure_span own = dure_roster_entry(s->site.roster, number);
            if (own.n != open->roster[i].n ||
                !dure_ct_equal(own.data, open->roster[i].data, own.n)) {
                return dure_diag_set(diag, DURE_ERR_AUTH,
                                     "the coordinator's roster differs in entry %zu from the one "
                                     "that this site has seen: it was rewritten",
                                     number);
            }
            continue;
        }
        dure_err err = dure_roster_append(s->site.roster, open->roster[i], diag);
        if (err) return dure_diag_prefix(diag, err, "entry %zu of the roster", number);
        grown = true;
    }
    return grown ? dure_site_save_roster(&s->site, diag) : DURE_OK;
}

/* ---- the log ---- */

/* Whether the note counts, with all that are in force in the roster that the round names and the
 * stricter of the terms' and the owner's bound on lying sites. */
static dure_err count_cosignatures(bool *counts, dure_cosign_tally *tally, uint32_t *n,
                                   const dure_session *s, const dure_note *note)
{
    const uint32_t agreed = s->site.invitation.terms.cohort.collusion;
    const uint32_t own = s->site.policy.collusion;
    dure_site_key *sites = calloc(DURE_MEMBERS_MAX, sizeof *sites);
    if (!sites) return DURE_ERR_NOMEM;
    *n = dure_roster_sites(sites, s->site.roster);
    const dure_cosigners who = {sites, *n, own > agreed ? own : agreed};
    dure_err err = dure_cosign_counts(counts, tally, note, &who);
    free(sites);
    return err;
}

static dure_err check_quorum(const dure_session *s, const dure_note *note, dure_diag *diag)
{
    dure_cosign_tally tally = {0};
    uint32_t n = 0;
    bool counts = false;
    dure_err err = count_cosignatures(&counts, &tally, &n, s, note);
    if (err || counts) return err;
    return dure_diag_set(diag, DURE_ERR_AUTH,
                         "the round cites a checkpoint of the log that only %u of %u sites "
                         "cosigned",
                         tally.n, n);
}

/* The size of the log that a round cited last, as long as it binds: a statement of the root may
 * have taken entries back since. 0 when there is none. */
static dure_err read_cited(uint64_t *n, const dure_session *s, dure_diag *diag)
{
    dure_buf bytes = {0};
    char *path = dure_site_path(&s->site, DURE_SITE_CITED);
    dure_note *note = calloc(1, sizeof *note);
    dure_err err = path && note ? DURE_OK : DURE_ERR_NOMEM;
    *n = 0;
    if (!err && dure_file_exists(path)) {
        err = dure_file_read(&bytes, path, DURE_NOTE_MAX, diag);
        if (!err) err = dure_note_parse(note, dure_buf_span(&bytes), diag);
        if (!err) *n = note->checkpoint.head.n;
        if (!err && *n > dure_witness_head(s->witness).n) *n = 0;
        dure_buf_fini(&bytes);
    }
    free(note);
    free(path);
    return err;
}

/* Every round cites at least what the last one did, and once this site knows of a result, a log
 * that holds it: a coordinator that need not cite what came of the last round could go on showing
 * every site another log. */
static dure_err check_progress(const dure_session *s, const dure_config *config, dure_diag *diag)
{
    uint64_t last = 0;
    dure_err err = read_cited(&last, s, diag);
    if (err) return err;
    if (config->checkpoint_size < last) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the round cites %llu entries of the log, but an earlier round cited "
                             "%llu: the log was rolled back or forked",
                             (unsigned long long)config->checkpoint_size, (unsigned long long)last);
    }
    if (has_result(s) && config->checkpoint_size <= s->site.state.result_index) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the round cites a log without the result that it follows");
    }
    return DURE_OK;
}

/* As what rounds may go back to, and for a coordinator that loses it. */
static dure_err keep_cited(const dure_session *s, uint64_t size, dure_span note, dure_diag *diag)
{
    char name[24];
    char *path = dure_site_path(&s->site, DURE_SITE_CITED);
    char *notes = dure_site_path(&s->site, DURE_SITE_NOTES), *copy = NULL;
    dure_err err = path && notes ? dure_file_write_atomic(path, note, 0600, diag) : DURE_ERR_NOMEM;
    if (!err) err = dure_dir_make(notes, diag);
    snprintf(name, sizeof name, "%llu", (unsigned long long)size);
    if (!err && !(copy = dure_path_join(notes, name))) err = DURE_ERR_NOMEM;
    if (!err) err = dure_file_write_atomic(copy, note, 0600, diag);
    free(copy);
    free(notes);
    free(path);
    return err;
}

void session_take_proof(dure_merkle_proof *out, const uint8_t (*hashes)[DURE_DIGEST_BYTES],
                        size_t n)
{
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < n && i < DURE_MERKLE_PROOF_MAX; i++) {
        memcpy(out->nodes[out->n++].b, hashes[i], DURE_DIGEST_BYTES);
    }
}

dure_err session_read_note(dure_note **out, const dure_session *s, dure_span text, dure_diag *diag)
{
    char origin[DURE_ORIGIN_SIZE];
    dure_note *note = calloc(1, sizeof *note);
    *out = note;
    if (!note) return DURE_ERR_NOMEM;
    dure_checkpoint_origin(origin, s->site.policy.federation, &s->federation_id);
    dure_err err = dure_note_parse(note, text, diag);
    return err ? err : dure_note_verify(note, origin, s->site.invitation.coordinator_sign, diag);
}

/* Whether this site can tell without a proof that a shown log is the one that it has verified, or
 * the beginning of it, which its copy has. */
static dure_err is_known(bool *known, const dure_session *s, const dure_merkle_head *shown)
{
    dure_merkle_head own = dure_witness_head(s->witness);
    const dure_leaf_log *copy = s->copy.log;
    *known = false;
    if (shown->n == 0 || shown->n > own.n) return DURE_OK;
    if (shown->n < own.n) {
        if (!copy || dure_leaf_log_size(copy) < shown->n) return DURE_OK;
        dure_err err = dure_leaf_log_head(&own, copy, shown->n);
        if (err) return err;
    }
    *known = dure_hash_equal(&own.root, &shown->root);
    return DURE_OK;
}

static bool leads(const dure_merkle_head *from, const dure_merkle_head *to,
                  const dure_merkle_proof *proof)
{
    /* The empty log is a part of every log and says nothing: nobody signs it. */
    if (from->n == 0) return proof->n == 0;
    return dure_merkle_verify_consistency(to, from, proof) == DURE_OK;
}

void session_note_start(dure_session *s, const dure_merkle_head *head)
{
    s->starts.heads[s->starts.n++ % SESSION_STARTS] = *head;
}

/* The proof begins where the site's last HELLO stood, and that may have crossed with what has
 * brought the site further since. A coordinator that shows two logs can use this only to be asked
 * again, a few times until the log grows. */
static bool has_crossed(dure_session *s, const dure_merkle_head *shown,
                        const dure_merkle_proof *proof)
{
    proof_starts *starts = &s->starts;
    bool found = false;
    for (uint32_t i = 0; shown->n && i < SESSION_STARTS && i < starts->n && !found; i++) {
        const dure_merkle_head *start = &starts->heads[i];
        found = start->n > shown->n ? leads(shown, start, proof) : leads(start, shown, proof);
    }
    if (!found || starts->passed_over >= SESSION_STARTS) return false;
    starts->passed_over++;
    dure_log(DURE_LOG_WARN, "client", "message_passed_over",
             "entries=%llu times=%u why=\"its proof begins at an earlier HELLO\"",
             (unsigned long long)shown->n, starts->passed_over);
    session_note_start(s, shown); /* where the coordinator goes on until it is asked again */
    s->greet_ms = dure_clock_monotonic_ms();
    return true;
}

dure_err session_check_history(dure_session *s, const dure_merkle_head *shown, dure_span note,
                               const dure_merkle_proof *consistency, dure_diag *diag)
{
    static const dure_merkle_proof none = {.n = 0};
    const dure_merkle_head seen = dure_witness_head(s->witness);
    bool known;
    dure_err err = is_known(&known, s, shown);
    if (err) return err;
    if (shown->n >= seen.n) {
        err = dure_witness_update(s->witness, note, known ? &none : consistency, diag);
        if (!err) err = session_settle_log(s, diag);
    } else if (!known && (shown->n == 0 || !leads(shown, &seen, consistency))) {
        err = dure_diag_set(diag, DURE_ERR_AUTH,
                            "the coordinator shows a log that the one this site has seen does not "
                            "extend: it was forked or rewritten");
    }
    if (!err) s->result_missed = false;
    if (dure_witness_head(s->witness).n > seen.n) s->starts.passed_over = 0;
    if (err != DURE_ERR_AUTH || !has_crossed(s, shown, consistency)) return err;
    return dure_diag_set(diag, DURE_ERR_CANCELLED, "the message crossed with the site's HELLO");
}

static dure_err check_cited(dure_session *s, const dure_config *config, const dure_note *note,
                            const dure_msg_open *open, dure_diag *diag)
{
    const dure_merkle_head *head = &note->checkpoint.head;
    dure_merkle_proof *proof = calloc(1, sizeof *proof);
    if (!proof) return DURE_ERR_NOMEM;
    dure_err err = DURE_OK;
    if (head->n != config->checkpoint_size ||
        !dure_ct_equal(head->root.b, config->checkpoint_root, DURE_DIGEST_BYTES)) {
        err = dure_diag_set(diag, DURE_ERR_AUTH,
                            "the round's checkpoint is not the one that was sent with it");
    }
    if (!err) err = check_quorum(s, note, diag);
    session_take_proof(proof, open->consistency, open->n_consistency);
    if (!err) err = session_check_history(s, head, open->checkpoint, proof, diag);
    if (!err) err = keep_cited(s, head->n, open->checkpoint, diag);
    /* A quorum speaks for it; saved with the round's number, before anything is sent. */
    if (!err && s->site.state.proven < head->n) s->site.state.proven = head->n;
    free(proof);
    return err;
}

static dure_err check_log(dure_session *s, const dure_config *config, const dure_msg_open *open,
                          dure_diag *diag)
{
    dure_err err = check_progress(s, config, diag);
    if (err) return err;
    if (config->checkpoint_size == 0) {
        if (open->checkpoint.n == 0) return DURE_OK;
        return dure_diag_set(diag, DURE_ERR_AUTH, "the round cites an empty log");
    }
    dure_note *note = NULL;
    err = session_read_note(&note, s, open->checkpoint, diag);
    if (!err) err = check_cited(s, config, note, open, diag);
    free(note);
    return err;
}

/* ---- budget and own part ---- */

/* What the owner's ledger says now: another copy of the folder may have run. */
static dure_err follow_ledger(dure_session *s, dure_diag *diag)
{
    if (!s->ledger) return DURE_OK;
    dure_err err = dure_site_ledger_refresh(s->ledger, diag);
    return err ? err : dure_site_follow_ledger(&s->site, s->ledger, diag);
}

static dure_err check_budget(dure_session *s, dure_diag *diag)
{
    if (session_round_steps(s) > session_steps_left(s)) {
        return dure_diag_set(
            diag, DURE_ERR_BUDGET,
            "%llu of the plan's %llu steps are used, and the round wants %llu more",
            (unsigned long long)s->site.state.steps_used, (unsigned long long)s->plan.steps,
            (unsigned long long)session_round_steps(s));
    }
    if (!s->ledger) return DURE_OK;
    const dure_reservation *reserved = NULL;
    dure_err err =
        dure_site_ledger_reservation(&reserved, s->ledger, &s->site.state.reservation, diag);
    if (!err && reserved->state == DURE_RESERVATION_RELEASED) {
        err = dure_diag_set(diag, DURE_ERR_BUDGET, "the plan's reservation was released in %s",
                            s->site.policy.ledger);
    }
    return err;
}

static dure_err check_own(const dure_session *s, const dure_config *config, uint32_t self,
                          dure_diag *diag)
{
    const dure_member *m = &config->members[self];
    const dure_declared *d = &s->site.state.declared;
    if (m->n_pub == d->n_pub && m->q_k == d->q_k && m->batch == d->batch &&
        m->sigma_num == d->sigma_num && m->sigma_den == d->sigma_den) {
        return DURE_OK;
    }
    return dure_diag_set(diag, DURE_ERR_PROTO,
                         "the round alters what this site declared when it joined");
}

/* Nothing else is public: zero before the first result, and B is zero in the adapter of then. */
dure_err session_first_adapter(dure_hash *out, const dure_session *s, dure_diag *diag)
{
    dure_buf file;
    dure_err err = dure_global_adapter_first(&file, &s->site.invitation.terms, diag);
    if (err) return err;
    err = dure_hash_bytes(out, dure_buf_span(&file));
    dure_buf_fini(&file);
    return err;
}

dure_err session_next_start(dure_hash *out, const dure_session *s, dure_diag *diag)
{
    *out = s->site.state.result_adapter;
    return has_result(s) ? DURE_OK : session_first_adapter(out, s, diag);
}

/* A round follows the last result, which this site knows from its own part in it or from the log
 * that came before OPEN, and starts from that result's adapter, whatever the gate said. The first
 * starts from the adapter that the terms determine. */
static dure_err check_start(const dure_session *s, const dure_config *config, dure_diag *diag)
{
    const dure_site_state *state = &s->site.state;
    dure_hash want;
    if (!dure_ct_equal(config->previous_t3, state->result_t3.b, DURE_DIGEST_BYTES)) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the round does not follow the last result that this site was shown");
    }
    dure_err err = session_next_start(&want, s, diag);
    if (err || dure_ct_equal(config->adapter_digest, want.b, DURE_DIGEST_BYTES)) return err;
    return dure_diag_set(
        diag, DURE_ERR_AUTH,
        has_result(s) ? "the round follows the last result but does not start from its "
                        "adapter"
                      : "the first round does not start from the federation's first adapter");
}

/* Numbers only grow, and disks keep them as signed ones: a leap would use them up for good. */
static dure_err check_number(const dure_session *s, const dure_config *config, dure_diag *diag)
{
    const uint64_t last = s->site.state.last_round;
    if (config->round <= last) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "round %llu was opened again, but this site took part in round %llu",
                             (unsigned long long)config->round, (unsigned long long)last);
    }
    if (config->round <= INT64_MAX && config->round - last <= ROUNDS_AHEAD_MAX) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_PROTO,
                         "round %llu leaps too far ahead of round %llu, the last one that this "
                         "site took part in: the numbers would soon be used up",
                         (unsigned long long)config->round, (unsigned long long)last);
}

static dure_err check_round(dure_session *s, const dure_config *config, uint32_t *self,
                            const dure_msg_open *open, dure_diag *diag)
{
    dure_err err = follow_ledger(s, diag);
    if (!err) err = extend_roster(s, open, diag);
    if (!err) {
        err = dure_round_config_verify(config, &s->site.invitation.terms, s->site.roster, diag);
    }
    if (!err) {
        err = dure_config_find(self, config, s->site.sign.public_);
        if (err) {
            err = dure_diag_set(diag, DURE_ERR_POLICY, "this site is not a member of the round");
        }
    }
    if (!err) err = check_number(s, config, diag);
    if (!err) err = check_own(s, config, *self, diag);
    if (!err) err = check_start(s, config, diag);
    if (!err) err = dure_policy_check_round(&s->site.policy, config, *self, diag);
    if (!err) err = check_log(s, config, open, diag);
    if (!err) err = check_budget(s, diag);
    return err;
}

/* ---- the answer ---- */

static dure_abort_code code_for(const dure_session *s, const dure_config *config, dure_err err)
{
    if (err == DURE_ERR_BUDGET) return DURE_ABORT_BUDGET;
    if (err == DURE_ERR_POLICY) {
        return config->round <= s->site.state.last_round ? DURE_ABORT_RESTARTED : DURE_ABORT_POLICY;
    }
    return err == DURE_ERR_PROTO || err == DURE_ERR_AUTH ? DURE_ABORT_CHECK : DURE_ABORT_LOCAL;
}

/* Fixed, because the owner's own sentence may hold a path or a figure of this machine. */
static const char *told(dure_abort_code code)
{
    switch (code) {
    case DURE_ABORT_BUDGET:
        return "the site's privacy budget does not allow the round";
    case DURE_ABORT_POLICY:
        return "the site's policy does not allow the round";
    case DURE_ABORT_RESTARTED:
        return "the site took part in this round or a later one";
    case DURE_ABORT_CHECK:
        return "the round did not pass the site's checks";
    default:
        return "the site cannot take part";
    }
}

dure_err session_make_refusal(dure_msg *out, const dure_session *s, const dure_hash *hash,
                              uint32_t self, dure_abort_code code)
{
    dure_hash digest;
    const dure_secagg_who who = {hash, self};
    dure_msg_abort *abort = &out->u.abort;
    *out = (dure_msg){.type = DURE_MSG_ABORT, .u.abort = {.code = code}};
    dure_msg_text(abort->text, told(code));
    memcpy(abort->config_hash, hash->b, DURE_DIGEST_BYTES);
    dure_err err = dure_secagg_digest_abort(&digest, who, code, abort->text);
    if (err) return err;
    return dure_sign(abort->signature, &s->site.sign, DURE_SECAGG_LABEL_ABORT,
                     dure_hash_span(&digest));
}

/* Refused: the coordinator goes on without this site. Only the owner is told why in full. */
static dure_err refuse(dure_session *s, const dure_config *config, const dure_hash *hash,
                       dure_err why, const dure_diag *text, dure_diag *diag)
{
    uint32_t self = 0;
    session_report(s, why == DURE_ERR_BUDGET ? "budget_refused" : "round_refused",
                   json_pack("{s:I, s:s}", "round", (json_int_t)config->round, "why", text->text));
    if (dure_config_find(&self, config, s->site.sign.public_)) return DURE_OK;
    dure_msg msg;
    dure_err err = session_make_refusal(&msg, s, hash, self, code_for(s, config, why));
    return err ? err : session_send(NULL, s, &msg, NULL, diag);
}

static void adopt(dure_session *s, dure_config **config, const dure_hash *hash, uint32_t self,
                  dure_span encoding)
{
    session_drop_round(s);
    s->round.config = *config;
    s->round.hash = *hash;
    s->round.self = self;
    dure_buf_init(&s->round.encoding, DURE_CONFIG_BYTES_MAX);
    dure_put_raw(&s->round.encoding, encoding.data, encoding.n);
    *config = NULL;
}

dure_err session_on_open(dure_session *s, const dure_msg *msg, dure_diag *diag)
{
    const dure_msg_open *open = &msg->u.open;
    dure_config *config = NULL;
    dure_hash hash;
    uint32_t self = 0;
    dure_diag why = {{0}};
    if (s->round.result || s->result_missed) {
        /* The last round's sum is still being fetched, or its result comes again: this round is
         * asked for after it. Once for each result, should that one not come. */
        s->open_missed = true;
        s->result_missed = false;
        return DURE_OK;
    }
    dure_err err = dure_round_config_hash(&hash, open->config);
    if (!err) {
        err = dure_round_config_verify_signature(&hash, open->signature,
                                                 s->site.invitation.coordinator_sign, &why);
    }
    if (!err && s->round.config && dure_hash_equal(&hash, &s->round.hash)) {
        /* The same round again: the same R0 again. */
        return session_begin_round(s, diag);
    }
    if (!err) err = dure_config_decode(&config, open->config, &why);
    if (err) {
        session_report(s, "round_refused", json_pack("{s:s}", "why", why.text));
        return dure_err_is_local(err) ? err : DURE_OK; /* only our own failures end the session */
    }
    err = check_round(s, config, &self, open, &why);
    if (err == DURE_ERR_CANCELLED) {
        err = DURE_OK; /* HELLO brings it again */
    } else if (err && dure_err_is_local(err)) {
        dure_diag_set(diag, err, "%s", why.text[0] ? why.text : dure_err_text(err));
    } else if (err) {
        err = refuse(s, config, &hash, err, &why, diag);
    } else {
        adopt(s, &config, &hash, self, open->config);
        err = dure_buf_err(&s->round.encoding);
        if (!err) err = session_begin_round(s, diag);
    }
    dure_config_free(&config);
    return err;
}
