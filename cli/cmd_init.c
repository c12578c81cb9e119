/* dure init: a new federation. The model is read for its shape and digest; nothing of it is kept.
 */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "common/file.h"
#include "coordinator/founding.h"
#include "crypto/rng.h"
#include "dp/calibrate.h"
#include "dp/noise_share.h"
#include "federation/plan.h"
#include "model/base_digest.h"
#include "model/chat_template.h"
#include "model/dataset.h"
#include "model/shape.h"
#include "secagg/hybrid.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 100 sites of it stay below 2^31. */
#define SITE_LIMIT_BITS 24

typedef struct options {
    const char *dir, *model, *eval, *endpoint, *name, *targets, *suite, *unit;
    uint64_t rounds, steps, rank, first_layer, batch, max_length, min_sites, collusion, u_min;
    uint64_t lifetime_s, gate_records, seed;
    double alpha, learning_rate, clip, range, margin, noise, epsilon, delta;
    bool seed_given, no_dp, json, post_quantum, range_given, noise_given, epsilon_given,
        delta_given, unit_given, clip_given, alpha_given;
} options;

/* ---- what the model and the evaluation file say ---- */

static void fill_base(dure_base *base, const dure_model_shape *s)
{
    base->n_layers = s->n_layers;
    base->n_embd = s->n_embd;
    base->n_ff = s->n_ff;
    base->n_head = s->n_head;
    base->n_head_kv = s->n_head_kv;
    base->head_dim = s->head_dim;
    base->n_vocab = s->n_vocab;
    base->n_context = s->n_context;
    snprintf(base->architecture, sizeof base->architecture, "%s", s->architecture);
}

/* Every evaluation record must be usable: a bad line is found now, not in the first round. */
static dure_err check_eval(const dure_gguf *gguf, uint32_t n_context, const char *path,
                           dure_diag *diag)
{
    dure_tokenizer *tokenizer = NULL;
    dure_chat_template chat;
    dure_dataset data = {0};
    const dure_dataset_opts opts = {.max_length = n_context};
    dure_err err = dure_tokenizer_new(&tokenizer, gguf, diag);
    if (!err) err = dure_chat_template_open(&chat, NULL, gguf, tokenizer, diag);
    if (!err) err = dure_dataset_read(&data, path, tokenizer, &chat, &opts, diag);
    dure_dataset_fini(&data);
    dure_tokenizer_free(&tokenizer);
    return err;
}

static dure_err read_model(dure_model_shape *shape, dure_hash *digest, const options *o,
                           dure_diag *diag)
{
    dure_gguf *gguf = NULL;
    dure_err err = dure_gguf_open(&gguf, o->model, NULL, diag);
    if (!err) err = dure_model_shape_read(shape, gguf, diag);
    if (!err) err = dure_gguf_check_finite(gguf, diag);
    if (!err) err = check_eval(gguf, shape->n_context, o->eval, diag);
    if (!err) err = dure_base_digest(digest, o->model, diag);
    dure_gguf_close(&gguf);
    return err;
}

/* ---- the settings ---- */

static dure_err fill_layout(dure_layout_terms *l, const dure_model_shape *shape, const options *o,
                            dure_diag *diag)
{
    dure_lora_layout layout = {.shape = *shape,
                               .rank = (uint32_t)o->rank,
                               .alpha = (float)(o->alpha_given ? o->alpha : 2.0 * (double)o->rank),
                               .first_layer = (uint32_t)o->first_layer};
    dure_err err = dure_lora_targets_parse(&layout.targets, o->targets, diag);
    if (!err) err = dure_lora_layout_check(&layout, diag);
    if (err) return err;
    l->rank = layout.rank;
    l->alpha = (double)layout.alpha;
    l->targets = layout.targets;
    l->first_layer = layout.first_layer;
    l->seed = o->seed;
    l->n_active = dure_lora_count(&layout, DURE_LORA_FACTOR_B);
    l->n_params = dure_lora_count(&layout, DURE_LORA_FACTOR_BOTH);
    return DURE_OK;
}

