/* The control messages' codec: the only module that handles protobuf-c's structs.
 *
 * 1. Memory: protobuf-c gets an allocator that hands out one block cut to a fixed multiple of the
 *    frame's length and never more, so a frame of many tiny or unknown fields ends as an error.
 * 2. One form: a decoded message is encoded again and must give the frame it came from. That
 *    refuses unknown, repeated and reordered fields, overlong numbers and wrong wire types at once,
 *    where protobuf-c would keep, merge or truncate them.
 * 3. Every value is held to the limits of the field table (codec_int.h) in both directions. */
#include "proto/codec_int.h"

#include <stdlib.h>
#include <string.h>

#define FRAME_HEAD 2           /* version, type */
#define WIRE_FACTOR 12u        /* protobuf-c's structs for the densest legal message, a byte */
#define WIRE_BASE (16u * 1024) /* and for the smallest */
#define PLAIN_FACTOR 4u        /* the same for the plain structs */
#define PLAIN_BASE (16u * 1024)
#define ENCODE_BYTES (128u * 1024) /* protobuf-c's structs of the largest message to send */

/* Memory that is cut off piece by piece and released as a whole. */
typedef struct block {
    uint8_t *data;
    size_t n, used;
} block;

static void *block_take(block *b, size_t n)
{
    size_t aligned = (n + 15) & ~(size_t)15;
    if (aligned < n || aligned > b->n - b->used) return NULL;
    void *p = b->data + b->used;
    b->used += aligned;
    return p;
}

static void *wire_alloc(void *state, size_t n)
{
    return block_take(state, n);
}

static void wire_free(void *state, void *p)
{
    (void)state;
    (void)p; /* released with the block */
}

/* A decoded message and what it points to; `msg` comes first, so its address is the object's. */
typedef struct owned {
    dure_msg msg;
    block memory;
} owned;

static const void *at_const(const void *base, size_t offset)
{
    return (const uint8_t *)base + offset;
}

static void *at(void *base, size_t offset)
{
    return (uint8_t *)base + offset;
}

/* protobuf-c's structs hold pointers to mutable bytes; what we encode is only read through them. */
static uint8_t *unconst(const void *p)
{
    return (uint8_t *)(uintptr_t)p;
}

const char *dure_msg_name(dure_msg_type type)
{
    const message_table *table = dure_codec_table((uint32_t)type);
    return table ? table->name : "unknown";
}

const uint8_t *dure_msg_config_hash(const dure_msg *msg)
{
    const message_table *table = dure_codec_table((uint32_t)msg->type);
    for (size_t i = 0; table && i < table->n_fields; i++) {
        if (strcmp(table->fields[i].name, "config_hash") == 0) {
            return at_const(&msg->u, table->fields[i].plain);
        }
    }
    return NULL;
}

static dure_err refuse(dure_diag *diag, dure_err err, const message_table *t, const field *f,
                       const char *what)
{
    return dure_diag_set(diag, err, "message %s: field %s %s", t->name, f->name, what);
}

/* Bytes of one UTF-8 character at text[0..n), 0 if it is none or a control character: what a peer
 * says is shown on a terminal. */
static size_t character(const char *text, size_t n)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t more = s[0] < 0x80 ? 0 : s[0] >= 0xf0 ? 3 : s[0] >= 0xe0 ? 2 : 1;
    if (s[0] < 0x20 || s[0] == 0x7f) return 0;
    if (more == 0) return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4 || more >= n) return 0;
    uint32_t value = s[0] & (0x3fu >> more);
    for (size_t i = 1; i <= more; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        value = value << 6 | (s[i] & 0x3fu);
    }
    static const uint32_t least[4] = {0, 0xa0, 0x800, 0x10000};
    bool surrogate = value >= 0xd800 && value <= 0xdfff;
    return value < least[more] || value > 0x10ffff || surrogate ? 0 : more + 1;
}

/* Copies text[0..n), with `?` for every byte that is not text. True if there was none such. */
static bool clean_text(char *out, const char *text, size_t n)
{
    bool clean = true;
    for (size_t i = 0; i < n;) {
        size_t step = character(text + i, n - i);
        memcpy(out + i, step ? text + i : "?", step ? step : 1);
        clean = clean && step;
        i += step ? step : 1;
    }
    out[n] = 0;
    return clean;
}

