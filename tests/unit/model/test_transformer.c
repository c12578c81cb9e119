/* The transformer on tiny random models: gradients against finite differences, and the promise
 * that a record's result is its own, whatever lies beside it. */
#include "kernels/optimizer.h"
#include "model/transformer_int.h"
#include "support/check.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_DOCS = 5, MAX_TOKENS = 64, RANK = 3 };

typedef struct fixture {
    temp_dir dir;
    dure_gguf *gguf;
    dure_transformer *t;
    dure_lora *lora;
    int32_t tokens[N_DOCS][MAX_TOKENS];
    uint8_t supervised[N_DOCS][MAX_TOKENS];
    dure_document docs[N_DOCS];
} fixture;

static uint64_t rng = 7;

static float uniform(void)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (float)(rng >> 40) * 0x1p-23f - 1.0f;
}

static void open_model(fixture *f, const tiny_model_opts *model, const dure_transformer_opts *opts)
{
    dure_diag diag = {{0}};
    const char *path = temp_dir_file(&f->dir, "tiny.gguf");
    tiny_model_write(path, model);
    assert_ok(dure_gguf_open(&f->gguf, path, NULL, &diag));
    assert_ok(dure_transformer_new(&f->t, f->gguf, opts, &diag));
}

static void make_lora(fixture *f, uint32_t targets, uint32_t first_layer)
{
    dure_lora_layout layout = {.shape = *dure_transformer_shape(f->t),
                               .rank = RANK,
                               .alpha = 2.0f * RANK,
                               .targets = targets,
                               .first_layer = first_layer};
    assert_ok(dure_lora_layout_check(&layout, NULL));
    assert_ok(dure_lora_new(&f->lora, &layout));
    for (size_t i = 0; i < f->lora->n; i++)
        f->lora->params[i] = 0.2f * uniform();
}

/* Documents of 2 to 61 tokens; the last third of each is its answer. */
static void make_docs(fixture *f)
{
    static const size_t lengths[N_DOCS] = {17, 2, 61, 30, 9};
    for (size_t d = 0; d < N_DOCS; d++) {
        size_t n = lengths[d];
        for (size_t i = 0; i < n; i++) {
            f->tokens[d][i] = (int32_t)((uniform() + 1) * 0.49f * TINY_VOCAB);
            f->supervised[d][i] = i > 0 && i >= n - n / 3 - 1;
        }
        f->docs[d] = (dure_document){f->tokens[d], f->supervised[d], n};
    }
}

static void set_up(fixture *f, const tiny_model_opts *model, const dure_transformer_opts *opts)
{
    memset(f, 0, sizeof *f);
    rng = 7;
    temp_dir_make(&f->dir);
    open_model(f, model, opts);
    make_lora(f, 127, 0);
    make_docs(f);
}

static void tear_down(fixture *f)
{
    dure_lora_free(&f->lora);
    dure_transformer_free(&f->t);
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

static collected gradients(fixture *f, dure_lora_factor factors, size_t n_docs)
{
    collected c = {.n = dure_lora_count(&f->lora->layout, factors)};
    dure_gradient_opts opts = {.factors = factors};
    dure_diag diag = {{0}};
    c.gradients = calloc(N_DOCS * c.n, sizeof *c.gradients);
    assert_ok(
        dure_transformer_gradients(f->t, f->lora, &opts, f->docs, n_docs, collect, &c, &diag));
    return c;
}

static double mean_loss(fixture *f, const dure_lora *lora, const dure_document *doc)
{
    dure_document_loss loss;
    assert_ok(dure_transformer_loss(&loss, f->t, lora, doc, 1, NULL));
    return loss.nll_sum / loss.n_labels;
}

/* The slope along a random direction inside one factor of one matrix, by differences of the loss
 * at two distances (Richardson), against the gradient. */
static void check_block(fixture *f, const float *gradient, size_t at, size_t n,
                        const dure_document *doc)
{
    enum { MOST = 4096 };
    float direction[MOST], saved[MOST];
    double slope = 0, step = 0.02, difference[2];
    assert_true(n <= MOST);
    memcpy(saved, f->lora->params + at, n * sizeof *saved);
    for (size_t i = 0; i < n; i++) {
        direction[i] = uniform();
        slope += (double)direction[i] * (double)gradient[at + i];
    }
    for (int pass = 0; pass < 2; pass++) {
        double h = pass ? step / 2 : step, loss[2];
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < n; i++)
                f->lora->params[at + i] = saved[i] + (float)(side ? -h : h) * direction[i];
            loss[side] = mean_loss(f, f->lora, doc);
        }
        difference[pass] = (loss[0] - loss[1]) / (2 * h);
    }
    memcpy(f->lora->params + at, saved, n * sizeof *saved);
    double expected = (4 * difference[1] - difference[0]) / 3;
    assert_true(fabs(slope - expected) < 1e-3 * fabs(expected) + 2e-4);
}

