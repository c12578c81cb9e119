#include "cli/audit_federation.h"

#include "crypto/wipe.h"
#include "federation/plan.h"

#include <stdlib.h>
#include <string.h>

typedef unsigned long long ull;

/* ---- founding ---- */

/* What the root signed into one invitation against the genesis. */
static dure_err check_invitation(const dure_invitation *invitation,
                                 const dure_event_genesis *genesis, dure_diag *diag)
{
    dure_hash terms;
    dure_err err = dure_terms_hash(&terms, &invitation->terms);
    if (err) return err;
    const char *wrong = NULL;
    if (!dure_hash_equal(&terms, &genesis->terms)) wrong = "terms";
    if (!dure_ct_equal(invitation->coordinator_sign, genesis->coordinator_sign, 32))
        wrong = "coordinator key";
    if (invitation->terms.cohort.collusion != genesis->collusion) wrong = "c";
    if (!wrong) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_AUTH,
                         "its %s is not the one in the root-signed invitation of %s", wrong,
                         invitation->name);
}

static dure_err check_founding(double *site_delta, void *state, dure_span bytes,
                               const dure_event_genesis *genesis, dure_diag *diag)
{
    dure_audit_federation *f = state;
    dure_hash id;
    dure_err err = dure_federation_id(&id, genesis->root_public, genesis->federation);
    if (err) return err;
    if (!dure_hash_equal(&id, &genesis->federation_id))
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "its federation id is not that of its root key and name");
    if (bytes.n == 0) return DURE_OK;
    err = dure_roster_parse(&f->roster, genesis->root_public, bytes, diag);
    if (!err) err = dure_roster_new(&f->version, genesis->root_public);
    if (err) return err;
    size_t n = dure_roster_count(f->roster);
    f->steps = calloc(n ? n : 1, sizeof *f->steps);
    if (!f->steps) return DURE_ERR_NOMEM;
    for (size_t i = 0; !err && i < n; i++)
        err = check_invitation(&dure_roster_at(f->roster, i)->join.invitation, genesis, diag);
    if (!err && n > 0) f->terms = &dure_roster_at(f->roster, 0)->join.invitation.terms;
    if (f->terms && f->terms->training.privacy_mode == DURE_PRIVACY_CLIENT)
        *site_delta = f->terms->training.delta;
    return err;
}

/* ---- roster versions ---- */

/* Exactly the ledger's sites are in force, with the keys it gives. */
static dure_err check_sites(const dure_roster *roster, const dure_event_roster *version,
                            dure_diag *diag)
{
    if (dure_roster_in_force(roster) != version->n_sites) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "%zu sites are in force in the root-signed roster, %u in the ledger",
                             dure_roster_in_force(roster), version->n_sites);
    }
    for (uint32_t i = 0; i < version->n_sites; i++) {
        const dure_site_key *site = &version->sites[i];
        const dure_roster_member *member = dure_roster_by_name(roster, site->name);
        if (!member || !dure_ct_equal(member->join.sign_public, site->sign_public, 32)) {
            return dure_diag_set(diag, DURE_ERR_AUTH,
                                 "the site %s is not in the root-signed roster with that key",
                                 site->name);
        }
    }
    return DURE_OK;
}

/* Versions come in ascending order, so the chain grows from one to the next. */
static dure_err check_version(void *state, dure_span bytes, const uint8_t root_public[32],
                              const dure_event_roster *version, dure_diag *diag)
{
    dure_audit_federation *f = state;
    (void)root_public;
    size_t n = f->roster ? dure_roster_entries(f->roster) : 0;
    if (version->size > n || bytes.n == 0) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the roster in the file has %zu entries, fewer than the %llu the "
                             "ledger says",
                             n, (ull)version->size);
    }
    dure_err err = DURE_OK;
    for (size_t i = dure_roster_entries(f->version); !err && i < version->size; i++)
        err = dure_roster_append(f->version, dure_roster_entry(f->roster, i), diag);
    if (err) return err;
    dure_hash head = dure_roster_head(f->version);
    if (dure_roster_entries(f->version) != version->size ||
        !dure_hash_equal(&head, &version->head)) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the roster is not the root-signed one in the file");
    }
    return check_sites(f->version, version, diag);
}

/* ---- rounds ---- */

