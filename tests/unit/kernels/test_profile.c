/* The profile: what a phase did is its time, its work and its share of what the machine can do. */
#include "kernels/attention.h"
#include "kernels/peak.h"
#include "kernels/profile.h"
#include "support/check.h"

#include <math.h>
#include <stdlib.h>

enum { THREADS = 2 };

static dure_compute compute_with(dure_profile *profile)
{
    dure_compute c = {.ops = dure_cpu_ops_of(dure_cpu_best()), .profile = profile};
    assert_ok(dure_pool_new(&c.pool, THREADS, 0));
    dure_profile_init(profile, THREADS);
    return c;
}

static void test_profile_measures_against_the_limit_of_the_work(void **state)
{
    (void)state;
    const dure_limits limits = {.gflops = 100, .gbytes = 10};
    dure_profile p = {.threads = 1};
    p.seconds[DURE_PHASE_MATMUL] = 3;
    p.flops[DURE_PHASE_MATMUL] = 150e9;
    p.bytes[DURE_PHASE_MATMUL] = 600e9; /* out of the caches: no limit of memory's */
    p.seconds[DURE_PHASE_CLIP] = 1;
    p.bytes[DURE_PHASE_CLIP] = 2e9;
    dure_phase_rate products = dure_profile_rate(&p, DURE_PHASE_MATMUL, limits),
                    clip = dure_profile_rate(&p, DURE_PHASE_CLIP, limits),
                    none = dure_profile_rate(&p, DURE_PHASE_NOISE, limits);
    assert_true(fabs(products.share - 0.75) < 1e-12 && fabs(clip.share - 0.25) < 1e-12);
    assert_true(fabs(products.gflops - 50) < 1e-9 && fabs(products.of_limit - 0.5) < 1e-12);
    assert_true(fabs(clip.gbytes - 2) < 1e-9 && fabs(clip.of_limit - 0.2) < 1e-12);
    assert_true(none.seconds <= 0 && none.share <= 0 && none.of_limit <= 0);
}

/* Panels are made inside products: their time is taken from these, shared by the threads. */
static void test_profile_takes_panels_out_of_products(void **state)
{
    (void)state;
    dure_profile p;
    dure_profile_init(&p, THREADS);
    dure_profile_enter(&p, DURE_PHASE_MATMUL);
    atomic_fetch_add(&p.panel_ns, 1000000000);
    dure_profile_panels_work(&p, 4e9);
    dure_profile_enter(&p, DURE_PHASE_OTHER);
    assert_true(fabs(p.seconds[DURE_PHASE_PANELS] - 0.5) < 1e-9);
    assert_true(p.seconds[DURE_PHASE_MATMUL] < 0); /* none passed in truth */
    dure_phase_rate rate = dure_profile_rate(&p, DURE_PHASE_PANELS, (dure_limits){.gbytes = 16});
    assert_true(fabs(rate.gbytes - 8) < 1e-6 && fabs(rate.of_limit - 0.5) < 1e-6);
}

/* Two products forward, a flop to multiply and one to add, for every pair that is seen: with the
 * document's earlier tokens alone, and at most a window of them. */
static void test_profile_counts_what_attention_sees(void **state)
{
    (void)state;
    enum { N = 20, DIM = 16, WINDOW = 8 };
    dure_profile p;
    dure_compute c = compute_with(&p);
    size_t act = c.ops->act_bytes;
    void *x = calloc(N * DIM, act), *out = calloc(N * DIM, act);
    float *lse = calloc(N, sizeof *lse);
    void *packed = malloc(dure_attention_packed_bytes(N, 1, 1, DIM, c.ops));
    assert_true(x && out && lse && packed);
    assert_ok(dure_pool_reserve(c.pool, dure_attention_scratch_bytes(N, DIM, c.ops)));
    const dure_attention_doc doc = {.n = N, .k = x, .v = x, .n_keys = N};
    dure_attention args = {.docs = &doc,
                           .n_docs = 1,
                           .q = x,
                           .ldq = DIM,
                           .ldk = DIM,
                           .ldv = DIM,
                           .heads = 1,
                           .heads_kv = 1,
                           .dim = DIM,
                           .scale = 1,
                           .packed = packed};
    dure_profile_enter(&p, DURE_PHASE_ATTENTION);
    dure_attention_forward(out, lse, &args, &c);
    const double all = 4 * DIM * (N * (N + 1) / 2);
    assert_true(fabs(p.flops[DURE_PHASE_ATTENTION] - all) < 0.5);
    args.window = WINDOW;
    dure_attention_forward(out, lse, &args, &c);
    const double seen = 4 * DIM * (WINDOW * (WINDOW + 1) / 2 + (N - WINDOW) * WINDOW);
    assert_true(fabs(p.flops[DURE_PHASE_ATTENTION] - all - seen) < 0.5);
    free(x);
    free(out);
    free(lse);
    free(packed);
    dure_pool_free(&c.pool);
}

static void test_profile_limits_are_measured(void **state)
{
    (void)state;
    dure_profile p;
    dure_compute c = compute_with(&p);
    assert_true(dure_peak_gflops(&c, 1) > 0.01);
    assert_true(dure_peak_gbytes(&c) > 0.01);
    dure_pool_free(&c.pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profile_measures_against_the_limit_of_the_work),
        cmocka_unit_test(test_profile_takes_panels_out_of_products),
        cmocka_unit_test(test_profile_counts_what_attention_sees),
        cmocka_unit_test(test_profile_limits_are_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