static void check_gradients(const tiny_model_opts *model, const dure_transformer_opts *opts)
{
    fixture f;
    set_up(&f, model, opts);
    collected c = gradients(&f, DURE_LORA_FACTOR_BOTH, N_DOCS);
    const dure_lora_layout *layout = &f.lora->layout;
    for (uint32_t layer = 0; layer < layout->shape.n_layers; layer++)
        for (int k = 0; k < DURE_LORA_TARGETS; k++)
            for (int factor = 0; factor < 2; factor++) {
                dure_lora_target target = (dure_lora_target)k;
                size_t at, n = factor ? dure_lora_out(&layout->shape, target)
                                      : dure_lora_in(&layout->shape, target);
                assert_true(dure_lora_find(&at, layout, layer, target,
                                           factor ? DURE_LORA_FACTOR_B : DURE_LORA_FACTOR_A));
                check_block(&f, c.gradients + 2 * c.n, at, n * RANK, &f.docs[2]);
            }
    free(c.gradients);
    tear_down(&f);
}

static void test_transformer_gradient_matches_differences(void **state)
{
    (void)state;
    check_gradients(&(tiny_model_opts){.seed = 1},
                    &(dure_transformer_opts){.threads = 2, .precision = DURE_PRECISION_F32});
}

static void test_transformer_gradient_of_untied_head_and_rope_factors(void **state)
{
    (void)state;
    check_gradients(&(tiny_model_opts){.seed = 2, .untied = true, .rope_freqs = true},
                    &(dure_transformer_opts){.threads = 1, .precision = DURE_PRECISION_F32});
}

static void test_transformer_gradient_of_quantized_base(void **state)
{
    (void)state;
    check_gradients(&(tiny_model_opts){.seed = 3, .type = TINY_Q4_1, .n_layers = 1},
                    &(dure_transformer_opts){.threads = 2, .precision = DURE_PRECISION_F32});
}

static void test_transformer_gradient_of_plain_c(void **state)
{
    (void)state;
    check_gradients(&(tiny_model_opts){.seed = 4, .n_layers = 1},
                    &(dure_transformer_opts){.threads = 2, .precision = DURE_PRECISION_REFERENCE});
}

/* What the architectures have beside llama: biases, norms of heads and of halves, gelu, a scaled
 * embedding, other pairs to rotate, a window shorter than the records. */
static const tiny_model_opts architectures[] = {
    {.seed = 21, .arch = "qwen2"},
    {.seed = 22, .arch = "qwen3", .head_dim = 32},
    {.seed = 23, .arch = "gemma3", .head_dim = 32, .n_layers = 3, .window = 9},
    {.seed = 24, .arch = "gemma3", .n_layers = 1, .n_head_kv = 4},
};
enum { N_ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

static void test_transformer_gradient_of_every_architecture(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ARCHITECTURES; i++)
        check_gradients(&architectures[i],
                        &(dure_transformer_opts){.threads = 2, .precision = DURE_PRECISION_F32});
}

static void test_transformer_record_of_every_architecture_is_itself_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ARCHITECTURES; i++) {
        fixture f;
        set_up(&f, &architectures[i], &(dure_transformer_opts){.threads = 2});
        collected all = gradients(&f, DURE_LORA_FACTOR_BOTH, N_DOCS);
        for (size_t d = 0; d < N_DOCS; d++) {
            f.docs[0] = (dure_document){f.tokens[d], f.supervised[d], f.docs[d].n};
            collected alone = gradients(&f, DURE_LORA_FACTOR_BOTH, 1);
            assert_memory_equal(alone.gradients, all.gradients + d * all.n, all.n * sizeof(float));
            free(alone.gradients);
        }
        free(all.gradients);
        tear_down(&f);
    }
}

