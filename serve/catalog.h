/* The models that a server offers: the base, and adapters by name, each replaceable while requests
 * run. A request acquires what it started with and keeps it to its end; replacing a name moves a
 * pointer, and the old adapter goes with its last request.
 *
 * Threads: any. */
#pragma once

#include "common/err.h"
#include "common/json.h"
#include "model/lora.h"

#include <stdatomic.h>

#define DURE_MODEL_NAME_SIZE 128
#define DURE_CATALOG_MAX 256

/* Read-only once it is in a catalog. */
typedef struct dure_offer {
    char name[DURE_MODEL_NAME_SIZE]; /* what clients write as "model" */
    dure_lora *lora;                 /* owned; NULL: the base */
    char digest[65];                 /* SHA-256 of the file in hex; "": not known */
    uint64_t version;                /* in the registry; 0: none */
    int64_t created_s;
    atomic_uint refs;
} dure_offer;

typedef struct dure_catalog dure_catalog;

/* The caller owns *out; `base_name` is the name of the base. */
DURE_MUST_USE dure_err dure_catalog_new(dure_catalog **out, const char *base_name,
                                        int64_t created_s, dure_diag *diag);
/* Requests may still hold what they acquired. */
void dure_catalog_free(dure_catalog **catalog);

/* A new offer with one reference, the caller's; takes `lora`, also on failure. DURE_ERR_USAGE: the
 * name is empty, too long or has characters other than letters, digits and . _ - / : @ */
DURE_MUST_USE dure_err dure_offer_new(dure_offer **out, const char *name, dure_lora *lora,
                                      dure_diag *diag);
void dure_offer_release(dure_offer **offer);

/* Offers it under its name in place of what was there; takes the reference, also on failure.
 * DURE_ERR_EXISTS: it is the name of the base; DURE_ERR_LIMIT: too many. */
DURE_MUST_USE dure_err dure_catalog_put(dure_catalog *catalog, dure_offer *offer, dure_diag *diag);
/* True if the name was there. The base cannot be removed. */
bool dure_catalog_remove(dure_catalog *catalog, const char *name);

/* A new reference; NULL: there is no such model. */
dure_offer *dure_catalog_acquire(dure_catalog *catalog, const char *name);

/* The answer of GET /v1/models, or of one model (NULL: not there). New references. */
json_t *dure_catalog_json(dure_catalog *catalog);
json_t *dure_catalog_model_json(dure_catalog *catalog, const char *name);

/* Calls visit for every adapter (not the base), under the catalog's lock: be quick. */
void dure_catalog_each(dure_catalog *catalog, void (*visit)(void *state, const dure_offer *offer),
                       void *state);
