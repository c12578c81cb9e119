#include "proto/messages.h"
#include "samples.h"
#include "support/check.h"

#include <stdbool.h>
#include <string.h>

static const dure_msg_type every_type[] = {
#define TYPE(name, number, field, limit) DURE_MSG_##name,
    DURE_MSG_LIST(TYPE)
#undef TYPE
};
#define N_TYPES (sizeof every_type / sizeof every_type[0])

static dure_buf encoded(const dure_msg *msg)
{
    dure_buf buf;
    dure_buf_init(&buf, DURE_MSG_BYTES_MAX);
    dure_diag diag = {0};
    dure_err err = dure_msg_encode(&buf, msg, &diag);
    if (err) fail_msg("%s", diag.text);
    return buf;
}

static dure_msg sample(dure_msg_type type)
{
    return sample_message(type, 5);
}

static void test_codec_round_trips_every_message(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TYPES; i++) {
        dure_msg msg = sample(every_type[i]);
        dure_buf first = encoded(&msg);
        dure_msg *back = NULL;
        assert_ok(dure_msg_decode(&back, dure_buf_span(&first), NULL));
        assert_int_equal(back->type, every_type[i]);
        dure_buf second = encoded(back);
        assert_int_equal(first.n, second.n);
        assert_memory_equal(first.data, second.data, first.n);
        dure_buf_fini(&first);
        dure_buf_fini(&second);
        dure_msg_free(&back);
        assert_null(back);
    }
}

static void test_codec_decoded_message_is_a_deep_copy(void **state)
{
    (void)state;
    dure_msg msg = sample(DURE_MSG_OPEN);
    dure_buf frame = encoded(&msg);
    dure_msg *back = NULL;
    assert_ok(dure_msg_decode(&back, dure_buf_span(&frame), NULL));
    memset(frame.data, 0xff, frame.n);
    dure_buf_fini(&frame);
    assert_int_equal(back->u.open.config.n, 300);
    assert_int_equal(back->u.open.config.data[299], 0x42);
    assert_int_equal(back->u.open.n_roster, 5);
    assert_int_equal(back->u.open.roster[4].n, 5);
    assert_int_equal(back->u.open.consistency[4][31], 0x48);
    dure_msg_free(&back);
}

static void test_codec_keeps_every_field_of_hello(void **state)
{
    (void)state;
    dure_msg msg = sample(DURE_MSG_HELLO);
    memset(msg.u.hello.chain_head, 0x11, 32);
    dure_buf frame = encoded(&msg);
    dure_msg *back = NULL;
    assert_ok(dure_msg_decode(&back, dure_buf_span(&frame), NULL));
    assert_int_equal(back->u.hello.stage, DURE_STAGE_TRAINING);
    assert_true(back->u.hello.last_round == UINT64_MAX);
    assert_int_equal(back->u.hello.roster_size, 3);
    assert_memory_equal(back->u.hello.chain_head, msg.u.hello.chain_head, 32);
    dure_buf_fini(&frame);
    dure_msg_free(&back);
}

static void test_codec_takes_as_many_members_as_there_are(void **state)
{
    (void)state;
    static const struct {
        dure_msg_type type;
        size_t n;
    } lists[] = {{DURE_MSG_KEYS, DURE_NEAR_MAX},
                 {DURE_MSG_SHARES, DURE_NEAR_MAX - 1},
                 {DURE_MSG_SHARES_FOR, DURE_NEAR_MAX},
                 {DURE_MSG_SURVIVORS, DURE_NEAR_MAX},
                 {DURE_MSG_SIGNATURES, DURE_ROUND_MEMBERS_MAX},
                 {DURE_MSG_UNMASK, DURE_NEAR_MAX}};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        dure_msg msg = sample_message(lists[i].type, lists[i].n);
        dure_buf frame = encoded(&msg);
        dure_msg *back = NULL;
        assert_ok(dure_msg_decode(&back, dure_buf_span(&frame), NULL));
        dure_msg_free(&back);
        dure_buf_fini(&frame);
    }
}

