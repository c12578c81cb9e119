/* A plain text: its tokens in order, cut into pieces of max_length, all learned but the first of
 * each piece. The last piece ends with the token that ends a text. */
#include "model/dataset_int.h"

static uint32_t line_breaks(const dure_reading *r, int32_t id)
{
    dure_span piece = dure_tokenizer_piece(r->t, id);
    uint32_t n = 0;
    for (size_t i = 0; i < piece.n; i++)
        n += piece.data[i] == '\n';
    return n;
}

static dure_err add_piece(dure_reading *r, const dure_tokens *all, size_t from, size_t to,
                          uint32_t line)
{
    size_t first = r->data->tokens.n;
    dure_err err = dure_tokenizer_begin(&r->data->tokens, r->t);
    r->line = line;
    for (size_t i = from; i < to && !err; i++)
        err = dure_tokens_push(&r->data->tokens, all->ids[i], r->data->tokens.n > first);
    return err ? err : dure_dataset_add_tokens(r, first);
}

dure_err dure_dataset_text(dure_reading *r, dure_span text)
{
    dure_tokens all = {0};
    uint32_t line = 1;
    size_t most = r->opts->max_length - (dure_tokenizer_adds_bos(r->t) ? 1 : 0);
    dure_err err = text.n ? dure_tokenizer_encode(&all, r->t, text, true) : DURE_OK;
    if (!err && all.n && r->end_of_text >= 0) err = dure_tokens_push(&all, r->end_of_text, true);
    for (size_t from = 0; from < all.n && !err;) {
        size_t to = all.n - from < most ? all.n : from + most;
        if (to - from < 2 && from) break; /* a last token alone teaches nothing */
        err = add_piece(r, &all, from, to, line);
        for (; from < to; from++)
            line += line_breaks(r, all.ids[from]);
    }
    dure_tokens_fini(&all);
    return err;
}
