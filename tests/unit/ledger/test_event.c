#include "fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Encoding, decoding and encoding again must give the same bytes. */
static void assert_round_trip(const dure_event *event)
{
    dure_buf one, two;
    dure_event *back = malloc(sizeof *back);
    assert_non_null(back);
    dure_buf_init(&one, DURE_LEAF_MAX);
    dure_buf_init(&two, DURE_LEAF_MAX);
    assert_ok(dure_event_encode(&one, event, NULL));
    assert_ok(dure_event_decode(back, dure_buf_span(&one), NULL));
    assert_int_equal(back->kind, event->kind);
    assert_int_equal(back->index, event->index);
    assert_int_equal(back->time_s, event->time_s);
    assert_ok(dure_event_encode(&two, back, NULL));
    assert_int_equal(one.n, two.n);
    assert_memory_equal(one.data, two.data, one.n);
    dure_buf_fini(&one);
    dure_buf_fini(&two);
    free(back);
}

static void test_event_every_kind_round_trips(void **state)
{
    (void)state;
    fixture f;
    dure_hash root = fixture_hash(9);
    fixture_make(&f);
    fixture_genesis(&f);
    assert_round_trip(f.event);
    fixture_begin(&f);
    fixture_roster(&f, 4);
    assert_round_trip(f.event);
    for (dure_event_kind kind = DURE_EVENT_OPENED; kind <= DURE_EVENT_ABORTED; kind++) {
        fixture_round(&f, kind, 1);
        assert_round_trip(f.event);
        f.event->u.round.sum = (dure_event_sum){0}; /* version 1 */
        assert_round_trip(f.event);
    }
    fixture_release(&f, DURE_EVENT_PROMOTED, 1);
    assert_round_trip(f.event);
    fixture_release(&f, DURE_EVENT_ROLLED_BACK, 1);
    assert_round_trip(f.event);
    fixture_epoch(&f, 7, &root, 9);
    assert_round_trip(f.event);
    fixture_free(&f);
}

/* A leaf of version 1 is one of version 2 without the secure sum and with the other label. */
static void test_event_reads_rounds_of_version_1(void **state)
{
    (void)state;
    enum { VERSION_AT = 5, SUM_BYTES = 24 };
    fixture f;
    dure_buf new, old;
    dure_event *back = malloc(sizeof *back);
    assert_non_null(back);
    fixture_make(&f);
    fixture_begin(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1);
    dure_buf_init(&new, DURE_LEAF_MAX);
    dure_buf_init(&old, DURE_LEAF_MAX);
    assert_ok(dure_event_encode(&new, f.event, NULL));
    f.event->u.round.sum = (dure_event_sum){0};
    assert_ok(dure_event_encode(&old, f.event, NULL));
    assert_int_equal(new.data[VERSION_AT], '2');
    assert_int_equal(old.data[VERSION_AT], '1');
    new.data[VERSION_AT] = '1';
    assert_int_equal(old.n, new.n - SUM_BYTES);
    assert_memory_equal(old.data, new.data, old.n);
    assert_err(dure_event_decode(back, dure_buf_span(&new), NULL), DURE_ERR_PROTO);
    old.data[VERSION_AT] = '2';
    assert_err(dure_event_decode(back, dure_buf_span(&old), NULL), DURE_ERR_PROTO);
    old.data[VERSION_AT] = '3';
    assert_err(dure_event_decode(back, dure_buf_span(&old), NULL), DURE_ERR_PROTO);
    dure_buf_fini(&new);
    dure_buf_fini(&old);
    free(back);
    fixture_free(&f);
}

