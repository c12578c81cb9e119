#include "secagg/actions.h"

#include <stdlib.h>
#include <string.h>

static void release(dure_secagg_action *action)
{
    free((void *)(uintptr_t)action->bytes.data);
    memset(action, 0, sizeof *action);
}

void dure_secagg_actions_fini(dure_secagg_actions *actions)
{
    if (!actions) return;
    dure_secagg_actions_cut(actions, 0);
    free(actions->items);
    *actions = (dure_secagg_actions){0};
}

void dure_secagg_actions_cut(dure_secagg_actions *actions, size_t n)
{
    while (actions->n > n) {
        release(&actions->items[--actions->n]);
    }
}

dure_err dure_secagg_actions_add(dure_secagg_actions *actions, const dure_secagg_action *action)
{
    if (actions->n == actions->capacity) {
        size_t capacity = actions->capacity ? 2 * actions->capacity : 8;
        dure_secagg_action *items = realloc(actions->items, capacity * sizeof *items);
        if (!items) return DURE_ERR_NOMEM;
        actions->items = items;
        actions->capacity = capacity;
    }
    uint8_t *copy = NULL;
    if (action->bytes.n) {
        copy = malloc(action->bytes.n);
        if (!copy) return DURE_ERR_NOMEM;
        memcpy(copy, action->bytes.data, action->bytes.n);
    }
    dure_secagg_action *item = &actions->items[actions->n++];
    *item = *action;
    item->bytes = (dure_span){copy, action->bytes.n};
    return DURE_OK;
}
