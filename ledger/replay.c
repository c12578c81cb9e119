#include "ledger/replay.h"

#include "crypto/wipe.h"
#include "dp/accountant_rdp.h"
#include "dp/calibrate.h"
#include "dp/membership.h"

#include <stdlib.h>
#include <string.h>

/* One member. Steps of equal parameters are added up before the accountant sees them, which keeps
 * the replay of many rounds cheap. */
typedef struct account {
    char name[DURE_EVENT_NAME_SIZE];
    uint8_t sign_public[32];
    uint64_t rounds;
    uint64_t n_pub;        /* of the latest plan */
    dure_dp_plan *charges; /* distinct but for .steps, which holds all of them */
    size_t n_charges, charges_capacity;
} account;

/* An adapter that releases and later rounds may refer to: what a CLOSED leaf made, or, as round 0,
 * what a run started from. */
typedef struct product {
    uint64_t run_id, round;
    dure_hash adapter;
} product;

struct dure_replay {
    uint64_t n; /* events so far */
    bool has_genesis;
    dure_event_genesis genesis;
    dure_event_roster *roster; /* NULL before the first */
    account *accounts;
    size_t n_accounts, accounts_capacity;
    dure_event_round **open; /* opened and not ended */
    size_t n_open, open_capacity;
    product *products;
    size_t n_products, products_capacity;
    uint64_t last_round;
    bool any_round;
    dure_replay_totals totals;
    double site_delta;
};

dure_err dure_replay_new(dure_replay **out)
{
    *out = calloc(1, sizeof **out);
    if (!*out) return DURE_ERR_NOMEM;
    (*out)->site_delta = DURE_DP_SITE_DELTA_MAX;
    return DURE_OK;
}

void dure_replay_set_site_delta(dure_replay *replay, double delta)
{
    replay->site_delta = delta;
}

void dure_replay_free(dure_replay **replay)
{
    if (!replay || !*replay) return;
    dure_replay *r = *replay;
    for (size_t i = 0; i < r->n_accounts; i++)
        free(r->accounts[i].charges);
    for (size_t i = 0; i < r->n_open; i++)
        free(r->open[i]);
    free(r->accounts);
    free(r->open);
    free(r->products);
    free(r->roster);
    free(r);
    *replay = NULL;
}

/* Makes room for one more element of `size` bytes. */
static dure_err make_room(void **array, size_t n, size_t *capacity, size_t size)
{
    if (n < *capacity) return DURE_OK;
    size_t wanted = *capacity ? *capacity * 2 : 16;
    void *grown = realloc(*array, wanted * size);
    if (!grown) return DURE_ERR_NOMEM;
    *array = grown;
    *capacity = wanted;
    return DURE_OK;
}

/* ---- Charging ---- */

static account *find_account(const dure_replay *replay, const char *name)
{
    for (size_t i = 0; i < replay->n_accounts; i++) {
        if (!strcmp(replay->accounts[i].name, name)) return &replay->accounts[i];
    }
    return NULL;
}

/* The member's account, made if it has none yet. Accounts go by name: a site that renewed its keys
 * still has the same records. */
static dure_err account_of(account **out, dure_replay *replay, const dure_event_member *member)
{
    *out = find_account(replay, member->name);
    if (!*out) {
        void *array = replay->accounts;
        dure_err err = make_room(&array, replay->n_accounts, &replay->accounts_capacity,
                                 sizeof *replay->accounts);
        replay->accounts = array;
        if (err) return err;
        *out = &replay->accounts[replay->n_accounts++];
        **out = (account){.rounds = 0};
        memcpy((*out)->name, member->name, sizeof(*out)->name);
    }
    memcpy((*out)->sign_public, member->sign_public, 32);
    (*out)->n_pub = member->plan.n_pub;
    return DURE_OK;
}

static dure_err charge(dure_replay *replay, const dure_event_member *member)
{
    account *to = NULL;
    dure_err err = account_of(&to, replay, member);
    if (err) return err;
    to->rounds++;
    for (size_t i = 0; i < to->n_charges; i++) {
        if (!dure_dp_plan_same_step(&to->charges[i], &member->plan)) continue;
        to->charges[i].steps += member->plan.steps;
        return DURE_OK;
    }
    void *array = to->charges;
    err = make_room(&array, to->n_charges, &to->charges_capacity, sizeof *to->charges);
    to->charges = array;
    if (!err) to->charges[to->n_charges++] = member->plan;
    return err;
}

/* ---- What may follow what ---- */

