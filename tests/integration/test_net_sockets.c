/* Router and dealers over real sockets on loopback, honest and not. */
#include "common/clock.h"
#include "net/dealer.h"
#include "net/router.h"
#include "net/transfer.h"
#include "support/check.h"
#include "support/tcp_proxy.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

enum { WAIT_MS = 5000, STEP_MS = 5, MAX_SITES = 4 };

typedef struct hall {
    dure_router *router;
    dure_curve_key server, sites[MAX_SITES];
    dure_admission admission[MAX_SITES]; /* of sites[i]; any other key is a guest */
    uint16_t port;
} hall;

static dure_admission admit(void *state, const uint8_t curve_public[DURE_CURVE_BYTES])
{
    const hall *h = state;
    for (int i = 0; i < MAX_SITES; i++)
        if (!memcmp(h->sites[i].public_, curve_public, DURE_CURVE_BYTES))
            return __atomic_load_n(&h->admission[i], __ATOMIC_SEQ_CST);
    return DURE_ADMIT_GUEST;
}

static void set_admission(hall *h, int site, dure_admission admission)
{
    __atomic_store_n(&h->admission[site], admission, __ATOMIC_SEQ_CST);
}

static uint16_t port_of(const char *endpoint)
{
    return (uint16_t)strtoul(strrchr(endpoint, ':') + 1, NULL, 10);
}

static int open_hall(void **state)
{
    hall *h = calloc(1, sizeof *h);
    assert_non_null(h);
    assert_ok(dure_curve_generate(&h->server));
    for (int i = 0; i < MAX_SITES; i++) {
        assert_ok(dure_curve_generate(&h->sites[i]));
        h->admission[i] = DURE_ADMIT_MEMBER;
    }
    const dure_router_opts opts = {.endpoint = "tcp://127.0.0.1:*",
                                   .key = &h->server,
                                   .admit = admit,
                                   .admit_state = h,
                                   .heartbeat_ms = 100,
                                   .linger_ms = 1};
    assert_ok(dure_router_open(&h->router, &opts, NULL));
    h->port = port_of(dure_router_endpoint(h->router));
    *state = h;
    return 0;
}

static int close_hall(void **state)
{
    hall *h = *state;
    dure_router_close(&h->router);
    free(h);
    return 0;
}

static dure_dealer *open_dealer(const hall *h, const dure_curve_key *key, uint16_t port)
{
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", port);
    const dure_dealer_opts opts = {.endpoint = endpoint,
                                   .key = key,
                                   .server_public = h->server.public_,
                                   .reconnect_ms = 50,
                                   .reconnect_max_ms = 200,
                                   .heartbeat_ms = 100,
                                   .linger_ms = 1};
    dure_dealer *dealer;
    assert_ok(dure_dealer_open(&dealer, &opts, NULL));
    return dealer;
}

/* Runs the dealer until its status is `connected`. */
static bool wait_status(dure_dealer *dealer, bool connected)
{
    uint64_t end_ms = dure_clock_monotonic_ms() + WAIT_MS;
    while (dure_clock_monotonic_ms() < end_ms) {
        const dure_dealer_status *status = dure_dealer_status_of(dealer);
        if (status->connected == connected && (connected || status->reason[0])) return true;
        dure_envelope e;
        if (dure_dealer_recv(&e, dealer, STEP_MS) == DURE_OK) dure_envelope_fini(&e);
    }
    return false;
}

static dure_err say(dure_dealer *dealer, const char *text)
{
    return dure_dealer_send(dealer, dure_span_of_text(text), NULL);
}

static bool says(const dure_envelope *e, const char *text)
{
    return e->control.n == strlen(text) && !memcmp(e->control.data, text, e->control.n);
}

/* The next message at the router must be `text`. */
static dure_peer expect_at_router(hall *h, const char *text)
{
    dure_envelope e;
    assert_ok(dure_router_recv(&e, h->router, WAIT_MS));
    assert_true(says(&e, text));
    dure_peer peer = e.peer;
    dure_envelope_fini(&e);
    return peer;
}

