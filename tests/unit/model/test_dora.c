/* DoRA in the engine: an adapter that starts as its base, gains that scale what LoRA gives, and the
 * gradient with the rows' norms held. */
#include "kernels/matmul.h"
#include "model/transformer.h"
#include "support/check.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DOCS = 5, LONGEST = 60 };

typedef struct fixture {
    temp_dir dir;
    dure_gguf *gguf;
    dure_transformer *model, *native; /* float32, and as the CPU likes best */
    dure_lora *dora, *lora;           /* with the same A and B */
    int32_t tokens[DOCS][LONGEST];
    uint8_t supervised[DOCS][LONGEST];
    dure_document docs[DOCS];
} fixture;

/* The layer's place of A, B and, with DoRA, the magnitudes. */
typedef struct place {
    size_t a, b, m, n_a, n_b, n_m;
} place;

static place place_of(const dure_lora_layout *layout, uint32_t layer, dure_lora_target t)
{
    place p = {.n_a = (size_t)dure_lora_rank(layout, t) * dure_lora_in(&layout->shape, t),
               .n_b = (size_t)dure_lora_rank(layout, t) * dure_lora_out(&layout->shape, t),
               .n_m = dure_lora_out(&layout->shape, t)};
    assert_true(dure_lora_find(&p.a, layout, layer, t, DURE_LORA_FACTOR_A));
    assert_true(dure_lora_find(&p.b, layout, layer, t, DURE_LORA_FACTOR_B));
    assert_true(dure_lora_find_magnitude(&p.m, layout, layer, t) == layout->dora);
    return p;
}

static void fill_factors(fixture *f)
{
    for (size_t i = 0; i < f->lora->n; i++)
        f->lora->params[i] += (float)(i * 7 % 19) * 0.004f - 0.036f; /* B is not zero */
    for (uint32_t layer = 0; layer < f->lora->layout.shape.n_layers; layer++)
        for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++) {
            place from = place_of(&f->lora->layout, layer, t),
                  to = place_of(&f->dora->layout, layer, t);
            memcpy(f->dora->params + to.a, f->lora->params + from.a, from.n_a * sizeof(float));
            memcpy(f->dora->params + to.b, f->lora->params + from.b, from.n_b * sizeof(float));
        }
    dure_lora_changed(f->dora);
}

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    temp_dir_make(&f->dir);
    const char *path = temp_dir_file(&f->dir, "m.gguf");
    dure_transformer_opts opts = {.threads = 2, .precision = DURE_PRECISION_F32, .rows = 128};
    tiny_model_write(path, &(tiny_model_opts){.seed = 9, .type = TINY_Q8_0});
    assert_ok(dure_gguf_open(&f->gguf, path, NULL, NULL));
    assert_ok(dure_transformer_new(&f->model, f->gguf, &opts, NULL));
    opts.precision = DURE_PRECISION_AUTO;
    assert_ok(dure_transformer_new(&f->native, f->gguf, &opts, NULL));
    dure_lora_layout layout = {.shape = *dure_transformer_shape(f->model),
                               .rank = 4,
                               .alpha = 8,
                               .targets = (1u << DURE_LORA_TARGETS) - 1};
    layout.ranks[DURE_LORA_V] = 3;
    assert_ok(dure_lora_new(&f->lora, &layout));
    layout.dora = true;
    assert_ok(dure_lora_new(&f->dora, &layout));
    dure_lora_init_uniform(f->lora, 4);
    fill_factors(f);
    assert_ok(dure_transformer_init_magnitudes(f->model, f->dora, NULL));
    for (size_t d = 0; d < DOCS; d++) {
        size_t n = 20 + d * 37 % 40;
        for (size_t i = 0; i < n; i++) {
            f->tokens[d][i] = (int32_t)(3 + (i * 7 + d * 31) % 250);
            f->supervised[d][i] = i > 5;
        }
        f->docs[d] = (dure_document){f->tokens[d], f->supervised[d], n};
    }
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    dure_lora_free(&f->lora);
    dure_lora_free(&f->dora);
    dure_transformer_free(&f->model);
    dure_transformer_free(&f->native);
    dure_gguf_close(&f->gguf);
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

static double loss_of(fixture *f, const dure_lora *lora, size_t doc)
{
    dure_document_loss loss;
    assert_ok(dure_transformer_loss(&loss, f->model, lora, &f->docs[doc], 1, NULL));
    return loss.nll_sum / loss.n_labels;
}

