/* The transformer on a GPU (emulated, or in a build with CUDA the machine's) against the CPU's
 * engine in float32: loss, every factor's gradient, and the promise that a record's gradient is its
 * own. What differs is the rounding of weights and activations to bfloat16. */
#include "kernels/optimizer.h"
#include "model/decode.h"
#include "model/transformer_cuda.h"
#include "support/check.h"
#include "support/gpu.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"
#ifdef DURE_TEST_EMULATED
#include "kernels/cuda/emulated.h"
#endif

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_DOCS = 5, MAX_TOKENS = 64, STEPS = 20 };

/* What bfloat16 may change: a record's loss, and the length of the difference of one factor's
 * gradient over the length of it. The CPU's own bfloat16 level differs from float32 by up to 0.05
 * on these models, with other roundings. */
#define LOSS_ERROR 0.005
#define GRADIENT_ERROR 0.08
/* Of the largest logit. */
#define LOGIT_ERROR 0.05f

typedef struct fixture {
    temp_dir dir;
    dure_gguf *gguf;
    dure_transformer *cpu, *gpu;
    dure_lora *lora;
    int32_t tokens[N_DOCS][MAX_TOKENS];
    uint8_t supervised[N_DOCS][MAX_TOKENS];
    dure_document docs[N_DOCS];
} fixture;

static uint64_t rng;

static float uniform(void)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (float)(rng >> 40) * 0x1p-23f - 1.0f;
}

/* From those that change nothing to others. */
static void change_magnitudes(fixture *f)
{
    const dure_lora_layout *layout = &f->lora->layout;
    size_t at;
    dure_lora_changed(f->lora);
    assert_ok(dure_transformer_init_magnitudes(f->cpu, f->lora, NULL));
    for (uint32_t layer = 0; layer < layout->shape.n_layers; layer++)
        for (int k = 0; k < DURE_LORA_TARGETS; k++) {
            dure_lora_target target = (dure_lora_target)k;
            if (!dure_lora_find_magnitude(&at, layout, layer, target)) continue;
            for (size_t i = 0; i < dure_lora_out(&layout->shape, target); i++)
                f->lora->params[at + i] *= 1 + 0.5f * uniform();
        }
    dure_lora_changed(f->lora);
}

static void make_lora(fixture *f, const dure_lora_layout *like)
{
    dure_lora_layout layout = *like;
    layout.shape = *dure_transformer_shape(f->cpu);
    layout.alpha = 2.0f * (float)layout.rank;
    if (!layout.targets) layout.targets = 127;
    assert_ok(dure_lora_layout_check(&layout, NULL));
    assert_ok(dure_lora_new(&f->lora, &layout));
    for (size_t i = 0; i < f->lora->n; i++)
        f->lora->params[i] = 0.2f * uniform();
    if (layout.dora) change_magnitudes(f);
}

/* Documents of 2 to 61 tokens; the last third of each is its answer, and one has none. */
static void make_docs(fixture *f)
{
    static const size_t lengths[N_DOCS] = {17, 2, 61, 30, 9};
    for (size_t d = 0; d < N_DOCS; d++) {
        size_t n = lengths[d];
        for (size_t i = 0; i < n; i++) {
            f->tokens[d][i] = (int32_t)((uniform() + 1) * 0.49f * TINY_VOCAB);
            f->supervised[d][i] = d != 1 && i > 0 && i >= n - n / 3 - 1;
        }
        f->docs[d] = (dure_document){f->tokens[d], f->supervised[d], n};
    }
}

static void set_up(fixture *f, const tiny_model_opts *model, const dure_lora_layout *layout,
                   uint32_t rows)
{
    dure_diag diag = {{0}};
    const dure_transformer_opts opts = {
        .threads = 1, .precision = DURE_PRECISION_F32, .weights = DURE_WEIGHTS_FILE, .rows = rows};
    memset(f, 0, sizeof *f);
    rng = 7;
    temp_dir_make(&f->dir);
    const char *path = temp_dir_file(&f->dir, "tiny.gguf");
    tiny_model_write(path, model);
    assert_ok(dure_gguf_open(&f->gguf, path, NULL, &diag));
    assert_ok(dure_transformer_new(&f->cpu, f->gguf, &opts, &diag));
    assert_ok(dure_transformer_new(&f->gpu, f->gguf, &opts, &diag));
    dure_err err = dure_transformer_cuda_attach(f->gpu, 0, &diag);
    if (err) print_error("%s\n", diag.text);
    assert_ok(err);
    make_lora(f, layout);
    make_docs(f);
}