static bool protects_site(const options *o)
{
    return !o->no_dp && strcmp(o->unit, "site") == 0;
}

static uint32_t mode_of(const options *o)
{
    if (o->no_dp) return DURE_PRIVACY_NONE;
    if (protects_site(o)) return DURE_PRIVACY_CLIENT;
    return strcmp(o->unit, "subject") ? DURE_PRIVACY_RECORD : DURE_PRIVACY_SUBJECT;
}

/* Noise shared by the sites is one figure for all, so it is found here and not when they join. The
 * words of the sum are the clip's grid, with all the room there is beside it for the noise. */
static dure_err fill_shares(dure_terms *t, const options *o, dure_diag *diag)
{
    const dure_declared anyone = {.n_pub = 1, .batch = 1};
    t->grid = (dure_grid){.range = ldexp(o->clip, SITE_LIMIT_BITS - (int)t->training.grid_bits),
                          .limit = 1u << SITE_LIMIT_BITS,
                          .modulus_bits = 32};
    t->training.sigma_num = DURE_DP_SIGMA_DEN;
    t->training.delta = o->delta;
    if (t->cohort.u_min < t->cohort.collusion + DURE_DP_HONEST_MIN)
        return dure_terms_check(t, diag); /* it names the rule */
    dure_dp_plan plan = dure_federation_plan(t, &anyone, t->training.rounds);
    const dure_privacy target = {o->epsilon, o->delta};
    dure_err err = o->noise_given ? dure_dp_plan_set_sigma(&plan, o->noise, diag)
                                  : dure_calibrate_sigma(&plan, NULL, target, diag);
    t->training.sigma_num = plan.sigma_num;
    /* No wider than the noise needs: it is also what a dishonest site may send. */
    while (!err && dure_share_reach(&plan) <= t->grid.limit / 2) {
        t->grid.limit /= 2;
        t->grid.range /= 2;
    }
    return err;
}

static void fill_terms(dure_terms *t, const options *o)
{
    snprintf(t->federation, sizeof t->federation, "%s", o->name);
    t->training = (dure_training_terms){.rounds = (uint32_t)o->rounds,
                                        .steps = (uint32_t)o->steps,
                                        .learning_rate = o->learning_rate,
                                        .clip = o->clip,
                                        .batch = (uint32_t)o->batch,
                                        .max_length = (uint32_t)o->max_length,
                                        .privacy_mode = mode_of(o),
                                        .optimizer = DURE_LOCAL_ADAMW,
                                        .beta1 = 0.9,
                                        .beta2 = 0.999,
                                        .optimizer_epsilon = 1e-8,
                                        .weight_decay = 0,
                                        .server_rate = 1};
    t->cohort = (dure_cohort_terms){.min_sites = (uint32_t)o->min_sites,
                                    .collusion = (uint32_t)o->collusion,
                                    .u_min = o->u_min ? (uint32_t)o->u_min
                                                      : dure_members_least((uint32_t)o->collusion),
                                    .share_lifetime_s = (uint32_t)o->lifetime_s,
                                    .post_quantum = o->post_quantum};
    t->grid = (dure_grid){.range = o->range, .limit = 65536, .modulus_bits = 24};
}

static dure_err absolute(char out[1024], const char *path, dure_diag *diag)
{
    char *full = realpath(path, NULL);
    if (!full) return dure_file_errno(diag, "open", path);
    const size_t n = strlen(full);
    if (n < 1024) memcpy(out, full, n + 1);
    free(full);
    return n < 1024 ? DURE_OK
                    : dure_diag_set(diag, DURE_ERR_LIMIT, "the path of %s is too long", path);
}

