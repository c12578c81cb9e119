/* The ring of a round, who stands next to whom, and the rolls over it. */
#include "proto/messages_round.h"
#include "secagg/roll.h"
#include "support/check.h"
#include "support/seeded_rng.h"

#include <stdlib.h>
#include <string.h>

static dure_config config; /* large */
static dure_sign_key beacon;

static void sample(uint32_t n, uint32_t neighbours)
{
    memset(&config, 0, sizeof config);
    config.n_members = n;
    config.neighbours = neighbours;
    config.run_id = 3;
    config.round = 8;
    config.beacon_index = 5;
    for (uint32_t i = 0; i < n; i++) {
        config.members[i].sign_public[0] = (uint8_t)i;
        config.members[i].sign_public[1] = (uint8_t)(i >> 8);
    }
    memcpy(config.beacon_public, beacon.public_, sizeof config.beacon_public);
}

static int setup(void **state)
{
    (void)state;
    return dure_sign_generate(&beacon) == DURE_OK ? 0 : -1;
}

static dure_graph ring(uint32_t n, uint32_t neighbours)
{
    dure_graph graph;
    uint8_t signature[DURE_SIGNATURE_BYTES] = {0};
    sample(n, neighbours);
    assert_ok(dure_beacon_sign(signature, &beacon, config.federation_id, config.beacon_index));
    assert_ok(dure_graph_make(
        &graph, &config, neighbours ? dure_span_of(signature, sizeof signature) : (dure_span){0}));
    return graph;
}

static void test_graph_complete_has_everybody_near(void **state)
{
    (void)state;
    for (uint32_t n = 3; n <= 12; n++) {
        const dure_graph graph = ring(n, 0);
        const dure_members all = dure_members_first(n), nobody = {{0}};
        for (uint32_t u = 0; u < n; u++) {
            const dure_members near = dure_graph_near(&graph, u);
            assert_true(dure_members_equal(&near, &all));
        }
        assert_false(dure_graph_separable(&graph, &nobody, n));
    }
}

static void test_graph_neighbours_are_mutual_and_k(void **state)
{
    (void)state;
    for (uint32_t k = 2; k <= 28; k += 2) {
        const dure_graph graph = ring(31, k);
        for (uint32_t u = 0; u < 31; u++) {
            const dure_members near = dure_graph_near(&graph, u);
            assert_int_equal(dure_members_count(&near), k + 1);
            for (uint32_t v = 0; v < 31; v++) {
                const dure_members back = dure_graph_near(&graph, v);
                assert_int_equal(dure_members_has(&near, v), dure_members_has(&back, u));
            }
        }
    }
}

static bool same_order(const dure_graph *a, const dure_graph *b)
{
    return memcmp(a->at, b->at, sizeof a->at) == 0;
}

static void test_graph_order_follows_from_beacon_run_and_round(void **state)
{
    (void)state;
    const dure_graph graph = ring(40, 6);
    uint8_t signature[DURE_SIGNATURE_BYTES] = {0};
    dure_graph other;
    assert_ok(dure_beacon_sign(signature, &beacon, config.federation_id, 5));
    const dure_span span = dure_span_of(signature, sizeof signature);
    assert_ok(dure_graph_make(&other, &config, span));
    assert_true(same_order(&graph, &other));
    config.round++;
    assert_ok(dure_graph_make(&other, &config, span));
    assert_false(same_order(&graph, &other));
    config.round--;
    config.run_id++;
    assert_ok(dure_graph_make(&other, &config, span));
    assert_false(same_order(&graph, &other));
    sample(40, 6);
    config.beacon_index++;
    assert_ok(dure_beacon_sign(signature, &beacon, config.federation_id, 6));
    assert_ok(dure_graph_make(&other, &config, span));
    assert_false(same_order(&graph, &other));
}

