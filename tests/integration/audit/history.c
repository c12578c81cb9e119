#include "history.h"

#include "common/file.h"
#include "coordinator/folder.h"
#include "ledger/cosign.h"
#include "support/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/* In the order of their names, as rosters and rounds have them. */
static const char *const names[HISTORY_SITES] = {"busan-port", "daegu-hospital", "jeju-clinic",
                                                 "seoul-hospital", "ulsan-works"};
static const char *const organisations[HISTORY_SITES] = {
    "Busan-Port-Authority", "Daegu-Medical", "Jeju-Health", "Daegu-Medical", "Ulsan-Works"};

static void append(history *h, dure_event_kind kind)
{
    dure_diag diag = {{0}};
    h->event->kind = kind;
    h->event->time_s = h->now_s;
    if (dure_journal_append(NULL, h->journal, h->event, &diag)) fail_msg("%s", diag.text);
    memset(h->event, 0, sizeof *h->event);
}

static void append_genesis(history *h)
{
    dure_event_genesis *g = &h->event->u.genesis;
    snprintf(g->federation, sizeof g->federation, "%s", h->federation.terms.federation);
    assert_ok(dure_federation_id(&g->federation_id, h->federation.root.public_, g->federation));
    assert_ok(dure_terms_hash(&g->terms, &h->federation.terms));
    memcpy(g->root_public, h->federation.root.public_, 32);
    memcpy(g->coordinator_sign, h->federation.coordinator_sign.public_, 32);
    g->collusion = h->federation.terms.cohort.collusion;
    append(h, DURE_EVENT_GENESIS);
}

static void append_roster(history *h)
{
    dure_event_roster *r = &h->event->u.roster;
    r->size = dure_roster_entries(h->roster);
    r->head = dure_roster_head(h->roster);
    for (size_t i = 0; i < HISTORY_SITES; i++) {
        const dure_roster_member *member = dure_roster_by_name(h->roster, names[i]);
        if (!member) continue;
        dure_site_key *site = &r->sites[r->n_sites++];
        snprintf(site->name, sizeof site->name, "%s", names[i]);
        memcpy(site->sign_public, member->join.sign_public, 32);
    }
    append(h, DURE_EVENT_ROSTER);
    assert_ok(dure_folder_roster_write(temp_dir_file(&h->dir, "fed/coordinator"), h->roster, NULL));
}

/* Sites differ in size, and so in noise. */
static void join(history *h, size_t i)
{
    static const uint64_t records[HISTORY_SITES] = {20000, 8000, 1200, 50000, 5000};
    static const uint32_t sigma_num[HISTORY_SITES] = {43000, 52000, 78000, 39000, 60000};
    fixture_site *site = &h->sites[i];
    dure_diag diag = {{0}};
    fixture_site_make(site, &h->federation, names[i]);
    dure_invitation *invitation = &site->join.invitation;
    snprintf(invitation->organisation, sizeof invitation->organisation, "%s", organisations[i]);
    invitation->expires_s = h->now_s + 86400;
    assert_ok(dure_invitation_sign(invitation, &site->invite, &h->federation.root, &diag));
    dure_dp_plan plan = {.mechanism = DURE_DP_POISSON_GAUSSIAN};
    assert_ok(dure_dp_plan_set_batch(&plan, 128, records[i], NULL));
    site->join.declared = (dure_declared){.n_pub = records[i],
                                          .q_k = plan.q_k,
                                          .batch = 128,
                                          .sigma_num = sigma_num[i],
                                          .sigma_den = DURE_DP_SIGMA_DEN};
    assert_ok(dure_join_sign(&site->join, &site->invite, &site->own, &diag));
    if (dure_roster_add(h->roster, &site->join, h->now_s + (int64_t)i * 3600, &diag))
        fail_msg("%s", diag.text);
}

static void begin(history *h, bool post_quantum)
{
    memset(h, 0, sizeof *h);
    h->now_s = 1772000000;
    temp_dir_make(&h->dir);
    fixture_make(&h->federation);
    dure_terms *terms = &h->federation.terms;
    snprintf(terms->federation, sizeof terms->federation, "coast-hospitals");
    terms->training.rounds = 20;
    terms->training.steps = 5;
    terms->training.batch = 128;
    terms->cohort.min_sites = 4;
    terms->cohort.post_quantum = post_quantum;
    h->event = calloc(1, sizeof *h->event);
    assert_non_null(h->event);
    assert_ok(dure_dir_make(temp_dir_file(&h->dir, "fed/coordinator"), NULL));
    assert_ok(dure_journal_open(&h->journal, temp_dir_file(&h->dir, "fed/coordinator/ledger"),
                                DURE_LEAF_LOG_WRITE, NULL));
    assert_ok(dure_roster_new(&h->roster, h->federation.root.public_));
    append_genesis(h);
    for (size_t i = 0; i < HISTORY_SITES; i++)
        join(h, i);
    h->now_s += 86400;
    append_roster(h);
}

void history_begin(history *h)
{
    begin(h, false);
}

void history_begin_hybrid(history *h)
{
    begin(h, true);
}

void history_end(history *h)
{
    dure_journal_close(&h->journal);
    dure_roster_free(&h->roster);
    free(h->event);
    temp_dir_remove(&h->dir);
}

/* ---- rounds ---- */

static void fill_members(history *h, dure_event_round *r)
{
    const dure_training_terms *t = &h->federation.terms.training;
    for (size_t i = 0; i < HISTORY_SITES; i++) {
        if (!dure_roster_by_name(h->roster, names[i])) continue;
        const dure_declared *d = &h->sites[i].join.declared;
        dure_event_member *m = &r->members[r->n_members++];
        snprintf(m->name, sizeof m->name, "%s", names[i]);
        memcpy(m->sign_public, h->sites[i].own.public_, 32);
        m->plan = (dure_dp_plan){.mechanism = DURE_DP_POISSON_GAUSSIAN,
                                 .q_k = d->q_k,
                                 .sigma_num = d->sigma_num,
                                 .clip = t->clip,
                                 .grid_bits = t->grid_bits,
                                 .steps = t->steps,
                                 .n_pub = d->n_pub,
                                 .batch = d->batch};
    }
}

