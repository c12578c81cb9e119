/* A tiny model, records that it can learn and a trainer's usual options, for the tests of the
 * trainer. Failures fail the test at hand. */
#pragma once

#include "client/trainer.h"
#include "support/check.h"
#include "support/temp_dir.h"

enum { RECORDS = 24 };

typedef struct fixture {
    temp_dir dir;
    dure_gguf *gguf;
    dure_tokenizer *tokenizer;
    dure_chat_template chat;
    dure_transformer *model;
    dure_dataset data;
    dure_dp_plan plan;
    dure_attempt attempt; /* begun by the first private_opts() */
    dure_diag diag;
} fixture;

/* cmocka's set-up and tear-down: *state is the fixture. */
int trainer_set_up(void **state);
int trainer_tear_down(void **state);

/* Rank 4, alpha 8, q and v, from seed 1. */
dure_lora *fresh_lora(fixture *f);
/* Both factors, AdamW at 0.02, batches of 8. */
dure_trainer_opts plain_opts(void);
/* A plan with little noise, so that what is learned shows. */
dure_trainer_opts private_opts(fixture *f, const dure_lora *lora, uint64_t steps);
dure_trainer *trainer_of(fixture *f, dure_lora *lora, const dure_trainer_opts *opts);
/* Mean loss over all records. */
double loss_of(fixture *f, const dure_lora *lora);
void run(fixture *f, dure_trainer *t, uint64_t steps);
