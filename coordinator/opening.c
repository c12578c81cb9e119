/* From enough sites to an open round, and from a stored round to a running one. */
#include "coordinator/coordinator_int.h"

#include "common/clock.h"
#include "federation/round_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void dure_coordinator_forget_round(dure_coordinator *c)
{
    dure_round_free(&c->now.round);
    dure_aggregate_free(&c->now.aggregate);
    dure_buf_fini(&c->now.encoding);
    free(c->now.config);
    c->now = (dure_current_round){.config = NULL};
}

/* ---- the checkpoint that the configuration cites ---- */

dure_err dure_coordinator_citable(uint64_t *size, dure_coordinator *c, dure_diag *diag)
{
    dure_err err = DURE_OK;
    if (!c->cited_known) {
        const uint32_t n = dure_roster_sites(c->cosigners, c->roster);
        const dure_cosigners who = {c->cosigners, n, c->folder.settings.terms.cohort.collusion};
        err = dure_journal_newest_counting(&c->cited, c->journal, &who, diag);
        c->cited_known = !err;
    }
    *size = err ? 0 : c->cited;
    return err;
}

/* ---- who is here ---- */

/* Of the N sites in force m cosigned the newest log that counts, 2m > N + c; N - m others and c
 * that lie may be heard first. */
bool dure_coordinator_heard_quorum(const dure_coordinator *c)
{
    const size_t n = dure_roster_in_force(c->roster);
    const size_t collusion = c->folder.settings.terms.cohort.collusion;
    const size_t quorum = (n + collusion) / 2 + 1;
    size_t heard = 0;
    for (size_t i = 0; i < dure_roster_count(c->roster); i++)
        heard += c->sites[i].present && !dure_roster_at(c->roster, i)->revoked;
    return heard + quorum > n + collusion;
}

bool dure_coordinator_heard_enough(const dure_coordinator *c)
{
    return dure_journal_newest(c->journal) == 0 || dure_coordinator_heard_quorum(c);
}

static uint32_t count_present(const dure_coordinator *c, uint64_t now_ms)
{
    uint32_t n = 0;
    for (size_t i = 0; i < dure_roster_count(c->roster); i++)
        n += dure_coordinator_site_present(c, i, now_ms);
    return n;
}

/* Why a site that may be connected does not count; empty: it is away. */
static const char *why_absent(const dure_site_state *s)
{
    if (s->chain_old) return " (its privacy ledger is an older copy)";
    if (!s->unwilling_ms) return "";
    return s->unwilling == DURE_ABORT_BUDGET ? " (its privacy budget does not allow the round)"
                                             : " (its policy forbids the round)";
}

/* No member has the name of the revoked site `i`: it was sent away, or has not renewed its keys. */
static bool is_gone(const dure_coordinator *c, size_t i)
{
    const char *name = dure_roster_at(c->roster, i)->join.invitation.name;
    for (size_t k = i + 1; k < dure_roster_count(c->roster); k++)
        if (strcmp(dure_roster_at(c->roster, k)->join.invitation.name, name) == 0) return false;
    return dure_roster_at(c->roster, i)->revoked;
}

/* Too few are here: who of the roster is not, or that too few are in it at all. */
static void say_absent(char text[DURE_MSG_TEXT_SIZE], const dure_coordinator *c, uint32_t present,
                       uint64_t now_ms)
{
    const size_t size = DURE_MSG_TEXT_SIZE, joined = dure_roster_in_force(c->roster);
    const uint32_t needed = c->folder.settings.terms.cohort.min_sites;
    const char *comma = "; revoked: ";
    int at = snprintf(text, size, "waiting for sites: %u of at least %u are here", present, needed);
    if (joined < needed)
        at += snprintf(text + at, size - (size_t)at, ", and only %zu are members: invite more",
                       joined);
    for (size_t i = 0; joined < needed && i < dure_roster_count(c->roster); i++) {
        if (!is_gone(c, i) || at < 0 || (size_t)at >= size) continue;
        at += snprintf(text + at, size - (size_t)at, "%s%s", comma,
                       dure_roster_at(c->roster, i)->join.invitation.name);
        comma = ", ";
    }
    comma = "; missing: ";
    for (size_t i = 0; i < dure_roster_count(c->roster) && at > 0 && (size_t)at < size; i++) {
        const dure_roster_member *m = dure_roster_at(c->roster, i);
        if (m->revoked || dure_coordinator_site_present(c, i, now_ms)) continue;
        at += snprintf(text + at, size - (size_t)at, "%s%s%s", comma, m->join.invitation.name,
                       why_absent(&c->sites[i]));
        comma = ", ";
    }
}

