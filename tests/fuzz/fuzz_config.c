/* The round configuration's canonical encoding: what decodes must encode to the same bytes. */
#include "proto/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    dure_config *config = NULL;
    dure_diag diag;
    if (dure_config_decode(&config, (dure_span){data, n}, &diag)) return 0;
    dure_buf again;
    dure_buf_init(&again, DURE_CONFIG_BYTES_MAX);
    if (dure_config_encode(&again, config, &diag) || again.n != n ||
        memcmp(again.data, data, n) != 0) {
        abort();
    }
    dure_buf_fini(&again);
    dure_config_free(&config);
    return 0;
}
