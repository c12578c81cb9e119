#include "common/file.h"
#include "common/json.h"
#include "model/adapter_int.h"
#include "model/gguf.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG = 1 << 20 };

/* Where a target sits in a layer of the transformers model. */
static const char *const module_names[DURE_LORA_TARGETS] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",
};

static const char prefix[] = "base_model.model.model.layers.";
static const char note_prefix[] = "dure.note.";

/* The module's name alone ("q_proj"), as "target_modules" has it. */
static const char *short_name(int target)
{
    return strchr(module_names[target], '.') + 1;
}

static json_t *make_config(const dure_lora *lora, const char *base_name)
{
    const dure_lora_layout *layout = &lora->layout;
    json_t *modules = json_array(), *layers = json_null();
    for (int target = 0; target < DURE_LORA_TARGETS; target++)
        if (layout->targets >> target & 1)
            json_array_append_new(modules, json_string(short_name(target)));
    if (layout->first_layer > 0) {
        layers = json_array();
        for (uint32_t i = layout->first_layer; i < layout->shape.n_layers; i++)
            json_array_append_new(layers, json_integer(i));
    }
    json_t *ranks = json_object();
    for (int target = 0; target < DURE_LORA_TARGETS; target++)
        if (layout->ranks[target])
            json_object_set_new(ranks, short_name(target), json_integer(layout->ranks[target]));
    double alpha = (double)layout->alpha;
    json_t *scale = alpha == floor(alpha) ? json_integer((json_int_t)alpha) : json_real(alpha);
    return json_pack("{s:s, s:s, s:s, s:i, s:o, s:o, s:f, s:s, s:b, s:b, s:b, s:b, s:b, s:n, s:o,"
                     " s:{}, s:o}",
                     "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path",
                     base_name, "r", (int)layout->rank, "lora_alpha", scale, "target_modules",
                     modules, "lora_dropout", 0.0, "bias", "none", "fan_in_fan_out", 0,
                     "inference_mode", 1, "init_lora_weights", 1, "use_rslora", 0, "use_dora",
                     layout->dora, "modules_to_save", "rank_pattern", ranks, "alpha_pattern",
                     "layers_to_transform", layers);
}

static json_t *make_metadata(const dure_adapter_notes *notes)
{
    json_t *out = json_pack("{s:s}", "format", "pt");
    if (!notes) return out;
    if (notes->base_digest[0])
        json_object_set_new(out, "dure.base.sha256", json_string(notes->base_digest));
    const char *name;
    json_t *value;
    json_object_foreach(notes->texts, name, value)
    {
        char key[sizeof note_prefix + 64];
        snprintf(key, sizeof key, "%s%s", note_prefix, name);
        json_object_set(out, key, value);
    }
    return out;
}

/* The folder's tensors while they are gathered: `data` has the parameters in the checkpoint's row
 * order, each tensor's at the offset it has in the adapter. */
typedef struct gathered {
    float *data;
    dure_safetensor *tensors;
    char (*names)[128];
    size_t n;
} gathered;

/* Copies rows into the checkpoint's order and names them. */
static void gather(gathered *to, const dure_lora *lora, const dure_adapter_part *part,
                   size_t offset)
{
    static const char *const suffixes[] = {"lora_A.weight", "lora_B.weight",
                                           "lora_magnitude_vector"};
    bool is_a = part->factor == DURE_LORA_FACTOR_A;
    for (uint32_t row = 0; row < part->rows; row++) {
        size_t from = is_a ? row : dure_adapter_gguf_row(&lora->layout.shape, part->target, row);
        memcpy(to->data + offset + (size_t)row * part->cols,
               lora->params + offset + from * part->cols, part->cols * sizeof(float));
    }
    snprintf(to->names[to->n], sizeof to->names[0], "%s%u.%s.%s", prefix, part->layer,
             module_names[part->target],
             suffixes[part->is_magnitude ? 2
                      : is_a             ? 0
                                         : 1]);
    to->tensors[to->n] = (dure_safetensor){.name = to->names[to->n],
                                           .type = DURE_GGUF_F32,
                                           .rows = part->rows,
                                           .cols = part->cols,
                                           .is_vector = part->is_magnitude,
                                           .data = (const uint8_t *)(to->data + offset)};
    to->n++;
}

