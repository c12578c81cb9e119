#include "model/adapter_stream.h"

#include "model/adapter_int.h"

#include <stdlib.h>

/* Of a mapped file as much is read before its pages are let go. */
enum { HELD_BYTES = 1 << 20 };

struct dure_adapter_view {
    dure_gguf *gguf;
    dure_adapter_parts parts;
    dure_lora_layout layout;
    const dure_adapter_part **places; /* owned: the part of each factor, by layer and target */
    size_t read_bytes;                /* since pages were last let go */
};

static size_t place_of(uint32_t layer, dure_lora_target target, dure_lora_factor factor)
{
    return ((size_t)layer * DURE_LORA_TARGETS + (size_t)target) * 2 +
           (factor == DURE_LORA_FACTOR_B);
}

void dure_adapter_view_close(dure_adapter_view **view)
{
    if (!view || !*view) return;
    free((*view)->places);
    free((*view)->parts.parts);
    dure_gguf_close(&(*view)->gguf);
    free(*view);
    *view = NULL;
}

/* Takes `gguf` over, also on an error. */
static dure_err view_new(dure_adapter_view **out, dure_gguf *gguf, const dure_model_shape *shape,
                         dure_diag *diag)
{
    dure_model_shape own;
    dure_adapter_view *v = calloc(1, sizeof *v);
    if (!v) {
        dure_gguf_close(&gguf);
        return DURE_ERR_NOMEM;
    }
    v->gguf = gguf;
    dure_err err = dure_adapter_gguf_parts(&v->parts, &own, gguf, shape, diag);
    if (!err) err = dure_adapter_parts_layout(&v->layout, &v->parts, shape ? shape : &own, diag);
    if (err) goto out;
    v->places =
        calloc(place_of(v->layout.shape.n_layers, 0, DURE_LORA_FACTOR_A), sizeof *v->places);
    if (!v->places) err = DURE_ERR_NOMEM;
    for (size_t i = 0; !err && i < v->parts.n; i++) {
        const dure_adapter_part *part = &v->parts.parts[i];
        v->places[place_of(part->layer, part->target, part->factor)] = part;
    }
out:
    if (err)
        dure_adapter_view_close(&v);
    else
        *out = v;
    return err;
}

dure_err dure_adapter_view_of(dure_adapter_view **out, dure_span bytes,
                              const dure_model_shape *shape, dure_diag *diag)
{
    dure_gguf *g = NULL;
    *out = NULL;
    dure_err err = dure_gguf_parse(&g, bytes, &dure_adapter_gguf_limits, diag);
    return err ? err : view_new(out, g, shape, diag);
}

dure_err dure_adapter_view_open(dure_adapter_view **out, const char *path,
                                const dure_model_shape *shape, dure_diag *diag)
{
    dure_gguf *g = NULL;
    *out = NULL;
    dure_err err = dure_gguf_open(&g, path, &dure_adapter_gguf_limits, diag);
    if (err) return err;
    err = view_new(out, g, shape, diag);
    return err ? dure_diag_prefix(diag, err, "%s", path) : DURE_OK;
}

const dure_lora_layout *dure_adapter_view_layout(const dure_adapter_view *view)
{
    return &view->layout;
}

dure_err dure_adapter_view_row(float *out, dure_adapter_view *view, const dure_adapter_row *row,
                               dure_diag *diag)
{
    const dure_adapter_part *part = view->places[place_of(row->layer, row->target, row->factor)];
    DURE_ASSERT(part && row->row < part->rows);
    view->read_bytes += (size_t)part->cols * sizeof *out;
    if (view->read_bytes > HELD_BYTES) {
        dure_gguf_let_go(view->gguf);
        view->read_bytes = 0;
    }
    return dure_adapter_part_row(out, part, row->row, diag);
}

/* ---- writing ---- */

/* Tensors by number: A and B of each adapted matrix, by layer, then by target. */
typedef struct writing {
    const dure_lora_layout *layout;
    dure_lora_target targets[DURE_LORA_TARGETS];
    size_t n_targets;
    dure_adapter_source *source;
    void *state;
} writing;

static dure_err write_row(void *state, size_t tensor, uint64_t row, uint8_t *out, dure_diag *diag)
{
    const writing *w = state;
    const size_t matrix = tensor / 2;
    const dure_adapter_row wanted = {.layer =
                                         w->layout->first_layer + (uint32_t)(matrix / w->n_targets),
                                     .target = w->targets[matrix % w->n_targets],
                                     .factor = tensor % 2 ? DURE_LORA_FACTOR_B : DURE_LORA_FACTOR_A,
                                     .row = (uint32_t)row};
    /* Rows of floats in a block from malloc() are aligned to them. */
    return w->source(w->state, &wanted, (float *)(void *)out, diag);
}

dure_err dure_adapter_write(const dure_gguf_sink *sink, const dure_lora_layout *layout,
                            const dure_adapter_notes *notes, dure_adapter_source *source,
                            void *state, dure_diag *diag)
{
    writing w = {.layout = layout, .source = source, .state = state};
    for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++)
        if (layout->targets >> t & 1) w.targets[w.n_targets++] = t;
    dure_gguf_writer *writer = NULL;
    dure_err err = dure_gguf_writer_new(&writer);
    if (!err) err = dure_adapter_gguf_declare(writer, layout, NULL, notes, diag);
    if (!err) err = dure_gguf_writer_write(writer, sink, write_row, &w, diag);
    dure_gguf_writer_free(&writer);
    return err;
}
