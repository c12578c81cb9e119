#include "serve/text_stream.h"

#include <stdlib.h>
#include <string.h>

/* Text held back is shorter than a stop string, and one push is a token. */
#define TEXT_BYTES_MAX ((size_t)1024 * 1024)

struct dure_text_stream {
    dure_span stops[DURE_STOPS_MAX]; /* owned copies */
    size_t n_stops;
    uint8_t partial[4]; /* a character that is not complete yet */
    size_t n_partial;
    dure_buf text; /* valid UTF-8: [0, sent) was given out by the last call, the rest is held */
    size_t sent;
    bool stopped;
};

dure_err dure_text_stream_new(dure_text_stream **out, const dure_span *stops, size_t n_stops)
{
    *out = NULL;
    if (n_stops > DURE_STOPS_MAX) return DURE_ERR_LIMIT;
    dure_text_stream *stream = calloc(1, sizeof *stream);
    if (!stream) return DURE_ERR_NOMEM;
    dure_buf_init(&stream->text, TEXT_BYTES_MAX);
    dure_err err = DURE_OK;
    for (size_t i = 0; i < n_stops && !err; i++) {
        if (stops[i].n == 0 || stops[i].n > DURE_STOP_BYTES_MAX) {
            err = DURE_ERR_LIMIT;
            break;
        }
        uint8_t *copy = malloc(stops[i].n);
        if (!copy) {
            err = DURE_ERR_NOMEM;
            break;
        }
        memcpy(copy, stops[i].data, stops[i].n);
        stream->stops[stream->n_stops++] = dure_span_of(copy, stops[i].n);
    }
    if (err)
        dure_text_stream_free(&stream);
    else
        *out = stream;
    return err;
}

void dure_text_stream_free(dure_text_stream **handle)
{
    dure_text_stream *stream = *handle;
    if (!stream) return;
    for (size_t i = 0; i < stream->n_stops; i++) {
        union {
            const uint8_t *in;
            void *out;
        } copy = {.in = stream->stops[i].data};
        free(copy.out);
    }
    dure_buf_fini(&stream->text);
    free(stream);
    *handle = NULL;
}

/* The length of the character that begins with `lead`; 0 for a byte that begins none. */
static size_t character_length(uint8_t lead)
{
    if (lead < 0x80) return 1;
    if (lead >= 0xc2 && lead <= 0xdf) return 2;
    if (lead >= 0xe0 && lead <= 0xef) return 3;
    if (lead >= 0xf0 && lead <= 0xf4) return 4;
    return 0;
}

/* Whether `byte` may follow at position `at` (1..3) of the character begun with `lead`: no
 * overlong forms, no surrogates, nothing over U+10FFFF (RFC 3629, section 4). */
static bool may_follow(uint8_t lead, size_t at, uint8_t byte)
{
    uint8_t low = 0x80, high = 0xbf;
    if (at == 1 && lead == 0xe0) low = 0xa0;
    if (at == 1 && lead == 0xed) high = 0x9f;
    if (at == 1 && lead == 0xf0) low = 0x90;
    if (at == 1 && lead == 0xf4) high = 0x8f;
    return byte >= low && byte <= high;
}

static void put_replacement(dure_text_stream *stream)
{
    dure_put_raw(&stream->text, "\xef\xbf\xbd", 3);
    stream->n_partial = 0;
}

static void put_byte(dure_text_stream *stream, uint8_t byte)
{
    if (stream->n_partial && !may_follow(stream->partial[0], stream->n_partial, byte))
        put_replacement(stream);
    if (stream->n_partial == 0 && character_length(byte) == 0) {
        put_replacement(stream);
        return;
    }
    stream->partial[stream->n_partial++] = byte;
    if (stream->n_partial < character_length(stream->partial[0])) return;
    dure_put_raw(&stream->text, stream->partial, stream->n_partial);
    stream->n_partial = 0;
}

/* Drops what the last call gave out. */
static void drop_sent(dure_text_stream *stream)
{
    if (stream->sent == 0) return;
    memmove(stream->text.data, stream->text.data + stream->sent, stream->text.n - stream->sent);
    stream->text.n -= stream->sent;
    stream->sent = 0;
}

/* Where the first stop string begins in the text; text.n if there is none. */
static size_t find_stop(const dure_text_stream *stream)
{
    size_t first = stream->text.n;
    for (size_t i = 0; i < stream->n_stops; i++) {
        const dure_span *stop = &stream->stops[i];
        const uint8_t *at =
            stream->text.n ? memmem(stream->text.data, stream->text.n, stop->data, stop->n) : NULL;
        if (at && (size_t)(at - stream->text.data) < first)
            first = (size_t)(at - stream->text.data);
    }
    return first;
}

/* How much at the end of the text is the beginning of some stop string. */
static size_t held_back(const dure_text_stream *stream)
{
    size_t held = 0;
    for (size_t i = 0; i < stream->n_stops; i++) {
        const dure_span *stop = &stream->stops[i];
        size_t n = stop->n - 1 < stream->text.n ? stop->n - 1 : stream->text.n;
        for (; n > held; n--)
            if (!memcmp(stream->text.data + stream->text.n - n, stop->data, n)) held = n;
    }
    return held;
}

dure_err dure_text_stream_push(dure_span *ready, bool *stopped, dure_text_stream *stream,
                               dure_span bytes)
{
    drop_sent(stream);
    for (size_t i = 0; i < bytes.n && !stream->stopped; i++)
        put_byte(stream, bytes.data[i]);
    dure_err err = dure_buf_err(&stream->text);
    if (err) return err;
    size_t stop = find_stop(stream);
    if (stop < stream->text.n) {
        stream->stopped = true;
        stream->n_partial = 0;
        stream->text.n = stop;
        stream->sent = stop;
    } else {
        stream->sent = stream->text.n - held_back(stream);
    }
    *stopped = stream->stopped;
    *ready = dure_span_of(stream->text.data, stream->sent);
    return DURE_OK;
}

dure_err dure_text_stream_end(dure_span *ready, dure_text_stream *stream)
{
    drop_sent(stream);
    if (stream->n_partial) put_replacement(stream);
    stream->sent = stream->text.n;
    *ready = dure_span_of(stream->text.data, stream->sent);
    return dure_buf_err(&stream->text);
}
