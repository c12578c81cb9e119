/* What the 32 threads of a warp, its lanes, do together: products of small matrices on the tensor
 * cores, loads of their fragments from shared memory, and sums across lanes. And copies from global
 * to shared memory that run while a block computes. PTX ISA 8.x, for compute capability 8.0 and
 * newer: sections "mma.m16n8k16", "ldmatrix", "cp.async".
 *
 * All lanes of a warp must call each of these together; copies alone are each thread's own. In the
 * emulation the lanes meet and exchange their fragments as PTX documents them, and copies arrive at
 * once or not before they are waited for (kernels/cuda/emulated.h).
 *
 * Fragments. With g = lane / 4 and t = lane % 4, a lane holds of a 16 x 8 matrix of float32
 *   c[i]: row g + 8 (i / 2), column 2t + i % 2;
 * of a left factor of bfloat16, 16 x 16, two neighbours of a row in a word, the first one low
 *   a[r]: row g + 8 (r % 2), columns 2t + 8 (r / 2) and the next;
 * of a right factor, 16 x 8, two neighbours of a column in a word
 *   b[r]: column g, rows 2t + 8r and the next.
 * So sums of two neighbouring 16 x 8 matrices, rounded, are a left factor in the same lane:
 * left_from_sums(). */
#pragma once

#include "kernels/cuda/language.h"

enum { LANES = 32 };

DURE_DEVICE int lane(void)
{
    return (int)(threadIdx.x % LANES);
}

/* Row of a lane's number i of a 16 x 8 matrix of sums; and column in the matrix number j of several
 * beside each other. */
DURE_DEVICE int sum_row(int i)
{
    return lane() / 4 + i / 2 * 8;
}

DURE_DEVICE int sum_column(int j, int i)
{
    return j * 8 + lane() % 4 * 2 + i % 2;
}

#if defined(__CUDACC__)

/* c += a b. */
DURE_DEVICE void multiply_add(float *c, const uint32_t *a, const uint32_t *b)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DURE_DEVICE uint32_t shared_address(const void *at)
{
    return (uint32_t)__cvta_generic_to_shared(at);
}

/* Four matrices of 8 x 8 bfloat16 in shared memory: lane l gives where row l % 8 of matrix l / 8
 * starts, a multiple of 16 bytes, and gets to[i]: of matrix i, columns 2t and the next of row g. */
DURE_DEVICE void load_matrices(uint32_t *to, const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* The same of the matrices transposed: of matrix i, rows 2t and the next of column g. */
DURE_DEVICE void load_matrices_turned(uint32_t *to, const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* x of the lane whose number differs in the bits of `mask`. */
DURE_DEVICE float other_lane(float x, int mask)
{
    return __shfl_xor_sync(0xFFFFFFFFu, x, mask);
}

/* Two numbers rounded to nearest even, `low` in the low half. */
DURE_DEVICE uint32_t pack_bf16(float low, float high)
{
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

/* Asks for 16 or 4 bytes of global memory, zeros unless `there`. Both addresses are multiples of
 * the size; `from` is an address of the same memory even when nothing is there. */
DURE_DEVICE void copy_16(void *to, const void *from, int there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(there ? 16 : 0)
                 : "memory");
}

DURE_DEVICE void copy_4(void *to, const void *from, int there)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(there ? 4 : 0)
                 : "memory");
}

/* What was asked for since the last call is one group, which may be empty. */
DURE_DEVICE void copies_end_group(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until all groups of this thread have arrived, or all but the last. What other threads have
 * asked for is there after a barrier. */
DURE_DEVICE void copies_wait(void)
{
    asm volatile("cp.async.wait_group 0;" ::: "memory");
}

DURE_DEVICE void copies_wait_but_last(void)
{
    asm volatile("cp.async.wait_group 1;" ::: "memory");
}

/* Vectors in one access each, at multiples of their size. */
DURE_DEVICE void load_words(uint32_t *to, const uint16_t *from)
{
    uint4 all = *(const uint4 *)from;
    to[0] = all.x, to[1] = all.y, to[2] = all.z, to[3] = all.w;
}

DURE_DEVICE void store_word(uint16_t *to, uint32_t word)
{
    *(uint32_t *)to = word;
}

DURE_DEVICE void store_two(float *to, float first, float second)
{
    *(float2 *)to = make_float2(first, second);
}

#else

#define multiply_add dure_emulated_multiply_add
#define load_matrices(to, row) dure_emulated_load_matrices(to, row, false)
#define load_matrices_turned(to, row) dure_emulated_load_matrices(to, row, true)
#define other_lane dure_emulated_other_lane
#define copy_16(to, from, there) dure_emulated_copy(to, from, 16, there)
#define copy_4(to, from, there) dure_emulated_copy(to, from, 4, there)
#define copies_end_group dure_emulated_copies_end_group
#define copies_wait() dure_emulated_copies_wait(0)
#define copies_wait_but_last() dure_emulated_copies_wait(1)

DURE_DEVICE uint32_t pack_bf16(float low, float high)
{
    return (uint32_t)to_bf16(high) << 16 | to_bf16(low);
}

DURE_DEVICE void load_words(uint32_t *to, const uint16_t *from)
{
    dure_emulated_vector(from, 16);
    memcpy(to, from, 16);
}

DURE_DEVICE void store_word(uint16_t *to, uint32_t word)
{
    dure_emulated_vector(to, sizeof word);
    memcpy(to, &word, sizeof word);
}

DURE_DEVICE void store_two(float *to, float first, float second)
{
    dure_emulated_vector(to, 2 * sizeof *to);
    to[0] = first, to[1] = second;
}

#endif

/* The left factor at (row, column) of a tile of bfloat16 in shared memory whose rows are `ld`
 * apart. Rows must lie in different banks: ld / 8 is odd. */
DURE_DEVICE void load_left(uint32_t *a, const uint16_t *tile, int row, int column, int ld)
{
    load_matrices(a, tile + (row + lane() % 16) * ld + column + lane() / 16 * 8);
}

/* Two right factors beside each other, b and b + 2, whose columns are 16 rows of a tile: for a
 * product with the tile transposed. */
DURE_DEVICE void load_right(uint32_t *b, const uint16_t *tile, int row, int column, int ld)
{
    load_matrices(b,
                  tile + (row + lane() / 16 * 8 + lane() % 8) * ld + column + lane() / 8 % 2 * 8);
}

/* The same, whose columns are 16 columns of a tile: for a product with the tile as it is. */
DURE_DEVICE void load_right_as_is(uint32_t *b, const uint16_t *tile, int row, int column, int ld)
{
    load_matrices_turned(b, tile + (row + lane() % 16) * ld + column + lane() / 16 * 8);
}

/* Two 16 x 8 matrices of sums beside each other, rounded, as a left factor. */
DURE_DEVICE void left_from_sums(uint32_t *a, const float *first, const float *second)
{
    a[0] = pack_bf16(first[0], first[1]);
    a[1] = pack_bf16(first[2], first[3]);
    a[2] = pack_bf16(second[0], second[1]);
    a[3] = pack_bf16(second[2], second[3]);
}
