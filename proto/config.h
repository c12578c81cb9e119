/* The round configuration C: everything about one round that all its parties must agree on.
 *
 * The coordinator makes and signs it, each site checks it against its own policy, and its hash
 * (over the canonical encoding below) enters every key, signature and mask of the round: two
 * parties with different configurations derive masks that do not cancel, so a lie yields noise.
 *
 * The encoding has exactly one form: fixed field order, fixed widths, big-endian, strictly
 * ascending members, and nothing after the last field. Protobuf carries it as opaque bytes.
 *
 * H_C = dure_hash_labeled("DURE/1/config", encoding); the caller computes it (crypto/hash.h). */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DURE_CONFIG_VERSION 1        /* complete graph */
#define DURE_CONFIG_VERSION_SPARSE 2 /* with neighbours, beacon_public, beacon_index at its end */
/* Of a federation, and of a round on the complete graph: n * Q < 2^23 for the packed 24-bit words
 * with Q = 65536. */
#define DURE_MEMBERS_MAX 100
#define DURE_ROUND_MEMBERS_MAX 1024 /* of a round on a sparse graph */
#define DURE_NEAR_MAX 145           /* a member and its neighbours, on any graph */
#define DURE_NEAR_HYBRID_MAX 100    /* the same in the hybrid suite, whose messages are long */
#define DURE_MEMBERS_LEAST 3        /* below it a sum gives single updates away */
#define DURE_NAME_SIZE 65           /* a site's or organisation's name, final NUL included */
#define DURE_KEY_BYTES 32           /* X25519, Ed25519 and CURVE public keys */
#define DURE_DIGEST_BYTES 32        /* SHA-256 */
#define DURE_SIGNATURE_BYTES 64
#define DURE_CONFIG_BYTES_MAX (256u * 1024)
#define DURE_VECTOR_WORDS_MAX (1u << 30)
#define DURE_CHUNK_WORDS_MAX 65536u /* 256 KiB at 32 bits: one raw frame */

/* A subset of the members of one round: bit i is member i of the configuration. */
typedef struct dure_members {
    uint64_t word[DURE_ROUND_MEMBERS_MAX / 64];
} dure_members;

static inline bool dure_members_has(const dure_members *set, size_t i)
{
    return i < DURE_ROUND_MEMBERS_MAX && (set->word[i / 64] >> (i % 64) & 1) != 0;
}
static inline void dure_members_add(dure_members *set, size_t i)
{
    if (i < DURE_ROUND_MEMBERS_MAX) set->word[i / 64] |= UINT64_C(1) << (i % 64);
}
size_t dure_members_count(const dure_members *set);
/* The fewest in a sum beside c that collude with the coordinator: max(DURE_MEMBERS_LEAST, c + 2),
 * so that what the others' sum leaves is never one update alone. */
uint32_t dure_members_least(uint32_t collusion);
bool dure_members_equal(const dure_members *a, const dure_members *b);
/* True when every member of `a` is in `b`. */
bool dure_members_subset(const dure_members *a, const dure_members *b);
/* The members of `a` that are not in `b`. */
dure_members dure_members_minus(const dure_members *a, const dure_members *b);
/* The members of both. */
dure_members dure_members_both(const dure_members *a, const dure_members *b);
/* {0 .. n-1} */
dure_members dure_members_first(size_t n);
/* How many members of the set are below i. */
size_t dure_members_rank(const dure_members *set, size_t i);

/* A set of n members as it travels: (n + 7) / 8 bytes, member i the bit i % 8 of byte i / 8. */
#define DURE_MEMBERS_BYTES_MAX (DURE_ROUND_MEMBERS_MAX / 8)
dure_span dure_members_put(uint8_t out[DURE_MEMBERS_BYTES_MAX], const dure_members *set, size_t n);
/* DURE_ERR_PROTO for another length, or a bit that is no member's. */
DURE_MUST_USE dure_err dure_members_take(dure_members *out, dure_span bytes, size_t n);

/* A site as the log and the cosignatures of its checkpoints name it. */
typedef struct dure_site_key {
    char name[DURE_NAME_SIZE];
    uint8_t sign_public[DURE_KEY_BYTES]; /* Ed25519 */
} dure_site_key;

/* One site as it takes part, with the public constants it declared when it joined. */
typedef struct dure_member {
    char name[DURE_NAME_SIZE]; /* members are sorted by it, each once */
    char organisation[DURE_NAME_SIZE];
    uint8_t sign_public[DURE_KEY_BYTES];  /* Ed25519 */
    uint8_t curve_public[DURE_KEY_BYTES]; /* the transport's */
    uint64_t n_pub;                       /* records, as declared: never counted from the data */
    uint64_t q_k;       /* a record is sampled with probability q_k / 2^64; 0: always */
    uint32_t batch;     /* L = q * n_pub, the divisor of a summed gradient */
    uint32_t sigma_num; /* noise multiplier = sigma_num / sigma_den; 0 / 1 without privacy */
    uint32_t sigma_den;
} dure_member;

typedef enum dure_suite {
    DURE_SUITE_X25519_AES256CTR = 1, /* complete graph, double masking, AES-256-CTR masks */
    DURE_SUITE_HYBRID_AES256CTR = 2, /* the same with ML-KEM-768 beside X25519 */
} dure_suite;