static void test_dora_counts_its_magnitudes_with_b(void **state)
{
    fixture *f = *state;
    const dure_lora_layout *d = &f->dora->layout, *l = &f->lora->layout;
    size_t rows = 2 * (64 + 32 + 32 + 64 + 96 + 96 + 64);
    assert_int_equal(f->dora->norms->n, rows);
    assert_int_equal(f->dora->n, f->lora->n + rows);
    assert_int_equal(dure_lora_count(d, DURE_LORA_FACTOR_A),
                     dure_lora_count(l, DURE_LORA_FACTOR_A));
    float *active = calloc(f->dora->n, sizeof *active);
    dure_lora *back = NULL;
    assert_ok(dure_lora_new(&back, d));
    memcpy(back->params, f->dora->params, back->n * sizeof *back->params);
    dure_lora_pack(active, f->dora, DURE_LORA_FACTOR_B);
    uint64_t version = back->version;
    dure_lora_unpack(back, active, DURE_LORA_FACTOR_B);
    assert_true(back->version > version);
    assert_memory_equal(back->params, f->dora->params, back->n * sizeof *back->params);
    dure_lora_free(&back);
    free(active);
}

/* The magnitudes are the rows' lengths, so nothing changes until they do. */
static void test_dora_starts_as_the_lora_it_is_made_of(void **state)
{
    fixture *f = *state;
    assert_true(fabs(loss_of(f, f->lora, 0) - loss_of(f, NULL, 0)) > 1e-3);
    assert_true(fabs(loss_of(f, f->lora, 0) - loss_of(f, f->dora, 0)) < 1e-6);
}

/* |W + s B A| of one row, in double from its parts. */
static double length_of_row(fixture *f, dure_lora_target t, size_t row)
{
    char name[64];
    dure_weight w = {0};
    place p = place_of(&f->dora->layout, 1, t);
    size_t in = dure_lora_in(&f->dora->layout.shape, t), rank = dure_lora_rank(&f->dora->layout, t);
    snprintf(name, sizeof name, "blk.1.%s.weight", t == DURE_LORA_V ? "attn_v" : "ffn_down");
    const dure_gguf_tensor *tensor = dure_gguf_find(f->gguf, name);
    assert_non_null(tensor);
    w = (dure_weight){
        .type = tensor->type, .out = (size_t)tensor->dims[1], .in = in, .data = tensor->data};
    float *x = calloc(in, sizeof *x);
    const dure_compute c = {.ops = dure_cpu_ops_of(DURE_CPU_REFERENCE)};
    dure_weight_row(x, &w, row, &c);
    double sum = 0;
    for (size_t i = 0; i < in; i++) {
        double v = (double)x[i];
        for (size_t r = 0; r < rank; r++)
            v += 8.0 / (double)rank * (double)f->dora->params[p.b + row * rank + r] *
                 (double)f->dora->params[p.a + r * in + i];
        sum += v * v;
    }
    free(x);
    return sqrt(sum);
}

static void test_dora_magnitudes_start_as_lengths_of_rows(void **state)
{
    fixture *f = *state;
    static const dure_lora_target targets[] = {DURE_LORA_V, DURE_LORA_DOWN};
    for (size_t k = 0; k < 2; k++)
        for (size_t row = 0; row < 32; row += 7) {
            place p = place_of(&f->dora->layout, 1, targets[k]);
            double want = length_of_row(f, targets[k], row);
            assert_true(fabs((double)f->dora->params[p.m + row] - want) < 1e-5 * want);
        }
}

/* Twice the magnitudes are what twice the weights would be: here, of the last layer's down alone,
 * whose LoRA sums then count twice. */
static void test_dora_magnitude_scales_what_the_row_gives(void **state)
{
    fixture *f = *state;
    double before = loss_of(f, f->dora, 1);
    place p = place_of(&f->dora->layout, 1, DURE_LORA_DOWN);
    for (size_t i = 0; i < p.n_m; i++)
        f->dora->params[p.m + i] *= 2;
    dure_lora_changed(f->dora);
    double doubled = loss_of(f, f->dora, 1);
    assert_true(fabs(doubled - before) > 1e-3);
    /* The same with A and B as they are, from the gains: every one of that matrix is 2. */
    size_t at = dure_lora_norm_index(&f->dora->layout, 1, DURE_LORA_DOWN);
    for (size_t i = 0; i < p.n_m; i++)
        assert_true(fabsf(f->dora->norms->gain[at + i] - 2) < 1e-5f);
    for (size_t i = 0; i < p.n_m; i++)
        f->dora->params[p.m + i] /= 2;
    dure_lora_changed(f->dora);
    assert_true(loss_of(f, f->dora, 1) == before);
}

typedef struct heard {
    float *gradients;
    size_t n, params;
} heard;