static bool same_number(double a, double b)
{
    return !(a < b) && !(b < a);
}

static const char *wrong_constant(const dure_audit_federation *f, const dure_dp_plan *plan,
                                  const dure_declared *d)
{
    const dure_dp_plan want = dure_federation_plan(f->terms, d, 1);
    const uint32_t den = d->sigma_num ? DURE_DP_SIGMA_DEN : d->sigma_den;
    if (plan->mechanism != want.mechanism) return "unit";
    if (plan->sigma_num != want.sigma_num || d->sigma_den != den) return "noise";
    if (plan->q_k != want.q_k || plan->full != want.full) return "sampling rate";
    if (plan->n_pub != want.n_pub) return "number of records";
    if (plan->batch != want.batch) return "batch";
    if (!same_number(plan->clip, want.clip)) return "clip";
    if (plan->grid_bits != want.grid_bits) return "grid";
    if (plan->steps != want.steps) return "number of steps";
    if (plan->honest != want.honest) return "number of honest sites";
    if (plan->n_params != want.n_params) return "number of parameters";
    return NULL;
}

/* The place in the roster of whoever has this key, revoked or not; SIZE_MAX if nobody. */
static size_t place_of(const dure_roster *roster, const uint8_t sign_public[32])
{
    for (size_t i = 0; roster && i < dure_roster_count(roster); i++) {
        if (dure_ct_equal(dure_roster_at(roster, i)->join.sign_public, sign_public, 32)) return i;
    }
    return SIZE_MAX;
}

static dure_err check_member(dure_audit_federation *f, const dure_event_member *m, dure_diag *diag)
{
    const size_t i = place_of(f->roster, m->sign_public);
    if (i == SIZE_MAX || !f->terms)
        return dure_diag_set(diag, DURE_ERR_AUTH, "the member %s never joined", m->name);
    const dure_join *join = &dure_roster_at(f->roster, i)->join;
    const char *wrong = wrong_constant(f, &m->plan, &join->declared);
    if (strcmp(join->invitation.name, m->name) != 0) wrong = "name";
    if (wrong)
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the %s of %s is not what the root's terms and its own record say",
                             wrong, m->name);
    /* A member that is charged in doubt may have steps left, which it then uses in a later round.
     */
    const uint64_t planned = f->terms->training.rounds * dure_federation_round_steps(f->terms);
    if (m->part == DURE_PART_SUMMED) f->steps[i] += m->plan.steps;
    if (f->steps[i] <= planned) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_AUTH,
                         "%s has %llu steps in the sums, more than the %llu that the terms plan",
                         m->name, (ull)f->steps[i], (ull)planned);
}

static dure_err check_round(void *state, const dure_event *event, dure_diag *diag)
{
    dure_audit_federation *f = state;
    const dure_event_round *round = &event->u.round;
    dure_err err = DURE_OK;
    if (f->terms && (round->privacy_mode != f->terms->training.privacy_mode ||
                     !dure_hash_equal(&round->base, &f->terms->base.digest)))
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "round %llu has another privacy mode or base model than the terms "
                             "that the root signed",
                             (ull)round->round);
    const dure_event_sum *sum = &round->sum;
    if (f->terms && sum->suite > 0 &&
        (sum->collusion != f->terms->cohort.collusion || sum->u_min < f->terms->cohort.u_min ||
         (sum->suite == DURE_SUITE_HYBRID_AES256CTR) != f->terms->cohort.post_quantum))
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "round %llu has another rule for its secure sum than the terms that "
                             "the root signed",
                             (ull)round->round);
    for (uint32_t i = 0; !err && i < round->n_members; i++)
        err = check_member(f, &round->members[i], diag);
    return err ? dure_diag_prefix(diag, err, "round %llu", (ull)round->round) : DURE_OK;
}

dure_verify_options dure_audit_options(dure_audit_federation *federation)
{
    return (dure_verify_options){.roster_check = check_version,
                                 .founding_check = check_founding,
                                 .round_check = check_round,
                                 .roster_state = federation};
}

void dure_audit_federation_fini(dure_audit_federation *federation)
{
    dure_roster_free(&federation->roster);
    dure_roster_free(&federation->version);
    free(federation->steps);
    *federation = (dure_audit_federation){0};
}