/* Heads that a product must hand over whole: each width runs at every level of the CPU, or is
 * refused at every one. */
static void check_heads(const char *arch, uint32_t dim, bool runs)
{
    static const dure_precision precisions[] = {DURE_PRECISION_REFERENCE, DURE_PRECISION_F32,
                                                DURE_PRECISION_AUTO};
    for (size_t i = 0; i < sizeof precisions / sizeof precisions[0]; i++) {
        fixture f = {.t = NULL};
        dure_diag diag = {{0}};
        temp_dir_make(&f.dir);
        const char *path = temp_dir_file(&f.dir, "tiny.gguf");
        tiny_model_write(path, &(tiny_model_opts){.arch = arch,
                                                  .head_dim = dim,
                                                  .n_layers = 1,
                                                  .n_embd = 32,
                                                  .n_ff = 32,
                                                  .n_head = 2,
                                                  .n_head_kv = 1});
        assert_ok(dure_gguf_open(&f.gguf, path, NULL, NULL));
        dure_err err = dure_transformer_new(
            &f.t, f.gguf, &(dure_transformer_opts){.threads = 1, .precision = precisions[i]},
            &diag);
        if (runs) {
            if (err) fail_msg("%s, %u: %s", arch, dim, diag.text);
            make_lora(&f, 127, 0);
            make_docs(&f);
            free(gradients(&f, DURE_LORA_FACTOR_BOTH, 2).gradients);
        } else {
            assert_err(err, DURE_ERR_UNSUPPORTED);
            assert_non_null(strstr(diag.text, "up to 256 in steps of 32"));
        }
        tear_down(&f);
    }
}

static void test_transformer_takes_heads_or_refuses_them(void **state)
{
    (void)state;
    static const uint32_t runs[] = {4, 12, 16, 20, 56, 80, 112, 128, 160, 224, 256};
    static const uint32_t refused[] = {18, 22,  26,  30,  36,  44,  52,  60,  72,
                                       88, 104, 120, 144, 176, 208, 240, 258, 288};
    static const char *const archs[] = {"qwen2", "qwen3", "gemma3"};
    for (size_t a = 0; a < sizeof archs / sizeof archs[0]; a++) {
        for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++)
            check_heads(archs[a], runs[i], true);
        for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
            check_heads(archs[a], refused[i], false);
    }
}

static void test_transformer_record_is_itself_in_any_packing(void **state)
{
    (void)state;
    static const dure_transformer_opts ways[] = {
        {.threads = 1}, {.threads = 2}, {.threads = 3, .rows = 16}, {.threads = 2, .rows = 40}};
    collected first = {0};
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        fixture f;
        set_up(&f, &(tiny_model_opts){.seed = 5, .type = TINY_Q8_0}, &ways[w]);
        collected c = gradients(&f, DURE_LORA_FACTOR_BOTH, N_DOCS);
        if (w == 0)
            first = c;
        else
            assert_memory_equal(c.gradients, first.gradients, N_DOCS * c.n * sizeof(float));
        for (size_t d = 0; d < N_DOCS; d++)
            assert_memory_equal(&c.loss[d].nll_sum, &first.loss[d].nll_sum, sizeof(double));
        if (w) free(c.gradients);
        tear_down(&f);
    }
    free(first.gradients);
}

static dure_training_load load_of(const fixture *f)
{
    return (dure_training_load){
        .layout = &f->lora->layout, .factors = DURE_LORA_FACTOR_BOTH, .longest = MAX_TOKENS};
}

