/* Gradients in less memory: neither where weights come from, nor what is computed twice, nor how
 * many records a pass takes changes a bit of them, whatever the adapter and however it is trained.
 */
#include "model/transformer.h"
#include "support/check.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <stdlib.h>
#include <string.h>

enum { DOCS = 6, LONGEST = 64 };

typedef struct fixture {
    temp_dir dir;
    dure_gguf *gguf;
    dure_lora *lora;
    int32_t tokens[DOCS][LONGEST];
    uint8_t supervised[DOCS][LONGEST];
    dure_document docs[DOCS];
    uint64_t seeds[DOCS];
} fixture;

/* The last third of a document is its answer; one has none. */
static void make_docs(fixture *f)
{
    static const size_t lengths[DOCS] = {17, 2, 61, 30, 12, 9};
    for (size_t d = 0; d < DOCS; d++) {
        size_t n = lengths[d];
        for (size_t i = 0; i < n; i++) {
            f->tokens[d][i] = (int32_t)(3 + (i * 7 + d * 31) % 250);
            f->supervised[d][i] = d != 4 && i > 0 && i >= n - n / 3 - 1;
        }
        f->docs[d] = (dure_document){f->tokens[d], f->supervised[d], n};
        f->seeds[d] = 40 + d;
    }
}

static void set_up(fixture *f, const char *arch)
{
    memset(f, 0, sizeof *f);
    temp_dir_make(&f->dir);
    const char *path = temp_dir_file(&f->dir, "m.gguf");
    tiny_model_write(
        path, &(tiny_model_opts){.seed = 20, .type = TINY_Q8_0, .n_layers = 4, .arch = arch});
    assert_ok(dure_gguf_open(&f->gguf, path, NULL, NULL));
    make_docs(f);
}

static void tear_down(fixture *f)
{
    dure_gguf_close(&f->gguf);
    temp_dir_remove(&f->dir);
}

/* What is trained, and how. */
typedef struct training {
    bool dora, together;
    double dropout;
    uint32_t rank_of_v, first_layer;
    dure_lora_factor factors;
} training;

static void make_lora(fixture *f, dure_transformer *t, const training *how)
{
    dure_lora_layout layout = {.shape = *dure_transformer_shape(t),
                               .rank = 4,
                               .alpha = 8,
                               .targets = (1u << DURE_LORA_TARGETS) - 1,
                               .first_layer = how->first_layer,
                               .dora = how->dora};
    layout.ranks[DURE_LORA_V] = how->rank_of_v;
    assert_ok(dure_lora_layout_check(&layout, NULL));
    assert_ok(dure_lora_new(&f->lora, &layout));
    dure_lora_init_uniform(f->lora, 4);
    for (size_t i = 0; i < f->lora->n; i++)
        f->lora->params[i] += (float)(i * 7 % 19) * 0.004f - 0.036f; /* B is not zero */
    dure_lora_changed(f->lora);
    assert_ok(dure_transformer_init_magnitudes(t, f->lora, NULL));
}

typedef struct heard {
    float *gradients; /* DOCS x n */
    size_t n;
    double nll[DOCS];
    bool none[DOCS];
} heard;

static dure_err keep(void *state, size_t doc, const float *gradient, const dure_document_loss *loss)
{
    heard *h = state;
    h->nll[doc] = loss->nll_sum;
    h->none[doc] = !gradient;
    if (gradient) memcpy(h->gradients + doc * h->n, gradient, h->n * sizeof *gradient);
    return DURE_OK;
}

static heard listen(dure_transformer *t, fixture *f, const training *how)
{
    heard h = {.n = dure_lora_count(&f->lora->layout, how->factors)};
    const dure_gradient_opts opts = {.factors = how->factors,
                                     .sum_of_labels = how->together,
                                     .together = how->together,
                                     .dropout = how->dropout,
                                     .dropout_seeds = f->seeds};
    h.gradients = calloc(DOCS * h.n, sizeof *h.gradients);
    assert_non_null(h.gradients);
    assert_ok(dure_transformer_gradients(t, f->lora, &opts, f->docs, DOCS, keep, &h, NULL));
    return h;
}

static void assert_same(const heard *a, const heard *b)
{
    assert_memory_equal(a->nll, b->nll, sizeof a->nll);
    assert_memory_equal(a->none, b->none, sizeof a->none);
    assert_memory_equal(a->gradients, b->gradients, DOCS * a->n * sizeof(float));
}

