#include "coordinator/coordinator_int.h"

#include "common/clock.h"
#include "common/log.h"
#include "coordinator/history.h"
#include "crypto/wipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ANSWER_MS = 30000,        /* a frame of the largest size takes 8 s at 200 kbit/s */
    DOUBT_MS = 600000,        /* after a wrong answer */
    LOST_MAX_BYTES = 1 << 28, /* of entries, before they are verified */
};

static void end_asking(dure_coordinator *c)
{
    dure_recovery *r = &c->recovery;
    dure_roster_free(&r->roster);
    dure_buf_fini(&r->note);
    dure_buf_fini(&r->entries);
    dure_buf_fini(&r->file);
    r->step = DURE_RECOVER_NOTHING;
    r->asked_ms = 0;
    r->misses = 0;
}

void dure_coordinator_end_recovery(dure_coordinator *c)
{
    end_asking(c);
    dure_buf_fini(&c->recovery.claim.entries);
}

dure_err dure_coordinator_begin_recovery(dure_coordinator *c)
{
    bool lacks = false;
    dure_err err = dure_coordinator_lacks_adapter(&lacks, c);
    c->recovery.needed = c->facts.recovering > 0 || lacks;
    c->recovery.wants_notes = c->recovery.needed;
    return err;
}

/* ---- whom to ask ---- */

static void doubt(dure_recovery *r, const dure_hash *peer)
{
    dure_recovery_doubt *d = &r->doubts[r->n_doubts++ % DURE_RECOVERY_DOUBTS];
    *d = (dure_recovery_doubt){*peer, dure_clock_monotonic_ms() + DOUBT_MS};
}

static bool is_doubted(const dure_recovery *r, const dure_hash *peer)
{
    const uint64_t now_ms = dure_clock_monotonic_ms();
    for (size_t i = 0; i < DURE_RECOVERY_DOUBTS; i++)
        if (now_ms < r->doubts[i].until_ms && dure_hash_equal(peer, &r->doubts[i].peer))
            return true;
    return false;
}

/* Someone is being asked, and has not been silent for too long. */
static bool is_busy(const dure_recovery *r)
{
    return (r->step == DURE_RECOVER_ROSTER || r->step == DURE_RECOVER_LOG) &&
           dure_elapsed_ms(dure_clock_monotonic_ms(), r->asked_ms) < ANSWER_MS;
}

static dure_err ask(dure_coordinator *c, const dure_hash *peer, dure_entries_kind kind,
                    uint64_t from, dure_diag *diag)
{
    const dure_msg msg = {.type = DURE_MSG_ENTRIES_REQUEST, .u.entries_request = {kind, from}};
    return dure_coordinator_send_to(c, peer, &msg, diag);
}

static dure_err ask_source(dure_coordinator *c, dure_entries_kind kind, uint64_t from,
                           dure_diag *diag)
{
    c->recovery.asked_ms = dure_clock_monotonic_ms();
    return ask(c, &c->recovery.source, kind, from, diag);
}

bool dure_coordinator_is_behind(const dure_coordinator *c, const dure_msg_hello *h)
{
    return h->checkpoint_size > dure_journal_newest(c->journal) ||
           h->roster_size > dure_roster_entries(c->roster);
}

bool dure_coordinator_asks_guests(const dure_coordinator *c)
{
    const dure_recovery *r = &c->recovery;
    const bool waits = r->guest_ms && !r->guest_wrong &&
                       dure_elapsed_ms(dure_clock_monotonic_ms(), r->guest_ms) < ANSWER_MS;
    return waits || is_busy(r);
}

/* Anyone can claim to have seen more, under a new key each time. So a question holds up the other
 * guests for ANSWER_MS, and no question does for as long after it: they are answered then. */