static void test_transformer_fit_trades_time_for_memory(void **state)
{
    (void)state;
    fixture f;
    set_up(&f, &(tiny_model_opts){.seed = 21, .type = TINY_Q8_0, .n_layers = 8},
           &(dure_transformer_opts){.threads = 2, .weights = DURE_WEIGHTS_FILE});
    const dure_training_load load = load_of(&f);
    dure_transformer_fit free_hand, tight;
    collected before = gradients(&f, DURE_LORA_FACTOR_BOTH, N_DOCS);
    assert_ok(dure_transformer_fit_find(&free_hand, f.t, &load, 0, NULL));
    assert_int_equal(free_hand.recompute, 0);
    assert_int_equal(free_hand.rows, 512);
    assert_true(free_hand.bytes > f.t->ws.arena_bytes / 2 && free_hand.seconds_per_token > 0);
    assert_ok(dure_transformer_fit_find(&tight, f.t, &load, free_hand.bytes - 1, NULL));
    assert_true(tight.bytes < free_hand.bytes);
    assert_true(tight.seconds_per_token >= free_hand.seconds_per_token);
    assert_ok(dure_transformer_adopt(f.t, &tight));
    collected after = gradients(&f, DURE_LORA_FACTOR_BOTH, N_DOCS);
    assert_memory_equal(after.gradients, before.gradients, N_DOCS * after.n * sizeof(float));
    free(before.gradients);
    free(after.gradients);
    tear_down(&f);
}

static void test_transformer_fit_refuses_what_cannot_be(void **state)
{
    (void)state;
    fixture f;
    dure_diag diag = {{0}};
    set_up(&f, &(tiny_model_opts){.seed = 22, .n_layers = 4},
           &(dure_transformer_opts){.threads = 1, .weights = DURE_WEIGHTS_FILE});
    const dure_training_load load = load_of(&f);
    dure_transformer_fit least, fit;
    assert_err(dure_transformer_fit_find(&least, f.t, &load, 1, &diag), DURE_ERR_LIMIT);
    assert_non_null(strstr(diag.text, "training needs at least"));
    assert_non_null(strstr(diag.text, "may take 1 MB"));
    assert_int_equal(least.recompute, 4);
    /* What it names as the least is enough, and not one byte less. */
    assert_ok(dure_transformer_fit_find(&fit, f.t, &load, least.bytes, NULL));
    assert_err(dure_transformer_fit_find(&fit, f.t, &load, least.bytes - 1, NULL), DURE_ERR_LIMIT);
    tear_down(&f);
}

static void test_transformer_record_is_itself_alone(void **state)
{
    (void)state;
    fixture f;
    set_up(&f, &(tiny_model_opts){.seed = 6}, &(dure_transformer_opts){.threads = 2});
    collected all = gradients(&f, DURE_LORA_FACTOR_B, N_DOCS);
    for (size_t d = 0; d < N_DOCS; d++) {
        f.docs[0] = (dure_document){f.tokens[d], f.supervised[d], f.docs[d].n};
        collected alone = gradients(&f, DURE_LORA_FACTOR_B, 1);
        assert_memory_equal(alone.gradients, all.gradients + d * all.n, all.n * sizeof(float));
        free(alone.gradients);
    }
    free(all.gradients);
    tear_down(&f);
}

static void test_transformer_factors_are_parts_of_the_whole(void **state)
{
    (void)state;
    fixture f;
    set_up(&f, &(tiny_model_opts){.seed = 7}, &(dure_transformer_opts){.threads = 2});
    collected both = gradients(&f, DURE_LORA_FACTOR_BOTH, 1), b, a;
    b = gradients(&f, DURE_LORA_FACTOR_B, 1);
    a = gradients(&f, DURE_LORA_FACTOR_A, 1);
    dure_lora whole = {.layout = f.lora->layout, .n = both.n, .params = both.gradients};
    float *packed = calloc(both.n, sizeof *packed);
    dure_lora_pack(packed, &whole, DURE_LORA_FACTOR_B);
    assert_memory_equal(packed, b.gradients, b.n * sizeof *packed);
    dure_lora_pack(packed, &whole, DURE_LORA_FACTOR_A);
    assert_memory_equal(packed, a.gradients, a.n * sizeof *packed);
    free(packed);
    free(both.gradients);
    free(a.gradients);
    free(b.gradients);
    tear_down(&f);
}

