#include "federation/terms.h"

#include "dp/noise_share.h"
#include "federation/plan.h"
#include "model/lora.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { MAX_DIMENSION = 1 << 24, MAX_HEADS = 65536 };

/* The same fields: which suite the federation has is in the version alone. */
enum { VERSION_PLAIN = 1, VERSION_HYBRID = 2 };

/* Refuses what is not finite. */
static dure_err take_finite(double *out, dure_reader *r)
{
    double value;
    dure_err err = dure_take_f64(&value, r);
    if (err) return err;
    if (!isfinite(value)) return DURE_ERR_PROTO;
    *out = value;
    return DURE_OK;
}

dure_err dure_name_check(const char *name, const char *what, dure_diag *diag)
{
    size_t n = strnlen(name, DURE_NAME_SIZE);
    bool good = n > 0 && n < DURE_NAME_SIZE && isalnum((unsigned char)name[0]);
    for (size_t i = 0; good && i < n; i++)
        good = isalnum((unsigned char)name[i]) || strchr("-_.", name[i]) != NULL;
    if (good) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_USAGE,
                         "%s \"%.*s\" must be 1 to %d letters, digits, '-', '_' or '.', beginning "
                         "with a letter or digit",
                         what, (int)n, name, DURE_NAME_SIZE - 1);
}

uint32_t dure_terms_threshold(uint32_t n_sites, uint32_t collusion)
{
    return (n_sites + collusion) / 2 + 1;
}

/* One row a field that is an integer with bounds, so that the check is a walk over a table. */
typedef struct bound {
    const char *name;
    uint64_t value, least, most;
} bound;

static dure_err check_bounds(const bound *bounds, size_t n, dure_diag *diag)
{
    for (size_t i = 0; i < n; i++) {
        if (bounds[i].value >= bounds[i].least && bounds[i].value <= bounds[i].most) continue;
        return dure_diag_set(diag, DURE_ERR_USAGE, "%s is %llu, but must be from %llu to %llu",
                             bounds[i].name, (unsigned long long)bounds[i].value,
                             (unsigned long long)bounds[i].least,
                             (unsigned long long)bounds[i].most);
    }
    return DURE_OK;
}

static dure_err check_base(const dure_base *b, const dure_layout_terms *l, dure_diag *diag)
{
    if (b->architecture[0] == 0)
        return dure_diag_set(diag, DURE_ERR_USAGE, "the base model's architecture is missing");
    const bound bounds[] = {
        {"base.layers", b->n_layers, 1, DURE_TERMS_LAYERS_MAX},
        {"base.embedding", b->n_embd, 1, MAX_DIMENSION},
        {"base.feed_forward", b->n_ff, 1, MAX_DIMENSION},
        {"base.heads", b->n_head, 1, MAX_HEADS},
        {"base.kv_heads", b->n_head_kv, 1, MAX_HEADS},
        {"base.head_dimension", b->head_dim, 1, MAX_HEADS},
        {"base.vocabulary", b->n_vocab, 1, MAX_DIMENSION},
        {"base.context", b->n_context, 1, MAX_DIMENSION},
        {"adapter.rank", l->rank, 1, DURE_LORA_RANK_MAX},
        {"adapter.targets", l->targets, 1, 0x7f},
        {"adapter.first_layer", l->first_layer, 0, b->n_layers ? b->n_layers - 1 : 0},
        {"adapter.trained", l->n_active, 1, UINT64_C(1) << 31},
        {"adapter.parameters", l->n_params, l->n_active, UINT64_C(1) << 32},
    };
    dure_err err = check_bounds(bounds, sizeof bounds / sizeof *bounds, diag);
    if (err) return err;
    if (!(l->alpha > 0 && l->alpha <= DURE_TERMS_ALPHA_MAX))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "adapter.alpha is %g, but must be above 0 and at most %g", l->alpha,
                             DURE_TERMS_ALPHA_MAX);
    return DURE_OK;
}

