/* dure model info: what a GGUF holds, whether Dure can train on it, and what that takes. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/text.h"
#include "client/trainer.h"
#include "crypto/hash.h"
#include "model/base_digest.h"
#include "model/chat_template.h"
#include "model/shape.h"

#include <stdio.h>
#include <string.h>

enum { MAX_TYPES = 64, TRAIN_TOKENS = 512, TRAIN_RANK = 16 };

typedef struct type_total {
    uint32_t type;
    uint64_t tensors, bytes;
} type_total;

typedef struct facts {
    char name[128];
    uint64_t parameters, bytes;
    type_total types[MAX_TYPES];
    size_t n_types;
    bool supported; /* shape, tensors and tokenizer are known */
    dure_diag why;  /* when not */
    bool has_shape;
    dure_model_shape shape;
    const char *tokenizer;
    size_t n_tokens;                    /* 0: the tokenizer is not supported */
    const char *chat;                   /* NULL: not known; plain texts need none */
    dure_diag no_chat;                  /* why */
    uint64_t memory_bytes, least_bytes; /* to train; 0: not known */
    char digest[65];
} facts;

static void count_types(facts *f, const dure_gguf *g)
{
    for (size_t i = 0; i < dure_gguf_tensor_count(g); i++) {
        const dure_gguf_tensor *tensor = dure_gguf_tensor_at(g, i);
        size_t k = 0;
        while (k < f->n_types && f->types[k].type != tensor->type)
            k++;
        if (k == MAX_TYPES) continue; /* the format has fewer types */
        if (k == f->n_types) f->types[f->n_types++] = (type_total){.type = tensor->type};
        f->types[k].tensors++;
        f->types[k].bytes += tensor->bytes;
    }
}

/* What `dure train` would take: the quickest way, and the one that takes least. */
static dure_err expect_training(facts *f, const dure_gguf *g, dure_diag *diag)
{
    dure_record record = {.n = TRAIN_TOKENS, .n_labels = TRAIN_TOKENS};
    const dure_dataset data = {.records = &record, .n = 1, .tokens.n = TRAIN_TOKENS};
    const dure_lora_layout layout = {.shape = f->shape,
                                     .rank = TRAIN_RANK,
                                     .alpha = 1,
                                     .targets = (1u << DURE_LORA_TARGETS) - 1};
    const dure_trainer_opts opts = {.factors = DURE_LORA_FACTOR_BOTH, .batch = 16};
    const dure_trainer_task task = {.data = &data, .layout = &layout, .opts = &opts};
    const dure_transformer_opts reader = {.weights = DURE_WEIGHTS_FILE};
    dure_transformer *t = NULL;
    dure_transformer_fit fit;
    dure_err err = dure_transformer_new(&t, g, &reader, diag);
    if (err) return err;
    err = dure_trainer_expect(&fit, t, &task, UINT64_MAX, diag);
    f->memory_bytes = fit.bytes;
    if (!err && dure_trainer_expect(&fit, t, &task, 1, NULL) != DURE_ERR_LIMIT)
        err = DURE_ERR_STATE;
    f->least_bytes = fit.bytes;
    dure_transformer_free(&t);
    return err;
}

/* The first thing that Dure does not support becomes the reason; the rest is still shown. */
static void judge(facts *f, const dure_gguf *g)
{
    dure_diag other = {0};
    dure_tokenizer *t = NULL;
    dure_chat_template chat;
    f->has_shape = dure_model_shape_read(&f->shape, g, &f->why) == DURE_OK;
    f->supported =
        f->has_shape && !dure_gguf_check_finite(g, &f->why) && !expect_training(f, g, &f->why);
    dure_diag *diag = f->supported ? &f->why : &other;
    if (dure_tokenizer_new(&t, g, diag)) {
        f->supported = false;
        return;
    }
    f->n_tokens = dure_tokenizer_size(t);
    f->tokenizer = dure_tokenizer_name(t);
    if (dure_chat_template_open(&chat, NULL, g, t, &f->no_chat) == DURE_OK) f->chat = chat.name;
    dure_tokenizer_free(&t);
}

static dure_err gather(facts *f, const char *path, dure_diag *diag)
{
    dure_gguf *g = NULL;
    dure_hash digest;
    dure_span name = {0};
    dure_err err = dure_gguf_open(&g, path, NULL, diag);
    if (!err) err = dure_base_digest(&digest, path, diag);
    if (err) {
        dure_gguf_close(&g);
        return err;
    }
    dure_hex_encode(f->digest, digest.b, sizeof digest.b);
    if (dure_gguf_text(&name, g, "general.name", NULL) == DURE_OK) dure_gguf_print(f->name, name);
    f->parameters = dure_model_parameters(g);
    f->bytes = dure_gguf_bytes(g);
    count_types(f, g);
    judge(f, g);
    dure_gguf_close(&g);
    return DURE_OK;
}