/* Who has not cosigned the last result yet. */
static void say_cosigners(char text[DURE_MSG_TEXT_SIZE], const dure_coordinator *c)
{
    const size_t size = DURE_MSG_TEXT_SIZE;
    const char *comma = ": waiting for ";
    int at = snprintf(text, size,
                      "the log with the last result lacks cosignatures (revoke who does not "
                      "come back)");
    for (size_t i = 0; i < dure_roster_count(c->roster) && at > 0 && (size_t)at < size; i++) {
        const dure_roster_member *m = dure_roster_at(c->roster, i);
        if (m->revoked || c->sites[i].has_result) continue;
        at += snprintf(text + at, size - (size_t)at, "%s%s", comma, m->join.invitation.name);
        comma = ", ";
    }
}

/* Of the round in hand; false: there is none. */
static bool say_round(char text[DURE_MSG_TEXT_SIZE], const dure_coordinator *c, uint64_t now_ms)
{
    if (c->state == DURE_LOOP_GATING)
        snprintf(text, DURE_MSG_TEXT_SIZE, "evaluating the new adapter");
    else if (c->sum_waits)
        snprintf(text, DURE_MSG_TEXT_SIZE,
                 "round %llu is summed: its result is published when more of the roster are here, "
                 "which could know of a newer log; revoke those that do not come back",
                 (unsigned long long)c->now.row.round);
    else if (c->state == DURE_LOOP_RUNNING && c->now.round)
        dure_round_waiting_text(text, c->now.round, now_ms);
    else
        return false;
    return true;
}

void dure_coordinator_waiting(uint32_t *present, uint32_t *needed, char text[DURE_MSG_TEXT_SIZE],
                              const dure_coordinator *c, uint64_t now_ms)
{
    *present = count_present(c, now_ms);
    *needed = c->folder.settings.terms.cohort.min_sites;
    if (say_round(text, c, now_ms)) return;
    if (!c->recovery.needed && c->facts.n_done >= c->folder.settings.terms.training.rounds) {
        /* 0 tells the sites that nothing will come any more. */
        *needed = 0;
        snprintf(text, DURE_MSG_TEXT_SIZE, "all %llu rounds are done",
                 (unsigned long long)c->facts.n_done);
        return;
    }
    if (c->recovery.needed && c->recovery.adapter_missed)
        snprintf(
            text, DURE_MSG_TEXT_SIZE,
            "the adapter of round %llu is lost: no site that is here has it. Wait for one that "
            "has, or take the log back with 'dure epoch draft --keep %llu'",
            (unsigned long long)c->facts.done_round, (unsigned long long)c->facts.done_index);
    else if (c->recovery.needed)
        snprintf(text, DURE_MSG_TEXT_SIZE,
                 "this folder is an older copy than its key has signed: what it lacks is asked "
                 "back from the sites; if none has it, see 'dure epoch --help'");
    else if (c->rounds_done >= c->target)
        snprintf(text, DURE_MSG_TEXT_SIZE,
                 "%llu rounds are done, more when the coordinator is run "
                 "again",
                 (unsigned long long)c->facts.n_done);
    else if (*present < *needed)
        say_absent(text, c, *present, now_ms);
    else if (!dure_coordinator_heard_enough(c))
        snprintf(text, DURE_MSG_TEXT_SIZE,
                 "%u sites are here: more of the roster are waited for after a start, which could "
                 "know of a newer log; revoke those that do not come back",
                 *present);
    else if (c->cited_known && c->facts.n_done && c->cited <= c->facts.done_index)
        say_cosigners(text, c);
    else
        snprintf(text, DURE_MSG_TEXT_SIZE, "%u sites are here: a round opens soon", *present);
}

