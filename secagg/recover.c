#include "secagg/recover.h"

#include "crypto/wipe.h"

#include <string.h>

/* The next t-subset of 0..n-1 in lexicographic order; false after the last. */
static bool next_subset(uint16_t *chosen, size_t t, size_t n)
{
    size_t i = t;
    while (i > 0 && chosen[i - 1] == n - t + (i - 1)) {
        i--;
    }
    if (i == 0) return false;
    chosen[i - 1]++;
    for (size_t j = i; j < t; j++) {
        chosen[j] = (uint16_t)(chosen[j - 1] + 1);
    }
    return true;
}

/* C(n, t) <= DURE_RECOVER_TRIES_MAX: every subset can be tried in order. */
static bool few_subsets(size_t n, size_t t)
{
    uint64_t count = 1;
    for (size_t i = 1; i <= t; i++) {
        count = count * (n - t + i) / i;
        if (count > DURE_RECOVER_TRIES_MAX) return false;
    }
    return true;
}

/* Among many shares with few liars a subset drawn at random is soon free of them, where the order
 * of the subsets would keep a liar at the front for ever. Not a secret: xorshift64 will do. */
static void random_subset(uint16_t *chosen, size_t t, size_t n, uint64_t *state)
{
    uint16_t deck[DURE_NEAR_MAX];
    for (size_t i = 0; i < n; i++) {
        deck[i] = (uint16_t)i;
    }
    for (size_t i = 0; i < t; i++) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        size_t j = i + (size_t)(*state % (n - i));
        uint16_t card = deck[j];
        deck[j] = deck[i];
        deck[i] = card;
        chosen[i] = card;
    }
}

/* Combines the chosen shares; true when the secret passes the check. */
static bool try_subset(uint8_t secret[DURE_SHAMIR_SECRET_BYTES], const dure_recovery *r,
                       const uint16_t *chosen)
{
    dure_share subset[DURE_NEAR_MAX];
    for (size_t i = 0; i < r->t; i++) {
        subset[i] = r->shares[chosen[i]];
    }
    bool ok = dure_shamir_combine(secret, subset, r->t) == DURE_OK && r->check(r->state, secret);
    dure_wipe(subset, sizeof subset);
    return ok;
}

/* A share is on the polynomial if it can stand in for one that is. */
static void name_liars(dure_members *liars, const dure_recovery *r, const uint16_t *good,
                       const uint8_t secret[DURE_SHAMIR_SECRET_BYTES])
{
    uint8_t other[DURE_SHAMIR_SECRET_BYTES];
    uint16_t swapped[DURE_NEAR_MAX];
    for (size_t i = 0; i < r->n; i++) {
        bool chosen = false;
        for (size_t j = 0; j < r->t; j++) {
            chosen = chosen || good[j] == i;
        }
        if (chosen) continue;
        memcpy(swapped, good, r->t * sizeof *swapped);
        swapped[0] = (uint16_t)i;
        if (!try_subset(other, r, swapped) || !dure_ct_equal(other, secret, sizeof other)) {
            dure_members_add(liars, r->shares[i].x - 1);
        }
    }
    dure_wipe(other, sizeof other);
}

dure_err dure_recover(uint8_t secret[DURE_SHAMIR_SECRET_BYTES], dure_members *liars,
                      const dure_recovery *r)
{
    dure_wipe(secret, DURE_SHAMIR_SECRET_BYTES);
    if (r->t == 0 || r->n < r->t || r->n > DURE_NEAR_MAX) return DURE_ERR_AUTH;
    uint16_t chosen[DURE_NEAR_MAX];
    for (size_t i = 0; i < r->t; i++) {
        chosen[i] = (uint16_t)i;
    }
    bool in_order = few_subsets(r->n, r->t);
    uint64_t random_state = UINT64_C(0x9e3779b97f4a7c15);
    for (uint32_t tries = 0; tries < DURE_RECOVER_TRIES_MAX; tries++) {
        if (try_subset(secret, r, chosen)) {
            if (liars) name_liars(liars, r, chosen, secret);
            return DURE_OK;
        }
        if (!in_order) {
            random_subset(chosen, r->t, r->n, &random_state);
        } else if (!next_subset(chosen, r->t, r->n)) {
            break;
        }
    }
    dure_wipe(secret, DURE_SHAMIR_SECRET_BYTES);
    return DURE_ERR_AUTH;
}