static dure_err fill_settings(dure_settings *s, const options *o, dure_diag *diag)
{
    dure_model_shape shape;
    dure_err err = dure_name_check(o->name, "the federation's name", diag);
    if (!err) err = absolute(s->model, o->model, diag);
    if (!err) err = absolute(s->eval, o->eval, diag);
    if (!err) err = read_model(&shape, &s->terms.base.digest, o, diag);
    if (!err) err = fill_layout(&s->terms.layout, &shape, o, diag);
    if (err) return err;
    fill_base(&s->terms.base, &shape);
    fill_terms(&s->terms, o);
    err = dure_dp_grid_bits(&s->terms.training.grid_bits, s->terms.layout.n_active, diag);
    if (!err && protects_site(o)) err = fill_shares(&s->terms, o, diag);
    if (err) return err;
    snprintf(s->endpoint, sizeof s->endpoint, "%s", o->endpoint);
    s->gate_margin = o->margin;
    s->gate_records = (uint32_t)o->gate_records;
    return dure_terms_check(&s->terms, diag);
}

/* ---- the command ---- */

static const char *mode_words(uint32_t mode)
{
    switch (mode) {
    case DURE_PRIVACY_NONE:
        return "without differential privacy";
    case DURE_PRIVACY_CLIENT:
        return "with differential privacy for whole sites";
    case DURE_PRIVACY_SUBJECT:
        return "with subject-level differential privacy";
    default:
        return "with record-level differential privacy";
    }
}

static void print_shares(const dure_terms *t, const options *o)
{
    const dure_declared anyone = {.n_pub = 1, .batch = 1, .sigma_num = t->training.sigma_num};
    const dure_dp_plan plan = dure_federation_plan(t, &anyone, t->training.rounds);
    double epsilon = INFINITY;
    if (dure_calibrate_epsilon(&epsilon, &plan, NULL, o->delta)) epsilon = INFINITY;
    printf("shared noise %.4g times the clip in every sum of %u honest sites or more (u-min less "
           "collusion);\n"
           "             epsilon %.4g at delta %.3g for a site's whole update or none, in all "
           "rounds (zCDP)\n",
           dure_dp_plan_sigma(&plan), plan.honest, epsilon, o->delta);
}

static int print_made(const dure_settings *s, const dure_founded *made, const options *o)
{
    const dure_terms *t = &s->terms;
    const uint32_t threshold = dure_terms_threshold(t->cohort.min_sites, t->cohort.collusion);
    char root[65], base[65], size[32], targets[64];
    dure_hex_encode(root, made->root_public, 32);
    dure_hex_encode(base, t->base.digest.b, 32);
    if (o->json)
        return dure_print_json(
            json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s}", "federation",
                      t->federation, "dir", o->dir, "root", root, "endpoint", s->endpoint, "base",
                      base, "trained_parameters", (json_int_t)t->layout.n_active, "rounds",
                      (json_int_t)t->training.rounds, "min_sites", (json_int_t)t->cohort.min_sites,
                      "threshold", (json_int_t)threshold, "suite",
                      t->cohort.post_quantum ? "hybrid" : "x25519"));
    dure_format_bytes(size, t->grid.modulus_bits / 8 * t->layout.n_active);
    dure_lora_targets_text(targets, t->layout.targets);
    printf("federation   %s\nroot key     %s\nbase model   %s\n", t->federation, root, base);
    printf("adapter      rank %u on %s: %llu parameters are trained, %s a site and round\n",
           t->layout.rank, targets, (unsigned long long)t->layout.n_active, size);
    printf("plan         %u rounds of %u steps, %s\n", t->training.rounds, t->training.steps,
           mode_words(t->training.privacy_mode));
    if (protects_site(o)) print_shares(t, o);
    printf("sites        at least %u a round; with %u, %u must stay to the end; %u may collude\n",
           t->cohort.min_sites, t->cohort.min_sites, threshold, t->cohort.collusion);
    printf("round keys   %s\n", t->cohort.post_quantum
                                    ? "X25519 with ML-KEM-768: every site needs OpenSSL 3.5"
                                    : "X25519");
    fprintf(stderr,
            "\n%s/admin holds the root key: keep it apart, the coordinator never needs it.\n"
            "Next: dure invite %s/admin NAME -o NAME.invitation\n"
            "      dure coordinator run %s/coordinator\n",
            o->dir, o->dir, o->dir);
    return 0;
}