/* Noise that sites share has to be what the sum's own rules leave honest, and alike for all. */
static void test_event_of_shared_noise_follows_the_rules_of_the_sum(void **state)
{
    (void)state;
    fixture f;
    dure_buf leaf;
    dure_event *back = malloc(sizeof *back), *good = malloc(sizeof *good);
    assert_true(back && good);
    fixture_make(&f);
    fixture_begin(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1);
    fixture_share_noise(&f);
    *good = *f.event;
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    assert_ok(dure_event_encode(&leaf, f.event, NULL));
    assert_ok(dure_event_decode(back, dure_buf_span(&leaf), NULL));
    assert_int_equal(back->u.round.members[2].plan.honest, 2);
    assert_int_equal(back->u.round.members[2].plan.n_params, 1000);
    dure_buf_fini(&leaf);
    dure_event_round *r = &f.event->u.round;
#define REFUSES(change)                                                                            \
    do {                                                                                           \
        *f.event = *good;                                                                          \
        change;                                                                                    \
        dure_buf_init(&leaf, DURE_LEAF_MAX);                                                       \
        assert_err(dure_event_encode(&leaf, f.event, NULL), DURE_ERR_USAGE);                       \
        dure_buf_fini(&leaf);                                                                      \
    } while (0)
    REFUSES(r->members[1].plan.honest = 3);
    REFUSES(r->members[1].plan.n_params = 999);
    REFUSES(r->members[1].plan.sigma_num--);
    REFUSES(r->members[2].plan.clip = 2);
    REFUSES(r->members[2].plan.grid_bits = 17);
    REFUSES(r->sum.u_min = 4);
    REFUSES(r->sum.collusion = 0);
    REFUSES(r->privacy_mode = DURE_PRIVACY_RECORD);
    REFUSES(r->sum = (dure_event_sum){0}); /* version 1 does not record the rules */
    REFUSES(fixture_round(&f, DURE_EVENT_CLOSED, 1); r->privacy_mode = DURE_PRIVACY_CLIENT);
#undef REFUSES
    free(back);
    free(good);
    fixture_free(&f);
}

static void test_event_decode_refuses_every_shorter_and_longer_leaf(void **state)
{
    (void)state;
    fixture f;
    dure_buf leaf;
    dure_event *back = malloc(sizeof *back);
    assert_non_null(back);
    fixture_make(&f);
    fixture_begin(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1);
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    assert_ok(dure_event_encode(&leaf, f.event, NULL));
    dure_put_u8(&leaf, 0);
    for (size_t n = 0; n <= leaf.n; n++) {
        dure_diag diag = {{0}};
        if (n == leaf.n - 1) continue;
        assert_err(dure_event_decode(back, dure_span_of(leaf.data, n), &diag), DURE_ERR_PROTO);
        assert_true(diag.text[0] != 0);
    }
    dure_buf_fini(&leaf);
    free(back);
    fixture_free(&f);
}

/* Any change either does not decode or decodes to an event that encodes to the changed bytes:
 * there are no two leaves of one event. */
