#include "federation/settings.h"

#include "common/file.h"
#include "common/yaml.h"

#include <string.h>

/* As the file groups things for a reader. */
typedef struct base_file {
    dure_base base;
    char sha256[65];
    char model[1024];
} base_file;

typedef struct settings_file {
    char federation[DURE_NAME_SIZE];
    char root[65];
    char endpoint[DURE_ENDPOINT_SIZE];
    base_file base;
    dure_layout_terms adapter;
    dure_training_terms training;
    dure_cohort_terms cohort;
    dure_grid grid;
    struct gate_file {
        char eval[1024];
        double margin;
        uint32_t records;
    } gate;
} settings_file;

/* In the order of the bits of model/lora.h, which also fixes the order in the vector. */
static const cyaml_strval_t targets[] = {{"q", 1},     {"k", 2},   {"v", 4},    {"o", 8},
                                         {"gate", 16}, {"up", 32}, {"down", 64}};
static const cyaml_strval_t modes[] = {{"record", DURE_PRIVACY_RECORD},
                                       {"subject", DURE_PRIVACY_SUBJECT},
                                       {"site", DURE_PRIVACY_CLIENT},
                                       {"none", DURE_PRIVACY_NONE}};
static const cyaml_strval_t optimizers[] = {{"adamw", DURE_LOCAL_ADAMW}, {"sgd", DURE_LOCAL_SGD}};

#define NUMBER(key, type, member) CYAML_FIELD_UINT(key, CYAML_FLAG_DEFAULT, type, member)
#define REAL(key, type, member) CYAML_FIELD_FLOAT(key, CYAML_FLAG_DEFAULT, type, member)
#define TEXT(key, type, member, least)                                                             \
    CYAML_FIELD_STRING(key, CYAML_FLAG_DEFAULT, type, member, least)