static void test_transformer_stops_at_the_first_adapted_layer(void **state)
{
    (void)state;
    fixture f;
    set_up(&f, &(tiny_model_opts){.seed = 8, .n_layers = 3},
           &(dure_transformer_opts){.threads = 2});
    /* Layer 0 adapted with B = 0 computes what an adapter from layer 1 on computes. */
    dure_lora *upper = NULL;
    dure_lora_layout layout = f.lora->layout;
    layout.first_layer = 1;
    assert_ok(dure_lora_new(&upper, &layout));
    size_t skip = f.lora->n - upper->n;
    memset(f.lora->params, 0, skip * sizeof(float));
    memcpy(upper->params, f.lora->params + skip, upper->n * sizeof(float));
    collected all = gradients(&f, DURE_LORA_FACTOR_BOTH, 1);
    dure_lora_free(&f.lora);
    f.lora = upper;
    collected part = gradients(&f, DURE_LORA_FACTOR_BOTH, 1);
    assert_memory_equal(part.gradients, all.gradients + skip, part.n * sizeof(float));
    free(all.gradients);
    free(part.gradients);
    tear_down(&f);
}

static void test_transformer_sum_of_labels_scales_the_mean(void **state)
{
    (void)state;
    fixture f;
    set_up(&f, &(tiny_model_opts){.seed = 9},
           &(dure_transformer_opts){.threads = 1, .precision = DURE_PRECISION_F32});
    collected mean = gradients(&f, DURE_LORA_FACTOR_B, 1);
    collected total = {.n = mean.n, .gradients = calloc(mean.n, sizeof(float))};
    dure_gradient_opts opts = {.factors = DURE_LORA_FACTOR_B, .sum_of_labels = true};
    assert_ok(dure_transformer_gradients(f.t, f.lora, &opts, f.docs, 1, collect, &total, NULL));
    for (size_t i = 0; i < mean.n; i++) {
        float expected = mean.gradients[i] * (float)mean.loss[0].n_labels;
        assert_true(fabsf(total.gradients[i] - expected) <= 1e-5f + 1e-4f * fabsf(expected));
    }
    free(mean.gradients);
    free(total.gradients);
    tear_down(&f);
}

static dure_err add_whole(void *state, size_t doc, const float *gradient,
                          const dure_document_loss *loss)
{
    collected *c = state;
    c->loss[doc] = *loss;
    c->none[doc] = !gradient;
    for (size_t i = 0; gradient && i < c->n; i++)
        c->gradients[i] += gradient[i];
    return DURE_OK;
}

static void test_transformer_together_gives_the_sum(void **state)
{
    (void)state;
    fixture f;
    set_up(&f, &(tiny_model_opts){.seed = 19},
           &(dure_transformer_opts){.threads = 2, .rows = 70, .precision = DURE_PRECISION_F32});
    collected each = gradients(&f, DURE_LORA_FACTOR_BOTH, N_DOCS);
    collected sum = {.n = each.n, .gradients = calloc(each.n, sizeof(float))};
    dure_gradient_opts opts = {.factors = DURE_LORA_FACTOR_BOTH, .together = true};
    assert_ok(
        dure_transformer_gradients(f.t, f.lora, &opts, f.docs, N_DOCS, add_whole, &sum, NULL));
    /* 17 and 2 tokens fit 70 rows beside each other, 61 do not fit beside them, and so on. */
    static const bool shares[N_DOCS] = {true, false, false, true, false};
    double error = 0, size = 0;
    for (size_t i = 0; i < each.n; i++) {
        double expected = 0;
        for (size_t d = 0; d < N_DOCS; d++)
            expected += (double)each.gradients[d * each.n + i];
        error += pow((double)sum.gradients[i] - expected, 2);
        size += expected * expected;
    }
    assert_true(sqrt(error / size) < 1e-6);
    for (size_t d = 0; d < N_DOCS; d++) {
        assert_int_equal(sum.none[d], shares[d]);
        assert_true(sum.loss[d].nll_sum == each.loss[d].nll_sum);
    }
    free(each.gradients);
    free(sum.gradients);
    tear_down(&f);
}

