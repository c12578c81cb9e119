/* One HTTP/1.1 request to a server of ours on this machine; for `dure demo` and the tests. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <stdint.h>

/* Connects to 127.0.0.1:port, sends METHOD PATH with a JSON `body` (NULL: none), and reads the
 * answer to its end. *status is the HTTP status; *answer the body (dure_buf_fini() by the caller).
 * DURE_ERR_NET when there is no server or no whole answer. */
DURE_MUST_USE dure_err dure_local_http(int *status, dure_buf *answer, uint16_t port,
                                       const char *method, const char *path, const char *body,
                                       dure_diag *diag);

/* A TCP port that nothing listens on at this moment; 0 if none could be found. */
uint16_t dure_local_free_port(void);