static void hold_guests(dure_recovery *r, const dure_hash *peer)
{
    const uint64_t now_ms = dure_clock_monotonic_ms();
    if (r->guest_ms && dure_elapsed_ms(now_ms, r->guest_ms) < 2 * ANSWER_MS) return;
    r->guest_ms = now_ms;
    r->guest = *peer;
    r->guest_wrong = false;
}

dure_err dure_coordinator_ask_back(dure_coordinator *c, const dure_hash *peer, bool member,
                                   const dure_msg_hello *h, dure_diag *diag)
{
    if (is_busy(&c->recovery) || is_doubted(&c->recovery, peer)) return DURE_OK;
    dure_log(DURE_LOG_INFO, "coordinator", "is_behind", "claimed_log=%llu claimed_roster=%llu",
             (unsigned long long)h->checkpoint_size, (unsigned long long)h->roster_size);
    if (!member) hold_guests(&c->recovery, peer);
    if (h->checkpoint_size > dure_journal_newest(c->journal))
        return ask(c, peer, DURE_ENTRIES_CHECKPOINT, 0, diag);
    return member ? ask(c, peer, DURE_ENTRIES_ROSTER, dure_roster_entries(c->roster), diag)
                  : DURE_OK;
}

/* What the peer answered is wrong: others are asked. Our own failures end the process. */
static dure_err refuse(dure_coordinator *c, const dure_hash *peer, const char *name, dure_err err,
                       const dure_diag *why, dure_diag *diag)
{
    const char *text = why->text[0] ? why->text : dure_err_text(err);
    if (dure_err_is_local(err)) return dure_diag_set(diag, err, "%s", text);
    doubt(&c->recovery, peer);
    if (dure_hash_equal(peer, &c->recovery.guest)) c->recovery.guest_wrong = true;
    dure_coordinator_report(c, "recovery_refused",
                            json_pack("{s:s, s:s}", "site", name, "why", text));
    return DURE_OK;
}

static dure_err refuse_source(dure_coordinator *c, dure_err err, const dure_diag *why,
                              dure_diag *diag)
{
    dure_err last = refuse(c, &c->recovery.source, c->recovery.source_name, err, why, diag);
    end_asking(c);
    return last;
}

/* Entries of a frame are as many as fit; who sends fewer could make this last for ever. */
static bool is_scanty(const dure_msg_entries *e, uint64_t have, uint64_t goal)
{
    return have < goal && e->n_bytes + 4u + DURE_LEAF_MAX <= DURE_ENTRIES_ANSWER_BYTES;
}

/* ---- the checkpoint ---- */

static dure_err read_checkpoint(dure_merkle_head *head, const dure_coordinator *c, dure_span text,
                                dure_diag *why)
{
    char origin[DURE_ORIGIN_SIZE];
    dure_note *note = calloc(1, sizeof *note);
    if (!note) return DURE_ERR_NOMEM;
    dure_checkpoint_origin(origin, c->folder.settings.terms.federation, &c->folder.federation_id);
    dure_err err = dure_note_parse(note, text, why);
    if (!err) err = dure_note_verify(note, origin, c->folder.sign.public_, why);
    if (!err && note->checkpoint.head.n <= dure_journal_newest(c->journal))
        err = dure_diag_set(why, DURE_ERR_PROTO, "its checkpoint is no newer than the one here");
    *head = note->checkpoint.head;
    free(note);
    return err;
}

/* It may be of entries that the root called lost, and then says nothing about what is here. */
static bool may_be_lost(const dure_coordinator *c, uint64_t size)
{
    size_t n = 0;
    const dure_journal_loss *losses = dure_journal_losses(&n, c->journal);
    for (size_t i = 0; i < n; i++)
        if (size <= losses[i].lost_n) return true;
    return false;
}

