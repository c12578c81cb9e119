/* Any bytes as text, the first of them says to which tokenizer: the pieces of its tokens give the
 * text back, and none is a control token. SPM writes a space as U+2581 and does not tell the two
 * apart; Qwen's composes the text first. */
#include "small_tokenizer.h"

#include <utf8proc.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

typedef struct bytes {
    uint8_t *data;
    size_t n;
} bytes;

static bytes expected(const uint8_t *data, size_t n, small_kind kind)
{
    bytes out = {malloc(n + 1), 0};
    utf8proc_uint8_t *composed = NULL;
    if (!out.data) abort();
    if (kind == SMALL_QWEN2) {
        utf8proc_ssize_t length =
            utf8proc_map(data, (utf8proc_ssize_t)n, &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (length >= 0) {
            free(out.data);
            return (bytes){composed, (size_t)length};
        }
    }
    for (size_t i = 0; i < n; i++) {
        bool space = kind >= SMALL_SPM && n - i >= 3 && !memcmp(data + i, "\xe2\x96\x81", 3);
        out.data[out.n++] = space ? ' ' : data[i];
        i += space ? 2 : 0;
    }
    return out;
}

static void compare(const dure_tokens *tokens, const small_tokenizer *small, bytes wanted,
                    size_t skip)
{
    size_t at = 0;
    for (size_t i = 0; i < tokens->n; i++) {
        dure_span piece = dure_tokenizer_piece(small->t, tokens->ids[i]);
        if (i == 0 && skip) { /* the space before the text */
            if (piece.n == 0 || piece.data[0] != ' ') abort();
            piece = dure_span_of(piece.data + 1, piece.n - 1);
        }
        if (dure_tokenizer_is_special(small->t, tokens->ids[i]) || piece.n > wanted.n - at ||
            memcmp(piece.data, wanted.data + at, piece.n) != 0)
            abort();
        at += piece.n;
    }
    if (at != wanted.n) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0) return 0;
    small_kind kind = (small_kind)(data[0] % SMALL_KINDS);
    const small_tokenizer *small = small_tokenizer_of(kind);
    dure_tokens tokens = {0};
    data++;
    n--;
    if (dure_tokenizer_encode(&tokens, small->t, dure_span_of(data, n), true)) return 0;
    bytes wanted = expected(data, n, kind);
    compare(&tokens, small, wanted, kind == SMALL_SPM && n);
    free(wanted.data);
    dure_tokens_fini(&tokens);
    return 0;
}
