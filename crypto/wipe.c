#include "crypto/wipe.h"

#include <openssl/crypto.h>

void dure_wipe(void *data, size_t n)
{
    if (n > 0) OPENSSL_cleanse(data, n);
}

bool dure_ct_equal(const void *a, const void *b, size_t n)
{
    return n == 0 || CRYPTO_memcmp(a, b, n) == 0;
}
