/* A round of many sites, by itself on a sparse graph, in one process: the real state machines of
 * every site and of the coordinator, every message encoded and decoded, no network and no disk.
 * Prints TSV.
 *
 *   bench_sparse [SITES [ELEMENTS [DROPPED [complete]]]]
 *
 * 1000 sites, 100000 elements and a tenth dropped without them. The graph is chosen for a tenth of
 * the sites that may collude and a tenth that drop out, and is the complete one if that is said.
 * DROPPED sites are lost after the shares, before their vectors. Sites run on all cores, the
 * coordinator on one; seconds are a thread's own. */
#include "crypto/kx.h"
#include "crypto/rng.h"
#include "proto/neighbours.h"
#include "secagg/client.h"
#include "secagg/graph.h"
#include "secagg/server.h"
#include "support/round_config.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_MAX = 64 };

typedef struct bench_site {
    dure_sign_key key;
    dure_secagg_client *client;
    dure_buf in[4]; /* the frames that it has been sent and not read */
    size_t n_in;
    dure_secagg_actions out; /* what it asks for, not done yet */
    bool dies;
    double seconds, mask_seconds; /* in all, and of them masking the vector */
    size_t sent, received;        /* bytes, the vector's among them */
} bench_site;

static uint32_t n_sites = 1000, n_words = 100000, n_dropped, n_threads;
static dure_config config; /* large */
static dure_hash config_hash;
static dure_sign_key coordinator, beacon;
static bench_site *sites;
static dure_secagg_server *server;
static uint32_t *sum;
static bool complete, unmasked;
static double server_seconds, closing_seconds, unmask_seconds;
static size_t n_streams;

static void die(const char *what, const dure_diag *diag)
{
    fprintf(stderr, "bench_sparse: %s: %s\n", what, diag ? diag->text : "failed");
    exit(1);
}