static void expect_at_dealer(dure_dealer *dealer, const char *text)
{
    dure_envelope e;
    dure_err err;
    do
        err = dure_dealer_recv(&e, dealer, WAIT_MS);
    while (err == DURE_ERR_NET);
    assert_ok(err);
    assert_true(says(&e, text));
    dure_envelope_fini(&e);
}

static void test_sockets_member_is_heard_and_answered(void **state)
{
    hall *h = *state;
    dure_dealer *dealer = open_dealer(h, &h->sites[0], h->port);
    assert_true(wait_status(dealer, true));
    assert_ok(say(dealer, "hello"));
    dure_peer peer = expect_at_router(h, "hello");
    dure_hash id;
    assert_ok(dure_curve_id(&id, h->sites[0].public_));
    assert_true(dure_hash_equal(&id, &peer.id));
    assert_memory_equal(peer.curve_public, h->sites[0].public_, DURE_CURVE_BYTES);
    assert_int_equal(peer.admission, DURE_ADMIT_MEMBER);
    assert_ok(dure_router_send(h->router, &peer.id, dure_span_of_text("welcome"), NULL));
    expect_at_dealer(dealer, "welcome");
    dure_dealer_close(&dealer);
    assert_null(dealer);
}

static void test_sockets_guest_becomes_a_member_with_its_next_message(void **state)
{
    hall *h = *state;
    set_admission(h, 0, DURE_ADMIT_GUEST);
    dure_dealer *dealer = open_dealer(h, &h->sites[0], h->port);
    assert_true(wait_status(dealer, true));
    assert_ok(say(dealer, "join"));
    assert_int_equal(expect_at_router(h, "join").admission, DURE_ADMIT_GUEST);
    set_admission(h, 0, DURE_ADMIT_MEMBER);
    assert_ok(say(dealer, "hello"));
    assert_int_equal(expect_at_router(h, "hello").admission, DURE_ADMIT_MEMBER);
    dure_dealer_close(&dealer);
}

static void test_sockets_unknown_key_is_a_guest(void **state)
{
    hall *h = *state;
    dure_curve_key stranger;
    assert_ok(dure_curve_generate(&stranger));
    dure_dealer *dealer = open_dealer(h, &stranger, h->port);
    assert_true(wait_status(dealer, true));
    assert_ok(say(dealer, "join"));
    assert_int_equal(expect_at_router(h, "join").admission, DURE_ADMIT_GUEST);
    dure_dealer_close(&dealer);
}

static void test_sockets_revoked_key_is_out_at_once(void **state)
{
    hall *h = *state;
    dure_dealer *dealer = open_dealer(h, &h->sites[0], h->port);
    assert_true(wait_status(dealer, true));
    set_admission(h, 0, DURE_ADMIT_NO);
    assert_ok(say(dealer, "hello"));
    dure_envelope e;
    assert_err(dure_router_recv(&e, h->router, 200), DURE_ERR_TIMEOUT);
    assert_int_equal(dure_router_counts_of(h->router)->not_admitted, 1);
    dure_dealer_close(&dealer);
}

static void test_sockets_refused_key_is_told_and_tries_again(void **state)
{
    hall *h = *state;
    set_admission(h, 0, DURE_ADMIT_NO);
    dure_dealer *dealer = open_dealer(h, &h->sites[0], h->port);
    assert_true(wait_status(dealer, false));
    assert_non_null(strstr(dure_dealer_status_of(dealer)->reason, "does not admit"));
    assert_err(say(dealer, "hello"), DURE_ERR_NET);
    set_admission(h, 0, DURE_ADMIT_MEMBER);
    assert_true(wait_status(dealer, true));
    dure_dealer_close(&dealer);
}

