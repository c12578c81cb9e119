#include "model/transformer_int.h"

dure_err dure_transformer_check_docs(const dure_transformer *t, const dure_document *docs,
                                     size_t n_docs, dure_diag *diag)
{
    for (size_t d = 0; d < n_docs; d++) {
        const dure_document *doc = &docs[d];
        if (doc->n > t->shape.n_context)
            return dure_diag_set(diag, DURE_ERR_USAGE,
                                 "record %zu has %zu tokens, but the model's context is %u", d + 1,
                                 doc->n, t->shape.n_context);
        if (doc->n && doc->supervised && doc->supervised[0])
            return dure_diag_set(diag, DURE_ERR_USAGE,
                                 "record %zu marks its first token as a label; nothing predicts it",
                                 d + 1);
        for (size_t i = 0; i < doc->n; i++)
            if (doc->tokens[i] < 0 || (uint32_t)doc->tokens[i] >= t->shape.n_vocab)
                return dure_diag_set(diag, DURE_ERR_USAGE,
                                     "record %zu holds token %d; the vocabulary has %u", d + 1,
                                     doc->tokens[i], t->shape.n_vocab);
    }
    return DURE_OK;
}

size_t dure_document_rows(const dure_document *doc)
{
    size_t n = doc->n;
    while (n && !doc->supervised[n - 1])
        n--;
    return n ? n - 1 : 0;
}

static void append(dure_pass *pass, dure_workspace *ws, const dure_document *doc, size_t rows)
{
    for (size_t i = 0; i < rows; i++) {
        ws->tokens[pass->rows + i] = doc->tokens[i];
        ws->position[pass->rows + i] = (uint32_t)i;
        if (!doc->supervised[i + 1]) continue;
        ws->label_row[pass->n_labels] = pass->rows + i;
        ws->label[pass->n_labels++] = doc->tokens[i + 1];
    }
    ws->docs[pass->n_docs] = (dure_attention_doc){.first = pass->rows, .n = rows, .n_keys = rows};
    pass->rows += rows;
    pass->n_docs++;
}

void dure_transformer_pack(dure_pass *pass, size_t *next, dure_transformer *t,
                           const dure_document *docs, size_t n_docs, size_t max_docs)
{
    dure_workspace *ws = &t->ws;
    for (; *next < n_docs && pass->n_docs < max_docs; (*next)++) {
        size_t rows = dure_document_rows(&docs[*next]);
        if (rows == 0) continue;
        if (pass->n_docs && pass->rows + rows > t->rows) return;
        DURE_ASSERT(pass->rows + rows <= ws->has.rows);
        ws->doc_index[pass->n_docs] = *next;
        append(pass, ws, &docs[*next], rows);
    }
}
