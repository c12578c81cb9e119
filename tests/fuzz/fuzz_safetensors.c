/* Any bytes as the tensors of a PEFT folder, for a base of one small layer; bytes that begin with
 * '{', which no such file of a sensible length does, as the folder's configuration. */
#include "model/adapter_int.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const dure_model_shape shape = {.architecture = "llama",
                                           .n_layers = 1,
                                           .n_embd = 8,
                                           .n_ff = 8,
                                           .n_head = 2,
                                           .n_head_kv = 1,
                                           .head_dim = 4,
                                           .n_vocab = 16,
                                           .n_context = 16};
    dure_lora *lora;
    dure_adapter_notes notes = {0};
    dure_diag diag = {{0}};
    dure_span bytes = dure_span_of(data, n);
    if (n && data[0] == '{') {
        dure_adapter_config config;
        dure_err err = dure_adapter_parse_config(&config, bytes, "config", &diag);
        if (!err && !(config.alpha > 0 && config.rank > 0)) abort();
        return 0;
    }
    if (dure_adapter_parse_safetensors(&lora, &notes, bytes, 2, &shape, &diag) == DURE_OK)
        dure_lora_free(&lora);
    dure_adapter_notes_fini(&notes);
    return 0;
}
