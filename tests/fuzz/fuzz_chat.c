/* Conversations of any texts in every template: what a person wrote never adds a special token,
 * and only answers are supervised.
 *
 * Input: the family, the tokenizer, whether an answer is opened, then messages: a role byte, a
 * length byte and the text. */
#include "small_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MOST = 32 };

static size_t take(dure_message messages[MOST], const uint8_t *data, size_t n)
{
    size_t taken = 0;
    for (size_t at = 0; at + 2 <= n && taken < MOST; taken++) {
        size_t length = data[at + 1] < n - at - 2 ? data[at + 1] : n - at - 2;
        messages[taken] =
            (dure_message){(dure_role)(data[at] % 3), dure_span_of(data + at + 2, length)};
        at += 2 + length;
    }
    return taken;
}

/* Each message has its markers once. A system message may be added, or folded into the next. */
static void check(const dure_tokens *tokens, const small_tokenizer *small,
                  const dure_chat_template *chat, const dure_message *messages, size_t n, bool open)
{
    size_t specials = 0, supervised_ends = 0, answers = 0, each = chat->header_end < 0 ? 2 : 3;
    for (size_t i = 0; i < tokens->n; i++) {
        specials += dure_tokenizer_is_special(small->t, tokens->ids[i]);
        supervised_ends += tokens->ids[i] == chat->end && tokens->supervised[i];
        if (tokens->supervised[i] > 1) abort();
    }
    for (size_t i = 0; i < n; i++)
        answers += messages[i].role == DURE_ROLE_ASSISTANT;
    size_t fixed = (chat->bos >= 0) + (open ? each - 1 : 0);
    if (specials < fixed || (specials - fixed) % each != 0) abort();
    size_t written = (specials - fixed) / each;
    if (written + 1 < n || written > n + 1 || supervised_ends != answers) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const names[] = {"chatml", "smollm2",  "qwen2",  "qwen2.5", "qwen3",
                                        "llama3", "llama3.1", "gemma2", "gemma3"};
    dure_message messages[MOST];
    dure_chat_template chat;
    dure_tokens tokens = {0};
    dure_diag diag = {{0}};
    if (n < 3) return 0;
    const small_tokenizer *small = small_tokenizer_of((small_kind)(data[1] % SMALL_KINDS));
    if (dure_chat_template_open(&chat, names[data[0] % 9], small->gguf, small->t, &diag)) abort();
    size_t n_messages = take(messages, data + 3, n - 3);
    bool open = data[2] & 1;
    dure_err err = dure_chat_render(&tokens, &chat, small->t, messages, n_messages, open, &diag);
    if (err && (err != DURE_ERR_FORMAT || !diag.text[0] || tokens.n)) abort();
    if (!err) check(&tokens, small, &chat, messages, n_messages, open);
    dure_tokens_fini(&tokens);
    return 0;
}
