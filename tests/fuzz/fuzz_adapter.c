/* Any bytes as a GGUF adapter; what is read must be written and read again unchanged. */
#include "model/adapter_file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    dure_lora *lora, *again;
    dure_adapter_notes notes, more;
    dure_diag diag = {{0}};
    dure_buf b;
    if (dure_adapter_parse(&lora, &notes, dure_span_of(data, n), NULL, &diag)) return 0;
    dure_buf_init(&b, SIZE_MAX);
    if (dure_adapter_encode(&b, lora, &notes, &diag) ||
        dure_adapter_parse(&again, &more, dure_buf_span(&b), &lora->layout.shape, &diag) ||
        again->n != lora->n || memcmp(again->params, lora->params, lora->n * sizeof(float)) != 0)
        abort();
    dure_buf_fini(&b);
    dure_adapter_notes_fini(&notes);
    dure_adapter_notes_fini(&more);
    dure_lora_free(&lora);
    dure_lora_free(&again);
    return 0;
}
