/* The canonical encoding of the round configuration. One list of fields (walk) serves encoding and
 * decoding, so the two cannot drift apart. */
#include "proto/config.h"

#include "proto/neighbours.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WORDS (DURE_ROUND_MEMBERS_MAX / 64)

size_t dure_members_count(const dure_members *set)
{
    size_t n = 0;
    for (size_t i = 0; i < WORDS; i++) {
        n += (size_t)__builtin_popcountll(set->word[i]);
    }
    return n;
}

uint32_t dure_members_least(uint32_t collusion)
{
    return collusion + 2 > DURE_MEMBERS_LEAST ? collusion + 2 : DURE_MEMBERS_LEAST;
}

bool dure_members_equal(const dure_members *a, const dure_members *b)
{
    return dure_members_subset(a, b) && dure_members_subset(b, a);
}

bool dure_members_subset(const dure_members *a, const dure_members *b)
{
    uint64_t outside = 0;
    for (size_t i = 0; i < WORDS; i++) {
        outside |= a->word[i] & ~b->word[i];
    }
    return outside == 0;
}

dure_members dure_members_minus(const dure_members *a, const dure_members *b)
{
    dure_members set;
    for (size_t i = 0; i < WORDS; i++) {
        set.word[i] = a->word[i] & ~b->word[i];
    }
    return set;
}

dure_members dure_members_both(const dure_members *a, const dure_members *b)
{
    dure_members set;
    for (size_t i = 0; i < WORDS; i++) {
        set.word[i] = a->word[i] & b->word[i];
    }
    return set;
}

dure_members dure_members_first(size_t n)
{
    dure_members set = {{0}};
    for (size_t i = 0; i < n; i++) {
        dure_members_add(&set, i);
    }
    return set;
}

size_t dure_members_rank(const dure_members *set, size_t i)
{
    size_t n = 0, whole = i / 64 < WORDS ? i / 64 : WORDS;
    for (size_t w = 0; w < whole; w++) {
        n += (size_t)__builtin_popcountll(set->word[w]);
    }
    if (whole == WORDS) return n;
    return n + (size_t)__builtin_popcountll(set->word[whole] & ((UINT64_C(1) << i % 64) - 1));
}

dure_span dure_members_put(uint8_t out[DURE_MEMBERS_BYTES_MAX], const dure_members *set, size_t n)
{
    memset(out, 0, DURE_MEMBERS_BYTES_MAX);
    for (size_t i = 0; i < n; i++) {
        if (dure_members_has(set, i)) out[i / 8] |= (uint8_t)(1u << i % 8);
    }
    return (dure_span){out, (n + 7) / 8};
}

dure_err dure_members_take(dure_members *out, dure_span bytes, size_t n)
{
    *out = (dure_members){{0}};
    if (bytes.n != (n + 7) / 8 || n > DURE_ROUND_MEMBERS_MAX) return DURE_ERR_PROTO;
    for (size_t i = 0; i < bytes.n * 8; i++) {
        if (!(bytes.data[i / 8] >> i % 8 & 1)) continue;
        if (i >= n) return DURE_ERR_PROTO;
        dure_members_add(out, i);
    }
    return DURE_OK;
}

/* Either direction of the encoding; exactly one of the two is set. */
typedef struct codec {
    dure_buf *out;
    dure_reader *in;
    dure_err err; /* first failure of a take */
} codec;

static void walk_u32(codec *c, uint32_t *value)
{
    if (c->err) return;
    if (c->out) {
        dure_put_u32(c->out, *value);
    } else {
        c->err = dure_take_u32(value, c->in);
    }
}

static void walk_u64(codec *c, uint64_t *value)
{
    if (c->err) return;
    if (c->out) {
        dure_put_u64(c->out, *value);
    } else {
        c->err = dure_take_u64(value, c->in);
    }
}

/* The 64 bits of IEEE 754. The check that follows refuses what is not finite; minus zero, which
 * would be a second encoding of an equal value, is refused there too. */