/* Everything that an OPENED leaf and the leaf of its end have in common. */
static void fill_round(history *h)
{
    dure_event_round *r = &h->event->u.round;
    const dure_cohort_terms *cohort = &h->federation.terms.cohort;
    r->run_id = 1;
    r->round = h->round;
    memset(r->h_c.b, (int)h->round, sizeof r->h_c.b);
    r->roster_size = dure_roster_entries(h->roster);
    r->roster_head = dure_roster_head(h->roster);
    r->checkpoint_n = h->cited;
    r->privacy_mode = h->federation.terms.training.privacy_mode;
    r->base = h->federation.terms.base.digest;
    r->adapter_in = h->adapter;
    fill_members(h, r);
    r->sum = (dure_event_sum){.suite = h->suite               ? h->suite
                                       : cohort->post_quantum ? 2
                                                              : 1,
                              .threshold = dure_terms_threshold(r->n_members, cohort->collusion),
                              .u_min = cohort->u_min,
                              .collusion = cohort->collusion,
                              .n_words = (uint32_t)h->federation.terms.layout.n_active,
                              .word_bits = 24};
}

void history_round_open(history *h)
{
    h->round++;
    h->now_s += 21600;
    h->cited = dure_journal_newest(h->journal); /* all of them are cosigned by everybody */
    fill_round(h);
    append(h, DURE_EVENT_OPENED);
}

void history_round_close(history *h, uint32_t n_missing, double loss_before, double loss_after)
{
    dure_event_round *r = &h->event->u.round;
    h->now_s += 10800;
    fill_round(h);
    memset(r->t3.b, 3, sizeof r->t3.b);
    memset(r->result.b, 0x55, sizeof r->result.b);
    memset(r->adapter_out.b, 0x80 + (int)h->round, sizeof r->adapter_out.b);
    r->gate =
        (dure_event_gate){loss_after < loss_before ? DURE_VERDICT_PASSED : DURE_VERDICT_FAILED, 400,
                          loss_before, loss_after};
    for (uint32_t i = 0; i < r->n_members; i++)
        r->members[i].part = i + n_missing < r->n_members ? DURE_PART_SUMMED : DURE_PART_UPLOADED;
    h->adapter = r->adapter_out;
    append(h, DURE_EVENT_CLOSED);
    history_cosign(h);
}

void history_round_abort(history *h, uint32_t n_charged, const char *reason)
{
    dure_event_round *r = &h->event->u.round;
    h->now_s += 7200;
    fill_round(h);
    for (uint32_t i = 0; i < n_charged; i++)
        r->members[i].part = DURE_PART_UPLOADED;
    snprintf(r->reason, sizeof r->reason, "%s", reason);
    append(h, DURE_EVENT_ABORTED);
}

void history_release(history *h, dure_event_kind kind, uint64_t round, const char *reason)
{
    dure_event_release *release = &h->event->u.release;
    h->now_s += 600;
    release->run_id = 1;
    release->round = round;
    memset(release->adapter.b, 0x80 + (int)round, sizeof release->adapter.b);
    snprintf(release->reason, sizeof release->reason, "%s", reason);
    append(h, kind);
}

void history_revoke(history *h, size_t site)
{
    dure_revocation revocation = {.revoked_s = h->now_s};
    memcpy(revocation.invite_public, h->sites[site].invite.public_, 32);
    assert_ok(dure_revocation_sign(&revocation, &h->federation.root));
    assert_ok(dure_roster_revoke(h->roster, &revocation, NULL));
    append_roster(h);
}

void history_cosign(history *h)
{
    dure_buf text;
    dure_note *note = calloc(1, sizeof *note);
    assert_non_null(note);
    dure_buf_init(&text, DURE_NOTE_MAX);
    assert_ok(dure_journal_checkpoint(&text, h->journal, &h->federation.coordinator_sign, NULL));
    assert_ok(dure_note_parse(note, dure_buf_span(&text), NULL));
    for (size_t i = 0; i < HISTORY_SITES; i++) {
        dure_cosignature c;
        if (!dure_roster_by_name(h->roster, names[i])) continue;
        assert_ok(
            dure_cosign(&c, &note->checkpoint, (uint64_t)h->now_s + 60 + i, &h->sites[i].own));
        dure_site_key site = {.name = ""};
        snprintf(site.name, sizeof site.name, "%s", names[i]);
        memcpy(site.sign_public, h->sites[i].own.public_, 32);
        assert_ok(dure_journal_cosign(h->journal, note->checkpoint.head.n, &site, &c, NULL));
    }
    assert_ok(
        dure_file_write_atomic(temp_dir_file(&h->dir, "seen"), dure_buf_span(&text), 0600, NULL));
    free(note);
    dure_buf_fini(&text);
}

/* ---- commands ---- */

int history_run(history *h, const char *format, ...)
{
    char arguments[1024], command[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(arguments, sizeof arguments, format, args);
    va_end(args);
    snprintf(command, sizeof command, "cd '%s' && '%s' %s 2>&1", h->dir.path, DURE_BINARY,
             arguments);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    size_t n = fread(h->output, 1, sizeof h->output - 1, p);
    h->output[n] = '\0';
    int status = pclose(p);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

void history_says(const history *h, const char *what)
{
    if (!strstr(h->output, what)) fail_msg("'%s' is not in: %s", what, h->output);
}