/* Proved: what is here is old. The round in hand is of a time that is over. */
static dure_err stop_everything(dure_coordinator *c, dure_diag *diag)
{
    dure_recovery *r = &c->recovery;
    if (c->gating.running && c->opts.gate) c->opts.gate->stop(c->opts.gate->state);
    c->gating.running = c->sum_waits = false;
    dure_coordinator_forget_round(c);
    c->state = DURE_LOOP_GATHERING;
    r->needed = true;
    dure_err err = dure_store_put_recovering(c->store, r->head.n, diag);
    if (!err) err = dure_aggregate_remove_stale(c->folder.dir, 0, diag);
    if (!err) c->facts.recovering = r->head.n;
    dure_coordinator_report(c, "folder_is_old",
                            json_pack("{s:I, s:I, s:s}", "entries",
                                      (json_int_t)dure_journal_newest(c->journal), "signed_before",
                                      (json_int_t)r->head.n, "site", r->source_name));
    return err;
}

static dure_err begin_source(dure_coordinator *c, const dure_hash *peer, const char *name,
                             const dure_merkle_head *head, dure_span note, dure_diag *diag)
{
    dure_recovery *r = &c->recovery;
    const dure_event_roster *roster = dure_journal_roster(c->journal);
    end_asking(c);
    r->step = DURE_RECOVER_ROSTER;
    r->source = *peer;
    r->head = *head;
    snprintf(r->source_name, sizeof r->source_name, "%s", name);
    dure_buf_init(&r->note, DURE_NOTE_MAX);
    dure_buf_init(&r->entries, LOST_MAX_BYTES);
    dure_put_raw(&r->note, note.data, note.n);
    r->from = r->have = dure_journal_newest(c->journal);
    r->log_roster_n = roster ? roster->size : 0;
    if (roster) r->log_roster = roster->head;
    dure_err err = dure_buf_err(&r->note);
    if (!err) err = dure_roster_new(&r->roster, c->folder.settings.root_public);
    if (!err && !may_be_lost(c, head->n) && c->facts.recovering < head->n)
        err = stop_everything(c, diag);
    return err ? err : ask_source(c, DURE_ENTRIES_ROSTER, 0, diag);
}

static dure_err take_checkpoint(dure_coordinator *c, const dure_hash *peer, const char *name,
                                const dure_msg *msg, dure_span payload, dure_diag *diag)
{
    dure_diag why = {{0}};
    dure_merkle_head head;
    dure_reader reader = dure_reader_of(payload);
    dure_span text = {0};
    if (is_busy(&c->recovery) || is_doubted(&c->recovery, peer)) return DURE_OK;
    if (msg->u.entries.n_entries == 0) return DURE_OK; /* a site that has seen none */
    dure_err err = dure_take_bytes(&text, &reader, DURE_NOTE_MAX);
    if (!err) err = read_checkpoint(&head, c, text, &why);
    if (err) return refuse(c, peer, name, err, &why, diag);
    return begin_source(c, peer, name, &head, text, diag);
}

/* ---- the roster ---- */

static dure_err append_entries(dure_roster *roster, dure_span entries, uint32_t n, dure_diag *why)
{
    dure_reader reader = dure_reader_of(entries);
    dure_err err = DURE_OK;
    for (uint32_t i = 0; !err && i < n; i++) {
        dure_span entry;
        err = dure_take_bytes(&entry, &reader, DURE_ROSTER_ENTRY_MAX_BYTES);
        if (!err) err = dure_roster_append(roster, entry, why);
    }
    return err;
}

static dure_err take_roster(dure_coordinator *c, const dure_msg *msg, dure_span payload,
                            dure_diag *diag)
{
    dure_recovery *r = &c->recovery;
    const dure_msg_entries *e = &msg->u.entries;
    dure_diag why = {{0}};
    if (e->from != dure_roster_entries(r->roster)) return DURE_OK; /* a repeat */
    dure_err err = append_entries(r->roster, payload, e->n_entries, &why);
    const uint64_t have = dure_roster_entries(r->roster);
    if (!err && is_scanty(e, have, e->total))
        err = dure_diag_set(&why, DURE_ERR_PROTO, "it sends fewer entries than fit");
    if (err) return refuse_source(c, err, &why, diag);
    if (have < e->total) return ask_source(c, DURE_ENTRIES_ROSTER, have, diag);
    r->step = DURE_RECOVER_LOG;
    return ask_source(c, DURE_ENTRIES_LOG, r->have, diag);
}

