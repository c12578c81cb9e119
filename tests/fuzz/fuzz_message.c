/* Every control message through one entry point: the frame names its type. What decodes must
 * encode to the same frame. */
#include "proto/messages.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    dure_msg *msg = NULL;
    dure_diag diag;
    if (dure_msg_decode(&msg, (dure_span){data, n}, &diag)) return 0;
    dure_buf again;
    dure_buf_init(&again, DURE_MSG_BYTES_MAX);
    if (dure_msg_encode(&again, msg, &diag) || again.n != n || memcmp(again.data, data, n) != 0) {
        abort();
    }
    dure_buf_fini(&again);
    dure_msg_free(&msg);
    return 0;
}
