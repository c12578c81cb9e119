/* Roster chains, and the entries that OPEN and Join messages carry. The first 32 bytes stand for
 * the root's public key. */
#include "federation/roster.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 32) return 0;
    const dure_span rest = dure_span_of(data + 32, n - 32);
    dure_roster *roster = NULL;
    dure_diag diag = {{0}};
    if (dure_roster_parse(&roster, data, rest, &diag) == DURE_OK) {
        /* There is one encoding of each roster. */
        dure_buf bytes;
        dure_buf_init(&bytes, DURE_ROSTER_MAX_BYTES);
        if (dure_roster_encode(&bytes, roster) || bytes.n != rest.n) abort();
        dure_buf_fini(&bytes);
        dure_roster_free(&roster);
    }
    /* The two halves as the spans of a Join message. */
    dure_join join;
    const size_t half = rest.n / 2;
    if (dure_join_decode(&join, dure_span_of(rest.data, half),
                         dure_span_of(rest.data + half, rest.n - half), &diag) == DURE_OK &&
        dure_join_verify(&join, data, &diag) == DURE_OK && rest.n == 0)
        abort();
    return 0;
}
