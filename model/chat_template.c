#include "model/chat_template.h"

#include <stdio.h>
#include <string.h>

const char dure_chat_template_smollm2[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' "
    "}}{% endif %}";

const char dure_chat_template_chatml[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' "
    "}}{% endif %}";

static const char *const role_names[] = {"system", "user", "assistant"};

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

/* JSON and Jinja sources write the line breaks of the texts either as such or as "\n". */
static bool same_template(dure_span text, const char *known)
{
    size_t at = 0;
    for (; *known; known++) {
        if (at < text.n && text.data[at] == (uint8_t)*known) {
            at++;
        } else if (*known == '\n' && text.n - at >= 2 && !memcmp(text.data + at, "\\n", 2)) {
            at += 2;
        } else {
            return false;
        }
    }
    return at == text.n;
}

/* What a template that is not known looks like, for the sentence that refuses it. */
static const char *family_of(dure_span text)
{
    static const struct {
        const char *mark, *family;
    } families[] = {
        {"<|start_header_id|>", "Llama 3"}, {"<start_of_turn>", "Gemma"},
        {"[INST]", "Mistral or Llama 2"},   {"<|user|>", "Phi or Zephyr"},
        {"<think>", "a reasoning model"},   {"<|im_start|>", "another ChatML"},
    };
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (memmem(text.data, text.n, families[i].mark, strlen(families[i].mark)))
            return families[i].family;
    return "an unknown kind";
}

static dure_err refuse(const dure_gguf *gguf, dure_span text, dure_diag *diag)
{
    char model[128] = "this model";
    dure_span name = {0};
    if (dure_gguf_text(&name, gguf, "general.name", NULL) == DURE_OK) dure_gguf_print(model, name);
    return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                         "the chat template of %s (%s) is not supported; use a model whose "
                         "template is that of SmolLM2 Instruct or plain ChatML",
                         model, family_of(text));
}

dure_err dure_chat_template_find(dure_chat_template *out, const dure_gguf *gguf,
                                 const dure_tokenizer *t, dure_diag *diag)
{
    *out = (dure_chat_template){.begin = dure_tokenizer_special(t, "<|im_start|>"),
                                .end = dure_tokenizer_special(t, "<|im_end|>")};
    dure_span text = {0};
    if (!dure_gguf_has(gguf, "tokenizer.chat_template"))
        return dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                             "the model has no chat template (tokenizer.chat_template), so it is a "
                             "base model; use its Instruct version");
    dure_err err = dure_gguf_text(&text, gguf, "tokenizer.chat_template", diag);
    if (err) return err;
    if (same_template(text, dure_chat_template_smollm2)) {
        out->name = "smollm2";
        snprintf(out->default_system, sizeof out->default_system, "%s",
                 "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
    } else if (same_template(text, dure_chat_template_chatml)) {
        out->name = "chatml";
    } else {
        return refuse(gguf, text, diag);
    }
    if (out->begin < 0 || out->end < 0)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "the chat template needs the special tokens <|im_start|> and "
                             "<|im_end|>, which the vocabulary lacks");
    return DURE_OK;
}

static dure_err encode_text(dure_tokens *out, const dure_tokenizer *t, const char *text)
{
    return dure_tokenizer_encode(out, t, dure_span_of_text(text), false);
}

static dure_err render_question(dure_tokens *out, const dure_chat_template *chat,
                                const dure_tokenizer *t, const dure_message *message)
{
    dure_buf text;
    dure_buf_init(&text, SIZE_MAX);
    dure_put_format(&text, "%s\n", role_names[message->role]);
    dure_put_raw(&text, message->content.data, message->content.n);
    dure_err err = dure_buf_err(&text);
    if (!err) err = dure_tokens_push(out, chat->begin, false);
    if (!err) err = dure_tokenizer_encode(out, t, dure_buf_span(&text), false);
    if (!err) err = dure_tokens_push(out, chat->end, false);
    if (!err) err = encode_text(out, t, "\n");
    dure_buf_fini(&text);
    return err;
}

static dure_err open_answer_of(dure_tokens *out, const dure_chat_template *chat,
                               const dure_tokenizer *t)
{
    dure_err err = dure_tokens_push(out, chat->begin, false);
    if (!err) err = encode_text(out, t, "assistant\n");
    return err;
}

static dure_err render_answer(dure_tokens *out, const dure_chat_template *chat,
                              const dure_tokenizer *t, const dure_message *message)
{
    dure_err err = open_answer_of(out, chat, t);
    if (!err) err = dure_tokenizer_encode(out, t, message->content, true);
    if (!err) err = dure_tokens_push(out, chat->end, true);
    if (!err) err = encode_text(out, t, "\n");
    return err;
}

dure_err dure_chat_render(dure_tokens *out, const dure_chat_template *chat, const dure_tokenizer *t,
                          const dure_message *messages, size_t n, bool open_answer)
{
    size_t first = out->n;
    dure_err err = DURE_OK;
    if (n > 0 && messages[0].role != DURE_ROLE_SYSTEM && chat->default_system[0]) {
        dure_message system = {DURE_ROLE_SYSTEM, dure_span_of_text(chat->default_system)};
        err = render_question(out, chat, t, &system);
    }
    for (size_t i = 0; i < n && !err; i++)
        err = messages[i].role == DURE_ROLE_ASSISTANT ? render_answer(out, chat, t, &messages[i])
                                                      : render_question(out, chat, t, &messages[i]);
    if (!err && open_answer) err = open_answer_of(out, chat, t);
    if (err) out->n = first;
    return err;
}
