/* What training costs: tokens a second of whole optimizer steps, peak memory, and the share of what
 * the CPU's multipliers can do, measured in the same process.
 *
 *   bench_train MODEL.gguf [--dp] [--records N] [--length N] [--rank N] [--targets LIST]
 *               [--steps N] [--threads N] [--rows N] [--f32] [--profile] [--peak]
 *               [--file] [--recompute LAYERS] [--memory MB] [--dora] [--dropout PERCENT]
 *               [--cuda]
 *
 * Records are random tokens, all of them labels but the first. One step takes all records: with
 * --dp through clipping, the integer grid and exact noise, as `dure train` does. Prints one
 * tab-separated line: name, tokens/s (median of the steps), MB, GFLOP/s (4 a frozen weight and
 * token, 6 an adapter's, and attention), share of the peak, and tokens/s of the best step. --peak
 * measures the peak alone. What is expected goes to stderr before it starts, unless --file or
 * --recompute say how to work. With --cuda the passes run on the first GPU; the peak is the
 * CPU's all the same. */
#include "client/trainer.h"
#include "kernels/peak.h"
#include "model/transformer.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { STEPS_MAX = 100 };

typedef struct setup {
    const char *model, *targets;
    unsigned long records, length, rank, steps, threads, rows;
    unsigned long recompute, memory, dropout;
    bool dp, f32, peak, profile, file, dora, cuda;
    dure_gguf *gguf;
    dure_transformer *t;
    dure_lora *lora;
    dure_dataset data;
    dure_trainer *trainer;
    dure_dp_plan plan;
    dure_attempt attempt;
    double seconds[STEPS_MAX];
    size_t taken;
} setup;

/* Floating-point operations of one token of forward and backward. */
static double flops_per_token(const setup *s)
{
    const dure_model_shape *shape = dure_transformer_shape(s->t);
    double block = 0, head = (double)shape->n_embd * (double)shape->n_vocab;
    for (int k = 0; k < DURE_LORA_TARGETS; k++)
        block += (double)dure_lora_in(shape, (dure_lora_target)k) *
                 (double)dure_lora_out(shape, (dure_lora_target)k);
    double width = (double)shape->n_head * (double)shape->head_dim;
    /* Scores and values, over half of the document on average; the way back is 2.5 times that. */
    double attention = 3.5 * 2 * (double)s->length * width;
    return 4 * (block * shape->n_layers + head) + 6 * (double)s->lora->n +
           attention * shape->n_layers;
}

static double peak_gflops(const setup *s)
{
    dure_compute c = {.ops = dure_cpu_ops_of(
                          dure_cpu_best_up_to(s->f32 ? DURE_CPU_AVX512 : DURE_CPU_AVX512_BF16))};
    if (dure_pool_new(&c.pool, (uint32_t)s->threads, 0)) return 0;
    double peak = dure_peak_gflops(&c, 20);
    dure_pool_free(&c.pool);
    return peak;
}

static dure_err make_data(setup *s)
{
    uint32_t n_vocab = dure_transformer_shape(s->t)->n_vocab;
    uint64_t state = 1;
    dure_err err = DURE_OK;
    s->data.n = s->records;
    s->data.records = calloc(s->records, sizeof *s->data.records);
    if (!s->data.records) return DURE_ERR_NOMEM;
    for (size_t d = 0; d < s->records && !err; d++) {
        s->data.records[d] = (dure_record){.first = d * s->length,
                                           .n = s->length,
                                           .n_labels = (uint32_t)s->length - 1,
                                           .line = (uint32_t)d + 1};
        for (size_t i = 0; i < s->length && !err; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            err = dure_tokens_push(&s->data.tokens, (int32_t)((state >> 33) % n_vocab), i > 0);
        }
    }
    return err;
}

/* Noise of the same size as the clip, on a grid as `dure train` would choose it. */
static dure_err make_plan(setup *s, dure_diag *diag)
{
    static const dure_hash none = {{0}};
    static const uint8_t note[DURE_ATTEMPT_NOTE_BYTES] = {0};
    char path[64];
    s->plan = (dure_dp_plan){.mechanism = DURE_DP_POISSON_GAUSSIAN, .clip = 1, .steps = 1000};
    dure_err err = dure_dp_plan_set_batch(&s->plan, s->records, s->records, diag);
    if (!err) err = dure_dp_plan_set_sigma(&s->plan, 1.0, diag);
    if (!err) err = dure_dp_grid_bits(&s->plan.grid_bits, s->lora->n, diag);
    if (err) return err;
    snprintf(path, sizeof path, "/tmp/dure-bench-%ld.attempt", (long)getpid());
    return dure_attempt_begin(&s->attempt, path, &none, &none, note, diag);
}

