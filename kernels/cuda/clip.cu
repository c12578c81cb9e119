/* The norm of a piece of coordinates by a block of its own, the scale of a document by one thread,
 * the integers of a strip of coordinates of all documents by one block. */
#include "kernels/cuda/clip.h"

#include "kernels/cuda/language.h"

/* PIECE and LANES are those of dp/quantize.h and its sums. */
enum { PIECE = 65536, LANES = 8, TILE = 2048, EACH = 8, BLOCK = 256, STRIP = EACH * BLOCK };
enum { PIECE_BLOCK = 64, FEW = 32 };

static size_t pieces_of(size_t n)
{
    return dure_blocks_for(n, PIECE);
}

static size_t strips_of(size_t n)
{
    return dure_blocks_for(n, STRIP);
}

size_t dure_cuda_clip_room(size_t n, size_t n_docs)
{
    return n_docs * (pieces_of(n) * sizeof(double) + strips_of(n) * sizeof(uint64_t));
}

/* A kernel's arguments: what was asked for, and the parts of the room. */
typedef struct clip_args {
    dure_cuda_clip of;
    double *piece_squares;   /* n_docs x pieces */
    uint64_t *strip_squares; /* n_docs x strips */
    size_t pieces, strips;
} clip_args;

/* Block (p, d): the square norm of piece p of document d. Threads below LANES add, each its own
 * lane, in the order of the coordinates; the others only fetch. */
DURE_KERNEL(clip_squares, clip_args)
{
    DURE_SHARED(tile);
    double *lanes = (double *)(tile + TILE), sum = 0;
    size_t at = (size_t)blockIdx.x * PIECE, left = a.of.n - at;
    const float *x = a.of.gradients + (size_t)blockIdx.y * a.of.stride + at;
    size_t n = left < PIECE ? left : PIECE;
    for (size_t first = 0; first < n; first += TILE) {
        size_t here = n - first < TILE ? n - first : TILE;
        __syncthreads();
        for (size_t i = threadIdx.x; i < here; i += blockDim.x)
            tile[i] = x[first + i];
        __syncthreads();
        if (threadIdx.x >= LANES) continue;
        for (size_t i = threadIdx.x; i < here; i += LANES)
            sum += (double)tile[i] * (double)tile[i];
    }
    if (threadIdx.x < LANES) lanes[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += lanes[i];
    a.piece_squares[(size_t)blockIdx.y * a.pieces + blockIdx.x] = sum;
}

/* dure_quantize_scale(), a thread a document. */
DURE_KERNEL(clip_scale, clip_args)
{
    size_t d = thread_number();
    if (d >= a.of.n_docs) return;
    double norm_square = 0, scale = 0;
    for (size_t p = 0; p < a.pieces; p++)
        norm_square += a.piece_squares[d * a.pieces + p];
    double norm_units = sqrt(norm_square) * a.of.per_unit;
    /* Not a number is not below the infinite either. */
    bool finite = norm_square < (double)INFINITY && norm_units < (double)INFINITY;
    if (finite)
        scale = norm_units > a.of.norm_most ? a.of.per_unit * (a.of.norm_most / norm_units)
                                            : a.of.per_unit;
    a.of.clipped[d].norm_square = norm_square;
    a.of.clipped[d].scale = scale;
    a.of.clipped[d].finite = finite;
}

/* The nearest integer, ties to even: as in dp/quantize.c. */
DURE_DEVICE int32_t to_grid(float v, double scale)
{
    const double round_to_integer = 6755399441055744.0;
    double x = (double)v * scale + round_to_integer;
    int64_t bits, zero;
    memcpy(&bits, &x, sizeof bits);
    memcpy(&zero, &round_to_integer, sizeof zero);
    return (int32_t)(bits - zero);
}

/* The sum of every thread's x, in thread 0; `room` is blockDim.x of them. */
DURE_DEVICE uint64_t block_total(uint64_t x, uint64_t *room)
{
    unsigned t = threadIdx.x;
    __syncthreads();
    room[t] = x;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) room[t] += room[t + half];
        __syncthreads();
    }
    return room[0];
}

/* A strip of all documents into the sum. */
DURE_KERNEL(clip_add, clip_args)
{
    DURE_SHARED(shared);
    int64_t sum[EACH];
    size_t own = (size_t)blockIdx.x * STRIP + threadIdx.x;
    for (int e = 0; e < EACH; e++)
        sum[e] = 0;
    for (size_t d = 0; d < a.of.n_docs; d++) {
        double scale = a.of.clipped[d].scale;
        uint64_t squares = 0;
        if (!a.of.clipped[d].finite) continue;
        for (int e = 0; e < EACH; e++) {
            size_t i = own + (size_t)e * BLOCK;
            if (i >= a.of.n) break;
            int64_t q = to_grid(a.of.gradients[d * a.of.stride + i], scale);
            sum[e] += q;
            squares += (uint64_t)(q * q);
        }
        squares = block_total(squares, (uint64_t *)shared);
        if (threadIdx.x == 0) a.strip_squares[d * a.strips + blockIdx.x] = squares;
    }
    for (int e = 0; e < EACH; e++) {
        size_t i = own + (size_t)e * BLOCK;
        if (i < a.of.n) a.of.sum[i] += sum[e];
    }
}

/* Whether a document's integers fit, a block each. */
DURE_KERNEL(clip_decide, clip_args)
{
    DURE_SHARED(shared);
    size_t d = blockIdx.x;
    uint64_t squares = 0;
    bool finite = a.of.clipped[d].finite != 0;
    for (size_t s = threadIdx.x; finite && s < a.strips; s += blockDim.x)
        squares += a.strip_squares[d * a.strips + s];
    squares = block_total(squares, (uint64_t *)shared);
    if (threadIdx.x == 0) a.of.clipped[d].added = finite && squares <= a.of.squares_most;
}

/* What did not fit is taken back. */
DURE_KERNEL(clip_take_back, clip_args)
{
    for (size_t d = 0; d < a.of.n_docs; d++) {
        double scale = a.of.clipped[d].scale;
        if (!a.of.clipped[d].finite || a.of.clipped[d].added) continue;
        for (size_t i = (size_t)blockIdx.x * STRIP + threadIdx.x, e = 0; e < EACH && i < a.of.n;
             i += BLOCK, e++)
            a.of.sum[i] -= to_grid(a.of.gradients[d * a.of.stride + i], scale);
    }
}

void dure_cuda_clip_run(dure_device *device, const dure_cuda_clip *args)
{
    void *stream = dure_device_stream(device);
    clip_args a;
    a.of = *args;
    a.pieces = pieces_of(args->n);
    a.strips = strips_of(args->n);
    a.piece_squares = (double *)args->room;
    a.strip_squares = (uint64_t *)(a.piece_squares + args->n_docs * a.pieces);
    DURE_LAUNCH(clip_squares, a.pieces, args->n_docs, PIECE_BLOCK,
                TILE * sizeof(float) + LANES * sizeof(double), stream, a);
    dure_device_launched(device);
    DURE_LAUNCH(clip_scale, dure_blocks_for(args->n_docs, FEW), 1, FEW, 0, stream, a);
    dure_device_launched(device);
    DURE_LAUNCH(clip_add, a.strips, 1, BLOCK, BLOCK * sizeof(uint64_t), stream, a);
    dure_device_launched(device);
    DURE_LAUNCH(clip_decide, args->n_docs, 1, BLOCK, BLOCK * sizeof(uint64_t), stream, a);
    dure_device_launched(device);
    DURE_LAUNCH(clip_take_back, a.strips, 1, BLOCK, 0, stream, a);
    dure_device_launched(device);
}
