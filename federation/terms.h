/* The terms of a federation: everything that is fixed at `dure init`, that the root signs into each
 * invitation, and that a site therefore knows, and can refuse, before it sends anything.
 *
 * The terms hold the whole training plan (rounds, local steps, clip, learning rate), so a site
 * calibrates its own noise for its own budget at join and reserves the plan once. Counts and
 * numbers of the model travel as plain numbers: this layer knows no model.
 *
 * Where whole sites are protected the noise is shared, so it is the terms': every site adds the
 * same share of it, sized for u_min - collusion honest sites (dp/noise_share.h), and so is the
 * delta at which its epsilon is stated by everyone: a site's number of records says nothing of it.
 *
 * Canonical encoding as in common/buf.h; doubles as the 64 bits of IEEE 754, big-endian. Version 1
 * is a federation whose keys are X25519 alone, version 2 one of the hybrid suite; else they are
 * equal. sigma_num and delta are there after the mode of DURE_PRIVACY_CLIENT alone. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "crypto/hash.h"
#include "federation/quantise.h"
#include "proto/config.h"

#include <stdbool.h>
#include <stdint.h>

#define DURE_ENDPOINT_SIZE 256 /* tcp://HOST:PORT */
#define DURE_TERMS_MAX_BYTES 1024

/* Bounds of the fields; generous for models of today, small enough that no later product of two of
 * them overflows 64 bits. The rank's is DURE_LORA_RANK_MAX. */
enum {
    DURE_TERMS_LAYERS_MAX = 4096,
    DURE_TERMS_ROUNDS_MAX = 100000,
    DURE_TERMS_STEPS_MAX = 10000,
    DURE_TERMS_BATCH_MAX = 1 << 20,
    DURE_TERMS_LENGTH_MIN = 8,
    DURE_TERMS_LENGTH_MAX = 1 << 20,
    DURE_TERMS_COLLUSION_MAX = DURE_MEMBERS_MAX - 2,
    DURE_TERMS_LIFETIME_S_MIN = 10,
    DURE_TERMS_LIFETIME_S_MAX = 7 * 24 * 3600,
};
#define DURE_TERMS_ALPHA_MAX 65536.0

/* The base model, by digest and by the numbers the adapter's layout depends on. */
typedef struct dure_base {
    dure_hash digest;      /* SHA-256 of the GGUF file */
    char architecture[32]; /* "llama" */
    uint32_t n_layers, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab, n_context;
} dure_base;

/* The adapter: which matrices, and how many parameters are trained and summed. */
typedef struct dure_layout_terms {
    uint32_t rank;
    double alpha;
    uint32_t targets; /* bit mask of model/lora.h */
    uint32_t first_layer;
    uint64_t seed;     /* of the frozen factor A */
    uint64_t n_active; /* d: parameters of factor B over all adapted matrices */
    uint64_t n_params; /* of both factors */
} dure_layout_terms;

typedef struct dure_training_terms {
    uint32_t rounds;
    uint32_t steps; /* local steps a round; the reserved plan is federation/plan.h's */
    double learning_rate;
    double clip;           /* C: L2 bound of one record's gradient, or of a site's whole update */
    uint32_t grid_bits;    /* G = 2^grid_bits units stand for C (dp/plan.h) */
    uint32_t batch;        /* expected batch proposed to sites; each declares its own */
    uint32_t max_length;   /* tokens of a record, longer ones are cut */
    uint32_t privacy_mode; /* dure_privacy_mode of proto/config.h */
    uint32_t sigma_num;    /* where sites are protected: the sum's noise multiplier, in 1/65536 */
    double delta;          /* where sites are protected: of every epsilon; else 0 */
    uint32_t optimizer;    /* dure_local_optimizer */
    double beta1, beta2, optimizer_epsilon, weight_decay;
    double server_rate; /* the mean update is multiplied by it */
} dure_training_terms;

typedef struct dure_cohort_terms {
    uint32_t min_sites;        /* a round opens with at least this many connected */
    uint32_t collusion;        /* c: sites that may collude with the coordinator */
    uint32_t u_min;            /* fewest sites in a sum; >= dure_members_least(c) */
    uint32_t share_lifetime_s; /* one lifetime of the round's secrets at a site */
    bool post_quantum;         /* ML-KEM-768 joins X25519: every site and the coordinator need it */
} dure_cohort_terms;

typedef struct dure_terms {
    char federation[DURE_NAME_SIZE];
    dure_base base;
    dure_layout_terms layout;
    dure_training_terms training;
    dure_cohort_terms cohort;
    dure_grid grid;
} dure_terms;

/* DURE_ERR_USAGE with a sentence that names the field and its range. */
DURE_MUST_USE dure_err dure_terms_check(const dure_terms *terms, dure_diag *diag);

/* A name: 1..64 letters, digits, '-', '_' or '.', beginning with a letter or digit. */
DURE_MUST_USE dure_err dure_name_check(const char *name, const char *what, dure_diag *diag);

/* The smallest t with 2 t > n + c: what the unmasking of n sites asks for. */
uint32_t dure_terms_threshold(uint32_t n_sites, uint32_t collusion);

void dure_terms_put(dure_buf *out, const dure_terms *terms);
/* Takes and checks. DURE_ERR_PROTO or DURE_ERR_USAGE with a sentence. */
DURE_MUST_USE dure_err dure_terms_take(dure_terms *out, dure_reader *r, dure_diag *diag);
DURE_MUST_USE dure_err dure_terms_hash(dure_hash *out, const dure_terms *terms);
/* What the adapter's layout depends on: the model's numbers, rank, alpha, targets, first layer and
 * seed. It is the configuration's layout_digest. */
DURE_MUST_USE dure_err dure_terms_layout_digest(dure_hash *out, const dure_terms *terms);
