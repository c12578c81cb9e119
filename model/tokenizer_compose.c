#include "model/tokenizer_compose.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Up to FEW marks are ordered by insertion, more by counting: that looks at every class there is,
 * and needs a copy. */
enum { CLASSES = 256, FEW = 32 };

static const utf8proc_option_t form = UTF8PROC_STABLE | UTF8PROC_COMPOSE;

/* Decomposes the text into to[0..capacity); *n_out is how many characters there are, also where
 * they are more. */
static dure_err decompose(size_t *n_out, utf8proc_int32_t *to, size_t capacity, const uint8_t *text,
                          size_t n)
{
    *n_out = 0;
    for (size_t at = 0; at < n;) {
        utf8proc_int32_t code;
        utf8proc_ssize_t used = utf8proc_iterate(text + at, (utf8proc_ssize_t)(n - at), &code);
        if (used < 1) return DURE_ERR_FORMAT;
        const size_t left = *n_out < capacity ? capacity - *n_out : 0;
        utf8proc_ssize_t parts = utf8proc_decompose_char(code, left ? to + *n_out : NULL,
                                                         (utf8proc_ssize_t)left, form, NULL);
        if (parts < 0) return DURE_ERR_FORMAT;
        *n_out += (size_t)parts;
        at += (size_t)used;
    }
    return DURE_OK;
}

static unsigned class_of(utf8proc_int32_t code)
{
    return (unsigned)utf8proc_get_property(code)->combining_class % CLASSES;
}

static void order_few(utf8proc_int32_t *marks, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const utf8proc_int32_t mark = marks[i];
        size_t to = i;
        for (; to > 0 && class_of(marks[to - 1]) > class_of(mark); to--)
            marks[to] = marks[to - 1];
        marks[to] = mark;
    }
}

static dure_err order_many(utf8proc_int32_t *marks, size_t n)
{
    size_t next[CLASSES] = {0}, before = 0;
    utf8proc_int32_t *copy = malloc(n * sizeof *copy);
    if (!copy) return DURE_ERR_NOMEM;
    memcpy(copy, marks, n * sizeof *copy);
    for (size_t i = 0; i < n; i++)
        next[class_of(copy[i])]++;
    for (unsigned class = 0; class < CLASSES; class ++) {
        const size_t of_class = next[class];
        next[class] = before;
        before += of_class;
    }
    for (size_t i = 0; i < n; i++)
        marks[next[class_of(copy[i])]++] = copy[i];
    free(copy);
    return DURE_OK;
}

/* Puts the marks that follow one letter into the order of their classes; those of one class keep
 * theirs. */
static dure_err order_marks(utf8proc_int32_t *codes, size_t n)
{
    dure_err err = DURE_OK;
    for (size_t i = 0, run = 0; i < n && !err; i += run ? run : 1) {
        for (run = 0; i + run < n && class_of(codes[i + run]); run++) {
        }
        if (run > FEW)
            err = order_many(codes + i, run);
        else
            order_few(codes + i, run);
    }
    return err;
}

dure_err dure_compose(uint8_t **out, size_t *n_out, const uint8_t *text, size_t n)
{
    size_t n_codes = 0;
    utf8proc_ssize_t length = -1;
    utf8proc_int32_t *codes = NULL;
    *out = NULL;
    *n_out = 0;
    if (n > INT32_MAX) return DURE_ERR_FORMAT;
    dure_err err = decompose(&n_codes, NULL, 0, text, n);
    if (err) return err;
    codes = malloc((n_codes + 1) * sizeof *codes); /* a final NUL is written */
    if (!codes) return DURE_ERR_NOMEM;
    err = decompose(&n_codes, codes, n_codes, text, n);
    if (!err) err = order_marks(codes, n_codes);
    /* Composes, then writes the bytes over the characters: none has more of them than four. */
    if (!err) length = utf8proc_reencode(codes, (utf8proc_ssize_t)n_codes, form);
    if (!err && length < 0) err = DURE_ERR_FORMAT;
    if (err) {
        free(codes);
        return err;
    }
    uint8_t *fitting = realloc(codes, (size_t)length + 1);
    *out = fitting ? fitting : (uint8_t *)codes;
    *n_out = (size_t)length;
    return DURE_OK;
}
