#include "net/transfer.h"

#include "net/envelope.h"

#include <stdlib.h>

#define WINDOW_DEFAULT 4

struct dure_receiver {
    uint64_t total;
    uint32_t chunk, window;
    dure_byte_budget *budget;
    /* received <= asked <= total; [received, asked) is in flight, as the fetches cut it:
     * every chunk is `chunk` bytes long but the last of the whole. */
    uint64_t received, asked;
    /* Chunks of fetches that a rewind has forgotten may still come; they end below this. */
    uint64_t asked_max;
    uint64_t last_ms;
    dure_hasher *hasher;
    bool started;
};

static void budget_take(dure_byte_budget *budget, uint64_t n)
{
    if (budget) budget->used += n;
}

static void budget_return(dure_byte_budget *budget, uint64_t n)
{
    if (!budget) return;
    DURE_ASSERT(budget->used >= n);
    budget->used -= n;
}

dure_err dure_receiver_new(dure_receiver **out, const dure_receiver_opts *opts, uint64_t now_ms)
{
    *out = NULL;
    dure_receiver *r = calloc(1, sizeof *r);
    if (!r) return DURE_ERR_NOMEM;
    r->total = opts->total_bytes;
    r->chunk = opts->chunk_bytes ? opts->chunk_bytes : (uint32_t)DURE_NET_CHUNK_BYTES;
    r->window = opts->window ? opts->window : WINDOW_DEFAULT;
    r->budget = opts->budget;
    r->last_ms = now_ms;
    dure_err err = dure_hasher_new(&r->hasher);
    if (err)
        free(r);
    else
        *out = r;
    return err;
}

void dure_receiver_free(dure_receiver **receiver)
{
    dure_receiver *r = *receiver;
    if (!r) return;
    dure_receiver_rewind(r);
    dure_hasher_free(&r->hasher);
    free(r);
    *receiver = NULL;
}

dure_err dure_receiver_resume(dure_receiver *r, dure_span stored)
{
    if (r->started) return DURE_ERR_STATE;
    if (stored.n > r->total - r->received) return DURE_ERR_LIMIT;
    dure_err err = dure_hasher_update(r->hasher, stored.data, stored.n);
    if (err) return err;
    r->received += stored.n;
    r->asked = r->asked_max = r->received;
    return DURE_OK;
}

static uint32_t chunk_at(const dure_receiver *r, uint64_t offset)
{
    uint64_t left = r->total - offset;
    return left < r->chunk ? (uint32_t)left : r->chunk;
}

bool dure_receiver_next(dure_fetch *out, dure_receiver *r)
{
    if (r->asked == r->total) return false;
    uint32_t n = chunk_at(r, r->asked);
    if (r->asked - r->received + n > (uint64_t)r->window * r->chunk) return false;
    /* While nothing at all is in flight one chunk may be asked for, so that a budget below one
     * chunk slows the transfers down and does not stop them. */
    const dure_byte_budget *budget = r->budget;
    if (budget && budget->used > 0 &&
        (budget->used >= budget->limit || n > budget->limit - budget->used))
        return false;
    budget_take(r->budget, n);
    *out = (dure_fetch){.offset = r->asked, .length = n};
    r->asked += n;
    if (r->asked > r->asked_max) r->asked_max = r->asked;
    r->started = true;
    return true;
}

dure_err dure_receiver_accept(bool *fresh, dure_receiver *r, uint64_t offset, dure_span chunk,
                              uint64_t now_ms)
{
    *fresh = false;
    if (chunk.n == 0 || offset >= r->asked_max || chunk.n > r->chunk ||
        chunk.n > r->asked_max - offset)
        return DURE_ERR_PROTO;
    if (offset < r->received) return DURE_OK;
    if (offset > r->received) {
        /* The connection keeps the order, so what lies between was lost with an earlier one. */
        dure_receiver_rewind(r);
        return DURE_OK;
    }
    if (chunk.n != chunk_at(r, offset)) return DURE_ERR_PROTO;
    dure_err err = dure_hasher_update(r->hasher, chunk.data, chunk.n);
    if (err) return err;
    if (r->asked < offset + chunk.n)
        r->asked = offset + chunk.n; /* of a fetch that a rewind forgot: no credit is held for it */
    else
        budget_return(r->budget, chunk.n);
    r->received += chunk.n;
    r->last_ms = now_ms;
    *fresh = true;
    return DURE_OK;
}

void dure_receiver_rewind(dure_receiver *r)
{
    budget_return(r->budget, r->asked - r->received);
    r->asked = r->received;
}

bool dure_receiver_complete(const dure_receiver *r)
{
    return r->received == r->total;
}

dure_receiver_progress dure_receiver_progress_of(const dure_receiver *r)
{
    return (dure_receiver_progress){.received_bytes = r->received,
                                    .total_bytes = r->total,
                                    .in_flight_bytes = r->asked - r->received,
                                    .last_ms = r->last_ms};
}

dure_err dure_receiver_digest(dure_hash *out, dure_receiver *r, const dure_hash *expected)
{
    *out = (dure_hash){{0}};
    if (!dure_receiver_complete(r)) return DURE_ERR_STATE;
    dure_err err = dure_hasher_final(out, r->hasher);
    if (!err && expected && !dure_hash_equal(out, expected)) err = DURE_ERR_AUTH;
    return err;
}

dure_err dure_fetch_slice(dure_span *out, const dure_fetch *fetch, dure_span whole,
                          uint32_t max_chunk)
{
    *out = dure_span_of(NULL, 0);
    if (fetch->length == 0 || fetch->length > max_chunk || fetch->offset >= whole.n ||
        fetch->length > whole.n - fetch->offset)
        return DURE_ERR_PROTO;
    *out = dure_span_of(whole.data + fetch->offset, fetch->length);
    return DURE_OK;
}
