#include "coordinator/round.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SILENCE_MS = 30000, ANSWER_MS = 120000, SILENT_SAY_MS = 5000 };

typedef struct site {
    uint64_t heard_ms, moved_ms;
    uint32_t step; /* of the last heartbeat */
} site;

struct dure_round {
    const dure_config *config;
    dure_hash config_hash;
    dure_patience patience;
    dure_secagg_server *sum;
    dure_round_state state;
    uint64_t state_ms;   /* when it was entered */
    uint64_t vectors_ms; /* when VECTORS was entered: the share lifetime counts from there */
    site sites[DURE_MEMBERS_MAX];
};

const char *dure_round_state_text(dure_round_state state)
{
    static const char *const names[] = {"keys",      "shares", "training", "consistency",
                                        "unmasking", "summed", "failed"};
    const size_t i = (size_t)state;
    return i < sizeof names / sizeof *names ? names[i] : "unknown";
}

/* Brings the state in line with the phase of the secure sum. */
static void follow(dure_round *round, uint64_t now_ms)
{
    static const dure_round_state states[] = {
        [DURE_SECAGG_PHASE_KEYS] = DURE_ROUND_KEYS,
        [DURE_SECAGG_PHASE_SHARES] = DURE_ROUND_SHARES,
        [DURE_SECAGG_PHASE_VECTORS] = DURE_ROUND_VECTORS,
        [DURE_SECAGG_PHASE_CONSISTENCY] = DURE_ROUND_CONSISTENCY,
        [DURE_SECAGG_PHASE_UNMASKING] = DURE_ROUND_UNMASKING,
        [DURE_SECAGG_PHASE_SUMMED] = DURE_ROUND_SUMMED,
        [DURE_SECAGG_PHASE_FAILED] = DURE_ROUND_FAILED,
    };
    const dure_round_state state = states[dure_secagg_server_phase(round->sum)];
    if (state == round->state) return;
    round->state = state;
    round->state_ms = now_ms;
    if (state == DURE_ROUND_VECTORS) round->vectors_ms = now_ms;
}

static dure_round *make(const dure_round_opts *opts, uint64_t now_ms)
{
    dure_round *round = calloc(1, sizeof *round);
    if (!round) return NULL;
    round->config = opts->config;
    round->config_hash = opts->config_hash;
    round->patience = opts->patience;
    if (!round->patience.silence_ms) round->patience.silence_ms = SILENCE_MS;
    if (!round->patience.answer_ms) round->patience.answer_ms = ANSWER_MS;
    round->state_ms = round->vectors_ms = now_ms;
    for (size_t i = 0; i < DURE_MEMBERS_MAX; i++)
        round->sites[i].heard_ms = round->sites[i].moved_ms = now_ms;
    return round;
}

dure_err dure_round_new(dure_round **out, const dure_round_opts *opts, uint64_t now_ms,
                        dure_diag *diag)
{
    *out = NULL;
    dure_round *round = make(opts, now_ms);
    if (!round) return DURE_ERR_NOMEM;
    const dure_secagg_server_opts sum = {
        .config = opts->config, .config_hash = opts->config_hash, .sign = opts->sign};
    dure_err err = dure_secagg_server_new(&round->sum, &sum, diag);
    if (err) dure_round_free(&round);
    *out = round;
    return err;
}

dure_err dure_round_resume(dure_round **out, dure_secagg_actions *actions,
                           const dure_round_opts *opts, const dure_span *records, size_t k,
                           uint64_t now_ms, dure_diag *diag)
{
    *out = NULL;
    dure_round *round = make(opts, now_ms);
    if (!round) return DURE_ERR_NOMEM;
    const dure_secagg_server_opts sum = {
        .config = opts->config, .config_hash = opts->config_hash, .sign = opts->sign};
    dure_err err = dure_secagg_server_resume(&round->sum, actions, &sum, records, k, diag);
    if (err)
        dure_round_free(&round);
    else
        follow(round, now_ms);
    *out = round;
    return err;
}

void dure_round_free(dure_round **round)
{
    if (!round || !*round) return;
    dure_secagg_server_free(&(*round)->sum);
    free(*round);
    *round = NULL;
}

/* ---- the table ---- */

typedef struct arrival {
    dure_secagg_actions *actions;
    uint32_t member;
    const dure_msg *msg;
    const dure_hash *root;
    dure_diag *diag;
} arrival;