static dure_err keep(void *state, size_t doc, const float *gradient, const dure_document_loss *loss)
{
    heard *h = state;
    (void)loss;
    assert_int_equal(doc, h->n++);
    if (gradient) memcpy(h->gradients + doc * h->params, gradient, h->params * sizeof *gradient);
    return DURE_OK;
}

static heard run(dure_transformer *model, fixture *f, size_t first, size_t n, bool together)
{
    heard h = {.params = f->dora->n, .gradients = calloc(n * f->dora->n, sizeof(float))};
    const dure_gradient_opts opts = {
        .factors = DURE_LORA_FACTOR_BOTH, .sum_of_labels = together, .together = together};
    assert_non_null(h.gradients);
    assert_ok(
        dure_transformer_gradients(model, f->dora, &opts, f->docs + first, n, keep, &h, NULL));
    return h;
}

/* The norms are held, as DoRA's gradient holds them, by writing to the parameters without saying
 * so. Magnitudes then reach the gains by hand. */
static double held_loss(fixture *f, const float *kept, const float *step, float side, size_t doc)
{
    const dure_lora_layout *layout = &f->dora->layout;
    for (size_t i = 0; i < f->dora->n; i++)
        f->dora->params[i] = kept[i] + side * step[i];
    dure_lora_norms *norms = f->dora->norms;
    for (uint32_t layer = 0; layer < layout->shape.n_layers; layer++)
        for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++) {
            place p = place_of(layout, layer, t);
            size_t at = dure_lora_norm_index(layout, layer, t);
            for (size_t i = 0; i < p.n_m; i++)
                norms->gain[at + i] = f->dora->params[p.m + i] / norms->norm[at + i];
        }
    return loss_of(f, f->dora, doc);
}

static void test_dora_gradient_matches_differences_with_norms_held(void **state)
{
    fixture *f = *state;
    uint32_t random = 5;
    heard at = run(f->model, f, 2, 1, false);
    float *kept = calloc(f->dora->n, sizeof *kept), *step = calloc(f->dora->n, sizeof *step);
    memcpy(kept, f->dora->params, f->dora->n * sizeof *kept);
    for (int direction = 0; direction < 6; direction++) {
        double slope = 0;
        for (size_t i = 0; i < f->dora->n; i++) {
            random = random * 1664525u + 1013904223u;
            step[i] = ((float)(random >> 8) / 8388608.0f - 1.0f) * 2e-3f;
            slope += (double)step[i] * (double)at.gradients[i];
        }
        double difference = (held_loss(f, kept, step, 1, 2) - held_loss(f, kept, step, -1, 2)) / 2;
        if (fabs(difference - slope) > 1e-2 * fabs(slope) + 2e-5)
            fail_msg("%g, not %g", difference, slope);
    }
    held_loss(f, kept, step, 0, 2);
    dure_lora_changed(f->dora);
    free(kept);
    free(step);
    free(at.gradients);
}

static void test_dora_gradient_is_the_records_own_in_any_packing(void **state)
{
    fixture *f = *state;
    dure_transformer *const models[] = {f->model, f->native};
    for (size_t k = 0; k < 2; k++) {
        heard all = run(models[k], f, 0, DOCS, false);
        for (size_t d = 0; d < DOCS; d++) {
            heard one = run(models[k], f, d, 1, false);
            assert_memory_equal(one.gradients, all.gradients + d * all.params,
                                all.params * sizeof(float));
            free(one.gradients);
        }
        free(all.gradients);
    }
}

static void test_dora_gradient_together_is_the_sum(void **state)
{
    fixture *f = *state;
    heard sum = run(f->model, f, 0, 2, true), one = run(f->model, f, 0, 1, true),
          two = run(f->model, f, 1, 1, true);
    for (size_t i = 0; i < sum.params; i++) {
        float want = one.gradients[i] + two.gradients[i], got = sum.gradients[sum.params + i];
        if (fabsf(got - want) > 1e-4f + 1e-3f * fabsf(want))
            fail_msg("%zu: %g, not %g", i, (double)got, (double)want);
    }
    free(sum.gradients);
    free(one.gradients);
    free(two.gradients);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dora_counts_its_magnitudes_with_b),
        cmocka_unit_test(test_dora_starts_as_the_lora_it_is_made_of),
        cmocka_unit_test(test_dora_magnitudes_start_as_lengths_of_rows),
        cmocka_unit_test(test_dora_magnitude_scales_what_the_row_gives),
        cmocka_unit_test(test_dora_gradient_matches_differences_with_norms_held),
        cmocka_unit_test(test_dora_gradient_is_the_records_own_in_any_packing),
        cmocka_unit_test(test_dora_gradient_together_is_the_sum),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
