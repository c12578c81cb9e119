/* DIR/site.yaml as a hostile file. */
#include "client/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    dure_policy policy;
    dure_diag diag;
    if (n > DURE_POLICY_MAX_BYTES) return 0;
    if (dure_policy_parse(&policy, (dure_span){data, n}, "site.yaml", &diag)) return 0;
    return 0;
}
