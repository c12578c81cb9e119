/* An adapter whose targets have ranks of their own, in the engine: it is the one of an equal rank
 * with zeros where the lower ranks end. */
#include "model/transformer.h"
#include "support/check.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 6, TOKENS = 40 };

typedef struct fixture {
    temp_dir dir;
    dure_gguf *gguf;
    dure_transformer *model;
    dure_lora *several, *padded;
    int32_t tokens[TOKENS];
    uint8_t supervised[TOKENS];
} fixture;

static const uint32_t ranks[DURE_LORA_TARGETS] = {4, 1, 6, 3, 2, 5, 4};

/* B's columns times rank / MOST, so that alpha / MOST scales them as alpha / rank did. */
static void pad(fixture *f)
{
    const dure_lora_layout *from = &f->several->layout, *to = &f->padded->layout;
    for (uint32_t layer = 0; layer < from->shape.n_layers; layer++)
        for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++) {
            size_t a, b, wide_a, wide_b, in = dure_lora_in(&from->shape, t),
                                         out = dure_lora_out(&from->shape, t);
            assert_true(dure_lora_find(&a, from, layer, t, DURE_LORA_FACTOR_A));
            assert_true(dure_lora_find(&b, from, layer, t, DURE_LORA_FACTOR_B));
            assert_true(dure_lora_find(&wide_a, to, layer, t, DURE_LORA_FACTOR_A));
            assert_true(dure_lora_find(&wide_b, to, layer, t, DURE_LORA_FACTOR_B));
            memcpy(f->padded->params + wide_a, f->several->params + a,
                   ranks[t] * in * sizeof(float));
            for (size_t o = 0; o < out; o++)
                for (size_t r = 0; r < ranks[t]; r++)
                    f->padded->params[wide_b + o * MOST + r] =
                        f->several->params[b + o * ranks[t] + r] * (float)MOST / (float)ranks[t];
        }
}

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    temp_dir_make(&f->dir);
    const char *path = temp_dir_file(&f->dir, "m.gguf");
    const dure_transformer_opts opts = {.threads = 2, .precision = DURE_PRECISION_F32};
    tiny_model_write(path, &(tiny_model_opts){.seed = 9});
    assert_ok(dure_gguf_open(&f->gguf, path, NULL, NULL));
    assert_ok(dure_transformer_new(&f->model, f->gguf, &opts, NULL));
    dure_lora_layout layout = {.shape = *dure_transformer_shape(f->model),
                               .rank = MOST,
                               .alpha = 8,
                               .targets = (1u << DURE_LORA_TARGETS) - 1};
    assert_ok(dure_lora_new(&f->padded, &layout));
    memcpy(layout.ranks, ranks, sizeof ranks);
    dure_lora_ranks_settle(&layout);
    assert_ok(dure_lora_layout_check(&layout, NULL));
    assert_ok(dure_lora_new(&f->several, &layout));
    dure_lora_init_uniform(f->several, 4);
    for (size_t i = 0; i < f->several->n; i++)
        f->several->params[i] += (float)(i % 17) * 0.003f - 0.02f; /* B is not zero */
    pad(f);
    for (int i = 0; i < TOKENS; i++) {
        f->tokens[i] = 3 + i * 7 % 250;
        f->supervised[i] = i > 9;
    }
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    dure_lora_free(&f->several);
    dure_lora_free(&f->padded);
    dure_transformer_free(&f->model);
    dure_gguf_close(&f->gguf);
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

static double loss_of(fixture *f, const dure_lora *lora)
{
    const dure_document doc = {f->tokens, f->supervised, TOKENS};
    dure_document_loss loss;
    assert_ok(dure_transformer_loss(&loss, f->model, lora, &doc, 1, NULL));
    return loss.nll_sum / loss.n_labels;
}

static void test_ranks_of_targets_equal_the_padded_adapter(void **state)
{
    fixture *f = *state;
    assert_true(fabs(loss_of(f, f->several) - loss_of(f, NULL)) > 1e-3);
    assert_true(fabs(loss_of(f, f->several) - loss_of(f, f->padded)) < 1e-5);
}

static dure_err keep(void *state, size_t doc, const float *gradient, const dure_document_loss *loss)
{
    const dure_lora *lora = state;
    (void)doc, (void)loss;
    memcpy(lora->params, gradient, lora->n * sizeof *gradient);
    return DURE_OK;
}

static dure_lora *gradient_of(fixture *f, const dure_lora *lora)
{
    const dure_document doc = {f->tokens, f->supervised, TOKENS};
    const dure_gradient_opts opts = {.factors = DURE_LORA_FACTOR_BOTH};
    dure_lora *out = NULL;
    assert_ok(dure_lora_new(&out, &lora->layout));
    assert_ok(dure_transformer_gradients(f->model, lora, &opts, &doc, 1, keep, out, NULL));
    return out;
}

static void check_close(float got, float want)
{
    if (fabsf(got - want) > 1e-5f + 1e-3f * fabsf(want))
        fail_msg("%g, not %g", (double)got, (double)want);
}

static void test_ranks_of_targets_have_the_padded_gradient(void **state)
{
    fixture *f = *state;
    dure_lora *got = gradient_of(f, f->several), *want = gradient_of(f, f->padded);
    const dure_lora_layout *from = &got->layout, *to = &want->layout;
    for (uint32_t layer = 0; layer < from->shape.n_layers; layer++)
        for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++) {
            size_t a, b, wide_a, wide_b, in = dure_lora_in(&from->shape, t),
                                         out = dure_lora_out(&from->shape, t);
            assert_true(dure_lora_find(&a, from, layer, t, DURE_LORA_FACTOR_A));
            assert_true(dure_lora_find(&b, from, layer, t, DURE_LORA_FACTOR_B));
            assert_true(dure_lora_find(&wide_a, to, layer, t, DURE_LORA_FACTOR_A));
            assert_true(dure_lora_find(&wide_b, to, layer, t, DURE_LORA_FACTOR_B));
            for (size_t i = 0; i < ranks[t] * in; i++)
                check_close(got->params[a + i], want->params[wide_a + i]);
            for (size_t i = 0; i < out * ranks[t]; i++) /* B was scaled, so its gradient is too */
                check_close(got->params[b + i],
                            want->params[wide_b + i / ranks[t] * MOST + i % ranks[t]] *
                                (float)MOST / (float)ranks[t]);
        }
    dure_lora_free(&got);
    dure_lora_free(&want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_of_targets_equal_the_padded_adapter),
        cmocka_unit_test(test_ranks_of_targets_have_the_padded_gradient),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