/* A value of the coordinator's choosing, of another index, or of another federation. */
static void test_graph_takes_nothing_but_the_beacon_s_signature(void **state)
{
    (void)state;
    dure_sign_key coordinator;
    dure_graph graph;
    uint8_t signature[DURE_SIGNATURE_BYTES] = {0};
    const dure_span span = dure_span_of(signature, sizeof signature);
    assert_ok(dure_sign_generate(&coordinator));
    sample(40, 6);
    assert_ok(dure_beacon_sign(signature, &coordinator, config.federation_id, 5));
    assert_err(dure_graph_make(&graph, &config, span), DURE_ERR_AUTH);
    assert_ok(dure_beacon_sign(signature, &beacon, config.federation_id, 4));
    assert_err(dure_graph_make(&graph, &config, span), DURE_ERR_AUTH);
    const uint8_t another[DURE_DIGEST_BYTES] = {1};
    assert_ok(dure_beacon_sign(signature, &beacon, another, 5));
    assert_err(dure_graph_make(&graph, &config, span), DURE_ERR_AUTH);
    assert_err(dure_graph_make(&graph, &config, (dure_span){0}), DURE_ERR_AUTH);
    sample(40, 0);
    assert_err(dure_graph_make(&graph, &config, span), DURE_ERR_AUTH);
}

/* Members that can be reached from the first of the set through neighbours in it. */
static size_t reached(const dure_graph *graph, const dure_members *set)
{
    dure_members seen = {{0}};
    uint32_t queue[DURE_ROUND_MEMBERS_MAX];
    size_t n = 0, at = 0;
    for (uint32_t u = 0; u < graph->n && n == 0; u++) {
        if (dure_members_has(set, u)) queue[n++] = u;
    }
    if (n) dure_members_add(&seen, queue[0]);
    while (at < n) {
        const dure_members near = dure_graph_near(graph, queue[at++]);
        for (uint32_t v = 0; v < graph->n; v++) {
            if (!dure_members_has(&near, v) || !dure_members_has(set, v)) continue;
            if (dure_members_has(&seen, v)) continue;
            dure_members_add(&seen, v);
            queue[n++] = v;
        }
    }
    return n;
}

/* Whoever of a set's members collude, no more of them in two runs than it was asked for: the others
 * are in one piece. Random sets, thin enough to fall apart often. */
static void test_graph_that_is_not_separable_is_in_one_piece(void **state)
{
    (void)state;
    const dure_graph graph = ring(60, 12);
    seeded_rng rng_state;
    dure_rng rng = seeded_rng_of(&rng_state, 4);
    size_t n_separable = 0, n_apart = 0;
    for (int run = 0; run < 3000; run++) {
        uint8_t random[60];
        dure_members set = {{0}}, honest = {{0}};
        size_t colluders = 0;
        assert_ok(dure_rng_fill(&rng, random, sizeof random));
        for (uint32_t u = 0; u < 60; u++) {
            if (random[u] < 107) continue;
            dure_members_add(&set, u);
            if (random[u] > 252 && colluders < 1) {
                colluders++;
            } else {
                dure_members_add(&honest, u);
            }
        }
        const bool apart = reached(&graph, &honest) < dure_members_count(&honest);
        const bool separable = dure_graph_separable(&graph, &set, 1);
        if (apart) assert_true(separable);
        n_apart += apart;
        n_separable += separable;
    }
    assert_true(n_apart > 20);       /* the test would see it */
    assert_true(n_separable < 2950); /* and it is not refused always */
}

static void test_graph_one_gap_does_not_take_it_apart(void **state)
{
    (void)state;
    const dure_graph graph = ring(30, 4);
    dure_members set = dure_members_first(30), gone = {{0}};
    for (uint32_t i = 3; i < 9; i++)
        dure_members_add(&gone, graph.at[i]);
    set = dure_members_minus(&set, &gone);
    assert_false(dure_graph_separable(&graph, &set, 0));
    dure_members_add(&gone, graph.at[20]);
    set = dure_members_minus(&set, &gone);
    assert_false(dure_graph_separable(&graph, &set, 0)); /* of two places one is left */
    assert_true(dure_graph_separable(&graph, &set, 1));  /* unless that one colludes */
    dure_members_add(&gone, graph.at[21]);
    set = dure_members_minus(&set, &gone);
    assert_true(dure_graph_separable(&graph, &set, 0));
}

/* ---- rolls ---- */

static dure_hash leaves[DURE_ROUND_MEMBERS_MAX];