static void gather_matrix(gathered *to, const dure_lora *lora, uint32_t layer,
                          dure_lora_target target)
{
    const dure_lora_layout *layout = &lora->layout;
    dure_adapter_part part = {.layer = layer,
                              .target = target,
                              .factor = DURE_LORA_FACTOR_A,
                              .rows = dure_lora_rank(layout, target),
                              .cols = dure_lora_in(&layout->shape, target)};
    size_t offset = 0;
    if (!dure_lora_find(&offset, layout, layer, target, DURE_LORA_FACTOR_A)) return;
    gather(to, lora, &part, offset);
    offset += part.rows * part.cols;
    part.factor = DURE_LORA_FACTOR_B;
    part.cols = part.rows;
    part.rows = dure_lora_out(&layout->shape, target);
    gather(to, lora, &part, offset);
    if (!dure_lora_find_magnitude(&offset, layout, layer, target)) return;
    part.is_magnitude = true;
    part.cols = 1;
    gather(to, lora, &part, offset);
}

static dure_err encode_tensors(dure_buf *out, const dure_lora *lora, const json_t *metadata)
{
    uint32_t n_layers = lora->layout.shape.n_layers;
    size_t most = (size_t)n_layers * 3 * DURE_LORA_TARGETS;
    gathered g = {.data = malloc(lora->n * sizeof *g.data),
                  .tensors = calloc(most, sizeof *g.tensors),
                  .names = calloc(most, sizeof *g.names)};
    dure_err err = g.data && g.tensors && g.names ? DURE_OK : DURE_ERR_NOMEM;
    for (uint32_t layer = lora->layout.first_layer; layer < n_layers && !err; layer++) {
        for (int target = 0; target < DURE_LORA_TARGETS; target++)
            gather_matrix(&g, lora, layer, (dure_lora_target)target);
    }
    if (!err) err = dure_safetensors_encode(out, g.tensors, g.n, metadata);
    free(g.data);
    free(g.tensors);
    free(g.names);
    return err;
}

dure_err dure_adapter_save_peft(const char *folder, const dure_lora *lora, const char *base_name,
                                const dure_adapter_notes *notes, dure_diag *diag)
{
    dure_err err = dure_adapter_notes_check(notes, diag);
    if (!err) err = dure_dir_make(folder, diag);
    if (err) return err;
    dure_buf bytes;
    dure_buf_init(&bytes, SIZE_MAX);
    json_t *config = make_config(lora, base_name), *metadata = make_metadata(notes);
    char *config_path = dure_path_join(folder, "adapter_config.json");
    char *tensors_path = dure_path_join(folder, "adapter_model.safetensors");
    if (!config || !metadata || !config_path || !tensors_path) err = DURE_ERR_NOMEM;
    if (!err) err = encode_tensors(&bytes, lora, metadata);
    if (!err) err = dure_file_write_atomic(tensors_path, dure_buf_span(&bytes), 0644, diag);
    if (!err) err = dure_json_write(config_path, config, 0644, diag);
    free(config_path);
    free(tensors_path);
    json_decref(config);
    json_decref(metadata);
    dure_buf_fini(&bytes);
    return err;
}

static dure_err refuse(dure_diag *diag, const char *what)
{
    return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                         "the adapter uses %s, which a plain LoRA cannot express", what);
}

static bool is_set(const json_t *config, const char *key)
{
    const json_t *value = json_object_get(config, key);
    return value && !json_is_null(value) && !json_is_false(value) &&
           !(json_is_object(value) && !json_object_size(value)) &&
           !(json_is_array(value) && !json_array_size(value));
}

static bool is_text(const json_t *config, const char *key, const char *wanted)
{
    const char *text = json_string_value(json_object_get(config, key));
    return text && !strcmp(text, wanted);
}

/* All that would change what the factors mean. */
static dure_err check_config(const json_t *config, dure_diag *diag)
{
    static const struct {
        const char *key, *what;
    } unsupported[] = {
        {"alpha_pattern", "an alpha pattern"},
        {"modules_to_save", "saved modules"},
        {"fan_in_fan_out", "transposed weights (fan_in_fan_out)"},
        {"lora_bias", "biases in B"},
        {"use_qalora", "QALoRA"},
        {"use_bdlora", "BD-LoRA"},
        {"alora_invocation_tokens", "an activating text (aLoRA)"},
        {"trainable_token_indices", "trained tokens"},
        {"layer_replication", "replicated layers"},
        {"target_parameters", "target parameters"},
    };
    if (!is_text(config, "peft_type", "LORA"))
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED, "\"peft_type\" is not \"LORA\"");
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++)
        if (is_set(config, unsupported[i].key)) return refuse(diag, unsupported[i].what);
    if (is_set(config, "bias") && !is_text(config, "bias", "none")) return refuse(diag, "biases");
    if (json_is_string(json_object_get(config, "init_lora_weights")) &&
        !is_text(config, "init_lora_weights", "gaussian") &&
        !is_text(config, "init_lora_weights", "orthogonal"))
        return refuse(diag, "a start that changes the base's weights (init_lora_weights)");
    return DURE_OK;
}