static const dure_site_key *site_named(const dure_event_roster *roster, const char *name)
{
    for (uint32_t i = 0; roster && i < roster->n_sites; i++) {
        if (!strcmp(roster->sites[i].name, name)) return &roster->sites[i];
    }
    return NULL;
}

static bool is_product(const dure_replay *replay, const dure_hash *adapter)
{
    for (size_t i = 0; i < replay->n_products; i++) {
        if (dure_hash_equal(&replay->products[i].adapter, adapter)) return true;
    }
    return false;
}

static bool is_known_run(const dure_replay *replay, uint64_t run_id)
{
    for (size_t i = 0; i < replay->n_products; i++) {
        if (replay->products[i].run_id == run_id) return true;
    }
    return false;
}

static dure_err add_product(dure_replay *replay, product made)
{
    void *array = replay->products;
    dure_err err = make_room(&array, replay->n_products, &replay->products_capacity, sizeof made);
    replay->products = array;
    if (!err) replay->products[replay->n_products++] = made;
    return err;
}

static dure_err check_opened(const dure_replay *replay, const dure_event_round *round,
                             dure_diag *diag)
{
    unsigned long long run = round->run_id, number = round->round;
    const dure_event_roster *roster = replay->roster;
    if (!roster || roster->size != round->roster_size ||
        !dure_hash_equal(&roster->head, &round->roster_head)) {
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "round %llu was opened with a roster that is not the one in force",
                             number);
    }
    if (replay->any_round && round->round <= replay->last_round) {
        return dure_diag_set(diag, DURE_ERR_STATE, "round %llu was opened after round %llu", number,
                             (unsigned long long)replay->last_round);
    }
    /* A run may start from any adapter; later rounds of it go on from one that the log knows. */
    if (is_known_run(replay, round->run_id) && !is_product(replay, &round->adapter_in)) {
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "round %llu of run %llu starts from an adapter that no round made",
                             number, run);
    }
    for (uint32_t i = 0; i < round->n_members; i++) {
        const dure_event_member *member = &round->members[i];
        const dure_site_key *site = site_named(roster, member->name);
        if (!site || !dure_ct_equal(site->sign_public, member->sign_public, 32)) {
            return dure_diag_set(diag, DURE_ERR_STATE,
                                 "round %llu has the member %s, which the roster in force does not",
                                 number, member->name);
        }
    }
    return DURE_OK;
}

static dure_err take_opened(dure_replay *replay, const dure_event_round *round, dure_diag *diag)
{
    dure_err err = check_opened(replay, round, diag);
    if (err) return err;
    void *array = replay->open;
    err = make_room(&array, replay->n_open, &replay->open_capacity, sizeof *replay->open);
    replay->open = array;
    dure_event_round *copy = err ? NULL : malloc(sizeof *copy);
    if (!copy) return DURE_ERR_NOMEM;
    *copy = *round;
    replay->open[replay->n_open++] = copy;
    if (!is_known_run(replay, round->run_id)) {
        err = add_product(replay, (product){.run_id = round->run_id, .adapter = round->adapter_in});
        if (err) return err;
    }
    /* Whoever may be charged has an account, also when no round of it ever ends. */
    for (uint32_t i = 0; i < round->n_members; i++) {
        account *unused = NULL;
        err = account_of(&unused, replay, &round->members[i]);
        if (err) return err;
    }
    replay->last_round = round->round;
    replay->any_round = true;
    replay->totals.opened++;
    return DURE_OK;
}

static bool same_sum(const dure_event_sum *a, const dure_event_sum *b)
{
    return a->suite == b->suite && a->threshold == b->threshold && a->u_min == b->u_min &&
           a->collusion == b->collusion && a->n_words == b->n_words && a->word_bits == b->word_bits;
}

/* The end of a round repeats what was opened, member for member. */
static bool is_same_round(const dure_event_round *a, const dure_event_round *b)
{
    bool same =
        a->run_id == b->run_id && a->round == b->round && dure_hash_equal(&a->h_c, &b->h_c) &&
        a->roster_size == b->roster_size && dure_hash_equal(&a->roster_head, &b->roster_head) &&
        a->checkpoint_n == b->checkpoint_n && a->privacy_mode == b->privacy_mode &&
        dure_hash_equal(&a->base, &b->base) && dure_hash_equal(&a->adapter_in, &b->adapter_in) &&
        a->n_members == b->n_members && same_sum(&a->sum, &b->sum);
    for (uint32_t i = 0; same && i < a->n_members; i++) {
        const dure_event_member *x = &a->members[i], *y = &b->members[i];
        same = !strcmp(x->name, y->name) && dure_ct_equal(x->sign_public, y->sign_public, 32) &&
               dure_dp_plan_same_step(&x->plan, &y->plan) && x->plan.steps == y->plan.steps;
    }
    return same;
}