static int make(options *o)
{
    dure_settings *settings = calloc(1, sizeof *settings);
    dure_founded made;
    dure_diag diag = {{0}};
    const dure_rng rng = dure_rng_system();
    dure_err err = settings ? DURE_OK : DURE_ERR_NOMEM;
    if (!err && o->post_quantum) err = dure_hybrid_check_machine("this coordinator", &diag);
    if (!err && !o->seed_given) {
        err = dure_rng_fill(&rng, &o->seed, sizeof o->seed);
        o->seed >>= 1; /* 63 bits: a JSON and a YAML integer hold it */
    }
    if (!err) err = fill_settings(settings, o, &diag);
    if (!err) err = dure_founding_make(&made, o->dir, settings, &diag);
    int status = err ? dure_fail("init", err, &diag) : print_made(settings, &made, o);
    free(settings);
    return status;
}

/* The last part of the folder's name, as far as a name may be. */
static const char *default_name(char name[DURE_NAME_SIZE], const char *dir)
{
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    size_t first = n;
    while (first > 0 && dir[first - 1] != '/')
        first--;
    snprintf(name, DURE_NAME_SIZE, "%.*s", (int)(n - first), dir + first);
    return dure_name_check(name, "", NULL) ? "federation" : name;
}

/* Whoever names a unit, a budget, noise or a clip expects that something is protected. */
static int check_no_dp(const options *o, const dure_usage *usage)
{
    const struct {
        const char *option;
        bool given;
    } all[] = {{"--unit", o->unit_given},
               {"--epsilon", o->epsilon_given},
               {"--delta", o->delta_given},
               {"--noise", o->noise_given},
               {"--clip", o->clip_given}};
    char text[64] = "";
    size_t n = 0;
    for (size_t i = 0; o->no_dp && i < N_ARGS(all); i++)
        if (all[i].given)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", n ? ", " : "", all[i].option);
    return n ? dure_args_refuse(usage, "--no-dp protects nobody: leave out %s", text) : 0;
}

/* What belongs to shared noise is there with it, and only with it. */
static int check_shared(const options *o, const dure_usage *usage)
{
    int exponent;
    if (protects_site(o) ? o->noise_given == o->epsilon_given
                         : o->noise_given || o->epsilon_given || o->delta_given)
        return dure_args_refuse(usage, protects_site(o)
                                           ? "with --unit site give --epsilon or --noise"
                                           : "--epsilon, --delta and --noise are for --unit site; "
                                             "other sites choose their own when they join");
    if (!protects_site(o)) return 0;
    if (!(o->delta > 0 && o->delta <= DURE_DP_SITE_DELTA_MAX))
        return dure_args_refuse(usage,
                                "--delta must be above 0 and, with --unit site, at most %g: one in "
                                "ten times the sites that a federation can have",
                                DURE_DP_SITE_DELTA_MAX);
    if (o->range_given)
        return dure_args_refuse(usage, "with --unit site the range follows from --clip");
    if (!(o->clip > 0 && frexp(o->clip, &exponent) == 0.5))
        return dure_args_refuse(usage,
                                "with --unit site the clip is a power of two such as 0.5, "
                                "not %g",
                                o->clip);
    return 0;
}

/* "tcp://HOST:PORT" with a port that a socket can have: it goes into every invitation. */
static bool is_endpoint(const char *text)
{
    if (strncmp(text, "tcp://", 6) != 0 || strlen(text) >= DURE_ENDPOINT_SIZE) return false;
    const char *colon = strrchr(text + 6, ':');
    if (!colon || colon == text + 6) return false;
    const size_t n = strspn(colon + 1, "0123456789");
    const unsigned long port = strtoul(colon + 1, NULL, 10);
    return n > 0 && n <= 5 && !colon[1 + n] && port > 0 && port <= 65535;
}