/* A rank for a target, whose name is that of its module or the last part of it. */
static dure_err read_rank_pattern(dure_adapter_config *out, const json_t *pattern, dure_diag *diag)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)pattern, key, value)
    {
        int target = 0;
        while (target < DURE_LORA_TARGETS && strcmp(key, short_name(target)) != 0 &&
               strcmp(key, module_names[target]) != 0)
            target++;
        json_int_t rank = json_integer_value(value);
        if (target == DURE_LORA_TARGETS)
            return refuse(diag, "a rank pattern of other names than whole targets");
        if (rank < 1 || rank > UINT32_MAX || out->ranks[target])
            return dure_diag_set(diag, DURE_ERR_FORMAT, "the rank pattern of %s is no rank", key);
        out->ranks[target] = (uint32_t)rank;
    }
    return DURE_OK;
}

/* PEFT scales by alpha / sqrt(r) with use_rslora and by alpha / r otherwise. */
static dure_err read_scale(dure_adapter_config *out, const json_t *config, dure_diag *diag)
{
    double value = 0;
    dure_err err = dure_json_number(&value, config, "lora_alpha", diag);
    if (!err && is_set(config, "use_rslora")) {
        if (is_set(config, "rank_pattern")) return refuse(diag, "rsLoRA with a rank pattern");
        value *= sqrt((double)out->rank);
    }
    if (!err && !(value > 0 && value < 1e9))
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "\"lora_alpha\" is not a positive number");
    out->alpha = (float)value;
    return err;
}

dure_err dure_adapter_parse_config(dure_adapter_config *out, dure_span text, const char *name,
                                   dure_diag *diag)
{
    json_t *config = NULL;
    uint64_t rank = 0;
    *out = (dure_adapter_config){.alpha = 0};
    dure_err err = dure_json_parse(&config, text, name, diag);
    if (err) return err;
    if (!json_is_object(config))
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "the file is not a JSON object");
    if (!err) err = check_config(config, diag);
    if (!err) err = dure_json_u64(&rank, config, "r", diag);
    if (!err && (rank == 0 || rank > UINT32_MAX))
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "\"r\" is no rank");
    out->rank = (uint32_t)rank;
    out->dora = is_set(config, "use_dora");
    if (!err) err = read_rank_pattern(out, json_object_get(config, "rank_pattern"), diag);
    if (!err) err = read_scale(out, config, diag);
    json_decref(config);
    return err ? dure_diag_prefix(diag, err, "%s", name) : DURE_OK;
}

static dure_err read_config(dure_adapter_config *out, const char *path, dure_diag *diag)
{
    dure_buf text = {0};
    dure_err err = dure_file_read(&text, path, MAX_CONFIG, diag);
    if (!err) err = dure_adapter_parse_config(out, dure_buf_span(&text), path, diag);
    dure_buf_fini(&text);
    return err;
}

/* What the tensors are must be what the configuration says. */
static dure_err check_agrees(const dure_lora_layout *layout, const dure_adapter_config *config,
                             dure_diag *diag)
{
    if (layout->dora != config->dora)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "the magnitudes of DoRA are %s, against what \"use_dora\" says",
                             layout->dora ? "there" : "not there");
    for (int target = 0; target < DURE_LORA_TARGETS; target++) {
        uint32_t want = config->ranks[target] ? config->ranks[target] : config->rank;
        uint32_t rank = dure_lora_rank(layout, (dure_lora_target)target);
        if (!(layout->targets >> target & 1) || rank == want) continue;
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "the rank of %s is %u, but the configuration says %u",
                             short_name(target), rank, want);
    }
    return DURE_OK;
}