static void check_against_plain_c(const tiny_model_opts *model)
{
    fixture fast, plain;
    set_up(&fast, model, &(dure_transformer_opts){.threads = 2, .precision = DURE_PRECISION_F32});
    set_up(&plain, model,
           &(dure_transformer_opts){.threads = 2, .precision = DURE_PRECISION_REFERENCE});
    collected a = gradients(&fast, DURE_LORA_FACTOR_BOTH, N_DOCS);
    collected b = gradients(&plain, DURE_LORA_FACTOR_BOTH, N_DOCS);
    double error = 0, size = 0;
    for (size_t i = 0; i < N_DOCS * a.n; i++) {
        double x = (double)a.gradients[i], y = (double)b.gradients[i];
        error += (x - y) * (x - y);
        size += y * y;
    }
    assert_true(sqrt(error / size) < 1e-5);
    for (size_t d = 0; d < N_DOCS; d++)
        assert_true(fabs(a.loss[d].nll_sum - b.loss[d].nll_sum) < 1e-4);
    free(a.gradients);
    free(b.gradients);
    tear_down(&fast);
    tear_down(&plain);
}

static void test_transformer_vector_code_agrees_with_plain_c(void **state)
{
    (void)state;
    check_against_plain_c(&(tiny_model_opts){.seed = 10, .type = TINY_Q4_1});
    for (size_t i = 0; i < N_ARCHITECTURES; i++)
        check_against_plain_c(&architectures[i]);
}

static dure_err add_up(void *state, size_t doc, const float *gradient,
                       const dure_document_loss *loss)
{
    collected *c = state;
    (void)doc, (void)loss;
    for (size_t i = 0; gradient && i < c->n; i++)
        c->gradients[i] += gradient[i] / N_DOCS;
    return DURE_OK;
}

static double total_loss(fixture *f)
{
    dure_document_loss losses[N_DOCS];
    double sum = 0;
    assert_ok(dure_transformer_loss(losses, f->t, f->lora, f->docs, N_DOCS, NULL));
    for (size_t d = 0; d < N_DOCS; d++)
        sum += losses[d].nll_sum;
    return sum;
}

static void test_transformer_training_steps_lower_the_loss(void **state)
{
    (void)state;
    fixture f;
    set_up(&f, &(tiny_model_opts){.seed = 18, .type = TINY_Q4_1},
           &(dure_transformer_opts){.threads = 2});
    collected mean = {.n = f.lora->n, .gradients = calloc(f.lora->n, sizeof(float))};
    dure_gradient_opts opts = {.factors = DURE_LORA_FACTOR_BOTH};
    dure_adamw adam;
    assert_ok(dure_adamw_init(&adam, f.lora->n));
    double before = total_loss(&f);
    for (int step = 0; step < 30; step++) {
        memset(mean.gradients, 0, mean.n * sizeof(float));
        assert_ok(
            dure_transformer_gradients(f.t, f.lora, &opts, f.docs, N_DOCS, add_up, &mean, NULL));
        dure_adamw_update(f.lora->params, &adam, mean.gradients,
                          &(dure_adamw_opts){.learning_rate = 0.02}, &f.t->compute);
    }
    assert_true(total_loss(&f) < 0.5 * before);
    dure_adamw_fini(&adam);
    free(mean.gradients);
    tear_down(&f);
}

/* What bfloat16 costs. Every activation and weight is within 2^-8 of itself, some 0.4 x 2^-8 in the
 * mean square; errors of different roundings are independent. A gradient of this model passes 2
 * layers x about 12 roundings forward and as many back: about sqrt(48) x 0.4 x 2^-8 = 1.1 %. Twice
 * that is the limit. A logit is about as wrong, and a label's log-probability is a difference of
 * numbers of size 3: 2^-4 is twice what to expect. */
static void test_transformer_bf16_is_close_to_f32(void **state)
{
    (void)state;
    fixture f, g;
    if (dure_cpu_best() < DURE_CPU_AVX512_BF16) skip();
    set_up(&f, &(tiny_model_opts){.seed = 17},
           &(dure_transformer_opts){.threads = 2, .precision = DURE_PRECISION_F32});
    set_up(&g, &(tiny_model_opts){.seed = 17},
           &(dure_transformer_opts){.threads = 2, .precision = DURE_PRECISION_BF16});
    assert_memory_equal(dure_transformer_path(g.t), "bf16", 4);
    collected a = gradients(&f, DURE_LORA_FACTOR_BOTH, N_DOCS);
    collected b = gradients(&g, DURE_LORA_FACTOR_BOTH, N_DOCS);
    double error = 0, size = 0;
    for (size_t i = 0; i < N_DOCS * a.n; i++) {
        double x = (double)a.gradients[i], y = (double)b.gradients[i];
        error += (x - y) * (x - y);
        size += x * x;
    }
    assert_true(error > 0 && sqrt(error / size) < 0.022);
    for (size_t d = 0; d < N_DOCS; d++)
        assert_true(fabs(a.loss[d].nll_sum - b.loss[d].nll_sum) < 0x1p-4 * a.loss[d].n_labels);
    free(a.gradients);
    free(b.gradients);
    tear_down(&f);
    tear_down(&g);
}

