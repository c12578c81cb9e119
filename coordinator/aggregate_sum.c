/* The sum, chunk by chunk, on all cores: a thread takes every n-th chunk of the running sum with
 * streams of its own and takes the masks off. Where the running sum holds what U3 does not, it
 * first reads the chunk from each spool of U3, compares it with the leaf that it had when it came,
 * and adds those instead. */
#include "coordinator/aggregate_int.h"

#include "kernels/threads.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* One thread's part. */
typedef struct part {
    dure_masks *masks; /* owned */
    uint8_t *block;    /* owned: one member's chunk */
    dure_err err;
    dure_diag diag;
} part;

typedef struct summing {
    const dure_aggregate *aggregate;
    const dure_members *u3;
    bool again; /* from the spools */
    uint32_t n_parts;
    part *parts;
} summing;

/* Direct reads would have to be aligned, as the writes were. */
static void read_by_page_cache(const aggregate_spool *s)
{
    (void)fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) & ~O_DIRECT);
}

/* Adds one member's chunk to the words. DURE_ERR_AUTH: it is not what came from the site. */
static dure_err add_chunk(uint32_t *words, part *p, const dure_aggregate *a, uint32_t member,
                          uint32_t chunk)
{
    dure_span bytes;
    dure_hash leaf;
    dure_err err = aggregate_read_chunk(&bytes, p->block, a, member, chunk, &p->diag);
    if (!err) err = dure_merkle_leaf(&leaf, bytes);
    if (err == DURE_ERR_NOT_FOUND ||
        (!err && !dure_hash_equal(&leaf, &a->spools[member].leaves[chunk])))
        return dure_diag_set(&p->diag, DURE_ERR_AUTH,
                             "the spooled vector of \"%s\" changed on disk",
                             a->config->members[member].name);
    if (!err) dure_vector_add_packed(words, bytes, a->config);
    return err;
}

static dure_err sum_chunk(const summing *s, part *p, uint32_t chunk)
{
    const dure_aggregate *a = s->aggregate;
    const size_t n = dure_vector_chunk_words(a->config, chunk);
    uint32_t *words = a->words + (size_t)chunk * a->config->chunk_words;
    dure_err err = DURE_OK;
    if (s->again) memset(words, 0, n * sizeof *words);
    for (uint32_t m = 0; s->again && !err && m < a->config->n_members; m++)
        if (dure_members_has(s->u3, m)) err = add_chunk(words, p, a, m, chunk);
    if (!err) err = dure_masks_apply(words, p->masks, chunk);
    if (err) return err;
    /* In place: the same memory, read as the signed type that corresponds. */
    int32_t *to = (int32_t *)words;
    for (size_t i = 0; i < n; i++)
        to[i] = (int32_t)dure_mask_value(words[i], a->config->word_bits);
    return DURE_OK;
}

static void sum_part(void *state, size_t task, void *scratch)
{
    const summing *s = state;
    part *p = &s->parts[task];
    const uint32_t n_chunks = dure_config_chunks(s->aggregate->config);
    (void)scratch;
    for (uint32_t c = (uint32_t)task; !p->err && c < n_chunks; c += s->n_parts)
        p->err = sum_chunk(s, p, c);
}

static dure_err part_init(part *p, const dure_config *config, const dure_masks *masks)
{
    p->block = malloc(dure_config_chunk_bytes(config, 0));
    return p->block ? dure_masks_copy(&p->masks, masks) : DURE_ERR_NOMEM;
}

static void part_fini(part *p)
{
    dure_masks_free(&p->masks);
    free(p->block);
}

static dure_err run(summing *s, const dure_masks *masks, dure_diag *diag)
{
    const dure_config *config = s->aggregate->config;
    dure_pool *pool = NULL;
    dure_err err = dure_pool_new(&pool, 0, 0);
    if (err) return err;
    s->n_parts = dure_pool_threads(pool);
    s->parts = calloc(s->n_parts, sizeof *s->parts);
    if (!s->parts) err = DURE_ERR_NOMEM;
    for (uint32_t i = 0; !err && i < s->n_parts; i++)
        err = part_init(&s->parts[i], config, masks);
    if (!err) dure_pool_run(pool, s->n_parts, sum_part, s);
    dure_pool_free(&pool);
    for (uint32_t i = 0; s->parts && i < s->n_parts; i++) {
        part *p = &s->parts[i];
        if (!err && p->err)
            err = dure_diag_set(diag, p->err, "%s",
                                p->diag.text[0] ? p->diag.text : dure_err_text(p->err));
        part_fini(p);
    }
    free(s->parts);
    return err;
}

dure_err dure_aggregate_sum(int32_t **sum, dure_aggregate *a, const dure_members *u3,
                            const dure_masks *masks, dure_diag *diag)
{
    *sum = NULL;
    for (uint32_t m = 0; m < a->config->n_members; m++)
        if (dure_members_has(u3, m) && !a->spools[m].complete)
            return dure_diag_set(diag, DURE_ERR_STATE, "the vector of \"%s\" is not complete",
                                 a->config->members[m].name);
    if (!a->words) return DURE_ERR_STATE; /* it was taken */
    /* Chunks of members that are not in the sum may still be on their way into it. */
    for (uint32_t m = 0; m < a->config->n_members; m++)
        if (aggregate_ingest_wait(a, m, NULL)) a->spoilt = true;
    const bool again = a->spoilt || !dure_members_equal(&a->added, u3);
    summing s = {.aggregate = a, .u3 = u3, .again = again};
    for (uint32_t m = 0; again && m < a->config->n_members; m++)
        if (dure_members_has(u3, m)) read_by_page_cache(&a->spools[m]);
    dure_err err = run(&s, masks, diag);
    if (err)
        free(a->words);
    else
        *sum = (int32_t *)a->words;
    a->words = NULL;
    return err;
}