/* The signing keys of those who are here, at most as many as a round holds. */
static size_t present_keys(uint8_t (*sign)[32], const dure_coordinator *c, uint64_t now_ms)
{
    size_t n = 0;
    for (size_t i = 0; i < dure_roster_count(c->roster) && n < DURE_MEMBERS_MAX; i++)
        if (dure_coordinator_site_present(c, i, now_ms))
            memcpy(sign[n++], dure_roster_at(c->roster, i)->join.sign_public, 32);
    return n;
}

/* Enough sites for a while, or all of them; and a log that holds the last result counts, or no site
 * would follow it. */
static dure_err may_open(bool *may, dure_coordinator *c, uint64_t now_ms, dure_diag *diag)
{
    uint64_t cited = 0;
    *may = false;
    const uint32_t present = count_present(c, now_ms);
    if (c->rounds_done >= c->target || c->recovery.needed || !dure_coordinator_heard_enough(c) ||
        now_ms < c->retry_ms || present < c->folder.settings.terms.cohort.min_sites) {
        c->ready_ms = 0;
        return DURE_OK;
    }
    if (!c->ready_ms) c->ready_ms = now_ms;
    if (present < dure_roster_in_force(c->roster) &&
        dure_elapsed_ms(now_ms, c->ready_ms) < c->opts.settle_ms)
        return DURE_OK;
    dure_err err = dure_coordinator_citable(&cited, c, diag);
    *may = !err && (c->facts.n_done == 0 || cited > c->facts.done_index);
    return err;
}

/* ---- the configuration ---- */

static dure_err gather_facts(dure_round_facts *facts, dure_coordinator *c, uint64_t now_ms,
                             dure_diag *diag)
{
    *facts = (dure_round_facts){.run_id = c->facts.run_id,
                                .round = c->facts.last_round,
                                .previous_t3 = c->facts.previous_t3,
                                .adapter_digest = c->facts.adapter};
    /* Sites refuse a number that is not above every one they took part in. */
    for (size_t i = 0; i < dure_roster_count(c->roster); i++)
        if (dure_coordinator_site_present(c, i, now_ms) && c->sites[i].last_round > facts->round)
            facts->round = c->sites[i].last_round;
    facts->round++;
    dure_merkle_head head = {0};
    uint64_t cited = 0;
    dure_err err = dure_coordinator_citable(&cited, c, diag);
    if (!err) err = dure_leaf_log_head(&head, dure_journal_log(c->journal), cited);
    facts->checkpoint_size = head.n;
    facts->checkpoint_root = head.root;
    return err;
}

static dure_err encode_and_sign(dure_coordinator *c, dure_diag *diag)
{
    dure_current_round *now = &c->now;
    dure_buf_init(&now->encoding, DURE_CONFIG_BYTES_MAX);
    dure_err err = dure_config_encode(&now->encoding, now->config, diag);
    if (!err) err = dure_round_config_hash(&now->row.config_hash, dure_buf_span(&now->encoding));
    if (!err)
        err = dure_round_config_sign(now->row.config_signature, &now->row.config_hash,
                                     &c->folder.sign);
    now->row.round = now->config->round;
    now->row.n_members = now->config->n_members;
    memcpy(now->row.adapter_in.b, now->config->adapter_digest, sizeof now->row.adapter_in.b);
    return err;
}

/* Places of the members in the roster. */
static dure_err map_members(dure_coordinator *c, dure_diag *diag)
{
    for (uint32_t m = 0; m < c->now.config->n_members; m++) {
        size_t i = 0;
        const size_t n = dure_roster_count(c->roster);
        while (i < n && memcmp(dure_roster_at(c->roster, i)->join.sign_public,
                               c->now.config->members[m].sign_public, 32) != 0)
            i++;
        if (i == n)
            return dure_diag_set(diag, DURE_ERR_STATE,
                                 "the open round counts a site that is not in the roster");
        c->now.sites[m] = i;
    }
    return DURE_OK;
}

/* ---- the ledger ---- */

