/* A folder with a tiny model and a few records that it can learn: where the tests of `dure train`
 * work. One run of the program at a time. */
#pragma once

#include "support/check.h"
#include "support/program.h"

#include <stdbool.h>

extern program desk;

/* cmocka's set-up and tear-down: model.gguf, data.jsonl (32 records) and held.jsonl (4). */
int desk_set_up(void **state);
int desk_tear_down(void **state);

/* `train` on them without privacy, rank 4, batches of 8, one thread. */
#define TRAIN "train --model model.gguf --data data.jsonl --rank 4 --batch 8 --threads 1 "
#define PLAIN TRAIN "--no-dp "
#define PRIVATE TRAIN "--source orders --records 1000 --epsilon 8 "

/* Runs and expects status 0. */
void desk_run(const char *arguments);
/* A file's bytes, with a final NUL; the caller frees them. */
char *desk_file(const char *name, size_t *n);
void desk_same_bytes(const char *a, const char *b);
void desk_other_bytes(const char *a, const char *b);
/* Starts `dure ARGUMENTS` and kills it with SIGKILL, as soon as it has printed `lines` lines on
 * stdout, or after some milliseconds. False: it had ended by then. */
bool desk_kill_after(const char *arguments, int lines);
bool desk_kill_at(const char *arguments, int milliseconds);

/* Line `i` (from 0) of a text as JSON; NULL past the end. The caller drops it. */
json_t *json_line(const char *text, size_t i);
double json_figure(const json_t *object, const char *key);
