#include "model/chat_template.h"

#include "model/chat_family.h"

#include <string.h>

static const dure_chat_frame chatml = {.begin = "<|im_start|>",
                                       .after_role = "\n",
                                       .end = "<|im_end|>",
                                       .after_end = "\n",
                                       .assistant = "assistant"};
static const dure_chat_frame llama3 = {.begin = "<|start_header_id|>",
                                       .header_end = "<|end_header_id|>",
                                       .after_role = "\n\n",
                                       .end = "<|eot_id|>",
                                       .after_end = "",
                                       .assistant = "assistant",
                                       .bos = true,
                                       .trims = true};
static const dure_chat_frame gemma = {.begin = "<start_of_turn>",
                                      .after_role = "\n",
                                      .end = "<end_of_turn>",
                                      .after_end = "\n",
                                      .assistant = "model",
                                      .bos = true,
                                      .trims = true};

enum { CHATML, SMOLLM2, QWEN2, QWEN2_5, QWEN3, LLAMA3, LLAMA3_1, GEMMA2, GEMMA3, N_FAMILIES };

static const dure_chat_family families[N_FAMILIES] = {
    [CHATML] = {.name = "chatml", .frame = &chatml},
    [SMOLLM2] = {.name = "smollm2",
                 .frame = &chatml,
                 .default_system = "You are a helpful AI assistant named SmolLM, trained by "
                                   "Hugging Face"},
    [QWEN2] = {.name = "qwen2", .frame = &chatml, .default_system = "You are a helpful assistant"},
    [QWEN2_5] = {.name = "qwen2.5",
                 .frame = &chatml,
                 .default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful "
                                   "assistant."},
    [QWEN3] = {.name = "qwen3", .frame = &chatml, .thinks = true},
    [LLAMA3] = {.name = "llama3", .frame = &llama3},
    [LLAMA3_1] = {.name = "llama3.1",
                  .frame = &llama3,
                  .system_header = "Cutting Knowledge Date: December 2023\n"
                                   "Today Date: 26 Jul 2024\n\n"},
    [GEMMA2] = {.name = "gemma2", .frame = &gemma, .alternates = true},
    [GEMMA3] = {.name = "gemma3", .frame = &gemma, .alternates = true, .folds_system = true},
};
const char dure_chat_template_names[] =
    "chatml, smollm2, qwen2, qwen2.5, qwen3, llama3, llama3.1, gemma2, gemma3";

/* The templates that models carry, by length and FNV-1a hash of their canonical text;
 * tests/vectors/chat_templates has the texts. A text made to collide would only be rendered as one
 * of these, which its author could have asked for openly. */
static const struct {
    uint64_t hash;
    size_t n;
    int family;
} known[] = {
    {UINT64_C(0x88bf4138d5c826f0), 196, CHATML},    {UINT64_C(0x45ec583d4d25bc3a), 368, SMOLLM2},
    {UINT64_C(0xc867da37c989d41f), 327, QWEN2},     {UINT64_C(0x11d394755cef9355), 2474, QWEN2_5},
    {UINT64_C(0xabb815b933a4981a), 4071, QWEN3},    {UINT64_C(0x521e84e1430005c3), 4123, QWEN3},
    {UINT64_C(0x0e60067a5537498e), 389, LLAMA3},    {UINT64_C(0x4fd30286bc0da17c), 4583, LLAMA3_1},
    {UINT64_C(0x1a6da26e3aef1b34), 3800, LLAMA3_1}, {UINT64_C(0x5c10ee65212d93b3), 591, GEMMA2},
    {UINT64_C(0xd19b6ff3a49deea5), 1531, GEMMA3},
};

static const char *const role_names[] = {"system", "user", "assistant"};

const char *dure_role_name(dure_role role)
{
    return role_names[role];
}

dure_err dure_role_parse(dure_role *out, const char *text, dure_diag *diag)
{
    for (size_t i = 0; i < sizeof role_names / sizeof role_names[0]; i++) {
        if (strcmp(text, role_names[i]) != 0) continue;
        *out = (dure_role)i;
        return DURE_OK;
    }
    char shown[128];
    dure_gguf_print(shown, dure_span_of_text(text));
    return dure_diag_set(diag, DURE_ERR_FORMAT,
                         "the role '%s' is unknown; it must be system, user or assistant", shown);
}

/* Sources write the line breaks of texts either as such or as "\n", and a line break at the end is
 * Jinja's to drop: neither tells two templates apart. */