static void test_sockets_wrong_server_key_never_connects(void **state)
{
    hall *h = *state;
    hall other = *h;
    assert_ok(dure_curve_generate(&other.server));
    dure_dealer *dealer = open_dealer(&other, &h->sites[0], h->port);
    assert_true(wait_status(dealer, false));
    dure_envelope e;
    for (int i = 0; i < 50; i++)
        assert_int_not_equal(dure_dealer_recv(&e, dealer, STEP_MS), DURE_OK);
    assert_false(dure_dealer_status_of(dealer)->connected);
    assert_err(dure_router_recv(&e, h->router, 50), DURE_ERR_TIMEOUT);
    dure_dealer_close(&dealer);
}

static void test_sockets_nobody_there_is_said(void **state)
{
    hall *h = *state;
    uint16_t port = h->port;
    dure_router_close(&h->router);
    dure_dealer *dealer = open_dealer(h, &h->sites[0], port);
    assert_true(wait_status(dealer, false));
    assert_non_null(strstr(dure_dealer_status_of(dealer)->reason, "nothing answers"));
    dure_dealer_close(&dealer);
}

/* A libzmq client that does not keep to our rules. */
typedef struct raw_client {
    void *context, *socket;
} raw_client;

static raw_client raw_open(const hall *h, const dure_curve_key *key, const void *id, size_t n)
{
    raw_client raw = {.context = zmq_ctx_new()};
    raw.socket = zmq_socket(raw.context, ZMQ_DEALER);
    int linger = 0, timeout = WAIT_MS;
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", h->port);
    zmq_setsockopt(raw.socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(raw.socket, ZMQ_RCVTIMEO, &timeout, sizeof timeout);
    zmq_setsockopt(raw.socket, ZMQ_SNDTIMEO, &timeout, sizeof timeout);
    if (n) zmq_setsockopt(raw.socket, ZMQ_ROUTING_ID, id, n);
    zmq_setsockopt(raw.socket, ZMQ_CURVE_SERVERKEY, h->server.public_, DURE_CURVE_BYTES);
    zmq_setsockopt(raw.socket, ZMQ_CURVE_PUBLICKEY, key->public_, DURE_CURVE_BYTES);
    zmq_setsockopt(raw.socket, ZMQ_CURVE_SECRETKEY, key->secret, DURE_CURVE_BYTES);
    assert_int_equal(zmq_connect(raw.socket, endpoint), 0);
    return raw;
}

static void raw_close(raw_client *raw)
{
    zmq_close(raw->socket);
    zmq_ctx_term(raw->context);
}

static void test_sockets_stolen_routing_id_is_dropped(void **state)
{
    hall *h = *state;
    dure_dealer *victim = open_dealer(h, &h->sites[0], h->port);
    assert_true(wait_status(victim, true));
    assert_ok(say(victim, "hello"));
    dure_peer peer = expect_at_router(h, "hello");
    uint8_t id[48] = {0}; /* the tail can only be guessed */
    memcpy(id, peer.id.b, sizeof peer.id.b);
    raw_client thief = raw_open(h, &h->sites[1], id, sizeof id);
    assert_int_equal(zmq_send(thief.socket, "mine", 4, 0), 4);
    dure_envelope e;
    assert_err(dure_router_recv(&e, h->router, 300), DURE_ERR_TIMEOUT);
    assert_int_equal(dure_router_counts_of(h->router)->wrong_id, 1);
    assert_ok(dure_router_send(h->router, &peer.id, dure_span_of_text("secret"), NULL));
    expect_at_dealer(victim, "secret");
    raw_close(&thief);
    dure_dealer_close(&victim);
}

static void test_sockets_id_of_another_form_is_dropped(void **state)
{
    hall *h = *state;
    dure_hash id;
    dure_envelope e;
    assert_ok(dure_curve_id(&id, h->sites[0].public_));
    raw_client no_id = raw_open(h, &h->sites[0], NULL, 0);
    raw_client hash_only = raw_open(h, &h->sites[0], id.b, sizeof id.b);
    assert_int_equal(zmq_send(no_id.socket, "a", 1, 0), 1);
    assert_int_equal(zmq_send(hash_only.socket, "b", 1, 0), 1);
    assert_err(dure_router_recv(&e, h->router, 300), DURE_ERR_TIMEOUT);
    assert_int_equal(dure_router_counts_of(h->router)->wrong_id, 2);
    raw_close(&no_id);
    raw_close(&hash_only);
}

static void test_sockets_messages_of_another_shape_are_dropped(void **state)
{
    hall *h = *state;
    uint8_t id[48] = {1};
    dure_hash hash;
    dure_envelope e;
    assert_ok(dure_curve_id(&hash, h->sites[0].public_));
    memcpy(id, hash.b, sizeof hash.b);
    raw_client raw = raw_open(h, &h->sites[0], id, sizeof id);
    for (int i = 0; i < 4; i++)
        assert_int_equal(zmq_send(raw.socket, "x", 1, i < 3 ? ZMQ_SNDMORE : 0), 1);
    assert_int_equal(zmq_send(raw.socket, "good", 4, 0), 4);
    assert_ok(dure_router_recv(&e, h->router, WAIT_MS));
    assert_true(says(&e, "good"));
    dure_envelope_fini(&e);
    assert_int_equal(dure_router_counts_of(h->router)->malformed, 1);
    raw_close(&raw);
}

static void test_sockets_oversized_frame_ends_the_connection(void **state)
{
    hall *h = *state;
    uint8_t id[48] = {1};
    dure_hash hash;
    dure_envelope e;
    static uint8_t big[2 * 256 * 1024];
    assert_ok(dure_curve_id(&hash, h->sites[0].public_));
    memcpy(id, hash.b, sizeof hash.b);
    raw_client raw = raw_open(h, &h->sites[0], id, sizeof id);
    assert_int_equal(zmq_send(raw.socket, big, sizeof big, 0), (int)sizeof big);
    assert_err(dure_router_recv(&e, h->router, 300), DURE_ERR_TIMEOUT);
    assert_int_equal(dure_router_counts_of(h->router)->received, 0);
    raw_close(&raw);
    dure_dealer *dealer = open_dealer(h, &h->sites[1], h->port);
    assert_true(wait_status(dealer, true));
    assert_err(dure_dealer_send(dealer, dure_span_of(big, sizeof big), NULL), DURE_ERR_LIMIT);
    assert_ok(say(dealer, "still here"));
    expect_at_router(h, "still here");
    dure_dealer_close(&dealer);
}

static void test_sockets_half_open_connection_is_noticed_and_replaced(void **state)
{
    hall *h = *state;
    tcp_proxy *proxy = tcp_proxy_start(h->port);
    dure_dealer *dealer = open_dealer(h, &h->sites[0], tcp_proxy_port(proxy));
    assert_true(wait_status(dealer, true));
    assert_ok(say(dealer, "one"));
    dure_peer peer = expect_at_router(h, "one");
    tcp_proxy_freeze(proxy);
    assert_true(wait_status(dealer, false)); /* the heartbeat's time-out */
    assert_true(wait_status(dealer, true));
    assert_int_equal(dure_dealer_status_of(dealer)->connects, 2);
    assert_ok(say(dealer, "two"));
    expect_at_router(h, "two");
    assert_ok(dure_router_send(h->router, &peer.id, dure_span_of_text("three"), NULL));
    expect_at_dealer(dealer, "three");
    dure_dealer_close(&dealer);
    tcp_proxy_stop(proxy);
}

static void test_sockets_silent_connection_stops_nobody(void **state)
{
    hall *h = *state;
    int silent[3];
    for (int i = 0; i < 3; i++)
        silent[i] = tcp_connect(h->port);
    dure_dealer *dealer = open_dealer(h, &h->sites[0], h->port);
    assert_true(wait_status(dealer, true));
    assert_ok(say(dealer, "hello"));
    expect_at_router(h, "hello");
    for (int i = 0; i < 3; i++)
        close(silent[i]);
    dure_dealer_close(&dealer);
}

static void test_sockets_port_in_use_is_one_sentence(void **state)
{
    hall *h = *state;
    dure_router *second;
    dure_diag diag = {0};
    const dure_router_opts opts = {.endpoint = dure_router_endpoint(h->router),
                                   .key = &h->server,
                                   .admit = admit,
                                   .admit_state = h};
    assert_err(dure_router_open(&second, &opts, &diag), DURE_ERR_BUSY);
    assert_null(second);
    assert_non_null(strstr(diag.text, "in use by another program"));
}

static void test_sockets_bad_endpoints_are_refused(void **state)
{
    hall *h = *state;
    dure_router *router;
    dure_dealer *dealer;
    dure_diag diag = {0};
    const dure_router_opts server = {
        .endpoint = "tcp://nowhere", .key = &h->server, .admit = admit, .admit_state = h};
    assert_err(dure_router_open(&router, &server, &diag), DURE_ERR_USAGE);
    assert_non_null(strstr(diag.text, "tcp://ADDRESS:PORT"));
    const dure_dealer_opts site = {
        .endpoint = "127.0.0.1:5555", .key = &h->sites[0], .server_public = h->server.public_};
    assert_err(dure_dealer_open(&dealer, &site, &diag), DURE_ERR_USAGE);
    assert_non_null(strstr(diag.text, "tcp://HOST:PORT"));
}

static void test_sockets_send_to_a_stranger_or_one_gone_fails(void **state)
{
    hall *h = *state;
    dure_hash id;
    assert_ok(dure_curve_id(&id, h->sites[0].public_));
    assert_err(dure_router_send(h->router, &id, dure_span_of_text("x"), NULL), DURE_ERR_NOT_FOUND);
    dure_dealer *dealer = open_dealer(h, &h->sites[0], h->port);
    assert_true(wait_status(dealer, true));
    assert_ok(say(dealer, "hello"));
    expect_at_router(h, "hello");
    dure_dealer_close(&dealer);
    dure_envelope e;
    dure_err err = DURE_OK;
    for (int i = 0; i < 200 && err != DURE_ERR_NOT_FOUND; i++) {
        err = dure_router_send(h->router, &id, dure_span_of_text("x"), NULL);
        assert_err(dure_router_recv(&e, h->router, STEP_MS), DURE_ERR_TIMEOUT);
    }
    assert_err(err, DURE_ERR_NOT_FOUND);
}

static void count_release(void *data, void *state)
{
    (void)data;
    atomic_fetch_add((atomic_int *)state, 1); /* on a thread of libzmq's */
}

static void test_sockets_payload_is_handed_over_and_released_once(void **state)
{
    hall *h = *state;
    static uint8_t bytes[256 * 1024];
    static atomic_int released;
    atomic_store(&released, 0);
    dure_payload payload = {
        .bytes = {bytes, sizeof bytes}, .release = count_release, .state = &released};
    dure_hash nobody = {{0}};
    assert_err(dure_router_send(h->router, &nobody, dure_span_of_text("c"), &payload),
               DURE_ERR_NOT_FOUND);
    assert_int_equal(atomic_load(&released), 1);
    dure_dealer *dealer = open_dealer(h, &h->sites[0], h->port);
    assert_err(dure_dealer_send(dealer, dure_span_of_text("c"), &payload), DURE_ERR_NET);
    assert_int_equal(atomic_load(&released), 2);
    assert_true(wait_status(dealer, true));
    bytes[12345] = 77;
    assert_ok(dure_dealer_send(dealer, dure_span_of_text("c"), &payload));
    dure_envelope e;
    assert_ok(dure_router_recv(&e, h->router, WAIT_MS));
    assert_int_equal(e.payload.n, sizeof bytes);
    assert_int_equal(e.payload.data[12345], 77);
    dure_envelope_fini(&e);
    dure_envelope_fini(&e);
    dure_dealer_close(&dealer);
    assert_int_equal(atomic_load(&released), 3);
}

static void test_sockets_full_queue_is_an_error_of_the_send(void **state)
{
    hall *h = *state;
    static uint8_t bytes[256 * 1024];
    dure_payload payload = {.bytes = {bytes, sizeof bytes}};
    dure_dealer *dealer = open_dealer(h, &h->sites[0], h->port);
    assert_true(wait_status(dealer, true));
    assert_ok(say(dealer, "hello"));
    dure_peer peer = expect_at_router(h, "hello");
    dure_err err = DURE_OK;
    for (int i = 0; i < 1000 && !err; i++) /* the dealer does not read */
        err = dure_router_send(h->router, &peer.id, dure_span_of_text("c"), &payload);
    assert_err(err, DURE_ERR_BUSY);
    dure_dealer_close(&dealer);
}

static void test_sockets_wake_interrupts_a_wait(void **state)
{
    hall *h = *state;
    dure_envelope e;
    dure_dealer *dealer = open_dealer(h, &h->sites[0], h->port);
    assert_true(wait_status(dealer, true));
    dure_router_wake(h->router);
    dure_router_wake(h->router);
    assert_err(dure_router_recv(&e, h->router, WAIT_MS), DURE_ERR_CANCELLED);
    assert_err(dure_router_recv(&e, h->router, 10), DURE_ERR_TIMEOUT);
    dure_dealer_wake(dealer);
    assert_err(dure_dealer_recv(&e, dealer, WAIT_MS), DURE_ERR_CANCELLED);
    dure_dealer_close(&dealer);
}

/* The site answers one fetch, written as "OFFSET LENGTH". */
static void serve_fetch(dure_dealer *dealer, dure_span whole)
{
    dure_envelope e;
    if (dure_dealer_recv(&e, dealer, STEP_MS)) return;
    char text[64];
    dure_fetch fetch;
    snprintf(text, sizeof text, "%.*s", (int)e.control.n, (const char *)e.control.data);
    dure_envelope_fini(&e);
    char *end;
    fetch.offset = strtoull(text, &end, 10);
    fetch.length = (uint32_t)strtoul(end, NULL, 10);
    dure_payload chunk = {.release = NULL};
    assert_true(fetch.offset < whole.n && fetch.length <= whole.n - fetch.offset);
    chunk.bytes = dure_span_of(whole.data + fetch.offset, fetch.length);
    snprintf(text, sizeof text, "%llu", (unsigned long long)fetch.offset);
    dure_err err = dure_dealer_send(dealer, dure_span_of_text(text), &chunk);
    assert_true(err == DURE_OK || err == DURE_ERR_NET || err == DURE_ERR_BUSY);
}

/* One turn of the coordinator: ask for more, take one chunk. */
static void drive_receiver(hall *h, dure_receiver *r, const dure_hash *site, uint8_t *got)
{
    dure_fetch fetch;
    while (dure_receiver_next(&fetch, r)) {
        char text[64];
        snprintf(text, sizeof text, "%llu %u", (unsigned long long)fetch.offset, fetch.length);
        if (dure_router_send(h->router, site, dure_span_of_text(text), NULL)) {
            dure_receiver_rewind(r);
            break;
        }
    }
    dure_envelope e;
    if (dure_router_recv(&e, h->router, STEP_MS)) return;
    if (says(&e, "hello")) {
        dure_receiver_rewind(r); /* a new connection: what was in flight is lost */
    } else {
        char text[32];
        bool fresh;
        snprintf(text, sizeof text, "%.*s", (int)e.control.n, (const char *)e.control.data);
        const uint64_t offset = strtoull(text, NULL, 10);
        assert_ok(dure_receiver_accept(&fresh, r, offset, e.payload.n, dure_clock_monotonic_ms()));
        if (fresh) memcpy(got + offset, e.payload.data, e.payload.n);
    }
    dure_envelope_fini(&e);
}

static void test_sockets_transfer_survives_a_lost_connection(void **state)
{
    hall *h = *state;
    enum { WHOLE = 3000000 };
    uint8_t *bytes = malloc(WHOLE), *got = calloc(1, WHOLE);
    for (size_t i = 0; i < WHOLE; i++)
        bytes[i] = (uint8_t)(i * 31 + (i >> 13));
    tcp_proxy *proxy = tcp_proxy_start(h->port);
    dure_dealer *dealer = open_dealer(h, &h->sites[0], tcp_proxy_port(proxy));
    assert_true(wait_status(dealer, true));
    assert_ok(say(dealer, "hello"));
    dure_peer peer = expect_at_router(h, "hello");
    const dure_receiver_opts opts = {.total_bytes = WHOLE, .chunk_bytes = 65536};
    dure_receiver *r;
    assert_ok(dure_receiver_new(&r, &opts, 0));
    bool frozen = false;
    uint32_t connects = 1;
    uint64_t end_ms = dure_clock_monotonic_ms() + 2 * WAIT_MS;
    while (!dure_receiver_complete(r) && dure_clock_monotonic_ms() < end_ms) {
        drive_receiver(h, r, &peer.id, got);
        serve_fetch(dealer, dure_span_of(bytes, WHOLE));
        if (!frozen && dure_receiver_progress_of(r).received_bytes > WHOLE / 2) {
            tcp_proxy_freeze(proxy);
            frozen = true;
        }
        const dure_dealer_status *status = dure_dealer_status_of(dealer);
        if (status->connected && status->connects != connects) {
            connects = status->connects;
            assert_ok(say(dealer, "hello"));
        }
    }
    assert_int_equal(connects, 2);
    assert_true(dure_receiver_complete(r));
    assert_memory_equal(got, bytes, WHOLE);
    dure_receiver_free(&r);
    dure_dealer_close(&dealer);
    tcp_proxy_stop(proxy);
    free(bytes);
    free(got);
}

#define HALL_TEST(name) cmocka_unit_test_setup_teardown(name, open_hall, close_hall)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HALL_TEST(test_sockets_member_is_heard_and_answered),
        HALL_TEST(test_sockets_guest_becomes_a_member_with_its_next_message),
        HALL_TEST(test_sockets_unknown_key_is_a_guest),
        HALL_TEST(test_sockets_revoked_key_is_out_at_once),
        HALL_TEST(test_sockets_refused_key_is_told_and_tries_again),
        HALL_TEST(test_sockets_wrong_server_key_never_connects),
        HALL_TEST(test_sockets_nobody_there_is_said),
        HALL_TEST(test_sockets_stolen_routing_id_is_dropped),
        HALL_TEST(test_sockets_id_of_another_form_is_dropped),
        HALL_TEST(test_sockets_messages_of_another_shape_are_dropped),
        HALL_TEST(test_sockets_oversized_frame_ends_the_connection),
        HALL_TEST(test_sockets_half_open_connection_is_noticed_and_replaced),
        HALL_TEST(test_sockets_silent_connection_stops_nobody),
        HALL_TEST(test_sockets_port_in_use_is_one_sentence),
        HALL_TEST(test_sockets_bad_endpoints_are_refused),
        HALL_TEST(test_sockets_send_to_a_stranger_or_one_gone_fails),
        HALL_TEST(test_sockets_payload_is_handed_over_and_released_once),
        HALL_TEST(test_sockets_full_queue_is_an_error_of_the_send),
        HALL_TEST(test_sockets_wake_interrupts_a_wait),
        HALL_TEST(test_sockets_transfer_survives_a_lost_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
