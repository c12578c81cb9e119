#include "federation/round_config.h"

#include "crypto/wipe.h"

#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b)
{
    return strcmp(((const dure_member *)a)->name, ((const dure_member *)b)->name);
}

static dure_err fill_members(dure_config *out, const dure_terms *terms, const dure_roster *roster,
                             const uint8_t (*sign)[32], size_t n_sign, dure_diag *diag)
{
    if (n_sign < terms->cohort.min_sites || n_sign > DURE_MEMBERS_MAX)
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "a round needs %u to %d sites, but %zu are present",
                             terms->cohort.min_sites, DURE_MEMBERS_MAX, n_sign);
    for (size_t i = 0; i < n_sign; i++) {
        const dure_roster_member *m = dure_roster_by_sign(roster, sign[i]);
        if (!m) return dure_diag_set(diag, DURE_ERR_STATE, "a site is not in force in the roster");
        dure_roster_describe(&out->members[i], m);
    }
    out->n_members = (uint32_t)n_sign;
    qsort(out->members, n_sign, sizeof *out->members, by_name);
    return DURE_OK;
}

/* Every field that the terms alone determine, in one place for both sides. */
static dure_err fill_terms(dure_config *out, const dure_terms *terms, const uint8_t root[32])
{
    dure_hash id = {{0}}, layout = {{0}};
    dure_err err = dure_federation_id(&id, root, terms->federation);
    if (!err) err = dure_terms_layout_digest(&layout, terms);
    if (err) return err;
    memcpy(out->federation_id, id.b, sizeof id.b);
    memcpy(out->layout_digest, layout.b, sizeof layout.b);
    memcpy(out->base_digest, terms->base.digest.b, sizeof terms->base.digest.b);
    const dure_training_terms *t = &terms->training;
    out->suite =
        terms->cohort.post_quantum ? DURE_SUITE_HYBRID_AES256CTR : DURE_SUITE_X25519_AES256CTR;
    out->u_min = terms->cohort.u_min;
    out->collusion = terms->cohort.collusion;
    out->n_words = (uint32_t)terms->layout.n_active;
    out->word_bits = terms->grid.modulus_bits;
    out->chunk_words = DURE_ROUND_CHUNK_WORDS;
    out->q_max = terms->grid.limit;
    out->range = terms->grid.range;
    out->share_lifetime_ms = (uint64_t)terms->cohort.share_lifetime_s * 1000;
    out->privacy_mode = t->privacy_mode;
    out->clip = t->clip;
    out->grid_bits = t->grid_bits;
    out->rounds = t->rounds;
    out->local_steps = t->steps;
    out->method = DURE_METHOD_FFA;
    out->rank = terms->layout.rank;
    out->alpha = terms->layout.alpha;
    out->targets = terms->layout.targets;
    out->first_layer = terms->layout.first_layer;
    out->init_seed = terms->layout.seed;
    out->max_length = t->max_length;
    out->optimizer = t->optimizer;
    out->learning_rate = t->learning_rate;
    out->beta1 = t->beta1;
    out->beta2 = t->beta2;
    out->optimizer_epsilon = t->optimizer_epsilon;
    out->weight_decay = t->weight_decay;
    out->server_rate = t->server_rate;
    return DURE_OK;
}

dure_err dure_round_config_make(dure_config *out, const dure_terms *terms,
                                const dure_roster *roster, const dure_round_facts *facts,
                                const uint8_t (*sign)[32], size_t n_sign, dure_diag *diag)
{
    memset(out, 0, sizeof *out);
    dure_err err = fill_members(out, terms, roster, sign, n_sign, diag);
    if (!err) err = fill_terms(out, terms, dure_roster_root(roster));
    if (err) return err;
    const dure_hash head = dure_roster_head(roster);
    out->threshold = dure_terms_threshold(out->n_members, out->collusion);
    out->roster_size = dure_roster_entries(roster);
    memcpy(out->roster_hash, head.b, sizeof head.b);
    out->run_id = facts->run_id;
    out->round = facts->round;
    memcpy(out->previous_t3, facts->previous_t3.b, sizeof out->previous_t3);
    memcpy(out->adapter_digest, facts->adapter_digest.b, sizeof out->adapter_digest);
    out->checkpoint_size = facts->checkpoint_size;
    memcpy(out->checkpoint_root, facts->checkpoint_root.b, sizeof out->checkpoint_root);
    return dure_config_check(out, diag);
}

static dure_err differs(dure_diag *diag, const char *field)
{
    return dure_diag_set(
        diag, DURE_ERR_PROTO,
        "the round's %s is not what the federation's root signed: the coordinator's "
        "configuration was altered",
        field);
}

