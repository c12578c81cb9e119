/* Tokens per second of evaluation and of per-record gradients, beside what the CPU's float32
 * units can do in the same run.
 *
 *   bench_train MODEL.gguf [THREADS [RECORDS [LENGTH [RANK [TARGETS [FIRST_LAYER]]]]]]
 *
 * Records are random tokens, the last third of each is its answer. Writes one line a measure to
 * stdout: name, tokens/s, GFLOP/s of the frozen products alone, and their share of the peak. */
#include "common/clock.h"
#include "kernels/compute.h"
#include "model/transformer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct setup {
    dure_gguf *gguf;
    dure_transformer *t;
    dure_lora *lora;
    dure_document *docs;
    int32_t *tokens;
    uint8_t *supervised;
    size_t n, length;
    uint32_t threads;
} setup;

enum { PEAK_ROWS = 56, PEAK_COLUMNS = 32, PEAK_DEPTH = 64, PEAK_REPEATS = 4000 };

static void peak_task(void *state, size_t task, void *scratch)
{
    const dure_cpu_ops *ops = state;
    float *a = scratch, *b = a + PEAK_ROWS * PEAK_DEPTH, *c = b + PEAK_COLUMNS * PEAK_DEPTH;
    (void)task;
    memset(scratch, 0, sizeof(float) * (PEAK_ROWS + PEAK_COLUMNS) * PEAK_DEPTH);
    for (int i = 0; i < PEAK_REPEATS; i++)
        ops->gemm(&(dure_gemm){.c = c,
                               .ldc = PEAK_COLUMNS,
                               .a = a,
                               .a_row = PEAK_DEPTH,
                               .a_step = 1,
                               .b = b,
                               .ldb = PEAK_COLUMNS,
                               .m = PEAK_ROWS,
                               .n = PEAK_COLUMNS,
                               .k = PEAK_DEPTH});
}

/* GFLOP/s of products that live in the first-level cache of every core. */
static double peak(uint32_t threads)
{
    dure_pool *pool = NULL;
    double best = 0;
    if (dure_pool_new(&pool, threads, 1 << 16)) return 0;
    union {
        const dure_cpu_ops *shared;
        void *state;
    } ops = {.shared = dure_cpu_ops_of(dure_cpu_best())};
    uint32_t n = dure_pool_threads(pool);
    for (int i = 0; i < 5; i++) {
        double started = dure_clock_monotonic_s();
        dure_pool_run(pool, n, peak_task, ops.state);
        double took = dure_clock_monotonic_s() - started;
        double rate = 2e-9 * n * PEAK_REPEATS * PEAK_ROWS * PEAK_COLUMNS * PEAK_DEPTH / took;
        if (rate > best) best = rate;
    }
    dure_pool_free(&pool);
    return best;
}

/* Products a token of forward makes with frozen weights: the layers', and the head's where there
 * is a label. */
static void count_weights(double *block, double *head, const dure_model_shape *s)
{
    *block = 0;
    for (int k = 0; k < DURE_LORA_TARGETS; k++)
        *block += (double)dure_lora_in(s, (dure_lora_target)k) *
                  (double)dure_lora_out(s, (dure_lora_target)k);
    *head = (double)s->n_embd * (double)s->n_vocab;
}

static void report(const char *name, const setup *s, double seconds, double flops, double most)
{
    double tokens = (double)(s->n * s->length), rate = flops / seconds * 1e-9;
    printf("%s\t%.0f\ttokens/s\t%.1f\tGFLOP/s\t%.2f\tof peak\n", name, tokens / seconds, rate,
           rate / most);
}

static dure_err ignore(void *state, size_t doc, const float *gradient,
                       const dure_document_loss *loss)
{
    (void)state, (void)doc, (void)gradient, (void)loss;
    return DURE_OK;
}

