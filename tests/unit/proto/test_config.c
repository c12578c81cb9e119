#include "proto/config.h"
#include "proto/neighbours.h"
#include "samples.h"
#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static dure_config config; /* large: not on the stack */

static dure_buf encoded(const dure_config *c)
{
    dure_buf buf;
    dure_diag diag = {0};
    dure_buf_init(&buf, DURE_CONFIG_BYTES_MAX);
    if (dure_config_encode(&buf, c, &diag)) fail_msg("%s", diag.text);
    return buf;
}

static void test_config_round_trips(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {3, 7, 100};
    for (size_t i = 0; i < 3; i++) {
        sample_config(&config, sizes[i]);
        dure_buf first = encoded(&config);
        dure_config *back = NULL;
        assert_ok(dure_config_decode(&back, dure_buf_span(&first), NULL));
        assert_int_equal(back->n_members, sizes[i]);
        assert_string_equal(back->members[2].name, "site-002");
        assert_true(back->learning_rate == 2e-3);
        dure_buf second = encoded(back);
        assert_int_equal(first.n, second.n);
        assert_memory_equal(first.data, second.data, first.n);
        dure_buf_fini(&first);
        dure_buf_fini(&second);
        dure_config_free(&back);
    }
}

static void test_config_refuses_every_truncation_and_a_tail(void **state)
{
    (void)state;
    sample_config(&config, 3);
    dure_buf buf = encoded(&config);
    dure_config *back = NULL;
    for (size_t n = 0; n < buf.n; n++) {
        assert_int_not_equal(dure_config_decode(&back, (dure_span){buf.data, n}, NULL), DURE_OK);
        assert_null(back);
    }
    dure_put_u8(&buf, 0);
    assert_err(dure_config_decode(&back, dure_buf_span(&buf), NULL), DURE_ERR_PROTO);
    dure_buf_fini(&buf);
}

static void test_config_refuses_another_version(void **state)
{
    (void)state;
    sample_config(&config, 3);
    dure_buf buf = encoded(&config);
    buf.data[3] = DURE_CONFIG_VERSION_SPARSE + 1;
    dure_config *back = NULL;
    assert_err(dure_config_decode(&back, dure_buf_span(&buf), NULL), DURE_ERR_UNSUPPORTED);
    dure_buf_fini(&buf);
}

/* Runs the check on a sample in which one field is `value`. */
#define REFUSES(field, value)                                                                      \
    do {                                                                                           \
        dure_diag diag = {0};                                                                      \
        sample_config(&config, 5);                                                                 \
        config.field = value;                                                                      \
        assert_err(dure_config_check(&config, &diag), DURE_ERR_PROTO);                             \
        assert_true(diag.text[0] != 0);                                                            \
    } while (0)

static void test_config_holds_the_rules_of_the_secure_sum(void **state)
{
    (void)state;
    sample_config(&config, 5);
    assert_ok(dure_config_check(&config, NULL));
    assert_int_equal(config.threshold, 4);
    REFUSES(threshold, 3); /* 2 * 3 is not above 5 + 1 */
    REFUSES(threshold, 6);
    REFUSES(u_min, 2);
    REFUSES(u_min, 6);
    REFUSES(collusion, 2); /* u_min 3 < c + 2, and t is too small for it */
    REFUSES(collusion, UINT32_MAX);
    REFUSES(n_members, 2);
    REFUSES(n_members, 101);
    REFUSES(word_bits, 16);
    REFUSES(chunk_words, 8);
    REFUSES(chunk_words, DURE_CHUNK_WORDS_MAX + 16);
    REFUSES(n_words, 0);
    REFUSES(q_max, (1u << 23) / 5 + 1); /* five of them pass 2^23 */
    REFUSES(suite, 3);
    REFUSES(round, 0);
    REFUSES(share_lifetime_ms, 0);
}

static void test_config_holds_the_ranges_of_training(void **state)
{
    (void)state;
    REFUSES(privacy_mode, 0);
    REFUSES(privacy_mode, DURE_PRIVACY_NONE); /* but the members have noise */
    REFUSES(clip, 0.0);
    REFUSES(clip, NAN);
    REFUSES(range, INFINITY);
    REFUSES(grid_bits, 13);
    REFUSES(rounds, 0);
    REFUSES(local_steps, 0);
    REFUSES(method, 2);
    REFUSES(learning_rate, -1.0);
    REFUSES(beta1, 1.0);
    REFUSES(weight_decay, -0.0); /* a second encoding of zero */
    REFUSES(rank, 0);
}