/* As long as they get, and what a router takes in one frame is enough for what sites send. */
static void test_codec_takes_a_hundred_neighbours_of_the_hybrid_suite(void **state)
{
    (void)state;
    static const struct {
        dure_msg_type type;
        size_t n, most;
    } lists[] = {{DURE_MSG_ADVERTISE, 0, DURE_MSG_PAYLOAD_MAX},
                 {DURE_MSG_KEYS, DURE_NEAR_HYBRID_MAX, DURE_MSG_BYTES_MAX},
                 {DURE_MSG_SHARES, DURE_NEAR_HYBRID_MAX - 1, DURE_MSG_PAYLOAD_MAX},
                 {DURE_MSG_SHARES_FOR, DURE_NEAR_HYBRID_MAX, DURE_MSG_BYTES_MAX}};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        dure_msg msg = sample_hybrid_message(lists[i].type, lists[i].n);
        dure_buf frame = encoded(&msg);
        dure_msg *back = NULL;
        assert_true(frame.n <= lists[i].most);
        assert_ok(dure_msg_decode(&back, dure_buf_span(&frame), NULL));
        if (lists[i].type == DURE_MSG_KEYS) {
            const dure_span *kem = &back->u.keys.entries[DURE_NEAR_HYBRID_MAX - 1].kem;
            assert_int_equal(kem->n, DURE_MSG_KEM_KEYS_BYTES);
            assert_memory_equal(kem->data, msg.u.keys.entries[0].kem.data, kem->n);
        }
        dure_msg_free(&back);
        dure_buf_fini(&frame);
    }
}

/* What is not there has one form, too. */
static void test_codec_refuses_an_empty_field_that_may_be_absent(void **state)
{
    (void)state;
    dure_msg msg = sample(DURE_MSG_ADVERTISE), *back = NULL;
    dure_buf frame = encoded(&msg);
    dure_put_raw(&frame, "\x4a\x00", 2); /* field 9 of no bytes */
    assert_err(dure_msg_decode(&back, dure_buf_span(&frame), NULL), DURE_ERR_LIMIT);
    dure_buf_fini(&frame);
    uint8_t long_one[DURE_MSG_KEM_KEYS_BYTES + 1] = {0};
    msg.u.advertise.keys.kem = (dure_span){long_one, sizeof long_one};
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    assert_err(dure_msg_encode(&frame, &msg, NULL), DURE_ERR_LIMIT);
    dure_buf_fini(&frame);
}

static void test_codec_takes_the_longest_roster(void **state)
{
    (void)state;
    dure_msg msg = sample_message(DURE_MSG_OPEN, DURE_MSG_ENTRIES_MAX);
    dure_buf frame = encoded(&msg);
    dure_msg *back = NULL;
    assert_ok(dure_msg_decode(&back, dure_buf_span(&frame), NULL));
    assert_int_equal(back->u.open.n_roster, DURE_MSG_ENTRIES_MAX);
    dure_msg_free(&back);
    dure_buf_fini(&frame);
}

static void assert_refused(dure_span frame)
{
    dure_msg *msg = (dure_msg *)1;
    dure_diag diag = {0};
    assert_int_not_equal(dure_msg_decode(&msg, frame, &diag), DURE_OK);
    assert_null(msg);
    assert_true(diag.text[0] != 0);
}

/* A list at a message's end may be cut between two entries: a shorter list is a message too. */
static bool ends_in_a_list(dure_msg_type type)
{
    return type == DURE_MSG_OPEN || type == DURE_MSG_KEYS || type == DURE_MSG_SHARES_FOR ||
           type == DURE_MSG_SURVIVORS || type == DURE_MSG_SIGNATURES || type == DURE_MSG_RESULT;
}

static void test_codec_refuses_every_truncation(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TYPES; i++) {
        if (ends_in_a_list(every_type[i])) continue;
        dure_msg msg = sample(every_type[i]);
        dure_buf frame = encoded(&msg);
        for (size_t n = 0; n < frame.n; n++) {
            assert_refused((dure_span){frame.data, n});
        }
        dure_buf_fini(&frame);
    }
}

/* Appends `tail` to a heartbeat, which is well formed without it. */
static void refuse_with_tail(const void *tail, size_t n)
{
    dure_msg msg = sample(DURE_MSG_HEARTBEAT);
    dure_buf frame = encoded(&msg);
    dure_put_raw(&frame, tail, n);
    assert_refused(dure_buf_span(&frame));
    dure_buf_fini(&frame);
}

static void test_codec_refuses_an_unknown_field(void **state)
{
    (void)state;
    refuse_with_tail("\x78\x01", 2); /* field 15, varint 1 */
}

static void test_codec_refuses_a_repeated_field(void **state)
{
    (void)state;
    refuse_with_tail("\x10\x00", 2); /* step again, with the value it has */
}

static void test_codec_refuses_fields_out_of_order(void **state)
{
    (void)state;
    dure_msg msg = sample(DURE_MSG_HEARTBEAT);
    dure_buf frame = encoded(&msg);
    /* head, then tag, length and 32 bytes of the hash, then two bytes of the step */
    uint8_t turned[38];
    assert_int_equal(frame.n, sizeof turned);
    memcpy(turned, frame.data, 2);
    memcpy(turned + 2, frame.data + 36, 2);
    memcpy(turned + 4, frame.data + 2, 34);
    assert_refused((dure_span){turned, sizeof turned});
    dure_buf_fini(&frame);
}

