#include "model/chat_family.h"
#include "model/chat_template.h"

#include <string.h>

/* Text is kept until a special token or a change of the marking, so that it is encoded whole. */
typedef struct writer {
    dure_tokens *out;
    const dure_tokenizer *t;
    dure_buf text;
    bool supervised;
    dure_err err; /* the first failure; later puts do nothing */
} writer;

static void flush(writer *w)
{
    if (!w->err) w->err = dure_buf_err(&w->text);
    if (!w->err)
        w->err = dure_tokenizer_encode(w->out, w->t, dure_buf_span(&w->text), w->supervised);
    w->text.n = 0;
}

static void put(writer *w, dure_span text)
{
    dure_put_raw(&w->text, text.data, text.n);
}

static void put_text(writer *w, const char *text)
{
    put(w, dure_span_of_text(text));
}

static void put_special(writer *w, int32_t id)
{
    if (id < 0) return;
    flush(w);
    if (!w->err) w->err = dure_tokens_push(w->out, id, w->supervised);
}

static void supervise(writer *w, bool supervised)
{
    flush(w);
    w->supervised = supervised;
}

/* White space as Python's str.strip() knows it, which Jinja's `trim` calls. Bytes of the character
 * at text[0], 0 if it is none. */
static size_t white_space(const uint8_t *text, size_t n)
{
    if (n >= 1 && ((text[0] >= 0x09 && text[0] <= 0x0d) || (text[0] >= 0x1c && text[0] <= 0x20)))
        return 1;
    if (n >= 2 && text[0] == 0xc2 && (text[1] == 0x85 || text[1] == 0xa0)) return 2;
    if (n < 3) return 0;
    uint32_t three = (uint32_t)text[0] << 16 | (uint32_t)text[1] << 8 | text[2];
    bool found = three == 0xe19a80 ||                        /* U+1680 */
                 (three >= 0xe28080 && three <= 0xe2808a) || /* U+2000 to U+200A */
                 three == 0xe280a8 || three == 0xe280a9 ||   /* U+2028, U+2029 */
                 three == 0xe280af || three == 0xe2819f ||   /* U+202F, U+205F */
                 three == 0xe38080;                          /* U+3000 */
    return found ? 3 : 0;
}

static dure_span trim(dure_span text)
{
    for (size_t n = white_space(text.data, text.n); n; n = white_space(text.data, text.n))
        text = dure_span_of(text.data + n, text.n - n);
    for (size_t back = 1; back <= 3 && back <= text.n; back++) {
        if (white_space(text.data + text.n - back, back) != back) continue;
        text.n -= back;
        back = 0;
    }
    return text;
}

static dure_span drop_lines_before(dure_span text)
{
    while (text.n && text.data[0] == '\n')
        text = dure_span_of(text.data + 1, text.n - 1);
    return text;
}

static dure_span drop_lines_after(dure_span text)
{
    while (text.n && text.data[text.n - 1] == '\n')
        text.n--;
    return text;
}

/* What follows the last `mark`, all of the text without one. */
static dure_span after_last(dure_span text, const char *mark)
{
    size_t n = strlen(mark);
    const uint8_t *found;
    while (text.n && (found = memmem(text.data, text.n, mark, n)))
        text = dure_span_of(found + n, text.n - (size_t)(found + n - text.data));
    return text;
}

/* An answer of a reasoning model: content, and what stands before its last </think>. */
typedef struct thought {
    dure_span reasoning, content;
} thought;

static thought split_thought(dure_span text)
{
    static const char close[] = "</think>";
    thought parts = {dure_span_of(NULL, 0), text};
    const uint8_t *end = text.n ? memmem(text.data, text.n, close, sizeof close - 1) : NULL;
    if (!end) return parts;
    dure_span before = drop_lines_after(dure_span_of(text.data, (size_t)(end - text.data)));
    parts.reasoning = drop_lines_before(after_last(before, "<think>"));
    parts.content = drop_lines_before(after_last(text, close));
    return parts;
}

static bool is_tool_response(dure_span text)
{
    static const char open[] = "<tool_response>", close[] = "</tool_response>";
    return text.n >= sizeof close - 1 && !memcmp(text.data, open, sizeof open - 1) &&
           !memcmp(text.data + text.n - (sizeof close - 1), close, sizeof close - 1);
}

