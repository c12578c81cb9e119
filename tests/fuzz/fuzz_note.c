/* Signed checkpoints, and the file of a site's witness. */
#include "ledger/cosign.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    dure_diag diag = {{0}};
    dure_note *note = malloc(sizeof *note);
    if (!note) return 0;
    if (dure_note_parse(note, dure_span_of(data, n), &diag) == DURE_OK) {
        /* A note has one text. */
        dure_buf text;
        dure_buf_init(&text, DURE_NOTE_MAX);
        if (dure_checkpoint_body(&text, &note->checkpoint)) abort();
        dure_put_raw(&text, "\n", 1);
        for (size_t i = 0; i < note->n_lines; i++) {
            if (dure_note_put_line(&text, &note->lines[i])) abort();
        }
        if (text.n != n || memcmp(text.data, data, n) != 0) abort();
        dure_buf_fini(&text);
        static const uint8_t key[32];
        dure_site_key site = {.name = "site"};
        dure_cosign_tally tally;
        if (dure_note_verify(note, note->checkpoint.origin, key, &diag) == DURE_OK) abort();
        if (dure_cosign_count(&tally, NULL, note, &(dure_cosigners){.sites = &site, .n = 1}) ||
            tally.n > 0)
            abort();
    } else if (!diag.text[0]) {
        abort();
    }
    free(note);
    return 0;
}
