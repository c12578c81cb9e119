/* The trainer's state, shared by its steps (trainer.c) and its file (trainer_state.c). */
#pragma once

#include "client/trainer.h"
#include "kernels/optimizer.h"

struct dure_trainer {
    dure_transformer *model;
    const dure_dataset *data;
    dure_lora *lora;
    dure_trainer_opts opts;
    dure_pool *pool; /* for the optimizer */
    dure_compute compute;
    uint64_t step;      /* the next one */
    size_t n;           /* trained parameters */
    float *active;      /* n, the trained factors */
    float *mean;        /* n, the step's gradient */
    dure_adamw moments; /* SGD uses m alone */
    /* With a plan. */
    int64_t *sum;       /* n, in grid units */
    int32_t *quantized; /* n, one record */
    size_t *chosen;     /* data->n */
    /* Without. */
    double *total;       /* n */
    size_t *order;       /* data->n, this epoch's */
    uint64_t epoch;      /* of `order`; UINT64_MAX before the first */
    dure_document *docs; /* n_docs of this step, from a buffer that grows */
    size_t docs_capacity;
};

/* The digest of the options and the adapter's layout. */
DURE_MUST_USE dure_err dure_trainer_options_hash(dure_hash *out, const dure_lora *lora,
                                                 const dure_trainer_opts *opts);
