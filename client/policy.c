#include "client/policy.h"

#include "common/file.h"
#include "common/yaml.h"
#include "dp/calibrate.h"
#include "secagg/hybrid.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* As the file groups things for a reader. */
typedef struct policy_file {
    char federation[DURE_NAME_SIZE];
    char name[DURE_NAME_SIZE];
    char endpoint[DURE_ENDPOINT_SIZE];
    struct data_part {
        char file[DURE_POLICY_PATH_SIZE];
        char source[DURE_NAME_SIZE];
        uint64_t records;
        uint32_t per_subject;
        bool ignore_subjects;
    } data;
    char model[DURE_POLICY_PATH_SIZE];
    uint64_t memory_mb;
    char ledger[DURE_POLICY_PATH_SIZE];
    struct policy_part {
        double epsilon, delta;
        uint32_t modes, collusion, min_sites, min_threshold;
        double min_noise, max_rate, max_clip;
        bool post_quantum;
        uint64_t max_steps;
        char bases[DURE_POLICY_BASES_MAX][65];
        uint32_t bases_count;
    } policy;
} policy_file;

static const cyaml_strval_t modes[] = {{"record", DURE_POLICY_MODE(DURE_PRIVACY_RECORD)},
                                       {"subject", DURE_POLICY_MODE(DURE_PRIVACY_SUBJECT)},
                                       {"site", DURE_POLICY_MODE(DURE_PRIVACY_CLIENT)},
                                       {"none", DURE_POLICY_MODE(DURE_PRIVACY_NONE)}};

#define TEXT(key, type, member) CYAML_FIELD_STRING(key, CYAML_FLAG_DEFAULT, type, member, 1)
#define NUMBER(key, type, member) CYAML_FIELD_UINT(key, CYAML_FLAG_DEFAULT, type, member)
#define REAL(key, type, member) CYAML_FIELD_FLOAT(key, CYAML_FLAG_DEFAULT, type, member)

