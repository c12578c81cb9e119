/* The ZAP handler (RFC 27) of one libzmq context: asks the admission callback about the CURVE key
 * of each connection, and names the admitted key in the connection's User-Id.
 *
 * Threads: runs one of its own between start and stop. */
#pragma once

#include "net/router.h"

#define DURE_ZAP_DOMAIN "dure"
/* User-Id is the CURVE public key in hex, NUL included. */
#define DURE_ZAP_USER_SIZE (2 * DURE_CURVE_BYTES + 1)

typedef struct dure_zap dure_zap;

/* When it returns, inproc://zeromq.zap.01 of `context` is bound. */
DURE_MUST_USE dure_err dure_zap_start(dure_zap **out, void *context, dure_admit *admit,
                                      void *admit_state);
/* After zmq_ctx_shutdown(context), which is what ends the thread. NULL-safe, nulls. */
void dure_zap_stop(dure_zap **zap);
