#include "kernels/compute.h"
#include "kernels/dequant.h"
#include "model/adapter_int.h"
#include "model/arch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NOTE_NAME = 64, MAX_NOTES = 256, MAX_NOTE_BYTES = 1 << 16 };

/* In the architecture llama the converter interleaves the two halves of each head of q and k: row
 * h*hd + p*hd/2 + i of the checkpoint is row h*hd + 2*i + p of the GGUF. Others keep the order. */
uint32_t dure_adapter_gguf_row(const dure_model_shape *shape, dure_lora_target target, uint32_t row)
{
    if (target != DURE_LORA_Q && target != DURE_LORA_K) return row;
    if (!dure_model_arch_interleaves(shape->architecture)) return row;
    uint32_t hd = shape->head_dim, head = row / hd, within = row % hd;
    return head * hd + 2 * (within % (hd / 2)) + within / (hd / 2);
}

static dure_err other_base(dure_diag *diag, const dure_adapter_part *part, const char *why)
{
    return dure_diag_set(
        diag, DURE_ERR_STATE,
        "the adapter belongs to another base model: %.128s %s; give the base that the "
        "adapter was made for",
        part->name, why);
}

static dure_err find_layout(dure_lora_layout *out, const dure_adapter_parts *from,
                            const dure_model_shape *shape, dure_diag *diag)
{
    *out =
        (dure_lora_layout){.shape = *shape, .alpha = from->alpha, .first_layer = shape->n_layers};
    if (from->n == 0)
        return dure_diag_set(diag, DURE_ERR_FORMAT, "the adapter holds no LoRA tensor");
    for (size_t i = 0; i < from->n; i++) {
        const dure_adapter_part *part = &from->parts[i];
        uint64_t rank = part->factor == DURE_LORA_FACTOR_A ? part->rows : part->cols;
        if (part->layer >= shape->n_layers) return other_base(diag, part, "is of a layer too high");
        uint32_t *known = &out->ranks[part->target];
        if (part->is_magnitude) {
            out->dora = true;
            continue;
        }
        if (rank == 0 || rank > UINT32_MAX || (*known && *known != rank))
            return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                                 "%.128s has rank %llu, the same matrix of another layer %u; one "
                                 "rank a target is supported",
                                 part->name, (unsigned long long)rank, *known);
        *known = (uint32_t)rank;
        out->targets |= 1u << part->target;
        if (part->layer < out->first_layer) out->first_layer = part->layer;
    }
    dure_lora_ranks_settle(out);
    dure_err err = dure_lora_layout_check(out, diag);
    return err ? dure_diag_prefix(diag, DURE_ERR_UNSUPPORTED, "the adapter") : DURE_OK;
}

/* The size that the base asks of one part. Checked before anything is allocated, so what is
 * allocated is bounded by the file. */
static dure_err check_size(const dure_adapter_part *part, const dure_lora_layout *layout,
                           dure_diag *diag)
{
    bool is_a = part->factor == DURE_LORA_FACTOR_A;
    uint64_t rank = part->is_magnitude ? 1 : dure_lora_rank(layout, part->target);
    uint64_t rows = is_a ? rank : dure_lora_out(&layout->shape, part->target);
    uint64_t cols = is_a ? dure_lora_in(&layout->shape, part->target) : rank;
    if (part->rows == rows && part->cols == cols) return DURE_OK;
    return other_base(diag, part, "has sizes that do not fit this base");
}

/* Magnitudes say nothing of the layout, so they may lie outside it. */
static dure_err check_place(const dure_adapter_part *part, const dure_lora_layout *layout,
                            dure_diag *diag)
{
    if (part->layer >= layout->first_layer && layout->targets >> part->target & 1) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                         "%.128s belongs to a matrix that the adapter has no A and B of",
                         part->name);
}

/* As many parts as the layout has factors, none twice or elsewhere, so every factor is there. */
static dure_err check_complete(const dure_adapter_parts *from, const dure_lora_layout *layout,
                               dure_diag *diag)
{
    size_t n_layers = layout->shape.n_layers;
    size_t n = (n_layers - layout->first_layer) * (layout->dora ? 3 : 2) *
               (size_t)__builtin_popcount(layout->targets);
    if (n != from->n)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "the adapter has %zu tensors where %zu are needed: every layer from "
                             "%u to %zu must have A and B%s of the same matrices",
                             from->n, n, layout->first_layer, n_layers - 1,
                             layout->dora ? " and the magnitudes" : "");
    uint8_t *seen = calloc(n_layers * DURE_LORA_TARGETS, 1);
    if (!seen) return DURE_ERR_NOMEM;
    dure_err err = DURE_OK;
    for (size_t i = 0; i < n && !err; i++) {
        const dure_adapter_part *part = &from->parts[i];
        uint8_t *cell = &seen[part->layer * DURE_LORA_TARGETS + (size_t)part->target];
        err = check_place(part, layout, diag);
        if (!err) err = check_size(part, layout, diag);
        uint8_t bit = part->is_magnitude ? 4 : (uint8_t)part->factor;
        if (!err && (*cell & bit))
            err = dure_diag_set(diag, DURE_ERR_FORMAT, "%.128s is there twice", part->name);
        *cell |= bit;
    }
    free(seen);
    return err;
}

