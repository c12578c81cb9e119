/* A federation for a test: folders made by `dure init` and `dure invite`, a real `dure coordinator
 * run` process, and scripted sites. */
#pragma once

#include "script_site.h"

#include "support/temp_dir.h"

#include <jansson.h>
#include <sys/types.h>

#define VILLAGE_MAX 12

typedef struct village {
    temp_dir dir;
    uint16_t port;
    uint32_t n;
    script_site sites[VILLAGE_MAX];
    pid_t coordinator;  /* 0: not running */
    char output[65536]; /* of the last command */
    uint64_t rounds;
    const char *silence_s; /* of the coordinator: scripted sites beat fast, real ones every 5 s */
    const char *answer_s;  /* and how long it waits for an answer that needs no training */
} village;

/* A federation of n invited sites over a tiny model, n of them needed for a round unless `least` is
 * given; `rounds` of two steps planned. Nothing runs yet. */
void village_make(village *v, uint32_t n, uint32_t least, uint32_t rounds);
/* The same with as many local steps of small batches, for real sites that train. */
void village_make_training(village *v, uint32_t n, uint32_t least, uint32_t rounds, uint32_t steps);
/* The same with an adapter of some hundred kilobytes, and a coordinator as patient as by default.
 */
void village_make_large(village *v, uint32_t n, uint32_t least, uint32_t rounds);
/* The same, protecting subjects. */
void village_make_of_subjects(village *v, uint32_t n, uint32_t rounds, uint32_t steps);
/* The same, protecting whole sites by noise that they share, in an adapter of 129,024 parameters:
 * at least `u_min` sites in a sum, one of which may collude. */
void village_make_of_sites(village *v, uint32_t n, uint32_t u_min, uint32_t rounds, uint32_t steps);
void village_end(village *v);

/* Runs `dure ARGUMENTS` in the folder; exit status; both outputs in v->output. */
int village_run(village *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
void village_says(const village *v, const char *text);

/* `dure coordinator run fed --json --no-gate --exit-when-done`, its events appended to
 * events.jsonl. */
void village_start(village *v);
void village_kill(village *v);
/* Waits for it to end; the exit status. */
int village_wait(village *v);
/* Starts `dure ARGUMENTS...` (NULL-terminated, with "dure") in the folder with its outputs appended
 * to the two files. */
pid_t village_spawn(village *v, const char *out, const char *err, const char *const *arguments);
/* Connects all scripted sites, each to join. */
void village_join(village *v);
/* Lets all living sites take turns until `until` holds or `timeout_ms` is over; false then. */
typedef bool village_condition(village *v);
bool village_go(village *v, village_condition *until, uint32_t timeout_ms);
/* How often the event has been reported, and one number or text of its last one. */
size_t village_count(village *v, const char *event);
bool village_saw(village *v, const char *event, const char *key, const char *value);

/* All sites that are alive have `n` results. */
bool village_all_have(const village *v, uint32_t n);
/* The sum that site `i` was told of equals the plain sum of the updates of those that got the same
 * result, and the new adapter is the server step of it. `present` is the file of the adapter
 * before; replaced by the new one. */
void village_check_sum(village *v, dure_buf *present);
/* The first adapter's file. */
void village_first_adapter(village *v, dure_buf *file);