static dure_err take_end(dure_replay *replay, const dure_event *event, dure_diag *diag)
{
    const dure_event_round *round = &event->u.round;
    size_t k = 0;
    while (k < replay->n_open && replay->open[k]->round != round->round)
        k++;
    if (k == replay->n_open) {
        return dure_diag_set(diag, DURE_ERR_STATE, "round %llu ends, but it is not open",
                             (unsigned long long)round->round);
    }
    if (!is_same_round(replay->open[k], round)) {
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "round %llu ends with another configuration than it was opened with",
                             (unsigned long long)round->round);
    }
    uint32_t least =
        round->sum.u_min > round->sum.threshold ? round->sum.u_min : round->sum.threshold;
    if (event->kind == DURE_EVENT_CLOSED &&
        dure_event_round_count(round, DURE_PART_SUMMED) < least) {
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "round %llu published a sum of fewer than %u sites, which no honest "
                             "site helps to unmask",
                             (unsigned long long)round->round, least);
    }
    dure_err err = DURE_OK;
    for (uint32_t i = 0; !err && i < round->n_members; i++) {
        if (round->members[i].part != DURE_PART_NONE) err = charge(replay, &round->members[i]);
    }
    if (err) return err;
    free(replay->open[k]);
    replay->open[k] = replay->open[--replay->n_open];
    if (event->kind == DURE_EVENT_ABORTED) {
        replay->totals.aborted++;
        return DURE_OK;
    }
    replay->totals.closed++;
    return add_product(
        replay,
        (product){.run_id = round->run_id, .round = round->round, .adapter = round->adapter_out});
}

static dure_err take_release(dure_replay *replay, const dure_event *event, dure_diag *diag)
{
    const dure_event_release *release = &event->u.release;
    bool made = false;
    for (size_t i = 0; !made && i < replay->n_products; i++) {
        const product *p = &replay->products[i];
        made = p->run_id == release->run_id && p->round == release->round &&
               dure_hash_equal(&p->adapter, &release->adapter);
    }
    if (!made) {
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "the adapter that is put in force is not the one that round %llu made",
                             (unsigned long long)release->round);
    }
    replay->totals.adapter = release->adapter;
    if (event->kind == DURE_EVENT_PROMOTED) {
        replay->totals.promoted++;
    } else {
        replay->totals.rolled_back++;
    }
    return DURE_OK;
}

static dure_err take_roster(dure_replay *replay, const dure_event_roster *roster, dure_diag *diag)
{
    if (replay->roster && roster->size <= replay->roster->size) {
        return dure_diag_set(diag, DURE_ERR_STATE, "the roster went from version %llu to %llu",
                             (unsigned long long)replay->roster->size,
                             (unsigned long long)roster->size);
    }
    if (!replay->roster) replay->roster = malloc(sizeof *replay->roster);
    if (!replay->roster) return DURE_ERR_NOMEM;
    *replay->roster = *roster;
    return DURE_OK;
}

static dure_err take_epoch(dure_replay *replay, const dure_event_epoch *epoch, dure_diag *diag)
{
    if (epoch->epoch != replay->totals.epochs + 1 ||
        dure_event_epoch_verify(epoch, replay->genesis.root_public)) {
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "the new epoch is not the next one or not signed by the root");
    }
    replay->totals.epochs++;
    return DURE_OK;
}

static dure_err take(dure_replay *replay, const dure_event *event, dure_diag *diag)
{
    switch (event->kind) {
    case DURE_EVENT_GENESIS:
        replay->genesis = event->u.genesis;
        replay->has_genesis = true;
        return DURE_OK;
    case DURE_EVENT_ROSTER:
        return take_roster(replay, &event->u.roster, diag);
    case DURE_EVENT_OPENED:
        return take_opened(replay, &event->u.round, diag);
    case DURE_EVENT_CLOSED:
    case DURE_EVENT_ABORTED:
        return take_end(replay, event, diag);
    case DURE_EVENT_PROMOTED:
    case DURE_EVENT_ROLLED_BACK:
        return take_release(replay, event, diag);
    case DURE_EVENT_NEW_EPOCH:
        return take_epoch(replay, &event->u.epoch, diag);
    }
    return DURE_ERR_STATE;
}