dure_err dure_adapter_parts_layout(dure_lora_layout *out, const dure_adapter_parts *from,
                                   const dure_model_shape *shape, dure_diag *diag)
{
    dure_err err = find_layout(out, from, shape, diag);
    return err ? err : check_complete(from, out, diag);
}

dure_err dure_adapter_part_row(float *out, const dure_adapter_part *part, uint64_t row,
                               dure_diag *diag)
{
    const size_t row_bytes = dure_quant_row_bytes(part->type, part->cols);
    dure_cpu_ops_of(DURE_CPU_REFERENCE)
        ->dequant(out, part->data + row * row_bytes, part->cols, part->type);
    for (size_t i = 0; i < part->cols; i++)
        if (!isfinite(out[i]))
            return dure_diag_set(diag, DURE_ERR_FORMAT, "%.128s holds a value that is not finite",
                                 part->name);
    return DURE_OK;
}

static dure_err copy_part(dure_lora *lora, const dure_adapter_part *part, bool checkpoint_rows,
                          dure_diag *diag)
{
    bool is_a = part->factor == DURE_LORA_FACTOR_A;
    size_t offset = 0;
    const dure_lora_layout *layout = &lora->layout;
    bool found = part->is_magnitude
                     ? dure_lora_find_magnitude(&offset, layout, part->layer, part->target)
                     : dure_lora_find(&offset, layout, part->layer, part->target, part->factor);
    dure_err err = DURE_OK;
    DURE_ASSERT(found);
    for (uint32_t row = 0; row < part->rows && !err; row++) {
        uint32_t to = checkpoint_rows && !is_a
                          ? dure_adapter_gguf_row(&layout->shape, part->target, row)
                          : row;
        err = dure_adapter_part_row(lora->params + offset + to * part->cols, part, row, diag);
    }
    return err;
}

dure_err dure_adapter_assemble(dure_lora **out, const dure_adapter_parts *from,
                               const dure_model_shape *shape, dure_diag *diag)
{
    *out = NULL;
    dure_lora_layout layout;
    dure_err err = dure_adapter_parts_layout(&layout, from, shape, diag);
    if (err) return err;
    dure_lora *lora = NULL;
    err = dure_lora_new(&lora, &layout);
    for (size_t i = 0; i < from->n && !err; i++)
        err = copy_part(lora, &from->parts[i], from->checkpoint_rows, diag);
    if (err)
        dure_lora_free(&lora);
    else
        *out = lora;
    return err;
}

void dure_adapter_notes_fini(dure_adapter_notes *notes)
{
    if (!notes) return;
    json_decref(notes->texts);
    *notes = (dure_adapter_notes){0};
}

static bool is_plain_name(const char *name)
{
    size_t n = 0;
    for (; name[n] > ' ' && name[n] <= '~'; n++)
        if (n == MAX_NOTE_NAME) return false;
    return n > 0 && !name[n];
}

static bool is_digest(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

dure_err dure_adapter_notes_check(const dure_adapter_notes *notes, dure_diag *diag)
{
    if (!notes) return DURE_OK;
    if (notes->base_digest[0] && !is_digest(notes->base_digest))
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "the base's digest is not 64 lower-case hex digits");
    if (json_object_size(notes->texts) > MAX_NOTES)
        return dure_diag_set(diag, DURE_ERR_LIMIT, "the adapter has more than %d notes", MAX_NOTES);
    const char *name;
    json_t *value;
    json_object_foreach(notes->texts, name, value)
    {
        if (!is_plain_name(name))
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "a note's name must be 1 to %d printable characters without "
                                 "blanks",
                                 MAX_NOTE_NAME);
        if (!json_is_string(value) || json_string_length(value) > MAX_NOTE_BYTES)
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "the note %s is not a text of at most %d bytes", name,
                                 MAX_NOTE_BYTES);
    }
    return DURE_OK;
}

dure_err dure_adapter_notes_add(dure_adapter_notes *notes, const char *name, dure_span text,
                                dure_diag *diag)
{
    if (!notes->texts) notes->texts = json_object();
    if (!notes->texts) return DURE_ERR_NOMEM;
    if (json_object_get(notes->texts, name))
        return dure_diag_set(diag, DURE_ERR_FORMAT, "the note %.64s is there twice", name);
    json_t *value = text.n ? json_stringn((const char *)text.data, text.n) : json_string("");
    if (!value) return dure_diag_set(diag, DURE_ERR_FORMAT, "the note %.64s is not UTF-8", name);
    return json_object_set_new(notes->texts, name, value) ? DURE_ERR_NOMEM : DURE_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

const char **dure_adapter_notes_sorted(size_t *n, const dure_adapter_notes *notes)
{
    const char **names = malloc((json_object_size(notes->texts) + 1) * sizeof *names);
    *n = 0;
    if (!names) return NULL;
    const char *name;
    json_t *value;
    json_object_foreach(notes->texts, name, value) names[(*n)++] = name;
    qsort(names, *n, sizeof *names, by_text);
    return names;
}
