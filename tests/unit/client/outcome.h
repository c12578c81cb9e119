/* The result of the round in hand, as an honest coordinator or a lying one makes it, for tests of
 * what a site makes of it. */
#pragma once

#include "ledger/round_event.h"
#include "unit/client/stage.h"

typedef struct outcome {
    dure_msg *msg; /* RESULT, as received */
    dure_buf sum;  /* the blob */
    dure_buf next; /* the right adapter */
    dure_buf log;  /* the first two entries, as ENTRIES brings them */
    uint32_t less; /* members that are not in the sum */
} outcome;

/* As after R4: the update was charged, and this T3 was signed. */
void pretend_summed(void);
/* `twist` changes the event before it is logged, as the second of two or three entries. */
void make_result_in(outcome *o, size_t n_leaves, void (*twist)(dure_event *event));
void make_result(outcome *o, void (*twist)(dure_event *event)); /* in two */
/* RESULT, and the sum if the site asks for it. */
dure_err deliver(outcome *o, dure_diag *diag);
void assert_refuses(outcome *o, const char *says);
void assert_follows(outcome *o);
void outcome_fini(outcome *o);
