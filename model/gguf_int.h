/* The parsed form behind dure_gguf, shared by gguf.c (walking the bytes), gguf_file.c (files and
 * parts) and gguf_meta.c (getters). */
#pragma once

#include "model/gguf.h"

/* The sentence for a file of another kind. */
#define GGUF_NOT_ONE "this is not a GGUF file; give a model or adapter in GGUF form"

enum { GGUF_HEADER_BYTES = 24 };

/* Value types of the metadata, as numbered in the file. */
enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_FLOAT32,
    GGUF_BOOL,
    GGUF_TEXT,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_FLOAT64,
    GGUF_VALUE_TYPES
};

/* One key. A scalar is an array of one: `element` is its type and n is 1. */
typedef struct gguf_value {
    char *key; /* owned */
    bool is_array;
    uint32_t element;
    uint64_t n;
    const uint8_t *data;   /* first element, borrowed from the file; unaligned */
    dure_span raw;         /* type and value as they are in the file */
    const uint8_t **texts; /* element GGUF_TEXT: where each one's u64 length is; owned */
} gguf_value;

typedef struct gguf_entry {
    dure_gguf_tensor tensor; /* tensor.name points at `name` */
    uint64_t offset;         /* from the start of the data section */
    char name[64];
} gguf_entry;

typedef struct gguf_map {
    void *at;
    size_t n;
} gguf_map;

struct dure_gguf {
    dure_span bytes; /* of the first file */
    gguf_map *maps;  /* owned; none when the bytes were given */
    size_t n_maps;
    uint64_t all_bytes; /* of all files */
    dure_gguf_limits limits;
    uint64_t alignment;
    gguf_value *values; /* in file order */
    size_t n_values;
    gguf_entry *entries; /* in file order */
    size_t n_entries;
    /* Indexes ordered by name: lookups by bisection, and duplicates are neighbours. A hash table
     * could be flooded by a file made for it. */
    const gguf_value **values_by_key;
    const gguf_entry **entries_by_name;
};

uint32_t gguf_load_u32(const uint8_t *p);
uint64_t gguf_load_u64(const uint8_t *p);

/* As dure_gguf_parse() for one file, whatever it says of others. */
DURE_MUST_USE dure_err gguf_parse_file(dure_gguf **out, dure_span bytes,
                                       const dure_gguf_limits *limits, dure_diag *diag);
/* Orders g->entries by name anew; DURE_ERR_FORMAT for two of one name. */
DURE_MUST_USE dure_err gguf_index_tensors(dure_gguf *g, dure_diag *diag);
const gguf_value *gguf_find_value(const dure_gguf *g, const char *key); /* NULL: not there */
void gguf_unmap(gguf_map *maps, size_t n); /* frees the list too; NULL-safe */
