/* Where byte-level BPE may not merge across: the expressions of the known models, matched by hand.
 *
 * gpt-2   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * smollm  two passes: every numeric character (\p{N}) is a piece of its own; what is left between
 *         them is cut by gpt-2
 * llama3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
 *         | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * qwen2   as llama3 with \p{N} in place of \p{N}{1,3}
 *
 * All need one character of look-ahead only, so one function without state does it. Categories
 * are utf8proc's; a byte that is not UTF-8 counts as "other", and so does a code point that is not
 * assigned. */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef enum dure_split {
    DURE_SPLIT_SMOLLM,
    DURE_SPLIT_GPT2,
    DURE_SPLIT_LLAMA3,
    DURE_SPLIT_QWEN2,
} dure_split;

/* Bytes of the first piece of text[0..n), n > 0. `text` starts at a boundary of pieces. */
size_t dure_split_next(dure_split rule, const uint8_t *text, size_t n);
