#include "crypto/merkle.h"

#include <string.h>

dure_err dure_merkle_leaf(dure_hash *out, dure_span bytes)
{
    static const uint8_t prefix = 0x00;
    dure_hasher *hasher = NULL;
    *out = (dure_hash){{0}};
    dure_err err = dure_hasher_new(&hasher);
    if (!err) err = dure_hasher_update(hasher, &prefix, 1);
    if (!err) err = dure_hasher_update(hasher, bytes.data, bytes.n);
    if (!err) err = dure_hasher_final(out, hasher);
    dure_hasher_free(&hasher);
    return err;
}

dure_err dure_merkle_node(dure_hash *out, const dure_hash *left, const dure_hash *right)
{
    uint8_t bytes[1 + 2 * DURE_HASH_BYTES];
    bytes[0] = 0x01;
    memcpy(bytes + 1, left->b, DURE_HASH_BYTES);
    memcpy(bytes + 1 + DURE_HASH_BYTES, right->b, DURE_HASH_BYTES);
    return dure_hash_bytes(out, dure_span_of(bytes, sizeof bytes));
}

dure_err dure_merkle_frontier_add_subtree(dure_merkle_frontier *frontier, unsigned level,
                                          const dure_hash *node)
{
    if (level >= 63 || frontier->n & ((UINT64_C(1) << level) - 1)) return DURE_ERR_USAGE;
    dure_hash sum = *node;
    unsigned at = level;
    for (; frontier->n >> at & 1; at++) {
        dure_err err = dure_merkle_node(&sum, &frontier->nodes[at], &sum);
        if (err) return err;
    }
    frontier->nodes[at] = sum;
    frontier->n += UINT64_C(1) << level;
    return DURE_OK;
}

dure_err dure_merkle_frontier_add(dure_merkle_frontier *frontier, const dure_hash *leaf)
{
    return dure_merkle_frontier_add_subtree(frontier, 0, leaf);
}

dure_err dure_merkle_frontier_root(dure_hash *out, const dure_merkle_frontier *frontier)
{
    if (frontier->n == 0) return dure_hash_bytes(out, dure_span_of("", 0));
    bool started = false;
    for (unsigned level = 0; level < 64; level++) {
        if (!(frontier->n >> level & 1)) continue;
        if (!started) {
            *out = frontier->nodes[level];
            started = true;
            continue;
        }
        dure_err err = dure_merkle_node(out, &frontier->nodes[level], out);
        if (err) return err;
    }
    return DURE_OK;
}

dure_err dure_merkle_root(dure_hash *out, const dure_hash *leaves, uint64_t n)
{
    dure_merkle_frontier frontier = {0};
    *out = (dure_hash){{0}};
    for (uint64_t i = 0; i < n; i++) {
        dure_err err = dure_merkle_frontier_add(&frontier, &leaves[i]);
        if (err) return err;
    }
    return dure_merkle_frontier_root(out, &frontier);
}

/* The root of leaves [lo, hi), where lo is a multiple of a power of two that is at least hi - lo:
 * the complete subtrees under it are the set bits of hi - lo, folded from the right. */
static dure_err range_root(dure_hash *out, const dure_merkle_source *source, uint64_t lo,
                           uint64_t hi)
{
    uint64_t end = hi;
    bool started = false;
    for (unsigned level = 0; level < 64 && end > lo; level++) {
        uint64_t size = UINT64_C(1) << level;
        dure_hash node;
        if (!((hi - lo) & size)) continue;
        end -= size;
        dure_err err = source->node(source->state, &node, level, end >> level);
        if (!err && started) err = dure_merkle_node(&node, &node, out);
        if (err) return err;
        *out = node;
        started = true;
    }
    return DURE_OK;
}

dure_err dure_merkle_source_root(dure_hash *out, const dure_merkle_source *source, uint64_t n)
{
    if (n == 0) return dure_hash_bytes(out, dure_span_of("", 0));
    dure_err err = range_root(out, source, 0, n);
    if (err) *out = (dure_hash){{0}};
    return err;
}

/* The largest power of two below n, n >= 2. */
static uint64_t split_point(uint64_t n)
{
    uint64_t k = UINT64_C(1) << 63;
    while (k >= n)
        k >>= 1;
    return k;
}

/* The nodes were gathered from the root down; the RFC lists them from the leaf up. */
static void reverse(dure_merkle_proof *proof)
{
    for (size_t i = 0, j = proof->n; i + 1 < j; i++) {
        j--;
        dure_hash swap = proof->nodes[i];
        proof->nodes[i] = proof->nodes[j];
        proof->nodes[j] = swap;
    }
}

dure_err dure_merkle_prove_inclusion(dure_merkle_proof *out, const dure_merkle_source *source,
                                     uint64_t n, uint64_t index)
{
    uint64_t lo = 0, hi = n;
    dure_err err = DURE_OK;
    out->n = 0;
    if (index >= n) return DURE_ERR_USAGE;
    while (!err && hi - lo > 1) {
        uint64_t middle = lo + split_point(hi - lo);
        dure_hash *sibling = &out->nodes[out->n++];
        if (index < middle) {
            err = range_root(sibling, source, middle, hi);
            hi = middle;
        } else {
            err = range_root(sibling, source, lo, middle);
            lo = middle;
        }
    }
    if (err) {
        memset(out, 0, sizeof *out);
        return err;
    }
    reverse(out);
    return DURE_OK;
}