static dure_err check_training(const dure_training_terms *t, uint64_t n_active, dure_diag *diag)
{
    uint32_t grid_bits;
    dure_err err = dure_dp_grid_bits(&grid_bits, n_active, diag);
    if (err) return err;
    const bound bounds[] = {
        {"training.rounds", t->rounds, 1, DURE_TERMS_ROUNDS_MAX},
        {"training.steps", t->steps, 1, DURE_TERMS_STEPS_MAX},
        {"training.batch", t->batch, 1, DURE_TERMS_BATCH_MAX},
        {"training.max_length", t->max_length, DURE_TERMS_LENGTH_MIN, DURE_TERMS_LENGTH_MAX},
        {"training.grid_bits", t->grid_bits, grid_bits, DURE_DP_GRID_BITS_MAX},
    };
    err = check_bounds(bounds, sizeof bounds / sizeof *bounds, diag);
    if (err) return err;
    if (!(t->learning_rate > 0 && t->learning_rate <= 1))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "training.learning_rate is %g, but must be above 0 and at most 1",
                             t->learning_rate);
    if (t->privacy_mode < DURE_PRIVACY_RECORD || t->privacy_mode > DURE_PRIVACY_SUBJECT)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "training.privacy is mode %u; this program knows record, subject, "
                             "site and none",
                             t->privacy_mode);
    if ((t->privacy_mode == DURE_PRIVACY_CLIENT) != (t->sigma_num > 0))
        return dure_diag_set(
            diag, DURE_ERR_USAGE,
            "training.sigma_num, the noise that sites share, must be above 0 where "
            "training.privacy is site, and 0 elsewhere");
    if (t->privacy_mode == DURE_PRIVACY_CLIENT
            ? !(t->delta > 0 && t->delta <= DURE_DP_SITE_DELTA_MAX)
            : fpclassify(t->delta) != FP_ZERO)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "training.delta is %g, but must be above 0 and at most %g, 1 / (10 x "
                             "100 sites), where training.privacy is site, and 0 elsewhere",
                             t->delta, DURE_DP_SITE_DELTA_MAX);
    if (t->optimizer != DURE_LOCAL_ADAMW && t->optimizer != DURE_LOCAL_SGD)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "training.optimizer is number %u; this program knows adamw and sgd",
                             t->optimizer);
    if (!(t->beta1 >= 0 && t->beta1 < 1 && t->beta2 >= 0 && t->beta2 < 1 &&
          t->optimizer_epsilon > 0 && t->optimizer_epsilon < 1 && t->weight_decay >= 0 &&
          t->weight_decay < 1))
        return dure_diag_set(
            diag, DURE_ERR_USAGE,
            "training.beta1, beta2 and weight_decay must be from 0 to below 1, and "
            "training.optimizer_epsilon between 0 and 1");
    if (!(t->server_rate > 0 && t->server_rate <= 16))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "training.server_rate is %g, but must be above 0 and at most 16",
                             t->server_rate);
    if (!(t->clip > 0 && t->clip <= 1e6))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "training.clip is %g, but must be above 0 and at most 1000000",
                             t->clip);
    return DURE_OK;
}

static dure_err check_cohort(const dure_cohort_terms *c, dure_diag *diag)
{
    const bound bounds[] = {
        {"cohort.collusion", c->collusion, 0, DURE_TERMS_COLLUSION_MAX},
        {"cohort.u_min", c->u_min, dure_members_least(c->collusion), DURE_MEMBERS_MAX},
        {"cohort.min_sites", c->min_sites, c->u_min, DURE_MEMBERS_MAX},
        {"cohort.share_lifetime_s", c->share_lifetime_s, DURE_TERMS_LIFETIME_S_MIN,
         DURE_TERMS_LIFETIME_S_MAX},
    };
    dure_err err = check_bounds(bounds, sizeof bounds / sizeof *bounds, diag);
    if (err) return err;
    if (dure_terms_threshold(c->min_sites, c->collusion) > c->min_sites)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "cohort.min_sites is %u, too few for %u colluding sites: no threshold "
                             "t satisfies 2t > n + c",
                             c->min_sites, c->collusion);
    return DURE_OK;
}

/* Where sites are protected the noise is in the summed integers themselves: they are the clip's
 * grid, and have room for an update with its share. */