/* The last message of a person; the template drops the reasoning of answers before it. */
static size_t last_question(const dure_message *messages, size_t n)
{
    for (size_t i = n; i > 0; i--)
        if (messages[i - 1].role == DURE_ROLE_USER && !is_tool_response(messages[i - 1].content))
            return i - 1;
    return n - 1;
}

/* The answer of a reasoning model; `shown`: with its reasoning, where it has any or is the last. */
static void put_thought(writer *w, dure_span content, bool shown, bool last)
{
    thought parts = split_thought(content);
    if (shown && (last || parts.reasoning.n)) {
        put_text(w, "<think>\n");
        put(w, drop_lines_after(drop_lines_before(parts.reasoning)));
        put_text(w, "\n</think>\n\n");
        parts.content = drop_lines_before(parts.content);
    }
    put(w, parts.content);
}

static void open_message(writer *w, const dure_chat_template *chat, dure_role role)
{
    const dure_chat_frame *frame = chat->family->frame;
    put_special(w, chat->begin);
    put_text(w, role == DURE_ROLE_ASSISTANT ? frame->assistant : dure_role_name(role));
    put_special(w, chat->header_end);
    put_text(w, frame->after_role);
}

static void close_message(writer *w, const dure_chat_template *chat)
{
    put_special(w, chat->end);
    supervise(w, false);
    put_text(w, chat->family->frame->after_end);
}

static void put_system(writer *w, const dure_chat_template *chat, dure_span content)
{
    open_message(w, chat, DURE_ROLE_SYSTEM);
    if (chat->family->system_header) put_text(w, chat->family->system_header);
    put(w, chat->family->frame->trims ? trim(content) : content);
    close_message(w, chat);
}

static dure_err check_turns(const dure_chat_family *family, const dure_message *messages, size_t n,
                            size_t first, dure_diag *diag)
{
    if (family->alternates && !family->folds_system && n && messages[0].role == DURE_ROLE_SYSTEM)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "the chat template %s takes no system message; put its text at the "
                             "head of the first user message",
                             family->name);
    for (size_t i = first; i < n && family->alternates; i++) {
        if ((messages[i].role == DURE_ROLE_USER) == ((i - first) % 2 == 0)) continue;
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "the chat template %s wants user and assistant messages in turn, the "
                             "user's first; message %zu is out of turn",
                             family->name, i + 1);
    }
    return DURE_OK;
}

static void put_messages(writer *w, const dure_chat_template *chat, const dure_message *messages,
                         size_t n, size_t first)
{
    const dure_chat_family *family = chat->family;
    size_t question = family->thinks ? last_question(messages, n) : 0;
    for (size_t i = first; i < n; i++) {
        const dure_message *m = &messages[i];
        bool answer = m->role == DURE_ROLE_ASSISTANT;
        open_message(w, chat, m->role);
        if (answer) supervise(w, true);
        if (i == first && first && family->folds_system) {
            put(w, messages[0].content);
            put_text(w, "\n\n");
        }
        if (answer && family->thinks)
            put_thought(w, m->content, i > question, i + 1 == n);
        else
            put(w, family->frame->trims ? trim(m->content) : m->content);
        close_message(w, chat);
    }
}

dure_err dure_chat_render(dure_tokens *out, const dure_chat_template *chat, const dure_tokenizer *t,
                          const dure_message *messages, size_t n, bool open_answer, dure_diag *diag)
{
    const dure_chat_family *family = chat->family;
    if (!family) return dure_diag_set(diag, DURE_ERR_STATE, "%s", chat->why.text);
    writer w = {.out = out, .t = t};
    size_t before = out->n;
    bool system = n && messages[0].role == DURE_ROLE_SYSTEM;
    /* A first system message that does not go the way of the others. */
    size_t first = system && (family->system_header || family->folds_system) ? 1 : 0;
    dure_err err = check_turns(family, messages, n, first, diag);
    if (err) return err;
    dure_buf_init(&w.text, SIZE_MAX);
    put_special(&w, chat->bos);
    if (family->system_header)
        put_system(&w, chat, first ? messages[0].content : dure_span_of(NULL, 0));
    else if (n && !system && family->default_system)
        put_system(&w, chat, dure_span_of_text(family->default_system));
    if (n) put_messages(&w, chat, messages, n, first);
    if (open_answer) open_message(&w, chat, DURE_ROLE_ASSISTANT);
    flush(&w);
    dure_buf_fini(&w.text);
    if (w.err) out->n = before;
    return w.err;
}
