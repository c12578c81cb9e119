/* Turns the bytes of tokens into text that may be sent: whole UTF-8 characters only, and nothing
 * that could still turn out to be the beginning of a stop string.
 *
 * A token of a byte-level vocabulary can hold half a character, and a stop string can begin in one
 * token and end in another. Bytes that are no UTF-8 become U+FFFD, one for each maximal part of a
 * character that was cut short (Unicode 15, section 3.9, table 3-8), so what is sent is always
 * valid text.
 *
 * Threads: one at a time on one dure_text_stream. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>

#define DURE_STOPS_MAX 16
#define DURE_STOP_BYTES_MAX 512

typedef struct dure_text_stream dure_text_stream;

/* `stops` are copied. DURE_ERR_LIMIT: too many, too long, or an empty one. */
DURE_MUST_USE dure_err dure_text_stream_new(dure_text_stream **out, const dure_span *stops,
                                            size_t n_stops);
void dure_text_stream_free(dure_text_stream **stream);

/* Appends the bytes of one token. *ready is what may be sent now, borrowed until the next call.
 * *stopped: a stop string is complete; *ready ends before it, and nothing more is taken. */
DURE_MUST_USE dure_err dure_text_stream_push(dure_span *ready, bool *stopped,
                                             dure_text_stream *stream, dure_span bytes);
/* What was held back, when generation has ended for another reason. */
DURE_MUST_USE dure_err dure_text_stream_end(dure_span *ready, dure_text_stream *stream);