/* Only the first entries of what was told are confirmed by the log; who joined here meanwhile is
 * added behind them. */
static dure_err make_roster(dure_roster **out, const dure_coordinator *c)
{
    const dure_recovery *r = &c->recovery;
    dure_err err = dure_roster_new(out, c->folder.settings.root_public);
    for (size_t i = 0; !err && i < r->log_roster_n; i++)
        err = dure_roster_append(*out, dure_roster_entry(r->roster, i), NULL);
    for (size_t i = 0; !err && i < dure_roster_entries(c->roster); i++) {
        err = dure_roster_append(*out, dure_roster_entry(c->roster, i), NULL);
        if (!dure_err_is_local(err)) err = DURE_OK; /* it is there, or somebody has its name */
    }
    if (err) dure_roster_free(out);
    return err;
}

/* Takes over *next. Places in the roster may have changed: the sites are greeted anew. */
static dure_err use_roster(dure_coordinator *c, dure_roster **next, dure_diag *diag)
{
    dure_err err = dure_folder_roster_write(c->folder.dir, *next, diag);
    if (err) return err;
    dure_roster_free(&c->roster);
    c->roster = *next;
    *next = NULL;
    memset(c->sites, 0, sizeof c->sites);
    dure_buf_fini(&c->recovery.claim.entries);
    c->recovery.claim = (dure_recovery_claim){.from = 0};
    dure_coordinator_report(
        c, "roster_recovered",
        json_pack("{s:I}", "entries", (json_int_t)dure_roster_entries(c->roster)));
    return dure_coordinator_greet_all(c);
}

/* ---- the roster alone ---- */

/* How many bytes of whole entries both begin with, and how many entries that are. */
static size_t common_part(uint32_t *n, dure_span a, dure_span b)
{
    dure_reader x = dure_reader_of(a), y = dure_reader_of(b);
    dure_span one, other;
    size_t same = 0;
    *n = 0;
    while (!dure_take_bytes(&one, &x, DURE_ROSTER_ENTRY_MAX_BYTES) &&
           !dure_take_bytes(&other, &y, DURE_ROSTER_ENTRY_MAX_BYTES) && one.n == other.n &&
           dure_ct_equal(one.data, other.data, one.n)) {
        same = x.at;
        ++*n;
    }
    return same;
}

/* What this teller has in common with those before it; or a new claim. How many entries. */
static dure_err join_claim(uint32_t *n, dure_recovery_claim *claim, const dure_hash *peer,
                           uint64_t from, dure_span told)
{
    size_t same = 0;
    bool known = false;
    *n = 0;
    if (claim->n_tellers && claim->from == from)
        same = common_part(n, dure_buf_span(&claim->entries), told);
    if (*n == 0) {
        (void)common_part(n, told, told);
        dure_buf_fini(&claim->entries);
        *claim = (dure_recovery_claim){.from = from};
        dure_buf_init(&claim->entries, DURE_MSG_PAYLOAD_MAX);
        dure_put_raw(&claim->entries, told.data, told.n);
    } else {
        claim->entries.n = same;
    }
    for (size_t i = 0; i < claim->n_tellers; i++)
        known = known || dure_hash_equal(peer, &claim->tellers[i]);
    if (!known && claim->n_tellers < DURE_MEMBERS_MAX) claim->tellers[claim->n_tellers++] = *peer;
    return dure_buf_err(&claim->entries);
}