static double thread_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double resident_mb(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

/* ---- the round ---- */

static void make_config(dure_graph_choice *choice)
{
    *choice = (dure_graph_choice){.n = n_sites, .c = n_sites / 10, .dropouts = n_sites / 10};
    if (complete) {
        choice->k = n_sites - 1;
        choice->t = (n_sites + choice->c) / 2 + 1;
        if (dure_graph_check(choice, NULL)) die("the complete graph does not withstand that", NULL);
    } else if (!dure_graph_choose(choice)) {
        die("no graph withstands that", NULL);
    }
    round_config(&config, n_sites);
    config.threshold = choice->t;
    config.u_min = n_sites - choice->dropouts;
    config.collusion = choice->c;
    config.n_words = n_words;
    config.chunk_words = 65536;
    config.q_max = 8000;
    if (choice->k + 1 < n_sites) {
        config.neighbours = choice->k;
        config.beacon_index = 1;
        memcpy(config.beacon_public, beacon.public_, DURE_KEY_BYTES);
    }
    for (uint32_t i = 0; i < n_sites; i++) {
        memcpy(config.members[i].sign_public, sites[i].key.public_, DURE_KEY_BYTES);
        memcpy(config.members[i].curve_public, sites[i].key.public_, DURE_KEY_BYTES);
    }
}

static size_t begin(void)
{
    dure_diag diag = {0};
    dure_buf encoding;
    dure_buf_init(&encoding, DURE_CONFIG_BYTES_MAX);
    dure_err err = dure_config_encode(&encoding, &config, &diag);
    if (!err) err = dure_hash_bytes(&config_hash, dure_buf_span(&encoding));
    const dure_secagg_server_opts of_server = {&config, config_hash, &coordinator};
    if (!err) err = dure_secagg_server_new(&server, &of_server, &diag);
    for (uint32_t i = 0; !err && i < n_sites; i++) {
        const dure_secagg_client_opts opts = {.config = &config,
                                              .config_hash = config_hash,
                                              .sign = &sites[i].key,
                                              .coordinator_sign = coordinator.public_,
                                              .rng = dure_rng_system(),
                                              .beacon = {beacon.public_, 1}};
        const double started = thread_seconds();
        err = dure_secagg_client_new(&sites[i].client, &opts, &diag);
        if (!err) err = dure_secagg_client_start(&sites[i].out, sites[i].client, &diag);
        sites[i].seconds += thread_seconds() - started;
    }
    if (err) die("the round", &diag);
    const size_t bytes = encoding.n;
    dure_buf_fini(&encoding);
    return bytes;
}

/* The entries of a site: known numbers, so that the sum is. */
static int32_t unit(uint32_t site, uint32_t i)
{
    return (int32_t)((site * 2654435761u + i * 40503u) % 16001) - 8000;
}

static dure_err mask(bench_site *s, dure_diag *diag)
{
    const uint32_t number = (uint32_t)(s - sites);
    int32_t *units = malloc(n_words * sizeof *units);
    if (!units) return DURE_ERR_NOMEM;
    for (uint32_t i = 0; i < n_words; i++)
        units[i] = unit(number, i);
    const double started = thread_seconds();
    dure_err err = dure_secagg_client_update(&s->out, s->client, units, n_words, diag);
    s->mask_seconds = thread_seconds() - started;
    s->seconds += s->mask_seconds;
    free(units);
    return err;
}

/* Reads what the site was sent, until it has nothing more to say. */
static void run_site(bench_site *s)
{
    dure_diag diag = {0};
    for (size_t i = 0; i < s->n_in; i++) {
        dure_msg *msg = NULL;
        const double started = thread_seconds();
        dure_err err = dure_msg_decode(&msg, dure_buf_span(&s->in[i]), &diag);
        if (!err) err = dure_secagg_client_step(&s->out, s->client, msg, 1, &diag);
        s->seconds += thread_seconds() - started;
        dure_msg_free(&msg);
        dure_buf_fini(&s->in[i]);
        if (err) die("a site", &diag);
    }
    s->n_in = 0;
    for (size_t i = 0; i < s->out.n; i++) {
        if (s->out.items[i].kind == DURE_SECAGG_MASK && !s->dies && mask(s, &diag))
            die("masking", &diag);
    }
}

static void *run_sites(void *first)
{
    for (uint32_t i = *(uint32_t *)first; i < n_sites; i += n_threads)
        run_site(&sites[i]);
    return NULL;
}

static void run_all_sites(void)
{
    pthread_t threads[THREADS_MAX];
    uint32_t first[THREADS_MAX];
    for (uint32_t t = 0; t < n_threads; t++) {
        first[t] = t;
        if (pthread_create(&threads[t], NULL, run_sites, &first[t])) die("a thread", NULL);
    }
    for (uint32_t t = 0; t < n_threads; t++)
        pthread_join(threads[t], NULL);
}

/* ---- the coordinator's side ---- */

static dure_err vector_root(dure_hash *root, bench_site *s)
{
    const dure_span vector = dure_secagg_client_vector(s->client);
    const size_t stride = dure_config_chunk_bytes(&config, 0);
    dure_vector_tree tree = {0};
    dure_err err = DURE_OK;
    for (uint32_t c = 0; !err && c < dure_config_chunks(&config); c++) {
        const dure_span chunk = {vector.data + c * stride, dure_config_chunk_bytes(&config, c)};
        err = dure_vector_tree_add(&tree, &config, chunk);
    }
    return err ? err : dure_vector_tree_root(root, &tree, &config);
}

/* U3 is fixed: the spools of it are added. The machines of the sites still hold them. */
static void add_vectors(void)
{
    const dure_members u3 = dure_secagg_server_set(server, 3);
    for (uint32_t i = 0; i < n_sites; i++) {
        if (!dure_members_has(&u3, i)) continue;
        dure_vector_add_packed(sum, dure_secagg_client_vector(sites[i].client), &config);
    }
}

static void unmask(void)
{
    const double started = thread_seconds();
    for (uint32_t c = 0; c < dure_config_chunks(&config); c++) {
        if (dure_masks_apply(sum + c * config.chunk_words, dure_secagg_server_unmasker(server), c))
            die("unmasking", NULL);
    }
    unmask_seconds = thread_seconds() - started;
    unmasked = true;
}

static void do_server_actions(dure_secagg_actions *actions)
{
    for (size_t i = 0; i < actions->n; i++) {
        const dure_secagg_action *a = &actions->items[i];
        if (a->kind == DURE_SECAGG_BLAME || a->kind == DURE_SECAGG_END) die(a->text, NULL);
        if (a->kind == DURE_SECAGG_PERSIST && a->record == DURE_SECAGG_RECORD_A3) add_vectors();
        if (a->kind == DURE_SECAGG_UNMASK) unmask();
        if (a->kind != DURE_SECAGG_SEND) continue;
        bench_site *s = &sites[a->member];
        dure_buf *frame = &s->in[s->n_in++];
        dure_buf_init(frame, DURE_MSG_BYTES_MAX);
        dure_put_raw(frame, a->bytes.data, a->bytes.n);
        s->received += a->bytes.n;
    }
    dure_secagg_actions_fini(actions);
}

static void tell_server(bench_site *s, dure_span frame)
{
    dure_secagg_actions actions = {0};
    dure_diag diag = {0};
    dure_msg *msg = NULL;
    dure_hash root;
    dure_err err = dure_msg_decode(&msg, frame, &diag);
    if (!err && msg->type == DURE_MSG_MASKED) {
        err = vector_root(&root, s);
        s->sent += dure_config_vector_bytes(&config);
    }
    if (!err)
        err = dure_secagg_server_step(&actions, server, (uint32_t)(s - sites), msg, &root, &diag);
    s->sent += frame.n;
    /* Of R4 the coordinator takes as many as it needs. */
    if (err && !(unmasked && err == DURE_ERR_STATE)) die("the coordinator", &diag);
    do_server_actions(&actions);
    dure_msg_free(&msg);
}

/* The site's chunks are where the coordinator finds them; this makes it send the final frame. */
static void upload(bench_site *s, dure_secagg_actions *actions)
{
    for (uint32_t c = 0; c < dure_config_chunks(&config); c++) {
        if (dure_secagg_client_sent(actions, s->client, c, NULL)) die("an upload", NULL);
    }
}

static void do_site_actions(bench_site *s)
{
    dure_secagg_actions actions = s->out;
    s->out = (dure_secagg_actions){0};
    for (size_t i = 0; i < actions.n; i++) {
        if (actions.items[i].kind == DURE_SECAGG_UPLOAD) upload(s, &actions);
    }
    for (size_t i = 0; i < actions.n; i++) {
        if (actions.items[i].kind == DURE_SECAGG_SEND) tell_server(s, actions.items[i].bytes);
    }
    dure_secagg_actions_fini(&actions);
}

static void drop_the_dead(void)
{
    for (uint32_t i = 0; i < n_sites; i++) {
        dure_secagg_actions actions = {0};
        if (!sites[i].dies) continue;
        if (dure_secagg_server_drop(&actions, server, i)) die("a dropout", NULL);
        do_server_actions(&actions);
    }
}

static void speak_beacon(void)
{
    uint8_t signature[DURE_SIGNATURE_BYTES];
    dure_secagg_actions actions = {0};
    if (!config.neighbours) return;
    dure_err err = dure_beacon_sign(signature, &beacon, config.federation_id, config.beacon_index);
    if (!err)
        err = dure_secagg_server_beacon(&actions, server, dure_span_of(signature, sizeof signature),
                                        NULL);
    if (err) die("the beacon", NULL);
    do_server_actions(&actions);
}

static void run_round(void)
{
    double started = thread_seconds();
    speak_beacon();
    for (int phase = 0; !unmasked && phase < 8; phase++) {
        if (dure_secagg_server_phase(server) == DURE_SECAGG_PHASE_VECTORS) drop_the_dead();
        for (uint32_t i = 0; i < n_sites; i++)
            do_site_actions(&sites[i]);
        closing_seconds = thread_seconds() - started; /* in the last phase, of the shares */
        server_seconds += closing_seconds;
        run_all_sites();
        started = thread_seconds();
    }
    if (!unmasked) die("no sum came out", NULL);
}

static void check_sum(void)
{
    for (uint32_t i = 0; i < n_words; i++) {
        int64_t want = 0;
        for (uint32_t u = 0; u < n_sites; u++)
            want += sites[u].dies ? 0 : unit(u, i);
        if (dure_mask_value(sum[i], config.word_bits) != want) die("the sum is wrong", NULL);
    }
}

/* ---- what came of it ---- */

/* Bytes of AES-256-CTR key stream a second, applied as masks are, on one core. */
static double aes_rate(void)
{
    enum { STREAMS = 16, WORDS = 1 << 20 };
    static uint32_t words[WORDS];
    dure_mask_term terms[STREAMS] = {{0}};
    const dure_mask_range range = {.n = WORDS, .bits = 24};
    for (uint8_t i = 0; i < STREAMS; i++) {
        const uint8_t key[DURE_MASK_KEY_BYTES] = {i};
        if (dure_mask_stream_new(&terms[i].stream, key)) die("AES", NULL);
    }
    double best = 0;
    for (int run = 0; run < 3; run++) {
        const double started = thread_seconds();
        if (dure_mask_apply(words, &range, terms, STREAMS)) die("AES", NULL);
        const double rate = 3.0 * WORDS * STREAMS / (thread_seconds() - started);
        if (rate > best) best = rate;
    }
    for (size_t i = 0; i < STREAMS; i++)
        dure_mask_stream_free(&terms[i].stream);
    return best;
}

/* Seconds of one signature's verification, and of one X25519 agreement. */
static double verify_seconds(void)
{
    enum { RUNS = 200 };
    uint8_t signature[DURE_SIGNATURE_BYTES];
    const dure_span message = dure_hash_span(&config_hash);
    dure_err err = dure_sign(signature, &beacon, "bench", message);
    const double started = thread_seconds();
    for (int i = 0; !err && i < RUNS; i++)
        err = dure_sign_verify(beacon.public_, "bench", message, signature);
    if (err) die("a signature", NULL);
    return (thread_seconds() - started) / RUNS;
}

static double agree_seconds(void)
{
    enum { RUNS = 200 };
    dure_kx_key a, b;
    uint8_t shared[DURE_KX_BYTES];
    dure_err err = dure_kx_generate(&a);
    if (!err) err = dure_kx_generate(&b);
    const double started = thread_seconds();
    for (int i = 0; !err && i < RUNS; i++)
        err = dure_kx_shared(shared, &a, b.public_);
    if (err) die("X25519", NULL);
    return (thread_seconds() - started) / RUNS;
}

/* What the cryptography of a site takes by itself: three signatures and three agreements for each
 * neighbour (keys, shares, vector; to seal, to open, to mask), the quorum's signatures, AES. */
static double site_ideal(const dure_graph_choice *choice, double rate)
{
    const double quorum = (n_sites + choice->c) / 2 + 1;
    return (3.0 * choice->k + quorum) * verify_seconds() + 3.0 * choice->k * agree_seconds() +
           (choice->k + 1) * (double)dure_config_vector_bytes(&config) / rate;
}

/* `ideal` 0: there is none. */
static void print(const char *figure, double value, double ideal, const char *ideal_is)
{
    if (ideal > 0)
        printf("%u\t%u\t%s\t%.6g\t%.3f\t%s\n", n_sites, n_dropped, figure, value, value / ideal,
               ideal_is);
    else
        printf("%u\t%u\t%s\t%.6g\t-\t-\n", n_sites, n_dropped, figure, value);
}

static size_t count_streams(const dure_graph *graph)
{
    const dure_members u2 = dure_secagg_server_set(server, 2),
                       u3 = dure_secagg_server_set(server, 3);
    size_t n = dure_members_count(&u3);
    for (uint32_t v = 0; v < n_sites; v++) {
        if (dure_members_has(&u2, v) && !dure_members_has(&u3, v))
            n += dure_graph_holders(graph, v, &u3);
    }
    return n;
}

static void report(const dure_graph_choice *choice, size_t config_bytes, double before_mb)
{
    static dure_graph graph;
    uint8_t signature[DURE_SIGNATURE_BYTES];
    double seconds = 0, mask_seconds = 0, sent = 0, received = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_sites; i++) {
        if (sites[i].dies) continue;
        n++;
        seconds += sites[i].seconds;
        mask_seconds += sites[i].mask_seconds;
        sent += (double)sites[i].sent;
        received += (double)sites[i].received;
    }
    dure_err err = dure_beacon_sign(signature, &beacon, config.federation_id, 1);
    if (!err)
        err = dure_graph_make(&graph, &config,
                              config.neighbours ? dure_span_of(signature, sizeof signature)
                                                : (dure_span){0});
    if (err) die("the graph", NULL);
    n_streams = count_streams(&graph);
    const double vector = (double)dure_config_vector_bytes(&config), rate = aes_rate();
    printf("sites\tdropped\tfigure\tvalue\tratio\tratio_to\n");
    print("neighbours of a site", choice->k, 0, "");
    print("threshold of its holders", choice->t, 0, "");
    print("elements of 24 bits", n_words, 0, "");
    print("site: seconds on one core", seconds / n, site_ideal(choice, rate),
          "its signatures, agreements and AES alone");
    print("site: of these masking the vector", mask_seconds / n, 0, "");
    print("site: bytes sent", sent / n, vector, "the quantised vector");
    print("site: bytes received", received / n + (double)config_bytes, 0, "");
    print("site: of these the configuration", (double)config_bytes, 0, "");
    print("coordinator: seconds on one core", server_seconds, 0, "");
    print("coordinator: of these from the shares to the sum", closing_seconds, 0, "");
    print("coordinator: of these taking off masks", unmask_seconds,
          (double)n_streams * vector / rate, "AES and additions alone, on one core");
    print("memory of all machines, MB", resident_mb(), 0, "");
    print("memory, MB a site", (resident_mb() - before_mb) / n_sites, vector / 1048576,
          "the quantised vector");
}