/* Chooses how to stay within --memory, and says what it expects. */
static dure_err fit(setup *s, const dure_lora_layout *layout, const dure_trainer_opts *opts,
                    dure_diag *diag)
{
    dure_transformer_fit fit;
    const dure_trainer_task task = {
        .data = &s->data, .layout = layout, .opts = opts, .is_private = s->dp};
    dure_err err = dure_trainer_fit(&fit, s->t, &task, s->memory * 1000000, diag);
    if (err) return err;
    double tokens = (double)(s->records * s->length);
    double seconds = tokens * fit.seconds_per_token + fit.seconds_per_step;
    fprintf(
        stderr,
        "expected: %.0f MB, %.1f tokens/s; weights %s, %u layers twice, %zu rows, %zu records\n",
        (double)fit.bytes / 1e6, tokens / seconds, fit.packed ? "packed" : "from the file",
        fit.recompute, fit.rows, fit.whole);
    return DURE_OK;
}

static dure_trainer_opts trainer_opts(const setup *s)
{
    return (dure_trainer_opts){.factors = DURE_LORA_FACTOR_BOTH,
                               .optimizer = DURE_TRAINER_ADAMW,
                               .learning_rate = 1e-4,
                               .dropout = (double)s->dropout / 100,
                               .plan = s->dp ? &s->plan : NULL,
                               .attempt = s->dp ? &s->attempt : NULL,
                               .batch = s->records};
}

static dure_err open_model(setup *s, dure_diag *diag)
{
    bool by_hand = s->file || s->recompute;
    dure_transformer_opts opts = {.threads = (uint32_t)s->threads,
                                  .rows = (uint32_t)s->rows,
                                  .precision = s->f32 ? DURE_PRECISION_F32 : DURE_PRECISION_AUTO,
                                  .profile = s->profile,
                                  .cuda = s->cuda,
                                  .recompute = (uint32_t)s->recompute,
                                  .weights = s->file || !by_hand ? DURE_WEIGHTS_FILE
                                                                 : DURE_WEIGHTS_PACKED};
    dure_lora_layout layout = {.rank = (uint32_t)s->rank, .alpha = (float)s->rank, .dora = s->dora};
    dure_err err = dure_gguf_open(&s->gguf, s->model, NULL, diag);
    if (!err) err = dure_transformer_new(&s->t, s->gguf, &opts, diag);
    if (!err) err = dure_lora_targets_parse(&layout.targets, s->targets, diag);
    if (err) return err;
    layout.shape = *dure_transformer_shape(s->t);
    err = dure_lora_layout_check(&layout, diag);
    if (!err) err = make_data(s);
    const dure_trainer_opts train = trainer_opts(s);
    if (!err && !by_hand) err = fit(s, &layout, &train, diag);
    if (!err) err = dure_lora_new(&s->lora, &layout);
    return err;
}

static dure_err open_all(setup *s, dure_diag *diag)
{
    dure_err err = open_model(s, diag);
    if (err) return err;
    dure_lora_init_uniform(s->lora, 1);
    err = dure_transformer_init_magnitudes(s->t, s->lora, diag);
    if (!err && s->dp) err = make_plan(s, diag);
    if (err) return err;
    const dure_trainer_opts train = trainer_opts(s);
    return dure_trainer_new(&s->trainer, s->t, &s->data, s->lora, &train, diag);
}

