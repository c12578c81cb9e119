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

/* The English endings that GPT-2's expression takes first; 0 if there is none. */
static size_t contraction(const uint8_t *text, size_t n)
{
    static const char *const endings[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t length = strlen(endings[i]);
        if (length <= n && !memcmp(text, endings[i], length)) return length;
    }
    return 0;
}

static size_t run_end(const uint8_t *text, size_t n, size_t i, kind wanted)
{
    for (;;) {
        character c = at(text, n, i);
        if (c.n == 0 || c.kind != wanted) return i;
        i += c.n;
    }
}

/* White space leaves its last character to the word after it, unless nothing or a number (where
 * the first pass has cut) follows. */
static size_t white_space(const uint8_t *text, size_t n, size_t first_bytes)
{
    size_t end = 0, last = 0;
    for (character c = at(text, n, 0); c.n && c.kind == SPACE; c = at(text, n, end)) {
        last = end;
        end += c.n;
    }
    character next = at(text, n, end);
    if (next.n == 0 || next.kind == NUMBER || end == first_bytes) return end;
    return last;
}

size_t dure_split_next(const uint8_t *text, size_t n)
{
    character first = at(text, n, 0);
    if (first.kind == NUMBER) return first.n;
    size_t ending = text[0] == '\'' ? contraction(text, n) : 0;
    if (ending) return ending;
    size_t start = text[0] == ' ' ? 1 : 0;
    character word = at(text, n, start);
    if (word.n && (word.kind == LETTER || word.kind == OTHER))
        return run_end(text, n, start, word.kind);
    return white_space(text, n, first.n);
}