static void walk_double(codec *c, double *value)
{
    if (c->err) return;
    if (c->out) {
        dure_put_f64(c->out, *value);
    } else {
        c->err = dure_take_f64(value, c->in);
    }
}

static void walk_raw(codec *c, uint8_t *bytes, size_t n)
{
    if (c->err) return;
    if (c->out) {
        dure_put_raw(c->out, bytes, n);
    } else {
        c->err = dure_take_copy(bytes, c->in, n);
    }
}

static void walk_name(codec *c, char text[DURE_NAME_SIZE])
{
    if (c->err) return;
    if (c->out) {
        dure_put_text(c->out, text);
    } else {
        c->err = dure_take_text(text, DURE_NAME_SIZE, c->in);
    }
}

static void walk_member(codec *c, dure_member *m)
{
    walk_name(c, m->name);
    walk_name(c, m->organisation);
    walk_raw(c, m->sign_public, sizeof m->sign_public);
    walk_raw(c, m->curve_public, sizeof m->curve_public);
    walk_u64(c, &m->n_pub);
    walk_u64(c, &m->q_k);
    walk_u32(c, &m->batch);
    walk_u32(c, &m->sigma_num);
    walk_u32(c, &m->sigma_den);
}

static void walk_head(codec *c, dure_config *f)
{
    walk_u32(c, &f->suite);
    walk_raw(c, f->federation_id, sizeof f->federation_id);
    walk_u64(c, &f->run_id);
    walk_u64(c, &f->round);
    walk_raw(c, f->previous_t3, sizeof f->previous_t3);
    walk_raw(c, f->roster_hash, sizeof f->roster_hash);
    walk_u64(c, &f->roster_size);
    walk_u32(c, &f->n_members);
    if (!c->err && f->n_members > DURE_ROUND_MEMBERS_MAX) c->err = DURE_ERR_LIMIT;
    for (uint32_t i = 0; !c->err && i < f->n_members; i++) {
        walk_member(c, &f->members[i]);
    }
}

static void walk_body(codec *c, dure_config *f)
{
    walk_u32(c, &f->threshold);
    walk_u32(c, &f->u_min);
    walk_u32(c, &f->collusion);
    walk_u32(c, &f->n_words);
    walk_u32(c, &f->word_bits);
    walk_u32(c, &f->chunk_words);
    walk_u32(c, &f->q_max);
    walk_double(c, &f->range);
    walk_u64(c, &f->share_lifetime_ms);
    walk_u32(c, &f->privacy_mode);
    walk_double(c, &f->clip);
    walk_u32(c, &f->grid_bits);
    walk_u32(c, &f->rounds);
    walk_u32(c, &f->local_steps);
    walk_raw(c, f->base_digest, sizeof f->base_digest);
    walk_raw(c, f->adapter_digest, sizeof f->adapter_digest);
    walk_raw(c, f->layout_digest, sizeof f->layout_digest);
    walk_u32(c, &f->method);
    walk_u32(c, &f->rank);
    walk_double(c, &f->alpha);
    walk_u32(c, &f->targets);
    walk_u32(c, &f->first_layer);
    walk_u64(c, &f->init_seed);
    walk_u32(c, &f->max_length);
    walk_u32(c, &f->optimizer);
    walk_double(c, &f->learning_rate);
    walk_double(c, &f->beta1);
    walk_double(c, &f->beta2);
    walk_double(c, &f->optimizer_epsilon);
    walk_double(c, &f->weight_decay);
    walk_double(c, &f->server_rate);
    walk_u64(c, &f->checkpoint_size);
    walk_raw(c, f->checkpoint_root, sizeof f->checkpoint_root);
}

static void walk_graph(codec *c, dure_config *f)
{
    walk_u32(c, &f->neighbours);
    walk_raw(c, f->beacon_public, sizeof f->beacon_public);
    walk_u64(c, &f->beacon_index);
}

static dure_err wrong(dure_diag *diag, const char *what)
{
    return dure_diag_set(diag, DURE_ERR_PROTO, "the round configuration is not valid: %s", what);
}