static void tear_down(fixture *f)
{
    gpu_reverse(false);
    dure_lora_free(&f->lora);
    dure_transformer_free(&f->cpu);
    dure_transformer_free(&f->gpu);
    dure_gguf_close(&f->gguf);
    temp_dir_remove(&f->dir);
}

typedef struct collected {
    float *gradients; /* N_DOCS x n */
    size_t n;
    bool none[N_DOCS];
    dure_document_loss loss[N_DOCS];
} collected;

static dure_err collect(void *state, size_t doc, const float *gradient,
                        const dure_document_loss *loss)
{
    collected *c = state;
    c->loss[doc] = *loss;
    c->none[doc] = !gradient;
    if (gradient) memcpy(c->gradients + doc * c->n, gradient, c->n * sizeof *gradient);
    return DURE_OK;
}

static collected gradients(dure_transformer *t, const fixture *f, const dure_gradient_opts *opts,
                           size_t first, size_t n)
{
    dure_diag diag = {{0}};
    collected c = {.n = dure_lora_count(&f->lora->layout, opts->factors)};
    c.gradients = calloc(N_DOCS * c.n, sizeof *c.gradients);
    assert_non_null(c.gradients);
    dure_err err =
        dure_transformer_gradients(t, f->lora, opts, f->docs + first, n, collect, &c, &diag);
    if (err) print_error("%s\n", diag.text);
    assert_ok(err);
    return c;
}

/* Of one matrix's A, B or magnitudes; 0: it has none. */
static size_t find_block(size_t *at, const dure_lora_layout *layout, uint32_t layer,
                         dure_lora_target target, char which)
{
    size_t rank = dure_lora_rank(layout, target), out = dure_lora_out(&layout->shape, target);
    if (which == 'm') return dure_lora_find_magnitude(at, layout, layer, target) ? out : 0;
    if (!dure_lora_find(at, layout, layer, target,
                        which == 'B' ? DURE_LORA_FACTOR_B : DURE_LORA_FACTOR_A))
        return 0;
    return rank * (which == 'B' ? out : dure_lora_in(&layout->shape, target));
}

static double error_of(const float *got, const float *expected, size_t n)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double x = (double)got[i], y = (double)expected[i];
        assert_true(isfinite(x));
        difference += (x - y) * (x - y);
        size += y * y;
    }
    assert_true(size > 0);
    return sqrt(difference / size);
}

/* Every matrix's factor on its own. */
static void check_blocks(const fixture *f, const float *got, const float *expected)
{
    static const char kinds[] = "ABm";
    const dure_lora_layout *layout = &f->lora->layout;
    for (uint32_t layer = layout->first_layer; layer < layout->shape.n_layers; layer++)
        for (int k = 0; k < 3 * DURE_LORA_TARGETS; k++) {
            size_t at = 0,
                   n = find_block(&at, layout, layer, (dure_lora_target)(k / 3), kinds[k % 3]);
            if (n == 0) continue;
            double error = error_of(got + at, expected + at, n);
            if (error > GRADIENT_ERROR)
                print_error("layer %u target %d %c: %g\n", layer, k / 3, kinds[k % 3], error);
            assert_true(error <= GRADIENT_ERROR);
        }
}

static void check_gradients(const fixture *f, const collected *gpu, const collected *cpu)
{
    for (size_t d = 0; d < N_DOCS; d++) {
        assert_int_equal(gpu->none[d], cpu->none[d]);
        assert_int_equal(gpu->loss[d].n_labels, cpu->loss[d].n_labels);
        assert_true(gpu->loss[d].finite);
        assert_true(fabs(gpu->loss[d].nll_sum - cpu->loss[d].nll_sum) <=
                    LOSS_ERROR * cpu->loss[d].nll_sum);
        if (!cpu->none[d])
            check_blocks(f, gpu->gradients + d * gpu->n, cpu->gradients + d * cpu->n);
    }
}

static void check_model(const tiny_model_opts *model, const dure_lora_layout *layout)
{
    fixture f;
    dure_document_loss loss[N_DOCS], expected[N_DOCS];
    const dure_gradient_opts opts = {.factors = DURE_LORA_FACTOR_BOTH};
    set_up(&f, model, layout, 0);
    collected cpu = gradients(f.cpu, &f, &opts, 0, N_DOCS);
    collected gpu = gradients(f.gpu, &f, &opts, 0, N_DOCS);
    gpu_reverse(true);
    collected again = gradients(f.gpu, &f, &opts, 0, N_DOCS);
    assert_memory_equal(again.gradients, gpu.gradients, N_DOCS * gpu.n * sizeof(float));
    check_gradients(&f, &gpu, &cpu);
    /* Without an adapter too. */
    assert_ok(dure_transformer_loss(expected, f.cpu, NULL, f.docs, N_DOCS, NULL));
    assert_ok(dure_transformer_loss(loss, f.gpu, NULL, f.docs, N_DOCS, NULL));
    for (size_t d = 0; d < N_DOCS; d++)
        assert_true(fabs(loss[d].nll_sum - expected[d].nll_sum) <=
                    LOSS_ERROR * expected[d].nll_sum);
    free(cpu.gradients), free(gpu.gradients), free(again.gradients);
    tear_down(&f);
}

