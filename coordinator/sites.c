/* Sites outside of a round: who joins, who is here, what they download. */
#include "coordinator/coordinator_int.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "coordinator/history.h"
#include "secagg/transcript.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Far more than failed rounds ever lead; what a site puts up with is a million times as much
 * (client/session_open.c), or a liar could lock out those that are away for some rounds. */
#define ROUNDS_AHEAD_MAX (UINT64_C(1) << 20)

enum {
    REVOCATION_MAX_BYTES = 256,
    UNWILLING_MS = 600000, /* before a site is asked again that refused a round */
};

/* A site that renewed its keys has the ledger that it had: what it showed under the old ones counts
 * on, by name and organisation. */
static void follow_chain(dure_coordinator *c, size_t site)
{
    const dure_invitation *own = &dure_roster_at(c->roster, site)->join.invitation;
    for (size_t i = 0; i < site; i++) {
        const dure_invitation *before = &dure_roster_at(c->roster, i)->join.invitation;
        if (strcmp(before->name, own->name) == 0 &&
            strcmp(before->organisation, own->organisation) == 0 &&
            c->sites[i].chain.length > c->sites[site].chain.length)
            c->sites[site].chain = c->sites[i].chain;
    }
}

/* Routing ids of the whole roster, and the router's list. */
dure_err dure_coordinator_greet_all(dure_coordinator *c)
{
    dure_err err = DURE_OK;
    c->cited_known = false; /* other sites are in force now */
    for (size_t i = 0; !err && i < dure_roster_count(c->roster); i++) {
        const dure_join *join = &dure_roster_at(c->roster, i)->join;
        err = dure_curve_id(&c->sites[i].id, join->curve_public);
        if (!err) err = dure_store_chain(&c->sites[i].chain, c->store, join->sign_public, NULL);
        if (!err) follow_chain(c, i);
    }
    if (!err) dure_admission_update(c->admission, c->roster);
    return err;
}

bool dure_coordinator_find_site(size_t *site, const dure_coordinator *c, const dure_hash *id)
{
    for (size_t i = 0; i < dure_roster_count(c->roster); i++) {
        if (dure_roster_at(c->roster, i)->revoked || !dure_hash_equal(&c->sites[i].id, id))
            continue;
        *site = i;
        return true;
    }
    return false;
}

bool dure_coordinator_site_present(const dure_coordinator *c, size_t site, uint64_t now_ms)
{
    const dure_site_state *s = &c->sites[site];
    if (s->unwilling_ms && dure_elapsed_ms(now_ms, s->unwilling_ms) < UNWILLING_MS) return false;
    return s->present && !dure_roster_at(c->roster, site)->revoked &&
           dure_elapsed_ms(now_ms, s->heard_ms) <= c->opts.patience.silence_ms;
}

/* ---- joining ---- */

dure_err dure_coordinator_send_to(dure_coordinator *c, const dure_hash *peer, const dure_msg *msg,
                                  dure_diag *diag)
{
    dure_buf frame;
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    dure_err err = dure_msg_encode(&frame, msg, diag);
    if (!err && dure_router_send(c->router, peer, dure_buf_span(&frame), NULL))
        dure_log(DURE_LOG_DEBUG, "coordinator", "not_sent", "to=peer");
    dure_buf_fini(&frame);
    return err;
}

static dure_err refuse(dure_coordinator *c, const dure_hash *peer, dure_refusal code,
                       const char *text, dure_diag *diag)
{
    dure_msg msg = {.type = DURE_MSG_REFUSED, .u.refused = {.code = code}};
    snprintf(msg.u.refused.text, sizeof msg.u.refused.text, "%s", text);
    return dure_coordinator_send_to(c, peer, &msg, diag);
}

dure_err dure_coordinator_refuse_version(dure_coordinator *c, const dure_hash *peer,
                                         const char *name, const dure_diag *why, dure_diag *diag)
{
    if (name)
        dure_coordinator_report(c, "site_of_another_version",
                                json_pack("{s:s, s:s}", "site", name, "why", why->text));
    return refuse(c, peer, DURE_REFUSAL_VERSION, why->text, diag);
}