void dure_msg_text(char out[DURE_MSG_TEXT_SIZE], const char *text)
{
    clean_text(out, text, strnlen(text, DURE_MSG_TEXT_SIZE - 1));
}

static bool is_repeated(field_kind kind)
{
    return kind == FIELD_LIST || kind == FIELD_SPANS || kind == FIELD_HASHES;
}

/* ---- plain to wire ---- */

typedef struct walk {
    block *memory;
    const message_table *table;
    dure_diag *diag;
} walk;

static dure_err put_scalar(const walk *w, void *wire, const void *plain, const field *f)
{
    const void *from = at_const(plain, f->plain);
    void *to = at(wire, f->wire);
    ProtobufCBinaryData bytes = {0};
    switch (f->kind) {
    case FIELD_U32: {
        uint32_t value = *(const uint32_t *)from;
        if (value < f->min || value > f->max) {
            return refuse(w->diag, DURE_ERR_PROTO, w->table, f, "is out of range");
        }
        memcpy(to, &value, sizeof value);
        return DURE_OK;
    }
    case FIELD_U64:
        memcpy(to, from, sizeof(uint64_t));
        return DURE_OK;
    case FIELD_FIXED:
        bytes = (ProtobufCBinaryData){f->max, unconst(from)};
        memcpy(to, &bytes, sizeof bytes);
        return DURE_OK;
    case FIELD_BYTES: {
        const dure_span *span = from;
        if (span->n < f->min || span->n > f->max) {
            return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "is too long or empty");
        }
        bytes = (ProtobufCBinaryData){span->n, unconst(span->data)};
        memcpy(to, &bytes, sizeof bytes);
        return DURE_OK;
    }
    case FIELD_MAYBE: {
        const dure_span *span = from;
        const protobuf_c_boolean there = span->n > 0;
        if (span->n > f->max) {
            return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "is too long");
        }
        bytes = (ProtobufCBinaryData){span->n, unconst(span->data)};
        memcpy(to, &bytes, sizeof bytes);
        memcpy(at(wire, f->wire_n), &there, sizeof there);
        return DURE_OK;
    }
    default: { /* FIELD_TEXT */
        char *text = block_take(w->memory, f->max);
        if (!text) return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "does not fit");
        clean_text(text, from, strnlen(from, f->max - 1));
        memcpy(to, &text, sizeof text);
        return DURE_OK;
    }
    }
}

static dure_err put_scalars(const walk *w, void *wire, const void *plain)
{
    protobuf_c_message_init(w->table->descriptor, wire);
    for (size_t i = 0; i < w->table->n_fields; i++) {
        const field *f = &w->table->fields[i];
        if (is_repeated(f->kind)) continue;
        dure_err err = put_scalar(w, wire, plain, f);
        if (err) return err;
    }
    return DURE_OK;
}

/* The number of the member that an entry is about: its first field, by the table's rule. */
static uint32_t entry_member(const message_table *t, const void *entry)
{
    return *(const uint32_t *)at_const(entry, t->fields[0].plain);
}

static dure_err put_list(const walk *w, void *wire, const uint8_t *entries, size_t n,
                         const field *f)
{
    const message_table *t = f->entries;
    void **list = block_take(w->memory, n * sizeof *list);
    if (!list) return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "does not fit");
    walk inner = {w->memory, t, w->diag};
    for (size_t i = 0; i < n; i++) {
        const uint8_t *entry = entries + i * t->plain_bytes;
        if (i > 0 && entry_member(t, entry - t->plain_bytes) >= entry_member(t, entry)) {
            return refuse(w->diag, DURE_ERR_PROTO, w->table, f, "is not in ascending order");
        }
        list[i] = block_take(w->memory, t->descriptor->sizeof_message);
        if (!list[i]) return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "does not fit");
        dure_err err = put_scalars(&inner, list[i], entry);
        if (err) return err;
    }
    memcpy(at(wire, f->wire), &list, sizeof list);
    return DURE_OK;
}