dure_err dure_merkle_prove_consistency(dure_merkle_proof *out, const dure_merkle_source *source,
                                       uint64_t n, uint64_t old_n)
{
    uint64_t lo = 0, hi = n;
    bool whole = true; /* the old tree is [0, hi), whose root the verifier has */
    dure_err err = DURE_OK;
    out->n = 0;
    if (old_n == 0 || old_n > n) return DURE_ERR_USAGE;
    while (!err && old_n < hi) {
        uint64_t middle = lo + split_point(hi - lo);
        dure_hash *node = &out->nodes[out->n++];
        if (old_n <= middle) {
            err = range_root(node, source, middle, hi);
            hi = middle;
        } else {
            err = range_root(node, source, lo, middle);
            lo = middle;
            whole = false;
        }
    }
    if (!err && !whole) err = range_root(&out->nodes[out->n++], source, lo, hi);
    if (err) {
        memset(out, 0, sizeof *out);
        return err;
    }
    reverse(out);
    return DURE_OK;
}

dure_err dure_merkle_verify_inclusion(const dure_merkle_head *head, uint64_t index,
                                      const dure_hash *leaf, const dure_merkle_proof *proof)
{
    if (index >= head->n || proof->n > DURE_MERKLE_PROOF_MAX) return DURE_ERR_AUTH;
    uint64_t fn = index, sn = head->n - 1; /* the names of RFC 9162 section 2.1.3.2 */
    dure_hash r = *leaf;
    for (size_t i = 0; i < proof->n; i++) {
        const dure_hash *p = &proof->nodes[i];
        dure_err err;
        if (sn == 0) return DURE_ERR_AUTH;
        if ((fn & 1) || fn == sn) {
            err = dure_merkle_node(&r, p, &r);
            while (!(fn & 1) && fn != 0) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            err = dure_merkle_node(&r, &r, p);
        }
        if (err) return err;
        fn >>= 1;
        sn >>= 1;
    }
    return sn == 0 && dure_hash_equal(&r, &head->root) ? DURE_OK : DURE_ERR_AUTH;
}

/* Steps 4 to 7 of RFC 9162 section 2.1.4.2 over path[0..n), for 0 < old n < n. */
static dure_err walk_consistency(const dure_merkle_head *head, const dure_merkle_head *old_head,
                                 const dure_hash *path, size_t n)
{
    uint64_t fn = old_head->n - 1, sn = head->n - 1;
    while (fn & 1) {
        fn >>= 1;
        sn >>= 1;
    }
    dure_hash fr = path[0], sr = path[0];
    for (size_t i = 1; i < n; i++) {
        dure_err err = DURE_OK;
        if (sn == 0) return DURE_ERR_AUTH;
        if ((fn & 1) || fn == sn) {
            err = dure_merkle_node(&fr, &path[i], &fr);
            if (!err) err = dure_merkle_node(&sr, &path[i], &sr);
            while (!(fn & 1) && fn != 0) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            err = dure_merkle_node(&sr, &sr, &path[i]);
        }
        if (err) return err;
        fn >>= 1;
        sn >>= 1;
    }
    bool same = dure_hash_equal(&fr, &old_head->root) && dure_hash_equal(&sr, &head->root);
    return sn == 0 && same ? DURE_OK : DURE_ERR_AUTH;
}

dure_err dure_merkle_verify_consistency(const dure_merkle_head *head,
                                        const dure_merkle_head *old_head,
                                        const dure_merkle_proof *proof)
{
    if (proof->n > DURE_MERKLE_PROOF_MAX || old_head->n > head->n) return DURE_ERR_AUTH;
    if (old_head->n == 0) {
        dure_hash empty;
        dure_err err = dure_hash_bytes(&empty, dure_span_of("", 0));
        if (err) return err;
        bool fine = proof->n == 0 && dure_hash_equal(&empty, &old_head->root);
        if (fine && head->n == 0) fine = dure_hash_equal(&empty, &head->root);
        return fine ? DURE_OK : DURE_ERR_AUTH;
    }
    if (old_head->n == head->n) {
        bool same = proof->n == 0 && dure_hash_equal(&head->root, &old_head->root);
        return same ? DURE_OK : DURE_ERR_AUTH;
    }
    if (proof->n == 0) return DURE_ERR_AUTH;
    /* The old root is itself the first node when the old tree is complete (step 2). */
    dure_hash path[DURE_MERKLE_PROOF_MAX + 1];
    size_t n = 0;
    if ((old_head->n & (old_head->n - 1)) == 0) path[n++] = old_head->root;
    memcpy(path + n, proof->nodes, proof->n * sizeof *path);
    return walk_consistency(head, old_head, path, n + proof->n);
}