static dure_refusal refusal_for(dure_err err, const dure_coordinator *c, const dure_join *join)
{
    switch (err) {
    case DURE_ERR_EXPIRED:
        return DURE_REFUSAL_INVITATION_EXPIRED;
    case DURE_ERR_AUTH:
        return DURE_REFUSAL_INVITATION_FOREIGN;
    case DURE_ERR_LIMIT:
        return DURE_REFUSAL_FULL;
    case DURE_ERR_UNSUPPORTED:
        return DURE_REFUSAL_VERSION;
    case DURE_ERR_EXISTS:
        return dure_roster_invitation_used(c->roster, join->invitation.invite_public)
                   ? DURE_REFUSAL_INVITATION_USED
                   : DURE_REFUSAL_NAME_TAKEN;
    default:
        return DURE_REFUSAL_RECORD;
    }
}

static dure_err tell_joined(dure_coordinator *c, const dure_hash *peer, dure_diag *diag)
{
    const dure_hash head = dure_roster_head(c->roster);
    dure_msg msg = {.type = DURE_MSG_JOINED,
                    .u.joined = {.roster_size = dure_roster_entries(c->roster)}};
    memcpy(msg.u.joined.roster_hash, head.b, sizeof head.b);
    return dure_coordinator_send_to(c, peer, &msg, diag);
}

dure_err dure_coordinator_check_terms(const dure_coordinator *c, const dure_join *join,
                                      dure_diag *diag)
{
    dure_hash ours, theirs;
    dure_err err = dure_terms_hash(&ours, &c->folder.settings.terms);
    if (!err) err = dure_terms_hash(&theirs, &join->invitation.terms);
    if (!err && !dure_hash_equal(&ours, &theirs))
        err = dure_diag_set(diag, DURE_ERR_AUTH,
                            "the invitation for \"%s\" carries other terms than this federation's",
                            join->invitation.name);
    return err;
}

/* Durable before the site is told: roster.bin is synced first. */
static dure_err admit(dure_coordinator *c, const dure_join *join, dure_diag *diag)
{
    dure_err err = dure_coordinator_check_terms(c, join, diag);
    if (!err) err = dure_roster_add(c->roster, join, dure_clock_wall_s(), diag);
    return err;
}

static dure_err keep_roster(dure_coordinator *c, dure_diag *diag)
{
    dure_err err = dure_folder_roster_write(c->folder.dir, c->roster, diag);
    /* What is not on disk must not be said; the process ends and reads the old chain again. */
    if (err) return dure_diag_prefix(diag, DURE_ERR_IO, "the roster could not be stored");
    return dure_coordinator_greet_all(c);
}

static dure_err on_join(dure_coordinator *c, const dure_envelope *envelope, const dure_msg *msg,
                        dure_diag *diag)
{
    const dure_hash *peer = &envelope->peer.id;
    dure_join *join = calloc(1, sizeof *join);
    dure_diag why = {{0}};
    if (!join) return DURE_ERR_NOMEM;
    dure_err err = dure_join_decode(join, msg->u.join.invitation, msg->u.join.record, &why);
    if (!err && memcmp(join->curve_public, envelope->peer.curve_public, 32) != 0)
        err = dure_diag_set(&why, DURE_ERR_POLICY,
                            "the join record is not for the key of this connection");
    /* A renewal comes right after the revocation of the old keys, which frees the name. */
    if (!err) err = dure_coordinator_read_inbox(c, &why);
    if (!err) err = admit(c, join, &why);
    if (err && dure_err_is_local(err)) {
        dure_diag_set(diag, err, "%s", why.text[0] ? why.text : dure_err_text(err));
    } else if (err) {
        dure_log(DURE_LOG_WARN, "coordinator", "join_refused", "site=%s why=\"%s\"",
                 join->invitation.name, why.text);
        err = refuse(c, peer, refusal_for(err, c, join), why.text, diag);
    } else {
        err = keep_roster(c, diag);
        if (!err)
            dure_coordinator_report(c, "site_joined",
                                    json_pack("{s:s, s:s, s:I}", "site", join->invitation.name,
                                              "organisation", join->invitation.organisation,
                                              "records", (json_int_t)join->declared.n_pub));
        if (!err) err = tell_joined(c, peer, diag);
    }
    free(join);
    return err;
}

/* Who says HELLO is no member, or the roster here is older than its joining: then its log is newer,
 * too, and what it sends verifies without knowing who it is. */
