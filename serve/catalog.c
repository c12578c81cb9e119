#include "serve/catalog.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dure_catalog {
    pthread_mutex_t lock;
    dure_offer *offers[DURE_CATALOG_MAX]; /* [0] is the base */
    size_t n;
};

static bool name_is_good(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._-/:@";
    size_t n = strlen(name);
    return n > 0 && n < DURE_MODEL_NAME_SIZE && strspn(name, allowed) == n;
}

dure_err dure_offer_new(dure_offer **out, const char *name, dure_lora *lora, dure_diag *diag)
{
    *out = NULL;
    dure_offer *offer = calloc(1, sizeof *offer);
    dure_err err = offer ? DURE_OK : DURE_ERR_NOMEM;
    if (!err && !name_is_good(name))
        err = dure_diag_set(diag, DURE_ERR_USAGE,
                            "'%s' is no name for a model: use letters, digits and . _ - / : @, at "
                            "most %d",
                            name, DURE_MODEL_NAME_SIZE - 1);
    if (err) {
        free(offer);
        dure_lora_free(&lora);
        return err;
    }
    snprintf(offer->name, sizeof offer->name, "%s", name);
    offer->lora = lora;
    atomic_init(&offer->refs, 1);
    *out = offer;
    return DURE_OK;
}

void dure_offer_release(dure_offer **handle)
{
    dure_offer *offer = *handle;
    *handle = NULL;
    if (!offer || atomic_fetch_sub(&offer->refs, 1) != 1) return;
    dure_lora_free(&offer->lora);
    free(offer);
}

dure_err dure_catalog_new(dure_catalog **out, const char *base_name, int64_t created_s,
                          dure_diag *diag)
{
    *out = NULL;
    dure_catalog *catalog = calloc(1, sizeof *catalog);
    if (!catalog) return DURE_ERR_NOMEM;
    dure_err err = dure_offer_new(&catalog->offers[0], base_name, NULL, diag);
    if (err) {
        free(catalog);
        return err;
    }
    catalog->offers[0]->created_s = created_s;
    catalog->n = 1;
    pthread_mutex_init(&catalog->lock, NULL);
    *out = catalog;
    return DURE_OK;
}

void dure_catalog_free(dure_catalog **handle)
{
    dure_catalog *catalog = *handle;
    if (!catalog) return;
    for (size_t i = 0; i < catalog->n; i++)
        dure_offer_release(&catalog->offers[i]);
    pthread_mutex_destroy(&catalog->lock);
    free(catalog);
    *handle = NULL;
}

/* Called with the lock held; n if it is not there. */
static size_t find(const dure_catalog *catalog, const char *name)
{
    size_t i = 0;
    while (i < catalog->n && strcmp(catalog->offers[i]->name, name))
        i++;
    return i;
}

dure_err dure_catalog_put(dure_catalog *catalog, dure_offer *offer, dure_diag *diag)
{
    dure_err err = DURE_OK;
    pthread_mutex_lock(&catalog->lock);
    size_t i = find(catalog, offer->name);
    dure_offer *old =
        offer; /* what is released at the end: the one replaced, or the new on failure */
    if (i == 0) {
        err =
            dure_diag_set(diag, DURE_ERR_EXISTS, "'%s' is the name of the base model", offer->name);
    } else if (i == DURE_CATALOG_MAX) {
        err = dure_diag_set(diag, DURE_ERR_LIMIT, "more than %d models", DURE_CATALOG_MAX);
    } else {
        old = i < catalog->n ? catalog->offers[i] : NULL;
        if (i == catalog->n) catalog->n++;
        catalog->offers[i] = offer;
    }
    pthread_mutex_unlock(&catalog->lock);
    dure_offer_release(&old);
    return err;
}

bool dure_catalog_remove(dure_catalog *catalog, const char *name)
{
    pthread_mutex_lock(&catalog->lock);
    size_t i = find(catalog, name);
    dure_offer *old = NULL;
    if (i > 0 && i < catalog->n) {
        old = catalog->offers[i];
        catalog->n--;
        memmove(&catalog->offers[i], &catalog->offers[i + 1],
                (catalog->n - i) * sizeof(catalog->offers[0]));
    }
    pthread_mutex_unlock(&catalog->lock);
    bool removed = old != NULL;
    dure_offer_release(&old);
    return removed;
}

dure_offer *dure_catalog_acquire(dure_catalog *catalog, const char *name)
{
    pthread_mutex_lock(&catalog->lock);
    size_t i = find(catalog, name);
    dure_offer *offer = i < catalog->n ? catalog->offers[i] : NULL;
    if (offer) atomic_fetch_add(&offer->refs, 1);
    pthread_mutex_unlock(&catalog->lock);
    return offer;
}

/* Root and parent as vLLM gives them: where the weights come from, and what they adapt. */
static json_t *offer_json(const dure_offer *offer, const char *base)
{
    json_t *model = json_pack("{s:s, s:s, s:I, s:s}", "id", offer->name, "object", "model",
                              "created", (json_int_t)offer->created_s, "owned_by", "dure");
    char root[sizeof "sha256:" + sizeof offer->digest];
    snprintf(root, sizeof root, "sha256:%s", offer->digest);
    json_object_set_new(model, "root", json_string(offer->digest[0] ? root : offer->name));
    json_object_set_new(model, "parent", offer->lora ? json_string(base) : json_null());
    if (offer->version)
        json_object_set_new(model, "version", json_integer((json_int_t)offer->version));
    return model;
}

json_t *dure_catalog_json(dure_catalog *catalog)
{
    json_t *list = json_array();
    pthread_mutex_lock(&catalog->lock);
    for (size_t i = 0; i < catalog->n; i++)
        json_array_append_new(list, offer_json(catalog->offers[i], catalog->offers[0]->name));
    pthread_mutex_unlock(&catalog->lock);
    return json_pack("{s:s, s:o}", "object", "list", "data", list);
}

json_t *dure_catalog_model_json(dure_catalog *catalog, const char *name)
{
    pthread_mutex_lock(&catalog->lock);
    size_t i = find(catalog, name);
    json_t *model =
        i < catalog->n ? offer_json(catalog->offers[i], catalog->offers[0]->name) : NULL;
    pthread_mutex_unlock(&catalog->lock);
    return model;
}

void dure_catalog_each(dure_catalog *catalog, void (*visit)(void *state, const dure_offer *offer),
                       void *state)
{
    pthread_mutex_lock(&catalog->lock);
    for (size_t i = 1; i < catalog->n; i++)
        visit(state, catalog->offers[i]);
    pthread_mutex_unlock(&catalog->lock);
}
