/* Dropout in the engine: a record's mask is its own, it drops the share that was asked for, and the
 * gradient is that of the masked loss. */
#include "model/transformer.h"
#include "support/check.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DOCS = 7, LONGEST = 60 };

typedef struct fixture {
    temp_dir dir;
    dure_gguf *gguf;
    dure_transformer *model, *native; /* float32, and as the CPU likes best */
    dure_lora *lora;
    int32_t tokens[DOCS][LONGEST];
    uint8_t supervised[DOCS][LONGEST];
    dure_document docs[DOCS];
    uint64_t seeds[DOCS];
} fixture;

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    temp_dir_make(&f->dir);
    const char *path = temp_dir_file(&f->dir, "m.gguf");
    dure_transformer_opts opts = {.threads = 2, .precision = DURE_PRECISION_F32, .rows = 128};
    tiny_model_write(path, &(tiny_model_opts){.seed = 9});
    assert_ok(dure_gguf_open(&f->gguf, path, NULL, NULL));
    assert_ok(dure_transformer_new(&f->model, f->gguf, &opts, NULL));
    opts.precision = DURE_PRECISION_AUTO;
    assert_ok(dure_transformer_new(&f->native, f->gguf, &opts, NULL));
    dure_lora_layout layout = {.shape = *dure_transformer_shape(f->model),
                               .rank = 4,
                               .alpha = 8,
                               .targets = (1u << DURE_LORA_TARGETS) - 1};
    assert_ok(dure_lora_new(&f->lora, &layout));
    dure_lora_init_uniform(f->lora, 4);
    for (size_t i = 0; i < f->lora->n; i++)
        f->lora->params[i] += (float)(i * 7 % 19) * 0.004f - 0.036f; /* B is not zero */
    for (size_t d = 0; d < DOCS; d++) {
        size_t n = 20 + d * 37 % 40;
        for (size_t i = 0; i < n; i++) {
            f->tokens[d][i] = (int32_t)(3 + (i * 7 + d * 31) % 250);
            f->supervised[d][i] = i > 5;
        }
        f->docs[d] = (dure_document){f->tokens[d], f->supervised[d], n};
        f->seeds[d] = 100 + d;
    }
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    dure_lora_free(&f->lora);
    dure_transformer_free(&f->model);
    dure_transformer_free(&f->native);
    dure_gguf_close(&f->gguf);
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

/* Gradients and losses of documents, one after the other. */
typedef struct heard {
    float *gradients;
    double losses[DOCS];
    size_t n, params;
} heard;

static dure_err keep(void *state, size_t doc, const float *gradient, const dure_document_loss *loss)
{
    heard *h = state;
    assert_int_equal(doc, h->n);
    memcpy(h->gradients + doc * h->params, gradient, h->params * sizeof *gradient);
    h->losses[h->n++] = loss->nll_sum / loss->n_labels;
    return DURE_OK;
}

static heard run_on(dure_transformer *model, fixture *f, double dropout, size_t first, size_t n)
{
    heard h = {.params = f->lora->n, .gradients = calloc(n * f->lora->n, sizeof(float))};
    const dure_gradient_opts opts = {
        .factors = DURE_LORA_FACTOR_BOTH, .dropout = dropout, .dropout_seeds = f->seeds + first};
    assert_non_null(h.gradients);
    assert_ok(
        dure_transformer_gradients(model, f->lora, &opts, f->docs + first, n, keep, &h, NULL));
    return h;
}

static heard run(fixture *f, double dropout, size_t first, size_t n)
{
    return run_on(f->model, f, dropout, first, n);
}

static void check_own_mask(dure_transformer *model, fixture *f)
{
    heard all = run_on(model, f, 0.3, 0, DOCS);
    for (size_t d = 0; d < DOCS; d++) {
        heard one = run_on(model, f, 0.3, d, 1);
        assert_true(one.losses[0] == all.losses[d]);
        assert_memory_equal(one.gradients, all.gradients + d * all.params,
                            all.params * sizeof(float));
        free(one.gradients);
    }
    free(all.gradients);
}

static void test_dropout_mask_is_the_records_own_in_any_packing(void **state)
{
    fixture *f = *state;
    check_own_mask(f->model, f);
    check_own_mask(f->native, f);
}

