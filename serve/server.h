/* An OpenAI-compatible server on one base model and any number of adapters.
 *
 * POST /v1/chat/completions, POST /v1/completions, GET /v1/models[/NAME], GET /metrics
 * (Prometheus), GET /health. "model" names the base or an adapter; requests for different adapters
 * run at once.
 *
 * Threads: open, drain and close on one; dure_server_offer() and dure_server_withdraw() on any. */
#pragma once

#include "common/buf.h"
#include "crypto/hash.h"
#include "net/http.h"

typedef struct dure_server dure_server;

typedef struct dure_server_opts {
    const char *model_path;
    const char *model_name;    /* NULL: the file's name without .gguf */
    const char *chat_template; /* by name; NULL: the model's own, if it is known */
    uint32_t threads;          /* of the model, 0: the physical cores */
    bool cuda;                 /* it runs on GPU number `device` */
    int device;
    uint32_t slots;   /* prompts answered at once, 0: 4 */
    uint32_t queue;   /* prompts that may wait, 0: 64 */
    uint32_t context; /* tokens of a prompt and its answer, 0: the model's own limit */
    /* Where and how to listen; handler, state and error_body are the server's. */
    dure_http_opts http;
} dure_server_opts;

/* An adapter to offer: a GGUF file, a PEFT folder, or the bytes of a GGUF file. */
typedef struct dure_server_adapter {
    const char *name;  /* what clients write as "model" */
    const char *path;  /* NULL: `bytes` */
    dure_span bytes;   /* borrowed for the call */
    uint64_t version;  /* in the registry, 0: none */
    int64_t created_s; /* 0: now */
    /* Called with the digest of the very bytes that will be loaded; an error refuses them. NULL:
     * they are trusted as they are. A PEFT folder cannot be checked, so with `check` it is
     * refused. */
    dure_err (*check)(void *state, const dure_hash *digest, dure_diag *diag);
    void *check_state;
} dure_server_adapter;

/* Loads the model; no request is answered yet. The caller owns *out, dure_server_close(&s). */
DURE_MUST_USE dure_err dure_server_new(dure_server **out, const dure_server_opts *opts,
                                       dure_diag *diag);

/* Offers an adapter under its name; what the name stood for goes with its last running request.
 * DURE_ERR_STATE: it was made for another base; DURE_ERR_AUTH: `check` refused it. On failure what
 * was offered before stays. */
DURE_MUST_USE dure_err dure_server_offer(dure_server *server, const dure_server_adapter *adapter,
                                         dure_diag *diag);
/* True if the name was offered. The base stays. */
bool dure_server_withdraw(dure_server *server, const char *name);

/* SHA-256 of the base model's file. Borrowed. */
const dure_hash *dure_server_base(const dure_server *server);
/* "bf16, avx512_bf16": how the model computes. Borrowed. */
const char *dure_server_compute(const dure_server *server);

/* Answers requests from now on. Errors as dure_http_open(). */
DURE_MUST_USE dure_err dure_server_listen(dure_server *server, dure_diag *diag);
/* "http://127.0.0.1:8080" as bound. Borrowed. */
const char *dure_server_url(const dure_server *server);

/* Accepts nothing new and lets what runs come to its end; true when all was done in time. */
bool dure_server_drain(dure_server *server, uint32_t timeout_ms);
/* Cuts off what still runs. NULL-safe, nulls. */
void dure_server_close(dure_server **server);
