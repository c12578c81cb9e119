/* dure status: one screen of a federation's coordinator: rounds, sites, what is waited for. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/federation.h"
#include "cli/output.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "coordinator/folder.h"
#include "coordinator/store.h"
#include "dp/calibrate.h"
#include "dp/plan.h"
#include "federation/plan.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

enum {
    SHOWN_ROUNDS = 10, /* of the last ones; --json has them all */
    LATE_S = 60,       /* a coordinator says at least every 10 s that it is alive */
};

typedef struct view {
    dure_settings settings;
    dure_roster *roster;
    dure_store_facts facts;
    dure_round_row *rounds;
    size_t n_rounds;
    json_t *live; /* status.json; NULL: it never ran */
    bool running;
    size_t n_inbox;      /* revocations that it has not taken up */
    uint64_t free_bytes; /* on the folder's disk */
} view;

/* Running is who holds the folder's lock. */
static bool is_running(const char *dir)
{
    char *path = dure_path_join(dir, DURE_FOLDER_LOCK);
    dure_lock lock;
    bool held = false;
    if (path && dure_file_exists(path)) {
        held = dure_lock_acquire(&lock, path, NULL) == DURE_ERR_BUSY;
        if (!held) dure_lock_release(&lock);
    }
    free(path);
    return held;
}

static size_t count_inbox(const char *dir)
{
    char *path = dure_path_join(dir, DURE_FOLDER_INBOX);
    DIR *inbox = path ? opendir(path) : NULL;
    const struct dirent *entry;
    size_t n = 0;
    while (inbox && (entry = readdir(inbox)))
        n += entry->d_name[0] != '.';
    if (inbox) closedir(inbox);
    free(path);
    return n;
}

static bool is_site(const char *dir)
{
    char *path = dure_path_join(dir, "site.yaml");
    const bool there = path && dure_file_exists(path);
    free(path);
    return there;
}

static dure_err view_open(view *v, const char *dir, dure_diag *diag)
{
    dure_store *store = NULL;
    char *settings = dure_path_join(dir, DURE_FOLDER_SETTINGS);
    char *status = dure_path_join(dir, DURE_FOLDER_STATUS);
    dure_err err = settings && status ? DURE_OK : DURE_ERR_NOMEM;
    if (!err && is_site(dir))
        err = dure_diag_set(diag, DURE_ERR_USAGE,
                            "%s is a site's folder: 'dure privacy status' shows what it has spent, "
                            "'dure client check %s' the plan while 'dure client run' is stopped",
                            dir, dir);
    else if (!err && !dure_file_exists(settings))
        err =
            dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                          "%s is no federation's folder: name the one that 'dure init' made", dir);
    if (!err) err = dure_settings_read(&v->settings, settings, diag);
    if (!err) err = dure_folder_roster_read(&v->roster, dir, v->settings.root_public, diag);
    if (!err) err = dure_store_open_read(&store, dir, diag);
    if (!err) err = dure_store_facts_get(&v->facts, store, diag);
    if (!err) err = dure_store_rounds(&v->rounds, &v->n_rounds, store, diag);
    if (!err && dure_file_exists(status)) err = dure_json_read(&v->live, status, 1 << 20, diag);
    struct statvfs disk;
    v->free_bytes = statvfs(dir, &disk) ? UINT64_MAX : (uint64_t)disk.f_bavail * disk.f_frsize;
    v->n_inbox = count_inbox(dir);
    v->running = is_running(dir);
    dure_store_close(&store);
    free(settings);
    free(status);
    return err;
}

static void view_close(view *v)
{
    dure_roster_free(&v->roster);
    free(v->rounds);
    json_decref(v->live);
}

/* An upper bound on what the rounds so far cost a site, from its public constants alone: rounds
 * that failed are counted too. Infinite without noise. */
static double epsilon_of(const view *v, const dure_roster_member *m, uint64_t rounds)
{
    const dure_declared *d = &m->join.declared;
    double epsilon = 0;
    if (rounds == 0) return 0;
    const dure_dp_plan plan = dure_federation_plan(&v->settings.terms, d, rounds);
    const double delta = dure_federation_delta(&v->settings.terms, d);
    return dure_calibrate_epsilon(&epsilon, &plan, NULL, delta) ? INFINITY : epsilon;
}

/* Of entry `i` of the roster; a name may come again, after its renewal. */
static const json_t *live_site(const view *v, size_t i)
{
    return v->running ? json_array_get(json_object_get(v->live, "sites"), i) : NULL;
}

