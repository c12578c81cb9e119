/* Any bytes as text: the pieces of its tokens give it back, in one call or cut in two. */
#include "small_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const small_tokenizer *small = small_tokenizer_get();
    dure_tokens tokens = {0};
    size_t at = 0;
    if (dure_tokenizer_encode(&tokens, small->t, dure_span_of(data, n), true)) return 0;
    for (size_t i = 0; i < tokens.n; i++) {
        dure_span piece = dure_tokenizer_piece(small->t, tokens.ids[i]);
        if (dure_tokenizer_is_special(small->t, tokens.ids[i]) || piece.n > n - at ||
            memcmp(piece.data, data + at, piece.n) != 0)
            abort();
        at += piece.n;
    }
    if (at != n) abort();
    dure_tokens_fini(&tokens);
    return 0;
}
