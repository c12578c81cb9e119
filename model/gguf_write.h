/* Writes a GGUF v3 file: keys and tensors in the order given, so equal calls give equal bytes.
 *
 * Keys and tensors are declared first; the data follow when the file is written, either borrowed
 * bytes or rows that a source makes one at a time (a merged model is larger than memory).
 *
 * Threads: one writer belongs to one thread. Source: ggml docs/gguf.md. */
#pragma once

#include "common/buf.h"
#include "model/gguf.h"

#include <sys/types.h>

typedef struct dure_gguf_writer dure_gguf_writer;

/* The caller owns *out, dure_gguf_writer_free(&w). */
DURE_MUST_USE dure_err dure_gguf_writer_new(dure_gguf_writer **out);
void dure_gguf_writer_free(dure_gguf_writer **w);

/* The puts keep their first failure in the writer; whatever writes the file returns it. A key must
 * not be put twice. "general.alignment" is not for the caller: data are aligned to 32 bytes. */
void dure_gguf_put_u32(dure_gguf_writer *w, const char *key, uint32_t value);
void dure_gguf_put_f32(dure_gguf_writer *w, const char *key, float value);
void dure_gguf_put_bool(dure_gguf_writer *w, const char *key, bool value);
void dure_gguf_put_text(dure_gguf_writer *w, const char *key, dure_span text);
void dure_gguf_put_texts(dure_gguf_writer *w, const char *key, const dure_span *texts, size_t n);
void dure_gguf_put_i32s(dure_gguf_writer *w, const char *key, const int32_t *values, size_t n);
void dure_gguf_put_f32s(dure_gguf_writer *w, const char *key, const float *values, size_t n);
/* The i-th key of `from` with its value, unchanged. */
void dure_gguf_put_copy(dure_gguf_writer *w, const dure_gguf *from, size_t i);
/* Declares a tensor: name, type, dims and data are used, `bytes` is computed. `name` is copied,
 * `data` is borrowed until the end; NULL: the rows come from the source. */
void dure_gguf_put_tensor(dure_gguf_writer *w, const dure_gguf_tensor *tensor);

/* Fills row[0..bytes of one row) of the i-th tensor; rows are asked for in order, each once. */
typedef dure_err dure_gguf_source(void *state, size_t tensor, uint64_t row, uint8_t *out,
                                  dure_diag *diag);

/* Takes the file's bytes, in order; those of one call are gone after it. */
typedef struct dure_gguf_sink {
    dure_err (*put)(void *state, dure_span bytes, dure_diag *diag);
    void *state;
} dure_gguf_sink;

/* Appends the file to `out`; every tensor needs its data. */
DURE_MUST_USE dure_err dure_gguf_writer_encode(dure_buf *out, const dure_gguf_writer *w);
/* Gives the file to `sink`, in pieces; `source` may be NULL when every tensor has its data. */
DURE_MUST_USE dure_err dure_gguf_writer_write(const dure_gguf_writer *w, const dure_gguf_sink *sink,
                                              dure_gguf_source *source, void *state,
                                              dure_diag *diag);
/* The same into a file, atomically. */
DURE_MUST_USE dure_err dure_gguf_writer_save(const dure_gguf_writer *w, const char *path,
                                             dure_gguf_source *source, void *state,
                                             dure_diag *diag);
