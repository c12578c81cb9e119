/* The last files that a folder lacks which was put back: the present adapter, and the sum that led
 * to it. Both are named by the log, so any site may bring them. */
#include "coordinator/coordinator_int.h"

#include "common/clock.h"
#include "registry/blob.h"

#include <stdlib.h>
#include <string.h>

enum { ASK_AGAIN_MS = 10000, PART_BYTES = 192 * 1024, FILE_MAX_BYTES = 1 << 30 };

dure_err dure_coordinator_lacks_adapter(bool *lacks, const dure_coordinator *c)
{
    char *blobs = dure_folder_path(&c->folder, DURE_FOLDER_BLOBS);
    if (!blobs) return DURE_ERR_NOMEM;
    *lacks = !dure_blob_present(blobs, &c->facts.adapter);
    free(blobs);
    return DURE_OK;
}

/* ---- the end ---- */

/* The version of the last round, with all that the log says of it. Without a verdict: the gate does
 * not judge again. */
static dure_err register_adapter(dure_coordinator *c, const char *blobs, dure_diag *diag)
{
    uint64_t number = 0;
    dure_buf file = {0};
    const dure_candidate candidate = {.round = c->facts.done_round,
                                      .ledger_index = c->facts.done_index,
                                      .base = c->folder.settings.terms.base.digest,
                                      .created_s = dure_clock_wall_s()};
    dure_err err =
        dure_blob_get(&file, blobs, &c->facts.adapter, DURE_REGISTRY_MAX_ADAPTER_BYTES, diag);
    if (!err) err = dure_registry_add(&number, c->registry, &candidate, dure_buf_span(&file), diag);
    dure_buf_fini(&file);
    return err;
}

static dure_err finish(dure_coordinator *c, const char *blobs, dure_diag *diag)
{
    dure_recovery *r = &c->recovery;
    dure_err err = c->facts.n_done ? register_adapter(c, blobs, diag) : DURE_OK;
    if (err) return err;
    dure_buf_fini(&r->file);
    r->step = DURE_RECOVER_NOTHING;
    r->asked_ms = 0;
    r->needed = r->adapter_missed = false;
    dure_coordinator_set_target(c);
    dure_coordinator_report(c, "recovered",
                            json_pack("{s:I, s:I}", "entries",
                                      (json_int_t)dure_journal_newest(c->journal), "rounds_done",
                                      (json_int_t)c->facts.n_done));
    return DURE_OK;
}

/* ---- asking ---- */

static bool is_heard(const dure_coordinator *c, size_t site, uint64_t now_ms)
{
    const dure_site_state *s = &c->sites[site];
    return s->heard_ms && !dure_roster_at(c->roster, site)->revoked &&
           dure_elapsed_ms(now_ms, s->heard_ms) <= c->opts.patience.silence_ms;
}

static size_t count_heard(const dure_coordinator *c, uint64_t now_ms)
{
    size_t n = 0;
    for (size_t i = 0; i < dure_roster_count(c->roster); i++)
        n += is_heard(c, i, now_ms);
    return n;
}

/* The next site that is heard, after the one that was asked last; that one last of all. */
static bool next_site(dure_coordinator *c, uint64_t now_ms)
{
    const size_t n = dure_roster_count(c->roster);
    for (size_t k = 1; k <= n; k++) {
        const size_t i = (c->recovery.site + k) % n;
        if (!is_heard(c, i, now_ms)) continue;
        c->recovery.site = i;
        return true;
    }
    return false;
}

/* The file that is missing still; false when the rounds can go on. Sites that were still at the
 * last round need its sum to follow it, others do not: after everyone was asked it is given up. */
static bool find_missing(dure_hash *out, const dure_coordinator *c, const char *blobs,
                         uint64_t now_ms)
{
    const dure_recovery *r = &c->recovery;
    *out = c->facts.adapter;
    if (!dure_blob_present(blobs, out)) return true;
    *out = c->facts.done_sum;
    if (c->facts.n_done == 0 || dure_blob_present(blobs, out)) return false;
    return !dure_hash_equal(out, &r->wanted) || r->misses < count_heard(c, now_ms);
}

static dure_err ask_file(dure_coordinator *c, dure_diag *diag)
{
    dure_recovery *r = &c->recovery;
    dure_msg msg = {.type = DURE_MSG_BLOB_REQUEST,
                    .u.blob_request = {.offset = r->file.n, .n_bytes = PART_BYTES}};
    memcpy(msg.u.blob_request.digest, r->wanted.b, DURE_DIGEST_BYTES);
    r->asked_ms = dure_clock_monotonic_ms();
    return dure_coordinator_send(c, r->site, &msg, diag);
}

