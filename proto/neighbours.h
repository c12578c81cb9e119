/* How many neighbours a round on a sparse graph needs, and which threshold.
 *
 * The members stand on a ring, in an order that nobody could choose (secagg/graph.h). Each shares
 * its secrets with the k members that are next to it, k / 2 on either side, and agrees on masks
 * with them alone (Bell et al., CCS 2020, doi 10.1145/3372297.3417885). The complete graph is the
 * ring of k = n - 1, where every bound below is exact and the known rule 2 t > n + c comes out.
 *
 * Of n members c may collude with the coordinator. Whoever they are, a random order puts, except
 * with probability 2^-DURE_GRAPH_SECURITY_BITS for the whole round,
 *   - at most m = dure_graph_colluders() of them among the k neighbours of any one honest member.
 *     With 2 t > k + 1 + m nobody gets t shares of both secrets of a member, since of its k + 1
 *     holders, itself among them, those that do not collude give one share each;
 *   - at most w = dure_graph_run_colluders() of them into any two separate runs of k / 2 places. A
 *     set of members in which no two such runs have w members or fewer is connected by honest
 *     ones, so its sum cannot be taken apart, whoever is said to have dropped out.
 *
 * Probabilities are hypergeometric tails with a union bound over members and pairs of runs, half
 * of the allowance for each of the two events. Threads: pure functions. */
#pragma once

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DURE_GRAPH_SECURITY_BITS 40
#define DURE_GRAPH_CORRECTNESS_BITS 20

/* The least m, and w, of the above; c and 0 on the complete graph, which nothing can take apart. */
uint32_t dure_graph_colluders(uint32_t n, uint32_t k, uint32_t c);
uint32_t dure_graph_run_colluders(uint32_t n, uint32_t k, uint32_t c);

/* A choice of graph and threshold, for rounds with at most `dropouts` members lost by chance. */
typedef struct dure_graph_choice {
    uint32_t n, c, dropouts;
    uint32_t k, t;
} dure_graph_choice;

/* -log2 of the chance that so many random dropouts leave a member with fewer than t holders, or the
 * ring open in two places, so that the round ends without a sum. 0 when it is likely; 1000 when it
 * cannot happen. */
double dure_graph_finish_bits(const dure_graph_choice *choice);

/* Whether k and t fit: k even and below n - 1, or n - 1; t at most k + 1; 2 t > k + 1 + m; and, on
 * a sparse graph, a sum at the end of all but one round in 2^DURE_GRAPH_CORRECTNESS_BITS.
 * DURE_ERR_POLICY with a sentence that says which rule is broken and what would keep it. */
DURE_MUST_USE dure_err dure_graph_check(const dure_graph_choice *choice, dure_diag *diag);

/* Sets the smallest k and its t that pass for n, c and dropouts; the complete graph's where no
 * sparse one does, if that passes. False when nothing passes. */
bool dure_graph_choose(dure_graph_choice *choice);

/* What a choice that passed the check promises, and to whom, in a sentence or two; and what the
 * other way to many sites does: cohorts of at most `most` on complete graphs, each with a bound of
 * c colluders of its own, whose noisy sums are added. Cut to `size`. */
void dure_graph_promise(char *out, size_t size, const dure_graph_choice *choice);
void dure_cohorts_promise(char *out, size_t size, const dure_graph_choice *choice, uint32_t most);
