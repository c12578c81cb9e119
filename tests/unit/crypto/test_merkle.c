#include "crypto/merkle.h"
#include "support/hex.h"

/* The reference tree of the certificate-transparency project (RFC 6962 and RFC 9162): eight inputs,
 * the roots of its prefixes, and published proofs. */
enum { N_INPUTS = 8 };
static const char *const inputs[N_INPUTS] = {
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
};
static const char *const roots[N_INPUTS + 1] = {
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
};

typedef struct vector {
    uint64_t a, n; /* leaf index or old size; tree size */
    const char *nodes[4];
} vector;

static const vector inclusions[] = {
    {0, 1, {NULL}},
    {0,
     8,
     {"96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
      "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"}},
    {5,
     8,
     {"bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
      "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
      "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"}},
    {2, 3, {"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"}},
    {1,
     5,
     {"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
      "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"}},
};

static const vector consistencies[] = {
    {1, 1, {NULL}},
    {1,
     8,
     {"96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
      "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"}},
    {6,
     8,
     {"0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
      "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
      "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"}},
    {2,
     5,
     {"5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"}},
    {6,
     7,
     {"0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
      "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
      "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"}},
};

/* A prover over an array of leaf hashes. */
static dure_err node_of_array(void *state, dure_hash *out, unsigned level, uint64_t index)
{
    const dure_hash *leaves = state;
    return dure_merkle_root(out, leaves + (index << level), UINT64_C(1) << level);
}

static void reference_leaves(dure_hash leaves[N_INPUTS])
{
    for (size_t i = 0; i < N_INPUTS; i++) {
        uint8_t bytes[16];
        size_t n = hex_bytes(bytes, sizeof bytes, inputs[i]);
        assert_ok(dure_merkle_leaf(&leaves[i], dure_span_of(bytes, n)));
    }
}

static void test_merkle_roots_match_the_reference_tree(void **state)
{
    (void)state;
    dure_hash leaves[N_INPUTS], root;
    dure_merkle_frontier frontier = {0};
    reference_leaves(leaves);
    dure_merkle_source source = {.node = node_of_array, .state = leaves};
    for (size_t n = 0; n <= N_INPUTS; n++) {
        assert_ok(dure_merkle_root(&root, leaves, n));
        assert_hex(root.b, 32, roots[n]);
        assert_ok(dure_merkle_frontier_root(&root, &frontier));
        assert_hex(root.b, 32, roots[n]);
        assert_ok(dure_merkle_source_root(&root, &source, n));
        assert_hex(root.b, 32, roots[n]);
        if (n < N_INPUTS) assert_ok(dure_merkle_frontier_add(&frontier, &leaves[n]));
    }
}

static void assert_proof(const dure_merkle_proof *proof, const vector *want)
{
    size_t n = 0;
    while (n < 4 && want->nodes[n])
        n++;
    assert_int_equal(proof->n, n);
    for (size_t i = 0; i < n; i++)
        assert_hex(proof->nodes[i].b, 32, want->nodes[i]);
}

static void test_merkle_proofs_match_the_reference_tree(void **state)
{
    (void)state;
    dure_hash leaves[N_INPUTS];
    dure_merkle_proof proof;
    reference_leaves(leaves);
    dure_merkle_source source = {.node = node_of_array, .state = leaves};
    for (size_t i = 0; i < sizeof inclusions / sizeof *inclusions; i++) {
        const vector *v = &inclusions[i];
        assert_ok(dure_merkle_prove_inclusion(&proof, &source, v->n, v->a));
        assert_proof(&proof, v);
    }
    for (size_t i = 0; i < sizeof consistencies / sizeof *consistencies; i++) {
        const vector *v = &consistencies[i];
        assert_ok(dure_merkle_prove_consistency(&proof, &source, v->n, v->a));
        assert_proof(&proof, v);
    }
}

enum { N_MANY = 70 };

static void many_leaves(dure_hash leaves[N_MANY])
{
    for (uint8_t i = 0; i < N_MANY; i++)
        assert_ok(dure_merkle_leaf(&leaves[i], dure_span_of(&i, 1)));
}

static void test_merkle_inclusion_verifies_for_every_leaf_and_no_other(void **state)
{
    (void)state;
    dure_hash leaves[N_MANY];
    dure_merkle_proof proof;
    dure_merkle_head head;
    many_leaves(leaves);
    dure_merkle_source source = {.node = node_of_array, .state = leaves};
    for (head.n = 1; head.n <= N_MANY; head.n++) {
        assert_ok(dure_merkle_root(&head.root, leaves, head.n));
        for (uint64_t i = 0; i < head.n; i++) {
            assert_ok(dure_merkle_prove_inclusion(&proof, &source, head.n, i));
            assert_ok(dure_merkle_verify_inclusion(&head, i, &leaves[i], &proof));
            uint64_t other = (i + 1) % N_MANY;
            assert_err(dure_merkle_verify_inclusion(&head, i, &leaves[other], &proof),
                       DURE_ERR_AUTH);
            assert_err(dure_merkle_verify_inclusion(&head, other, &leaves[i], &proof),
                       DURE_ERR_AUTH);
            proof.nodes[proof.n++] = leaves[0];
            assert_err(dure_merkle_verify_inclusion(&head, i, &leaves[i], &proof), DURE_ERR_AUTH);
        }
    }
}