/* What the command line alone shows; the suite is settled here. */
static int check(options *o, const dure_usage *usage)
{
    if (!is_endpoint(o->endpoint))
        return dure_args_refuse(usage, "--endpoint must look like tcp://HOST:PORT, not '%s'",
                                o->endpoint);
    if (strcmp(o->unit, "record") != 0 && strcmp(o->unit, "subject") != 0 &&
        strcmp(o->unit, "site") != 0)
        return dure_args_refuse(usage, "--unit must be record, subject or site, not '%s'", o->unit);
    if (o->alpha_given && !(o->alpha > 0 && o->alpha <= DURE_TERMS_ALPHA_MAX))
        return dure_args_refuse(usage, "--alpha must be above 0 and at most %g, not %g",
                                DURE_TERMS_ALPHA_MAX, o->alpha);
    int refused = check_no_dp(o, usage);
    if (!refused) refused = check_shared(o, usage);
    if (refused) return refused;
    if (!o->suite) o->suite = dure_kem_available() ? "hybrid" : "x25519";
    o->post_quantum = strcmp(o->suite, "hybrid") == 0;
    if (!o->post_quantum && strcmp(o->suite, "x25519") != 0)
        return dure_args_refuse(usage, "--suite must be hybrid or x25519, not '%s'", o->suite);
    return 0;
}

/* The command line; one process runs one command. */
static options asked = {.targets = "q,v",
                        .unit = "record",
                        .rounds = 5,
                        .steps = 4,
                        .rank = 8,
                        .batch = 64,
                        .max_length = 512,
                        .min_sites = 3,
                        .collusion = 1,
                        .lifetime_s = 6 * 3600,
                        .learning_rate = 1e-3,
                        .clip = 1,
                        .range = 0.0625,
                        .delta = 1e-5};

/* The terms and the settings have the last word: of some the bounds depend on others, or on the
 * model. */
