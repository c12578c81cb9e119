/* What both adapter formats share: tensors by place, put together into a dure_lora; and what an
 * adapter's GGUF is made of, for who reads or writes it in parts (adapter_stream.c). */
#pragma once

#include "model/adapter_file.h"
#include "model/gguf.h"
#include "model/gguf_write.h"

/* One factor as it lies in a file. */
typedef struct dure_adapter_part {
    const char *name; /* for errors; borrowed */
    uint32_t layer;
    dure_lora_target target;
    dure_lora_factor factor;
    bool is_magnitude;   /* of DoRA: out x 1, and `factor` is B */
    uint32_t type;       /* DURE_GGUF_F32, F16, BF16 or (in GGUF) Q8_0 */
    uint64_t rows, cols; /* A: rank x in, B: out x rank; cols is made of whole blocks */
    const uint8_t *data; /* the rows, little-endian, unaligned */
} dure_adapter_part;

/* Which row of the GGUF a row of the original checkpoint is, for the B factor of a target. */
uint32_t dure_adapter_gguf_row(const dure_model_shape *shape, dure_lora_target target,
                               uint32_t row);

typedef struct dure_adapter_parts {
    dure_adapter_part *parts;
    size_t n;
    float alpha;
    bool checkpoint_rows; /* rows of B are in the checkpoint's order, not the GGUF's */
} dure_adapter_parts;

/* The regular layout that the parts describe; each of its factors is one of them. */
DURE_MUST_USE dure_err dure_adapter_parts_layout(dure_lora_layout *out,
                                                 const dure_adapter_parts *from,
                                                 const dure_model_shape *shape, dure_diag *diag);
/* out[0..cols) of one row as it lies in the file. DURE_ERR_FORMAT: a value is not finite. */
DURE_MUST_USE dure_err dure_adapter_part_row(float *out, const dure_adapter_part *part,
                                             uint64_t row, dure_diag *diag);
/* The layout, then the values of all parts. */
DURE_MUST_USE dure_err dure_adapter_assemble(dure_lora **out, const dure_adapter_parts *from,
                                             const dure_model_shape *shape, dure_diag *diag);

/* What a GGUF with an adapter is read with. */
extern const dure_gguf_limits dure_adapter_gguf_limits;
/* The parts of an open GGUF, whose bytes they borrow; the caller frees out->parts. *own is the
 * shape that the file names, where `shape` is NULL. */
DURE_MUST_USE dure_err dure_adapter_gguf_parts(dure_adapter_parts *out, dure_model_shape *own,
                                               const dure_gguf *g, const dure_model_shape *shape,
                                               dure_diag *diag);
/* Declares the keys and tensors of an adapter, in the order of its parameters. `params` NULL: rows
 * come from a source. */
DURE_MUST_USE dure_err dure_adapter_gguf_declare(dure_gguf_writer *w,
                                                 const dure_lora_layout *layout,
                                                 const float *params,
                                                 const dure_adapter_notes *notes, dure_diag *diag);

/* Refuses notes that cannot be stored: names that are not plain, values that are not texts. */
DURE_MUST_USE dure_err dure_adapter_notes_check(const dure_adapter_notes *notes, dure_diag *diag);
/* Adds one text; a name that is there already is DURE_ERR_FORMAT. */
DURE_MUST_USE dure_err dure_adapter_notes_add(dure_adapter_notes *notes, const char *name,
                                              dure_span text, dure_diag *diag);
/* Names of `texts` in ascending order, borrowed; the caller frees the array. NULL: no memory. */
const char **dure_adapter_notes_sorted(size_t *n, const dure_adapter_notes *notes);

/* What the configuration of a PEFT folder says of the layout. */
typedef struct dure_adapter_config {
    float alpha; /* such that alpha / rank scales; PEFT's own alpha differs with use_rslora */
    uint32_t rank;
    uint32_t ranks[DURE_LORA_TARGETS]; /* of its rank pattern; 0: `rank` */
    bool dora;
} dure_adapter_config;
/* Alone, for the fuzzer; `name` is for the errors. */
DURE_MUST_USE dure_err dure_adapter_parse_config(dure_adapter_config *out, dure_span text,
                                                 const char *name, dure_diag *diag);
/* The tensors' file of a PEFT folder alone, for the fuzzer: `alpha` comes from the other file. */
DURE_MUST_USE dure_err dure_adapter_parse_safetensors(dure_lora **out, dure_adapter_notes *notes,
                                                      dure_span bytes, float alpha,
                                                      const dure_model_shape *shape,
                                                      dure_diag *diag);