dure_err dure_coordinator_on_guest(dure_coordinator *c, const dure_envelope *envelope,
                                   const dure_msg *msg, dure_diag *diag)
{
    const dure_hash *peer = &envelope->peer.id;
    const dure_msg_hello *h = &msg->u.hello;
    if (msg->type == DURE_MSG_JOIN) return on_join(c, envelope, msg, diag);
    if (msg->type == DURE_MSG_ENTRIES)
        return dure_coordinator_on_entries(c, peer, "a guest", false, msg, envelope->payload, diag);
    if (msg->type == DURE_MSG_HELLO && h->checkpoint_size > dure_journal_newest(c->journal) &&
        memcmp(h->federation_id, c->folder.federation_id.b, sizeof h->federation_id) == 0)
        return dure_coordinator_ask_back(c, peer, false, h, diag);
    if (dure_coordinator_asks_guests(c)) return DURE_OK; /* it may turn out to be a member */
    return refuse(c, peer, DURE_REFUSAL_RECORD,
                  "this key is not a member of the federation; join with an invitation, or, if "
                  "this was a site before, 'dure client renew' with a new one",
                  diag);
}

/* ---- revocations ---- */

/* The revoked site is out at once, also of the round in hand. */
static dure_err put_out(dure_coordinator *c, const dure_revocation *revocation, dure_diag *diag)
{
    dure_err err = keep_roster(c, diag);
    for (size_t i = 0; !err && i < dure_roster_count(c->roster); i++) {
        const dure_roster_member *m = dure_roster_at(c->roster, i);
        uint32_t member;
        if (memcmp(m->join.invitation.invite_public, revocation->invite_public, 32) != 0) continue;
        dure_coordinator_report(c, "site_revoked",
                                json_pack("{s:s}", "site", m->join.invitation.name));
        c->sites[i].present = false;
        if (!dure_coordinator_member_of(&member, c, i)) continue;
        dure_secagg_actions actions = {0};
        err = dure_round_drop(&actions, c->now.round, member);
        if (!err) err = dure_coordinator_act(c, &actions, dure_clock_monotonic_ms(), diag);
        dure_secagg_actions_fini(&actions);
    }
    return err;
}

/* What is wrong with the file alone, and *taken when the roster has grown by it. */
static dure_err take_revocation(bool *taken, dure_revocation *out, dure_coordinator *c,
                                const char *path, dure_diag *why)
{
    dure_buf bytes;
    *taken = false;
    dure_err err = dure_file_read(&bytes, path, REVOCATION_MAX_BYTES, why);
    if (err) return err;
    dure_reader r = dure_reader_of(dure_buf_span(&bytes));
    err = dure_revocation_take(out, &r);
    if (!err) err = dure_reader_end(&r);
    if (err) dure_diag_set(why, err, "it is not a revocation");
    if (!err) err = dure_roster_revoke(c->roster, out, why);
    *taken = !err;
    dure_buf_fini(&bytes);
    return err == DURE_ERR_EXISTS ? DURE_OK : err;
}

/* A file that cannot be taken stays, renamed, for the admin to look at. */
static dure_err take_file(dure_coordinator *c, const char *path, dure_diag *diag)
{
    dure_revocation revocation;
    dure_diag why = {{0}};
    bool taken = false;
    char refused[4096];
    dure_err err = take_revocation(&taken, &revocation, c, path, &why);
    if (err && dure_err_is_local(err))
        return dure_diag_set(diag, err, "%s", why.text[0] ? why.text : dure_err_text(err));
    if (!err) {
        if (taken) err = put_out(c, &revocation, diag);
        if (!err && unlink(path)) err = dure_file_errno(diag, "remove", path);
        return err;
    }
    dure_log(DURE_LOG_WARN, "coordinator", "revocation_refused", "file=%s why=\"%s\"", path,
             why.text);
    snprintf(refused, sizeof refused, "%s.refused", path);
    return rename(path, refused) ? dure_file_errno(diag, "rename", path) : DURE_OK;
}