static void test_config_holds_the_rules_of_members(void **state)
{
    (void)state;
    REFUSES(members[2].name[0], 'a'); /* out of order */
    REFUSES(members[2].name[7], '1'); /* the same name as its neighbour */
    REFUSES(members[2].name[0], '\n');
    REFUSES(members[2].organisation[0], 0);
    REFUSES(members[2].sigma_den, 0);
    REFUSES(members[2].sigma_num, 0); /* no noise in a mode that promises it */
    REFUSES(members[2].n_pub, 0);
    REFUSES(members[2].batch, 0);
    sample_config(&config, 5);
    memcpy(config.members[2].sign_public, config.members[4].sign_public, DURE_KEY_BYTES);
    assert_err(dure_config_check(&config, NULL), DURE_ERR_PROTO);
}

static void test_config_counts_organisations(void **state)
{
    (void)state;
    sample_config(&config, 5); /* organisations 0 0 1 1 2 */
    dure_members set = dure_members_first(5);
    assert_int_equal(dure_config_organisations(&config, &set), 3);
    dure_members pair = {{0x3, 0}};
    assert_int_equal(dure_config_organisations(&config, &pair), 1);
}

static void test_config_finds_a_member_by_key(void **state)
{
    (void)state;
    sample_config(&config, 5);
    uint32_t i = 9;
    assert_ok(dure_config_find(&i, &config, config.members[3].sign_public));
    assert_int_equal(i, 3);
    uint8_t other[32] = {0};
    assert_err(dure_config_find(&i, &config, other), DURE_ERR_NOT_FOUND);
}

static void test_config_cuts_the_vector_into_chunks(void **state)
{
    (void)state;
    sample_config(&config, 5);
    assert_int_equal(dure_config_vector_bytes(&config), 92160 * 3);
    assert_int_equal(dure_config_chunks(&config), 2);
    assert_int_equal(dure_config_chunk_bytes(&config, 0), 65536 * 3);
    assert_int_equal(dure_config_chunk_bytes(&config, 1), (92160 - 65536) * 3);
    assert_int_equal(dure_config_chunk_bytes(&config, 2), 0);
    config.n_words = 65536;
    assert_int_equal(dure_config_chunks(&config), 1);
}

static void test_config_sets_of_members(void **state)
{
    (void)state;
    dure_members all = dure_members_first(100), some = {{0}};
    dure_members_add(&some, 0);
    dure_members_add(&some, 99);
    dure_members_add(&some, DURE_ROUND_MEMBERS_MAX); /* out of range: no member */
    assert_int_equal(dure_members_count(&all), 100);
    assert_int_equal(dure_members_count(&some), 2);
    assert_true(dure_members_subset(&some, &all));
    assert_false(dure_members_subset(&all, &some));
    dure_members rest = dure_members_minus(&all, &some);
    assert_int_equal(dure_members_count(&rest), 98);
    assert_false(dure_members_has(&rest, 99));
    assert_false(dure_members_has(&all, 100));
    assert_false(dure_members_equal(&all, &rest));
    assert_int_equal(dure_members_rank(&rest, 50), 49);
    assert_int_equal(dure_members_rank(&rest, DURE_ROUND_MEMBERS_MAX), 98);
    dure_members both = dure_members_both(&some, &rest);
    assert_int_equal(dure_members_count(&both), 0);
}

/* Three are needed at least, and two honest ones beside those that collude. */
static void test_config_least_members_of_a_sum(void **state)
{
    (void)state;
    assert_int_equal(dure_members_least(0), 3);
    assert_int_equal(dure_members_least(1), 3);
    assert_int_equal(dure_members_least(2), 4);
    assert_int_equal(dure_members_least(33), 35);
}

static void test_config_sets_have_one_encoding(void **state)
{
    (void)state;
    uint8_t bits[DURE_MEMBERS_BYTES_MAX];
    dure_members some = {{0}}, back;
    dure_members_add(&some, 0);
    dure_members_add(&some, 10);
    dure_span bytes = dure_members_put(bits, &some, 11);
    assert_int_equal(bytes.n, 2);
    assert_int_equal(bits[0], 1);
    assert_int_equal(bits[1], 4);
    assert_ok(dure_members_take(&back, bytes, 11));
    assert_true(dure_members_equal(&back, &some));
    assert_err(dure_members_take(&back, bytes, 10), DURE_ERR_PROTO); /* a bit of no member */
    assert_err(dure_members_take(&back, bytes, 17), DURE_ERR_PROTO);
    assert_err(dure_members_take(&back, dure_span_of(bits, 1), 11), DURE_ERR_PROTO);
}