typedef dure_err handler(dure_round *round, const arrival *a);

static dure_err feed(dure_round *round, const arrival *a)
{
    return dure_secagg_server_step(a->actions, round->sum, a->member, a->msg, a->root, a->diag);
}

static dure_err alive(dure_round *round, const arrival *a)
{
    if (a->msg->type == DURE_MSG_HEARTBEAT) round->sites[a->member].step = a->msg->u.heartbeat.step;
    return DURE_OK;
}

static dure_err late(dure_round *round, const arrival *a)
{
    (void)round;
    (void)a;
    return DURE_OK;
}

/* A site that names this round in its HELLO gets what it is owed; one that does not has no secrets
 * of it any more, unless it never began. */
static dure_err hello(dure_round *round, const arrival *a)
{
    const uint8_t *hash = a->msg->u.hello.config_hash;
    if (memcmp(hash, round->config_hash.b, sizeof round->config_hash.b) == 0)
        return dure_secagg_server_repeat(a->actions, round->sum, a->member);
    if (round->state == DURE_ROUND_KEYS) {
        const dure_members answered = dure_secagg_server_answered(round->sum);
        if (!dure_members_has(&answered, a->member)) return DURE_OK;
    }
    return dure_secagg_server_drop(a->actions, round->sum, a->member);
}

/* Columns in the order of the file's head. */
enum { HELLO, HEARTBEAT, ABORT, ADVERTISE, SHARES, CHUNK, MASKED, CONSISTENCY, UNMASK, COLUMNS };

static int column_of(dure_msg_type type)
{
    switch (type) {
    case DURE_MSG_HELLO:
        return HELLO;
    case DURE_MSG_HEARTBEAT:
        return HEARTBEAT;
    case DURE_MSG_ABORT:
        return ABORT;
    case DURE_MSG_ADVERTISE:
        return ADVERTISE;
    case DURE_MSG_SHARES:
        return SHARES;
    case DURE_MSG_CHUNK:
        return CHUNK;
    case DURE_MSG_MASKED:
        return MASKED;
    case DURE_MSG_CONSISTENCY:
        return CONSISTENCY;
    case DURE_MSG_UNMASK:
        return UNMASK;
    default:
        return -1;
    }
}

static handler *const table[DURE_ROUND_STATES][COLUMNS] = {
    [DURE_ROUND_KEYS] = {hello, alive, feed, feed, NULL, NULL, NULL, NULL, NULL},
    [DURE_ROUND_SHARES] = {hello, alive, feed, feed, feed, NULL, NULL, NULL, NULL},
    [DURE_ROUND_VECTORS] = {hello, alive, feed, feed, feed, alive, feed, NULL, NULL},
    [DURE_ROUND_CONSISTENCY] = {hello, alive, feed, feed, feed, late, feed, feed, NULL},
    [DURE_ROUND_UNMASKING] = {hello, alive, feed, feed, feed, late, feed, feed, feed},
    [DURE_ROUND_SUMMED] = {alive, alive, late, late, late, late, late, late, late},
    [DURE_ROUND_FAILED] = {late, late, late, late, late, late, late, late, late},
};

dure_err dure_round_receive(dure_secagg_actions *actions, dure_round *round, uint32_t member,
                            const dure_msg *msg, const dure_hash *root, uint64_t now_ms,
                            dure_diag *diag)
{
    DURE_ASSERT(member < round->config->n_members);
    const int column = column_of(msg->type);
    handler *const handle = column < 0 ? NULL : table[round->state][column];
    if (!handle)
        return dure_diag_set(diag, DURE_ERR_STATE, "%s does not belong to the state \"%s\"",
                             dure_msg_name(msg->type), dure_round_state_text(round->state));
    /* Heartbeats and aborts of another round say nothing about this one. */
    const uint8_t *hash = dure_msg_config_hash(msg);
    if (column != HELLO && hash &&
        memcmp(hash, round->config_hash.b, sizeof round->config_hash.b) != 0)
        return dure_diag_set(diag, DURE_ERR_STATE, "%s is about another round",
                             dure_msg_name(msg->type));
    round->sites[member].heard_ms = now_ms;
    const arrival a = {actions, member, msg, root, diag};
    dure_err err = handle(round, &a);
    follow(round, now_ms);
    return err;
}

/* ---- time ---- */

/* The sites forget their secrets when the share lifetime is over, so the last steps need a part of
 * it. */