static dure_err check_shares(const dure_terms *terms, dure_diag *diag)
{
    const dure_training_terms *t = &terms->training;
    if (t->privacy_mode != DURE_PRIVACY_CLIENT) return DURE_OK;
    const dure_declared anyone = {.n_pub = 1, .batch = 1, .sigma_num = t->sigma_num};
    const dure_dp_plan plan = dure_federation_plan(terms, &anyone, t->rounds);
    dure_err err = dure_dp_plan_check(&plan, diag);
    if (err) return err;
    const double units = ldexp(1, (int)t->grid_bits);
    if (terms->grid.range * units != t->clip * terms->grid.limit)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "where sites are protected, training.clip must be a power of two such "
                             "as 1, and grid.range / grid.limit the clip over 2^%u",
                             t->grid_bits);
    const uint64_t reach = dure_share_reach(&plan);
    if (reach > terms->grid.limit)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "an update with its share of the noise is up to %llu units, more than "
                             "grid.limit, %u: take less noise, more honest sites (u_min - "
                             "collusion), fewer trained parameters or 32 modulus_bits",
                             (unsigned long long)reach, terms->grid.limit);
    return DURE_OK;
}

dure_err dure_terms_check(const dure_terms *terms, dure_diag *diag)
{
    dure_err err = dure_name_check(terms->federation, "the federation's name", diag);
    if (!err) err = check_base(&terms->base, &terms->layout, diag);
    if (!err) err = check_training(&terms->training, terms->layout.n_active, diag);
    if (!err) err = check_cohort(&terms->cohort, diag);
    if (!err) err = dure_grid_check(&terms->grid, DURE_MEMBERS_MAX, diag);
    if (!err) err = check_shares(terms, diag);
    return err;
}

static void put_base(dure_buf *out, const dure_base *b)
{
    dure_put_raw(out, b->digest.b, sizeof b->digest.b);
    dure_put_text(out, b->architecture);
    dure_put_u32(out, b->n_layers);
    dure_put_u32(out, b->n_embd);
    dure_put_u32(out, b->n_ff);
    dure_put_u32(out, b->n_head);
    dure_put_u32(out, b->n_head_kv);
    dure_put_u32(out, b->head_dim);
    dure_put_u32(out, b->n_vocab);
    dure_put_u32(out, b->n_context);
}

static void put_layout(dure_buf *out, const dure_layout_terms *l)
{
    dure_put_u32(out, l->rank);
    dure_put_f64(out, l->alpha);
    dure_put_u32(out, l->targets);
    dure_put_u32(out, l->first_layer);
    dure_put_u64(out, l->seed);
    dure_put_u64(out, l->n_active);
    dure_put_u64(out, l->n_params);
}

void dure_terms_put(dure_buf *out, const dure_terms *terms)
{
    dure_put_u16(out, terms->cohort.post_quantum ? VERSION_HYBRID : VERSION_PLAIN);
    dure_put_text(out, terms->federation);
    put_base(out, &terms->base);
    put_layout(out, &terms->layout);
    const dure_training_terms *t = &terms->training;
    dure_put_u32(out, t->rounds);
    dure_put_u32(out, t->steps);
    dure_put_f64(out, t->learning_rate);
    dure_put_f64(out, t->clip);
    dure_put_u32(out, t->grid_bits);
    dure_put_u32(out, t->batch);
    dure_put_u32(out, t->max_length);
    dure_put_u32(out, t->privacy_mode);
    if (t->privacy_mode == DURE_PRIVACY_CLIENT) {
        dure_put_u32(out, t->sigma_num);
        dure_put_f64(out, t->delta);
    }
    dure_put_u32(out, t->optimizer);
    dure_put_f64(out, t->beta1);
    dure_put_f64(out, t->beta2);
    dure_put_f64(out, t->optimizer_epsilon);
    dure_put_f64(out, t->weight_decay);
    dure_put_f64(out, t->server_rate);
    const dure_cohort_terms *c = &terms->cohort;
    dure_put_u32(out, c->min_sites);
    dure_put_u32(out, c->collusion);
    dure_put_u32(out, c->u_min);
    dure_put_u32(out, c->share_lifetime_s);
    dure_put_f64(out, terms->grid.range);
    dure_put_u32(out, terms->grid.limit);
    dure_put_u32(out, terms->grid.modulus_bits);
}

static dure_err take_base(dure_base *b, dure_reader *r)
{
    dure_err err = dure_take_copy(b->digest.b, r, sizeof b->digest.b);
    if (!err) err = dure_take_text(b->architecture, sizeof b->architecture, r);
    uint32_t *const numbers[] = {&b->n_layers,  &b->n_embd,   &b->n_ff,    &b->n_head,
                                 &b->n_head_kv, &b->head_dim, &b->n_vocab, &b->n_context};
    for (size_t i = 0; !err && i < sizeof numbers / sizeof *numbers; i++)
        err = dure_take_u32(numbers[i], r);
    return err;
}