dure_err dure_coordinator_read_inbox(dure_coordinator *c, dure_diag *diag)
{
    static const char suffix[] = ".revocation";
    char *folder = dure_folder_path(&c->folder, DURE_FOLDER_INBOX);
    if (!folder) return DURE_ERR_NOMEM;
    dure_err err = DURE_OK;
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    while (!err && dir && (entry = readdir(dir))) {
        const size_t n = strlen(entry->d_name);
        if (n <= sizeof suffix - 1 || strcmp(entry->d_name + n - (sizeof suffix - 1), suffix) != 0)
            continue;
        char *path = dure_path_join(folder, entry->d_name);
        err = path ? take_file(c, path, diag) : DURE_ERR_NOMEM;
        free(path);
    }
    if (dir) closedir(dir);
    free(folder);
    return err;
}

/* ---- the sites' own ledgers ---- */

dure_err dure_coordinator_chain_is_old(bool *old, dure_coordinator *c, size_t site,
                                       const dure_site_chain *shown, dure_diag *diag)
{
    static const dure_hash not_known;
    char text[DURE_MSG_TEXT_SIZE];
    const dure_site_chain *seen = &c->sites[site].chain;
    const char *name = dure_roster_at(c->roster, site)->join.invitation.name;
    *old = shown->length < seen->length ||
           (shown->length == seen->length && !dure_hash_equal(&seen->head, &not_known) &&
            !dure_hash_equal(&shown->head, &seen->head));
    c->sites[site].chain_old = *old;
    if (!*old) return DURE_OK;
    snprintf(text, sizeof text,
             "the site's privacy ledger has %llu entries; by what it showed and paid before it has "
             "%llu, or others: an older copy was put back, which forgets what was spent; put the "
             "newest copy back, or, if it is lost for good, have other records invited under "
             "another name",
             (unsigned long long)shown->length, (unsigned long long)seen->length);
    dure_coordinator_report(c, "site_ledger_is_old",
                            json_pack("{s:s, s:I, s:I}", "site", name, "entries",
                                      (json_int_t)shown->length, "at_least",
                                      (json_int_t)seen->length));
    c->sites[site].present = false;
    return refuse(c, &c->sites[site].id, DURE_REFUSAL_LEDGER, text, diag);
}

/* ---- hello ---- */

static dure_err tell_waiting(dure_coordinator *c, size_t site, uint64_t now_ms, dure_diag *diag)
{
    dure_msg msg = {.type = DURE_MSG_WAITING};
    dure_msg_waiting *w = &msg.u.waiting;
    dure_coordinator_waiting(&w->sites_present, &w->sites_needed, w->text, c, now_ms);
    if (c->now.config) memcpy(w->config_hash, c->now.row.config_hash.b, sizeof w->config_hash);
    return dure_coordinator_send(c, site, &msg, diag);
}

dure_err dure_coordinator_tell_over(dure_coordinator *c, size_t site, const dure_hash *config_hash,
                                    const char *text, dure_diag *diag)
{
    dure_msg msg = {.type = DURE_MSG_ABORT, .u.abort = {.code = DURE_ABORT_RESTARTED}};
    snprintf(msg.u.abort.text, sizeof msg.u.abort.text, "%s", text);
    memcpy(msg.u.abort.config_hash, config_hash->b, sizeof config_hash->b);
    const dure_secagg_who who = {.config_hash = config_hash, .member = DURE_SECAGG_COORDINATOR};
    dure_hash digest;
    dure_err err = dure_secagg_digest_abort(&digest, who, msg.u.abort.code, msg.u.abort.text);
    if (!err)
        err = dure_sign(msg.u.abort.signature, &c->folder.sign, DURE_SECAGG_LABEL_ABORT,
                        dure_hash_span(&digest));
    return err ? err : dure_coordinator_send(c, site, &msg, diag);
}

/* Of a round that was got back, all is in the log. */
static dure_err repeat_result(dure_coordinator *c, size_t site, const dure_round_row *row,
                              dure_diag *diag)
{
    dure_buf result = {0};
    dure_err err = dure_store_result(&result, c->store, row->round, diag);
    if (err == DURE_ERR_NOT_FOUND) {
        dure_buf_init(&result, DURE_MSG_BYTES_MAX);
        err = dure_history_result(&result, c->journal, row->ledger_index, diag);
    }
    if (!err) err = dure_coordinator_send_result(c, site, dure_buf_span(&result), diag);
    dure_buf_fini(&result);
    return err;
}