static dure_err put_bytes_list(const walk *w, void *wire, const uint8_t *items, size_t n,
                               const field *f)
{
    ProtobufCBinaryData *list = block_take(w->memory, n * sizeof *list);
    if (!list) return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "does not fit");
    for (size_t i = 0; i < n; i++) {
        dure_span span = {items + i * DURE_DIGEST_BYTES, DURE_DIGEST_BYTES};
        if (f->kind == FIELD_SPANS) memcpy(&span, items + i * sizeof span, sizeof span);
        if (span.n == 0 || span.n > DURE_MSG_ENTRY_MAX) {
            return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "has an empty or too long entry");
        }
        list[i] = (ProtobufCBinaryData){span.n, unconst(span.data)};
    }
    memcpy(at(wire, f->wire), &list, sizeof list);
    return DURE_OK;
}

static dure_err put_repeated(const walk *w, void *wire, const void *plain, const field *f)
{
    size_t n = *(const size_t *)at_const(plain, f->plain_n);
    const uint8_t *items = NULL;
    memcpy(&items, at_const(plain, f->plain), sizeof items);
    if (n > f->max) return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "has too many entries");
    memcpy(at(wire, f->wire_n), &n, sizeof n);
    if (n == 0) return DURE_OK;
    return f->kind == FIELD_LIST ? put_list(w, wire, items, n, f)
                                 : put_bytes_list(w, wire, items, n, f);
}

static dure_err put_message(const walk *w, void *wire, const void *plain)
{
    dure_err err = put_scalars(w, wire, plain);
    for (size_t i = 0; !err && i < w->table->n_fields; i++) {
        const field *f = &w->table->fields[i];
        if (is_repeated(f->kind)) err = put_repeated(w, wire, plain, f);
    }
    return err;
}

/* protobuf-c's growing output, onto a buffer that has a limit. */
typedef struct sink {
    ProtobufCBuffer base;
    dure_buf *out;
} sink;

static void sink_append(ProtobufCBuffer *base, size_t n, const uint8_t *data)
{
    if (n) dure_put_raw(((sink *)base)->out, data, n);
}

dure_err dure_msg_encode(dure_buf *out, const dure_msg *msg, dure_diag *diag)
{
    const message_table *t = dure_codec_table((uint32_t)msg->type);
    if (!t) return dure_diag_set(diag, DURE_ERR_USAGE, "message type %d is unknown", msg->type);
    block memory = {malloc(ENCODE_BYTES), ENCODE_BYTES, 0};
    if (!memory.data) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    walk w = {&memory, t, diag};
    ProtobufCMessage *wire = block_take(&memory, t->descriptor->sizeof_message);
    DURE_ASSERT(wire != NULL);
    dure_err err = put_message(&w, wire, &msg->u);
    if (err) goto out;
    if (protobuf_c_message_get_packed_size(wire) > t->body_max) {
        err = dure_diag_set(diag, DURE_ERR_LIMIT, "message %s is over %zu bytes", t->name,
                            t->body_max);
        goto out;
    }
    dure_put_u8(out, DURE_MSG_VERSION);
    dure_put_u8(out, (uint8_t)msg->type);
    sink s = {{sink_append}, out};
    protobuf_c_message_pack_to_buffer(wire, &s.base);
    err = dure_buf_err(out);
    if (err) dure_diag_set(diag, err, "message %s does not fit in its buffer", t->name);
out:
    free(memory.data);
    return err;
}

/* ---- wire to plain ---- */

static dure_err copy_bytes(const walk *w, dure_span *out, const ProtobufCBinaryData *bytes,
                           const field *f)
{
    uint8_t *copy = block_take(w->memory, bytes->len ? bytes->len : 1);
    if (!copy) return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "does not fit");
    if (bytes->len) memcpy(copy, bytes->data, bytes->len);
    *out = (dure_span){copy, bytes->len};
    return DURE_OK;
}