/* Terms that are not this federation's were never admitted here. */
static dure_err check_all_terms(const dure_coordinator *c, const dure_roster *roster,
                                dure_diag *why)
{
    dure_err err = DURE_OK;
    for (size_t i = 0; !err && i < dure_roster_count(roster); i++)
        err = dure_coordinator_check_terms(c, &dure_roster_at(roster, i)->join, why);
    return err;
}

/* The log does not know these entries, so one site's word is not enough: with c + 1 an honest one
 * is among them. */
static dure_err take_claim(dure_coordinator *c, const dure_hash *peer, const char *name,
                           const dure_msg *msg, dure_span payload, dure_diag *diag)
{
    dure_recovery_claim *claim = &c->recovery.claim;
    dure_roster *next = NULL;
    dure_diag why = {{0}};
    uint32_t n = 0;
    if (msg->u.entries.from != dure_roster_entries(c->roster)) return DURE_OK;
    dure_err err = join_claim(&n, claim, peer, msg->u.entries.from, payload);
    if (err || n == 0 || claim->n_tellers <= c->folder.settings.terms.cohort.collusion) return err;
    dure_buf bytes;
    dure_buf_init(&bytes, DURE_ROSTER_MAX_BYTES);
    err = dure_roster_encode(&bytes, c->roster);
    if (!err)
        err = dure_roster_parse(&next, c->folder.settings.root_public, dure_buf_span(&bytes), &why);
    dure_buf_fini(&bytes);
    if (!err) err = append_entries(next, dure_buf_span(&claim->entries), n, &why);
    if (!err) err = check_all_terms(c, next, &why);
    if (!err) err = use_roster(c, &next, diag);
    if (err) {
        dure_buf_fini(&claim->entries);
        *claim = (dure_recovery_claim){.from = 0};
        err = refuse(c, peer, name, err, &why, diag);
    }
    dure_roster_free(&next);
    return err;
}

/* ---- the log ---- */

/* The store after the log: also when a crash came between the two. */
static dure_err follow_log(dure_coordinator *c, dure_diag *diag)
{
    dure_err err = dure_history_follow(c->store, c->journal, &c->folder.settings.terms, diag);
    if (!err) err = dure_store_facts_get(&c->facts, c->store, diag);
    c->cited_known = false;
    for (size_t i = 0; i < dure_roster_count(c->roster); i++)
        c->sites[i].has_result = false;
    dure_coordinator_report(c, "log_recovered",
                            json_pack("{s:I, s:I}", "entries",
                                      (json_int_t)dure_journal_newest(c->journal), "rounds_done",
                                      (json_int_t)c->facts.n_done));
    c->recovery.step = DURE_RECOVER_FILES;
    c->recovery.wants_notes = true;
    /* Who is asked says HELLO again. */
    for (size_t i = 0; !err && i < dure_roster_count(c->roster); i++)
        err = dure_coordinator_ask_notes(c, i, diag);
    return err;
}

/* Everybody whose cosignature may be on a note. */
static dure_err all_sites(dure_site_key **out, size_t *n, const dure_coordinator *c)
{
    *n = dure_roster_count(c->roster);
    *out = calloc(*n + 1, sizeof **out);
    if (!*out) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < *n; i++) {
        const dure_join *join = &dure_roster_at(c->roster, i)->join;
        memcpy((*out)[i].name, join->invitation.name, sizeof(*out)[i].name);
        memcpy((*out)[i].sign_public, join->sign_public, 32);
    }
    return DURE_OK;
}

static dure_err merge_note(uint64_t *size, dure_coordinator *c, dure_span text, dure_diag *diag)
{
    dure_site_key *sites = NULL;
    size_t n = 0;
    dure_err err = all_sites(&sites, &n, c);
    const dure_journal_signers who = {&c->folder.sign, sites, n};
    if (!err) err = dure_journal_merge_note(size, c->journal, text, &who, diag);
    c->cited_known = false;
    free(sites);
    return err;
}

