/* Which CURVE keys the router lets in: the roster's keys in force, asked for on every connection
 * and every message, from the router's ZAP thread and from the loop.
 *
 * A key of the roster is a member; a revoked one is nobody, at once; an unknown one is a guest that
 * may ask to join.
 *
 * Threads: every function may be called from any thread. */
#pragma once

#include "common/err.h"
#include "federation/roster.h"
#include "net/router.h"

typedef struct dure_admission_list dure_admission_list;

DURE_MUST_USE dure_err dure_admission_new(dure_admission_list **out);
void dure_admission_free(dure_admission_list **list); /* NULL-safe, nulls */

/* Replaces the list by what the roster says now. */
void dure_admission_update(dure_admission_list *list, const dure_roster *roster);
/* For dure_router_opts.admit; `state` is the list. */
dure_admission dure_admission_ask(void *state, const uint8_t curve_public[DURE_CURVE_BYTES]);
