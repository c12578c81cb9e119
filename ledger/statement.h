/* The privacy statement: what an auditor hands on, made from an exported ledger that was verified.
 *
 * The items follow NIST SP 800-226 and the differential privacy deployments registry of OpenDP: the
 * unit and the neighbours, what is released to whom and what is not protected, mechanism with its
 * exact constants, sampler, steps planned and executed, accountants, (epsilon, delta) with what it
 * means, composition, trust, implementation, post-processing, what is not covered, incidents.
 * docs/statement.md lists them with their JSON keys.
 *
 * A statement of a ledger that does not verify holds the checks and nothing else: no figure of such
 * a file is worth printing.
 *
 * Threads: pure functions; an object belongs to one thread at a time. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "ledger/export.h"
#include "ledger/verify.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DURE_STATEMENT_MAX (64u << 20) /* bytes of the page */
#define DURE_STATEMENT_POINTS_MAX 120  /* of one site's curve, */
#define DURE_STATEMENT_POINTS_ALL 600  /* of all together; longer histories are thinned */

/* What the roster and the terms in it say, which this layer cannot read. */
typedef struct dure_statement_site {
    char name[DURE_EVENT_NAME_SIZE];
    char organisation[DURE_EVENT_NAME_SIZE];
    uint8_t sign_public[32];
    int64_t joined_s;
    bool revoked;
    dure_dp_plan plan; /* as declared; .steps is that of the whole plan */
} dure_statement_site;

typedef struct dure_statement_terms {
    char architecture[32]; /* of the base model; any text */
    uint32_t n_layers, n_embd, n_vocab;
    dure_hash base;
    uint32_t rank;
    double alpha;
    uint64_t n_trained; /* parameters that are trained and summed */
    uint32_t rounds, steps, max_length;
    double learning_rate, server_rate;
    const char *optimizer; /* static */
    uint32_t min_sites, u_min, collusion;
    double range;   /* of one entry of an update, */
    uint32_t limit; /* which is an integer of at most this */
} dure_statement_terms;

typedef struct dure_statement_facts {
    const char *file; /* name of the export, as given */
    dure_hash digest; /* of its bytes */
    int64_t now_s;
    const char *program;               /* "dure 0.1.0" */
    const dure_statement_terms *terms; /* NULL: nobody has joined */
    const dure_statement_site *sites;  /* everyone who ever joined, in order */
    size_t n_sites;
    const json_t *canary; /* what `dure audit canary --json` printed, or NULL */
} dure_statement_facts;

/* A round as the log tells it. */
typedef struct dure_statement_round {
    uint64_t opened, ended; /* entries; ended is 0 while it has no end */
    dure_event_kind end;    /* CLOSED, ABORTED; OPENED: no end */
    int64_t opened_s, ended_s;
    uint64_t run_id, round;
    uint32_t n_members, n_charged, n_summed;
    dure_hash adapter_out;
    dure_event_gate gate;
    dure_event_sum sum;
    uint32_t privacy_mode;
    double epsilon; /* the largest of any site after it; NAN where the history was thinned */
    char reason[DURE_EVENT_REASON_SIZE];
} dure_statement_round;

/* PROMOTED, ROLLED_BACK or NEW_EPOCH. */
typedef struct dure_statement_act {
    dure_event_kind kind;
    uint64_t entry;
    int64_t time_s;
    uint64_t round; /* that made the adapter; of an epoch: its number */
    uint64_t lost;  /* entries, of an epoch */
    dure_hash adapter;
    char reason[DURE_EVENT_REASON_SIZE];
} dure_statement_act;

/* A site's privacy loss after each end of a round, thinned to DURE_STATEMENT_POINTS_MAX. */
typedef struct dure_statement_point {
    int64_t time_s;
    double epsilon;
} dure_statement_point;

typedef struct dure_statement_curve {
    const dure_account *account;     /* of the report */
    const dure_statement_site *site; /* the newest join of that name; NULL if not known */
    double planned;                  /* epsilon when the whole plan is run, at the same delta */
    dure_statement_point *points;
    size_t n_points;
} dure_statement_curve;

typedef struct dure_statement {
    const dure_verify_report *report; /* all borrowed */
    const dure_statement_facts *facts;
    bool verified;
    dure_statement_round *rounds;
    size_t n_rounds;
    dure_statement_act *acts;
    size_t n_acts;
    dure_statement_curve *curves; /* one for each account of the report */
    size_t n_curves;
    /* What a test for membership finds at most at the site with the largest loss, when it is wrong
     * about one in a hundred and one in a thousand; 1 where nothing is protected. */
    double found_at_100, found_at_1000;
    uint32_t privacy_mode; /* of the last round; 0 before any */
    dure_dp_plan plan;     /* of the last round's first member */
} dure_statement;

/* Collects it. `export_` may be NULL when the file could not be taken apart. `verified` is whether
 * dure_verify_export() accepted it. The arguments outlive *out; the caller owns it. */
DURE_MUST_USE dure_err dure_statement_new(dure_statement **out, const dure_export *export_,
                                          const dure_verify_report *report, bool verified,
                                          const dure_statement_facts *facts);
void dure_statement_free(dure_statement **statement); /* NULL-safe, nulls */

/* Appends the page: one self-contained HTML file, no script, nothing fetched, for reading and for
 * paper. Every text from outside is escaped. */
DURE_MUST_USE dure_err dure_statement_html(dure_buf *out, const dure_statement *statement);
/* The same as JSON; NULL when out of memory. */
json_t *dure_statement_json(const dure_statement *statement);

/* Text as HTML: & < > " and ' escaped, control characters replaced. */
void dure_statement_put_text(dure_buf *out, const char *text);
/* Appends the chart of the curves as SVG; nothing if there is nothing finite to draw. */
void dure_statement_chart(dure_buf *out, const dure_statement *statement);

/* What one incident was, for both forms: aborted and unfinished rounds, losses of entries, adapters
 * taken back, revoked sites, failed gates. */
typedef struct dure_statement_incident {
    int64_t time_s;
    uint64_t entry;
    bool entry_known;
    char text[512];
} dure_statement_incident;
/* The i-th incident in the order of the log, false past the last. */
bool dure_statement_incident_at(dure_statement_incident *out, const dure_statement *statement,
                                size_t i);