static dure_err append_event(dure_coordinator *c, dure_event *event, dure_diag *diag)
{
    return dure_journal_append(NULL, c->journal, event, diag);
}

/* A version of the roster that the log does not have yet. */
static dure_err log_roster(dure_coordinator *c, dure_event *event, dure_diag *diag)
{
    const dure_event_roster *there = dure_journal_roster(c->journal);
    const dure_hash head = dure_roster_head(c->roster);
    if (there && dure_hash_equal(&there->head, &head)) return DURE_OK;
    dure_entries_roster(event, c->roster, dure_clock_wall_s());
    return append_event(c, event, diag);
}

dure_err dure_coordinator_last_said(bool *found, dure_event *event, const dure_coordinator *c,
                                    dure_diag *diag)
{
    const dure_leaf_log *log = dure_journal_log(c->journal);
    bool of_a_round = false;
    *found = false;
    for (uint64_t i = dure_leaf_log_size(log); i-- > 0 && !of_a_round;) {
        dure_buf leaf;
        dure_err err = dure_leaf_log_read(&leaf, log, i, diag);
        if (!err) err = dure_event_decode(event, dure_buf_span(&leaf), diag);
        dure_buf_fini(&leaf);
        if (err) return err;
        of_a_round = event->kind == DURE_EVENT_OPENED || event->kind == DURE_EVENT_CLOSED ||
                     event->kind == DURE_EVENT_ABORTED;
    }
    *found = of_a_round && dure_hash_equal(&event->u.round.h_c, &c->now.row.config_hash);
    return DURE_OK;
}

/* Once: after a crash the leaf may be there. */
static dure_err log_opened(dure_coordinator *c, dure_event *event, dure_diag *diag)
{
    bool found = false;
    dure_err err = dure_coordinator_last_said(&found, event, c, diag);
    if (err || found) return err;
    const dure_round_outcome outcome = {.config_hash = c->now.row.config_hash};
    dure_round_event_make(event, DURE_EVENT_OPENED, c->now.config, &outcome, dure_clock_wall_s());
    return append_event(c, event, diag);
}

/* ---- OPEN ---- */

/* Between what the site saw last and what C cites; either may be the longer one, since C cites a
 * checkpoint that counts and the site may have seen one that did not get that far. */
static dure_err fill_consistency(dure_merkle_proof *proof, const dure_coordinator *c,
                                 const dure_site_state *s)
{
    const uint64_t cited = c->now.config->checkpoint_size, seen = s->checkpoint.n;
    proof->n = 0;
    if (cited == 0 || seen == 0 || seen == cited) return DURE_OK;
    return dure_leaf_log_consistency(proof, dure_journal_log(c->journal),
                                     cited > seen ? cited : seen, cited > seen ? seen : cited);
}

dure_err dure_coordinator_send_open(dure_coordinator *c, uint32_t member, dure_diag *diag)
{
    const size_t site = c->now.sites[member];
    const dure_site_state *s = &c->sites[site];
    const size_t n_entries = (size_t)c->now.config->roster_size;
    const size_t from = s->roster_size < n_entries ? (size_t)s->roster_size : n_entries;
    dure_span entries[DURE_ROSTER_MAX_ENTRIES];
    dure_merkle_proof *proof = calloc(1, sizeof *proof);
    dure_buf note;
    dure_buf_init(&note, DURE_NOTE_MAX);
    dure_err err = proof ? dure_coordinator_show_last(c, site, diag) : DURE_ERR_NOMEM;
    if (!err) err = fill_consistency(proof, c, s);
    if (!err && c->now.config->checkpoint_size)
        err = dure_journal_note(&note, c->journal, c->now.config->checkpoint_size, diag);
    if (!err) {
        for (size_t i = from; i < n_entries; i++)
            entries[i - from] = dure_roster_entry(c->roster, i);
        dure_msg msg = {.type = DURE_MSG_OPEN,
                        .u.open = {.config = dure_buf_span(&c->now.encoding),
                                   .roster_from = from,
                                   .roster = entries,
                                   .n_roster = n_entries - from,
                                   .checkpoint = dure_buf_span(&note),
                                   .consistency = (const uint8_t(*)[DURE_DIGEST_BYTES])proof->nodes,
                                   .n_consistency = proof->n}};
        memcpy(msg.u.open.signature, c->now.row.config_signature, DURE_SIGNATURE_BYTES);
        err = dure_coordinator_send(c, site, &msg, diag);
    }
    dure_buf_fini(&note);
    free(proof);
    return err;
}

