/* Walks a GGUF file once and checks everything that later code relies on.
 *
 * 1. Before each take, its length is compared with what is left; positions are never added up
 *    first, so nothing can wrap.
 * 2. Counts are bounded by `limits` and by the bytes that at least so many items need, so memory
 *    allocated is proportional to the file.
 * 3. Tensor data lie one after the other in listed order, each padded to the alignment, as
 *    llama.cpp demands; a tensor cannot alias another or the header.
 *
 * Files, and models in several of them, are in gguf_file.c. */
#include "model/gguf.h"

#include "kernels/dequant.h"
#include "model/gguf_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_ALIGNMENT = 32, MAX_DIMS = 4, LEAST_ITEM_BYTES = 13 };

const dure_gguf_limits dure_gguf_default_limits = {
    .max_tensors = 65536,
    .max_keys = 65536,
    .max_key_bytes = 65535,
    .max_text_bytes = (uint64_t)1 << 26,
    .max_array = (uint64_t)1 << 26,
    .max_alignment = 65536,
    .max_files = 256,
};

/* Elements and bytes of one block of each tensor type that has a known size. */
typedef struct type_row {
    uint32_t id;
    const char *name;
    uint32_t block, bytes;
} type_row;

static const type_row types[] = {
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},
    {3, "Q4_1", 32, 20},      {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},      {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74},  {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},  {22, "IQ2_S", 256, 82},
    {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},
    {29, "IQ1_M", 256, 56},   {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},    {40, "NVFP4", 64, 36},
    {41, "Q1_0", 128, 18},    {42, "Q2_0", 64, 18},
};

static const type_row *find_type(uint32_t id)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].id == id) return &types[i];
    return NULL;
}

const char *dure_gguf_type_name(uint32_t type)
{
    static _Thread_local char unknown[24];
    const type_row *row = find_type(type);
    if (row) return row->name;
    snprintf(unknown, sizeof unknown, "type %u", type);
    return unknown;
}

dure_err dure_gguf_row_bytes(size_t *bytes, uint32_t type, uint64_t n, dure_diag *diag)
{
    const type_row *row = find_type(type);
    if (!row)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "tensor type %u is not one that Dure knows; use a file whose tensors "
                             "are of the types F32, "
                             "F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL or IQ4_XS",
                             type);
    if (n % row->block)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "a row of %llu elements is not made of whole %s blocks of %u",
                             (unsigned long long)n, row->name, row->block);
    if (n / row->block > SIZE_MAX / row->bytes)
        return dure_diag_set(diag, DURE_ERR_LIMIT, "a row is too long");
    *bytes = (size_t)(n / row->block) * row->bytes;
    return DURE_OK;
}

uint32_t gguf_load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint64_t gguf_load_u64(const uint8_t *p)
{
    return gguf_load_u32(p) | (uint64_t)gguf_load_u32(p + 4) << 32;
}

