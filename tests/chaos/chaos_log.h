/* What a process of the chaos harness writes down: records of u8 kind, u32 big-endian length, and
 * the bytes. */
#pragma once

typedef enum chaos_record_kind {
    CHAOS_FRAME = 1,   /* a control frame that is sent */
    CHAOS_PAYLOAD = 2, /* SHA-256 of the payload of the frame before */
    CHAOS_UPDATE = 3,  /* H_C, and the int32 units that are masked in it */
} chaos_record_kind;