/* A later entry has the name: new keys. */
static bool is_renewed(const view *v, size_t i)
{
    const char *name = dure_roster_at(v->roster, i)->join.invitation.name;
    for (size_t k = i + 1; k < dure_roster_count(v->roster); k++)
        if (strcmp(dure_roster_at(v->roster, k)->join.invitation.name, name) == 0) return true;
    return false;
}

/* What every epsilon here is for one of, more or less. */
static const char *unit_of(const view *v)
{
    switch (v->settings.terms.training.privacy_mode) {
    case DURE_PRIVACY_RECORD:
        return "record";
    case DURE_PRIVACY_SUBJECT:
        return "subject";
    case DURE_PRIVACY_CLIENT:
        return "site";
    default:
        return "none";
    }
}

/* What a site's public number counts. */
static const char *counted_of(const view *v)
{
    bool subjects = v->settings.terms.training.privacy_mode == DURE_PRIVACY_SUBJECT;
    return subjects ? "subject" : "record";
}

static json_t *sites_json(const view *v)
{
    json_t *list = json_array();
    for (size_t i = 0; i < dure_roster_count(v->roster); i++) {
        const dure_roster_member *m = dure_roster_at(v->roster, i);
        const json_t *live = live_site(v, i);
        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:b, s:b, s:I, s:o, s:o, s:f, s:I}", "name",
                      m->join.invitation.name, "organisation", m->join.invitation.organisation,
                      "revoked", m->revoked, "here", json_is_true(json_object_get(live, "here")),
                      "records", (json_int_t)m->join.declared.n_pub, "epsilon_charged",
                      dure_json_from_double(epsilon_of(v, m, v->n_rounds)), "epsilon_planned",
                      dure_json_from_double(epsilon_of(v, m, v->settings.terms.training.rounds)),
                      "delta", dure_federation_delta(&v->settings.terms, &m->join.declared),
                      "bytes_received",
                      json_integer_value(json_object_get(live, "bytes_received"))));
    }
    return list;
}

static json_t *rounds_json(const view *v)
{
    json_t *list = json_array();
    for (size_t i = 0; i < v->n_rounds; i++) {
        const dure_round_row *r = &v->rounds[i];
        json_array_append_new(
            list, json_pack("{s:I, s:s, s:I, s:I, s:I, s:I, s:s}", "round", (json_int_t)r->round,
                            "status", dure_stored_status_text(r->status), "sites",
                            (json_int_t)r->n_survivors, "of", (json_int_t)r->n_members, "opened",
                            (json_int_t)r->opened_s, "closed", (json_int_t)r->closed_s, "reason",
                            r->reason));
    }
    return list;
}

static const char *waiting_for(const view *v)
{
    const char *waiting = json_string_value(json_object_get(v->live, "waiting"));
    return v->running && waiting ? waiting : "";
}

static int print_json(const view *v)
{
    return dure_print_json(json_pack(
        "{s:s, s:s, s:s, s:b, s:s, s:I, s:I, s:o, s:o}", "federation", v->settings.terms.federation,
        "unit", unit_of(v), "endpoint", v->settings.endpoint, "running", v->running, "waiting",
        waiting_for(v), "rounds_done", (json_int_t)v->facts.n_done, "rounds_planned",
        (json_int_t)v->settings.terms.training.rounds, "sites", sites_json(v), "rounds",
        rounds_json(v)));
}

static void print_site(const view *v, size_t i)
{
    const dure_roster_member *m = dure_roster_at(v->roster, i);
    const json_t *live = live_site(v, i);
    const json_t *silent = json_object_get(live, "silent_seconds");
    const bool here = json_is_true(json_object_get(live, "here"));
    char bytes[32], charged[24] = "none", planned[24] = "none", silence[40] = "";
    const double now = epsilon_of(v, m, v->n_rounds);
    const double all = epsilon_of(v, m, v->settings.terms.training.rounds);
    if (isfinite(now)) snprintf(charged, sizeof charged, "%.2f", now);
    if (isfinite(all)) snprintf(planned, sizeof planned, "%.2f", all);
    dure_format_bytes(bytes, (uint64_t)json_integer_value(json_object_get(live, "bytes_received")));
    if (!here && json_is_real(silent))
        snprintf(silence, sizeof silence, "  silent for %.0f s", json_real_value(silent));
    else if (!here && live)
        snprintf(silence, sizeof silence, "  not seen since the start");
    printf("  %-16s %-16s %-8s %8llu   %6s of %-6s  %9s%s\n", m->join.invitation.name,
           m->join.invitation.organisation,
           m->revoked    ? "revoked"
           : here        ? "here"
           : !v->running ? "-"
                         : "away",
           (unsigned long long)m->join.declared.n_pub, charged, planned, live ? bytes : "-",
           m->revoked ? "" : silence);
}