/* ---- opening and resuming ---- */

static dure_round_opts round_opts(const dure_coordinator *c)
{
    return (dure_round_opts){.config = c->now.config,
                             .config_hash = c->now.row.config_hash,
                             .sign = &c->folder.sign,
                             .patience = c->opts.patience};
}

static void report_open(dure_coordinator *c)
{
    json_t *names = json_array();
    for (uint32_t m = 0; m < c->now.config->n_members; m++)
        json_array_append_new(names, json_string(c->now.config->members[m].name));
    dure_coordinator_report(c, "round_open",
                            json_pack("{s:I, s:I, s:I, s:I, s:o}", "round",
                                      (json_int_t)c->now.row.round, "number",
                                      (json_int_t)c->facts.n_done + 1, "threshold",
                                      (json_int_t)c->now.config->threshold, "collusion",
                                      (json_int_t)c->now.config->collusion, "sites", names));
}

/* The configuration is on disk, and then in the log, before it is sent. */
static dure_err begin(dure_coordinator *c, uint64_t now_ms, dure_event *event, dure_diag *diag)
{
    static uint8_t sign[DURE_MEMBERS_MAX][32];
    dure_round_facts facts;
    dure_err err = gather_facts(&facts, c, now_ms, diag);
    if (!err) err = log_roster(c, event, diag);
    if (err) return err;
    const size_t n = present_keys(sign, c, now_ms);
    err = dure_round_config_make(c->now.config, &c->folder.settings.terms, c->roster, &facts,
                                 (const uint8_t(*)[32])sign, n, diag);
    if (!err) err = encode_and_sign(c, diag);
    if (!err) err = map_members(c, diag);
    c->now.row.opened_s = dure_clock_wall_s();
    if (!err)
        err = dure_store_open_round(c->store, &c->now.row, dure_buf_span(&c->now.encoding), diag);
    if (!err) c->facts.last_round = c->now.row.round;
    if (!err) err = log_opened(c, event, diag);
    return err;
}

dure_err dure_coordinator_try_open(dure_coordinator *c, uint64_t now_ms, dure_diag *diag)
{
    bool may = false;
    dure_err err = may_open(&may, c, now_ms, diag);
    if (err || !may) return err;
    dure_coordinator_forget_round(c);
    c->now.config = calloc(1, sizeof *c->now.config);
    dure_event *event = calloc(1, sizeof *event);
    err = c->now.config && event ? begin(c, now_ms, event, diag) : DURE_ERR_NOMEM;
    const dure_round_opts opts = round_opts(c);
    if (!err) err = dure_round_new(&c->now.round, &opts, now_ms, diag);
    if (!err)
        err =
            dure_aggregate_open(&c->now.aggregate, c->folder.dir, c->now.config, &c->budget, diag);
    if (!err) {
        c->state = DURE_LOOP_RUNNING;
        c->ready_ms = 0;
        c->now.entered_ms = now_ms;
        report_open(c);
    }
    for (uint32_t m = 0; !err && m < c->now.config->n_members; m++)
        err = dure_coordinator_send_open(c, m, diag);
    free(event);
    return err;
}

/* The stored records of A1..Ak. */
static dure_err read_records(dure_buf records[DURE_STORE_RECORDS], size_t *k,
                             const dure_coordinator *c, uint64_t round, dure_diag *diag)
{
    *k = 0;
    for (unsigned i = 0; i < DURE_STORE_RECORDS; i++)
        dure_buf_init(&records[i], 0);
    while (*k < DURE_STORE_RECORDS) {
        dure_err err = dure_store_record(&records[*k], c->store, round, (unsigned)*k + 1, diag);
        if (err == DURE_ERR_NOT_FOUND) return DURE_OK;
        if (err) return err;
        ++*k;
    }
    return DURE_OK;
}

