#include "cli/event_file.h"

#include "common/buf.h"
#include "common/clock.h"
#include "common/file.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_EVENT_BYTES = 1 << 24 };

struct dure_event_file {
    FILE *stream;
    char *path;
    uint32_t crc[256]; /* one byte's CRC-32C */
};

/* --- protobuf --- */

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

/* The numbers of tensorflow/core/util/event.proto and framework/summary.proto, tensor.proto. */
enum {
    EVENT_WALL_TIME = 1,
    EVENT_STEP = 2,
    EVENT_FILE_VERSION = 3,
    EVENT_SUMMARY = 5,
    EVENT_SESSION_LOG = 7,
    SESSION_STATUS = 1,
    SESSION_START = 1,
    SUMMARY_VALUE = 1,
    VALUE_TAG = 1,
    VALUE_SIMPLE = 2,
    VALUE_TENSOR = 8,
    VALUE_METADATA = 9,
    METADATA_PLUGIN = 1,
    PLUGIN_NAME = 1,
    TENSOR_DTYPE = 1,
    TENSOR_SHAPE = 2,
    TENSOR_STRING = 8,
    DTYPE_STRING = 7,
    SHAPE_DIM = 2,
    DIM_SIZE = 1,
};

static void put_varint(dure_buf *b, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        dure_put_u8(b, (uint8_t)(value | 0x80));
    dure_put_u8(b, (uint8_t)value);
}

static void put_key(dure_buf *b, uint32_t field, uint32_t kind)
{
    put_varint(b, field << 3 | kind);
}

static void put_number(dure_buf *b, uint32_t field, uint64_t value)
{
    put_key(b, field, VARINT);
    put_varint(b, value);
}

static void put_span(dure_buf *b, uint32_t field, dure_span bytes)
{
    put_key(b, field, BYTES);
    put_varint(b, bytes.n);
    dure_put_raw(b, bytes.data, bytes.n);
}

/* Machines that Dure runs on are little-endian, as the wire format is. */
static void put_little(dure_buf *b, uint32_t field, uint32_t kind, const void *value, size_t n)
{
    put_key(b, field, kind);
    dure_put_raw(b, value, n);
}

/* --- frames --- */

/* CRC-32C (Castagnoli), reflected polynomial 0x82f63b78, as in RFC 3720. */
static void make_crc_table(uint32_t crc[256])
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
        crc[i] = c;
    }
}

/* Masked, so that the checksum of data that holds checksums stays a good one. */
static uint32_t masked_crc(const dure_event_file *f, const void *data, size_t n)
{
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < n; i++)
        c = f->crc[(c ^ ((const uint8_t *)data)[i]) & 0xff] ^ c >> 8;
    c = ~c;
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

static dure_err write_frame(dure_event_file *f, const dure_buf *event, dure_diag *diag)
{
    dure_err err = dure_buf_err(event);
    if (err) return dure_diag_set(diag, err, "an event for %s is too large", f->path);
    uint64_t n = event->n;
    uint32_t head = masked_crc(f, &n, sizeof n), body = masked_crc(f, event->data, event->n);
    bool written = fwrite(&n, sizeof n, 1, f->stream) == 1 &&
                   fwrite(&head, sizeof head, 1, f->stream) == 1 &&
                   fwrite(event->data, 1, event->n, f->stream) == event->n &&
                   fwrite(&body, sizeof body, 1, f->stream) == 1;
    return written ? DURE_OK : dure_file_errno(diag, "write", f->path);
}