static void test_cuda_transformer_matches_the_cpu(void **state)
{
    (void)state;
    check_model(&(tiny_model_opts){.seed = 1}, &(dure_lora_layout){.rank = 3});
    check_model(&(tiny_model_opts){.seed = 2, .untied = true, .rope_freqs = true, .n_layers = 3},
                &(dure_lora_layout){.rank = 16, .first_layer = 1});
    check_model(&(tiny_model_opts){.seed = 3, .type = TINY_Q4_1, .n_layers = 1},
                &(dure_lora_layout){.rank = 9, .targets = 1 << DURE_LORA_K | 1 << DURE_LORA_DOWN});
}

static void test_cuda_transformer_of_every_architecture_matches_the_cpu(void **state)
{
    (void)state;
    const dure_lora_layout layout = {.rank = 4};
    check_model(&(tiny_model_opts){.seed = 21, .arch = "qwen2"}, &layout);
    check_model(&(tiny_model_opts){.seed = 22, .arch = "qwen3", .head_dim = 32}, &layout);
    check_model(
        &(tiny_model_opts){
            .seed = 23, .arch = "gemma3", .head_dim = 32, .n_layers = 3, .window = 9},
        &layout);
}

static void test_cuda_transformer_of_targets_with_ranks_of_their_own(void **state)
{
    (void)state;
    dure_lora_layout layout = {.rank = 3};
    layout.ranks[DURE_LORA_V] = 12;
    layout.ranks[DURE_LORA_UP] = 8;
    check_model(&(tiny_model_opts){.seed = 4, .type = TINY_Q8_0}, &layout);
}

/* With and without a norm behind the halves, and with matrices that have no magnitudes. */
static void test_cuda_transformer_of_dora_matches_the_cpu(void **state)
{
    (void)state;
    const dure_lora_layout all = {.rank = 4, .dora = true};
    check_model(&(tiny_model_opts){.seed = 31, .n_layers = 3, .type = TINY_Q8_0},
                &(dure_lora_layout){.rank = 4, .dora = true, .first_layer = 1});
    check_model(&(tiny_model_opts){.seed = 32, .arch = "gemma3", .head_dim = 32, .window = 9},
                &all);
    check_model(&(tiny_model_opts){.seed = 33, .arch = "qwen2", .n_layers = 1},
                &(dure_lora_layout){.rank = 9,
                                    .dora = true,
                                    .targets = 1 << DURE_LORA_Q | 1 << DURE_LORA_V |
                                               1 << DURE_LORA_UP | 1 << DURE_LORA_O});
}

/* In any packing; of B and the magnitudes, and of A alone, where nobody asks for theirs. */
static void test_cuda_transformer_of_dora_gives_a_record_its_own(void **state)
{
    (void)state;
    fixture f;
    set_up(&f, &(tiny_model_opts){.seed = 34}, &(dure_lora_layout){.rank = 3, .dora = true}, 40);
    for (dure_lora_factor factor = DURE_LORA_FACTOR_A; factor <= DURE_LORA_FACTOR_B; factor++) {
        const uint64_t seeds[N_DOCS] = {3, 3, 3, 3, 3};
        const dure_gradient_opts opts = {.factors = factor, .dropout = 0.2, .dropout_seeds = seeds};
        collected all = gradients(f.gpu, &f, &opts, 0, N_DOCS);
        collected cpu = gradients(f.cpu, &f, &opts, 0, N_DOCS);
        for (size_t d = 0; d < N_DOCS; d++) {
            collected alone = gradients(f.gpu, &f, &opts, d, 1);
            assert_memory_equal(alone.gradients, all.gradients + d * all.n, all.n * sizeof(float));
            if (!all.none[d])
                assert_true(error_of(alone.gradients, cpu.gradients + d * all.n, all.n) <=
                            GRADIENT_ERROR);
            free(alone.gradients);
        }
        free(all.gradients), free(cpu.gradients);
    }
    tear_down(&f);
}

