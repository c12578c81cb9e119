#include "bench/curve_transfer.h"

#include "common/clock.h"
#include "net/dealer.h"
#include "net/router.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PEERS_MAX = 100, FRAME_BYTES = 3 * 65536, PATIENCE_MS = 60000 };

typedef struct peer {
    pthread_t thread;
    pthread_barrier_t *start;
    const char *endpoint;
    const dure_curve_key *server;
    size_t n_bytes;
    dure_err err;
} peer;

static dure_admission admit_all(void *state, const uint8_t curve_public[DURE_CURVE_BYTES])
{
    (void)state;
    (void)curve_public;
    return DURE_ADMIT_MEMBER;
}

/* ---- the receiving process ---- */

/* Says where it listens, then when it has everything: the time between is the parent's to take. */
static dure_err receive_all(int to, const dure_curve_key *key, uint64_t n_bytes)
{
    const dure_router_opts opts = {.endpoint = "tcp://127.0.0.1:*", .key = key, .admit = admit_all};
    dure_router *router = NULL;
    char endpoint[256] = {0};
    dure_err err = dure_router_open(&router, &opts, NULL);
    if (err) return err;
    strncpy(endpoint, dure_router_endpoint(router), sizeof endpoint - 1);
    if (write(to, endpoint, sizeof endpoint) != sizeof endpoint) err = DURE_ERR_IO;
    uint64_t received = 0;
    while (!err && received < n_bytes) {
        dure_envelope envelope;
        err = dure_router_recv(&envelope, router, PATIENCE_MS);
        received += envelope.payload.n;
        dure_envelope_fini(&envelope);
    }
    if (!err && write(to, "", 1) != 1) err = DURE_ERR_IO;
    dure_router_close(&router);
    return err;
}

/* ---- the peers ---- */

static dure_err connect_peer(dure_dealer **out, const peer *p, const dure_curve_key *key)
{
    const dure_dealer_opts opts = {
        .endpoint = p->endpoint, .key = key, .server_public = p->server->public_};
    dure_err err = dure_dealer_open(out, &opts, NULL);
    const uint64_t end_ms = dure_clock_monotonic_ms() + PATIENCE_MS;
    while (!err && !dure_dealer_status_of(*out)->connected) {
        dure_envelope envelope;
        /* DURE_ERR_NET tells of a change, DURE_ERR_TIMEOUT of none. */
        err = dure_dealer_recv(&envelope, *out, 100);
        dure_envelope_fini(&envelope);
        if (err == DURE_ERR_NET || err == DURE_ERR_TIMEOUT) err = DURE_OK;
        if (dure_clock_monotonic_ms() > end_ms) err = DURE_ERR_TIMEOUT;
    }
    return err;
}

static dure_err send_all(dure_dealer *dealer, const uint8_t *bytes, size_t n_bytes)
{
    dure_err err = DURE_OK;
    for (size_t at = 0; !err && at < n_bytes;) {
        const size_t n = n_bytes - at < FRAME_BYTES ? n_bytes - at : FRAME_BYTES;
        const dure_payload payload = {.bytes = dure_span_of(bytes + at, n)};
        err = dure_dealer_send(dealer, dure_span_of("chunk", 5), &payload);
        if (!err) {
            at += n;
        } else if (err == DURE_ERR_BUSY) {
            dure_clock_sleep_ms(1);
            err = DURE_OK;
        }
    }
    return err;
}

static void *run_peer(void *state)
{
    peer *p = state;
    dure_dealer *dealer = NULL;
    dure_curve_key key;
    uint8_t *bytes = malloc(p->n_bytes);
    p->err = bytes ? dure_curve_generate(&key) : DURE_ERR_NOMEM;
    if (!p->err) memset(bytes, 0x5a, p->n_bytes);
    if (!p->err) p->err = connect_peer(&dealer, p, &key);
    pthread_barrier_wait(p->start); /* all are connected */
    if (!p->err) p->err = send_all(dealer, bytes, p->n_bytes);
    pthread_barrier_wait(p->start); /* all has arrived */
    if (dealer) dure_dealer_close(&dealer);
    free(bytes);
    return NULL;
}

static dure_err run_peers(double *seconds, peer *peers, uint32_t n, int from)
{
    pthread_barrier_t start;
    uint32_t n_started = 0;
    char done;
    pthread_barrier_init(&start, NULL, n + 1);
    for (uint32_t i = 0; i < n; i++) {
        peers[i].start = &start;
        /* The barrier counts on all of them: a bench that cannot have its threads ends. */
        if (pthread_create(&peers[i].thread, NULL, run_peer, &peers[i])) abort();
        n_started++;
    }
    pthread_barrier_wait(&start);
    const double begin_s = dure_clock_monotonic_s();
    dure_err err = read(from, &done, 1) == 1 ? DURE_OK : DURE_ERR_NET;
    *seconds = dure_clock_monotonic_s() - begin_s;
    pthread_barrier_wait(&start);
    for (uint32_t i = 0; i < n_started; i++) {
        pthread_join(peers[i].thread, NULL);
        if (!err) err = peers[i].err;
    }
    pthread_barrier_destroy(&start);
    return err;
}

dure_err dure_bench_curve_transfer(double *seconds, uint32_t n_peers, size_t bytes_each)
{
    static peer peers[PEERS_MAX];
    char endpoint[256];
    dure_curve_key key;
    int ends[2], status = 0;
    *seconds = 0;
    if (n_peers > PEERS_MAX) return DURE_ERR_USAGE;
    dure_err err = dure_curve_generate(&key);
    if (err) return err;
    if (pipe(ends)) return DURE_ERR_IO;
    const pid_t child = fork();
    if (child < 0) return DURE_ERR_IO;
    if (child == 0) _exit(receive_all(ends[1], &key, (uint64_t)n_peers * bytes_each) ? 1 : 0);
    close(ends[1]);
    if (read(ends[0], endpoint, sizeof endpoint) != sizeof endpoint) err = DURE_ERR_NET;
    for (uint32_t i = 0; i < n_peers; i++)
        peers[i] = (peer){.endpoint = endpoint, .server = &key, .n_bytes = bytes_each};
    if (!err) err = run_peers(seconds, peers, n_peers, ends[0]);
    close(ends[0]);
    waitpid(child, &status, 0);
    return err ? err : status ? DURE_ERR_NET : DURE_OK;
}
