/* A small federation's ledger, made event by event: three sites, every key random. */
#pragma once

#include "crypto/sign.h"
#include "ledger/journal.h"
#include "support/check.h"
#include "support/temp_dir.h"

#define FIXTURE_SITES 3

typedef struct fixture {
    temp_dir dir;
    dure_sign_key root, coordinator, sites[FIXTURE_SITES];
    char origin[DURE_ORIGIN_SIZE];
    dure_journal *journal;
    dure_event *event; /* scratch */
    dure_hash adapter; /* of the last closed round */
} fixture;

/* Keys and an empty journal in a new folder. */
void fixture_make(fixture *f);
void fixture_free(fixture *f);

/* A hash whose every byte is `value`. */
dure_hash fixture_hash(uint8_t value);

/* Fill f->event; everything that can vary keeps a plain value. */
void fixture_genesis(fixture *f);
void fixture_roster(fixture *f, uint64_t size);
void fixture_round(fixture *f, dure_event_kind kind, uint64_t round);
/* Makes the round in f->event one whose sites share their noise: a step for a whole site. */
void fixture_share_noise(fixture *f);
void fixture_release(fixture *f, dure_event_kind kind, uint64_t round);
void fixture_epoch(fixture *f, uint64_t kept_n, const dure_hash *kept_root, uint64_t lost_n);

/* Appends f->event. */
void fixture_append(fixture *f);
/* Genesis and roster; then OPENED and CLOSED of one round, a checkpoint and `cosigned` of its
 * cosignatures. Return the checkpoint's size. */
void fixture_begin(fixture *f);
uint64_t fixture_full_round(fixture *f, uint64_t round, size_t cosigned);
/* A checkpoint of the present size with the cosignatures of the first `cosigned` sites. */
uint64_t fixture_checkpoint(fixture *f, size_t cosigned);

/* Site i as the log names it. */
dure_site_key fixture_site(const fixture *f, size_t i);
/* The newest checkpoint that counts with the newest roster in the log; 0 if none does. */
uint64_t fixture_counting(const fixture *f);

/* The note of that size, and the proof from old_n to n, for a witness. */
void fixture_note(dure_buf *note, const fixture *f, uint64_t size);
dure_merkle_proof fixture_proof(const fixture *f, uint64_t n, uint64_t old_n);
