#include "verdict.h"

#include "common/file.h"
#include "federation/global_adapter.h"
#include "federation/server_step.h"
#include "ledger/leaf_log.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct court {
    village *v;
    const dure_terms *terms;
    size_t n_words;
    verdict_site sites[VILLAGE_MAX];
    dure_buf adapter; /* after the last closed round */
    dure_hash digest; /* its */
    dure_event open;  /* of the round that is open */
    bool is_open;
    uint64_t last_round;
    verdict_rounds rounds;
    char *why;
} court;

static bool wrong(court *c, const char *what, uint64_t round)
{
    snprintf(c->why, 256, "round %llu: %s", (unsigned long long)round, what);
    return false;
}

/* The number of a site by its name, "site3". */
static uint32_t site_number(const char *name)
{
    return (uint32_t)strtoul(name + 4, NULL, 10);
}

/* ---- the sum and the adapter ---- */

static bool add_updates(int32_t *sum, uint32_t *n_sites, court *c, const dure_event_round *round)
{
    for (uint32_t m = 0; m < round->n_members; m++) {
        const dure_event_member *member = &round->members[m];
        const verdict_part *part =
            verdict_site_part(&c->sites[site_number(member->name)], &round->h_c);
        if (part && part->left && member->part == DURE_PART_NONE)
            return wrong(c, "a member whose vector left is not charged", round->round);
        if (member->part != DURE_PART_SUMMED) continue;
        if (!part || !part->units || !part->left)
            return wrong(c, "a member is summed that sent nothing", round->round);
        for (size_t i = 0; i < c->n_words; i++)
            sum[i] += part->units[i];
        ++*n_sites;
    }
    return true;
}

static bool check_sum(court *c, const dure_event_round *round)
{
    int32_t *sum = calloc(c->n_words, sizeof *sum);
    uint8_t *bytes = malloc(4 * c->n_words);
    dure_buf next = {0};
    dure_hash digest;
    uint32_t n_sites = 0;
    if (!sum || !bytes) abort();
    bool good = add_updates(sum, &n_sites, c, round);
    dure_server_step_sum_put(bytes, sum, c->n_words);
    if (good && (dure_hash_bytes(&digest, dure_span_of(bytes, 4 * c->n_words)) ||
                 !dure_hash_equal(&digest, &round->result)))
        good = wrong(c, "the sum is not that of the updates", round->round);
    if (good && !dure_hash_equal(&round->adapter_in, &c->digest))
        good = wrong(c, "it does not start from the adapter before", round->round);
    if (good && (dure_global_adapter_next(&next, c->terms, dure_buf_span(&c->adapter), sum, n_sites,
                                          NULL) ||
                 dure_hash_bytes(&digest, dure_buf_span(&next)) ||
                 !dure_hash_equal(&digest, &round->adapter_out)))
        good = wrong(c, "the adapter does not follow from the sum", round->round);
    if (good) {
        dure_buf_fini(&c->adapter);
        c->adapter = next;
        c->digest = digest;
        c->rounds.partial += n_sites < round->n_members;
    } else {
        dure_buf_fini(&next);
    }
    free(sum);
    free(bytes);
    return good;
}

/* ---- the log ---- */

static bool check_aborted(court *c, const dure_event_round *round)
{
    for (uint32_t m = 0; m < round->n_members; m++) {
        const dure_event_member *member = &round->members[m];
        const verdict_part *part =
            verdict_site_part(&c->sites[site_number(member->name)], &round->h_c);
        if (part && part->left && member->part == DURE_PART_NONE)
            return wrong(c, "it was aborted, and a member whose vector left is not charged",
                         round->round);
    }
    return true;
}

