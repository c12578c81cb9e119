#include "kernels/packed_weight.h"

bool dure_weight_can_pack(const dure_weight *w, const dure_cpu_ops *ops)
{
    return ops->repack && w->out % ops->width == 0 && w->in % ops->width == 0;
}

size_t dure_weight_packed_bytes(const dure_weight *w, const dure_cpu_ops *ops)
{
    return w->out * w->in * ops->act_bytes;
}

size_t dure_weight_pack_scratch_bytes(const dure_weight *w)
{
    enum { WIDTH_MAX = 16 };
    return WIDTH_MAX * w->in * sizeof(float);
}

typedef struct job {
    const dure_weight *w;
    void *to;
    const dure_cpu_ops *ops;
} job;

/* Panels [first, last). */
static void pack_panels(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    const dure_weight *w = j->w;
    size_t width = j->ops->width, panel = w->in * width;
    float *rows = scratch;
    for (size_t p = first; p < last; p++) {
        for (size_t r = 0; r < width; r++)
            j->ops->dequant(rows + r * w->in, dure_weight_at(w, p * width + r, 0), w->in, w->type);
        j->ops->pack_nt_f32(
            &(dure_pack){.to = {.at = dure_act_at(j->ops, j->to, p * panel), .panel = panel},
                         .x = rows,
                         .ld = w->in,
                         .n = width,
                         .k = w->in});
    }
}

void dure_weight_pack(dure_weight *w, void *memory, const dure_compute *c)
{
    job j = {.w = w, .to = memory, .ops = c->ops};
    dure_compute_rows(c, w->out / c->ops->width, 4, pack_panels, &j);
    w->packed = memory;
}
