/* Any bytes as a GGUF adapter; what is read must be written and read again unchanged, and be the
 * same read and written row by row. */
#include "model/adapter_stream.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static dure_err next_row(void *state, const dure_adapter_row *row, float *out, dure_diag *diag)
{
    return dure_adapter_view_row(out, state, row, diag);
}

static dure_err put(void *state, dure_span bytes, dure_diag *diag)
{
    (void)diag;
    dure_put_raw(state, bytes.data, bytes.n);
    return dure_buf_err(state);
}

static void copy_by_row(dure_buf *out, dure_span bytes, const dure_adapter_notes *notes)
{
    dure_adapter_view *view;
    dure_diag diag = {{0}};
    const dure_gguf_sink sink = {.put = put, .state = out};
    dure_buf_init(out, SIZE_MAX);
    if (dure_adapter_view_of(&view, bytes, NULL, &diag) ||
        dure_adapter_write(&sink, dure_adapter_view_layout(view), notes, next_row, view, &diag))
        abort();
    dure_adapter_view_close(&view);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    dure_lora *lora, *again;
    dure_adapter_notes notes, more;
    dure_diag diag = {{0}};
    dure_buf b, rows;
    if (dure_adapter_parse(&lora, &notes, dure_span_of(data, n), NULL, &diag)) return 0;
    dure_buf_init(&b, SIZE_MAX);
    if (dure_adapter_encode(&b, lora, &notes, &diag) ||
        dure_adapter_parse(&again, &more, dure_buf_span(&b), &lora->layout.shape, &diag) ||
        again->n != lora->n || memcmp(again->params, lora->params, lora->n * sizeof(float)) != 0)
        abort();
    copy_by_row(&rows, dure_span_of(data, n), &notes);
    if (rows.n != b.n || memcmp(rows.data, b.data, b.n) != 0) abort();
    dure_buf_fini(&rows);
    dure_buf_fini(&b);
    dure_adapter_notes_fini(&notes);
    dure_adapter_notes_fini(&more);
    dure_lora_free(&lora);
    dure_lora_free(&again);
    return 0;
}