static dure_err note_step(void *state, const dure_trainer_step *step)
{
    setup *s = state;
    s->seconds[s->taken++] = step->seconds;
    return DURE_OK;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Milliseconds a step, of all threads too; GFLOP/s, GB/s, and the share of the limit. */
static void print_profile(const setup *s, double peak)
{
    const dure_compute *c = dure_transformer_compute(s->t);
    const dure_limits limits = {.gflops = peak, .gbytes = dure_peak_gbytes(c)};
    double steps = (double)s->steps + 1;
    printf("phase\tms\tshare\tms of all threads\tGFLOP/s\tGB/s\tof the limit\n");
    for (int i = 0; i < DURE_PHASES; i++) {
        dure_phase_rate rate = dure_profile_rate(c->profile, (dure_phase)i, limits);
        printf("%s\t%.1f\t%.3f\t%.1f\t%.1f\t%.1f\t%.3f\n", dure_phase_name((dure_phase)i),
               rate.seconds / steps * 1e3, rate.share, c->profile->cpu_seconds[i] / steps * 1e3,
               rate.gflops, rate.gbytes, rate.of_limit);
    }
    printf("limits\t%.0f\tGFLOP/s\t%.1f\tGB/s\n", limits.gflops, limits.gbytes);
}

/* The first step warms up. */
static dure_err measure(setup *s, dure_diag *diag)
{
    double before = peak_gflops(s);
    dure_err err = dure_trainer_run(s->trainer, s->steps + 1, note_step, s, diag);
    if (err) return err;
    double after = peak_gflops(s), peak = before > after ? before : after;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    qsort(s->seconds + 1, s->steps, sizeof s->seconds[0], by_size);
    double rate = (double)(s->records * s->length) / s->seconds[1 + s->steps / 2];
    double gflops = rate * flops_per_token(s) * 1e-9;
    double best = (double)(s->records * s->length) / s->seconds[1];
    printf("%s\t%.0f\ttokens/s\t%ld\tMB\t%.1f\tGFLOP/s\t%.3f\tof the peak, %.0f\t%.0f\tat best\n",
           s->dp ? "dure-dp" : "dure", rate, usage.ru_maxrss * 1024 / 1000000, gflops,
           gflops / peak, peak, best);
    if (s->profile) print_profile(s, peak);
    return DURE_OK;
}

static void close_all(setup *s)
{
    dure_trainer_free(&s->trainer);
    if (s->attempt.path) (void)!dure_attempt_erase(&s->attempt, NULL);
    dure_attempt_fini(&s->attempt);
    dure_dataset_fini(&s->data);
    dure_lora_free(&s->lora);
    dure_transformer_free(&s->t);
    dure_gguf_close(&s->gguf);
}

static bool parse(setup *s, int argc, char **argv)
{
    static const struct option options[] = {
        {"dp", no_argument, NULL, 'd'},
        {"records", required_argument, NULL, 'n'},
        {"length", required_argument, NULL, 'l'},
        {"rank", required_argument, NULL, 'r'},
        {"targets", required_argument, NULL, 'm'},
        {"steps", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'},
        {"rows", required_argument, NULL, 'R'},
        {"f32", no_argument, NULL, 'f'},
        {"peak", no_argument, NULL, 'p'},
        {"profile", no_argument, NULL, 'P'},
        {"file", no_argument, NULL, 'F'},
        {"recompute", required_argument, NULL, 'c'},
        {"memory", required_argument, NULL, 'M'},
        {"dropout", required_argument, NULL, 'D'},
        {"dora", no_argument, NULL, 'o'},
        {"cuda", no_argument, NULL, 'C'},
        {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        unsigned long value = optarg ? strtoul(optarg, NULL, 10) : 0;
        unsigned long *to = c == 'n'   ? &s->records
                            : c == 'l' ? &s->length
                            : c == 'r' ? &s->rank
                            : c == 's' ? &s->steps
                            : c == 't' ? &s->threads
                            : c == 'R' ? &s->rows
                            : c == 'c' ? &s->recompute
                            : c == 'M' ? &s->memory
                            : c == 'D' ? &s->dropout
                                       : NULL;
        if (to) *to = value;
        if (c == 'm') s->targets = optarg;
        s->dp = s->dp || c == 'd';
        s->f32 = s->f32 || c == 'f';
        s->peak = s->peak || c == 'p';
        s->profile = s->profile || c == 'P';
        s->file = s->file || c == 'F';
        s->dora = s->dora || c == 'o';
        s->cuda = s->cuda || c == 'C';
        if (c == '?') return false;
    }
    s->model = argc > optind ? argv[optind] : NULL;
    return (s->model || s->peak) && s->records && s->length > 1 && s->steps && s->steps < STEPS_MAX;
}

int main(int argc, char **argv)
{
    setup s = {.targets = "all", .records = 64, .length = 128, .rank = 16, .steps = 5};
    dure_diag diag = {{0}};
    if (!parse(&s, argc, argv)) {
        fprintf(stderr, "usage: bench_train MODEL.gguf [--dp] [--records N] [--length N] "
                        "[--rank N] [--targets LIST] [--steps N] [--threads N] [--rows N] [--f32] "
                        "[--profile] [--peak] [--file] [--recompute LAYERS] [--memory MB] "
                        "[--dora] [--dropout PERCENT] [--cuda]\n");
        return 2;
    }
    if (dure_cpu_limit_unknown()) {
        fprintf(stderr, "DURE_MAX_CPU_ISA may be " DURE_CPU_LIMITS "\n");
        return 2;
    }
    if (s.peak) {
        printf("peak\t%.1f\tGFLOP/s\n", peak_gflops(&s));
        return 0;
    }
    dure_err err = open_all(&s, &diag);
    if (!err) {
        fprintf(stderr, "%s, %lu records of %lu tokens\n", dure_transformer_path(s.t), s.records,
                s.length);
        err = measure(&s, &diag);
    }
    if (err) fprintf(stderr, "bench_train: %s: %s\n", dure_err_text(err), diag.text);
    close_all(&s);
    return err ? 1 : 0;
}