static void print_coordinator(const view *v, const char *dir)
{
    const int64_t updated = json_integer_value(json_object_get(v->live, "updated"));
    const int64_t age_s = dure_clock_wall_s() - updated;
    char when[DURE_CLOCK_TEXT_SIZE], there[32], needed[32];
    dure_clock_text(when, updated);
    /* What a round puts on disk: each site's vector, their sum, and the adapter. */
    const uint64_t round_bytes =
        4 * v->settings.terms.layout.n_params +
        (3 * (uint64_t)dure_roster_in_force(v->roster) + 4) * v->settings.terms.layout.n_active;
    if (v->running)
        printf("coordinator %s\n", v->live ? waiting_for(v) : "starting");
    else if (v->live)
        printf("coordinator not running since %s: 'dure coordinator run %s'\n", when, dir);
    else
        printf("coordinator has not run yet: 'dure coordinator run %s'\n", dir);
    if (v->running && v->live && age_s > LATE_S)
        printf("            it has said nothing for %lld s: the machine is overloaded, its disk "
               "hangs, or its clock jumped\n",
               (long long)age_s);
    if (v->n_inbox && !v->running)
        printf("            revocations that wait in %s/%s until it runs: %zu\n", dir,
               DURE_FOLDER_INBOX, v->n_inbox);
    dure_format_bytes(there, v->free_bytes);
    dure_format_bytes(needed, round_bytes);
    if (v->free_bytes < round_bytes + (1 << 20))
        printf("disk        %s free, a round needs %s: free some space\n", there, needed);
}

static void print_rounds(const view *v)
{
    const size_t from = v->n_rounds > SHOWN_ROUNDS ? v->n_rounds - SHOWN_ROUNDS : 0;
    printf("rounds      %llu of %u done\n", (unsigned long long)v->facts.n_done,
           v->settings.terms.training.rounds);
    if (from) printf("  ...   %zu earlier ones: 'dure status --json' has them\n", from);
    for (size_t i = from; i < v->n_rounds; i++) {
        const dure_round_row *r = &v->rounds[i];
        char when[DURE_CLOCK_TEXT_SIZE], sites[40];
        dure_clock_text(when, r->opened_s);
        if (r->status == DURE_STORED_DONE)
            snprintf(sites, sizeof sites, "%u of %u sites", r->n_survivors, r->n_members);
        else
            snprintf(sites, sizeof sites, "%u sites", r->n_members);
        printf("  %4llu  %-7s %s  %s%s%s\n", (unsigned long long)r->round,
               dure_stored_status_text(r->status), when, sites, r->reason[0] ? ": " : "",
               r->reason);
    }
}

static int print_words(const view *v, const char *dir)
{
    printf("federation  %s, %s\n", v->settings.terms.federation, v->settings.endpoint);
    print_coordinator(v, dir);
    print_rounds(v);
    const dure_terms *t = &v->settings.terms;
    if (t->training.privacy_mode == DURE_PRIVACY_NONE)
        printf("privacy     none: this federation trains without differential privacy\n");
    else if (t->training.privacy_mode == DURE_PRIVACY_CLIENT)
        printf("privacy     each epsilon is for one site's whole update or none, while at least %u "
               "honest sites share the noise of every sum, at delta %.3g\n",
               t->cohort.u_min - t->cohort.collusion, t->training.delta);
    else
        printf("privacy     each epsilon is for one %s more or less, at delta 1/(10 %ss)\n",
               unit_of(v), counted_of(v));
    printf("%-44s%8ss  %-16s   %s\n", "sites", counted_of(v), "epsilon of plan", " received");
    for (size_t i = 0; i < dure_roster_count(v->roster); i++)
        if (!is_renewed(v, i)) print_site(v, i);
    if (dure_roster_count(v->roster) == 0)
        fprintf(stderr, "No site has joined yet: 'dure invite' makes an invitation.\n");
    return 0;
}

int dure_cmd_status(int argc, char **argv)
{
    const char *given = NULL;
    bool json = false;
    const dure_arg args[] = {
        OPERAND("DIR", given, "the federation's folder, or DIR/coordinator", .required = true),
        dure_json_arg(&json),
    };
    const dure_usage usage = {"status", "rounds, sites, budgets and what is waited for", args,
                              N_ARGS(args), "dure status fed"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    view *v = calloc(1, sizeof *v);
    char *dir = dure_federation_part(given, "coordinator");
    dure_diag diag = {{0}};
    dure_err err = v && dir ? view_open(v, dir, &diag) : DURE_ERR_NOMEM;
    int status = err ? dure_fail("status", err, &diag) : json ? print_json(v) : print_words(v, dir);
    if (v) view_close(v);
    free(v);
    free(dir);
    return status;
}
