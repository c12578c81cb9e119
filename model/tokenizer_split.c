#include "model/tokenizer_split.h"

#include <stdbool.h>
#include <string.h>
#include <utf8proc.h>

typedef enum kind { LETTER, NUMBER, SPACE, OTHER } kind;

typedef struct character {
    kind kind;
    size_t n; /* bytes; 0 past the end */
} character;

static kind kind_of_ascii(uint8_t c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return LETTER;
    if (c >= '0' && c <= '9') return NUMBER;
    return c == ' ' || (c >= '\t' && c <= '\r') ? SPACE : OTHER;
}

static kind kind_of(utf8proc_int32_t code)
{
    if (code == 0x85) return SPACE; /* a control character by category, but white space */
    switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return NUMBER;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return SPACE;
    default:
        return OTHER;
    }
}

static character at(const uint8_t *text, size_t n, size_t i)
{
    if (i >= n) return (character){OTHER, 0};
    if (text[i] < 0x80) return (character){kind_of_ascii(text[i]), 1};
    size_t left = n - i < 4 ? n - i : 4;
    utf8proc_int32_t code;
    utf8proc_ssize_t used = utf8proc_iterate(text + i, (utf8proc_ssize_t)left, &code);
    if (used <= 0) return (character){OTHER, 1};
    return (character){kind_of(code), (size_t)used};
}

/* The English endings that all expressions take first; 0 if there is none. Without case, U+017F
 * is an s too: the only other letter that folds to one of these. */
static size_t contraction(const uint8_t *text, size_t n, bool any_case)
{
    static const char *const endings[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    if (n < 2 || text[0] != '\'') return 0;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t length = strlen(endings[i]), same = 0;
        while (same < length && same + 1 < n &&
               (any_case ? text[same + 1] | 0x20 : text[same + 1]) == (uint8_t)endings[i][same])
            same++;
        if (same == length) return length + 1;
    }
    return any_case && n > 2 && text[1] == 0xc5 && text[2] == 0xbf ? 3 : 0;
}

static size_t run_end(const uint8_t *text, size_t n, size_t i, kind wanted)
{
    for (;;) {
        character c = at(text, n, i);
        if (c.n == 0 || c.kind != wanted) return i;
        i += c.n;
    }
}

typedef struct space_run {
    size_t end, last, lines; /* of the run, before its last character, after its last line break */
    bool ended;              /* nothing follows */
    kind next;
} space_run;

static bool is_line_break(uint8_t c)
{
    return c == '\r' || c == '\n';
}

static space_run spaces(const uint8_t *text, size_t n)
{
    space_run run = {0};
    character c = at(text, n, 0);
    for (; c.n && c.kind == SPACE; c = at(text, n, run.end)) {
        run.last = run.end;
        run.end += c.n;
        if (is_line_break(text[run.last])) run.lines = run.end;
    }
    run.ended = c.n == 0;
    run.next = c.kind;
    return run;
}

/* White space leaves its last character to the word after it. */
static size_t but_the_last(const space_run *run)
{
    return run->ended || run->last == 0 ? run->end : run->last;
}

static size_t next_of_gpt2(const uint8_t *text, size_t n, bool lone_numbers)
{
    character first = at(text, n, 0);
    if (lone_numbers && first.kind == NUMBER) return first.n;
    size_t ending = contraction(text, n, false);
    if (ending) return ending;
    size_t start = text[0] == ' ' ? 1 : 0;
    character word = at(text, n, start);
    if (word.n && word.kind != SPACE && !(lone_numbers && word.kind == NUMBER))
        return run_end(text, n, start, word.kind);
    space_run run = spaces(text, n);
    /* The first pass has cut before a number: the expression sees the end of a text there. */
    return lone_numbers && run.next == NUMBER ? run.end : but_the_last(&run);
}

static size_t numbers(const uint8_t *text, size_t n, size_t most)
{
    size_t end = 0;
    for (size_t i = 0; i < most; i++) {
        character c = at(text, n, end);
        if (c.n == 0 || c.kind != NUMBER) break;
        end += c.n;
    }
    return end;
}

static size_t next_of_llama3(const uint8_t *text, size_t n, size_t most_numbers)
{
    size_t ending = contraction(text, n, true);
    if (ending) return ending;
    character first = at(text, n, 0), second = at(text, n, first.n);
    if (first.kind == NUMBER) return numbers(text, n, most_numbers);
    if (first.kind == LETTER) return run_end(text, n, 0, LETTER);
    if (second.n && second.kind == LETTER && !is_line_break(text[0]))
        return run_end(text, n, first.n, LETTER);
    size_t start = text[0] == ' ' ? 1 : 0;
    character word = at(text, n, start);
    if (word.n && word.kind == OTHER) {
        size_t end = run_end(text, n, start, OTHER);
        while (end < n && is_line_break(text[end]))
            end++;
        return end;
    }
    space_run run = spaces(text, n);
    return run.lines ? run.lines : but_the_last(&run);
}

size_t dure_split_next(dure_split rule, const uint8_t *text, size_t n)
{
    switch (rule) {
    case DURE_SPLIT_GPT2:
        return next_of_gpt2(text, n, false);
    case DURE_SPLIT_LLAMA3:
        return next_of_llama3(text, n, 3);
    case DURE_SPLIT_QWEN2:
        return next_of_llama3(text, n, 1);
    case DURE_SPLIT_SMOLLM:
        break;
    }
    return next_of_gpt2(text, n, true);
}