/* The same elements are left out as on the CPU, and some are. */
static void test_cuda_transformer_drops_what_the_cpu_drops(void **state)
{
    (void)state;
    fixture f;
    const uint64_t seeds[N_DOCS] = {3, 1, 4, 1, 5};
    dure_gradient_opts opts = {
        .factors = DURE_LORA_FACTOR_BOTH, .dropout = 0.3, .dropout_seeds = seeds};
    set_up(&f, &(tiny_model_opts){.seed = 17, .n_layers = 3}, &(dure_lora_layout){.rank = 5}, 0);
    collected cpu = gradients(f.cpu, &f, &opts, 0, N_DOCS);
    collected gpu = gradients(f.gpu, &f, &opts, 0, N_DOCS);
    check_gradients(&f, &gpu, &cpu);
    opts.dropout = 0;
    collected all = gradients(f.gpu, &f, &opts, 0, N_DOCS);
    assert_memory_not_equal(all.gradients, gpu.gradients, gpu.n * sizeof(float));
    free(cpu.gradients), free(gpu.gradients), free(all.gradients);
    tear_down(&f);
}

/* Alone, and in passes of another size. */
static void test_cuda_transformer_record_is_itself_in_any_packing(void **state)
{
    (void)state;
    fixture f;
    const dure_gradient_opts opts = {.factors = DURE_LORA_FACTOR_B};
    set_up(&f, &(tiny_model_opts){.seed = 5, .type = TINY_Q8_0}, &(dure_lora_layout){.rank = 3}, 0);
    collected all = gradients(f.gpu, &f, &opts, 0, N_DOCS);
    for (size_t d = 0; d < N_DOCS; d++) {
        collected alone = gradients(f.gpu, &f, &opts, d, 1);
        assert_memory_equal(alone.gradients, all.gradients + d * all.n, all.n * sizeof(float));
        assert_memory_equal(&alone.loss[0].nll_sum, &all.loss[d].nll_sum, sizeof(double));
        free(alone.gradients);
    }
    tear_down(&f);
    set_up(&f, &(tiny_model_opts){.seed = 5, .type = TINY_Q8_0}, &(dure_lora_layout){.rank = 3},
           40);
    collected cut = gradients(f.gpu, &f, &opts, 0, N_DOCS);
    assert_memory_equal(cut.gradients, all.gradients, N_DOCS * all.n * sizeof(float));
    free(cut.gradients), free(all.gradients);
    tear_down(&f);
}

static void check_together(bool dora)
{
    fixture f;
    set_up(&f, &(tiny_model_opts){.seed = 6}, &(dure_lora_layout){.rank = 3, .dora = dora}, 0);
    dure_gradient_opts opts = {.factors = DURE_LORA_FACTOR_BOTH, .sum_of_labels = true};
    collected each = gradients(f.gpu, &f, &opts, 0, N_DOCS);
    opts.together = true;
    collected sum = gradients(f.gpu, &f, &opts, 0, N_DOCS);
    assert_true(sum.none[0] && !sum.none[N_DOCS - 1]);
    for (size_t i = 0; i < sum.n; i++) {
        double expected = 0, size = 1e-6;
        for (size_t d = 0; d < N_DOCS; d++) {
            double x = (double)each.gradients[d * each.n + i];
            expected += x;
            size += fabs(x);
        }
        double got = (double)sum.gradients[(N_DOCS - 1) * sum.n + i];
        assert_true(fabs(got - expected) <= 1e-4 * size);
    }
    free(each.gradients), free(sum.gradients);
    tear_down(&f);
}

static void test_cuda_transformer_sums_records_together(void **state)
{
    (void)state;
    check_together(false);
    check_together(true);
}

/* The mean loss of every step of training B and A with AdamW. */
static void train(double losses[STEPS], dure_transformer *t, fixture *f)
{
    dure_compute c = *dure_transformer_compute(f->cpu);
    dure_adamw adam;
    const dure_adamw_opts adamw = {.learning_rate = 0.01};
    const dure_gradient_opts opts = {.factors = DURE_LORA_FACTOR_BOTH};
    assert_ok(dure_adamw_init(&adam, f->lora->n));
    for (int s = 0; s < STEPS; s++) {
        collected g = gradients(t, f, &opts, 0, N_DOCS);
        losses[s] = 0;
        for (size_t d = 0; d < N_DOCS; d++) {
            if (g.none[d]) continue;
            losses[s] += g.loss[d].nll_sum / g.loss[d].n_labels / (N_DOCS - 1);
            if (d) c.ops->add(g.gradients, g.gradients + d * g.n, g.n);
        }
        dure_adamw_update(f->lora->params, &adam, g.gradients, &adamw, &c);
        dure_lora_changed(f->lora);
        free(g.gradients);
    }
    dure_adamw_fini(&adam);
}