/* The site is in a round that this coordinator is not, or not any more. */
static dure_err settle_old_round(dure_coordinator *c, size_t site, const dure_hash *config_hash,
                                 dure_diag *diag)
{
    dure_round_row row;
    dure_err err = dure_store_find_round(&row, c->store, config_hash, diag);
    if (err == DURE_ERR_NOT_FOUND)
        return dure_coordinator_tell_over(c, site, config_hash,
                                          "the coordinator does not know this round", diag);
    if (err) return err;
    if (row.status != DURE_STORED_DONE)
        return dure_coordinator_tell_over(c, site, config_hash,
                                          row.reason[0] ? row.reason : "the round is over", diag);
    return repeat_result(c, site, &row, diag);
}

/* The next round's number is above every claim, so one site could use up all numbers: a claim too
 * far ahead counts for nothing. */
static uint64_t believable_round(dure_coordinator *c, size_t site, uint64_t claimed)
{
    if (claimed <= c->facts.last_round || claimed - c->facts.last_round <= ROUNDS_AHEAD_MAX)
        return claimed;
    char number[24];
    snprintf(number, sizeof number, "%llu", (unsigned long long)claimed);
    dure_coordinator_report(c, "site_claims_round",
                            json_pack("{s:s, s:s, s:I}", "site",
                                      dure_roster_at(c->roster, site)->join.invitation.name,
                                      "claims", number, "last", (json_int_t)c->facts.last_round));
    return 0;
}

/* Remembers what the site has. */
static void take_note(dure_coordinator *c, size_t site, const dure_msg_hello *h)
{
    dure_site_state *s = &c->sites[site];
    s->roster_size = h->roster_size;
    s->last_round = believable_round(c, site, h->last_round);
    s->checkpoint.n = h->checkpoint_size;
    memcpy(s->checkpoint.root.b, h->checkpoint_root, sizeof s->checkpoint.root.b);
    /* Its folder may have been put back to an older copy since it cosigned the result. */
    if (h->checkpoint_size <= c->facts.done_index) s->has_result = false;
    if (s->present) return;
    s->present = true;
    dure_coordinator_report(
        c, "site_here",
        json_pack("{s:s}", "site", dure_roster_at(c->roster, site)->join.invitation.name));
}

static dure_err greet(dure_coordinator *c, size_t site, const dure_msg_hello *h, uint64_t now_ms,
                      dure_diag *diag)
{
    static const dure_hash none;
    dure_hash hash;
    uint32_t member;
    memcpy(hash.b, h->config_hash, sizeof hash.b);
    const bool current = c->now.config && dure_hash_equal(&hash, &c->now.row.config_hash);
    if (!current && !dure_hash_equal(&hash, &none)) return settle_old_round(c, site, &hash, diag);
    /* A member whose keys are missing gets the open round again, and answers as it did before. */
    if (dure_coordinator_member_of(&member, c, site) &&
        dure_round_state_of(c->now.round) == DURE_ROUND_KEYS) {
        const dure_members missing = dure_secagg_server_missing(dure_round_sum(c->now.round));
        if (dure_members_has(&missing, member)) return dure_coordinator_send_open(c, member, diag);
    }
    dure_err err = current ? DURE_OK : dure_coordinator_show_last(c, site, diag);
    return err ? err : tell_waiting(c, site, now_ms, diag);
}

/* The newest statement of the root that is about what the site has seen. */
static bool find_loss(dure_journal_loss *out, const dure_coordinator *c, uint64_t seen)
{
    size_t n = 0;
    const dure_journal_loss *losses = dure_journal_losses(&n, c->journal);
    while (n-- > 0) {
        *out = losses[n];
        if (out->kept <= seen && seen <= out->lost_n) return true;
    }
    return false;
}

static dure_err send_loss(dure_coordinator *c, size_t site, const dure_journal_loss *loss,
                          dure_diag *diag)
{
    dure_buf leaf = {0};
    dure_err err = dure_leaf_log_read(&leaf, dure_journal_log(c->journal), loss->kept, diag);
    const dure_msg msg = {.type = DURE_MSG_NEW_EPOCH, .u.new_epoch.leaf = dure_buf_span(&leaf)};
    if (!err) err = dure_coordinator_send(c, site, &msg, diag);
    dure_buf_fini(&leaf);
    return err;
}

/* *follows: what the site has seen is a part of this log, as far as can be told here. Else it is
 * told what the root said about that, or it is a fork: the site sees for itself and stops. */
