/* Where byte-level BPE may not merge across: the `smollm` rule, matched by hand.
 *
 * The published rule is two passes: every numeric character (\p{N}) is a piece of its own; what is
 * left between them is cut by GPT-2's expression
 *   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * Both need one character of look-ahead only, so one function without state does it. Categories
 * are utf8proc's; a byte that is not UTF-8 counts as "other". */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Bytes of the first piece of text[0..n), n > 0. `text` starts at a boundary of pieces. */
size_t dure_split_next(const uint8_t *text, size_t n);