static void test_cuda_transformer_learns_as_the_cpu_does(void **state)
{
    (void)state;
    fixture f;
    double cpu[STEPS], gpu[STEPS];
    set_up(&f, &(tiny_model_opts){.seed = 8, .type = TINY_Q8_0}, &(dure_lora_layout){.rank = 4}, 0);
    float *start = malloc(f.lora->n * sizeof *start);
    assert_non_null(start);
    memcpy(start, f.lora->params, f.lora->n * sizeof *start);
    train(cpu, f.cpu, &f);
    memcpy(f.lora->params, start, f.lora->n * sizeof *start);
    dure_lora_changed(f.lora);
    train(gpu, f.gpu, &f);
    assert_true(cpu[STEPS - 1] < 0.7 * cpu[0]);
    for (int s = 0; s < STEPS; s++)
        assert_true(fabs(gpu[s] - cpu[s]) <= 0.02 * cpu[0]);
    free(start);
    tear_down(&f);
}

static void test_cuda_transformer_logprobs_are_those_of_the_loss(void **state)
{
    (void)state;
    fixture f;
    float logprobs[MAX_TOKENS];
    double sum = 0;
    dure_document_loss loss;
    set_up(&f, &(tiny_model_opts){.seed = 9}, &(dure_lora_layout){.rank = 3}, 0);
    assert_ok(dure_transformer_loss(&loss, f.gpu, f.lora, &f.docs[2], 1, NULL));
    assert_ok(dure_transformer_logprobs(logprobs, f.gpu, f.lora, f.tokens[2], f.docs[2].n, NULL));
    for (size_t i = 0; i < f.docs[2].n; i++)
        if (f.supervised[2][i]) sum -= (double)logprobs[i];
    assert_true(fabs(sum - loss.nll_sum) <= 1e-4 * sum);
    tear_down(&f);
}

/* A decoder on each, which go on alike. */
typedef struct pair {
    dure_decoder *cpu, *gpu;
} pair;

static void near(const float *x, const float *y)
{
    float most = 0, apart = 0;
    for (size_t i = 0; i < TINY_VOCAB; i++) {
        most = fmaxf(most, fabsf(y[i]));
        apart = fmaxf(apart, fabsf(x[i] - y[i]));
        assert_true(isfinite(x[i]));
    }
    assert_true(apart <= LOGIT_ERROR * most);
}

static void same_logits(const pair *p)
{
    near(dure_decoder_logits(p->gpu), dure_decoder_logits(p->cpu));
}

static void feed(pair *p, const fixture *f, const int32_t *tokens, size_t n)
{
    dure_diag diag = {{0}};
    assert_ok(dure_decoder_feed(p->cpu, f->lora, tokens, n, &diag));
    assert_ok(dure_decoder_feed(p->gpu, f->lora, tokens, n, &diag));
    assert_int_equal(dure_decoder_length(p->gpu), dure_decoder_length(p->cpu));
    same_logits(p);
}

/* Two conversations that take turns and then go on together; passes are shorter than the prompt. */
static void check_decoding(const tiny_model_opts *model, bool dora)
{
    fixture f;
    pair p[2];
    set_up(&f, model, &(dure_lora_layout){.rank = 3, .dora = dora}, 16);
    for (int i = 0; i < 2; i++) {
        assert_ok(dure_decoder_new(&p[i].cpu, f.cpu, 96 + 32 * (size_t)i));
        assert_ok(dure_decoder_new(&p[i].gpu, f.gpu, 96 + 32 * (size_t)i));
    }
    feed(&p[0], &f, f.tokens[2], 61);
    feed(&p[1], &f, f.tokens[3], 7);
    feed(&p[0], &f, f.tokens[0], 1);
    feed(&p[1], &f, f.tokens[3] + 7, 23);
    for (int i = 0; i < 5; i++) {
        const int32_t next[2] = {f.tokens[0][i], f.tokens[4][i]};
        dure_decoder *cpu[2] = {p[0].cpu, p[1].cpu}, *gpu[2] = {p[0].gpu, p[1].gpu};
        assert_ok(dure_decoder_feed_each(cpu, next, 2, f.lora, NULL));
        assert_ok(dure_decoder_feed_each(gpu, next, 2, f.lora, NULL));
        same_logits(&p[0]), same_logits(&p[1]);
    }
    /* Another adapter, and another past. */
    for (size_t i = 0; i < f.lora->n; i++)
        f.lora->params[i] = -f.lora->params[i];
    dure_lora_changed(f.lora);
    dure_decoder_rewind(p[0].cpu, 0);
    dure_decoder_rewind(p[0].gpu, 0);
    feed(&p[0], &f, f.tokens[3], 30);
    assert_err(dure_decoder_feed(p[0].gpu, f.lora, f.tokens[2], 67, NULL), DURE_ERR_LIMIT);
    for (int i = 0; i < 2; i++) {
        dure_decoder_free(&p[i].cpu);
        dure_decoder_free(&p[i].gpu);
    }
    tear_down(&f);
}