static dure_err tell_loss(bool *follows, dure_coordinator *c, size_t site, const dure_msg_hello *h,
                          dure_diag *diag)
{
    dure_merkle_head own;
    dure_journal_loss loss;
    const uint64_t seen = h->checkpoint_size,
                   here = dure_leaf_log_size(dure_journal_log(c->journal));
    if (seen == 0) return DURE_OK;
    if (seen <= here) {
        dure_err err = dure_leaf_log_head(&own, dure_journal_log(c->journal), seen);
        if (err) return err;
        *follows = memcmp(own.root.b, h->checkpoint_root, sizeof own.root.b) == 0;
        if (*follows) return DURE_OK;
    }
    const bool lost = find_loss(&loss, c, seen);
    if (lost) return send_loss(c, site, &loss, diag);
    if (*follows) return DURE_OK; /* newer than what is here, by its word */
    dure_coordinator_report(c, "site_has_another_log",
                            json_pack("{s:s, s:I}", "site",
                                      dure_roster_at(c->roster, site)->join.invitation.name,
                                      "entries", (json_int_t)seen));
    c->sites[site].present = false;
    c->sites[site].checkpoint = (dure_merkle_head){.n = seen};
    c->sites[site].has_result = false;
    return dure_coordinator_show_last(c, site, diag);
}

dure_err dure_coordinator_on_hello(dure_coordinator *c, size_t site, const dure_msg *msg,
                                   uint64_t now_ms, dure_diag *diag)
{
    const dure_msg_hello *h = &msg->u.hello;
    uint32_t member;
    if (h->version != DURE_MSG_VERSION)
        return refuse(c, &c->sites[site].id, DURE_REFUSAL_VERSION,
                      "the coordinator speaks another version of the protocol", diag);
    if (memcmp(h->federation_id, c->folder.federation_id.b, sizeof h->federation_id) != 0)
        return refuse(c, &c->sites[site].id, DURE_REFUSAL_INVITATION_FOREIGN,
                      "this is the coordinator of another federation", diag);
    bool follows = true;
    dure_err err = tell_loss(&follows, c, site, h, diag);
    if (err || !follows) return err;
    /* What it says is no proof, and nothing can be shown to it that extends it. */
    if (dure_coordinator_is_behind(c, h))
        return dure_coordinator_ask_back(c, &c->sites[site].id, true, h, diag);
    /* A site that is joining, or without privacy, does not say. */
    bool old = false;
    dure_site_chain shown = {.length = h->chain_length};
    memcpy(shown.head.b, h->chain_head, sizeof shown.head.b);
    if (shown.length) err = dure_coordinator_chain_is_old(&old, c, site, &shown, diag);
    if (err || old) return err;
    take_note(c, site, h);
    err = dure_coordinator_ask_notes(c, site, diag);
    if (err) return err;
    if (c->recovery.needed) return tell_waiting(c, site, now_ms, diag);
    err = greet(c, site, h, now_ms, diag);
    if (!err && dure_coordinator_member_of(&member, c, site))
        err =
            dure_coordinator_on_round_message(c, member, msg, dure_span_of(NULL, 0), now_ms, diag);
    return err;
}

/* ---- downloads ---- */

/* The open blob; opened and checked if it is not, in place of the one used longest ago. */
static dure_err open_blob(const dure_blob_file **out, dure_coordinator *c, const dure_hash *digest,
                          dure_diag *diag)
{
    dure_served_blob *slot = &c->blobs[0];
    for (size_t i = 0; i < DURE_SERVED_BLOBS; i++) {
        dure_served_blob *b = &c->blobs[i];
        if (b->file.n && dure_hash_equal(digest, &b->file.digest)) {
            b->used_ms = c->fetched_ms;
            *out = &b->file;
            return DURE_OK;
        }
        if (b->used_ms < slot->used_ms) slot = b;
    }
    char *folder = dure_folder_path(&c->folder, DURE_FOLDER_BLOBS);
    if (!folder) return DURE_ERR_NOMEM;
    dure_blob_close(&slot->file);
    dure_err err = dure_blob_open(&slot->file, folder, digest, diag);
    slot->used_ms = err ? 0 : c->fetched_ms;
    *out = &slot->file;
    free(folder);
    return err;
}

