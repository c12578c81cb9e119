/* Who shares secrets and masks with whom in a round: a ring of the members, in an order that nobody
 * could choose, where each has the k nearest as neighbours (Bell et al., CCS 2020). The complete
 * graph is the ring of k = n - 1.
 *
 * The order: member u stands at the rank of H("DURE/1/ring", value, run, round, u's signing key).
 * `value` is H("DURE/1/beacon-value", s), where s is the beacon's Ed25519 signature over the
 * federation and the round's beacon index, as of RFC 8032, which gives one signature for each
 * message; on the complete graph it is zero. The configuration fixes the beacon's key, the index,
 * run, round and members before the beacon signs that index. So a coordinator with all of its
 * colluding sites can neither foresee nor alter the order, as long as the holder of the beacon's
 * key keeps to RFC 8032, signs no index before its time, and tells nobody earlier. Is that holder
 * of the coordinator's party, then the order is of its choosing, and the graph protects only from a
 * coordinator that follows the protocol. proto/neighbours.h has what follows from the order. */
#pragma once

#include "common/err.h"
#include "crypto/hash.h"
#include "crypto/sign.h"
#include "proto/config.h"

#define DURE_BEACON_LABEL "DURE/1/beacon"

typedef struct dure_graph {
    uint32_t n, k;
    uint16_t at[DURE_ROUND_MEMBERS_MAX];    /* member at each place of the ring */
    uint16_t place[DURE_ROUND_MEMBERS_MAX]; /* and the other way */
} dure_graph;

/* What the beacon signs for an index. */
DURE_MUST_USE dure_err dure_beacon_sign(uint8_t signature[DURE_SIGNATURE_BYTES],
                                        const dure_sign_key *beacon,
                                        const uint8_t federation_id[DURE_DIGEST_BYTES],
                                        uint64_t index);

/* The graph of the round. `beacon` is the signature on a sparse graph, empty on the complete one:
 * DURE_ERR_AUTH for anything else. *out is zero on error. */
DURE_MUST_USE dure_err dure_graph_make(dure_graph *out, const dure_config *config,
                                       dure_span beacon);

/* A member and its neighbours: who holds shares of its secrets. */
dure_members dure_graph_near(const dure_graph *graph, uint32_t member);
/* How many of them are in the set. */
size_t dure_graph_holders(const dure_graph *graph, uint32_t member, const dure_members *set);
/* Whether the set may fall apart into sums of its own: two separate runs of k / 2 places have not
 * more than `colluders` (dure_graph_run_colluders()) members of it, and there are members on both
 * sides. Never on the complete graph. */
bool dure_graph_separable(const dure_graph *graph, const dure_members *set, uint32_t colluders);