static void test_cuda_transformer_decodes_as_the_cpu_does(void **state)
{
    (void)state;
    check_decoding(&(tiny_model_opts){.seed = 14, .type = TINY_Q8_0}, false);
    check_decoding(&(tiny_model_opts){.seed = 15, .arch = "qwen3", .head_dim = 32}, true);
    check_decoding(
        &(tiny_model_opts){
            .seed = 16, .arch = "gemma3", .head_dim = 32, .n_layers = 3, .window = 9},
        false);
}

typedef struct scores {
    float logits[MAX_TOKENS][TINY_VOCAB];
    size_t first, n; /* first: place of the piece */
} scores;

static bool keep_score(void *state, size_t i, const float *logits)
{
    scores *s = state;
    assert_int_equal(s->first + i, s->n);
    memcpy(s->logits[s->n++], logits, sizeof s->logits[0]);
    return true;
}

static void score(scores *s, dure_transformer *t, const fixture *f, size_t piece)
{
    const dure_document *doc = &f->docs[2];
    dure_decoder *d;
    assert_ok(dure_decoder_new(&d, t, 0));
    s->n = 0;
    for (s->first = 0; s->first < doc->n; s->first += piece) {
        size_t n = doc->n - s->first < piece ? doc->n - s->first : piece;
        assert_ok(dure_decoder_score(d, f->lora, doc->tokens + s->first, n, keep_score, s, NULL));
    }
    dure_decoder_free(&d);
}

static void test_cuda_transformer_refuses_heads_of_other_widths(void **state)
{
    (void)state;
    static const uint32_t dims[] = {20, 264};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        fixture f = {0};
        dure_diag diag = {{0}};
        temp_dir_make(&f.dir);
        const char *path = temp_dir_file(&f.dir, "tiny.gguf");
        tiny_model_write(path, &(tiny_model_opts){.seed = 8, .head_dim = dims[i]});
        assert_ok(dure_gguf_open(&f.gguf, path, NULL, &diag));
        assert_ok(
            dure_transformer_new(&f.gpu, f.gguf, &(dure_transformer_opts){.threads = 1}, &diag));
        assert_err(dure_transformer_cuda_attach(f.gpu, 0, &diag), DURE_ERR_UNSUPPORTED);
        assert_non_null(strstr(diag.text, "heads of"));
        tear_down(&f);
    }
}

/* The logits at every token of a text, and the same ones however it is cut. */
static void test_cuda_transformer_scores_as_the_cpu_does(void **state)
{
    (void)state;
    static scores cpu, gpu, cut;
    fixture f;
    set_up(&f, &(tiny_model_opts){.seed = 19}, &(dure_lora_layout){.rank = 3}, 16);
    score(&cpu, f.cpu, &f, MAX_TOKENS);
    score(&gpu, f.gpu, &f, MAX_TOKENS);
    score(&cut, f.gpu, &f, 9);
    for (size_t i = 0; i < f.docs[2].n; i++)
        near(gpu.logits[i], cpu.logits[i]);
    assert_int_equal(cut.n, gpu.n);
    assert_memory_equal(cut.logits, gpu.logits, gpu.n * sizeof gpu.logits[0]);
    tear_down(&f);
}

static void test_cuda_transformer_says_when_there_is_no_such_gpu(void **state)
{
    (void)state;
    fixture f;
    dure_diag diag = {{0}};
    set_up(&f, &(tiny_model_opts){.seed = 10}, &(dure_lora_layout){.rank = 3}, 0);
    dure_transformer_free(&f.gpu);
    assert_ok(dure_transformer_new(&f.gpu, f.gguf, &(dure_transformer_opts){.threads = 1}, &diag));
    assert_err(dure_transformer_cuda_attach(f.gpu, 4000, &diag), DURE_ERR_DEVICE);
    tear_down(&f);
}

#ifdef DURE_TEST_EMULATED
/* The gradients of the last two documents, in passes of up to so many rows; `may` bytes of what
 * the device has may be taken, or are all that it has. */
typedef struct bounds {
    uint32_t rows, recompute;
    size_t may, has;
} bounds;
enum { LAST = 2 };