/* Of a fixed-size value type; 0 for texts, arrays and unknown types. */
static size_t value_bytes(uint32_t type)
{
    static const uint8_t bytes[GGUF_VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < GGUF_VALUE_TYPES ? bytes[type] : 0;
}

/* The position in the file and where its errors go. */
typedef struct cursor {
    const uint8_t *at, *end;
    dure_diag *diag;
    const char *what; /* the key or tensor being read; NULL in the header */
} cursor;

static dure_err wrong(const cursor *c, dure_err err, const char *text)
{
    if (c->what) return dure_diag_set(c->diag, err, "%.96s: %s", c->what, text);
    return dure_diag_set(c->diag, err, "%s", text);
}

static dure_err take(const uint8_t **out, cursor *c, uint64_t n)
{
    if (n > (uint64_t)(c->end - c->at)) return wrong(c, DURE_ERR_FORMAT, "the file ends too early");
    *out = c->at;
    c->at += n;
    return DURE_OK;
}

static dure_err take_u32(uint32_t *out, cursor *c)
{
    const uint8_t *p = NULL;
    dure_err err = take(&p, c, 4);
    if (!err) *out = gguf_load_u32(p);
    return err;
}

static dure_err take_u64(uint64_t *out, cursor *c)
{
    const uint8_t *p = NULL;
    dure_err err = take(&p, c, 8);
    if (!err) *out = gguf_load_u64(p);
    return err;
}

static dure_err take_text(dure_span *out, cursor *c, uint64_t max)
{
    uint64_t n = 0;
    dure_err err = take_u64(&n, c);
    if (err) return err;
    if (n > max) return wrong(c, DURE_ERR_LIMIT, "a text is longer than the limit");
    const uint8_t *p = NULL;
    err = take(&p, c, n);
    if (!err) *out = dure_span_of(p, (size_t)n);
    return err;
}

/* Names are printed in errors and compared as C texts: printable ASCII without blanks only. */
static bool is_name(dure_span text)
{
    for (size_t i = 0; i < text.n; i++)
        if (text.data[i] <= ' ' || text.data[i] > '~') return false;
    return text.n > 0;
}

static dure_err read_bools(cursor *c, const gguf_value *value)
{
    for (uint64_t i = 0; i < value->n; i++)
        if (value->data[i] > 1) return wrong(c, DURE_ERR_FORMAT, "a bool is neither 0 nor 1");
    return DURE_OK;
}

static dure_err read_texts(cursor *c, const dure_gguf *g, gguf_value *value)
{
    /* Each text takes at least its length of 8 bytes, so `n` is bounded by the file. */
    if (value->n > (uint64_t)(c->end - c->at) / 8)
        return wrong(c, DURE_ERR_FORMAT, "an array is longer than the file");
    value->texts = malloc(((size_t)value->n + 1) * sizeof *value->texts);
    if (!value->texts) return DURE_ERR_NOMEM;
    for (uint64_t i = 0; i < value->n; i++) {
        dure_span text;
        value->texts[i] = c->at;
        dure_err err = take_text(&text, c, g->limits.max_text_bytes);
        if (err) return err;
    }
    return DURE_OK;
}

static dure_err read_array_head(gguf_value *value, cursor *c, const dure_gguf *g)
{
    value->is_array = true;
    dure_err err = take_u32(&value->element, c);
    if (!err) err = take_u64(&value->n, c);
    if (err) return err;
    if (value->element == GGUF_ARRAY)
        return wrong(c, DURE_ERR_UNSUPPORTED, "an array of arrays is not supported");
    if (value->n > g->limits.max_array)
        return wrong(c, DURE_ERR_LIMIT, "an array has more elements than the limit");
    return DURE_OK;
}

static dure_err read_value(gguf_value *value, cursor *c, const dure_gguf *g)
{
    dure_err err = take_u32(&value->element, c);
    if (err) return err;
    value->n = 1;
    if (value->element == GGUF_ARRAY) err = read_array_head(value, c, g);
    if (err) return err;
    if (value->element == GGUF_TEXT) return read_texts(c, g, value);
    size_t bytes = value_bytes(value->element);
    if (bytes == 0) return wrong(c, DURE_ERR_FORMAT, "the value is of an unknown type");
    /* n is at most max_array, far below 2^61, so the product cannot wrap. */
    if (value->n > (uint64_t)(c->end - c->at) / bytes)
        return wrong(c, DURE_ERR_FORMAT, "the value is longer than the file");
    err = take(&value->data, c, value->n * bytes);
    if (!err && value->element == GGUF_BOOL) err = read_bools(c, value);
    return err;
}

static dure_err read_keys(dure_gguf *g, cursor *c, uint64_t n)
{
    g->values = calloc((size_t)n + 1, sizeof *g->values);
    if (!g->values) return DURE_ERR_NOMEM;
    for (uint64_t i = 0; i < n; i++) {
        gguf_value *value = &g->values[i];
        dure_span key = {0};
        c->what = NULL;
        dure_err err = take_text(&key, c, g->limits.max_key_bytes);
        if (err) return err;
        if (!is_name(key))
            return wrong(c, DURE_ERR_FORMAT,
                         "a key is empty or holds something but printable "
                         "ASCII");
        value->key = strndup((const char *)key.data, key.n);
        if (!value->key) return DURE_ERR_NOMEM;
        g->n_values++;
        c->what = value->key;
        const uint8_t *start = c->at;
        err = read_value(value, c, g);
        if (err) return err;
        value->raw = dure_span_of(start, (size_t)(c->at - start));
    }
    return DURE_OK;
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const gguf_value *const *)a)->key, (*(const gguf_value *const *)b)->key);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const gguf_entry *const *)a)->name, (*(const gguf_entry *const *)b)->name);
}

