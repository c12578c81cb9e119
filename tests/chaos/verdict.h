/* What must hold after any kills, read from the coordinator's log, the sites' ledgers, and what
 * every process wrote down (points.c):
 *
 *   coordinator   every opened round ended once, closed or aborted, the last one excepted; numbers
 *                 grow; the log and its accounting verify; a closed round's sum is the plain sum of
 *                 the updates of those in it, and its adapter the step from the one before by it
 *   each site     one set of keys and shares, one vector, one T3 and one reply a round, whatever
 *                 was repeated; never both shares of one member; no mask key and no update in two
 *                 rounds
 *   budget        a round of which anything of the vector left is in the site's own ledger, and is
 *                 charged in the log; no step of the plan is used twice */
#pragma once

#include "village.h"

#include "ledger/event.h"

#define VERDICT_ROUNDS_MAX 4096

/* What one site did in one round, as the frames say that it sent. */
typedef struct verdict_part {
    dure_hash config_hash;
    dure_hash mask_public;   /* of the R0 before its first shares; later ones: of the last R0 */
    dure_hash shares, reply; /* of the R1 and R4 frame; zero: none */
    dure_hash root, t3;      /* zero: none */
    dure_hash chunks[8];     /* of the payloads; zero: not sent */
    uint32_t n_sent[8];      /* how often each was sent */
    int32_t *units;          /* owned; of the last update that was masked; NULL: none */
    bool left;               /* a chunk or the final frame */
} verdict_part;

typedef struct verdict_site {
    verdict_part *parts; /* owned */
    size_t n_parts;
} verdict_site;

/* Reads what the site wrote down and checks what can be checked from it alone. `n_words` is the
 * length of an update. False with a sentence in `why`. */
bool verdict_site_read(verdict_site *out, const char *path, size_t n_words, char why[256]);
void verdict_site_fini(verdict_site *site);
/* The site's part in a round; NULL: it sent nothing of it. */
const verdict_part *verdict_site_part(const verdict_site *site, const dure_hash *config_hash);

typedef struct verdict_rounds {
    uint32_t closed, aborted;
    uint32_t partial; /* of the closed ones those whose sum lacks a member */
} verdict_rounds;

/* All of the above, and what became of the rounds. */
bool verdict(verdict_rounds *out, village *v, char why[256]);

/* The nth round that was closed. */
void verdict_closed(dure_event *out, village *v, unsigned n);
bool verdict_is_summed(const dure_event_round *round, uint32_t site);
/* Fails the test unless the site sent the first chunk of its vector once in the round: nothing that
 * had arrived went again. */
void verdict_one_upload(village *v, uint32_t site, const dure_hash *config_hash);