static const cyaml_schema_value_t digest_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_DEFAULT, char[65], 64, 64),
};
static const cyaml_schema_field_t data_fields[] = {
    TEXT("file", struct data_part, file),
    TEXT("source", struct data_part, source),
    NUMBER("records", struct data_part, records),
    CYAML_FIELD_UINT("per_subject", CYAML_FLAG_OPTIONAL, struct data_part, per_subject),
    CYAML_FIELD_BOOL("ignore_subjects", CYAML_FLAG_OPTIONAL, struct data_part, ignore_subjects),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t policy_fields[] = {
    REAL("epsilon", struct policy_part, epsilon),
    REAL("delta", struct policy_part, delta),
    CYAML_FIELD_FLAGS("modes", CYAML_FLAG_STRICT, struct policy_part, modes, modes,
                      CYAML_ARRAY_LEN(modes)),
    NUMBER("collusion", struct policy_part, collusion),
    NUMBER("min_sites", struct policy_part, min_sites),
    NUMBER("min_threshold", struct policy_part, min_threshold),
    REAL("min_noise", struct policy_part, min_noise),
    REAL("max_rate", struct policy_part, max_rate),
    CYAML_FIELD_BOOL("post_quantum", CYAML_FLAG_OPTIONAL, struct policy_part, post_quantum),
    REAL("max_clip", struct policy_part, max_clip),
    NUMBER("max_steps", struct policy_part, max_steps),
    CYAML_FIELD_SEQUENCE("bases", CYAML_FLAG_DEFAULT, struct policy_part, bases, &digest_schema, 1,
                         DURE_POLICY_BASES_MAX),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t file_fields[] = {
    TEXT("federation", policy_file, federation),
    TEXT("name", policy_file, name),
    TEXT("endpoint", policy_file, endpoint),
    CYAML_FIELD_MAPPING("data", CYAML_FLAG_DEFAULT, policy_file, data, data_fields),
    TEXT("model", policy_file, model),
    CYAML_FIELD_UINT("memory_mb", CYAML_FLAG_OPTIONAL, policy_file, memory_mb),
    TEXT("ledger", policy_file, ledger),
    CYAML_FIELD_MAPPING("policy", CYAML_FLAG_DEFAULT, policy_file, policy, policy_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, policy_file, file_fields),
};

/* ---- writing ---- */

static void put_real(dure_buf *out, const char *key, double value, const char *remark)
{
    dure_put_format(out, "  %s: ", key);
    dure_yaml_put_number(out, value);
    dure_put_format(out, "   # %s\n", remark);
}

static void put_number(dure_buf *out, const char *key, uint64_t value, const char *remark)
{
    dure_put_format(out, "  %s: %llu   # %s\n", key, (unsigned long long)value, remark);
}

static void put_rules(dure_buf *out, const dure_policy *p)
{
    const char *comma = "";
    dure_put_format(out, "policy:\n");
    put_real(out, "epsilon", p->budget.epsilon, "the most that the source may ever spend");
    put_real(out, "delta", p->budget.delta, "at most 1 / (10 records)");
    dure_put_format(out, "  modes: [");
    for (size_t i = 0; i < CYAML_ARRAY_LEN(modes); i++) {
        if (!(p->modes & (uint32_t)modes[i].val)) continue;
        dure_put_format(out, "%s%s", comma, modes[i].str);
        comma = ", ";
    }
    dure_put_format(out,
                    "]   # 'none' accepts rounds without differential privacy, 'site' noise shared "
                    "by sites\n");
    put_number(out, "collusion", p->collusion, "other sites that may collude with the coordinator");
    put_number(out, "min_sites", p->min_sites, "in every sum, and different organisations");
    put_number(out, "min_threshold", p->min_threshold, "least t of the secure sum; 0: the rule's");
    put_real(out, "min_noise", p->min_noise, "least noise multiplier of this site");
    put_real(out, "max_rate", p->max_rate, "largest share of the records in one step");
    put_real(out, "max_clip", p->max_clip, "largest bound of one record's gradient");
    put_number(out, "max_steps", p->max_steps, "of the whole plan");
    dure_put_format(out,
                    "  post_quantum: %s   # true accepts only rounds with ML-KEM beside X25519\n",
                    p->post_quantum ? "true" : "false");
    dure_put_format(out, "  bases:   # SHA-256 of the base models that may be trained\n");
    for (uint32_t i = 0; i < p->n_bases; i++) {
        char hex[65];
        dure_hex_encode(hex, p->bases[i].b, sizeof p->bases[i].b);
        dure_put_format(out, "    - \"%s\"\n", hex);
    }
}

dure_err dure_policy_write(const char *path, const dure_policy *p, dure_diag *diag)
{
    dure_buf out;
    dure_buf_init(&out, DURE_POLICY_MAX_BYTES);
    dure_put_format(&out, "# This site's own rules. The coordinator cannot override any of them: a "
                          "round that\n# breaks one is refused here, before anything leaves.\n");
    dure_yaml_put_text(&out, "federation", p->federation);
    dure_yaml_put_text(&out, "name", p->name);
    dure_yaml_put_text(&out, "endpoint", p->endpoint);
    dure_put_format(&out, "data:\n");
    dure_yaml_put_text(&out, "  file", p->data);
    dure_yaml_put_text(&out, "  source", p->source);
    put_number(&out, "records", p->records, "public figure, declared at join");
    if (p->per_subject)
        put_number(&out, "per_subject", p->per_subject,
                   "records that a subject gives a step at most; 'records' counts subjects");
    if (p->ignore_subjects)
        dure_put_format(&out, "  ignore_subjects: true   # single records are protected\n");
    dure_yaml_put_text(&out, "model", p->model);
    dure_put_format(&out,
                    "memory_mb: %llu   # that training may take, in megabytes; 0: nine tenths of "
                    "the machine's or container's\n",
                    (unsigned long long)p->memory_mb);
    dure_yaml_put_text(&out, "ledger", p->ledger);
    put_rules(&out, p);
    dure_err err = dure_buf_err(&out);
    if (!err) err = dure_file_write_atomic(path, dure_buf_span(&out), 0600, diag);
    dure_buf_fini(&out);
    return err;
}

/* ---- reading ---- */

static dure_err out_of_range(dure_diag *diag, const char *key, const char *range)
{
    return dure_diag_set(diag, DURE_ERR_FORMAT, "policy.%s must be %s", key, range);
}

static dure_err check(const dure_policy *p, dure_diag *diag)
{
    if (p->records == 0 || p->records > DURE_DP_RECORDS_MAX) {
        return dure_diag_set(diag, DURE_ERR_FORMAT, "data.records must be above 0");
    }
    if (p->memory_mb > DURE_POLICY_MEMORY_MB_MAX) {
        return dure_diag_set(diag, DURE_ERR_FORMAT, "memory_mb must be at most %u",
                             DURE_POLICY_MEMORY_MB_MAX);
    }
    if (dure_privacy_check(p->budget, NULL)) {
        return out_of_range(diag, "epsilon and policy.delta", "above 0, and delta below 1");
    }
    const bool private_ = p->modes & ~(uint32_t)DURE_POLICY_MODE(DURE_PRIVACY_NONE);
    if (private_ && p->budget.delta > 0.1 / (double)p->records * (1 + 1e-12)) {
        return out_of_range(diag, "delta", "at most 1 / (10 x data.records)");
    }
    if (p->modes & DURE_POLICY_MODE(DURE_PRIVACY_CLIENT) &&
        p->budget.delta > DURE_DP_SITE_DELTA_MAX) {
        return out_of_range(diag, "delta", "at most 0.001, 1 / (10 x 100 sites), with mode 'site'");
    }
    if (p->modes == 0)
        return out_of_range(diag, "modes", "one or more of record, subject, site, none");
    if (p->collusion >= DURE_MEMBERS_MAX) return out_of_range(diag, "collusion", "below 100");
    if (p->min_sites > DURE_MEMBERS_MAX) return out_of_range(diag, "min_sites", "at most 100");
    if (p->min_threshold > DURE_MEMBERS_MAX) {
        return out_of_range(diag, "min_threshold", "at most 100");
    }
    if (!(p->min_noise >= 0) || !isfinite(p->min_noise)) {
        return out_of_range(diag, "min_noise", "0 or more");
    }
    if (!(p->max_rate > 0 && p->max_rate <= 1)) {
        return out_of_range(diag, "max_rate", "above 0 and at most 1");
    }
    if (!(p->max_clip > 0)) return out_of_range(diag, "max_clip", "above 0");
    return DURE_OK;
}

static dure_err convert(dure_policy *out, const policy_file *f, dure_diag *diag)
{
    const struct policy_part *r = &f->policy;
    *out = (dure_policy){.records = f->data.records,
                         .per_subject = f->data.per_subject,
                         .ignore_subjects = f->data.ignore_subjects,
                         .memory_mb = f->memory_mb,
                         .budget = {r->epsilon, r->delta},
                         .modes = r->modes,
                         .collusion = r->collusion,
                         .min_sites = r->min_sites,
                         .min_threshold = r->min_threshold,
                         .post_quantum = r->post_quantum,
                         .min_noise = r->min_noise,
                         .max_rate = r->max_rate,
                         .max_clip = r->max_clip,
                         .max_steps = r->max_steps,
                         .n_bases = r->bases_count};
    memcpy(out->federation, f->federation, sizeof out->federation);
    memcpy(out->name, f->name, sizeof out->name);
    memcpy(out->endpoint, f->endpoint, sizeof out->endpoint);
    memcpy(out->data, f->data.file, sizeof out->data);
    memcpy(out->source, f->data.source, sizeof out->source);
    memcpy(out->model, f->model, sizeof out->model);
    memcpy(out->ledger, f->ledger, sizeof out->ledger);
    for (uint32_t i = 0; i < out->n_bases; i++) {
        if (dure_hex_decode(out->bases[i].b, sizeof out->bases[i].b, r->bases[i])) {
            return out_of_range(diag, "bases", "SHA-256 digests of 64 hex digits");
        }
    }
    return check(out, diag);
}

dure_err dure_policy_parse(dure_policy *out, dure_span text, const char *name, dure_diag *diag)
{
    void *file = NULL;
    dure_err err = dure_yaml_parse(&file, &schema, text, name, diag);
    if (err) return err;
    err = convert(out, file, diag);
    if (err) dure_diag_prefix(diag, err, "%s", name);
    dure_yaml_free(&file, &schema);
    return err;
}

dure_err dure_policy_read(dure_policy *out, const char *path, dure_diag *diag)
{
    dure_buf text;
    dure_err err = dure_file_read(&text, path, DURE_POLICY_MAX_BYTES, diag);
    if (err) return err;
    err = dure_policy_parse(out, dure_buf_span(&text), path, diag);
    dure_buf_fini(&text);
    return err;
}

/* ---- judging ---- */

static dure_err forbid(dure_diag *diag, const char *what, const char *rule)
{
    return dure_diag_set(diag, DURE_ERR_POLICY,
                         "%s; site.yaml's policy.%s forbids it: change that rule, or stay out",
                         what, rule);
}

/* The rules that terms and round have in common. */
typedef struct offer {
    uint32_t mode, collusion;
    bool hybrid;
    double clip, rate, noise;
    uint64_t steps;
    const uint8_t *base;
} offer;

/* The noise of a site's round is that of u_min - c sites: who thinks that more than c collude
 * counts on fewer. */
static dure_err judge_shares(const dure_policy *p, const offer *o, dure_diag *diag)
{
    char what[160];
    if (o->mode != DURE_PRIVACY_CLIENT || p->collusion <= o->collusion) return DURE_OK;
    snprintf(what, sizeof what,
             "the shared noise is sized for %u colluding sites, not for the %u of this site",
             o->collusion, p->collusion);
    return forbid(diag, what, "collusion");
}

static const char *refused_mode(uint32_t mode)
{
    switch (mode) {
    case DURE_PRIVACY_NONE:
        return "the federation trains without differential privacy";
    case DURE_PRIVACY_CLIENT:
        return "the federation protects whole sites, by noise that they share and that holds only "
               "while enough of them are honest (dure join --accept-site-level)";
    default:
        return "the federation's privacy mode is not accepted";
    }
}

static dure_err judge_privacy(const dure_policy *p, const offer *o, dure_diag *diag)
{
    char what[160];
    if (!(p->modes & DURE_POLICY_MODE(o->mode))) {
        return forbid(diag, refused_mode(o->mode), "modes");
    }
    if (o->mode == DURE_PRIVACY_NONE) return DURE_OK;
    if (o->noise < p->min_noise) {
        snprintf(what, sizeof what, "the noise multiplier would be %.4g", o->noise);
        return forbid(diag, what, "min_noise");
    }
    if (o->rate > p->max_rate) {
        snprintf(what, sizeof what, "a step would take %.4g of the records", o->rate);
        return forbid(diag, what, "max_rate");
    }
    if (o->clip > p->max_clip) {
        snprintf(what, sizeof what, "the clip would be %g", o->clip);
        return forbid(diag, what, "max_clip");
    }
    if (o->steps > p->max_steps) {
        snprintf(what, sizeof what, "the plan has %llu steps", (unsigned long long)o->steps);
        return forbid(diag, what, "max_steps");
    }
    return judge_shares(p, o, diag);
}

static dure_err judge(const dure_policy *p, const offer *o, dure_diag *diag)
{
    bool known = false;
    for (uint32_t i = 0; i < p->n_bases; i++) {
        known = known || memcmp(p->bases[i].b, o->base, sizeof p->bases[i].b) == 0;
    }
    if (!known) return forbid(diag, "the base model is not one of this site's list", "bases");
    if (p->post_quantum && !o->hybrid)
        return forbid(diag, "the federation's keys are X25519 alone", "post_quantum");
    return judge_privacy(p, o, diag);
}

dure_err dure_policy_check_terms(const dure_policy *policy, const dure_terms *terms,
                                 const dure_dp_plan *plan, dure_diag *diag)
{
    const offer o = {.mode = terms->training.privacy_mode,
                     .collusion = terms->cohort.collusion,
                     .clip = terms->training.clip,
                     .rate = plan ? dure_dp_plan_rate(plan) : 0,
                     .noise = plan ? dure_dp_plan_sigma(plan) : 0,
                     .steps = (uint64_t)terms->training.rounds * terms->training.steps,
                     .hybrid = terms->cohort.post_quantum,
                     .base = terms->base.digest.b};
    dure_err err = judge(policy, &o, diag);
    if (err || !terms->cohort.post_quantum) return err;
    return dure_hybrid_check_machine("this site", diag);
}

/* The plan was calibrated to the budget from the safe side, so the slack is for rounding alone. */
dure_err dure_policy_check_budget(const dure_policy *policy, const dure_dp_plan *plan,
                                  dure_diag *diag)
{
    double epsilon = 0;
    dure_err err = dure_calibrate_epsilon(&epsilon, plan, NULL, policy->budget.delta);
    if (err) return dure_diag_set(diag, err, "cannot tell what the plan spends");
    if (epsilon <= policy->budget.epsilon * (1 + 1e-9)) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_POLICY,
                         "the plan that this site joined with spends epsilon %.6g at delta %.3g, "
                         "and site.yaml's policy allows %.6g: a joined plan does not change, so "
                         "put epsilon and delta back, or leave and join anew with less",
                         epsilon, policy->budget.delta, policy->budget.epsilon);
}

static double rate_of(const dure_member *m)
{
    return m->q_k == 0 ? 1 : ldexp((double)m->q_k, -64);
}

dure_err dure_policy_check_round(const dure_policy *policy, const dure_config *config,
                                 uint32_t self, dure_diag *diag)
{
    const dure_member *m = &config->members[self];
    const offer o = {.mode = config->privacy_mode,
                     .collusion = config->collusion,
                     .clip = config->clip,
                     .rate = rate_of(m),
                     .noise = (double)m->sigma_num / m->sigma_den,
                     .steps = (uint64_t)config->rounds * config->local_steps,
                     .hybrid = dure_suite_is_hybrid(config),
                     .base = config->base_digest};
    dure_err err = judge(policy, &o, diag);
    if (err) return err;
    if (config->n_members < policy->min_sites) {
        return forbid(diag, "the round has too few sites", "min_sites");
    }
    if (config->threshold < policy->min_threshold) {
        return forbid(diag, "the round's threshold is too low", "min_threshold");
    }
    if (2 * config->threshold <= config->n_members + policy->collusion) {
        return forbid(diag, "the round's threshold does not withstand the colluding sites",
                      "collusion");
    }
    if (config->n_members < policy->collusion + 2) {
        return forbid(diag, "the round has fewer than two sites beside the colluding ones",
                      "collusion");
    }
    return DURE_OK;
}

dure_secagg_floors dure_policy_floors(const dure_policy *policy)
{
    return (dure_secagg_floors){policy->collusion, policy->min_threshold, policy->min_sites};
}
