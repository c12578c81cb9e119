/* An adapter's GGUF, read and written row by row, for who has to watch memory: the file that
 * dure_adapter_encode() would give, byte for byte, without the adapter in memory.
 *
 * Threads: a view belongs to one thread at a time. */
#pragma once

#include "model/adapter_file.h"
#include "model/gguf_write.h"

/* A row of one factor of one matrix: dure_lora_in() values of A (rank rows), rank values of B
 * (dure_lora_out() rows). */
typedef struct dure_adapter_row {
    uint32_t layer;
    dure_lora_target target;
    dure_lora_factor factor; /* A or B */
    uint32_t row;
} dure_adapter_row;

/* A file that was found to be an adapter of some layout, its values not yet looked at. */
typedef struct dure_adapter_view dure_adapter_view;

/* Errors as dure_adapter_load(). The caller owns *out, dure_adapter_view_close(&view). The first
 * maps the file, which must not change meanwhile; the other borrows the bytes. */
DURE_MUST_USE dure_err dure_adapter_view_open(dure_adapter_view **out, const char *path,
                                              const dure_model_shape *shape, dure_diag *diag);
DURE_MUST_USE dure_err dure_adapter_view_of(dure_adapter_view **out, dure_span bytes,
                                            const dure_model_shape *shape, dure_diag *diag);
void dure_adapter_view_close(dure_adapter_view **view); /* NULL-safe, nulls */
const dure_lora_layout *dure_adapter_view_layout(const dure_adapter_view *view);
/* Fills out[] with a row that the layout has. A mapped file's memory is let go along the way.
 * DURE_ERR_FORMAT: a value is not finite. */
DURE_MUST_USE dure_err dure_adapter_view_row(float *out, dure_adapter_view *view,
                                             const dure_adapter_row *row, dure_diag *diag);

/* Fills out[] with the row that is asked for: in the order of the parameters, each once. */
typedef dure_err dure_adapter_source(void *state, const dure_adapter_row *row, float *out,
                                     dure_diag *diag);
/* Gives the file to `sink`. `notes` may be NULL. */
DURE_MUST_USE dure_err dure_adapter_write(const dure_gguf_sink *sink,
                                          const dure_lora_layout *layout,
                                          const dure_adapter_notes *notes,
                                          dure_adapter_source *source, void *state,
                                          dure_diag *diag);