/* Compares the fields that fill_terms() sets; `want` has them. */
static dure_err compare_terms(const dure_config *c, const dure_config *want, dure_diag *diag)
{
    if (c->suite != want->suite || c->method != want->method)
        return differs(diag, "suite or method");
    if (!dure_ct_equal(c->federation_id, want->federation_id, sizeof c->federation_id))
        return differs(diag, "federation");
    if (!dure_ct_equal(c->base_digest, want->base_digest, sizeof c->base_digest))
        return differs(diag, "base model");
    if (!dure_ct_equal(c->layout_digest, want->layout_digest, sizeof c->layout_digest) ||
        c->rank != want->rank || c->alpha != want->alpha || c->targets != want->targets ||
        c->first_layer != want->first_layer || c->init_seed != want->init_seed ||
        c->n_words != want->n_words)
        return differs(diag, "adapter layout");
    if (c->u_min != want->u_min || c->collusion != want->collusion ||
        c->neighbours != want->neighbours || c->share_lifetime_ms != want->share_lifetime_ms)
        return differs(diag, "cohort rules");
    if (c->word_bits != want->word_bits || c->q_max != want->q_max || c->range != want->range ||
        c->chunk_words != want->chunk_words)
        return differs(diag, "integer grid");
    if (c->privacy_mode != want->privacy_mode || c->clip != want->clip ||
        c->grid_bits != want->grid_bits || c->rounds != want->rounds ||
        c->local_steps != want->local_steps)
        return differs(diag, "privacy plan");
    if (c->max_length != want->max_length || c->optimizer != want->optimizer ||
        c->learning_rate != want->learning_rate || c->beta1 != want->beta1 ||
        c->beta2 != want->beta2 || c->optimizer_epsilon != want->optimizer_epsilon ||
        c->weight_decay != want->weight_decay || c->server_rate != want->server_rate)
        return differs(diag, "training");
    return DURE_OK;
}

static bool same_member(const dure_member *a, const dure_member *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->organisation, b->organisation) == 0 &&
           dure_ct_equal(a->curve_public, b->curve_public, sizeof a->curve_public) &&
           a->n_pub == b->n_pub && a->q_k == b->q_k && a->batch == b->batch &&
           a->sigma_num == b->sigma_num && a->sigma_den == b->sigma_den;
}

static dure_err compare_members(const dure_config *c, const dure_roster *roster, dure_diag *diag)
{
    const dure_hash head = dure_roster_head(roster);
    if (c->roster_size != dure_roster_entries(roster) ||
        !dure_ct_equal(c->roster_hash, head.b, sizeof c->roster_hash))
        return dure_diag_set(
            diag, DURE_ERR_PROTO,
            "the round is for another version of the roster than the one received");
    for (uint32_t i = 0; i < c->n_members; i++) {
        const dure_roster_member *m = dure_roster_by_sign(roster, c->members[i].sign_public);
        if (!m)
            return dure_diag_set(diag, DURE_ERR_PROTO,
                                 "the round counts \"%s\", which is not a member in force",
                                 c->members[i].name);
        dure_member want;
        dure_roster_describe(&want, m);
        if (!same_member(&c->members[i], &want))
            return dure_diag_set(diag, DURE_ERR_PROTO,
                                 "the round alters what \"%s\" declared when it joined",
                                 c->members[i].name);
    }
    return DURE_OK;
}

dure_err dure_round_config_verify(const dure_config *config, const dure_terms *terms,
                                  const dure_roster *roster, dure_diag *diag)
{
    dure_config *want = calloc(1, sizeof *want);
    if (!want) return DURE_ERR_NOMEM;
    dure_err err = dure_config_check(config, diag);
    if (!err) err = fill_terms(want, terms, dure_roster_root(roster));
    if (!err) err = compare_terms(config, want, diag);
    if (!err && config->n_members < terms->cohort.min_sites) err = differs(diag, "number of sites");
    if (!err && config->threshold < dure_terms_threshold(config->n_members, config->collusion))
        err = differs(diag, "threshold");
    if (!err) err = compare_members(config, roster, diag);
    free(want);
    return err;
}

dure_err dure_round_config_hash(dure_hash *out, dure_span encoding)
{
    return dure_hash_labeled(out, "DURE/1/config", &encoding, 1);
}

dure_err dure_round_config_sign(uint8_t signature[DURE_SIGNATURE_BYTES], const dure_hash *h_c,
                                const dure_sign_key *key)
{
    return dure_sign(signature, key, "DURE/1/open", dure_hash_span(h_c));
}

dure_err dure_round_config_verify_signature(const dure_hash *h_c,
                                            const uint8_t signature[DURE_SIGNATURE_BYTES],
                                            const uint8_t coordinator_sign[32], dure_diag *diag)
{
    dure_err err =
        dure_sign_verify(coordinator_sign, "DURE/1/open", dure_hash_span(h_c), signature);
    if (!err) return DURE_OK;
    return dure_diag_set(diag, err,
                         "the round's configuration is not signed by the coordinator that the "
                         "invitation names");
}