static void test_merkle_consistency_verifies_for_every_pair(void **state)
{
    (void)state;
    dure_hash leaves[N_MANY];
    dure_merkle_proof proof;
    dure_merkle_head head, old;
    many_leaves(leaves);
    dure_merkle_source source = {.node = node_of_array, .state = leaves};
    for (head.n = 1; head.n <= N_MANY; head.n++) {
        assert_ok(dure_merkle_root(&head.root, leaves, head.n));
        for (old.n = 1; old.n <= head.n; old.n++) {
            assert_ok(dure_merkle_root(&old.root, leaves, old.n));
            assert_ok(dure_merkle_prove_consistency(&proof, &source, head.n, old.n));
            assert_ok(dure_merkle_verify_consistency(&head, &old, &proof));
            for (size_t k = 0; k < proof.n; k++) {
                proof.nodes[k].b[k % 32] ^= 1;
                assert_err(dure_merkle_verify_consistency(&head, &old, &proof), DURE_ERR_AUTH);
                proof.nodes[k].b[k % 32] ^= 1;
            }
            old.root.b[0] ^= 1;
            assert_err(dure_merkle_verify_consistency(&head, &old, &proof), DURE_ERR_AUTH);
        }
    }
}

/* A log that changed an old entry cannot show that it grew from the tree a witness has seen. */
static void test_merkle_consistency_refuses_a_rewritten_entry(void **state)
{
    (void)state;
    dure_hash leaves[N_MANY];
    dure_merkle_proof proof;
    dure_merkle_head head = {.n = 50}, old = {.n = 37};
    many_leaves(leaves);
    dure_merkle_source source = {.node = node_of_array, .state = leaves};
    assert_ok(dure_merkle_root(&old.root, leaves, old.n));
    leaves[11].b[0] ^= 1;
    assert_ok(dure_merkle_root(&head.root, leaves, head.n));
    assert_ok(dure_merkle_prove_consistency(&proof, &source, head.n, old.n));
    assert_err(dure_merkle_verify_consistency(&head, &old, &proof), DURE_ERR_AUTH);
}

static void test_merkle_consistency_refuses_shrinking_and_wrong_lengths(void **state)
{
    (void)state;
    dure_hash leaves[N_MANY];
    dure_merkle_proof proof, none = {0};
    dure_merkle_head head = {.n = 50}, old = {.n = 37};
    many_leaves(leaves);
    dure_merkle_source source = {.node = node_of_array, .state = leaves};
    assert_ok(dure_merkle_root(&old.root, leaves, old.n));
    assert_ok(dure_merkle_root(&head.root, leaves, head.n));
    assert_ok(dure_merkle_prove_consistency(&proof, &source, head.n, old.n));
    assert_err(dure_merkle_verify_consistency(&old, &head, &proof), DURE_ERR_AUTH);
    assert_err(dure_merkle_verify_consistency(&head, &old, &none), DURE_ERR_AUTH);
    proof.n--;
    assert_err(dure_merkle_verify_consistency(&head, &old, &proof), DURE_ERR_AUTH);
    proof.n = DURE_MERKLE_PROOF_MAX + 1;
    assert_err(dure_merkle_verify_consistency(&head, &old, &proof), DURE_ERR_AUTH);
    assert_err(dure_merkle_verify_inclusion(&head, 0, &leaves[0], &proof), DURE_ERR_AUTH);
    assert_err(dure_merkle_prove_consistency(&proof, &source, 5, 0), DURE_ERR_USAGE);
    assert_err(dure_merkle_prove_consistency(&proof, &source, 5, 6), DURE_ERR_USAGE);
    assert_err(dure_merkle_prove_inclusion(&proof, &source, 5, 5), DURE_ERR_USAGE);
}

static void test_merkle_every_tree_extends_the_empty_one(void **state)
{
    (void)state;
    dure_hash leaves[N_MANY];
    dure_merkle_proof none = {0};
    dure_merkle_head head = {.n = 50}, empty = {.n = 0};
    many_leaves(leaves);
    assert_ok(dure_merkle_root(&head.root, leaves, head.n));
    assert_ok(dure_merkle_root(&empty.root, leaves, 0));
    assert_ok(dure_merkle_verify_consistency(&head, &empty, &none));
    assert_ok(dure_merkle_verify_consistency(&empty, &empty, &none));
    empty.root.b[0] ^= 1;
    assert_err(dure_merkle_verify_consistency(&head, &empty, &none), DURE_ERR_AUTH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merkle_roots_match_the_reference_tree),
        cmocka_unit_test(test_merkle_proofs_match_the_reference_tree),
        cmocka_unit_test(test_merkle_inclusion_verifies_for_every_leaf_and_no_other),
        cmocka_unit_test(test_merkle_consistency_verifies_for_every_pair),
        cmocka_unit_test(test_merkle_consistency_refuses_a_rewritten_entry),
        cmocka_unit_test(test_merkle_consistency_refuses_shrinking_and_wrong_lengths),
        cmocka_unit_test(test_merkle_every_tree_extends_the_empty_one),
    };
    return cmocka_run_group_tests_name("crypto.merkle", tests, NULL, NULL);
}