/* A printable, non-empty name: it is shown to people and sorted by its bytes. */
static bool name_ok(const char *name)
{
    if (!name[0]) return false;
    for (const char *p = name; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) return false;
    }
    return true;
}

static dure_err check_member(const dure_config *f, uint32_t i, dure_diag *diag)
{
    const dure_member *m = &f->members[i];
    if (!memchr(m->name, 0, DURE_NAME_SIZE) || !memchr(m->organisation, 0, DURE_NAME_SIZE) ||
        !name_ok(m->name) || !name_ok(m->organisation)) {
        return wrong(diag, "a member's name is empty or not printable");
    }
    if (i > 0 && strcmp(f->members[i - 1].name, m->name) >= 0) {
        return wrong(diag, "the members are not in strictly ascending order of their names");
    }
    for (uint32_t j = 0; j < i; j++) {
        if (memcmp(f->members[j].sign_public, m->sign_public, DURE_KEY_BYTES) == 0 ||
            memcmp(f->members[j].curve_public, m->curve_public, DURE_KEY_BYTES) == 0) {
            return wrong(diag, "two members have the same key");
        }
    }
    if (m->n_pub == 0 || m->batch == 0) return wrong(diag, "a member's records or batch is 0");
    if (m->sigma_den == 0) return wrong(diag, "a member's noise multiplier has the denominator 0");
    bool noised = m->sigma_num > 0;
    if (noised != (f->privacy_mode != DURE_PRIVACY_NONE)) {
        return wrong(diag, "a member's noise multiplier does not fit the privacy mode");
    }
    if (f->privacy_mode == DURE_PRIVACY_CLIENT &&
        (m->sigma_num != f->members[0].sigma_num || m->sigma_den != f->members[0].sigma_den)) {
        return wrong(diag, "shared noise is not the same for all members");
    }
    return DURE_OK;
}

static dure_err check_sum(const dure_config *f, dure_diag *diag)
{
    uint32_t n = f->n_members;
    if (f->suite != DURE_SUITE_X25519_AES256CTR && f->suite != DURE_SUITE_HYBRID_AES256CTR) {
        return wrong(diag, "the suite is unknown");
    }
    if (f->collusion >= n) return wrong(diag, "collusion is not below the number of members");
    if (f->u_min < dure_members_least(f->collusion) || f->u_min > n) {
        return wrong(diag, "u_min must be at least max(3, collusion + 2) and at most the members");
    }
    if (f->word_bits != 24 && f->word_bits != 32) return wrong(diag, "word_bits is not 24 or 32");
    if (f->n_words == 0 || f->n_words > DURE_VECTOR_WORDS_MAX) {
        return wrong(diag, "the vector's length is out of range");
    }
    if (f->chunk_words == 0 || f->chunk_words % 16 || f->chunk_words > DURE_CHUNK_WORDS_MAX) {
        return wrong(diag, "chunk_words is not a multiple of 16 up to 65536");
    }
    if (f->q_max == 0 || (uint64_t)n * f->q_max >= UINT64_C(1) << (f->word_bits - 1)) {
        return wrong(diag, "members * q_max does not fit in a word");
    }
    if (f->share_lifetime_ms == 0) return wrong(diag, "the share lifetime is 0");
    return DURE_OK;
}

/* The beacon's key belongs to nobody else, and is there on a sparse graph alone. */
static dure_err check_beacon(const dure_config *f, dure_diag *diag)
{
    static const uint8_t none[DURE_KEY_BYTES];
    const bool named = memcmp(f->beacon_public, none, sizeof none) != 0 || f->beacon_index != 0;
    if (!f->neighbours) {
        return named ? wrong(diag, "a beacon is for sparse graphs only") : DURE_OK;
    }
    if (!named) return wrong(diag, "a sparse graph needs a beacon");
    for (uint32_t i = 0; i < f->n_members; i++) {
        if (memcmp(f->members[i].sign_public, f->beacon_public, DURE_KEY_BYTES) == 0)
            return wrong(diag, "the beacon is a member");
    }
    return DURE_OK;
}

