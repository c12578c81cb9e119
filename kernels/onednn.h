/* One bfloat16 matrix product of oneDNN with packed weights: the only place that sees its API,
 * versions 2 and 3.
 *
 * oneDNN runs on the calling thread alone (its OpenMP team is set to one): the pool of
 * kernels/threads.h shares out the work. */
#pragma once

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dure_onednn_product dure_onednn_product;

/* result[rows x outer] = input[rows x inner] M, M given as float32 [outer x inner] with
 * `outer_major` or [inner x outer]. */
typedef struct dure_onednn_shape {
    size_t rows, inner, outer;
    bool outer_major;
    bool only_brg; /* refuse implementations whose name does not begin with "brg" */
} dure_onednn_shape;

/* True when there is an implementation; its name goes to `name`. */
bool dure_onednn_find(char name[64], const dure_onednn_shape *shape);
/* "2.6.3" */
void dure_onednn_version(char text[32]);

/* Packs M, which may then be freed, and runs the product once. */
DURE_MUST_USE dure_err dure_onednn_product_new(dure_onednn_product **out,
                                               const dure_onednn_shape *shape, const float *m);
void dure_onednn_product_free(dure_onednn_product **product);
/* Any number of threads at once. */
void dure_onednn_product_run(const dure_onednn_product *product, float *result,
                             const uint16_t *input);