/* Lost between the result and the first site that fetched it: only the root can go on without. */
static void say_missed(dure_coordinator *c, uint64_t now_ms)
{
    dure_recovery *r = &c->recovery;
    const size_t heard = count_heard(c, now_ms);
    if (r->adapter_missed || !heard || r->misses < heard ||
        !dure_hash_equal(&r->wanted, &c->facts.adapter))
        return;
    r->adapter_missed = true;
    dure_coordinator_report(c, "adapter_is_lost",
                            json_pack("{s:I, s:I}", "round", (json_int_t)c->facts.done_round,
                                      "ledger_index", (json_int_t)c->facts.done_index));
}

/* Asks the next site for the file from its beginning. */
static dure_err ask_next(dure_coordinator *c, const dure_hash *wanted, uint64_t now_ms,
                         dure_diag *diag)
{
    dure_recovery *r = &c->recovery;
    if (!dure_hash_equal(wanted, &r->wanted)) r->misses = 0;
    r->wanted = *wanted;
    dure_buf_fini(&r->file);
    dure_buf_init(&r->file, FILE_MAX_BYTES);
    return next_site(c, now_ms) ? ask_file(c, diag) : DURE_OK;
}

dure_err dure_coordinator_tick_files(dure_coordinator *c, uint64_t now_ms, dure_diag *diag)
{
    dure_recovery *r = &c->recovery;
    dure_hash missing;
    if (r->asked_ms && dure_elapsed_ms(now_ms, r->asked_ms) < ASK_AGAIN_MS) return DURE_OK;
    if (r->asked_ms) r->misses++;
    r->asked_ms = 0;
    say_missed(c, now_ms);
    char *blobs = dure_folder_path(&c->folder, DURE_FOLDER_BLOBS);
    if (!blobs) return DURE_ERR_NOMEM;
    dure_err err = find_missing(&missing, c, blobs, now_ms) ? ask_next(c, &missing, now_ms, diag)
                                                            : finish(c, blobs, diag);
    free(blobs);
    return err;
}

/* ---- answers ---- */

static void miss(dure_recovery *r)
{
    r->misses++;
    r->asked_ms = 0; /* the next site is asked */
    dure_buf_fini(&r->file);
}

/* A sum's length is known; an adapter's is at least bounded. */
static bool is_possible(const dure_coordinator *c, uint64_t total)
{
    if (dure_hash_equal(&c->recovery.wanted, &c->facts.adapter))
        return total <= DURE_REGISTRY_MAX_ADAPTER_BYTES;
    return total == 4 * c->folder.settings.terms.layout.n_active && total <= FILE_MAX_BYTES;
}

static dure_err keep_file(dure_coordinator *c, const dure_msg *msg, dure_diag *diag)
{
    dure_recovery *r = &c->recovery;
    dure_hash digest;
    char *blobs = dure_folder_path(&c->folder, DURE_FOLDER_BLOBS);
    if (!blobs) return DURE_ERR_NOMEM;
    dure_err err = dure_hash_bytes(&digest, dure_buf_span(&r->file));
    if (!err && !dure_hash_equal(&digest, &r->wanted)) {
        dure_coordinator_refuse_message(c, r->site, msg, DURE_ERR_AUTH,
                                        &(dure_diag){"it is not the file that its digest names"});
        miss(r);
    } else if (!err) {
        err = dure_blob_put(&digest, blobs, dure_buf_span(&r->file), diag);
        dure_buf_fini(&r->file);
        r->asked_ms = 0;
    }
    free(blobs);
    return err;
}

dure_err dure_coordinator_on_blob_chunk(dure_coordinator *c, size_t site, const dure_msg *msg,
                                        dure_span payload, dure_diag *diag)
{
    dure_recovery *r = &c->recovery;
    const dure_msg_blob_chunk *b = &msg->u.blob_chunk;
    if (r->step != DURE_RECOVER_FILES || site != r->site || b->n_bytes != payload.n ||
        !r->asked_ms || memcmp(b->digest, r->wanted.b, DURE_DIGEST_BYTES) != 0 ||
        b->offset != r->file.n)
        return DURE_OK;
    if (payload.n == 0 || !is_possible(c, b->total_bytes) ||
        payload.n > b->total_bytes - r->file.n) {
        miss(r);
        return DURE_OK;
    }
    dure_put_raw(&r->file, payload.data, payload.n);
    dure_err err = dure_buf_err(&r->file);
    if (err) return err;
    return r->file.n < b->total_bytes ? ask_file(c, diag) : keep_file(c, msg, diag);
}
