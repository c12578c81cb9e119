#include "net/transfer.h"

#include "net/envelope.h"

#include <stdlib.h>

#define WINDOW_DEFAULT 32

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
    uint32_t open; /* chunks that may be in flight; one more for each that came, up to `window` */
    uint64_t held; /* of the budget */
    bool flowing;  /* counted in budget->n_flowing */
    bool started;
};

/* The first chunk in flight is always free: whoever waits, everybody moves. */
static void hold(dure_receiver *r)
{
    const uint64_t in_flight = r->asked - r->received;
    const uint64_t held = in_flight > r->chunk ? in_flight - r->chunk : 0;
    if (!r->budget) return;
    DURE_ASSERT(r->budget->used >= r->held);
    r->budget->used += held - r->held;
    r->held = held;
}

static void set_flowing(dure_receiver *r, bool flowing)
{
    if (r->flowing == flowing) return;
    r->flowing = flowing;
    if (!r->budget) return;
    if (flowing)
        r->budget->n_flowing++;
    else
        r->budget->n_flowing--;
}

dure_err dure_receiver_new(dure_receiver **out, const dure_receiver_opts *opts, uint64_t now_ms)
{
    *out = NULL;
    dure_receiver *r = calloc(1, sizeof *r);
    if (!r) return DURE_ERR_NOMEM;
    r->total = opts->total_bytes;
    r->chunk = opts->chunk_bytes ? opts->chunk_bytes : (uint32_t)DURE_NET_CHUNK_BYTES;
    r->window = opts->window ? opts->window : WINDOW_DEFAULT;
    r->open = 1;
    r->budget = opts->budget;
    r->last_ms = now_ms;
    *out = r;
    return DURE_OK;
}

void dure_receiver_free(dure_receiver **receiver)
{
    dure_receiver *r = *receiver;
    if (!r) return;
    dure_receiver_rewind(r);
    free(r);
    *receiver = NULL;
}

dure_err dure_receiver_resume(dure_receiver *r, uint64_t n_stored)
{
    if (r->started) return DURE_ERR_STATE;
    if (n_stored > r->total - r->received) return DURE_ERR_LIMIT;
    r->received += n_stored;
    r->asked = r->asked_max = r->received;
    return DURE_OK;
}

static uint32_t chunk_at(const dure_receiver *r, uint64_t offset)
{
    uint64_t left = r->total - offset;
    return left < r->chunk ? (uint32_t)left : r->chunk;
}

/* Beyond the first chunk: within its own window, its part of the budget and the whole budget. */
static bool may_ask(const dure_receiver *r, uint32_t n)
{
    const uint64_t in_flight = r->asked - r->received;
    const dure_byte_budget *budget = r->budget;
    if (in_flight == 0) return true;
    if (in_flight + n > (uint64_t)r->open * r->chunk) return false;
    if (!budget) return true;
    const uint64_t share = budget->limit / (budget->n_flowing ? budget->n_flowing : 1);
    return in_flight + n <= r->chunk + share && budget->used + n <= budget->limit;
}

bool dure_receiver_next(dure_fetch *out, dure_receiver *r)
{
    if (r->asked == r->total) return false;
    uint32_t n = chunk_at(r, r->asked);
    if (!may_ask(r, n)) return false;
    *out = (dure_fetch){.offset = r->asked, .length = n};
    r->asked += n;
    if (r->asked > r->asked_max) r->asked_max = r->asked;
    r->started = true;
    hold(r);
    return true;
}

dure_err dure_receiver_accept(bool *fresh, dure_receiver *r, uint64_t offset, size_t n_bytes,
                              uint64_t now_ms)
{
    *fresh = false;
    if (n_bytes == 0 || offset >= r->asked_max || n_bytes > r->chunk ||
        n_bytes > r->asked_max - offset)
        return DURE_ERR_PROTO;
    if (offset < r->received) return DURE_OK;
    if (offset > r->received) {
        /* The connection keeps the order, so what lies between was lost with an earlier one. */
        dure_receiver_rewind(r);
        return DURE_OK;
    }
    if (n_bytes != chunk_at(r, offset)) return DURE_ERR_PROTO;
    r->received += n_bytes;
    if (r->asked < r->received) r->asked = r->received; /* of a fetch that a rewind forgot */
    if (r->open < r->window) r->open++;
    r->last_ms = now_ms;
    set_flowing(r, r->received < r->total);
    hold(r);
    *fresh = true;
    return DURE_OK;
}

void dure_receiver_rewind(dure_receiver *r)
{
    r->asked = r->received;
    r->open = 1;
    set_flowing(r, false);
    hold(r);
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
