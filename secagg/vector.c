#include "secagg/vector.h"

#include <stdlib.h>

dure_err dure_vector_tree_add(dure_vector_tree *tree, const dure_config *config, dure_span chunk)
{
    uint64_t i = tree->frontier.n;
    if (i >= dure_config_chunks(config)) return DURE_ERR_PROTO;
    if (chunk.n != dure_config_chunk_bytes(config, (uint32_t)i)) return DURE_ERR_PROTO;
    dure_hash leaf;
    dure_err err = dure_merkle_leaf(&leaf, chunk);
    if (err) return err;
    dure_merkle_frontier before = tree->frontier;
    err = dure_merkle_frontier_add(&tree->frontier, &leaf);
    if (err) tree->frontier = before;
    return err;
}

dure_err dure_vector_tree_root(dure_hash *root, const dure_vector_tree *tree,
                               const dure_config *config)
{
    *root = (dure_hash){{0}};
    if (tree->frontier.n != dure_config_chunks(config)) return DURE_ERR_STATE;
    return dure_merkle_frontier_root(root, &tree->frontier);
}

size_t dure_vector_chunk_words(const dure_config *config, uint32_t chunk)
{
    return dure_config_chunk_bytes(config, chunk) / (config->word_bits / 8);
}

void dure_vector_add_packed(uint32_t *sum, dure_span chunk, const dure_config *config)
{
    dure_mask_add_packed(sum, chunk.data, chunk.n / (config->word_bits / 8), config->word_bits);
}

struct dure_masks {
    const dure_config *config;
    dure_mask_term *terms; /* streams owned */
    size_t n, capacity;
};

dure_err dure_masks_new(dure_masks **out, const dure_config *config, size_t n_streams_max)
{
    *out = calloc(1, sizeof **out);
    if (!*out) return DURE_ERR_NOMEM;
    (*out)->config = config;
    (*out)->capacity = n_streams_max;
    (*out)->terms = calloc(n_streams_max ? n_streams_max : 1, sizeof *(*out)->terms);
    if (!(*out)->terms) {
        dure_masks_free(out);
        return DURE_ERR_NOMEM;
    }
    return DURE_OK;
}

void dure_masks_free(dure_masks **masks)
{
    if (!masks || !*masks) return;
    for (size_t i = 0; i < (*masks)->n; i++) {
        dure_mask_stream_free(&(*masks)->terms[i].stream);
    }
    free((*masks)->terms);
    free(*masks);
    *masks = NULL;
}

dure_err dure_masks_add(dure_masks *masks, const uint8_t key[DURE_MASK_KEY_BYTES], bool subtract)
{
    if (masks->n == masks->capacity) return DURE_ERR_LIMIT;
    dure_mask_stream *stream = NULL;
    dure_err err = dure_mask_stream_new(&stream, key);
    if (err) return err;
    masks->terms[masks->n++] = (dure_mask_term){stream, subtract};
    return DURE_OK;
}

dure_err dure_masks_copy(dure_masks **out, const dure_masks *masks)
{
    dure_err err = dure_masks_new(out, masks->config, masks->capacity);
    for (size_t i = 0; !err && i < masks->n; i++) {
        dure_mask_term *term = &(*out)->terms[i];
        err = dure_mask_stream_copy(&term->stream, masks->terms[i].stream);
        if (err) break;
        term->subtract = masks->terms[i].subtract;
        (*out)->n++;
    }
    if (err) dure_masks_free(out);
    return err;
}

dure_err dure_masks_apply(uint32_t *words, dure_masks *masks, uint32_t chunk)
{
    size_t n = dure_vector_chunk_words(masks->config, chunk);
    if (n == 0) return DURE_ERR_USAGE;
    dure_mask_range range = {(uint64_t)chunk * masks->config->chunk_words, n,
                             masks->config->word_bits};
    return dure_mask_apply(words, &range, masks->terms, masks->n);
}