static void test_event_has_one_encoding(void **state)
{
    (void)state;
    fixture f;
    dure_buf leaf;
    dure_event *back = malloc(sizeof *back);
    assert_non_null(back);
    fixture_make(&f);
    fixture_begin(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1);
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    assert_ok(dure_event_encode(&leaf, f.event, NULL));
    for (size_t bit = 0; bit < 8 * leaf.n; bit++) {
        leaf.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (dure_event_decode(back, dure_buf_span(&leaf), NULL) == DURE_OK) {
            dure_buf again;
            dure_buf_init(&again, DURE_LEAF_MAX);
            assert_ok(dure_event_encode(&again, back, NULL));
            assert_int_equal(again.n, leaf.n);
            assert_memory_equal(again.data, leaf.data, leaf.n);
            dure_buf_fini(&again);
        }
        leaf.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    dure_buf_fini(&leaf);
    free(back);
    fixture_free(&f);
}

static void refuse(fixture *f)
{
    dure_buf leaf;
    dure_diag diag = {{0}};
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    assert_err(dure_event_encode(&leaf, f->event, &diag), DURE_ERR_USAGE);
    assert_true(diag.text[0] != 0);
    dure_buf_fini(&leaf);
}

static void test_event_encode_refuses_broken_rounds(void **state)
{
    (void)state;
    fixture f;
    dure_event_round *r;
    fixture_make(&f);
    fixture_begin(&f);
    r = &f.event->u.round;
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->n_members = 0, refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->n_members = 101, refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->privacy_mode = 5, refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->t3 = fixture_hash(0), refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->adapter_out = fixture_hash(0), refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->reason[0] = 'x', refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->checkpoint_n = 99, refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->members[1].name[0] = 'a', refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->members[2].name[0] = '\n', refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->members[2].plan.clip = NAN, refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->gate.loss_after = -1, refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->sum.threshold = 2, refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->sum.threshold = 4, refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->sum.u_min = 2, refuse(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->sum.collusion = 2, refuse(&f); /* u_min is 3 */
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->sum.word_bits = 16, refuse(&f);
    fixture_round(&f, DURE_EVENT_OPENED, 1), r->members[0].part = DURE_PART_UPLOADED, refuse(&f);
    fixture_round(&f, DURE_EVENT_OPENED, 1), r->result = fixture_hash(1), refuse(&f);
    fixture_round(&f, DURE_EVENT_ABORTED, 1), r->members[0].part = DURE_PART_SUMMED, refuse(&f);
    fixture_round(&f, DURE_EVENT_ABORTED, 1), r->reason[0] = 0, refuse(&f);
    fixture_round(&f, DURE_EVENT_ABORTED, 1), r->reason[3] = '\n', refuse(&f);
    fixture_free(&f);
}

static void test_event_encode_refuses_misplaced_genesis_and_rosters(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    fixture_genesis(&f), f.event->index = 1, refuse(&f);
    fixture_genesis(&f), f.event->time_s = -1, refuse(&f);
    fixture_genesis(&f), f.event->u.genesis.federation[0] = 0, refuse(&f);
    fixture_roster(&f, 3), refuse(&f); /* entry 0 must be genesis */
    fixture_begin(&f);
    fixture_roster(&f, 3), f.event->u.roster.n_sites = 101, refuse(&f);
    fixture_roster(&f, 3), f.event->u.roster.sites[0] = f.event->u.roster.sites[1], refuse(&f);
    fixture_free(&f);
}

static void test_event_records_a_loss_that_is_not_finite_as_infinity(void **state)
{
    (void)state;
    fixture f;
    dure_buf leaf;
    dure_event *back = malloc(sizeof *back);
    assert_non_null(back);
    fixture_make(&f);
    fixture_begin(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 1);
    f.event->u.round.gate.loss_after = NAN;
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    assert_ok(dure_event_encode(&leaf, f.event, NULL));
    assert_ok(dure_event_decode(back, dure_buf_span(&leaf), NULL));
    assert_true(isinf(back->u.round.gate.loss_after));
    dure_buf_fini(&leaf);
    free(back);
    fixture_free(&f);
}

static void test_event_epoch_is_signed_by_the_root_alone(void **state)
{
    (void)state;
    fixture f;
    dure_hash root = fixture_hash(9);
    fixture_make(&f);
    fixture_epoch(&f, 7, &root, 9);
    dure_event_epoch *epoch = &f.event->u.epoch;
    assert_ok(dure_event_epoch_verify(epoch, f.root.public_));
    assert_err(dure_event_epoch_verify(epoch, f.coordinator.public_), DURE_ERR_AUTH);
    epoch->lost_n++;
    assert_err(dure_event_epoch_verify(epoch, f.root.public_), DURE_ERR_AUTH);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event_every_kind_round_trips),
        cmocka_unit_test(test_event_reads_rounds_of_version_1),
        cmocka_unit_test(test_event_of_shared_noise_follows_the_rules_of_the_sum),
        cmocka_unit_test(test_event_decode_refuses_every_shorter_and_longer_leaf),
        cmocka_unit_test(test_event_has_one_encoding),
        cmocka_unit_test(test_event_encode_refuses_broken_rounds),
        cmocka_unit_test(test_event_encode_refuses_misplaced_genesis_and_rosters),
        cmocka_unit_test(test_event_records_a_loss_that_is_not_finite_as_infinity),
        cmocka_unit_test(test_event_epoch_is_signed_by_the_root_alone),
    };
    return cmocka_run_group_tests_name("ledger.event", tests, NULL, NULL);
}