static bool on_event(court *c, const dure_event *event)
{
    const dure_event_round *round = &event->u.round;
    switch (event->kind) {
    case DURE_EVENT_OPENED:
        if (c->is_open) return wrong(c, "opened while another was open", round->round);
        if (round->round <= c->last_round) return wrong(c, "its number is not new", round->round);
        c->open = *event;
        c->is_open = true;
        c->last_round = round->round;
        return true;
    case DURE_EVENT_CLOSED:
    case DURE_EVENT_ABORTED:
        if (!c->is_open || !dure_hash_equal(&c->open.u.round.h_c, &round->h_c))
            return wrong(c, "ended twice, or without having been opened", round->round);
        c->is_open = false;
        if (event->kind == DURE_EVENT_ABORTED) {
            c->rounds.aborted++;
            return check_aborted(c, round);
        }
        c->rounds.closed++;
        return check_sum(c, round);
    default:
        return true;
    }
}

static bool read_log(court *c)
{
    dure_leaf_log *log = NULL;
    dure_event *event = calloc(1, sizeof *event);
    bool good =
        event && !dure_leaf_log_open(&log, temp_dir_file(&c->v->dir, "fed/coordinator/ledger"),
                                     DURE_LEAF_LOG_READ, NULL);
    if (!good) snprintf(c->why, 256, "the coordinator's log cannot be opened");
    for (uint64_t i = 0; good && i < dure_leaf_log_size(log); i++) {
        dure_buf leaf;
        good = !dure_leaf_log_read(&leaf, log, i, NULL) &&
               !dure_event_decode(event, dure_buf_span(&leaf), NULL);
        if (good)
            good = on_event(c, event);
        else
            snprintf(c->why, 256, "leaf %llu cannot be read", (unsigned long long)i);
        dure_buf_fini(&leaf);
    }
    dure_leaf_log_close(&log);
    free(event);
    return good;
}

/* ---- the sites' ledgers ---- */

/* The rounds that a ledger says were paid, whose steps follow each other. */
static bool read_uses(uint64_t *rounds, size_t *n, court *c, uint32_t site)
{
    char name[32];
    dure_buf text;
    int64_t to = 0;
    bool good = true;
    *n = 0;
    snprintf(name, sizeof name, "ledger%u", site);
    if (dure_file_read(&text, temp_dir_file(&c->v->dir, name), 1 << 24, NULL)) return false;
    const char *line = (const char *)text.data, *end = line + text.n, *stop;
    for (; good && line < end && (stop = memchr(line, '\n', (size_t)(end - line)));
         line = stop + 1) {
        json_t *entry = json_loadb(line, (size_t)(stop - line), 0, NULL);
        const json_t *use = json_object_get(entry, "entry");
        const char *kind = json_string_value(json_object_get(use, "kind"));
        if (kind && strcmp(kind, "use") == 0 && *n < VERDICT_ROUNDS_MAX) {
            const int64_t from = json_integer_value(json_object_get(use, "from"));
            good = from >= to;
            to = json_integer_value(json_object_get(use, "to"));
            rounds[(*n)++] = (uint64_t)json_integer_value(json_object_get(use, "round"));
        }
        json_decref(entry);
    }
    dure_buf_fini(&text);
    return good;
}

typedef struct numbered {
    dure_hash config_hash;
    uint64_t round;
} numbered;

/* The numbers of the rounds that were opened. */
static size_t read_numbers(numbered *out, const court *c)
{
    dure_leaf_log *log = NULL;
    dure_event *event = calloc(1, sizeof *event);
    size_t n = 0;
    if (!event || dure_leaf_log_open(&log, temp_dir_file(&c->v->dir, "fed/coordinator/ledger"),
                                     DURE_LEAF_LOG_READ, NULL))
        abort();
    for (uint64_t i = 0; i < dure_leaf_log_size(log) && n < VERDICT_ROUNDS_MAX; i++) {
        dure_buf leaf;
        if (!dure_leaf_log_read(&leaf, log, i, NULL) &&
            !dure_event_decode(event, dure_buf_span(&leaf), NULL) &&
            event->kind == DURE_EVENT_OPENED)
            out[n++] = (numbered){event->u.round.h_c, event->u.round.round};
        dure_buf_fini(&leaf);
    }
    dure_leaf_log_close(&log);
    free(event);
    return n;
}