static const dure_chat_family *recognise(dure_span text)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    size_t n = 0;
    if (text.n && text.data[text.n - 1] == '\n') text.n--;
    for (size_t i = 0; i < text.n; i++, n++) {
        uint8_t c = text.data[i];
        if (c == '\\' && i + 1 < text.n && text.data[i + 1] == 'n') {
            c = '\n';
            i++;
        }
        hash = (hash ^ c) * UINT64_C(0x100000001b3);
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].hash == hash && known[i].n == n) return &families[known[i].family];
    return NULL;
}

/* What a template that is not known looks like, and the family that may fit it. */
typedef struct likeness {
    const char *mark, *looks, *advice;
} likeness;

static const likeness *looks_like(dure_span text)
{
    static const likeness all[] = {
        {"<|start_header_id|>", "Llama 3", "llama3.1"},
        {"<start_of_turn>", "Gemma", "gemma3"},
        {"[INST]", "Mistral or Llama 2", NULL},
        {"<|user|>", "Phi or Zephyr", NULL},
        {"<think>", "Qwen 3", "qwen3"},
        {"<|im_start|>", "ChatML", "chatml"},
        {"", "no family that Dure knows", NULL},
    };
    size_t i = 0;
    while (!memmem(text.data, text.n, all[i].mark, strlen(all[i].mark)))
        i++;
    return &all[i];
}

static dure_err refuse(const dure_gguf *gguf, dure_span text, dure_diag *diag)
{
    char model[128] = "this model";
    dure_span name = {0};
    if (dure_gguf_text(&name, gguf, "general.name", NULL) == DURE_OK) dure_gguf_print(model, name);
    const likeness *like = looks_like(text);
    if (like->advice)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "the chat template of %s is not one that Dure knows; it looks like "
                             "%s: if it writes a conversation as %s does, say so with "
                             "--chat-template %s",
                             model, like->looks, like->advice, like->advice);
    return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                         "the chat template of %s is not one that Dure knows (it looks like %s); "
                         "use another model, or name the one to use with --chat-template: %s",
                         model, like->looks, dure_chat_template_names);
}

static dure_err find_token(int32_t *id, const dure_chat_family *family, const char *text,
                           const dure_tokenizer *t, dure_diag *diag)
{
    if (!text) return DURE_OK;
    *id = dure_tokenizer_special(t, text);
    if (*id >= 0) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_FORMAT,
                         "the chat template %s needs the special token %s, which the vocabulary "
                         "lacks",
                         family->name, text);
}

static dure_err set_family(dure_chat_template *out, const dure_chat_family *family,
                           const dure_tokenizer *t, dure_diag *diag)
{
    const dure_chat_frame *frame = family->frame;
    *out = (dure_chat_template){family->name, family, -1, -1, -1, -1, {{0}}};
    dure_err err = find_token(&out->begin, family, frame->begin, t, diag);
    if (!err) err = find_token(&out->header_end, family, frame->header_end, t, diag);
    if (!err) err = find_token(&out->end, family, frame->end, t, diag);
    if (err || !frame->bos) return err;
    out->bos = dure_tokenizer_bos(t);
    if (out->bos >= 0) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_FORMAT,
                         "the chat template %s begins with the BOS token, which the model does not "
                         "name (tokenizer.ggml.bos_token_id)",
                         family->name);
}

static dure_err find(dure_chat_template *out, const dure_gguf *gguf, const dure_tokenizer *t,
                     dure_diag *diag)
{
    dure_span text = {0};
    if (!dure_gguf_has(gguf, "tokenizer.chat_template"))
        return dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                             "the model has no chat template (tokenizer.chat_template), so it is a "
                             "base model; use its Instruct version, or name the template to use "
                             "with --chat-template: %s",
                             dure_chat_template_names);
    dure_err err = dure_gguf_text(&text, gguf, "tokenizer.chat_template", diag);
    if (err) return err;
    const dure_chat_family *family = recognise(text);
    return family ? set_family(out, family, t, diag) : refuse(gguf, text, diag);
}

static dure_err find_name(dure_chat_template *out, const char *name, const dure_tokenizer *t,
                          dure_diag *diag)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (!strcmp(name, families[i].name)) return set_family(out, &families[i], t, diag);
    char shown[128];
    dure_gguf_print(shown, dure_span_of_text(name));
    return dure_diag_set(diag, DURE_ERR_USAGE,
                         "the chat template '%s' is unknown; it must be one of %s", shown,
                         dure_chat_template_names);
}

dure_err dure_chat_template_open(dure_chat_template *out, const char *name, const dure_gguf *gguf,
                                 const dure_tokenizer *t, dure_diag *diag)
{
    dure_diag why = {{0}};
    dure_err err = name ? find_name(out, name, t, &why) : find(out, gguf, t, &why);
    if (!err) return DURE_OK;
    *out = (dure_chat_template){.why = why};
    if (diag) *diag = why;
    return err;
}