static dure_err measure(setup *s, double most, dure_diag *diag)
{
    const dure_model_shape *shape = dure_transformer_shape(s->t);
    dure_gradient_opts opts = {.factors = DURE_LORA_FACTOR_B};
    double block, head, best[2] = {1e30, 1e30}, tokens = (double)(s->n * s->length);
    dure_document_loss *losses = calloc(s->n, sizeof *losses);
    dure_err err = losses ? DURE_OK : DURE_ERR_NOMEM;
    for (int round = 0; round < 3 && !err; round++) {
        double started = dure_clock_monotonic_s();
        err = dure_transformer_loss(losses, s->t, s->lora, s->docs, s->n, diag);
        double middle = dure_clock_monotonic_s();
        if (!err)
            err =
                dure_transformer_gradients(s->t, s->lora, &opts, s->docs, s->n, ignore, NULL, diag);
        double ended = dure_clock_monotonic_s();
        if (middle - started < best[0]) best[0] = middle - started;
        if (ended - middle < best[1]) best[1] = ended - middle;
    }
    free(losses);
    if (err) return err;
    count_weights(&block, &head, shape);
    uint32_t trained = shape->n_layers - s->lora->layout.first_layer;
    double forward = 2 * tokens * (block * shape->n_layers + head / 3);
    double backward = 2 * tokens * (block * trained + head / 3);
    report("eval", s, best[0], forward, most);
    report("train", s, best[1], forward + backward, most);
    return DURE_OK;
}

static dure_err make_docs(setup *s)
{
    uint32_t n_vocab = dure_transformer_shape(s->t)->n_vocab;
    uint64_t state = 1;
    s->docs = calloc(s->n, sizeof *s->docs);
    s->tokens = calloc(s->n * s->length, sizeof *s->tokens);
    s->supervised = calloc(s->n * s->length, 1);
    if (!s->docs || !s->tokens || !s->supervised) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < s->n * s->length; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        s->tokens[i] = (int32_t)((state >> 33) % n_vocab);
        s->supervised[i] = i % s->length > 2 * s->length / 3;
    }
    for (size_t d = 0; d < s->n; d++)
        s->docs[d] =
            (dure_document){s->tokens + d * s->length, s->supervised + d * s->length, s->length};
    return DURE_OK;
}

static unsigned long number(int argc, char **argv, int at, unsigned long otherwise)
{
    return argc > at ? strtoul(argv[at], NULL, 10) : otherwise;
}

static dure_err open_all(setup *s, int argc, char **argv, dure_diag *diag)
{
    dure_lora_layout layout = {.rank = (uint32_t)number(argc, argv, 5, 8), .alpha = 16};
    dure_transformer_opts opts = {.threads = (uint32_t)number(argc, argv, 2, 0)};
    s->threads = opts.threads;
    s->n = number(argc, argv, 3, 64);
    s->length = number(argc, argv, 4, 64);
    dure_err err = dure_gguf_open(&s->gguf, argv[1], NULL, diag);
    if (!err) err = dure_transformer_new(&s->t, s->gguf, &opts, diag);
    if (!err) err = dure_lora_targets_parse(&layout.targets, argc > 6 ? argv[6] : "all", diag);
    if (err) return err;
    layout.shape = *dure_transformer_shape(s->t);
    layout.first_layer = (uint32_t)number(argc, argv, 7, 0);
    err = dure_lora_layout_check(&layout, diag);
    if (!err) err = dure_lora_new(&s->lora, &layout);
    if (err) return err;
    dure_lora_init_orthonormal(s->lora, 1);
    return make_docs(s);
}

int main(int argc, char **argv)
{
    setup s = {0};
    dure_diag diag = {{0}};
    if (argc < 2) {
        fprintf(stderr, "usage: bench_train MODEL.gguf [THREADS [RECORDS [LENGTH [RANK [TARGETS "
                        "[FIRST_LAYER]]]]]]\n");
        return 2;
    }
    dure_err err = open_all(&s, argc, argv, &diag);
    if (!err) {
        double most = peak(s.threads);
        printf("peak\t\t\t%.1f\tGFLOP/s\t1.00\tof peak\n", most);
        fprintf(stderr, "%s, %zu records of %zu tokens\n", dure_transformer_path(s.t), s.n,
                s.length);
        err = measure(&s, most, &diag);
    }
    if (err) fprintf(stderr, "bench_train: %s: %s\n", dure_err_text(err), diag.text);
    free(s.docs);
    free(s.tokens);
    free(s.supervised);
    dure_lora_free(&s.lora);
    dure_transformer_free(&s.t);
    dure_gguf_close(&s.gguf);
    return err ? 1 : 0;
}