static dure_err index_keys(dure_gguf *g, dure_diag *diag)
{
    g->values_by_key = malloc((g->n_values + 1) * sizeof *g->values_by_key);
    if (!g->values_by_key) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < g->n_values; i++)
        g->values_by_key[i] = &g->values[i];
    qsort(g->values_by_key, g->n_values, sizeof *g->values_by_key, by_key);
    for (size_t i = 1; i < g->n_values; i++)
        if (!by_key(&g->values_by_key[i - 1], &g->values_by_key[i]))
            return dure_diag_set(diag, DURE_ERR_FORMAT, "the key %.96s appears twice",
                                 g->values_by_key[i]->key);
    return DURE_OK;
}

dure_err gguf_index_tensors(dure_gguf *g, dure_diag *diag)
{
    free(g->entries_by_name);
    g->entries_by_name = malloc((g->n_entries + 1) * sizeof *g->entries_by_name);
    if (!g->entries_by_name) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < g->n_entries; i++)
        g->entries_by_name[i] = &g->entries[i];
    qsort(g->entries_by_name, g->n_entries, sizeof *g->entries_by_name, by_name);
    for (size_t i = 1; i < g->n_entries; i++)
        if (!by_name(&g->entries_by_name[i - 1], &g->entries_by_name[i]))
            return dure_diag_set(diag, DURE_ERR_FORMAT, "the tensor %s appears twice",
                                 g->entries_by_name[i]->name);
    return DURE_OK;
}

static dure_err read_alignment(dure_gguf *g, dure_diag *diag)
{
    uint32_t alignment = DEFAULT_ALIGNMENT;
    if (dure_gguf_has(g, "general.alignment")) {
        dure_err err = dure_gguf_u32(&alignment, g, "general.alignment", diag);
        if (err) return err;
    }
    if (alignment == 0 || (alignment & (alignment - 1)) || alignment > g->limits.max_alignment)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "general.alignment is %u, not a power of two of at most %llu",
                             alignment, (unsigned long long)g->limits.max_alignment);
    g->alignment = alignment;
    return DURE_OK;
}

static dure_err read_dims(dure_gguf_tensor *tensor, cursor *c)
{
    dure_err err = take_u32(&tensor->n_dims, c);
    if (err) return err;
    if (tensor->n_dims > MAX_DIMS)
        return wrong(c, DURE_ERR_FORMAT, "the tensor has more than 4 dimensions");
    uint64_t elements = 1;
    for (uint32_t i = 0; i < MAX_DIMS; i++) {
        tensor->dims[i] = 1;
        if (i >= tensor->n_dims) continue;
        err = take_u64(&tensor->dims[i], c);
        if (err) return err;
        if (tensor->dims[i] > INT64_MAX ||
            __builtin_mul_overflow(elements, tensor->dims[i], &elements) || elements > INT64_MAX)
            return wrong(c, DURE_ERR_LIMIT, "the tensor's dimensions are too large");
    }
    return DURE_OK;
}

