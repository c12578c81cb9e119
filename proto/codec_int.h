/* The field tables between codec.c, which walks them, and codec_tables.c, which lists them.
 *
 * One table describes a message in both forms: where each field is in the plain struct of
 * proto/messages.h and where in protobuf-c's, and what values it may have. Encoder and decoder
 * walk the same table, so neither can accept what the other would not make. */
#pragma once

#include "proto/messages.h"

#include <protobuf-c/protobuf-c.h>

typedef enum field_kind {
    FIELD_U32,    /* a number in [min, max] */
    FIELD_U64,    /* any number */
    FIELD_FIXED,  /* exactly `max` bytes: uint8_t[max] */
    FIELD_BYTES,  /* min .. max bytes: dure_span */
    FIELD_MAYBE,  /* absent, which is the empty span, or 1 .. max bytes: dure_span */
    FIELD_TEXT,   /* at most `max` - 1 bytes of UTF-8 without controls: char[max] */
    FIELD_LIST,   /* up to `max` structs, ascending in their first field, a member's number */
    FIELD_SPANS,  /* up to `max` byte strings of 1 .. DURE_MSG_ENTRY_MAX: dure_span[] */
    FIELD_HASHES, /* up to `max` hashes: uint8_t[][32] */
} field_kind;

struct message_table;

typedef struct field {
    const char *name;
    field_kind kind;
    uint32_t min, max;
    size_t plain, wire; /* offsets of the value; of the pointer for the last three kinds */
    /* Offsets of the size_t count, for the last three kinds; FIELD_MAYBE: wire_n of its flag. */
    size_t plain_n, wire_n;
    const struct message_table *entries; /* of FIELD_LIST */
} field;

typedef struct message_table {
    const char *name;
    const ProtobufCMessageDescriptor *descriptor;
    size_t plain_bytes; /* size of the plain struct */
    size_t body_max;
    const field *fields;
    size_t n_fields;
} message_table;

/* NULL for a number that is no type. */
const message_table *dure_codec_table(uint32_t type);