static dure_err check_graph(const dure_config *f, dure_diag *diag)
{
    const uint32_t n = f->n_members;
    const uint32_t near_max =
        f->suite == DURE_SUITE_HYBRID_AES256CTR ? DURE_NEAR_HYBRID_MAX : DURE_NEAR_MAX;
    if (!f->neighbours && n > DURE_MEMBERS_MAX) {
        return wrong(diag, "more than 100 members need a sparse graph");
    }
    if (f->neighbours && (f->neighbours + 1 >= n || f->neighbours + 1 > near_max)) {
        return wrong(diag, "the neighbours are all the others, or more than messages can carry");
    }
    dure_err err = check_beacon(f, diag);
    if (err) return err;
    const dure_graph_choice choice = {.n = n,
                                      .c = f->collusion,
                                      .dropouts = n - f->u_min,
                                      .k = dure_config_degree(f),
                                      .t = f->threshold};
    dure_diag why = {0};
    if (dure_graph_check(&choice, &why)) return wrong(diag, why.text);
    return DURE_OK;
}

static bool positive(double x)
{
    return isfinite(x) && x > 0;
}

/* Finite, and not minus zero, so that equal values have equal encodings. */
static bool non_negative(double x)
{
    return isfinite(x) && x >= 0 && !signbit(x);
}

static dure_err check_training(const dure_config *f, dure_diag *diag)
{
    if (f->privacy_mode < DURE_PRIVACY_RECORD || f->privacy_mode > DURE_PRIVACY_SUBJECT) {
        return wrong(diag, "the privacy mode is unknown");
    }
    if (!positive(f->range) || !positive(f->clip))
        return wrong(diag, "range or clip is not positive");
    if (f->grid_bits < 14 || f->grid_bits > 40) return wrong(diag, "grid_bits is not 14 .. 40");
    if (f->rounds == 0 || f->local_steps == 0) return wrong(diag, "rounds or local_steps is 0");
    if ((uint64_t)f->rounds * f->local_steps > UINT32_MAX) return wrong(diag, "too many steps");
    if (f->method != DURE_METHOD_FFA) return wrong(diag, "the method is unknown");
    if (f->optimizer < DURE_LOCAL_ADAMW || f->optimizer > DURE_LOCAL_SGD) {
        return wrong(diag, "the optimizer is unknown");
    }
    if (f->rank == 0 || f->targets == 0 || f->max_length == 0 || !positive(f->alpha)) {
        return wrong(diag, "rank, targets, alpha or max_length is 0");
    }
    if (!positive(f->learning_rate) || !positive(f->server_rate) ||
        !positive(f->optimizer_epsilon) || !non_negative(f->weight_decay) ||
        !non_negative(f->beta1) || !non_negative(f->beta2) || f->beta1 >= 1 || f->beta2 >= 1) {
        return wrong(diag, "a constant of the optimizer is out of range");
    }
    return DURE_OK;
}

dure_err dure_config_check(const dure_config *config, dure_diag *diag)
{
    if (config->n_members < DURE_MEMBERS_LEAST || config->n_members > DURE_ROUND_MEMBERS_MAX) {
        return wrong(diag, "the number of members is not 3 .. 1024");
    }
    if (config->round == 0) return wrong(diag, "rounds are counted from 1");
    dure_err err = check_sum(config, diag);
    if (!err) err = check_graph(config, diag);
    if (!err) err = check_training(config, diag);
    for (uint32_t i = 0; !err && i < config->n_members; i++) {
        err = check_member(config, i, diag);
    }
    return err;
}