static dure_err take_scalar(const walk *w, void *plain, const void *wire, const field *f)
{
    const void *from = at_const(wire, f->wire);
    void *to = at(plain, f->plain);
    ProtobufCBinaryData bytes = {0};
    switch (f->kind) {
    case FIELD_U32: {
        uint32_t value = *(const uint32_t *)from;
        if (value < f->min || value > f->max) {
            return refuse(w->diag, DURE_ERR_PROTO, w->table, f, "is out of range");
        }
        memcpy(to, &value, sizeof value);
        return DURE_OK;
    }
    case FIELD_U64:
        memcpy(to, from, sizeof(uint64_t));
        return DURE_OK;
    case FIELD_FIXED:
        memcpy(&bytes, from, sizeof bytes);
        if (bytes.len != f->max) {
            return refuse(w->diag, DURE_ERR_PROTO, w->table, f, "has the wrong length");
        }
        memcpy(to, bytes.data, bytes.len);
        return DURE_OK;
    case FIELD_BYTES:
        memcpy(&bytes, from, sizeof bytes);
        if (bytes.len < f->min || bytes.len > f->max) {
            return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "is too long or empty");
        }
        return copy_bytes(w, to, &bytes, f);
    case FIELD_MAYBE: {
        protobuf_c_boolean there = 0;
        memcpy(&there, at_const(wire, f->wire_n), sizeof there);
        if (!there) return DURE_OK; /* the plain struct is zero */
        memcpy(&bytes, from, sizeof bytes);
        if (bytes.len == 0 || bytes.len > f->max) {
            return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "is too long or empty");
        }
        return copy_bytes(w, to, &bytes, f);
    }
    default: { /* FIELD_TEXT */
        const char *text = NULL;
        memcpy(&text, from, sizeof text);
        size_t n = strnlen(text, f->max);
        if (n >= f->max) return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "is too long");
        if (!clean_text(to, text, n)) {
            return refuse(w->diag, DURE_ERR_PROTO, w->table, f, "is not plain UTF-8 text");
        }
        return DURE_OK;
    }
    }
}

static dure_err take_scalars(const walk *w, void *plain, const void *wire)
{
    for (size_t i = 0; i < w->table->n_fields; i++) {
        const field *f = &w->table->fields[i];
        if (is_repeated(f->kind)) continue;
        dure_err err = take_scalar(w, plain, wire, f);
        if (err) return err;
    }
    return DURE_OK;
}

static dure_err take_list(const walk *w, void **out, void *const *list, size_t n, const field *f)
{
    const message_table *t = f->entries;
    uint8_t *entries = block_take(w->memory, n * t->plain_bytes);
    if (!entries) return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "does not fit");
    memset(entries, 0, n * t->plain_bytes);
    walk inner = {w->memory, t, w->diag};
    for (size_t i = 0; i < n; i++) {
        uint8_t *entry = entries + i * t->plain_bytes;
        dure_err err = take_scalars(&inner, entry, list[i]);
        if (err) return err;
        if (i > 0 && entry_member(t, entry - t->plain_bytes) >= entry_member(t, entry)) {
            return refuse(w->diag, DURE_ERR_PROTO, w->table, f, "is not in ascending order");
        }
    }
    *out = entries;
    return DURE_OK;
}

static dure_err take_spans(const walk *w, void **out, const ProtobufCBinaryData *list, size_t n,
                           const field *f)
{
    dure_span *spans = block_take(w->memory, n * sizeof *spans);
    if (!spans) return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "does not fit");
    for (size_t i = 0; i < n; i++) {
        if (list[i].len == 0 || list[i].len > DURE_MSG_ENTRY_MAX) {
            return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "has an empty or too long entry");
        }
        dure_err err = copy_bytes(w, &spans[i], &list[i], f);
        if (err) return err;
    }
    *out = spans;
    return DURE_OK;
}

static dure_err take_hashes(const walk *w, void **out, const ProtobufCBinaryData *list, size_t n,
                            const field *f)
{
    uint8_t *hashes = block_take(w->memory, n * DURE_DIGEST_BYTES);
    if (!hashes) return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "does not fit");
    for (size_t i = 0; i < n; i++) {
        if (list[i].len != DURE_DIGEST_BYTES) {
            return refuse(w->diag, DURE_ERR_PROTO, w->table, f, "has the wrong length");
        }
        memcpy(hashes + i * DURE_DIGEST_BYTES, list[i].data, DURE_DIGEST_BYTES);
    }
    *out = hashes;
    return DURE_OK;
}

static dure_err take_repeated(const walk *w, void *plain, const void *wire, const field *f)
{
    size_t n = *(const size_t *)at_const(wire, f->wire_n);
    const void *list = NULL;
    memcpy(&list, at_const(wire, f->wire), sizeof list);
    if (n > f->max) return refuse(w->diag, DURE_ERR_LIMIT, w->table, f, "has too many entries");
    if (n == 0) return DURE_OK;
    void *out = NULL;
    dure_err err = f->kind == FIELD_LIST    ? take_list(w, &out, list, n, f)
                   : f->kind == FIELD_SPANS ? take_spans(w, &out, list, n, f)
                                            : take_hashes(w, &out, list, n, f);
    if (err) return err;
    memcpy(at(plain, f->plain), &out, sizeof out);
    memcpy(at(plain, f->plain_n), &n, sizeof n);
    return DURE_OK;
}

