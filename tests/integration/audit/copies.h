/* Copies of an exported ledger that somebody tampered with, one kind of tampering each, with what a
 * verifier has to say about it. */
#pragma once

#include "common/buf.h"
#include "crypto/sign.h"
#include "ledger/event.h"

#include <stdbool.h>

enum { COPIES_SITES = 5, COPIES_LEAVES = 64, COPIES_NOTES = 32 };

/* An export taken apart, so that it can be put together differently. */
typedef struct parts {
    size_t n_leaves, n_notes;
    dure_buf leaves[COPIES_LEAVES]; /* bytes */
    dure_hash hashes[COPIES_LEAVES];
    dure_buf notes[COPIES_NOTES];
    dure_buf roster;
} parts;

/* Everything that a tamperer may have: the keys of coordinator and sites, by name's order. */
typedef struct tampering {
    parts p;
    dure_sign_key coordinator, sites[COPIES_SITES];
    char names[COPIES_SITES][DURE_EVENT_NAME_SIZE];
    dure_event *event;                     /* scratch */
    size_t opened[8], closed[8], n_rounds; /* entries of the completed rounds, in order */
    dure_buf file; /* the whole copy; made from `p` unless a kind wrote it itself */
    bool with_checkpoint, with_root; /* what the auditor has to have to see it */
} tampering;

/* What verification must name: entries first .. last, or a checkpoint from 1, or neither (-1, 0):
 * then that it fails is all there is to say. */
typedef struct verdict {
    int first, last, checkpoint;
} verdict;

/* A kind of tampering changes t->p or t->file and says what must be named; or it changes a round
 * where that was opened and where it was closed, and all sites sign. */
typedef struct copy_kind {
    const char *name;
    verdict (*make)(tampering *t); /* NULL: */
    void (*change)(dure_event_round *round);
} copy_kind;
extern const copy_kind copy_kinds[];
extern const size_t copy_kinds_n;

verdict copy_make(const copy_kind *kind, tampering *t);

/* Takes `export_` apart and finds the rounds; keys and names are the caller's to fill before. */
void tampering_begin(tampering *t, dure_span export_);
/* Puts t->p together into t->file, unless the kind made a file of its own. */
void tampering_assemble(tampering *t);
void tampering_end(tampering *t);