/* Past A3 no vector is collected any more, but those of U3 are still to be summed. */
static dure_err take_up_spools(dure_coordinator *c, uint64_t now_ms, dure_diag *diag)
{
    dure_err err = DURE_OK;
    for (uint32_t m = 0; !err && m < c->now.config->n_members; m++)
        if (dure_members_has(&c->now.u3, m))
            err = dure_aggregate_collect(c->now.aggregate, m, now_ms, diag);
    return err;
}

static dure_err resume_round(dure_coordinator *c, uint64_t now_ms, dure_diag *diag)
{
    dure_buf records[DURE_STORE_RECORDS];
    dure_span spans[DURE_STORE_RECORDS];
    dure_secagg_actions actions = {0};
    size_t k;
    dure_err err = read_records(records, &k, c, c->now.row.round, diag);
    for (size_t i = 0; i < k; i++)
        spans[i] = dure_buf_span(&records[i]);
    const dure_round_opts opts = round_opts(c);
    if (!err) err = dure_round_resume(&c->now.round, &actions, &opts, spans, k, now_ms, diag);
    if (!err) {
        c->now.u2 = dure_secagg_server_set(dure_round_sum(c->now.round), 2);
        c->now.u3 = dure_secagg_server_set(dure_round_sum(c->now.round), 3);
        if (c->now.row.status == DURE_STORED_OPEN) {
            err = take_up_spools(c, now_ms, diag);
            if (!err) err = dure_coordinator_act(c, &actions, now_ms, diag);
        }
    }
    dure_secagg_actions_fini(&actions);
    for (size_t i = 0; i < DURE_STORE_RECORDS; i++)
        dure_buf_fini(&records[i]);
    return err;
}

/* The log ended the round and the store was not told any more: *ended, and told now. */
static dure_err settle_aborted(bool *ended, dure_coordinator *c, dure_event *event, dure_diag *diag)
{
    dure_err err = dure_coordinator_last_said(ended, event, c, diag);
    *ended = !err && *ended && event->kind == DURE_EVENT_ABORTED;
    if (!*ended) return err;
    err = dure_store_fail_round(c->store, c->now.row.round, event->u.round.reason, event->time_s,
                                diag);
    if (!err) err = dure_aggregate_remove_stale(c->folder.dir, 0, diag);
    dure_coordinator_forget_round(c);
    return err;
}

dure_err dure_coordinator_resume(dure_coordinator *c, uint64_t now_ms, dure_diag *diag)
{
    dure_err err = dure_store_unfinished(&c->now.row, c->store, NULL);
    const uint64_t keep = err == DURE_ERR_NOT_FOUND ? 0 : c->now.row.round;
    if (err && err != DURE_ERR_NOT_FOUND)
        return dure_diag_set(diag, err, "the stored rounds cannot be read");
    dure_err stale = dure_aggregate_remove_stale(c->folder.dir, keep, diag);
    if (err || stale) return stale;
    dure_event *event = calloc(1, sizeof *event);
    dure_buf encoding;
    dure_buf_init(&encoding, 0);
    err = event ? dure_store_config(&encoding, c->store, keep, diag) : DURE_ERR_NOMEM;
    c->now.encoding = encoding;
    if (!err) err = dure_config_decode(&c->now.config, dure_buf_span(&c->now.encoding), diag);
    bool ended = false;
    if (!err) err = settle_aborted(&ended, c, event, diag);
    if (err || ended) goto out;
    err = map_members(c, diag);
    if (!err && c->now.row.status == DURE_STORED_OPEN) err = log_opened(c, event, diag);
    if (!err)
        err =
            dure_aggregate_open(&c->now.aggregate, c->folder.dir, c->now.config, &c->budget, diag);
    if (!err) {
        c->state = DURE_LOOP_RUNNING;
        c->now.entered_ms = now_ms;
        dure_coordinator_report(c, "round_resumed", json_pack("{s:I}", "round", (json_int_t)keep));
        err = resume_round(c, now_ms, diag);
    }
    c->sum_waits = !err && c->now.row.status == DURE_STORED_SUMMED;
out:
    free(event);
    return err;
}