static collected gradients_within(fixture *f, dure_transformer_fit *fit, bounds within)
{
    dure_diag diag = {{0}};
    const dure_transformer_opts opts = {.threads = 1,
                                        .precision = DURE_PRECISION_F32,
                                        .rows = within.rows,
                                        .recompute = within.recompute,
                                        .device_bytes = within.may};
    const uint64_t seeds[N_DOCS] = {1, 2, 3, 4, 5};
    const dure_gradient_opts both = {
        .factors = DURE_LORA_FACTOR_BOTH, .dropout = 0.1, .dropout_seeds = seeds};
    dure_transformer_free(&f->gpu);
    if (within.has) dure_emulated_limit(within.has);
    assert_ok(dure_transformer_new(&f->gpu, f->gguf, &opts, &diag));
    assert_ok(dure_transformer_cuda_attach(f->gpu, 0, &diag));
    collected c = gradients(f->gpu, f, &both, N_DOCS - LAST, LAST);
    *fit = dure_transformer_device_fit(f->gpu);
    assert_true(fit->bytes > 0 && (!within.may || fit->bytes <= within.may) &&
                (!within.has || fit->bytes <= within.has));
    dure_emulated_limit(SIZE_MAX);
    return c;
}

static void check_gradients_within(fixture *f, dure_transformer_fit *fit, bounds within,
                                   const collected *expected)
{
    collected some = gradients_within(f, fit, within);
    assert_memory_equal(some.gradients, expected->gradients, LAST * expected->n * sizeof(float));
    free(some.gradients);
}

/* With ever less of it long passes are shortened, then layer after layer is computed twice, then
 * passes are shortened further; and no bit changes. */
static void test_cuda_transformer_does_with_the_memory_there_is(void **state)
{
    (void)state;
    fixture f;
    dure_transformer_fit fit;
    unsigned seen[3] = {0}; /* of 4096, 2048 and 1024 rows: bit i, i layers computed twice */
    set_up(&f, &(tiny_model_opts){.seed = 12, .n_ff = 256}, &(dure_lora_layout){.rank = 3}, 0);
    collected all = gradients_within(&f, &fit, (bounds){.rows = 4096});
    assert_true(fit.packed && fit.recompute == 0 && fit.rows == 4096);
    for (size_t limit = fit.bytes; fit.rows > 1024; limit -= limit / 9) {
        bounds within = {.rows = 4096};
        *(limit % 2 ? &within.may : &within.has) = limit; /* a limit, or a small GPU */
        check_gradients_within(&f, &fit, within, &all);
        seen[fit.rows == 4096 ? 0 : fit.rows == 2048 ? 1 : 2] |= 1u << fit.recompute;
    }
    assert_int_equal(seen[0], 1);
    assert_int_equal(seen[1], 1 | 2 | 4);
    assert_int_equal(fit.rows, 1024);
    free(all.gradients);
    tear_down(&f);
}

/* Layers with norms behind their halves, heads with norms, windows, magnitudes; some are trained.
 */
static void test_cuda_transformer_computes_every_kind_of_layer_twice(void **state)
{
    (void)state;
    fixture f;
    dure_transformer_fit fit;
    set_up(&f,
           &(tiny_model_opts){
               .seed = 23, .arch = "gemma3", .head_dim = 32, .n_layers = 4, .window = 9},
           &(dure_lora_layout){.rank = 3, .dora = true, .first_layer = 1}, 0);
    collected all = gradients_within(&f, &fit, (bounds){.rows = 64});
    for (uint32_t again = 1; again <= 4; again += 3) {
        check_gradients_within(&f, &fit, (bounds){.rows = 64, .recompute = again}, &all);
        assert_int_equal(fit.recompute, again < 3 ? again : 3);
    }
    free(all.gradients);
    tear_down(&f);
}

static void test_cuda_transformer_decodes_weights_that_would_fill_its_memory(void **state)
{
    (void)state;
    fixture f;
    dure_transformer_fit resident, fit;
    const tiny_model_opts model = {.seed = 13, .type = TINY_Q4_1, .n_layers = 16, .n_ff = 512};
    const dure_lora_layout layout = {.rank = 3, .first_layer = 15};
    set_up(&f, &model, &layout, 0);
    collected all = gradients_within(&f, &resident, (bounds){.rows = 64});
    check_gradients_within(&f, &fit, (bounds){.rows = 64, .has = resident.bytes}, &all);
    assert_true(!fit.packed && fit.bytes < resident.bytes / 3 * 2);
    check_gradients_within(&f, &fit, (bounds){.rows = 64, .may = resident.bytes}, &all);
    assert_true(!fit.packed && fit.bytes < resident.bytes / 3 * 2);
    free(all.gradients);
    tear_down(&f);
}