static dure_err size_tensor(dure_gguf_tensor *tensor, const cursor *c)
{
    size_t row = 0;
    dure_err err = dure_gguf_row_bytes(&row, tensor->type, tensor->dims[0], c->diag);
    if (err) return dure_diag_prefix(c->diag, err, "%s", tensor->name);
    size_t bytes = row;
    for (uint32_t i = 1; i < MAX_DIMS; i++)
        if (!dure_size_mul(&bytes, bytes, (size_t)tensor->dims[i]))
            return wrong(c, DURE_ERR_LIMIT, "the tensor is too large");
    tensor->bytes = bytes;
    return DURE_OK;
}

static dure_err read_tensor(gguf_entry *entry, cursor *c)
{
    dure_span name = {0};
    c->what = NULL;
    dure_err err = take_text(&name, c, sizeof entry->name - 1);
    if (err) return err;
    if (!is_name(name))
        return wrong(c, DURE_ERR_FORMAT,
                     "a tensor's name is empty or holds something but printable ASCII");
    memcpy(entry->name, name.data, name.n);
    entry->tensor.name = c->what = entry->name;
    err = read_dims(&entry->tensor, c);
    if (!err) err = take_u32(&entry->tensor.type, c);
    if (!err) err = take_u64(&entry->offset, c);
    if (!err) err = size_tensor(&entry->tensor, c);
    return err;
}

/* Gives every tensor its data, one after the other from the aligned end of the header. */
static dure_err place_tensors(dure_gguf *g, cursor *c)
{
    uint64_t mask = g->alignment - 1;
    uint64_t header = (uint64_t)(c->at - g->bytes.data);
    uint64_t start = (header + mask) & ~mask;
    uint64_t room = start < g->bytes.n ? g->bytes.n - start : 0;
    uint64_t expected = 0;
    for (size_t i = 0; i < g->n_entries; i++) {
        gguf_entry *entry = &g->entries[i];
        c->what = entry->name;
        if (entry->offset != expected)
            return wrong(c, DURE_ERR_FORMAT,
                         "the tensor does not follow the one before it at the next aligned place");
        if (expected > room || entry->tensor.bytes > room - expected)
            return wrong(c, DURE_ERR_FORMAT, "the tensor's data end after the file");
        entry->tensor.data = entry->tensor.bytes ? g->bytes.data + start + expected : NULL;
        expected += (entry->tensor.bytes + mask) & ~mask; /* at most room + 65535 */
    }
    return DURE_OK;
}

static dure_err read_header(uint64_t *n_tensors, uint64_t *n_keys, cursor *c, const dure_gguf *g)
{
    const uint8_t *magic = NULL;
    uint32_t version = 0;
    if (c->end - c->at < GGUF_HEADER_BYTES || memcmp(c->at, "GGUF", 4) != 0)
        return wrong(c, DURE_ERR_FORMAT, GGUF_NOT_ONE);
    dure_err err = take(&magic, c, 4);
    if (!err) err = take_u32(&version, c);
    if (!err) err = take_u64(n_tensors, c);
    if (!err) err = take_u64(n_keys, c);
    if (err) return err;
    if ((version & 0xffff) == 0)
        return wrong(c, DURE_ERR_UNSUPPORTED,
                     "the file is big-endian; convert it with gguf_convert_endian.py");
    if (version != 2 && version != 3)
        return dure_diag_set(c->diag, DURE_ERR_UNSUPPORTED,
                             "GGUF version %u is not supported; convert the model again, which "
                             "writes version 3",
                             version);
    if (*n_tensors > g->limits.max_tensors || *n_keys > g->limits.max_keys)
        return wrong(c, DURE_ERR_LIMIT, "the file declares more tensors or keys than the limit");
    if (*n_tensors + *n_keys > (uint64_t)(c->end - c->at) / LEAST_ITEM_BYTES)
        return wrong(c, DURE_ERR_FORMAT, "the file declares more tensors and keys than it holds");
    return DURE_OK;
}