static json_t *shape_json(const dure_model_shape *s)
{
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "architecture",
                     s->architecture, "layers", (int)s->n_layers, "embedding", (int)s->n_embd,
                     "feed_forward", (int)s->n_ff, "heads", (int)s->n_head, "heads_kv",
                     (int)s->n_head_kv, "head_dim", (int)s->head_dim, "vocabulary", (int)s->n_vocab,
                     "context", (int)s->n_context);
}

static int print_json(const facts *f)
{
    json_t *types = json_object();
    for (size_t i = 0; i < f->n_types; i++)
        json_object_set_new(types, dure_gguf_type_name(f->types[i].type),
                            json_pack("{s:I, s:I}", "tensors", (json_int_t)f->types[i].tensors,
                                      "bytes", (json_int_t)f->types[i].bytes));
    json_t *out = json_pack("{s:o, s:s, s:b, s:I, s:I, s:o}", "name",
                            dure_text_json(dure_span_of_text(f->name)), "sha256", f->digest,
                            "supported", (int)f->supported, "parameters", (json_int_t)f->parameters,
                            "bytes", (json_int_t)f->bytes, "tensors", types);
    if (!f->supported)
        json_object_set_new(out, "reason", dure_text_json(dure_span_of_text(f->why.text)));
    if (f->has_shape) json_object_set_new(out, "shape", shape_json(&f->shape));
    if (f->memory_bytes)
        json_object_update_new(
            out, json_pack("{s:I, s:I}", "training_memory_bytes", (json_int_t)f->memory_bytes,
                           "training_memory_least_bytes", (json_int_t)f->least_bytes));
    json_object_set_new(out, "chat_template", f->chat ? json_string(f->chat) : json_null());
    if (f->no_chat.text[0])
        json_object_set_new(out, "chat_reason", dure_text_json(dure_span_of_text(f->no_chat.text)));
    return dure_print_json(out);
}

static void print_shape(const facts *f)
{
    const dure_model_shape *s = &f->shape;
    printf("architecture  %s\n", s->architecture);
    printf("shape         %u layers, %u wide, feed-forward %u, %u heads (%u of keys) of %u\n",
           s->n_layers, s->n_embd, s->n_ff, s->n_head, s->n_head_kv, s->head_dim);
    printf("vocabulary    %u tokens\n", s->n_vocab);
    printf("context       %u tokens\n", s->n_context);
}

static void print_memory(const facts *f)
{
    char quick[32], least[32];
    dure_format_bytes(quick, f->memory_bytes);
    dure_format_bytes(least, f->least_bytes);
    printf("training      %s of memory, or %s at the least (--memory); --targets all --rank %d, "
           "records of "
           "up to %d tokens\n",
           quick, least, TRAIN_RANK, TRAIN_TOKENS);
}

static void print_facts(const facts *f)
{
    char bytes[32];
    dure_format_bytes(bytes, f->bytes);
    printf("name          %s\n", f->name[0] ? f->name : "(none)");
    printf("sha256        %s\n", f->digest);
    printf("size          %s, %.1f million parameters\n", bytes, (double)f->parameters / 1e6);
    for (size_t i = 0; i < f->n_types; i++) {
        dure_format_bytes(bytes, f->types[i].bytes);
        printf("%-13s %llu of %s, %s\n", i ? "" : "tensors",
               (unsigned long long)f->types[i].tensors, dure_gguf_type_name(f->types[i].type),
               bytes);
    }
    if (f->has_shape) print_shape(f);
    if (f->memory_bytes) print_memory(f);
    if (f->n_tokens) printf("tokenizer     %s, %zu tokens\n", f->tokenizer, f->n_tokens);
    if (f->n_tokens) printf("chat template %s%s\n", f->chat ? f->chat : "none: ", f->no_chat.text);
    if (!f->supported) {
        printf("supported     no: %s\n", f->why.text);
    } else {
        printf("supported     %s\n",
               f->chat ? "yes" : "yes, for plain texts; conversations need --chat-template");
    }
}

static int model_info(int argc, char **argv)
{
    const char *path = NULL;
    bool json = false;
    const dure_arg args[] = {
        OPERAND("MODEL.gguf", path, "the file", .required = true),
        dure_json_arg(&json),
    };
    const dure_usage usage = {
        "model info", "what a model file holds, its digest, and whether Dure can train it", args,
        N_ARGS(args), "dure model info SmolLM2-135M-Instruct.Q4_1.gguf"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    facts f = {0};
    dure_diag diag = {0};
    dure_err err = gather(&f, path, &diag);
    if (err) return dure_fail("model info", err, &diag);
    if (json) return print_json(&f);
    print_facts(&f);
    return 0;
}

int dure_cmd_model(int argc, char **argv)
{
    static const dure_verb verbs[] = {
        {"info", model_info, "its shape, digest, and whether Dure can train it"},
    };
    const dure_verbs table = {.command = "model",
                              .summary = "what a model file holds",
                              .usage = "MODEL.gguf [options]",
                              .example = "dure model info SmolLM2-135M-Instruct.Q4_1.gguf",
                              .verbs = verbs,
                              .n = N_ARGS(verbs)};
    return dure_args_verb(&table, argc, argv);
}