static void start_event(dure_buf *event, uint64_t step)
{
    struct timespec ts = {0};
    timespec_get(&ts, TIME_UTC);
    double now = (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
    dure_buf_init(event, MAX_EVENT_BYTES);
    put_little(event, EVENT_WALL_TIME, FIXED64, &now, sizeof now);
    put_number(event, EVENT_STEP, step);
}

/* Wraps one value in an event and writes it. */
static dure_err write_value(dure_event_file *f, uint64_t step, const dure_buf *value,
                            dure_diag *diag)
{
    dure_buf event, summary;
    dure_buf_init(&summary, MAX_EVENT_BYTES);
    put_span(&summary, SUMMARY_VALUE, dure_buf_span(value));
    start_event(&event, step);
    put_span(&event, EVENT_SUMMARY, dure_buf_span(&summary));
    if (!event.err) event.err = value->err ? value->err : summary.err;
    dure_err err = write_frame(f, &event, diag);
    dure_buf_fini(&event);
    dure_buf_fini(&summary);
    return err;
}

dure_err dure_event_file_scalar(dure_event_file *file, const char *tag, uint64_t step, double value,
                                dure_diag *diag)
{
    dure_buf b;
    float simple = (float)value;
    dure_buf_init(&b, MAX_EVENT_BYTES);
    put_span(&b, VALUE_TAG, dure_span_of_text(tag));
    put_little(&b, VALUE_SIMPLE, FIXED32, &simple, sizeof simple);
    dure_err err = write_value(file, step, &b, diag);
    dure_buf_fini(&b);
    return err;
}

/* A tensor of one string, marked for TensorBoard's text panel. */
dure_err dure_event_file_text(dure_event_file *file, const char *tag, uint64_t step,
                              const char *text, dure_diag *diag)
{
    dure_buf b, tensor, part, inner;
    dure_buf_init(&b, MAX_EVENT_BYTES);
    dure_buf_init(&tensor, MAX_EVENT_BYTES);
    dure_buf_init(&part, MAX_EVENT_BYTES);
    dure_buf_init(&inner, MAX_EVENT_BYTES);
    put_number(&inner, DIM_SIZE, 1);
    put_span(&part, SHAPE_DIM, dure_buf_span(&inner));
    put_number(&tensor, TENSOR_DTYPE, DTYPE_STRING);
    put_span(&tensor, TENSOR_SHAPE, dure_buf_span(&part));
    put_span(&tensor, TENSOR_STRING, dure_span_of_text(text));
    inner.n = part.n = 0;
    put_span(&inner, PLUGIN_NAME, dure_span_of_text("text"));
    put_span(&part, METADATA_PLUGIN, dure_buf_span(&inner));
    put_span(&b, VALUE_TAG, dure_span_of_text(tag));
    put_span(&b, VALUE_METADATA, dure_buf_span(&part));
    put_span(&b, VALUE_TENSOR, dure_buf_span(&tensor));
    if (!b.err) b.err = tensor.err ? tensor.err : part.err ? part.err : inner.err;
    dure_err err = write_value(file, step, &b, diag);
    dure_buf_fini(&b);
    dure_buf_fini(&tensor);
    dure_buf_fini(&part);
    dure_buf_fini(&inner);
    return err;
}

dure_err dure_event_file_flush(dure_event_file *file, dure_diag *diag)
{
    return fflush(file->stream) ? dure_file_errno(diag, "write", file->path) : DURE_OK;
}

/* The version that readers look for, then the start of a session. */
static dure_err write_head(dure_event_file *f, uint64_t first_step, dure_diag *diag)
{
    dure_buf event, session;
    start_event(&event, 0);
    put_span(&event, EVENT_FILE_VERSION, dure_span_of_text("brain.Event:2"));
    dure_err err = write_frame(f, &event, diag);
    dure_buf_fini(&event);
    if (err) return err;
    dure_buf_init(&session, 16);
    put_number(&session, SESSION_STATUS, SESSION_START);
    start_event(&event, first_step);
    put_span(&event, EVENT_SESSION_LOG, dure_buf_span(&session));
    err = write_frame(f, &event, diag);
    dure_buf_fini(&event);
    dure_buf_fini(&session);
    return err;
}

static dure_err open_stream(dure_event_file *f, const char *folder, dure_diag *diag)
{
    char host[64] = "localhost", name[160];
    if (gethostname(host, sizeof host - 1)) snprintf(host, sizeof host, "localhost");
    snprintf(name, sizeof name, "events.out.tfevents.%lld.%s.%ld.0", (long long)dure_clock_wall_s(),
             host, (long)getpid());
    f->path = dure_path_join(folder, name);
    if (!f->path) return DURE_ERR_NOMEM;
    int fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return dure_file_errno(diag, "create", f->path);
    f->stream = fdopen(fd, "wb");
    if (!f->stream) close(fd);
    return f->stream ? DURE_OK : DURE_ERR_NOMEM;
}

dure_err dure_event_file_open(dure_event_file **out, const char *folder, uint64_t first_step,
                              dure_diag *diag)
{
    *out = NULL;
    dure_err err = dure_dir_make(folder, diag);
    if (err) return err;
    dure_event_file *f = calloc(1, sizeof *f);
    if (!f) return DURE_ERR_NOMEM;
    make_crc_table(f->crc);
    err = open_stream(f, folder, diag);
    if (!err) err = write_head(f, first_step, diag);
    if (!err) err = dure_event_file_flush(f, diag);
    if (err) dure_event_file_close(&f);
    *out = f;
    return err;
}

void dure_event_file_close(dure_event_file **file)
{
    dure_event_file *f = *file;
    if (!f) return;
    if (f->stream) fclose(f->stream);
    free(f->path);
    free(f);
    *file = NULL;
}