typedef enum dure_privacy_mode {
    DURE_PRIVACY_RECORD = 1, /* record level, full noise at every site (the default) */
    DURE_PRIVACY_CLIENT = 2, /* client level, distributed noise */
    DURE_PRIVACY_NONE = 3,
    DURE_PRIVACY_SUBJECT = 4, /* as record level, of subjects with all their records */
} dure_privacy_mode;

typedef enum dure_method {
    DURE_METHOD_FFA = 1, /* factor A frozen, factor B trained and summed */
} dure_method;

typedef enum dure_local_optimizer {
    DURE_LOCAL_ADAMW = 1,
    DURE_LOCAL_SGD = 2,
} dure_local_optimizer;

typedef struct dure_config {
    uint32_t suite;                           /* dure_suite */
    uint8_t federation_id[DURE_DIGEST_BYTES]; /* hash of the root's public key and name */
    uint64_t run_id;
    uint64_t round;                         /* grows by at least one in every configuration */
    uint8_t previous_t3[DURE_DIGEST_BYTES]; /* of the last completed round; zero if none */
    uint8_t roster_hash[DURE_DIGEST_BYTES];
    uint64_t roster_size; /* entries in that version of the roster */

    uint32_t n_members; /* |U0| */
    dure_member members[DURE_ROUND_MEMBERS_MAX];

    /* The secure sum. */
    uint32_t threshold;         /* t: of the holders of a member's shares (proto/neighbours.h) */
    uint32_t u_min;             /* least survivors, >= max(3, collusion + 2) */
    uint32_t collusion;         /* c: colluding sites the round withstands */
    uint32_t n_words;           /* L: length of the vector */
    uint32_t word_bits;         /* b: 24 (packed) or 32 */
    uint32_t chunk_words;       /* words in every chunk but the last; a multiple of 16 */
    uint32_t q_max;             /* Q: an entry is an integer in [-Q, Q] */
    double range;               /* entry = round(delta / range * Q) */
    uint64_t share_lifetime_ms; /* on each site's monotonic clock, from its first R1 */

    /* Privacy: with the members' q, sigma and batch this is the whole plan. */
    uint32_t privacy_mode; /* dure_privacy_mode */
    double clip;           /* C */
    uint32_t grid_bits;    /* G = 2^grid_bits */
    uint32_t rounds;       /* planned rounds of the run */
    uint32_t local_steps;  /* steps of one round; the plan has rounds * local_steps */

    /* Model and method. */
    uint8_t base_digest[DURE_DIGEST_BYTES];    /* SHA-256 of the base model's file */
    uint8_t adapter_digest[DURE_DIGEST_BYTES]; /* of the global adapter the round starts from */
    uint8_t layout_digest[DURE_DIGEST_BYTES];
    uint32_t method; /* dure_method */
    uint32_t rank;
    double alpha;
    uint32_t targets; /* bit mask of adapted matrices, as in model/lora.h */
    uint32_t first_layer;
    uint64_t init_seed;  /* factor A is a public function of it */
    uint32_t max_length; /* tokens of one record */
    uint32_t optimizer;  /* dure_local_optimizer */
    double learning_rate;
    double beta1, beta2, optimizer_epsilon, weight_decay;
    double server_rate; /* the mean delta is multiplied by it */

    /* The federation's log, as the coordinator sees it when it opens the round. */
    uint64_t checkpoint_size;
    uint8_t checkpoint_root[DURE_DIGEST_BYTES];

    /* The graph of shares and masks. 0 neighbours: all others, and the two below are zero. Else
     * the order of the ring follows from what the beacon signs for that index (secagg/graph.h). */
    uint32_t neighbours;
    uint8_t beacon_public[DURE_KEY_BYTES]; /* Ed25519; neither a site's nor the coordinator's */
    uint64_t beacon_index;                 /* not yet signed when the round opens */
} dure_config;

/* k: 0 neighbours are n_members - 1. */
uint32_t dure_config_degree(const dure_config *config);

/* Every rule that can be checked from C alone: counts and ranges, members strictly ascending with
 * distinct keys, k and t (2t > n + c on the complete graph, dure_graph_check() on a sparse one),
 * u_min, n * Q < 2^(word_bits - 1), finite positive reals.
 * DURE_ERR_PROTO with a sentence that names the field. */
DURE_MUST_USE dure_err dure_config_check(const dure_config *config, dure_diag *diag);

/* Appends the canonical encoding to `out`. The configuration must satisfy dure_config_check(). */
DURE_MUST_USE dure_err dure_config_encode(dure_buf *out, const dure_config *config,
                                          dure_diag *diag);

/* Strict: exactly one encoding is accepted, and only of a configuration that passes the check.
 * The caller owns *out, dure_config_free(&config); NULL on error. */
DURE_MUST_USE dure_err dure_config_decode(dure_config **out, dure_span bytes, dure_diag *diag);
void dure_config_free(dure_config **config);

/* Index of the member with this signing key; DURE_ERR_NOT_FOUND (and *index = 0) if none. */
DURE_MUST_USE dure_err dure_config_find(uint32_t *index, const dure_config *config,
                                        const uint8_t sign_public[DURE_KEY_BYTES]);
/* Distinct organisations among the members of `set`. */
size_t dure_config_organisations(const dure_config *config, const dure_members *set);
/* Bytes of the masked vector on the wire, and number of its chunks. */
size_t dure_config_vector_bytes(const dure_config *config);
uint32_t dure_config_chunks(const dure_config *config);
/* Bytes of chunk `i`; 0 past the last. */
size_t dure_config_chunk_bytes(const dure_config *config, uint32_t i);