static bool parse_name(dure_adapter_part *out, const char *name)
{
    uint32_t layer = 0;
    size_t n = sizeof prefix - 1;
    if (strncmp(name, prefix, n) != 0 || name[n] < '0' || name[n] > '9') return false;
    const char *at = name + n;
    for (; *at >= '0' && *at <= '9' && layer < 100000; at++)
        layer = layer * 10 + (uint32_t)(*at - '0');
    for (int target = 0; target < DURE_LORA_TARGETS; target++) {
        size_t length = strlen(module_names[target]);
        if (*at != '.' || strncmp(at + 1, module_names[target], length) != 0) continue;
        const char *rest = at + 1 + length;
        bool is_a = !strcmp(rest, ".lora_A.weight");
        out->is_magnitude = !strcmp(rest, ".lora_magnitude_vector");
        if (!is_a && !out->is_magnitude && strcmp(rest, ".lora_B.weight") != 0) return false;
        out->layer = layer;
        out->target = (dure_lora_target)target;
        out->factor = is_a ? DURE_LORA_FACTOR_A : DURE_LORA_FACTOR_B;
        return true;
    }
    return false;
}

static dure_err read_notes(dure_adapter_notes *out, const dure_safetensors *file, dure_diag *diag)
{
    const char *key;
    json_t *value;
    json_t *metadata = json_object_get(file->header, "__metadata__");
    json_object_foreach(metadata, key, value)
    {
        dure_span text = dure_span_of(json_string_value(value), json_string_length(value));
        dure_err err = DURE_OK;
        if (!strcmp(key, "dure.base.sha256")) {
            if (text.n != 64)
                return dure_diag_set(diag, DURE_ERR_FORMAT,
                                     "dure.base.sha256 is not 64 hex digits");
            memcpy(out->base_digest, text.data, 64);
        } else if (!strncmp(key, note_prefix, sizeof note_prefix - 1) && json_is_string(value)) {
            err = dure_adapter_notes_add(out, key + sizeof note_prefix - 1, text, diag);
        }
        if (err) return err;
    }
    return dure_adapter_notes_check(out, diag);
}

dure_err dure_adapter_parse_safetensors(dure_lora **out, dure_adapter_notes *notes, dure_span bytes,
                                        float alpha, const dure_model_shape *shape, dure_diag *diag)
{
    dure_safetensors file;
    *out = NULL;
    dure_err err = dure_safetensors_parse(&file, bytes, diag);
    if (err) return err;
    dure_adapter_part *parts = calloc(file.n + 1, sizeof *parts);
    if (!parts) err = DURE_ERR_NOMEM;
    for (size_t i = 0; i < file.n && !err; i++) {
        const dure_safetensor *t = &file.tensors[i];
        parts[i] = (dure_adapter_part){
            .name = t->name, .type = t->type, .rows = t->rows, .cols = t->cols, .data = t->data};
        if (!parse_name(&parts[i], t->name) || parts[i].is_magnitude != t->is_vector)
            err = dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                                "the adapter has the tensor %.128s; only factors of attention and "
                                "feed-forward matrices are supported",
                                t->name);
    }
    dure_adapter_parts from = {
        .parts = parts, .n = file.n, .alpha = alpha, .checkpoint_rows = true};
    if (!err) err = dure_adapter_assemble(out, &from, shape, diag);
    if (!err && notes) err = read_notes(notes, &file, diag);
    if (err) dure_lora_free(out);
    free(parts);
    dure_safetensors_fini(&file);
    return err;
}

dure_err dure_adapter_load_peft(dure_lora **out, dure_adapter_notes *notes, const char *folder,
                                const dure_model_shape *shape, dure_diag *diag)
{
    *out = NULL;
    if (notes) *notes = (dure_adapter_notes){0};
    dure_adapter_config config = {.alpha = 0};
    dure_buf bytes = {0};
    size_t data = dure_lora_count_most(shape) * sizeof(float);
    size_t most = sizeof(uint64_t) + DURE_SAFETENSORS_HEADER_MAX + data;
    char *config_path = dure_path_join(folder, "adapter_config.json");
    char *tensors_path = dure_path_join(folder, "adapter_model.safetensors");
    dure_err err = config_path && tensors_path ? DURE_OK : DURE_ERR_NOMEM;
    if (!err) err = read_config(&config, config_path, diag);
    if (!err) err = dure_file_read(&bytes, tensors_path, most, diag);
    if (!err) {
        dure_span span = dure_buf_span(&bytes);
        err = dure_adapter_parse_safetensors(out, notes, span, config.alpha, shape, diag);
        if (!err) err = check_agrees(&(*out)->layout, &config, diag);
        if (err) dure_diag_prefix(diag, err, "%s", tensors_path);
    }
    if (err) dure_lora_free(out);
    if (err && notes) dure_adapter_notes_fini(notes);
    dure_buf_fini(&bytes);
    free(config_path);
    free(tensors_path);
    return err;
}