static heard run(fixture *f, const training *how, const dure_transformer_opts *way)
{
    dure_transformer *t = NULL;
    assert_ok(dure_transformer_new(&t, f->gguf, way, NULL));
    make_lora(f, t, how);
    heard h = listen(t, f, how);
    dure_lora_free(&f->lora);
    dure_transformer_free(&t);
    return h;
}

static void check_every_way(const training *how, const char *arch)
{
    /* A gradient of several records is a sum in the order of the rows: there the packing counts,
     * and stays as it is. */
    const uint32_t rows = how->together ? 0 : 64;
    const dure_transformer_opts ways[] = {
        {.threads = 2},
        {.threads = 2, .weights = DURE_WEIGHTS_FILE},
        {.threads = 2, .recompute = 1},
        {.threads = 2, .recompute = 2, .rows = rows},
        {.threads = 1, .weights = DURE_WEIGHTS_FILE, .recompute = 99, .rows = rows}};
    fixture f;
    set_up(&f, arch);
    heard first = run(&f, how, &ways[0]);
    for (size_t d = 0; d < DOCS; d++)
        assert_true(first.none[d] == (how->together ? d != DOCS - 1 : d == 4));
    for (size_t w = 1; w < sizeof ways / sizeof ways[0]; w++) {
        heard h = run(&f, how, &ways[w]);
        assert_same(&h, &first);
        free(h.gradients);
    }
    free(first.gradients);
    tear_down(&f);
}

static void test_less_memory_changes_no_bit_of_lora(void **state)
{
    (void)state;
    check_every_way(&(training){.factors = DURE_LORA_FACTOR_BOTH}, NULL);
    check_every_way(&(training){.factors = DURE_LORA_FACTOR_B, .first_layer = 1}, NULL);
    check_every_way(&(training){.factors = DURE_LORA_FACTOR_BOTH, .together = true}, NULL);
}

static void test_less_memory_changes_no_bit_of_dora(void **state)
{
    (void)state;
    check_every_way(&(training){.factors = DURE_LORA_FACTOR_BOTH, .dora = true}, NULL);
    check_every_way(&(training){.factors = DURE_LORA_FACTOR_BOTH, .dora = true, .together = true},
                    NULL);
}

static void test_less_memory_changes_no_bit_with_dropout(void **state)
{
    (void)state;
    check_every_way(&(training){.factors = DURE_LORA_FACTOR_BOTH, .dropout = 0.3}, NULL);
    check_every_way(&(training){.factors = DURE_LORA_FACTOR_A, .dropout = 0.3, .together = true},
                    NULL);
}

static void test_less_memory_changes_no_bit_of_all_at_once(void **state)
{
    (void)state;
    static const char *const archs[] = {"llama", "qwen2", "qwen3", "gemma3"};
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++)
        check_every_way(&(training){.factors = DURE_LORA_FACTOR_BOTH,
                                    .dora = true,
                                    .dropout = 0.2,
                                    .rank_of_v = 7,
                                    .first_layer = 1},
                        archs[i]);
}

/* One transformer that is told to work in another way keeps its workspace. */
static void test_less_memory_may_change_between_passes(void **state)
{
    (void)state;
    static const uint32_t ways[] = {4, 1, 0, 3, 2};
    const training how = {.factors = DURE_LORA_FACTOR_BOTH, .dora = true, .rank_of_v = 2};
    fixture f;
    dure_transformer *t = NULL;
    set_up(&f, NULL);
    assert_ok(dure_transformer_new(&t, f.gguf, &(dure_transformer_opts){.threads = 2}, NULL));
    make_lora(&f, t, &how);
    heard first = listen(t, &f, &how);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        dure_transformer *other = NULL;
        const dure_transformer_opts opts = {.threads = 2, .recompute = ways[i]};
        assert_ok(dure_transformer_new(&other, f.gguf, &opts, NULL));
        for (size_t k = i; k < sizeof ways / sizeof ways[0]; k++) {
            const dure_transformer_fit fit = {.rows = 512, .recompute = ways[k], .whole = k + 1};
            assert_ok(dure_transformer_adopt(other, &fit));
            heard h = listen(other, &f, &how);
            assert_same(&h, &first);
            free(h.gradients);
        }
        dure_transformer_free(&other);
    }
    free(first.gradients);
    dure_lora_free(&f.lora);
    dure_transformer_free(&t);
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_less_memory_changes_no_bit_of_lora),
        cmocka_unit_test(test_less_memory_changes_no_bit_of_dora),
        cmocka_unit_test(test_less_memory_changes_no_bit_with_dropout),
        cmocka_unit_test(test_less_memory_changes_no_bit_of_all_at_once),
        cmocka_unit_test(test_less_memory_may_change_between_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
