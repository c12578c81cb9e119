/* The canonical encoding of the round configuration. One list of fields (walk) serves encoding and
 * decoding, so the two cannot drift apart. */
#include "proto/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t dure_members_count(const dure_members *set)
{
    return (size_t)__builtin_popcountll(set->word[0]) + (size_t)__builtin_popcountll(set->word[1]);
}

bool dure_members_equal(const dure_members *a, const dure_members *b)
{
    return a->word[0] == b->word[0] && a->word[1] == b->word[1];
}

bool dure_members_subset(const dure_members *a, const dure_members *b)
{
    return (a->word[0] & ~b->word[0]) == 0 && (a->word[1] & ~b->word[1]) == 0;
}

dure_members dure_members_minus(const dure_members *a, const dure_members *b)
{
    return (dure_members){{a->word[0] & ~b->word[0], a->word[1] & ~b->word[1]}};
}

dure_members dure_members_first(size_t n)
{
    dure_members set = {{0}};
    for (size_t i = 0; i < n; i++) {
        dure_members_add(&set, i);
    }
    return set;
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
    uint64_t bits = 0;
    if (c->out) memcpy(&bits, value, sizeof bits);
    walk_u64(c, &bits);
    if (!c->out) memcpy(value, &bits, sizeof bits);
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
    if (!c->err && f->n_members > DURE_MEMBERS_MAX) c->err = DURE_ERR_LIMIT;
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
    if (f->threshold > n || 2 * f->threshold <= n + f->collusion) {
        return wrong(diag,
                     "the threshold t must satisfy 2 t > members + collusion and t <= members");
    }
    uint32_t least = f->collusion + 2 > DURE_MEMBERS_LEAST ? f->collusion + 2 : DURE_MEMBERS_LEAST;
    if (f->u_min < least || f->u_min > n) {
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
    if (config->n_members < DURE_MEMBERS_LEAST || config->n_members > DURE_MEMBERS_MAX) {
        return wrong(diag, "the number of members is not 3 .. 100");
    }
    if (config->round == 0) return wrong(diag, "rounds are counted from 1");
    dure_err err = check_sum(config, diag);
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
    dure_put_u32(out, DURE_CONFIG_VERSION);
    walk_head(&c, copy);
    walk_body(&c, copy);
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
    if (!err && version != DURE_CONFIG_VERSION) {
        err = dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                            "the round configuration has version %u, this program speaks %u",
                            version, DURE_CONFIG_VERSION);
        goto out;
    }
    walk_head(&c, config);
    walk_body(&c, config);
    err = c.err;
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

size_t dure_config_organisations(const dure_config *config, const dure_members *set)
{
    size_t n = 0;
    for (uint32_t i = 0; i < config->n_members; i++) {
        if (!dure_members_has(set, i)) continue;
        uint32_t j = 0;
        while (j < i && !(dure_members_has(set, j) && strcmp(config->members[j].organisation,
                                                             config->members[i].organisation) == 0))
            j++;
        if (j == i) n++;
    }
    return n;
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