/* Logits come in portions where they do not fit, and are the same. */
static void test_cuda_transformer_scores_with_little_memory(void **state)
{
    (void)state;
    static scores all, some;
    fixture f;
    dure_diag diag = {{0}};
    dure_transformer_opts opts = {
        .threads = 1, .precision = DURE_PRECISION_F32, .rows = MAX_TOKENS};
    set_up(&f, &(tiny_model_opts){.seed = 19, .n_layers = 1}, &(dure_lora_layout){.rank = 3},
           MAX_TOKENS);
    score(&all, f.gpu, &f, MAX_TOKENS);
    const dure_document *doc = &f.docs[2];
    dure_err err = DURE_ERR_NOMEM;
    for (opts.device_bytes = 100000; err == DURE_ERR_NOMEM; opts.device_bytes += 20000) {
        dure_decoder *d = NULL;
        dure_transformer_free(&f.gpu);
        assert_ok(dure_transformer_new(&f.gpu, f.gguf, &opts, &diag));
        err = dure_transformer_cuda_attach(f.gpu, 0, &diag);
        some.first = some.n = 0;
        if (!err) err = dure_decoder_new(&d, f.gpu, 0);
        if (!err)
            err = dure_decoder_score(d, f.lora, doc->tokens, doc->n, keep_score, &some, &diag);
        dure_decoder_free(&d);
    }
    assert_ok(err);
    assert_int_equal(some.n, doc->n);
    assert_memory_equal(some.logits, all.logits, all.n * sizeof all.logits[0]);
    tear_down(&f);
}

/* Whatever allocation is the first that fails, the error says so, nothing leaks, and with room the
 * same transformer goes on. */
static void test_cuda_transformer_out_of_memory_is_a_sentence(void **state)
{
    (void)state;
    fixture f;
    dure_diag diag = {{0}};
    dure_document_loss loss, before;
    set_up(&f, &(tiny_model_opts){.seed = 11, .n_layers = 1}, &(dure_lora_layout){.rank = 3}, 0);
    assert_ok(dure_transformer_loss(&before, f.gpu, f.lora, &f.docs[2], 1, &diag));
    dure_transformer_free(&f.gpu);
    const dure_transformer_opts opts = {.threads = 1, .precision = DURE_PRECISION_F32};
    size_t failed = 0;
    for (size_t limit = 0;; limit += 60000) {
        dure_emulated_limit(limit);
        assert_ok(dure_transformer_new(&f.gpu, f.gguf, &opts, &diag));
        dure_err err = dure_transformer_cuda_attach(f.gpu, 0, &diag);
        if (!err) err = dure_transformer_loss(&loss, f.gpu, f.lora, &f.docs[2], 1, &diag);
        if (!err) break;
        assert_err(err, DURE_ERR_NOMEM);
        assert_non_null(strstr(diag.text, "fit the GPU"));
        assert_non_null(strstr(diag.text, "MB free"));
        failed++;
        dure_transformer_free(&f.gpu);
    }
    assert_true(failed > 5);
    assert_memory_equal(&loss.nll_sum, &before.nll_sum, sizeof(double));
    dure_emulated_limit(SIZE_MAX);
    tear_down(&f);
}
#endif

int main(void)
{
    dure_device *device = gpu_open(); /* skips where there is none */
    dure_device_close(&device);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_transformer_matches_the_cpu),
        cmocka_unit_test(test_cuda_transformer_of_every_architecture_matches_the_cpu),
        cmocka_unit_test(test_cuda_transformer_of_targets_with_ranks_of_their_own),
        cmocka_unit_test(test_cuda_transformer_of_dora_matches_the_cpu),
        cmocka_unit_test(test_cuda_transformer_of_dora_gives_a_record_its_own),
        cmocka_unit_test(test_cuda_transformer_drops_what_the_cpu_drops),
        cmocka_unit_test(test_cuda_transformer_record_is_itself_in_any_packing),
        cmocka_unit_test(test_cuda_transformer_sums_records_together),
        cmocka_unit_test(test_cuda_transformer_learns_as_the_cpu_does),
        cmocka_unit_test(test_cuda_transformer_logprobs_are_those_of_the_loss),
        cmocka_unit_test(test_cuda_transformer_decodes_as_the_cpu_does),
        cmocka_unit_test(test_cuda_transformer_refuses_heads_of_other_widths),
        cmocka_unit_test(test_cuda_transformer_scores_as_the_cpu_does),
        cmocka_unit_test(test_cuda_transformer_says_when_there_is_no_such_gpu),
#ifdef DURE_TEST_EMULATED
        cmocka_unit_test(test_cuda_transformer_does_with_the_memory_there_is),
        cmocka_unit_test(test_cuda_transformer_computes_every_kind_of_layer_twice),
        cmocka_unit_test(test_cuda_transformer_decodes_weights_that_would_fill_its_memory),
        cmocka_unit_test(test_cuda_transformer_scores_with_little_memory),
        cmocka_unit_test(test_cuda_transformer_out_of_memory_is_a_sentence),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