static void test_transformer_logprobs_add_up_to_the_loss(void **state)
{
    (void)state;
    fixture f;
    float logprobs[MAX_TOKENS];
    set_up(&f, &(tiny_model_opts){.seed = 11}, &(dure_transformer_opts){.threads = 2});
    dure_document_loss losses[N_DOCS];
    assert_ok(dure_transformer_loss(losses, f.t, f.lora, f.docs, N_DOCS, NULL));
    for (size_t d = 0; d < N_DOCS; d++) {
        double sum = 0;
        assert_ok(dure_transformer_logprobs(logprobs, f.t, f.lora, f.tokens[d], f.docs[d].n, NULL));
        assert_true(logprobs[0] == 0);
        for (size_t i = 0; i < f.docs[d].n; i++)
            if (f.supervised[d][i]) sum -= (double)logprobs[i];
        assert_true(fabs(sum - losses[d].nll_sum) < 1e-5);
    }
    tear_down(&f);
}

static void test_transformer_record_without_labels_gives_nothing(void **state)
{
    (void)state;
    fixture f;
    set_up(&f, &(tiny_model_opts){.seed = 12}, &(dure_transformer_opts){.threads = 2});
    memset(f.supervised[0], 0, sizeof f.supervised[0]);
    memset(f.supervised[4], 0, sizeof f.supervised[4]);
    collected c = gradients(&f, DURE_LORA_FACTOR_B, N_DOCS);
    assert_true(c.none[0] && c.none[4] && !c.none[1] && !c.none[3]);
    assert_int_equal(c.loss[0].n_labels, 0);
    assert_true(c.loss[0].finite);
    free(c.gradients);
    tear_down(&f);
}

static void test_transformer_overflow_in_one_record_is_seen_and_stays_there(void **state)
{
    (void)state;
    fixture f;
    set_up(&f, &(tiny_model_opts){.seed = 13, .untied = true},
           &(dure_transformer_opts){.threads = 2});
    collected before = gradients(&f, DURE_LORA_FACTOR_BOTH, N_DOCS);
    /* Only record 1 holds token 271; its embedding becomes infinite in the file, which is mapped.
     */
    const dure_gguf_tensor *embedding = dure_gguf_find(f.gguf, "token_embd.weight");
    char path[512];
    snprintf(path, sizeof path, "%s", temp_dir_file(&f.dir, "tiny.gguf"));
    FILE *file = fopen(path, "r+b");
    float infinite = INFINITY;
    const dure_gguf_tensor *first = dure_gguf_tensor_at(f.gguf, 0);
    assert_ptr_equal(first, embedding);
    fseek(file, 0, SEEK_END);
    long data_bytes = 0;
    for (size_t i = 0; i < dure_gguf_tensor_count(f.gguf); i++)
        data_bytes += (long)((dure_gguf_tensor_at(f.gguf, i)->bytes + 31) / 32 * 32);
    fseek(file, ftell(file) - data_bytes + 271L * 64 * 4, SEEK_SET);
    fwrite(&infinite, sizeof infinite, 1, file);
    fclose(file);
    f.tokens[1][0] = 271;
    collected after = gradients(&f, DURE_LORA_FACTOR_BOTH, N_DOCS);
    assert_false(after.loss[1].finite);
    for (size_t d = 0; d < N_DOCS; d++) {
        if (d == 1) continue;
        assert_true(after.loss[d].finite);
        assert_memory_equal(after.gradients + d * after.n, before.gradients + d * after.n,
                            after.n * sizeof(float));
    }
    free(before.gradients);
    free(after.gradients);
    tear_down(&f);
}

