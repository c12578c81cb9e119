/* Adapters on disk: GGUF LoRA files (llama.cpp loads them) and PEFT folders (transformers).
 *
 * Equal adapters with equal notes give equal bytes: their digest is what is signed. GGUF keeps the
 * row order of the base's GGUF; PEFT has the rows of q and k in the order of the original
 * checkpoint, so in the architecture llama, whose converter permutes them, the B factors of these
 * two are permuted on the way.
 *
 * Threads: no state. Sources: llama.cpp src/llama-adapter.cpp; PEFT docs developer_guides/
 * checkpoint; safetensors README. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "model/lora.h"

#include <jansson.h>

/* What travels beside the parameters. */
typedef struct dure_adapter_notes {
    char base_digest[65]; /* SHA-256 of the base's GGUF in hex; empty: not said */
    json_t *texts;        /* further texts by name ("round", "version"); NULL: none */
} dure_adapter_notes;
void dure_adapter_notes_fini(dure_adapter_notes *notes); /* drops `texts` */

/* GGUF, tensors as F32. Names of `texts` are printable ASCII without blanks, at most 64 bytes, and
 * become the keys "dure.note.NAME". `notes` may be NULL. */
DURE_MUST_USE dure_err dure_adapter_encode(dure_buf *out, const dure_lora *lora,
                                           const dure_adapter_notes *notes, dure_diag *diag);
DURE_MUST_USE dure_err dure_adapter_save(const char *path, const dure_lora *lora,
                                         const dure_adapter_notes *notes, dure_diag *diag);

/* Reads F32, F16 or BF16 tensors. `shape` is the base's, read from its GGUF; NULL: the one that
 * Dure wrote into the file. The caller owns *out and, unless it is NULL, *notes. Comparing
 * notes->base_digest with the base at hand is the caller's part.
 *
 * DURE_ERR_STATE: the adapter belongs to another base (architecture, layers or sizes differ).
 * DURE_ERR_UNSUPPORTED: an adapter, but of a kind that dure_lora cannot hold.
 * DURE_ERR_FORMAT: malformed, or a value is not finite. */
DURE_MUST_USE dure_err dure_adapter_load(dure_lora **out, dure_adapter_notes *notes,
                                         const char *path, const dure_model_shape *shape,
                                         dure_diag *diag);
DURE_MUST_USE dure_err dure_adapter_parse(dure_lora **out, dure_adapter_notes *notes,
                                          dure_span bytes, const dure_model_shape *shape,
                                          dure_diag *diag);

/* No GGUF adapter of this base is larger, with 64 MiB of keys and notes: what a reader may have to
 * hold in memory. */
size_t dure_adapter_bytes_most(const dure_model_shape *shape);

/* A folder with adapter_config.json and adapter_model.safetensors; made if it is not there.
 * `base_name` is what PEFT loads the base from, e.g. "HuggingFaceTB/SmolLM2-135M-Instruct". */
DURE_MUST_USE dure_err dure_adapter_save_peft(const char *folder, const dure_lora *lora,
                                              const char *base_name,
                                              const dure_adapter_notes *notes, dure_diag *diag);
/* Errors as dure_adapter_load(). rsLoRA is folded into alpha; patterns of alpha or of other names
 * than whole targets, biases, saved modules and starts that change the base (PiSSA, OLoRA, LoftQ)
 * are refused by name. A file of tensors that is larger than any adapter of this base is
 * DURE_ERR_LIMIT. */
DURE_MUST_USE dure_err dure_adapter_load_peft(dure_lora **out, dure_adapter_notes *notes,
                                              const char *folder, const dure_model_shape *shape,
                                              dure_diag *diag);
