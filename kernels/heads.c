#include "kernels/heads.h"

#include <string.h>

static void *kept_at(const dure_heads *h, size_t row, size_t column, const dure_cpu_ops *ops)
{
    return dure_act_at(ops, h->kept, row * h->ldy + column);
}

static dure_rope rope_of(const dure_heads *h)
{
    return (dure_rope){.table = h->table, .position = h->position, .head_dim = h->dim};
}

size_t dure_heads_grain(const dure_heads *heads)
{
    bool whole = heads->norm || (heads->table && heads->table->halves);
    return whole ? heads->dim : 0;
}

void dure_finish_heads(void *heads, const dure_sums *sums, const dure_cpu_ops *ops)
{
    const dure_heads *h = heads;
    const dure_rope rope = rope_of(h);
    dure_store store = {.y = h->y, .ldy = h->ldy, .scale = 1.0f};
    DURE_ASSERT(!dure_heads_grain(h) ||
                (sums->column % h->dim == 0 && sums->columns % h->dim == 0));
    for (size_t r = 0; r < sums->rows; r++) {
        float *x = sums->at + r * sums->ld;
        size_t row = sums->row + r;
        if (h->bias) ops->add(x, h->bias + sums->column, sums->columns);
        for (size_t i = 0; h->norm && i < sums->columns; i += h->dim)
            ops->norm(x + i, kept_at(h, row, sums->column + i, ops), x + i, h->norm, h->dim,
                      h->eps);
        if (h->table) dure_rope_turn(x, sums->columns, &rope, row, sums->column, 1.0f, ops);
    }
    dure_finish_store(&store, sums, ops);
}

void dure_heads_back(void *to, float *x, const dure_heads *heads, size_t row, size_t head,
                     const dure_cpu_ops *ops)
{
    float dx[DURE_HEADS_WIDEST];
    size_t n = heads->dim;
    const dure_rope rope = rope_of(heads);
    if (heads->table) dure_rope_turn(x, n, &rope, row, 0, -1.0f, ops);
    if (!heads->norm) {
        ops->store(to, x, n, 1.0f);
        return;
    }
    DURE_ASSERT(n <= DURE_HEADS_WIDEST);
    memset(dx, 0, n * sizeof *dx);
    ops->rmsnorm_backward(dx, to, x, kept_at(heads, row, head * n, ops), heads->norm, n,
                          heads->eps);
}