static void test_codec_refuses_a_long_varint(void **state)
{
    (void)state;
    dure_msg msg = sample(DURE_MSG_HEARTBEAT);
    dure_buf frame = encoded(&msg);
    frame.data[frame.n - 1] = 0x80; /* step = 0 in two bytes */
    dure_put_u8(&frame, 0x00);
    assert_refused(dure_buf_span(&frame));
    dure_buf_fini(&frame);
}

static void test_codec_refuses_a_number_over_32_bits(void **state)
{
    (void)state;
    dure_msg msg = sample(DURE_MSG_HEARTBEAT);
    dure_buf frame = encoded(&msg);
    frame.n--;
    dure_put_raw(&frame, "\x80\x80\x80\x80\x80\x01", 6); /* 2^35 would be cut to 0 */
    assert_refused(dure_buf_span(&frame));
    dure_buf_fini(&frame);
}

static void test_codec_refuses_a_missing_field(void **state)
{
    (void)state;
    dure_msg msg = sample(DURE_MSG_HEARTBEAT);
    dure_buf frame = encoded(&msg);
    assert_refused((dure_span){frame.data, frame.n - 2});
    dure_buf_fini(&frame);
}

static void test_codec_refuses_a_short_hash(void **state)
{
    (void)state;
    static const uint8_t frame[] = {
        DURE_MSG_VERSION, DURE_MSG_HEARTBEAT, 0x0a, 3, 1, 2, 3, 0x10, 0};
    assert_refused((dure_span){frame, sizeof frame});
}

static void test_codec_refuses_another_version(void **state)
{
    (void)state;
    dure_msg msg = sample(DURE_MSG_HEARTBEAT);
    dure_buf frame = encoded(&msg);
    frame.data[0] = DURE_MSG_VERSION + 1;
    dure_msg *back = NULL;
    assert_err(dure_msg_decode(&back, dure_buf_span(&frame), NULL), DURE_ERR_UNSUPPORTED);
    dure_buf_fini(&frame);
}

static void test_codec_refuses_unknown_types(void **state)
{
    (void)state;
    for (unsigned type = 0; type < 256; type++) {
        uint8_t frame[2] = {DURE_MSG_VERSION, (uint8_t)type};
        assert_refused((dure_span){frame, sizeof frame});
    }
    assert_string_equal(dure_msg_name((dure_msg_type)99), "unknown");
    assert_string_equal(dure_msg_name(DURE_MSG_SURVIVORS), "SURVIVORS");
}

static void refuse_both_ways(const dure_msg *msg)
{
    dure_buf buf;
    dure_buf_init(&buf, DURE_MSG_BYTES_MAX);
    dure_diag diag = {0};
    assert_int_not_equal(dure_msg_encode(&buf, msg, &diag), DURE_OK);
    assert_true(diag.text[0] != 0);
    dure_buf_fini(&buf);
}

static void test_codec_never_sends_what_it_refuses(void **state)
{
    (void)state;
    dure_msg msg = sample(DURE_MSG_ABORT);
    msg.u.abort.code = 99;
    refuse_both_ways(&msg);
    msg = sample(DURE_MSG_CHUNK);
    msg.u.chunk.n_bytes = DURE_MSG_PAYLOAD_MAX + 1;
    refuse_both_ways(&msg);
    msg = sample_message(DURE_MSG_KEYS, DURE_NEAR_MAX);
    msg.u.keys.n_entries = DURE_NEAR_MAX + 1;
    refuse_both_ways(&msg);
    msg = sample(DURE_MSG_JOIN);
    msg.u.join.record.n = 0;
    refuse_both_ways(&msg);
    msg = sample(DURE_MSG_OPEN);
    msg.u.open.n_consistency = DURE_MSG_PROOF_MAX + 1;
    refuse_both_ways(&msg);
    msg.type = (dure_msg_type)200;
    refuse_both_ways(&msg);
}

static void test_codec_refuses_members_out_of_order_or_twice(void **state)
{
    (void)state;
    dure_attested entries[2] = {{.member = 4}, {.member = 4}};
    dure_msg msg = {.type = DURE_MSG_SIGNATURES,
                    .u.signatures = {.entries = entries, .n_entries = 2}};
    refuse_both_ways(&msg);
    entries[1].member = 3;
    refuse_both_ways(&msg);
    entries[1].member = 5;
    dure_buf frame = encoded(&msg);
    /* The second entry's number is the only byte 5 that follows the tag of field 1. */
    for (size_t i = 2; i + 1 < frame.n; i++) {
        if (frame.data[i] == 0x08 && frame.data[i + 1] == 5) frame.data[i + 1] = 4;
    }
    assert_refused(dure_buf_span(&frame));
    dure_buf_fini(&frame);
}

