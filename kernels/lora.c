#include "kernels/lora.h"

/* Rows of a document go in pieces of DEPTH, columns of x in pieces of WIDTH: what is turned into
 * panels then fits the second-level cache. */
enum { DEPTH = 512, WIDTH = DURE_LORA_PIECE, LANE = 16 };

static size_t z_elements(size_t rank)
{
    return dure_round_up(rank, LANE) * DEPTH;
}

size_t dure_lora_scratch_bytes(size_t rank)
{
    return sizeof(float) *
           (DURE_LORA_SUMS_MAX * z_elements(rank) + WIDTH * DEPTH + rank * (size_t)WIDTH);
}

/* Columns [first, first + n) of x, rows [row, row + depth). */
typedef struct piece {
    size_t first, n, row, depth;
    bool accumulate;
} piece;

/* z^T (in panels, a panel's columns at a time) times x (in panels). */
static void multiply(float *c, size_t ldc, const void *z, const void *x, size_t rank,
                     const piece *p, const dure_cpu_ops *ops)
{
    size_t depth = dure_round_up(p->depth, ops->group), panel = depth * ops->width;
    for (size_t r = 0; r < rank; r += ops->width)
        ops->gemm(&(dure_gemm){.c = c + r * ldc,
                               .ldc = ldc,
                               .a = dure_act_in(ops, z, r * depth),
                               .a_row = ops->group,
                               .a_step = ops->width * ops->group,
                               .b = x,
                               .b_panel = panel,
                               .m = rank - r < ops->width ? rank - r : ops->width,
                               .n = p->n,
                               .k = depth,
                               .accumulate = p->accumulate});
}

/* out[width x rank] = or += the turned tile[rank x width]. */
static void put_turned(float *out, float *tile, size_t rank, const piece *p, float *turned,
                       const dure_cpu_ops *ops)
{
    float *to = p->accumulate ? turned : out + p->first * rank;
    ops->transpose(to, rank, tile, p->n, rank, p->n);
    if (p->accumulate) ops->add(out + p->first * rank, turned, rank * p->n);
}

static void run_piece(const dure_lora_sums *s, const piece *p, void *scratch,
                      const dure_cpu_ops *ops)
{
    char *z = scratch;
    size_t depth = dure_round_up(p->depth, ops->group), panel = depth * ops->width;
    void *x = dure_act_at(ops, z, DURE_LORA_SUMS_MAX * z_elements(s->rank));
    float *tile = (float *)scratch + DURE_LORA_SUMS_MAX * z_elements(s->rank) + WIDTH * DEPTH;
    ops->pack_nn(&(dure_pack){.to = {x, panel},
                              .x = dure_act_in(ops, s->x, p->row * s->ldx + p->first),
                              .ld = s->ldx,
                              .n = p->n,
                              .k = p->depth});
    for (size_t i = 0; i < s->n; i++) {
        const void *left = dure_act_at(ops, z, i * z_elements(s->rank));
        if (!s->turned) {
            multiply(s->list[i].out + p->first, s->width, left, x, s->rank, p, ops);
            continue;
        }
        piece anew = *p;
        anew.accumulate = false;
        multiply(tile, p->n, left, x, s->rank, &anew, ops);
        put_turned(s->list[i].out, tile, s->rank, p, x, ops);
    }
}

void dure_lora_sums_run(const dure_lora_sums *sums, dure_lora_rows doc, dure_lora_columns columns,
                        void *scratch, const dure_cpu_ops *ops)
{
    const size_t end = columns.column + columns.n;
    for (size_t k = 0; k < doc.n; k += DEPTH) {
        piece p = {.row = doc.first + k,
                   .depth = doc.n - k < DEPTH ? doc.n - k : DEPTH,
                   .accumulate = k > 0};
        size_t panel = dure_round_up(p.depth, ops->group) * ops->width;
        for (size_t i = 0; i < sums->n; i++)
            ops->pack_nn(
                &(dure_pack){.to = {dure_act_at(ops, scratch, i * z_elements(sums->rank)), panel},
                             .x = dure_act_in(ops, sums->list[i].z, p.row * sums->list[i].ldz),
                             .ld = sums->list[i].ldz,
                             .n = sums->rank,
                             .k = p.depth});
        for (p.first = columns.column; p.first < end; p.first += WIDTH) {
            p.n = end - p.first < WIDTH ? end - p.first : WIDTH;
            run_piece(sums, &p, scratch, ops);
        }
    }
}