static const cyaml_schema_field_t base_fields[] = {
    TEXT("model", base_file, model, 1),
    TEXT("sha256", base_file, sha256, 64),
    TEXT("architecture", base_file, base.architecture, 1),
    NUMBER("layers", base_file, base.n_layers),
    NUMBER("embedding", base_file, base.n_embd),
    NUMBER("feed_forward", base_file, base.n_ff),
    NUMBER("heads", base_file, base.n_head),
    NUMBER("kv_heads", base_file, base.n_head_kv),
    NUMBER("head_dimension", base_file, base.head_dim),
    NUMBER("vocabulary", base_file, base.n_vocab),
    NUMBER("context", base_file, base.n_context),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t adapter_fields[] = {
    NUMBER("rank", dure_layout_terms, rank),
    REAL("alpha", dure_layout_terms, alpha),
    CYAML_FIELD_FLAGS("targets", CYAML_FLAG_STRICT, dure_layout_terms, targets, targets,
                      CYAML_ARRAY_LEN(targets)),
    NUMBER("first_layer", dure_layout_terms, first_layer),
    NUMBER("seed", dure_layout_terms, seed),
    NUMBER("trained", dure_layout_terms, n_active),
    NUMBER("parameters", dure_layout_terms, n_params),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t training_fields[] = {
    NUMBER("rounds", dure_training_terms, rounds),
    NUMBER("steps", dure_training_terms, steps),
    NUMBER("batch", dure_training_terms, batch),
    NUMBER("max_length", dure_training_terms, max_length),
    CYAML_FIELD_ENUM("privacy", CYAML_FLAG_STRICT, dure_training_terms, privacy_mode, modes,
                     CYAML_ARRAY_LEN(modes)),
    CYAML_FIELD_UINT("sigma_num", CYAML_FLAG_OPTIONAL, dure_training_terms, sigma_num),
    CYAML_FIELD_FLOAT("delta", CYAML_FLAG_OPTIONAL, dure_training_terms, delta),
    REAL("clip", dure_training_terms, clip),
    NUMBER("grid_bits", dure_training_terms, grid_bits),
    CYAML_FIELD_ENUM("optimizer", CYAML_FLAG_STRICT, dure_training_terms, optimizer, optimizers,
                     CYAML_ARRAY_LEN(optimizers)),
    REAL("learning_rate", dure_training_terms, learning_rate),
    REAL("beta1", dure_training_terms, beta1),
    REAL("beta2", dure_training_terms, beta2),
    REAL("optimizer_epsilon", dure_training_terms, optimizer_epsilon),
    REAL("weight_decay", dure_training_terms, weight_decay),
    REAL("server_rate", dure_training_terms, server_rate),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t cohort_fields[] = {
    NUMBER("min_sites", dure_cohort_terms, min_sites),
    NUMBER("collusion", dure_cohort_terms, collusion),
    NUMBER("u_min", dure_cohort_terms, u_min),
    NUMBER("share_lifetime_s", dure_cohort_terms, share_lifetime_s),
    CYAML_FIELD_BOOL("post_quantum", CYAML_FLAG_OPTIONAL, dure_cohort_terms, post_quantum),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t grid_fields[] = {
    REAL("range", dure_grid, range),
    NUMBER("limit", dure_grid, limit),
    NUMBER("modulus_bits", dure_grid, modulus_bits),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t gate_fields[] = {
    TEXT("eval", struct gate_file, eval, 1),
    REAL("margin", struct gate_file, margin),
    NUMBER("records", struct gate_file, records),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t file_fields[] = {
    TEXT("federation", settings_file, federation, 1),
    TEXT("root", settings_file, root, 64),
    TEXT("endpoint", settings_file, endpoint, 1),
    CYAML_FIELD_MAPPING("base", CYAML_FLAG_DEFAULT, settings_file, base, base_fields),
    CYAML_FIELD_MAPPING("adapter", CYAML_FLAG_DEFAULT, settings_file, adapter, adapter_fields),
    CYAML_FIELD_MAPPING("training", CYAML_FLAG_DEFAULT, settings_file, training, training_fields),
    CYAML_FIELD_MAPPING("cohort", CYAML_FLAG_DEFAULT, settings_file, cohort, cohort_fields),
    CYAML_FIELD_MAPPING("grid", CYAML_FLAG_DEFAULT, settings_file, grid, grid_fields),
    CYAML_FIELD_MAPPING("gate", CYAML_FLAG_DEFAULT, settings_file, gate, gate_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, settings_file, file_fields),
};

static void put_real(dure_buf *out, const char *key, double value)
{
    dure_put_format(out, "  %s: ", key);
    dure_yaml_put_number(out, value);
    dure_put_raw(out, "\n", 1);
}

static void put_base(dure_buf *out, const dure_settings *s)
{
    const dure_base *b = &s->terms.base;
    char hex[65];
    dure_hex_encode(hex, b->digest.b, sizeof b->digest.b);
    dure_put_format(out, "base:\n");
    dure_yaml_put_text(out, "  model", s->model);
    dure_yaml_put_text(out, "  sha256", hex);
    dure_yaml_put_text(out, "  architecture", b->architecture);
    dure_put_format(out,
                    "  layers: %u\n  embedding: %u\n  feed_forward: %u\n  heads: %u\n"
                    "  kv_heads: %u\n  head_dimension: %u\n  vocabulary: %u\n  context: %u\n",
                    b->n_layers, b->n_embd, b->n_ff, b->n_head, b->n_head_kv, b->head_dim,
                    b->n_vocab, b->n_context);
}

static void put_adapter(dure_buf *out, const dure_layout_terms *l)
{
    dure_put_format(out, "adapter:\n  rank: %u\n", l->rank);
    put_real(out, "alpha", l->alpha);
    dure_put_format(out, "  targets: [");
    const char *comma = "";
    for (size_t i = 0; i < CYAML_ARRAY_LEN(targets); i++) {
        if (!(l->targets >> i & 1)) continue;
        dure_put_format(out, "%s%s", comma, targets[i].str);
        comma = ", ";
    }
    dure_put_format(out,
                    "]\n  first_layer: %u\n  seed: %llu\n"
                    "  trained: %llu     # parameters of factor B, which the sites sum\n"
                    "  parameters: %llu\n",
                    l->first_layer, (unsigned long long)l->seed, (unsigned long long)l->n_active,
                    (unsigned long long)l->n_params);
}

static const char *mode_text(uint32_t mode)
{
    for (size_t i = 0; i < CYAML_ARRAY_LEN(modes); i++)
        if ((uint32_t)modes[i].val == mode) return modes[i].str;
    return "none";
}

static void put_training(dure_buf *out, const dure_training_terms *t)
{
    dure_put_format(out,
                    "training:\n  rounds: %u\n  steps: %u\n  batch: %u\n  max_length: %u\n"
                    "  privacy: %s\n",
                    t->rounds, t->steps, t->batch, t->max_length, mode_text(t->privacy_mode));
    if (t->privacy_mode == DURE_PRIVACY_CLIENT) {
        dure_put_format(out, "  sigma_num: %u     # noise of a sum over the clip, in 1/65536\n",
                        t->sigma_num);
        put_real(out, "delta", t->delta);
    }
    put_real(out, "clip", t->clip);
    dure_put_format(out, "  grid_bits: %u\n  optimizer: %s\n", t->grid_bits,
                    t->optimizer == DURE_LOCAL_ADAMW ? "adamw" : "sgd");
    put_real(out, "learning_rate", t->learning_rate);
    put_real(out, "beta1", t->beta1);
    put_real(out, "beta2", t->beta2);
    put_real(out, "optimizer_epsilon", t->optimizer_epsilon);
    put_real(out, "weight_decay", t->weight_decay);
    put_real(out, "server_rate", t->server_rate);
}

static void put_settings(dure_buf *out, const dure_settings *s)
{
    char hex[65];
    dure_hex_encode(hex, s->root_public, sizeof s->root_public);
    dure_put_format(
        out, "# The federation's terms, which its root signed into every invitation, and what\n"
             "# the coordinator needs to run. Only endpoint, base.model and gate may change.\n");
    dure_yaml_put_text(out, "federation", s->terms.federation);
    dure_yaml_put_text(out, "root", hex);
    dure_yaml_put_text(out, "endpoint", s->endpoint);
    put_base(out, s);
    put_adapter(out, &s->terms.layout);
    put_training(out, &s->terms.training);
    const dure_cohort_terms *c = &s->terms.cohort;
    dure_put_format(out,
                    "cohort:\n  min_sites: %u\n  collusion: %u\n  u_min: %u\n"
                    "  share_lifetime_s: %u\n",
                    c->min_sites, c->collusion, c->u_min, c->share_lifetime_s);
    if (c->post_quantum) dure_put_format(out, "  post_quantum: true\n");
    dure_put_format(out, "grid:\n");
    put_real(out, "range", s->terms.grid.range);
    dure_put_format(out, "  limit: %u\n  modulus_bits: %u\ngate:\n", s->terms.grid.limit,
                    s->terms.grid.modulus_bits);
    dure_yaml_put_text(out, "  eval", s->eval);
    put_real(out, "margin", s->gate_margin);
    dure_put_format(out, "  records: %u     # 0: all\n", s->gate_records);
}

static dure_err check(const dure_settings *s, dure_diag *diag)
{
    if (!(s->gate_margin >= 0 && s->gate_margin <= 10))
        return dure_diag_set(diag, DURE_ERR_USAGE, "gate.margin is %g, but must be from 0 to 10",
                             s->gate_margin);
    return dure_terms_check(&s->terms, diag);
}

dure_err dure_settings_write(const char *path, const dure_settings *settings, dure_diag *diag)
{
    dure_err err = check(settings, diag);
    if (err) return err;
    dure_buf text;
    dure_buf_init(&text, DURE_SETTINGS_MAX_BYTES);
    put_settings(&text, settings);
    err = dure_buf_err(&text);
    if (!err) err = dure_file_write_atomic(path, dure_buf_span(&text), 0644, diag);
    dure_buf_fini(&text);
    return err;
}

static dure_err convert(dure_settings *out, const settings_file *file, dure_diag *diag)
{
    dure_settings s = {.terms = {.base = file->base.base,
                                 .layout = file->adapter,
                                 .training = file->training,
                                 .cohort = file->cohort,
                                 .grid = file->grid},
                       .gate_margin = file->gate.margin,
                       .gate_records = file->gate.records};
    memcpy(s.terms.federation, file->federation, sizeof s.terms.federation);
    memcpy(s.endpoint, file->endpoint, sizeof s.endpoint);
    memcpy(s.model, file->base.model, sizeof s.model);
    memcpy(s.eval, file->gate.eval, sizeof s.eval);
    dure_err err = dure_hex_decode(s.root_public, sizeof s.root_public, file->root);
    if (err) return dure_diag_set(diag, err, "root must be 64 hex digits");
    err = dure_hex_decode(s.terms.base.digest.b, sizeof s.terms.base.digest.b, file->base.sha256);
    if (err) return dure_diag_set(diag, err, "base.sha256 must be 64 hex digits");
    err = check(&s, diag);
    if (err) return err;
    *out = s;
    return DURE_OK;
}

dure_err dure_settings_parse(dure_settings *out, dure_span text, const char *name, dure_diag *diag)
{
    void *file = NULL;
    dure_err err = dure_yaml_parse(&file, &schema, text, name, diag);
    if (err) return err;
    err = convert(out, file, diag);
    if (err) dure_diag_prefix(diag, err, "%s", name);
    dure_yaml_free(&file, &schema);
    return err;
}

dure_err dure_settings_read(dure_settings *out, const char *path, dure_diag *diag)
{
    dure_buf text;
    dure_err err = dure_file_read(&text, path, DURE_SETTINGS_MAX_BYTES, diag);
    if (err) return err;
    err = dure_settings_parse(out, dure_buf_span(&text), path, diag);
    dure_buf_fini(&text);
    return err;
}