static bool is_paid(const uint64_t *rounds, size_t n, uint64_t round)
{
    for (size_t i = 0; i < n; i++)
        if (rounds[i] == round) return true;
    return false;
}

static bool check_ledgers(court *c)
{
    static numbered opened[VERDICT_ROUNDS_MAX];
    static uint64_t paid[VERDICT_ROUNDS_MAX];
    const size_t n_opened = read_numbers(opened, c);
    for (uint32_t s = 0; s < c->v->n; s++) {
        size_t n_paid;
        if (!read_uses(paid, &n_paid, c, s)) {
            snprintf(c->why, 256, "site%u's ledger uses steps twice, or cannot be read", s);
            return false;
        }
        for (size_t i = 0; i < n_opened; i++) {
            const verdict_part *part = verdict_site_part(&c->sites[s], &opened[i].config_hash);
            if (part && part->left && !is_paid(paid, n_paid, opened[i].round))
                return wrong(c, "a vector left that its site's ledger does not know",
                             opened[i].round);
        }
    }
    return true;
}

/* ---- all of it ---- */

static bool audit(court *c)
{
    if (village_run(c->v, "audit export fed/coordinator -o ledger.export") == 0 &&
        village_run(c->v, "audit verify ledger.export") == 0)
        return true;
    snprintf(c->why, 256, "the audit fails: %.200s", c->v->output);
    return false;
}

bool verdict(verdict_rounds *out, village *v, char why[256])
{
    court *c = calloc(1, sizeof *c);
    if (!c) abort();
    c->v = v;
    c->why = why;
    c->terms = &v->sites[0].invitation.terms;
    c->n_words = (size_t)c->terms->layout.n_active;
    village_first_adapter(v, &c->adapter);
    bool good = !dure_hash_bytes(&c->digest, dure_buf_span(&c->adapter));
    for (uint32_t i = 0; good && i < v->n; i++) {
        char name[16];
        snprintf(name, sizeof name, "log.%u", i);
        good = verdict_site_read(&c->sites[i], temp_dir_file(&v->dir, name), c->n_words, why);
    }
    if (good) good = read_log(c) && check_ledgers(c) && audit(c);
    *out = c->rounds;
    for (uint32_t i = 0; i < v->n; i++)
        verdict_site_fini(&c->sites[i]);
    dure_buf_fini(&c->adapter);
    free(c);
    return good;
}

/* ---- one round ---- */

void verdict_closed(dure_event *out, village *v, unsigned n)
{
    dure_leaf_log *log = NULL;
    assert_ok(dure_leaf_log_open(&log, temp_dir_file(&v->dir, "fed/coordinator/ledger"),
                                 DURE_LEAF_LOG_READ, NULL));
    for (uint64_t i = 0; n && i < dure_leaf_log_size(log); i++) {
        dure_buf leaf;
        assert_ok(dure_leaf_log_read(&leaf, log, i, NULL));
        assert_ok(dure_event_decode(out, dure_buf_span(&leaf), NULL));
        if (out->kind == DURE_EVENT_CLOSED) n--;
        dure_buf_fini(&leaf);
    }
    dure_leaf_log_close(&log);
    assert_int_equal(n, 0);
}

bool verdict_is_summed(const dure_event_round *round, uint32_t site)
{
    for (uint32_t m = 0; m < round->n_members; m++)
        if (site_number(round->members[m].name) == site)
            return round->members[m].part == DURE_PART_SUMMED;
    return false;
}

void verdict_one_upload(village *v, uint32_t site, const dure_hash *config_hash)
{
    char name[16], why[256];
    verdict_site sent;
    snprintf(name, sizeof name, "log.%u", site);
    if (!verdict_site_read(&sent, temp_dir_file(&v->dir, name),
                           (size_t)v->sites[0].invitation.terms.layout.n_active, why))
        fail_msg("%s", why);
    const verdict_part *part = verdict_site_part(&sent, config_hash);
    assert_non_null(part);
    if (part->n_sent[0] != 1)
        fail_msg("site%u: the first chunk was sent %u times", site, part->n_sent[0]);
    verdict_site_fini(&sent);
}