static dure_err parse(dure_gguf *g, dure_diag *diag)
{
    cursor c = {.at = g->bytes.data, .end = g->bytes.data + g->bytes.n, .diag = diag};
    uint64_t n_tensors = 0, n_keys = 0;
    dure_err err = read_header(&n_tensors, &n_keys, &c, g);
    if (!err) err = read_keys(g, &c, n_keys);
    if (!err) err = index_keys(g, diag);
    if (!err) err = read_alignment(g, diag);
    if (err) return err;
    g->entries = calloc((size_t)n_tensors + 1, sizeof *g->entries);
    if (!g->entries) return DURE_ERR_NOMEM;
    for (; g->n_entries < n_tensors; g->n_entries++) {
        err = read_tensor(&g->entries[g->n_entries], &c);
        if (err) return err;
    }
    err = gguf_index_tensors(g, diag);
    if (!err) err = place_tensors(g, &c);
    return err;
}

/* The fix for a file that contradicts itself, whatever the contradiction. */
static void say_damaged(dure_diag *diag, dure_span bytes, dure_err err)
{
    if (!diag || (err != DURE_ERR_FORMAT && err != DURE_ERR_LIMIT)) return;
    if (bytes.n < GGUF_HEADER_BYTES || memcmp(bytes.data, "GGUF", 4) != 0) return;
    size_t n = strlen(diag->text);
    snprintf(diag->text + n, sizeof diag->text - n, "; the file is damaged, get it again");
}

dure_err gguf_parse_file(dure_gguf **out, dure_span bytes, const dure_gguf_limits *limits,
                         dure_diag *diag)
{
    *out = NULL;
    dure_gguf *g = calloc(1, sizeof *g);
    if (!g) return DURE_ERR_NOMEM;
    g->bytes = bytes;
    g->limits = limits ? *limits : dure_gguf_default_limits;
    dure_err err = parse(g, diag);
    if (err) {
        dure_gguf_close(&g);
        say_damaged(diag, bytes, err);
        return err;
    }
    *out = g;
    return DURE_OK;
}

void dure_gguf_close(dure_gguf **g)
{
    if (!g || !*g) return;
    dure_gguf *old = *g;
    for (size_t i = 0; i < old->n_values; i++) {
        free(old->values[i].key);
        free(old->values[i].texts);
    }
    free(old->values);
    free(old->values_by_key);
    free(old->entries);
    free(old->entries_by_name);
    gguf_unmap(old->maps, old->n_maps);
    free(old);
    *g = NULL;
}

size_t dure_gguf_tensor_count(const dure_gguf *g)
{
    return g->n_entries;
}

const dure_gguf_tensor *dure_gguf_tensor_at(const dure_gguf *g, size_t i)
{
    return i < g->n_entries ? &g->entries[i].tensor : NULL;
}

const dure_gguf_tensor *dure_gguf_find(const dure_gguf *g, const char *name)
{
    size_t low = 0, high = g->n_entries;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, g->entries_by_name[middle]->name);
        if (order == 0) return &g->entries_by_name[middle]->tensor;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

dure_err dure_gguf_check_finite(const dure_gguf *g, dure_diag *diag)
{
    size_t weights, bytes;
    for (size_t i = 0; i < g->n_entries; i++) {
        const dure_gguf_tensor *t = &g->entries[i].tensor;
        if (t->bytes == 0 || !dure_quant_block(&weights, &bytes, t->type)) continue;
        if (!dure_quant_finite(t->data, t->bytes / bytes * weights, t->type))
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "the tensor %s holds a %s that is infinite or not a number; the "
                                 "file is damaged, get it again",
                                 t->name, weights > 1 ? "block scale" : "weight");
    }
    /* Whoever packs or decodes the weights reads the pages again; until then they need not count
     * as this process's memory. */
    dure_gguf_let_go(g);
    return DURE_OK;
}
