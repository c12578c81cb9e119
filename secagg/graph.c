#include "secagg/graph.h"

#include <stdlib.h>
#include <string.h>

static dure_err beacon_message(dure_hash *out, const uint8_t federation_id[DURE_DIGEST_BYTES],
                               uint64_t index)
{
    dure_buf buf;
    dure_buf_init(&buf, 64);
    dure_put_raw(&buf, federation_id, DURE_DIGEST_BYTES);
    dure_put_u64(&buf, index);
    const dure_span field = dure_buf_span(&buf);
    dure_err err = dure_buf_err(&buf);
    if (!err) err = dure_hash_labeled(out, DURE_BEACON_LABEL, &field, 1);
    dure_buf_fini(&buf);
    return err;
}

dure_err dure_beacon_sign(uint8_t signature[DURE_SIGNATURE_BYTES], const dure_sign_key *beacon,
                          const uint8_t federation_id[DURE_DIGEST_BYTES], uint64_t index)
{
    dure_hash message;
    dure_err err = beacon_message(&message, federation_id, index);
    if (err) return err;
    return dure_sign(signature, beacon, DURE_BEACON_LABEL, dure_hash_span(&message));
}

/* Zero on the complete graph, where every order gives the same neighbours. */
static dure_err beacon_value(dure_hash *out, const dure_config *config, dure_span beacon)
{
    *out = (dure_hash){{0}};
    if (!config->neighbours) return beacon.n ? DURE_ERR_AUTH : DURE_OK;
    if (beacon.n != DURE_SIGNATURE_BYTES) return DURE_ERR_AUTH;
    dure_hash message;
    dure_err err = beacon_message(&message, config->federation_id, config->beacon_index);
    if (!err) {
        err = dure_sign_verify(config->beacon_public, DURE_BEACON_LABEL, dure_hash_span(&message),
                               beacon.data);
    }
    return err ? err : dure_hash_labeled(out, "DURE/1/beacon-value", &beacon, 1);
}

typedef struct seat {
    dure_hash key;
    uint16_t member;
} seat;

/* Public: the order is no secret. */
static int by_key(const void *a, const void *b)
{
    const uint8_t *x = ((const seat *)a)->key.b, *y = ((const seat *)b)->key.b;
    size_t i = 0;
    while (i + 1 < DURE_HASH_BYTES && x[i] == y[i])
        i++;
    return (x[i] > y[i]) - (x[i] < y[i]);
}

static dure_err draw_seat(seat *out, const dure_hash *value, const dure_config *config,
                          uint32_t member)
{
    dure_buf buf;
    dure_buf_init(&buf, 128);
    dure_put_raw(&buf, value->b, sizeof value->b);
    dure_put_u64(&buf, config->run_id);
    dure_put_u64(&buf, config->round);
    dure_put_raw(&buf, config->members[member].sign_public, DURE_KEY_BYTES);
    const dure_span field = dure_buf_span(&buf);
    dure_err err = dure_buf_err(&buf);
    if (!err) err = dure_hash_labeled(&out->key, "DURE/1/ring", &field, 1);
    out->member = (uint16_t)member;
    dure_buf_fini(&buf);
    return err;
}

dure_err dure_graph_make(dure_graph *out, const dure_config *config, dure_span beacon)
{
    memset(out, 0, sizeof *out);
    dure_hash value;
    dure_err err = beacon_value(&value, config, beacon);
    if (err) return err;
    seat *seats = calloc(config->n_members, sizeof *seats);
    if (!seats) return DURE_ERR_NOMEM;
    for (uint32_t u = 0; !err && u < config->n_members; u++) {
        err = draw_seat(&seats[u], &value, config, u);
    }
    if (!err) {
        qsort(seats, config->n_members, sizeof *seats, by_key);
        out->n = config->n_members;
        out->k = dure_config_degree(config);
        for (uint32_t i = 0; i < out->n; i++) {
            out->at[i] = seats[i].member;
            out->place[seats[i].member] = (uint16_t)i;
        }
    }
    free(seats);
    return err;
}

/* How far a neighbour is away at most. k is even or n - 1. */
static uint32_t reach(const dure_graph *graph)
{
    return (graph->k + 1) / 2;
}

dure_members dure_graph_near(const dure_graph *graph, uint32_t member)
{
    dure_members near = {{0}};
    const uint32_t place = graph->place[member];
    dure_members_add(&near, member);
    for (uint32_t d = 1; d <= reach(graph); d++) {
        dure_members_add(&near, graph->at[(place + d) % graph->n]);
        dure_members_add(&near, graph->at[(place + graph->n - d) % graph->n]);
    }
    return near;
}

size_t dure_graph_holders(const dure_graph *graph, uint32_t member, const dure_members *set)
{
    const dure_members near = dure_graph_near(graph, member), there = dure_members_both(&near, set);
    return dure_members_count(&there);
}

/* before[i]: members of the set at the places below i, of twice around the ring. */
static void count_before(uint16_t before[2 * DURE_ROUND_MEMBERS_MAX + 1], const dure_graph *graph,
                         const dure_members *set)
{
    before[0] = 0;
    for (uint32_t i = 0; i < 2 * graph->n; i++) {
        before[i + 1] = (uint16_t)(before[i] + dure_members_has(set, graph->at[i % graph->n]));
    }
}

bool dure_graph_separable(const dure_graph *graph, const dure_members *set, uint32_t colluders)
{
    const uint32_t length = reach(graph), n = graph->n;
    uint16_t before[2 * DURE_ROUND_MEMBERS_MAX + 1];
    if (graph->k + 1 >= n) return false;
    count_before(before, graph, set);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t one = (uint32_t)before[i + length] - before[i];
        if (one > colluders) continue;
        for (uint32_t j = i + length + 1; j + length < i + n && j < n; j++) {
            const uint32_t other = (uint32_t)before[j + length] - before[j];
            /* Members on either side, or there is nothing to take apart. */
            const bool parts = before[j] > before[i + length] && before[i + n] > before[j + length];
            if (one + other <= colluders && parts) return true;
        }
    }
    return false;
}