dure_err dure_config_encode(dure_buf *out, const dure_config *config, dure_diag *diag)
{
    dure_err err = dure_config_check(config, diag);
    if (err) return err;
    /* The walk writes through its pointers only when it decodes; it works on a copy all the same,
     * so that the caller's configuration stays const in truth. */
    dure_config *copy = malloc(sizeof *copy);
    if (!copy) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    *copy = *config;
    codec c = {.out = out};
    dure_put_u32(out, copy->neighbours ? DURE_CONFIG_VERSION_SPARSE : DURE_CONFIG_VERSION);
    walk_head(&c, copy);
    walk_body(&c, copy);
    if (copy->neighbours) walk_graph(&c, copy);
    free(copy);
    err = c.err ? c.err : dure_buf_err(out);
    if (err) return dure_diag_set(diag, err, "the round configuration cannot be encoded");
    return DURE_OK;
}

dure_err dure_config_decode(dure_config **out, dure_span bytes, dure_diag *diag)
{
    *out = NULL;
    if (bytes.n > DURE_CONFIG_BYTES_MAX) {
        return dure_diag_set(diag, DURE_ERR_LIMIT, "the round configuration has %zu bytes, over %u",
                             bytes.n, DURE_CONFIG_BYTES_MAX);
    }
    dure_config *config = calloc(1, sizeof *config);
    if (!config) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    dure_reader reader = dure_reader_of(bytes);
    codec c = {.in = &reader};
    uint32_t version = 0;
    walk_u32(&c, &version);
    dure_err err = c.err;
    if (!err && version != DURE_CONFIG_VERSION && version != DURE_CONFIG_VERSION_SPARSE) {
        err = dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                            "the round configuration has version %u, this program speaks %u and %u",
                            version, DURE_CONFIG_VERSION, DURE_CONFIG_VERSION_SPARSE);
        goto out;
    }
    walk_head(&c, config);
    walk_body(&c, config);
    if (version == DURE_CONFIG_VERSION_SPARSE) walk_graph(&c, config);
    err = c.err;
    /* A complete graph has the one version. */
    if (!err && version == DURE_CONFIG_VERSION_SPARSE && !config->neighbours) err = DURE_ERR_PROTO;
    if (!err) err = dure_reader_end(&reader);
    if (err) {
        dure_diag_set(diag, err, "the round configuration is cut off, too long or malformed");
        goto out;
    }
    err = dure_config_check(config, diag);
    if (err) goto out;
    *out = config;
    config = NULL;
out:
    free(config);
    return err;
}

void dure_config_free(dure_config **config)
{
    if (!config) return;
    free(*config);
    *config = NULL;
}

dure_err dure_config_find(uint32_t *index, const dure_config *config,
                          const uint8_t sign_public[DURE_KEY_BYTES])
{
    *index = 0;
    for (uint32_t i = 0; i < config->n_members; i++) {
        if (memcmp(config->members[i].sign_public, sign_public, DURE_KEY_BYTES) == 0) {
            *index = i;
            return DURE_OK;
        }
    }
    return DURE_ERR_NOT_FOUND;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

size_t dure_config_organisations(const dure_config *config, const dure_members *set)
{
    const char *names[DURE_ROUND_MEMBERS_MAX];
    size_t n = 0, distinct = 0;
    for (uint32_t i = 0; i < config->n_members; i++) {
        if (dure_members_has(set, i)) names[n++] = config->members[i].organisation;
    }
    qsort(names, n, sizeof *names, by_text);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(names[i - 1], names[i]) != 0) distinct++;
    }
    return distinct;
}

uint32_t dure_config_degree(const dure_config *config)
{
    return config->neighbours ? config->neighbours : config->n_members - 1;
}

size_t dure_config_vector_bytes(const dure_config *config)
{
    return (size_t)config->n_words * (config->word_bits / 8);
}

uint32_t dure_config_chunks(const dure_config *config)
{
    return (config->n_words - 1) / config->chunk_words + 1;
}

size_t dure_config_chunk_bytes(const dure_config *config, uint32_t i)
{
    uint64_t first = (uint64_t)i * config->chunk_words;
    if (first >= config->n_words) return 0;
    uint64_t n = config->n_words - first;
    if (n > config->chunk_words) n = config->chunk_words;
    return (size_t)n * (config->word_bits / 8);
}