static void test_transformer_refuses_bad_records(void **state)
{
    (void)state;
    fixture f;
    dure_diag diag = {{0}};
    dure_document_loss loss;
    set_up(&f, &(tiny_model_opts){.seed = 14, .n_context = 32}, &(dure_transformer_opts){0});
    assert_err(dure_transformer_loss(&loss, f.t, NULL, &f.docs[2], 1, &diag), DURE_ERR_USAGE);
    assert_non_null(strstr(diag.text, "61 tokens"));
    f.tokens[0][3] = TINY_VOCAB;
    assert_err(dure_transformer_loss(&loss, f.t, NULL, f.docs, 1, &diag), DURE_ERR_USAGE);
    f.tokens[0][3] = -1;
    assert_err(dure_transformer_loss(&loss, f.t, NULL, f.docs, 1, &diag), DURE_ERR_USAGE);
    f.tokens[0][3] = 0;
    f.supervised[0][0] = 1;
    assert_err(dure_transformer_loss(&loss, f.t, NULL, f.docs, 1, &diag), DURE_ERR_USAGE);
    tear_down(&f);
}

static void test_transformer_refuses_an_adapter_of_another_base(void **state)
{
    (void)state;
    fixture f;
    dure_document_loss loss;
    set_up(&f, &(tiny_model_opts){.seed = 15}, &(dure_transformer_opts){0});
    f.lora->layout.shape.n_ff++;
    assert_err(dure_transformer_loss(&loss, f.t, f.lora, f.docs, 1, NULL), DURE_ERR_USAGE);
    tear_down(&f);
}

static dure_err refuse(void *state, size_t doc, const float *gradient,
                       const dure_document_loss *loss)
{
    (void)gradient, (void)loss;
    *(size_t *)state = doc;
    return doc == 1 ? DURE_ERR_CANCELLED : DURE_OK;
}

static void test_transformer_sink_can_stop_the_run(void **state)
{
    (void)state;
    fixture f;
    size_t last = 99;
    dure_gradient_opts opts = {.factors = DURE_LORA_FACTOR_B};
    set_up(&f, &(tiny_model_opts){.seed = 16}, &(dure_transformer_opts){0});
    assert_err(dure_transformer_gradients(f.t, f.lora, &opts, f.docs, N_DOCS, refuse, &last, NULL),
               DURE_ERR_CANCELLED);
    assert_int_equal(last, 1);
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transformer_gradient_matches_differences),
        cmocka_unit_test(test_transformer_gradient_of_untied_head_and_rope_factors),
        cmocka_unit_test(test_transformer_gradient_of_quantized_base),
        cmocka_unit_test(test_transformer_gradient_of_plain_c),
        cmocka_unit_test(test_transformer_gradient_of_every_architecture),
        cmocka_unit_test(test_transformer_record_of_every_architecture_is_itself_alone),
        cmocka_unit_test(test_transformer_takes_heads_or_refuses_them),
        cmocka_unit_test(test_transformer_record_is_itself_in_any_packing),
        cmocka_unit_test(test_transformer_fit_trades_time_for_memory),
        cmocka_unit_test(test_transformer_fit_refuses_what_cannot_be),
        cmocka_unit_test(test_transformer_record_is_itself_alone),
        cmocka_unit_test(test_transformer_factors_are_parts_of_the_whole),
        cmocka_unit_test(test_transformer_stops_at_the_first_adapted_layer),
        cmocka_unit_test(test_transformer_sum_of_labels_scales_the_mean),
        cmocka_unit_test(test_transformer_together_gives_the_sum),
        cmocka_unit_test(test_transformer_vector_code_agrees_with_plain_c),
        cmocka_unit_test(test_transformer_training_steps_lower_the_loss),
        cmocka_unit_test(test_transformer_bf16_is_close_to_f32),
        cmocka_unit_test(test_transformer_logprobs_add_up_to_the_loss),
        cmocka_unit_test(test_transformer_record_without_labels_gives_nothing),
        cmocka_unit_test(test_transformer_overflow_in_one_record_is_seen_and_stays_there),
        cmocka_unit_test(test_transformer_refuses_bad_records),
        cmocka_unit_test(test_transformer_refuses_an_adapter_of_another_base),
        cmocka_unit_test(test_transformer_sink_can_stop_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
