/* dure audit report: the privacy statement of an exported ledger, as a page to read and print and
 * as JSON. A ledger that does not verify gets a page that says so, and nothing else. */
#include "cli/args.h"
#include "cli/audit.h"
#include "cli/output.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "federation/plan.h"
#include "ledger/statement.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MODE = 0644, CANARY_MAX_BYTES = 1 << 20 };

static dure_statement_site site_of(const dure_roster_member *member)
{
    const dure_join *join = &member->join;
    const dure_terms *t = &join->invitation.terms;
    dure_statement_site site = {.joined_s = member->joined_s,
                                .revoked = member->revoked,
                                .plan =
                                    dure_federation_plan(t, &join->declared, t->training.rounds)};
    memcpy(site.name, join->invitation.name, sizeof site.name);
    memcpy(site.organisation, join->invitation.organisation, sizeof site.organisation);
    memcpy(site.sign_public, join->sign_public, sizeof site.sign_public);
    return site;
}

static dure_statement_terms terms_of(const dure_terms *from)
{
    dure_statement_terms terms = {
        .n_layers = from->base.n_layers,
        .n_embd = from->base.n_embd,
        .n_vocab = from->base.n_vocab,
        .base = from->base.digest,
        .rank = from->layout.rank,
        .alpha = from->layout.alpha,
        .n_trained = from->layout.n_active,
        .rounds = from->training.rounds,
        .steps = from->training.steps,
        .max_length = from->training.max_length,
        .learning_rate = from->training.learning_rate,
        .server_rate = from->training.server_rate,
        .optimizer = from->training.optimizer == DURE_LOCAL_SGD ? "SGD" : "AdamW",
        .min_sites = from->cohort.min_sites,
        .u_min = from->cohort.u_min,
        .collusion = from->cohort.collusion,
    };
    memcpy(terms.architecture, from->base.architecture, sizeof terms.architecture);
    return terms;
}

/* What the command line asks for. */
typedef struct report_args {
    dure_audit_source source;
    const char *html, *json, *canary;
} report_args;

static dure_err write_html(const char *path, const dure_statement *statement, dure_diag *diag)
{
    dure_buf page;
    dure_buf_init(&page, DURE_STATEMENT_MAX);
    dure_err err = dure_statement_html(&page, statement);
    if (err)
        (void)dure_diag_set(diag, err, "the page is too large");
    else
        err = dure_file_write_atomic(path, dure_buf_span(&page), FILE_MODE, diag);
    dure_buf_fini(&page);
    return err;
}

static dure_err write_json(const char *path, const dure_statement *statement, dure_diag *diag)
{
    json_t *value = dure_statement_json(statement);
    if (!value) return DURE_ERR_NOMEM;
    dure_err err = dure_json_write(path, value, FILE_MODE, diag);
    json_decref(value);
    return err;
}

static dure_err write_statement(const report_args *args, const dure_audit *audit, bool verified,
                                const dure_statement_facts *facts, dure_diag *diag)
{
    dure_statement *statement = NULL;
    dure_err err = dure_statement_new(&statement, audit->export_, &audit->report, verified, facts);
    if (!err) err = write_html(args->html, statement, diag);
    if (!err && args->json) err = write_json(args->json, statement, diag);
    dure_statement_free(&statement);
    return err;
}

/* The facts around the log, then both files. */
static dure_err report(const report_args *args, const dure_audit *audit, bool verified,
                       const json_t *canary, dure_diag *diag)
{
    const dure_roster *roster = audit->federation.roster;
    const char *slash = strrchr(args->source.file, '/');
    dure_statement_terms terms;
    dure_statement_facts facts = {.file = slash ? slash + 1 : args->source.file,
                                  .now_s = dure_clock_wall_s(),
                                  .program = "dure " DURE_VERSION,
                                  .canary = canary};
    dure_err err = dure_hash_bytes(&facts.digest, dure_buf_span(&audit->bytes));
    if (err) return err;
    size_t n = verified && roster ? dure_roster_count(roster) : 0;
    dure_statement_site *sites = calloc(n + 1, sizeof *sites);
    if (!sites) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        sites[i] = site_of(dure_roster_at(roster, i));
    facts.sites = sites;
    facts.n_sites = n;
    if (verified && audit->federation.terms) {
        terms = terms_of(audit->federation.terms);
        facts.terms = &terms;
    }
    err = write_statement(args, audit, verified, &facts, diag);
    free(sites);
    return err;
}

/* What the statement takes from it has to be there: an empty object would read as a good result. */
static dure_err read_canary(json_t **out, const char *path, dure_diag *diag)
{
    static const char *const numbers[] = {"canaries", "confidence", "epsilon_claimed"};
    dure_err err = dure_json_read(out, path, CANARY_MAX_BYTES, diag);
    if (err) return err;
    const json_t *lower = json_object_get(*out, "epsilon_lower");
    bool whole = json_is_boolean(json_object_get(*out, "holds")) &&
                 (json_is_number(lower) || json_is_null(lower));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        whole = whole && json_is_number(json_object_get(*out, numbers[i]));
    if (whole) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_FORMAT,
                         "%s is not what 'dure audit canary --json' prints; run it again and give "
                         "its output",
                         path);
}

static int run_report(const report_args *args, const dure_usage *usage)
{
    dure_diag diag = {0}, why = {0};
    dure_audit audit = {0};
    json_t *canary = NULL;
    int status = 0;
    dure_err found = DURE_OK, err = DURE_OK;
    if (args->canary) err = read_canary(&canary, args->canary, &diag);
    if (!err) found = dure_audit_open(&audit, &args->source, &why);
    if (found == DURE_ERR_USAGE) return dure_args_refuse(usage, "%s", why.text);
    /* A file that could not be read at all is no ledger to report on. */
    if (audit.bytes.n > 0) err = report(args, &audit, found == DURE_OK, canary, &diag);
    if (err)
        status = dure_fail("audit report", err, &diag);
    else if (found)
        status = dure_fail("audit report", found, &why);
    else
        fprintf(stderr, "The privacy statement is in %s.\n", args->html);
    dure_audit_close(&audit);
    json_decref(canary);
    return status;
}

int dure_cmd_audit_report(int argc, char **argv)
{
    report_args r = {0};
    const dure_arg args[] = {
        dure_audit_file_arg(&r.source),
        OPTION(TEXT, "out", r.html, "FILE", "where to write the page (HTML, self-contained)",
               .required = true, .letter = 'o'),
        OPTION(TEXT, "json", r.json, "FILE", "where to write the same as JSON"),
        dure_audit_checkpoint_arg(&r.source),
        dure_audit_root_arg(&r.source),
        OPTION(TEXT, "canary", r.canary, "FILE",
               "what `dure audit canary --json` printed, to be included"),
    };
    const dure_usage usage = {"audit report",
                              "verifies an exported ledger and writes the privacy statement that "
                              "follows from it: what is "
                              "guaranteed, what was spent and released, what is not covered",
                              args, N_ARGS(args),
                              "dure audit report fed.dure -o fed.html --json fed.json"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    if (!strcmp(r.html, r.source.file) ||
        (r.json && (!strcmp(r.json, r.html) || !strcmp(r.json, r.source.file))))
        return dure_args_refuse(&usage, "--out and --json must be two files, and neither FILE");
    return run_report(&r, &usage);
}
