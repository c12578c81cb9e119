/* A statement of a loss as a hostile file: what the root is asked to sign, and a coordinator to
 * take. */
#include "coordinator/epoch.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    dure_event_epoch epoch;
    dure_diag diag;
    bool is_signed;
    if (dure_epoch_parse(&epoch, &is_signed, (dure_span){data, n}, "loss.json", &diag)) return 0;
    if (strlen(epoch.reason) >= sizeof epoch.reason) abort();
    /* What passes as a leaf is the same leaf again. */
    dure_event *event = calloc(1, sizeof *event), *back = calloc(1, sizeof *back);
    dure_buf leaf;
    if (!event || !back) abort();
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    event->kind = DURE_EVENT_NEW_EPOCH;
    event->index = epoch.kept.n;
    event->u.epoch = epoch;
    if (!dure_event_encode(&leaf, event, &diag) &&
        (dure_event_decode(back, dure_buf_span(&leaf), &diag) ||
         strcmp(back->u.epoch.reason, epoch.reason) != 0))
        abort();
    dure_buf_fini(&leaf);
    free(event);
    free(back);
    return 0;
}
