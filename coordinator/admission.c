#include "coordinator/admission.h"

#include "crypto/wipe.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct known_key {
    uint8_t curve_public[32];
    bool revoked;
} known_key;

struct dure_admission_list {
    pthread_mutex_t mutex;
    known_key keys[DURE_ROSTER_MAX_ENTRIES];
    size_t n;
};

dure_err dure_admission_new(dure_admission_list **out)
{
    dure_admission_list *list = calloc(1, sizeof *list);
    *out = list;
    if (!list) return DURE_ERR_NOMEM;
    pthread_mutex_init(&list->mutex, NULL);
    return DURE_OK;
}

void dure_admission_free(dure_admission_list **list)
{
    if (!list || !*list) return;
    pthread_mutex_destroy(&(*list)->mutex);
    free(*list);
    *list = NULL;
}

void dure_admission_update(dure_admission_list *list, const dure_roster *roster)
{
    pthread_mutex_lock(&list->mutex);
    list->n = dure_roster_count(roster);
    for (size_t i = 0; i < list->n; i++) {
        const dure_roster_member *m = dure_roster_at(roster, i);
        memcpy(list->keys[i].curve_public, m->join.curve_public, 32);
        list->keys[i].revoked = m->revoked;
    }
    pthread_mutex_unlock(&list->mutex);
}

dure_admission dure_admission_ask(void *state, const uint8_t curve_public[DURE_CURVE_BYTES])
{
    dure_admission_list *list = state;
    dure_admission answer = DURE_ADMIT_GUEST;
    pthread_mutex_lock(&list->mutex);
    for (size_t i = 0; i < list->n; i++) {
        if (!dure_ct_equal(list->keys[i].curve_public, curve_public, 32)) continue;
        answer = list->keys[i].revoked ? DURE_ADMIT_NO : DURE_ADMIT_MEMBER;
        break;
    }
    pthread_mutex_unlock(&list->mutex);
    return answer;
}