int main(int argc, char **argv)
{
    dure_graph_choice choice;
    char promise[700];
    if (argc > 1) n_sites = (uint32_t)strtoul(argv[1], NULL, 10);
    if (argc > 2) n_words = (uint32_t)strtoul(argv[2], NULL, 10);
    n_dropped = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : n_sites / 10;
    complete = argc > 4 && strcmp(argv[4], "complete") == 0;
    if (n_sites < 10 || n_sites > DURE_ROUND_MEMBERS_MAX || n_words < 1 || n_words > 1u << 24 ||
        n_dropped > n_sites / 10 || (argc > 4 && !complete) || argc > 5)
        die("usage: bench_sparse [SITES from 10 to 1024 [ELEMENTS [DROPPED, a tenth at most "
            "[complete]]]]",
            NULL);
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    n_threads = cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : (uint32_t)cores;
    sites = calloc(n_sites, sizeof *sites);
    sum = calloc(n_words, sizeof *sum);
    if (!sites || !sum || dure_sign_generate(&coordinator) || dure_sign_generate(&beacon))
        die("out of memory", NULL);
    for (uint32_t i = 0; i < n_sites; i++) {
        if (dure_sign_generate(&sites[i].key)) die("a key", NULL);
        sites[i].dies = i % 10 == 3 && i / 10 < n_dropped;
    }
    const double before_mb = resident_mb();
    make_config(&choice);
    const size_t config_bytes = begin();
    run_round();
    check_sum();
    report(&choice, config_bytes, before_mb);
    dure_graph_promise(promise, sizeof promise, &choice);
    fprintf(stderr, "%s\n", promise);
    dure_cohorts_promise(promise, sizeof promise, &choice, DURE_MEMBERS_MAX);
    fprintf(stderr, "the other way: %s\n", promise);
    dure_secagg_server_free(&server);
    for (uint32_t i = 0; i < n_sites; i++)
        dure_secagg_client_free(&sites[i].client);
    free(sites);
    free(sum);
    return 0;
}
