/* The parts of the budget ledger: the chain on disk (site_ledger_chain.c), the state that its
 * entries add up to (site_ledger_state.c), the rule of what fits (site_ledger_budget.c). */
#pragma once

#include "dp/accountant_rdp.h"
#include "ledger/site_ledger.h"

#include <jansson.h>

#define DURE_LEDGER_SOURCES_MAX 10000
#define DURE_LEDGER_ITEMS_MAX 1000000

typedef struct dure_ledger_source {
    char name[DURE_SOURCE_NAME_SIZE];
    dure_privacy budget;
    uint64_t n_pub;
    double order;
} dure_ledger_source;

/* A reservation and what it costs; the cost is computed once, when it is first needed. */
typedef struct dure_ledger_item {
    dure_reservation reservation;
    bool has_cost;
    dure_rdp cost;
} dure_ledger_item;

struct dure_site_ledger {
    char *path;
    int fd;
    bool read_only;
    uint64_t read_at; /* bytes of whole lines taken in so far */
    dure_hash *chain; /* the hash of every line; the last is the head */
    size_t n_chain, chain_capacity;
    dure_ledger_source *sources;
    size_t n_sources;
    dure_ledger_item *items;
    size_t n_items;
};

/* --- chain --- */

/* Takes the lock and takes in what other processes appended. On success the lock is held. */
DURE_MUST_USE dure_err dure_ledger_begin(dure_site_ledger *ledger, dure_diag *diag);
void dure_ledger_end(dure_site_ledger *ledger);
/* Appends one entry and syncs it, then applies it to the state. Steals `entry`, which may be NULL
 * (out of memory). The lock is held. */
DURE_MUST_USE dure_err dure_ledger_append(dure_site_ledger *ledger, json_t *entry, dure_diag *diag);

/* --- state --- */

/* Takes one entry into the state; DURE_ERR_FORMAT if it does not follow from what came before. */
DURE_MUST_USE dure_err dure_ledger_apply(dure_site_ledger *ledger, const json_t *entry,
                                         dure_diag *diag);
/* NULL: not there. */
dure_ledger_source *dure_ledger_find_source(const dure_site_ledger *ledger, const char *name);
dure_ledger_item *dure_ledger_find_item(const dure_site_ledger *ledger,
                                        const dure_reservation_id *id);
/* Whether `use` may follow what was noted for the reservation; see dure_site_ledger_use(). */
DURE_MUST_USE dure_err dure_ledger_check_use(const dure_reservation *reservation,
                                             const dure_ledger_use *use, dure_diag *diag);
/* DURE_ERR_USAGE unless 1 to size - 1 bytes of UTF-8 without control characters. */
DURE_MUST_USE dure_err dure_ledger_check_text(const char *text, size_t size, const char *what,
                                              dure_diag *diag);

/* --- budget --- */

/* The Renyi order at which the budget admits the most Gaussian releases. */
double dure_ledger_filter_order(dure_privacy budget);
/* DURE_ERR_BUDGET, with a sentence that says what would fit, unless the plan does. */
DURE_MUST_USE dure_err dure_ledger_check_fits(dure_site_ledger *ledger,
                                              const dure_ledger_source *source,
                                              const dure_dp_plan *plan, dure_diag *diag);
/* The least noise with which the plan fits; DURE_ERR_BUDGET if none does. */
DURE_MUST_USE dure_err dure_ledger_least_noise(dure_dp_plan *plan, const dure_site_ledger *ledger,
                                               const dure_ledger_source *source, dure_diag *diag);
void dure_ledger_status(dure_source_status *out, const dure_site_ledger *ledger,
                        const dure_ledger_source *source);