static dure_err take_layout(dure_layout_terms *l, dure_reader *r)
{
    dure_err err = dure_take_u32(&l->rank, r);
    if (!err) err = take_finite(&l->alpha, r);
    if (!err) err = dure_take_u32(&l->targets, r);
    if (!err) err = dure_take_u32(&l->first_layer, r);
    if (!err) err = dure_take_u64(&l->seed, r);
    if (!err) err = dure_take_u64(&l->n_active, r);
    if (!err) err = dure_take_u64(&l->n_params, r);
    return err;
}

static dure_err take_training(dure_training_terms *t, dure_reader *r)
{
    dure_err err = dure_take_u32(&t->rounds, r);
    if (!err) err = dure_take_u32(&t->steps, r);
    if (!err) err = take_finite(&t->learning_rate, r);
    if (!err) err = take_finite(&t->clip, r);
    if (!err) err = dure_take_u32(&t->grid_bits, r);
    if (!err) err = dure_take_u32(&t->batch, r);
    if (!err) err = dure_take_u32(&t->max_length, r);
    if (!err) err = dure_take_u32(&t->privacy_mode, r);
    const bool of_sites = t->privacy_mode == DURE_PRIVACY_CLIENT;
    if (!err && of_sites) err = dure_take_u32(&t->sigma_num, r);
    if (!err && of_sites) err = take_finite(&t->delta, r);
    if (!err) err = dure_take_u32(&t->optimizer, r);
    if (!err) err = take_finite(&t->beta1, r);
    if (!err) err = take_finite(&t->beta2, r);
    if (!err) err = take_finite(&t->optimizer_epsilon, r);
    if (!err) err = take_finite(&t->weight_decay, r);
    if (!err) err = take_finite(&t->server_rate, r);
    return err;
}

dure_err dure_terms_take(dure_terms *out, dure_reader *r, dure_diag *diag)
{
    dure_terms terms = {0};
    uint16_t version = 0;
    dure_err err = dure_take_u16(&version, r);
    if (!err && version != VERSION_PLAIN && version != VERSION_HYBRID)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "the terms are of version %u; this program knows versions 1 and 2",
                             (unsigned)version);
    terms.cohort.post_quantum = version == VERSION_HYBRID;
    if (!err) err = dure_take_text(terms.federation, sizeof terms.federation, r);
    if (!err) err = take_base(&terms.base, r);
    if (!err) err = take_layout(&terms.layout, r);
    if (!err) err = take_training(&terms.training, r);
    dure_cohort_terms *c = &terms.cohort;
    if (!err) err = dure_take_u32(&c->min_sites, r);
    if (!err) err = dure_take_u32(&c->collusion, r);
    if (!err) err = dure_take_u32(&c->u_min, r);
    if (!err) err = dure_take_u32(&c->share_lifetime_s, r);
    if (!err) err = take_finite(&terms.grid.range, r);
    if (!err) err = dure_take_u32(&terms.grid.limit, r);
    if (!err) err = dure_take_u32(&terms.grid.modulus_bits, r);
    if (err) return dure_diag_set(diag, err, "the federation's terms are cut short or malformed");
    err = dure_terms_check(&terms, diag);
    if (err) return err;
    *out = terms;
    return DURE_OK;
}

static dure_err hash_buf(dure_hash *out, const char *label, const dure_buf *buf)
{
    dure_err err = dure_buf_err(buf);
    const dure_span field = dure_buf_span(buf);
    if (!err) err = dure_hash_labeled(out, label, &field, 1);
    return err;
}

dure_err dure_terms_hash(dure_hash *out, const dure_terms *terms)
{
    dure_buf buf;
    dure_buf_init(&buf, DURE_TERMS_MAX_BYTES);
    dure_terms_put(&buf, terms);
    dure_err err = hash_buf(out, "DURE/1/terms", &buf);
    dure_buf_fini(&buf);
    return err;
}

dure_err dure_terms_layout_digest(dure_hash *out, const dure_terms *terms)
{
    dure_buf buf;
    dure_buf_init(&buf, DURE_TERMS_MAX_BYTES);
    put_base(&buf, &terms->base);
    put_layout(&buf, &terms->layout);
    dure_err err = hash_buf(out, "DURE/1/layout", &buf);
    dure_buf_fini(&buf);
    return err;
}
