/* Degrees and thresholds of sparse graphs, against the parameters that are in use elsewhere. */
#include "proto/neighbours.h"
#include "support/check.h"

#include <math.h>
#include <string.h>

/* google/federated-compute's parameter finder, semi-malicious server, 2^-40 and 2^-20, for shares
 * with the k neighbours alone; here a member is a holder of its own shares, too, which asks for a
 * threshold one larger now and then and saves a pair of neighbours. */
static void test_neighbours_agree_with_published_parameters(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, c, dropouts, k, t;
    } known[] = {{100, 5, 5, 16, 11},    {100, 10, 10, 32, 22},    {100, 20, 10, 42, 32},
                 {300, 15, 15, 38, 27},  {300, 30, 30, 66, 46},    {300, 60, 30, 94, 70},
                 {1000, 50, 50, 52, 37}, {1000, 100, 100, 96, 67}, {1000, 200, 100, 140, 104}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        dure_graph_choice g = {.n = known[i].n, .c = known[i].c, .dropouts = known[i].dropouts};
        assert_true(dure_graph_choose(&g));
        assert_in_range(g.k, known[i].k - 2, known[i].k + 2);
        assert_in_range(g.t, known[i].t - 2, known[i].t + 2);
    }
}

/* All of c collude with probability 1 when everybody is a neighbour: the rule is 2 t > n + c. */
static void test_neighbours_of_the_complete_graph_are_the_known_rule(void **state)
{
    (void)state;
    for (uint32_t n = 3; n <= 100; n++) {
        for (uint32_t c = 0; c < n; c++) {
            assert_int_equal(dure_graph_colluders(n, n - 1, c), c);
            assert_int_equal(dure_graph_run_colluders(n, n - 1, c), 0);
            const dure_graph_choice right = {.n = n, .c = c, .k = n - 1, .t = (n + c) / 2 + 1};
            const dure_graph_choice low = {.n = n, .c = c, .k = n - 1, .t = (n + c) / 2};
            assert_int_equal(dure_graph_check(&right, NULL) == DURE_OK, right.t <= n);
            assert_err(dure_graph_check(&low, NULL), DURE_ERR_POLICY);
        }
    }
}

/* By hand: both of two colluders are among 4 of 19 neighbours too often for one to do. */
static void test_neighbours_bounds_of_a_small_ring(void **state)
{
    (void)state;
    assert_int_equal(dure_graph_colluders(20, 4, 2), 2);
    assert_int_equal(dure_graph_run_colluders(20, 4, 2), 2);
    assert_int_equal(dure_graph_colluders(20, 4, 0), 0);
    /* One dropout, t = 4 of 5 holders, no colluders: no member is ever short of a holder, and the
     * ring opens nowhere. */
    const dure_graph_choice safe = {.n = 20, .dropouts = 1, .k = 4, .t = 4};
    assert_true(dure_graph_finish_bits(&safe) == 1000);
    /* Two of forty: a dropout is short of a holder when the other is one of its 4 neighbours, a
     * survivor when both are: 2 * 4 / 39 + 38 * C(4, 2) / C(39, 2). */
    const dure_graph_choice tight = {.n = 40, .dropouts = 2, .k = 4, .t = 4};
    const double fails = 2 * 4.0 / 39 + 38 * 6.0 / 741;
    assert_true(fabs(dure_graph_finish_bits(&tight) + log2(fails)) < 1e-9);
}

static void test_neighbours_say_which_rule_is_broken(void **state)
{
    (void)state;
    dure_diag diag = {0};
    dure_graph_choice g = {.n = 1000, .c = 100, .dropouts = 100, .k = 96, .t = 68};
    assert_ok(dure_graph_check(&g, &diag));
    g.t = 67; /* 134 = 97 + 37 */
    assert_err(dure_graph_check(&g, &diag), DURE_ERR_POLICY);
    assert_non_null(strstr(diag.text, "of the 97 holders of a member's shares 37 may collude"));
    g.t = 68;
    g.dropouts = 150;
    assert_err(dure_graph_check(&g, &diag), DURE_ERR_POLICY);
    assert_non_null(strstr(diag.text, "more neighbours are needed, or fewer dropouts"));
    g.k = 95;
    assert_err(dure_graph_check(&g, &diag), DURE_ERR_POLICY);
    assert_non_null(strstr(diag.text, "even number"));
    g.k = 1000;
    assert_err(dure_graph_check(&g, &diag), DURE_ERR_POLICY);
}

/* More colluders or dropouts never ask for less. */
static void test_neighbours_grow_with_what_they_withstand(void **state)
{
    (void)state;
    uint32_t last = 0;
    for (uint32_t c = 0; c <= 100; c += 10) {
        dure_graph_choice g = {.n = 500, .c = c, .dropouts = 25};
        assert_true(dure_graph_choose(&g));
        assert_true(g.k >= last);
        last = g.k;
    }
    dure_graph_choice none = {.n = 10, .c = 8, .dropouts = 5};
    assert_false(dure_graph_choose(&none));
}

static void test_neighbours_promise_what_holds(void **state)
{
    (void)state;
    char text[600];
    const dure_graph_choice complete = {.n = 10, .c = 2, .k = 9, .t = 7};
    dure_graph_promise(text, sizeof text, &complete);
    assert_non_null(strstr(text, "at any step"));
    assert_non_null(strstr(text, "up to 3 sites lost"));
    const dure_graph_choice sparse = {.n = 1000, .c = 100, .dropouts = 100, .k = 96, .t = 68};
    dure_graph_promise(text, sizeof text, &sparse);
    assert_non_null(strstr(text, "honest while keys are handed out (semi-malicious)"));
    assert_non_null(strstr(text, "2^-40"));
    assert_non_null(strstr(text, "once in 2^20"));
    dure_cohorts_promise(text, sizeof text, &sparse, 100);
    assert_non_null(strstr(text, "10 cohorts of up to 100 sites"));
    assert_non_null(strstr(text, "learns every cohort's sum"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_neighbours_agree_with_published_parameters),
        cmocka_unit_test(test_neighbours_of_the_complete_graph_are_the_known_rule),
        cmocka_unit_test(test_neighbours_bounds_of_a_small_ring),
        cmocka_unit_test(test_neighbours_say_which_rule_is_broken),
        cmocka_unit_test(test_neighbours_grow_with_what_they_withstand),
        cmocka_unit_test(test_neighbours_promise_what_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