static dure_err take_message(const walk *w, void *plain, const void *wire)
{
    dure_err err = take_scalars(w, plain, wire);
    for (size_t i = 0; !err && i < w->table->n_fields; i++) {
        const field *f = &w->table->fields[i];
        if (is_repeated(f->kind)) err = take_repeated(w, plain, wire, f);
    }
    return err;
}

static dure_err owned_new(owned **out, size_t body_bytes)
{
    *out = NULL;
    owned *object = calloc(1, sizeof *object);
    if (!object) return DURE_ERR_NOMEM;
    object->memory.n = PLAIN_FACTOR * body_bytes + PLAIN_BASE;
    object->memory.data = malloc(object->memory.n);
    if (!object->memory.data) {
        free(object);
        return DURE_ERR_NOMEM;
    }
    *out = object;
    return DURE_OK;
}

/* The frame's body through protobuf-c, in `memory`, into the plain struct. */
static dure_err unpack(owned *object, block *memory, const message_table *t, dure_span body,
                       dure_diag *diag)
{
    ProtobufCAllocator allocator = {wire_alloc, wire_free, memory};
    ProtobufCMessage *wire =
        protobuf_c_message_unpack(t->descriptor, &allocator, body.n, body.data);
    if (!wire) return dure_diag_set(diag, DURE_ERR_PROTO, "message %s is malformed", t->name);
    if (wire->n_unknown_fields) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "message %s has an unknown field", t->name);
    }
    walk w = {&object->memory, t, diag};
    return take_message(&w, &object->msg.u, wire);
}

/* DURE_ERR_PROTO unless `msg` encodes to `frame`, byte for byte. */
static dure_err check_form(const dure_msg *msg, dure_span frame, dure_diag *diag)
{
    dure_buf again;
    dure_buf_init(&again, frame.n); /* a longer encoding differs anyhow */
    dure_err err = dure_msg_encode(&again, msg, diag);
    if (err || again.n != frame.n || memcmp(again.data, frame.data, frame.n) != 0) {
        err = dure_diag_set(diag, DURE_ERR_PROTO, "message %s is not in its one canonical form",
                            dure_msg_name(msg->type));
    }
    dure_buf_fini(&again);
    return err;
}

dure_err dure_msg_decode(dure_msg **out, dure_span frame, dure_diag *diag)
{
    *out = NULL;
    if (frame.n < FRAME_HEAD) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "a control frame is shorter than its head");
    }
    if (frame.data[0] != DURE_MSG_VERSION) {
        return dure_diag_set(
            diag, DURE_ERR_UNSUPPORTED,
            "the peer speaks protocol version %u, this program version %u; install the "
            "same version of Dure on both sides",
            frame.data[0], DURE_MSG_VERSION);
    }
    const message_table *t = dure_codec_table(frame.data[1]);
    if (!t) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "message type %u is unknown", frame.data[1]);
    }
    dure_span body = {frame.data + FRAME_HEAD, frame.n - FRAME_HEAD};
    if (body.n > t->body_max) {
        return dure_diag_set(diag, DURE_ERR_LIMIT, "message %s has %zu bytes, at most %zu", t->name,
                             body.n, t->body_max);
    }
    owned *object = NULL;
    block memory = {NULL, WIRE_FACTOR * body.n + WIRE_BASE, 0};
    memory.data = malloc(memory.n);
    dure_err err = memory.data ? owned_new(&object, body.n) : DURE_ERR_NOMEM;
    if (err) {
        dure_diag_set(diag, err, "out of memory");
        goto out;
    }
    object->msg.type = (dure_msg_type)frame.data[1];
    err = unpack(object, &memory, t, body, diag);
    if (!err) err = check_form(&object->msg, frame, diag);
    if (err) goto out;
    *out = &object->msg;
    object = NULL;
out:
    free(memory.data);
    if (object) {
        dure_msg *msg = &object->msg;
        dure_msg_free(&msg);
    }
    return err;
}

void dure_msg_free(dure_msg **msg)
{
    if (!msg || !*msg) return;
    owned *object = (owned *)*msg;
    free(object->memory.data);
    free(object);
    *msg = NULL;
}
