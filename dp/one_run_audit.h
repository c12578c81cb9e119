/* Lower bounds on epsilon from one training run with canaries.
 *
 * m canaries were each put into the training data or left out by a fair coin. Whoever sees what was
 * released guesses for some of them which it was; of n_guess guesses n_correct are right. More
 * right guesses than (epsilon, delta) allows reject that claim, at a chosen significance: the
 * probability of rejecting a true claim. The guesses may be chosen freely, but how many there are
 * must not depend on how many turned out to be right.
 *
 * Two bounds:
 * - Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846), theorem 5.2: for any mechanism.
 * - Mahloujifar, Melis, Chaudhuri 2024 (arXiv 2410.22235), algorithm 3 ("audit_rh"): for a
 * mechanism that is claimed to be Gaussian (mu-GDP), as one that takes every record in every step
 * is. It uses the whole trade-off curve and is about twice as sharp.
 *
 * A low bound is no evidence of privacy; a bound above the claim is evidence of a fault.
 *
 * Threads: pure functions. */
#pragma once

#include <stdint.h>

typedef struct dure_guesses {
    uint64_t m;         /* canaries, also those that no guess was made for */
    uint64_t n_guess;   /* 1 to m */
    uint64_t n_correct; /* 0 to n_guess */
} dure_guesses;

/* How probable at least that many right guesses are, at most, if the training is (epsilon,
 * delta)-differentially private. epsilon >= 0, 0 <= delta <= 1. */
double dure_one_run_p_value(const dure_guesses *guesses, double epsilon, double delta);

/* The largest epsilon that is rejected with `significance` for any mechanism, 0 if none is;
 * infinite if every one up to 50 is. 0 < significance < 1. */
double dure_one_run_epsilon(const dure_guesses *guesses, double significance, double delta);

/* The largest mu for which a mu-GDP claim is rejected, 0 if none is, and what it is as an epsilon
 * at delta; infinite if every mu up to 50 is. 0 < delta < 1. */
double dure_one_run_mu(const dure_guesses *guesses, double significance);
double dure_one_run_epsilon_gaussian(const dure_guesses *guesses, double significance,
                                     double delta);