/* The leaves are in the log; the roster, the checkpoint and the store follow, in this order: once
 * the checkpoint is here the folder says of itself that it has all that it signed. */
static dure_err settle(dure_coordinator *c, dure_diag *diag)
{
    dure_recovery *r = &c->recovery;
    dure_roster *next = NULL;
    dure_buf note = r->note;
    uint64_t size = 0;
    r->note = (dure_buf){0};
    dure_err err = make_roster(&next, c);
    if (!err && c->facts.recovering < r->head.n) err = stop_everything(c, diag);
    if (!err) err = dure_registry_forget_logged(c->registry, r->from, diag);
    if (!err) err = use_roster(c, &next, diag);
    if (!err) err = merge_note(&size, c, dure_buf_span(&note), diag);
    end_asking(c);
    /* Else more was signed than this, and another site has it. */
    if (!err && dure_journal_newest(c->journal) >= c->facts.recovering) err = follow_log(c, diag);
    dure_roster_free(&next);
    dure_buf_fini(&note);
    return err;
}

static dure_err adopt(dure_coordinator *c, dure_diag *diag)
{
    dure_recovery *r = &c->recovery;
    dure_diag why = {{0}};
    dure_err err = r->log_roster_n ? dure_roster_extends(r->roster, (size_t)r->log_roster_n,
                                                         &r->log_roster, &why)
                                   : DURE_OK;
    if (err) return refuse_source(c, err, &why, diag);
    if (dure_journal_newest(c->journal) != r->from) {
        end_asking(
            c); /* something was signed meanwhile, on what the root kept: from the beginning */
        return DURE_OK;
    }
    char *dir = dure_folder_path(&c->folder, DURE_FOLDER_LEDGER);
    if (!dir) return DURE_ERR_NOMEM;
    dure_journal_close(&c->journal);
    err = dure_journal_adopt(dir, r->from, dure_buf_span(&r->entries), &r->head, &why);
    dure_err last = dure_journal_open(&c->journal, dir, DURE_LEAF_LOG_WRITE, diag);
    free(dir);
    if (last) return last;
    return err ? refuse_source(c, err, &why, diag) : settle(c, diag);
}

/* Each must be the entry that it says, so that what is no log at all ends early. */
static dure_err take_leaf(dure_recovery *r, dure_event *event, dure_reader *reader, dure_diag *why)
{
    dure_span leaf;
    dure_err err = dure_take_bytes(&leaf, reader, DURE_LEAF_MAX);
    if (!err) err = dure_event_decode(event, leaf, why);
    if (!err && event->index != r->have)
        err = dure_diag_set(why, DURE_ERR_PROTO, "an entry is not where it says");
    if (err) return err;
    if (event->kind == DURE_EVENT_ROSTER) {
        r->log_roster_n = event->u.roster.size;
        r->log_roster = event->u.roster.head;
    }
    dure_put_bytes(&r->entries, leaf.data, leaf.n);
    r->have++;
    return dure_buf_err(&r->entries);
}

static dure_err take_log(dure_coordinator *c, const dure_msg *msg, dure_span payload,
                         dure_diag *diag)
{
    dure_recovery *r = &c->recovery;
    const dure_msg_entries *e = &msg->u.entries;
    dure_reader reader = dure_reader_of(payload);
    dure_diag why = {{0}};
    if (e->from != r->have) return DURE_OK; /* a repeat */
    dure_event *event = calloc(1, sizeof *event);
    dure_err err = event ? DURE_OK : DURE_ERR_NOMEM;
    for (uint32_t i = 0; !err && i < e->n_entries && r->have < r->head.n; i++)
        err = take_leaf(r, event, &reader, &why);
    free(event);
    if (!err && is_scanty(e, r->have, r->head.n))
        err = dure_diag_set(&why, DURE_ERR_NOT_FOUND,
                            "it showed a checkpoint of %llu entries and gives those below %llu",
                            (unsigned long long)r->head.n, (unsigned long long)r->have);
    if (err) return refuse_source(c, err, &why, diag);
    return r->have == r->head.n ? adopt(c, diag) : ask_source(c, DURE_ENTRIES_LOG, r->have, diag);
}