static void test_dropout_follows_the_seed(void **state)
{
    fixture *f = *state;
    heard a = run(f, 0.3, 0, 1), none = run(f, 0, 0, 1);
    f->seeds[0]++;
    heard b = run(f, 0.3, 0, 1);
    f->seeds[0]--;
    heard c = run(f, 0.3, 0, 1);
    assert_true(a.losses[0] != b.losses[0] && a.losses[0] != none.losses[0]);
    assert_true(a.losses[0] == c.losses[0]);
    free(a.gradients);
    free(b.gradients);
    free(c.gradients);
    free(none.gradients);
}

/* A moves along its gradient, so the masked loss must fall by as much as the slope says. */
static void test_dropout_gradient_matches_differences(void **state)
{
    fixture *f = *state;
    heard at = run(f, 0.4, 2, 1);
    uint32_t random = 5;
    for (int direction = 0; direction < 6; direction++) {
        float *step = calloc(f->lora->n, sizeof *step), *kept = calloc(f->lora->n, sizeof *kept);
        double slope = 0;
        memcpy(kept, f->lora->params, f->lora->n * sizeof *kept);
        for (size_t i = 0; i < f->lora->n; i++) {
            random = random * 1664525u + 1013904223u;
            step[i] = ((float)(random >> 8) / 8388608.0f - 1.0f) * 2e-3f;
            slope += (double)step[i] * (double)at.gradients[i];
        }
        double side[2];
        for (int s = 0; s < 2; s++) {
            for (size_t i = 0; i < f->lora->n; i++)
                f->lora->params[i] = kept[i] + (s ? step[i] : -step[i]);
            heard h = run(f, 0.4, 2, 1);
            side[s] = h.losses[0];
            free(h.gradients);
        }
        memcpy(f->lora->params, kept, f->lora->n * sizeof *kept);
        double difference = (side[1] - side[0]) / 2;
        if (fabs(difference - slope) > 2e-2 * fabs(slope) + 2e-5)
            fail_msg("%g, not %g", difference, slope);
        free(step);
        free(kept);
    }
    free(at.gradients);
}

/* With B of one column and the down matrix alone, what A receives of each input column shows which
 * were dropped: dA is dz^T x, zero in a column that is dropped at every token. A document of one
 * label-bearing row has one token before it. */
static void test_dropout_drops_the_share_it_was_asked_for(void **state)
{
    fixture *f = *state;
    int32_t tokens[2] = {17, 99};
    uint8_t supervised[2] = {0, 1};
    const dure_document kept = f->docs[0];
    size_t dropped = 0, columns = 0;
    f->docs[0] = (dure_document){tokens, supervised, 2};
    for (uint64_t seed = 0; seed < 60; seed++) {
        size_t at = 0, in = dure_lora_in(&f->lora->layout.shape, DURE_LORA_DOWN);
        f->seeds[0] = seed;
        heard h = run(f, 0.3, 0, 1);
        assert_true(dure_lora_find(&at, &f->lora->layout, 1, DURE_LORA_DOWN, DURE_LORA_FACTOR_A));
        for (size_t i = 0; i < in; i++)
            dropped += h.gradients[at + i] == 0;
        columns += in;
        free(h.gradients);
    }
    f->docs[0] = kept;
    f->seeds[0] = 100;
    double share = (double)dropped / (double)columns;
    /* 60 x 96 draws: five standard deviations are 0.031. */
    if (fabs(share - 0.3) > 0.031) fail_msg("%g of the columns are dropped", share);
}

static void test_dropout_out_of_range_is_refused(void **state)
{
    fixture *f = *state;
    static const double wrong[] = {-0.1, 0.96, 1, NAN};
    heard h = {.params = f->lora->n};
    dure_gradient_opts opts = {.factors = DURE_LORA_FACTOR_BOTH, .dropout_seeds = f->seeds};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        opts.dropout = wrong[i];
        assert_err(dure_transformer_gradients(f->model, f->lora, &opts, f->docs, 1, keep, &h, NULL),
                   DURE_ERR_USAGE);
    }
    opts.dropout = 0.1;
    opts.dropout_seeds = NULL;
    assert_err(dure_transformer_gradients(f->model, f->lora, &opts, f->docs, 1, keep, &h, NULL),
               DURE_ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dropout_mask_is_the_records_own_in_any_packing),
        cmocka_unit_test(test_dropout_follows_the_seed),
        cmocka_unit_test(test_dropout_gradient_matches_differences),
        cmocka_unit_test(test_dropout_drops_the_share_it_was_asked_for),
        cmocka_unit_test(test_dropout_out_of_range_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
