/* Leaves of the federation's log: whatever decodes encodes to the same bytes. */
#include "ledger/event.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    dure_diag diag = {{0}};
    dure_event *event = malloc(sizeof *event);
    if (!event) return 0;
    if (dure_event_decode(event, dure_span_of(data, n), &diag) == DURE_OK) {
        dure_buf again;
        dure_buf_init(&again, DURE_LEAF_MAX);
        if (n <= DURE_LEAF_MAX) {
            if (dure_event_encode(&again, event, &diag)) abort();
            if (again.n != n || memcmp(again.data, data, n) != 0) abort();
        }
        dure_buf_fini(&again);
    } else if (!diag.text[0]) {
        abort(); /* every refusal says why */
    }
    free(event);
    return 0;
}