dure_err dure_replay_add(dure_replay *replay, const dure_event *event, dure_diag *diag)
{
    if (event->index != replay->n) {
        return dure_diag_set(diag, DURE_ERR_STATE, "it says that it is entry %llu",
                             (unsigned long long)event->index);
    }
    /* With the encoding's own rule this makes genesis the first event and the only one. */
    if (!replay->has_genesis && event->kind != DURE_EVENT_GENESIS) {
        return dure_diag_set(diag, DURE_ERR_STATE, "the first entry is not the genesis");
    }
    dure_err err = take(replay, event, diag);
    if (err) return err;
    if (replay->n == 0) replay->totals.first_s = event->time_s;
    replay->totals.last_s = event->time_s;
    replay->n++;
    return DURE_OK;
}

/* ---- Results ---- */

size_t dure_replay_accounts(const dure_replay *replay)
{
    return replay->n_accounts;
}

/* Everything the member is charged with: plans that differ but for their steps, and those of rounds
 * that have no end. *plans is the caller's. */
static dure_err charged_plans(dure_dp_plan **plans, size_t *n, dure_account *out,
                              const dure_replay *replay, const account *from)
{
    *n = from->n_charges;
    *plans = calloc(from->n_charges + replay->n_open + 1, sizeof **plans);
    if (!*plans) return DURE_ERR_NOMEM;
    if (*n > 0) memcpy(*plans, from->charges, *n * sizeof **plans);
    for (size_t i = 0; i < replay->n_open; i++) {
        const dure_event_round *round = replay->open[i];
        for (uint32_t k = 0; k < round->n_members; k++) {
            const dure_dp_plan *plan = &round->members[k].plan;
            size_t at = 0;
            if (strcmp(round->members[k].name, from->name) != 0) continue;
            while (at < *n && !dure_dp_plan_same_step(&(*plans)[at], plan))
                at++;
            if (at < *n)
                (*plans)[at].steps += plan->steps;
            else
                (*plans)[(*n)++] = *plan;
            out->rounds++;
            out->rounds_open++;
        }
    }
    return DURE_OK;
}

dure_err dure_replay_account(dure_account *out, const dure_replay *replay, size_t i)
{
    *out = (dure_account){.unit = "record"};
    if (i >= replay->n_accounts) return DURE_ERR_USAGE;
    const account *from = &replay->accounts[i];
    dure_dp_plan *plans = NULL;
    size_t n = 0;
    dure_rdp *rdp = calloc(1, sizeof *rdp);
    if (!rdp) return DURE_ERR_NOMEM;
    memcpy(out->name, from->name, sizeof out->name);
    memcpy(out->sign_public, from->sign_public, 32);
    out->rounds = from->rounds;
    out->delta = 1.0 / (10.0 * (double)from->n_pub);
    dure_err err = charged_plans(&plans, &n, out, replay, from);
    for (size_t k = 0; !err && k < n; k++) {
        dure_rdp_add(rdp, &plans[k]);
        out->steps += plans[k].steps;
        if (k == 0) out->unit = dure_dp_plan_unit(&plans[k]);
        if (plans[k].mechanism == DURE_DP_SITE_GAUSSIAN) out->delta = replay->site_delta;
    }
    if (!err) err = dure_rdp_epsilon(&out->epsilon_rdp, rdp, out->delta);
    if (!err) err = dure_calibrate_history(&out->epsilon, (dure_dp_history){plans, n}, out->delta);
    free(plans);
    free(rdp);
    return err;
}

dure_err dure_replay_membership(double *true_rate, const dure_replay *replay, size_t i,
                                double false_rate)
{
    *true_rate = 1;
    if (i >= replay->n_accounts) return DURE_ERR_USAGE;
    dure_account unused = {.rounds = 0};
    dure_dp_plan *plans = NULL;
    size_t n = 0;
    dure_err err = charged_plans(&plans, &n, &unused, replay, &replay->accounts[i]);
    if (!err && n == 0) *true_rate = false_rate;
    if (!err && n > 0) err = dure_membership_most(true_rate, plans, n, false_rate);
    free(plans);
    return err;
}

dure_replay_totals dure_replay_sum(const dure_replay *replay)
{
    dure_replay_totals totals = replay->totals;
    if (totals.promoted + totals.rolled_back > 0) return totals;
    for (size_t i = 0; i < replay->n_products; i++) {
        if (replay->products[i].round > 0) totals.adapter = replay->products[i].adapter;
    }
    return totals;
}
