/* A TensorBoard event file: TFRecord frames (length and masked CRC-32C around each) of `Event`
 * messages, as tensorflow/core/lib/io/record_writer.h and tensorflow/core/util/event.proto say.
 * Only what scalars and texts need is encoded.
 *
 * Every process that goes on with a run writes a file of its own; its first event tells the reader
 * to forget what an earlier file says about the steps that are taken again. */
#pragma once

#include "common/err.h"

#include <stdint.h>

typedef struct dure_event_file dure_event_file;

/* Makes the folder and a new file in it (0600: what is measured on private records is the owner's).
 * `first_step` is the number of the next step, as the values will have it. The caller owns *out. */
DURE_MUST_USE dure_err dure_event_file_open(dure_event_file **out, const char *folder,
                                            uint64_t first_step, dure_diag *diag);
void dure_event_file_close(dure_event_file **file); /* NULL-safe, nulls */

/* One scalar, or one text, under `tag` ("train/loss") at a step. */
DURE_MUST_USE dure_err dure_event_file_scalar(dure_event_file *file, const char *tag, uint64_t step,
                                              double value, dure_diag *diag);
DURE_MUST_USE dure_err dure_event_file_text(dure_event_file *file, const char *tag, uint64_t step,
                                            const char *text, dure_diag *diag);
/* Hands what was written to the system, so that TensorBoard sees it. */
DURE_MUST_USE dure_err dure_event_file_flush(dure_event_file *file, dure_diag *diag);
