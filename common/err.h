/* Error codes, and the diagnostic that travels beside one.
 *
 * Every function that can fail returns dure_err and is DURE_MUST_USE. The code is for branching;
 * the sentence a person reads is in the caller-owned dure_diag: what is wrong, where, and what to
 * do about it. There are no thread-local messages, so an old one can never be shown. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define DURE_MUST_USE __attribute__((warn_unused_result))

/* X(code, text): DURE_ERR_<code>, and the fixed English text for it. */
#define DURE_ERR_LIST(X)                                                                           \
    X(NOMEM, "out of memory")                                                                      \
    X(IO, "input or output failed")                                                                \
    X(DISK_FULL, "no space left on the disk")                                                      \
    X(NOT_FOUND, "not found")                                                                      \
    X(EXISTS, "exists already")                                                                    \
    X(BUSY, "in use by another process")                                                           \
    X(USAGE, "an argument is out of its range")                                                    \
    X(FORMAT, "malformed file")                                                                    \
    X(PROTO, "malformed or unexpected message")                                                    \
    X(LIMIT, "over a size or count limit")                                                         \
    X(UNSUPPORTED, "not supported")                                                                \
    X(STATE, "not possible in the present state")                                                  \
    X(CRYPTO, "a cryptographic operation failed")                                                  \
    X(AUTH, "a signature, key or digest does not match")                                           \
    X(RNG, "the random number generator failed")                                                   \
    X(BUDGET, "the privacy budget does not allow it")                                              \
    X(POLICY, "the site's policy forbids it")                                                      \
    X(EXPIRED, "no longer valid")                                                                  \
    X(NET, "the network or the peer failed")                                                       \
    X(TIMEOUT, "took too long")                                                                    \
    X(CANCELLED, "cancelled")                                                                      \
    X(DEVICE, "the compute device failed")

typedef enum dure_err {
    DURE_OK = 0,
#define DURE_ERR_ENUM(code, text) DURE_ERR_##code,
    DURE_ERR_LIST(DURE_ERR_ENUM)
#undef DURE_ERR_ENUM
} dure_err;

#ifdef __cplusplus /* for the sources that nvcc compiles */
extern "C" {
#endif

/* Fixed English text for `err`; static, never NULL. */
const char *dure_err_text(dure_err err);

/* True for what fails on this machine whatever the input is: memory, disk, the cryptographic
 * library, the random number generator. Of a function that reads no file this separates our own
 * failures from what is wrong with its input. */
bool dure_err_is_local(dure_err err);

/* One plain sentence about a failure. Plain data: zero it with {0}; nothing to free. */
typedef struct dure_diag {
    char text[512];
} dure_diag;

/* Formats the sentence (cut at the buffer's end). `diag` may be NULL. Returns `err`, so a failing
 * branch reads `return dure_diag_set(diag, DURE_ERR_FORMAT, "...", ...)`. */
dure_err dure_diag_set(dure_diag *diag, dure_err err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "PREFIX: " before the sentence that is there (or before the text of `err` if none is).
 * Returns `err`. */
dure_err dure_diag_prefix(dure_diag *diag, dure_err err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A violated assertion is a bug of ours, never a peer's, a file's or a user's doing. Kept in
 * release builds: going on with broken invariants could send what must not leave. */
#define DURE_ASSERT(condition)                                                                     \
    ((condition) ? (void)0 : dure_assert_failed(#condition, __FILE__, __LINE__))
__attribute__((noreturn)) void dure_assert_failed(const char *condition, const char *file,
                                                  int line);

#ifdef __cplusplus
}
#endif