static uint64_t training_ms(const dure_round *round)
{
    return round->config->share_lifetime_ms / 4 * 3;
}

static bool given_up(const dure_round *round, uint32_t member, uint64_t now_ms)
{
    const site *s = &round->sites[member];
    if (dure_elapsed_ms(now_ms, s->heard_ms) > round->patience.silence_ms) return true;
    if (round->state == DURE_ROUND_VECTORS)
        return dure_elapsed_ms(now_ms, round->vectors_ms) > training_ms(round);
    if (round->state == DURE_ROUND_KEYS &&
        dure_elapsed_ms(now_ms, round->state_ms) > training_ms(round))
        return true;
    const uint64_t since_ms = s->moved_ms > round->state_ms ? s->moved_ms : round->state_ms;
    return dure_elapsed_ms(now_ms, since_ms) > round->patience.answer_ms;
}

void dure_round_moves(dure_round *round, uint32_t member, uint64_t now_ms)
{
    DURE_ASSERT(member < round->config->n_members);
    round->sites[member].heard_ms = round->sites[member].moved_ms = now_ms;
}

dure_err dure_round_tick(dure_secagg_actions *actions, dure_members *dropped, dure_round *round,
                         uint64_t now_ms)
{
    dure_err err = DURE_OK;
    *dropped = (dure_members){{0}};
    if (round->state >= DURE_ROUND_SUMMED) return DURE_OK;
    const dure_round_state state = round->state;
    const dure_members missing = dure_secagg_server_missing(round->sum);
    for (uint32_t i = 0; !err && i < round->config->n_members; i++) {
        if (!dure_members_has(&missing, i) || !given_up(round, i, now_ms)) continue;
        dure_members_add(dropped, i);
        err = dure_secagg_server_drop(actions, round->sum, i);
        follow(round, now_ms);
        /* The drop may have begun the next phase, which has a time of its own. */
        if (round->state != state) break;
    }
    return err;
}

dure_err dure_round_drop(dure_secagg_actions *actions, dure_round *round, uint32_t member)
{
    if (round->state >= DURE_ROUND_SUMMED) return DURE_OK;
    dure_err err = dure_secagg_server_drop(actions, round->sum, member);
    follow(round, round->sites[member].heard_ms);
    return err;
}

dure_round_state dure_round_state_of(const dure_round *round)
{
    return round->state;
}

dure_secagg_server *dure_round_sum(const dure_round *round)
{
    return round->sum;
}

uint32_t dure_round_step_of(const dure_round *round, uint32_t member)
{
    return member < DURE_MEMBERS_MAX ? round->sites[member].step : 0;
}

/* Why the member's answer is not here yet, in brackets; empty: nothing more is known. */
static void say_why(char *text, size_t size, const dure_round *round, uint32_t member,
                    uint64_t now_ms)
{
    const site *s = &round->sites[member];
    const uint64_t silent_ms = dure_elapsed_ms(now_ms, s->heard_ms);
    text[0] = 0;
    if (silent_ms >= SILENT_SAY_MS)
        snprintf(text, size, " (silent for %llu s)", (unsigned long long)(silent_ms / 1000));
    else if (round->state == DURE_ROUND_KEYS && s->moved_ms > round->state_ms)
        snprintf(text, size, " (fetches the last result)");
    else if (round->state == DURE_ROUND_VECTORS && s->step < round->config->local_steps)
        snprintf(text, size, " (step %u of %u)", s->step, round->config->local_steps);
    else if (round->state == DURE_ROUND_VECTORS)
        snprintf(text, size, " (uploads)");
}

void dure_round_waiting_text(char text[DURE_MSG_TEXT_SIZE], const dure_round *round,
                             uint64_t now_ms)
{
    const size_t size = DURE_MSG_TEXT_SIZE;
    int at = snprintf(text, size, "%s", dure_round_state_text(round->state));
    if (round->state >= DURE_ROUND_SUMMED) return;
    const dure_members missing = dure_secagg_server_missing(round->sum);
    const char *comma = ": waiting for ";
    for (uint32_t i = 0; i < round->config->n_members && at > 0 && (size_t)at < size; i++) {
        char why[48];
        if (!dure_members_has(&missing, i)) continue;
        say_why(why, sizeof why, round, i, now_ms);
        at += snprintf(text + at, size - (size_t)at, "%s%s%s", comma,
                       round->config->members[i].name, why);
        comma = ", ";
    }
}