/* A sparse configuration of 300 members, 2 % of them colluding and 5 % dropping out. */
static void sample_sparse(dure_config *c)
{
    sample_config(c, 100);
    c->n_members = 300;
    for (uint32_t i = 100; i < 300; i++) {
        dure_member *m = &c->members[i];
        *m = c->members[0];
        snprintf(m->name, sizeof m->name, "site-%03u", i);
        memset(m->sign_public, (int)(i % 100 + 1), sizeof m->sign_public);
        memset(m->curve_public, (int)(i % 100 + 101), sizeof m->curve_public);
        m->sign_public[0] = m->curve_public[0] = (uint8_t)(210 + i / 100);
    }
    c->collusion = 6;
    c->u_min = 285;
    dure_graph_choice choice = {.n = 300, .c = 6, .dropouts = 15};
    assert_true(dure_graph_choose(&choice));
    c->q_max = 20000;
    c->neighbours = choice.k;
    c->threshold = choice.t;
    c->beacon_public[5] = 1;
    c->beacon_index = 9;
}

static void test_config_of_a_sparse_graph_round_trips(void **state)
{
    (void)state;
    sample_sparse(&config);
    dure_buf buf = encoded(&config), again;
    dure_config *back = NULL;
    assert_int_equal(buf.data[3], DURE_CONFIG_VERSION_SPARSE);
    assert_ok(dure_config_decode(&back, dure_buf_span(&buf), NULL));
    assert_int_equal(back->neighbours, config.neighbours);
    assert_int_equal(back->beacon_index, 9);
    again = encoded(back);
    assert_int_equal(again.n, buf.n);
    assert_memory_equal(again.data, buf.data, buf.n);
    dure_config_free(&back);
    dure_buf_fini(&again);
    /* Neither form may stand for the other. */
    for (size_t i = 0; i < 4; i++)
        buf.data[buf.n - 44 + i] = 0; /* no neighbours in a sparse configuration */
    assert_err(dure_config_decode(&back, dure_buf_span(&buf), NULL), DURE_ERR_PROTO);
    buf.data[3] = DURE_CONFIG_VERSION; /* with a tail */
    assert_err(dure_config_decode(&back, dure_buf_span(&buf), NULL), DURE_ERR_PROTO);
    dure_buf_fini(&buf);
}

#define REFUSES_SPARSE(field, value)                                                               \
    do {                                                                                           \
        sample_sparse(&config);                                                                    \
        assert_ok(dure_config_check(&config, NULL));                                               \
        config.field = value;                                                                      \
        assert_err(dure_config_check(&config, NULL), DURE_ERR_PROTO);                              \
    } while (0)

static void test_config_refuses_an_unsafe_graph(void **state)
{
    (void)state;
    REFUSES_SPARSE(neighbours, config.neighbours - 1); /* odd */
    REFUSES_SPARSE(neighbours, config.neighbours - 8); /* too often without a sum */
    REFUSES_SPARSE(neighbours, config.neighbours + 2); /* t is then no majority of the holders */
    REFUSES_SPARSE(neighbours, 299);                   /* the complete graph has its own form */
    REFUSES_SPARSE(neighbours, 0);                     /* too many members for it */
    REFUSES_SPARSE(neighbours, DURE_NEAR_MAX + 1);
    REFUSES_SPARSE(threshold, config.threshold - 1);
    REFUSES_SPARSE(threshold, config.neighbours + 2);
    REFUSES_SPARSE(collusion, 60);
    REFUSES_SPARSE(u_min, 200);
    REFUSES_SPARSE(beacon_index, (memset(config.beacon_public, 0, 32), 0));
    REFUSES_SPARSE(beacon_index,
                   (memcpy(config.beacon_public, config.members[3].sign_public, 32), 9));
    sample_config(&config, 5);
    config.beacon_index = 1; /* of what? */
    assert_err(dure_config_check(&config, NULL), DURE_ERR_PROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_round_trips),
        cmocka_unit_test(test_config_refuses_every_truncation_and_a_tail),
        cmocka_unit_test(test_config_refuses_another_version),
        cmocka_unit_test(test_config_holds_the_rules_of_the_secure_sum),
        cmocka_unit_test(test_config_holds_the_ranges_of_training),
        cmocka_unit_test(test_config_holds_the_rules_of_members),
        cmocka_unit_test(test_config_counts_organisations),
        cmocka_unit_test(test_config_finds_a_member_by_key),
        cmocka_unit_test(test_config_cuts_the_vector_into_chunks),
        cmocka_unit_test(test_config_sets_of_members),
        cmocka_unit_test(test_config_least_members_of_a_sum),
        cmocka_unit_test(test_config_sets_have_one_encoding),
        cmocka_unit_test(test_config_of_a_sparse_graph_round_trips),
        cmocka_unit_test(test_config_refuses_an_unsafe_graph),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