static void free_part(void *data, void *state)
{
    (void)state;
    free(data);
}

/* A part that libzmq frees when it is sent. */
static dure_err read_part(dure_payload *out, const dure_blob_file *blob, uint64_t offset, size_t n,
                          dure_diag *diag)
{
    uint8_t *part = malloc(n);
    if (!part) return DURE_ERR_NOMEM;
    dure_err err = dure_blob_read(part, blob, offset, n, diag);
    if (!err) *out = (dure_payload){.bytes = dure_span_of(part, n), .release = free_part};
    if (err) free(part);
    return err;
}

dure_err dure_coordinator_on_blob_request(dure_coordinator *c, size_t site, const dure_msg *msg,
                                          dure_diag *diag)
{
    const dure_msg_blob_request *q = &msg->u.blob_request;
    dure_msg answer = {.type = DURE_MSG_BLOB_CHUNK, .u.blob_chunk = {.offset = q->offset}};
    dure_msg_blob_chunk *a = &answer.u.blob_chunk;
    dure_payload payload = {0};
    dure_hash digest;
    c->fetched_ms = dure_clock_monotonic_ms();
    memcpy(digest.b, q->digest, sizeof digest.b);
    memcpy(a->digest, q->digest, sizeof a->digest);
    const dure_blob_file *blob;
    dure_err err = open_blob(&blob, c, &digest, diag);
    if (err && err != DURE_ERR_NOT_FOUND) return err;
    if (!err && q->offset < blob->n) {
        const uint64_t left = blob->n - q->offset;
        a->total_bytes = blob->n;
        a->n_bytes = q->n_bytes < left ? q->n_bytes : (uint32_t)left;
        if (a->n_bytes > DURE_NET_CHUNK_BYTES) a->n_bytes = (uint32_t)DURE_NET_CHUNK_BYTES;
    }
    dure_buf frame;
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    err = dure_msg_encode(&frame, &answer, diag);
    if (!err && a->n_bytes) err = read_part(&payload, blob, q->offset, a->n_bytes, diag);
    if (!err) dure_coordinator_send_bytes(c, site, dure_buf_span(&frame), &payload);
    dure_buf_fini(&frame);
    return err;
}

/* ---- the sites' copies of the log ---- */

dure_err dure_coordinator_send_entries(dure_coordinator *c, size_t site, uint64_t from, uint64_t to,
                                       dure_diag *diag)
{
    const dure_leaf_log *log = dure_journal_log(c->journal);
    dure_msg msg = {.type = DURE_MSG_ENTRIES,
                    .u.entries = {.kind = DURE_ENTRIES_LOG, .from = from, .total = to}};
    dure_msg_entries *e = &msg.u.entries;
    dure_buf bytes, frame;
    dure_err err = DURE_OK;
    bool full = false;
    dure_buf_init(&bytes, DURE_ENTRIES_ANSWER_BYTES);
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    for (uint64_t i = from; !err && !full && i < to; i++) {
        dure_buf leaf;
        err = dure_leaf_log_read(&leaf, log, i, diag);
        if (err) break;
        full = bytes.n + 4 + leaf.n > DURE_ENTRIES_ANSWER_BYTES;
        if (!full) dure_put_bytes(&bytes, leaf.data, leaf.n);
        if (!full) e->n_entries++;
        dure_buf_fini(&leaf);
    }
    e->n_bytes = (uint32_t)bytes.n;
    if (!err) err = dure_buf_err(&bytes);
    if (!err) err = dure_msg_encode(&frame, &msg, diag);
    const dure_payload payload = {.bytes = dure_buf_span(&bytes)};
    if (!err) dure_coordinator_send_bytes(c, site, dure_buf_span(&frame), &payload);
    dure_buf_fini(&bytes);
    dure_buf_fini(&frame);
    return err;
}

dure_err dure_coordinator_on_entries_request(dure_coordinator *c, size_t site, const dure_msg *msg,
                                             dure_diag *diag)
{
    const dure_msg_entries_request *q = &msg->u.entries_request;
    if (q->kind != DURE_ENTRIES_LOG) return DURE_OK; /* OPEN and RESULT bring the others */
    return dure_coordinator_send_entries(c, site, q->from,
                                         dure_leaf_log_size(dure_journal_log(c->journal)), diag);
}