static void test_codec_refuses_a_member_out_of_range(void **state)
{
    (void)state;
    dure_attested entry = {.member = DURE_ROUND_MEMBERS_MAX};
    dure_msg msg = {.type = DURE_MSG_SIGNATURES,
                    .u.signatures = {.entries = &entry, .n_entries = 1}};
    refuse_both_ways(&msg);
}

static void test_codec_sends_only_plain_text(void **state)
{
    (void)state;
    dure_msg msg = sample(DURE_MSG_ABORT);
    strcpy(msg.u.abort.text, "a\x1b[2Jb\xff\xc2\x9b 두");
    dure_buf frame = encoded(&msg);
    dure_msg *back = NULL;
    assert_ok(dure_msg_decode(&back, dure_buf_span(&frame), NULL));
    assert_string_equal(back->u.abort.text, "a?[2Jb??? 두");
    dure_msg_free(&back);
    for (size_t i = 0; i < frame.n; i++) {
        if (frame.data[i] == '[') frame.data[i - 1] = 0x1b;
    }
    assert_refused(dure_buf_span(&frame));
    for (size_t i = 0; i < frame.n; i++) {
        if (frame.data[i] == '[') frame.data[i - 1] = 0x00;
    }
    assert_refused(dure_buf_span(&frame));
    dure_buf_fini(&frame);
}

/* A frame of empty entries costs protobuf-c many times its length; the budget stops it. */
static void test_codec_bounds_the_memory_of_a_dense_frame(void **state)
{
    (void)state;
    static uint8_t frame[60000];
    frame[0] = DURE_MSG_VERSION;
    frame[1] = DURE_MSG_KEYS;
    for (size_t i = 2; i + 1 < sizeof frame; i += 2) {
        frame[i] = 0x12; /* entries, length 0 */
        frame[i + 1] = 0;
    }
    assert_refused((dure_span){frame, sizeof frame});
    for (size_t i = 2; i + 1 < sizeof frame; i += 2) {
        frame[i] = 0x78; /* unknown field 15 */
    }
    assert_refused((dure_span){frame, sizeof frame});
}

static void test_codec_refuses_an_oversized_body_unread(void **state)
{
    (void)state;
    static uint8_t frame[5000];
    frame[0] = DURE_MSG_VERSION;
    frame[1] = DURE_MSG_HEARTBEAT;
    dure_msg *msg = NULL;
    assert_err(dure_msg_decode(&msg, (dure_span){frame, sizeof frame}, NULL), DURE_ERR_LIMIT);
}

static void test_codec_finds_the_round_of_a_message(void **state)
{
    (void)state;
    dure_msg msg = sample(DURE_MSG_MASKED);
    assert_ptr_equal(dure_msg_config_hash(&msg), msg.u.masked.config_hash);
    msg = sample(DURE_MSG_COSIGN);
    assert_null(dure_msg_config_hash(&msg));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codec_round_trips_every_message),
        cmocka_unit_test(test_codec_decoded_message_is_a_deep_copy),
        cmocka_unit_test(test_codec_keeps_every_field_of_hello),
        cmocka_unit_test(test_codec_takes_as_many_members_as_there_are),
        cmocka_unit_test(test_codec_takes_a_hundred_neighbours_of_the_hybrid_suite),
        cmocka_unit_test(test_codec_refuses_an_empty_field_that_may_be_absent),
        cmocka_unit_test(test_codec_takes_the_longest_roster),
        cmocka_unit_test(test_codec_refuses_every_truncation),
        cmocka_unit_test(test_codec_refuses_an_unknown_field),
        cmocka_unit_test(test_codec_refuses_a_repeated_field),
        cmocka_unit_test(test_codec_refuses_fields_out_of_order),
        cmocka_unit_test(test_codec_refuses_a_long_varint),
        cmocka_unit_test(test_codec_refuses_a_number_over_32_bits),
        cmocka_unit_test(test_codec_refuses_a_missing_field),
        cmocka_unit_test(test_codec_refuses_a_short_hash),
        cmocka_unit_test(test_codec_refuses_another_version),
        cmocka_unit_test(test_codec_refuses_unknown_types),
        cmocka_unit_test(test_codec_never_sends_what_it_refuses),
        cmocka_unit_test(test_codec_refuses_members_out_of_order_or_twice),
        cmocka_unit_test(test_codec_refuses_a_member_out_of_range),
        cmocka_unit_test(test_codec_sends_only_plain_text),
        cmocka_unit_test(test_codec_bounds_the_memory_of_a_dense_frame),
        cmocka_unit_test(test_codec_refuses_an_oversized_body_unread),
        cmocka_unit_test(test_codec_finds_the_round_of_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
