/* The processes of one federation on this machine, killed and started again as a seed says.
 *
 * What the nth life of a process is given as its plan follows from the seed, the process and n
 * alone, and so do the order of those that are killed from outside and the pauses between: another
 * run of the seed tries the same, though threads and sockets may take other turns. */
#pragma once

#include "village.h"

#include "support/seeded_rng.h"

#define FLEET_COORDINATOR VILLAGE_MAX /* number of the coordinator's process */

typedef struct fleet_process {
    pid_t pid;     /* 0: not running */
    uint32_t life; /* lives begun */
    bool armed;    /* will die by itself at a point */
    bool full;     /* or its disk will be full */
    char log[32];  /* where its words go */
} fleet_process;

typedef struct fleet {
    village v;
    uint64_t seed;
    fleet_process processes[VILLAGE_MAX + 1];
    uint32_t n_at_points, n_at_instants; /* kills */
    uint32_t n_full;                     /* ends because of a full disk */
    const char *listen; /* endpoint of the coordinator, where it is not what sites connect to */
} fleet;

/* A federation of n sites that nobody runs yet. */
void fleet_make(fleet *f, uint64_t seed, uint32_t n, uint32_t rounds);
/* The same where most sites are enough for a round, so that it does not wait for those killed. */
void fleet_make_long(fleet *f, uint64_t seed, uint32_t n, uint32_t rounds);
/* The same with vectors of several chunks, `least` sites needed for a round. */
void fleet_make_large(fleet *f, uint32_t n, uint32_t least, uint32_t rounds);
/* Kills what is left and removes the files, unless they are to be kept. */
void fleet_end(fleet *f, bool keep);

/* A number below n that depends on the seed and on what it is for alone. */
uint64_t fleet_draw(const fleet *f, const char *what, uint64_t a, uint64_t b, uint64_t n);

void fleet_start(fleet *f, uint32_t process, bool armed);
/* With a plan of CHAOS_KILL (points.c); NULL: it lives. */
void fleet_start_with(fleet *f, uint32_t process, const char *plan);
/* Whether the words are in what the process said in its last life. */
bool fleet_has_said(fleet *f, uint32_t process, const char *words);
void fleet_kill(fleet *f, uint32_t process);
/* The process's wall clock is wrong by so much from now on, also in its next lives. */
void fleet_set_clock(fleet *f, uint32_t process, int64_t seconds);
/* Every site joins, killed at its points while it does. */
void fleet_join(fleet *f);
/* The same, and nobody is killed. */
void fleet_join_unharmed(fleet *f);
/* Starts what has died at its point again, unarmed. A process that ended by itself otherwise is a
 * finding, unless its disk was full and it said so. False with the sentence in f->v.output. */
bool fleet_reap(fleet *f);
/* SIGTERM to all; false when one does not end well within the time. */
bool fleet_stop(fleet *f, uint32_t timeout_ms);

/* Shows the ends of all logs and fails the test. */
void fleet_fail(const fleet *f, const char *what);
/* Until the event has been reported n times; `watch`, if any, is called in between. */
typedef void fleet_watch(uint64_t now_ms);
void fleet_wait_for(fleet *f, const char *event, size_t n, uint32_t timeout_ms, fleet_watch *watch);