/* ---- the checkpoints that rounds cited ---- */

dure_err dure_coordinator_ask_notes(dure_coordinator *c, size_t site, dure_diag *diag)
{
    if (!c->recovery.wants_notes || c->sites[site].asked_notes) return DURE_OK;
    c->sites[site].asked_notes = true;
    return ask(c, &c->sites[site].id, DURE_ENTRIES_NOTES, 0, diag);
}

/* Each bears this coordinator's signature over a prefix of its log, so anyone may bring it; those
 * of entries that were lost are passed over. */
static dure_err take_notes(dure_coordinator *c, const dure_hash *peer, const dure_msg *msg,
                           dure_span payload, dure_diag *diag)
{
    const dure_msg_entries *e = &msg->u.entries;
    dure_reader reader = dure_reader_of(payload);
    uint64_t last = e->from;
    for (uint32_t i = 0; i < e->n_entries; i++) {
        dure_span text;
        uint64_t size = 0;
        dure_diag why = {{0}};
        if (dure_take_bytes(&text, &reader, DURE_NOTE_MAX)) return DURE_OK;
        dure_err err = merge_note(&size, c, text, &why);
        if (dure_err_is_local(err)) return dure_diag_set(diag, err, "%s", why.text);
        if (!err && size > last) last = size;
    }
    const bool more = e->n_entries < e->total && last > e->from;
    return more ? ask(c, peer, DURE_ENTRIES_NOTES, last + 1, diag) : DURE_OK;
}

dure_err dure_coordinator_on_entries(dure_coordinator *c, const dure_hash *peer, const char *name,
                                     bool member, const dure_msg *msg, dure_span payload,
                                     dure_diag *diag)
{
    const dure_recovery *r = &c->recovery;
    const dure_msg_entries *e = &msg->u.entries;
    const bool asked = r->step == DURE_RECOVER_ROSTER || r->step == DURE_RECOVER_LOG;
    const bool of_source = asked && dure_hash_equal(peer, &r->source);
    if (payload.n != e->n_bytes) return DURE_OK;
    switch ((dure_entries_kind)e->kind) {
    case DURE_ENTRIES_CHECKPOINT:
        return take_checkpoint(c, peer, name, msg, payload, diag);
    case DURE_ENTRIES_ROSTER:
        if (of_source && r->step == DURE_RECOVER_ROSTER) return take_roster(c, msg, payload, diag);
        return member && !asked && !is_doubted(r, peer)
                   ? take_claim(c, peer, name, msg, payload, diag)
                   : DURE_OK;
    case DURE_ENTRIES_LOG:
        return of_source && r->step == DURE_RECOVER_LOG ? take_log(c, msg, payload, diag) : DURE_OK;
    case DURE_ENTRIES_NOTES:
        return member && r->wants_notes && !asked ? take_notes(c, peer, msg, payload, diag)
                                                  : DURE_OK;
    }
    return DURE_OK;
}

dure_err dure_coordinator_tick_recovery(dure_coordinator *c, uint64_t now_ms, dure_diag *diag)
{
    dure_recovery *r = &c->recovery;
    if (!r->needed) return DURE_OK;
    const bool whole = dure_journal_newest(c->journal) >= c->facts.recovering;
    if (r->step == DURE_RECOVER_NOTHING && whole) {
        /* Killed between the log and the store, or before the files were here; or a site showed
         * what turned out to be nothing while they were asked for. */
        if (c->facts.recovering) return follow_log(c, diag);
        r->step = DURE_RECOVER_FILES;
    }
    return r->step == DURE_RECOVER_FILES ? dure_coordinator_tick_files(c, now_ms, diag) : DURE_OK;
}