static void fill_leaves(void)
{
    for (size_t i = 0; i < DURE_ROUND_MEMBERS_MAX; i++) {
        memset(leaves[i].b, (int)(i % 251), sizeof leaves[i].b);
        leaves[i].b[0] = (uint8_t)(i >> 8);
    }
}

/* The root as `member` finds it from its own part of the set. */
static dure_err root_of(dure_hash *root, const dure_roll *roll, uint32_t member, size_t *n_proof,
                        const uint8_t alter)
{
    const dure_members near = dure_graph_near(roll->graph, member);
    const dure_members known = dure_members_both(&near, &roll->set);
    uint8_t proof[DURE_MSG_ROLL_PROOF_MAX][DURE_DIGEST_BYTES];
    dure_hash own[DURE_NEAR_MAX];
    size_t n = 0;
    for (uint32_t u = 0; u < roll->graph->n; u++) {
        if (dure_members_has(&known, u)) own[n++] = leaves[u];
    }
    own[0].b[7] ^= alter;
    assert_ok(dure_roll_prove(proof, n_proof, roll, &known));
    const dure_roll_view view = {roll->graph, &roll->set, &known, own};
    dure_hash wrong;
    if (*n_proof)
        assert_err(dure_roll_root(&wrong, &view, (const uint8_t(*)[32])proof, *n_proof - 1),
                   DURE_ERR_PROTO);
    assert_err(dure_roll_root(&wrong, &view, (const uint8_t(*)[32])proof, *n_proof + 1),
               DURE_ERR_PROTO);
    return dure_roll_root(root, &view, (const uint8_t(*)[32])proof, *n_proof);
}

static void test_roll_is_the_same_for_everybody(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{3, 0}, {8, 0}, {25, 6}, {64, 10}, {100, 20}, {1000, 94}};
    fill_leaves();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const dure_graph graph = ring(sizes[i][0], sizes[i][1]);
        dure_members set = dure_members_first(graph.n), gone = {{0}};
        for (uint32_t u = 5; u < graph.n; u += 9)
            dure_members_add(&gone, u);
        set = dure_members_minus(&set, &gone);
        dure_roll roll;
        dure_hash whole, root;
        size_t n_proof = 0, most = 0;
        assert_ok(dure_roll_make(&roll, &graph, &set, leaves));
        assert_ok(dure_roll_whole(&whole, &roll));
        for (uint32_t u = 0; u < graph.n; u++) {
            if (!dure_members_has(&set, u)) continue;
            assert_ok(root_of(&root, &roll, u, &n_proof, 0));
            assert_true(dure_hash_equal(&root, &whole));
            if (n_proof > most) most = n_proof;
        }
        if (!sizes[i][1]) assert_int_equal(most, 0);
        assert_true(most <= 28); /* some 2 log2 n, and not n */
        dure_roll_fini(&roll);
    }
}

static void test_roll_differs_with_every_entry(void **state)
{
    (void)state;
    fill_leaves();
    const dure_graph graph = ring(50, 8);
    const dure_members set = dure_members_first(50);
    dure_roll roll;
    dure_hash whole, root;
    size_t n_proof = 0;
    assert_ok(dure_roll_make(&roll, &graph, &set, leaves));
    assert_ok(dure_roll_whole(&whole, &roll));
    for (uint32_t u = 0; u < 50; u++) {
        assert_ok(root_of(&root, &roll, u, &n_proof, 1));
        assert_false(dure_hash_equal(&root, &whole));
    }
    dure_roll_fini(&roll);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_graph_complete_has_everybody_near),
        cmocka_unit_test(test_graph_neighbours_are_mutual_and_k),
        cmocka_unit_test(test_graph_order_follows_from_beacon_run_and_round),
        cmocka_unit_test(test_graph_takes_nothing_but_the_beacon_s_signature),
        cmocka_unit_test(test_graph_that_is_not_separable_is_in_one_piece),
        cmocka_unit_test(test_graph_one_gap_does_not_take_it_apart),
        cmocka_unit_test(test_roll_is_the_same_for_everybody),
        cmocka_unit_test(test_roll_differs_with_every_entry),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