static const dure_arg args[] = {
    OPERAND("DIR", asked.dir, "the new folder", .required = true),
    OPTION(TEXT, "model", asked.model, "FILE", "the base model every site has, GGUF",
           .required = true),
    OPTION(TEXT, "eval", asked.eval, "FILE", "the federation's own records, for the gate (JSONL)",
           .required = true),
    OPTION(TEXT, "endpoint", asked.endpoint, "tcp://HOST:PORT", "where sites reach the coordinator",
           .required = true),
    OPTION(TEXT, "name", asked.name, "NAME", "the federation's name; default: the folder's"),
    OPTION(TEXT, "suite", asked.suite, "SUITE",
           "round keys: hybrid, X25519 with ML-KEM-768, needs OpenSSL 3.5 everywhere; or x25519"
           "; default: hybrid where this machine has it"),
    OPTION(TEXT, "targets", asked.targets, "LIST",
           "matrices to adapt: all, or q,k,v,o,gate,up,down; default q,v"),
    OPTION(COUNT, "rounds", asked.rounds, "N",
           "rounds planned; sites reserve budget for all; default 5", .least = 1,
           .most = DURE_TERMS_ROUNDS_MAX),
    OPTION(COUNT, "steps", asked.steps, "N", "local steps a round; default 4", .least = 1,
           .most = DURE_TERMS_STEPS_MAX),
    OPTION(COUNT, "rank", asked.rank, "N", "rank of the adapter; default 8", .least = 1,
           .most = DURE_LORA_RANK_MAX),
    GIVEN(NUMBER, "alpha", asked.alpha, "X", "scale of the adapter; default twice the rank"),
    OPTION(COUNT, "first-layer", asked.first_layer, "N",
           "adapt this layer and those above; default 0", .most = DURE_TERMS_LAYERS_MAX - 1),
    OPTION(COUNT, "batch", asked.batch, "N",
           "expected records a step proposed to sites; default 64", .least = 1,
           .most = DURE_TERMS_BATCH_MAX),
    OPTION(COUNT, "max-length", asked.max_length, "N",
           "tokens of a record, longer ones are cut; default 512", .least = DURE_TERMS_LENGTH_MIN,
           .most = DURE_TERMS_LENGTH_MAX),
    OPTION(NUMBER, "learning-rate", asked.learning_rate, "X", "of the sites' AdamW; default 0.001"),
    GIVEN(NUMBER, "clip", asked.clip, "X",
          "bound of one record's gradient, or of a site's whole update with --unit site and "
          "then a power of two; default 1; of records, in doubt the smaller: docs/accounting.md"),
    GIVEN(NUMBER, "range", asked.range, "X",
          "largest change of a parameter a round, a power of two; default 0.0625"),
    OPTION(COUNT, "min-sites", asked.min_sites, "N", "sites that a round waits for; default 3",
           .least = DURE_MEMBERS_LEAST, .most = DURE_MEMBERS_MAX),
    OPTION(COUNT, "collusion", asked.collusion, "N",
           "sites that may collude with the coordinator; default 1",
           .most = DURE_TERMS_COLLUSION_MAX),
    OPTION(COUNT, "u-min", asked.u_min, "N",
           "fewest sites in a sum; default: the larger of 3 and collusion + 2",
           .least = DURE_MEMBERS_LEAST, .most = DURE_MEMBERS_MAX),
    OPTION(COUNT, "share-lifetime", asked.lifetime_s, "N",
           "seconds a site keeps a round's secrets; default 21600",
           .least = DURE_TERMS_LIFETIME_S_MIN, .most = DURE_TERMS_LIFETIME_S_MAX),
    OPTION(NUMBER, "gate-margin", asked.margin, "X",
           "nats a token a candidate may be worse by; default 0"),
    OPTION(COUNT, "gate-records", asked.gate_records, "N",
           "evaluation records used a round; default all", .most = INT32_MAX),
    GIVEN(COUNT, "seed", asked.seed, "N", "of the frozen factor A, public; default random",
          .most = INT64_MAX),
    GIVEN(TEXT, "unit", asked.unit, "record|subject|site",
          "what is protected: one record; one subject with all its records at a site, each of "
          "which names it in \"subject\"; or a whole site, by noise that u-min less collusion "
          "honest sites share, which suits 50 to 100 small sites; default record"),
    GIVEN(NUMBER, "epsilon", asked.epsilon, "E",
          "with --unit site: of all rounds, which finds the noise"),
    GIVEN(NUMBER, "delta", asked.delta, "X",
          "with --unit site: that every epsilon is stated at; default 0.00001"),
    GIVEN(NUMBER, "noise", asked.noise, "X",
          "with --unit site, in place of --epsilon: of a sum, over the clip"),
    FLAG("no-dp", asked.no_dp, "train without differential privacy; each site must agree"),
    FLAG("json", asked.json, "one JSON object"),
};

int dure_cmd_init(int argc, char **argv)
{
    const dure_usage usage = {
        "init", "makes a federation: DIR/admin with its root key, DIR/coordinator with its state",
        args, N_ARGS(args),
        "dure init fed --model base.gguf --eval shared.jsonl --endpoint tcp://10.0.0.5:7700\n"
        "  dure init fleet --model base.gguf --eval shared.jsonl --endpoint tcp://10.0.0.5:7700 "
        "\\\n"
        "      --unit site --epsilon 8 --min-sites 60 --u-min 50 --collusion 10 --targets v"};
    char name[DURE_NAME_SIZE];
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    const int refused = check(&asked, &usage);
    if (refused) return refused;
    if (!asked.name) asked.name = default_name(name, asked.dir);
    return make(&asked);
}
