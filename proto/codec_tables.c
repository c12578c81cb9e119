/* The field tables of every control message (codec_int.h). */
#include "proto/codec_int.h"

#include "proto/dure.pb-c.h"

/* All tables of one message use P (plain type) and W (protobuf-c's), defined around them. */
#define U32(member, lo, hi)                                                                        \
    {.name = #member,                                                                              \
     .kind = FIELD_U32,                                                                            \
     .min = lo,                                                                                    \
     .max = hi,                                                                                    \
     .plain = offsetof(P, member),                                                                 \
     .wire = offsetof(W, member)}
#define U64(member)                                                                                \
    {.name = #member, .kind = FIELD_U64, .plain = offsetof(P, member), .wire = offsetof(W, member)}
#define FIXED_AT(place, member, n)                                                                 \
    {.name = #member,                                                                              \
     .kind = FIELD_FIXED,                                                                          \
     .max = n,                                                                                     \
     .plain = offsetof(P, place),                                                                  \
     .wire = offsetof(W, member)}
#define FIXED(member, n) FIXED_AT(member, member, n)
#define DIGEST(member) FIXED(member, DURE_DIGEST_BYTES)
#define SIGNATURE FIXED(signature, DURE_SIGNATURE_BYTES)
#define BYTES(member, lo, hi)                                                                      \
    {.name = #member,                                                                              \
     .kind = FIELD_BYTES,                                                                          \
     .min = lo,                                                                                    \
     .max = hi,                                                                                    \
     .plain = offsetof(P, member),                                                                 \
     .wire = offsetof(W, member)}
#define MAYBE_AT(place, member, hi)                                                                \
    {.name = #member,                                                                              \
     .kind = FIELD_MAYBE,                                                                          \
     .max = hi,                                                                                    \
     .plain = offsetof(P, place),                                                                  \
     .wire = offsetof(W, member),                                                                  \
     .wire_n = offsetof(W, has_##member)}
#define MAYBE(member, hi) MAYBE_AT(member, member, hi)
#define TEXT                                                                                       \
    {.name = "text",                                                                               \
     .kind = FIELD_TEXT,                                                                           \
     .max = DURE_MSG_TEXT_SIZE,                                                                    \
     .plain = offsetof(P, text),                                                                   \
     .wire = offsetof(W, text)}
#define REPEATED(member, what, limit, table)                                                       \
    {.name = #member,                                                                              \
     .kind = what,                                                                                 \
     .max = limit,                                                                                 \
     .plain = offsetof(P, member),                                                                 \
     .wire = offsetof(W, member),                                                                  \
     .plain_n = offsetof(P, n_##member),                                                           \
     .wire_n = offsetof(W, n_##member),                                                            \
     .entries = table}
/* Entries of a site and its neighbours, the whole set that they are of, and what stands for the
 * others. */
#define NEAR(table) REPEATED(entries, FIELD_LIST, DURE_NEAR_MAX, &table)
#define SET BYTES(members, 1, DURE_MEMBERS_BYTES_MAX)
#define ROLL_PROOF REPEATED(proof, FIELD_HASHES, DURE_MSG_ROLL_PROOF_MAX, NULL)
#define ALL(table) REPEATED(entries, FIELD_LIST, DURE_ROUND_MEMBERS_MAX, &table)
#define MEMBER U32(member, 0, DURE_ROUND_MEMBERS_MAX - 1)
#define TABLE(variable, type_name, wire_type, limit, list)                                         \
    static const message_table variable = {                                                        \
        .name = type_name,                                                                         \
        .descriptor = &wire_type##__descriptor,                                                    \
        .plain_bytes = sizeof(P),                                                                  \
        .body_max = limit,                                                                         \
        .fields = list,                                                                            \
        .n_fields = sizeof list / sizeof list[0],                                                  \
    }

#define P dure_round_keys
#define W Dure__Keys__Entry
static const field keys_entry_fields[] = {
    MEMBER,
    DIGEST(channel_public),
    DIGEST(mask_public),
    DIGEST(nonce),
    DIGEST(commitment),
    U64(chain_length),
    DIGEST(chain_head),
    SIGNATURE,
    MAYBE(kem, DURE_MSG_KEM_KEYS_BYTES),
};
TABLE(keys_entry, "keys_entry", dure__keys__entry, 0, keys_entry_fields);
#undef P
#undef W

#define P dure_sealed
#define W Dure__Shares__Entry
static const field shares_entry_fields[] = {
    MEMBER,
    BYTES(sealed, 1, DURE_MSG_SEALED_MAX),
    MAYBE(kem, DURE_MSG_KEM_MAX),
};
TABLE(shares_entry, "shares_entry", dure__shares__entry, 0, shares_entry_fields);
#undef P
#undef W

#define P dure_forwarded
#define W Dure__SharesFor__Entry
static const field shares_for_entry_fields[] = {
    MEMBER,    BYTES(sealed, 0, DURE_MSG_SEALED_MAX), DIGEST(r1_hash),
    SIGNATURE, MAYBE(kem, DURE_MSG_KEM_MAX),
};
TABLE(shares_for_entry, "shares_for_entry", dure__shares_for__entry, 0, shares_for_entry_fields);
#undef P
#undef W

#define P dure_survivor
#define W Dure__Survivors__Entry
static const field survivors_entry_fields[] = {
    MEMBER,
    DIGEST(root),
    SIGNATURE,
};
TABLE(survivors_entry, "survivors_entry", dure__survivors__entry, 0, survivors_entry_fields);
#undef P
#undef W

#define P dure_attested
#define W Dure__Signatures__Entry
static const field signatures_entry_fields[] = {
    MEMBER,
    SIGNATURE,
};
TABLE(signatures_entry, "signatures_entry", dure__signatures__entry, 0, signatures_entry_fields);
#undef P
#undef W

#define P dure_revealed
#define W Dure__Unmask__Entry
static const field unmask_entry_fields[] = {
    MEMBER,
    U32(kind, DURE_SHARE_SELF, DURE_SHARE_MASK),
    FIXED(share, DURE_MSG_SHARE_BYTES),
};
TABLE(unmask_entry, "unmask_entry", dure__unmask__entry, 0, unmask_entry_fields);
#undef P
#undef W

/* R0 has the fields of one entry of A1, inside its `keys`. */
#define KEY(member) FIXED_AT(keys.member, member, DURE_DIGEST_BYTES)
#define KEY_LENGTH                                                                                 \
    {.name = "chain_length",                                                                       \
     .kind = FIELD_U64,                                                                            \
     .plain = offsetof(P, keys.chain_length),                                                      \
     .wire = offsetof(W, chain_length)}

#define P dure_msg_join
#define W Dure__Join
static const field join_fields[] = {
    BYTES(invitation, 1, DURE_MSG_ENTRY_MAX),
    BYTES(record, 1, DURE_MSG_ENTRY_MAX),
};
#undef P
#undef W

#define P dure_msg_joined
#define W Dure__Joined
static const field joined_fields[] = {
    U64(roster_size),
    DIGEST(roster_hash),
};
#undef P
#undef W

#define P dure_msg_refused
#define W Dure__Refused
static const field refused_fields[] = {
    U32(code, DURE_REFUSAL_INVITATION_USED, DURE_REFUSAL_LEDGER),
    TEXT,
};
#undef P
#undef W

#define P dure_msg_hello
#define W Dure__Hello
static const field hello_fields[] = {
    U32(version, 0, UINT32_MAX),
    DIGEST(federation_id),
    DIGEST(config_hash),
    U32(stage, DURE_STAGE_IDLE, DURE_STAGE_UNMASKED),
    U64(last_round),
    U64(roster_size),
    U64(checkpoint_size),
    DIGEST(checkpoint_root),
    U64(chain_length),
    DIGEST(chain_head),
};
#undef P
#undef W

#define P dure_msg_open
#define W Dure__Open
static const field open_fields[] = {
    BYTES(config, 1, DURE_CONFIG_BYTES_MAX),
    SIGNATURE,
    U64(roster_from),
    REPEATED(roster, FIELD_SPANS, DURE_MSG_ENTRIES_MAX, NULL),
    BYTES(checkpoint, 0, DURE_MSG_CHECKPOINT_MAX),
    REPEATED(consistency, FIELD_HASHES, DURE_MSG_PROOF_MAX, NULL),
};
#undef P
#undef W

#define P dure_msg_advertise
#define W Dure__Advertise
static const field advertise_fields[] = {
    DIGEST(config_hash),
    KEY(channel_public),
    KEY(mask_public),
    KEY(nonce),
    KEY(commitment),
    KEY_LENGTH,
    KEY(chain_head),
    FIXED_AT(keys.signature, signature, DURE_SIGNATURE_BYTES),
    MAYBE_AT(keys.kem, kem, DURE_MSG_KEM_KEYS_BYTES),
};
#undef P
#undef W

#define P dure_msg_keys
#define W Dure__Keys
static const field keys_fields[] = {
    DIGEST(config_hash), NEAR(keys_entry), SET, ROLL_PROOF, MAYBE(beacon, DURE_SIGNATURE_BYTES),
};
#undef P
#undef W

#define P dure_msg_shares
#define W Dure__Shares
static const field shares_fields[] = {
    DIGEST(config_hash),
    NEAR(shares_entry),
    SIGNATURE,
    MAYBE(wrapped, DURE_MSG_WRAPPED_MAX),
};
#undef P
#undef W

#define P dure_msg_shares_for
#define W Dure__SharesFor
static const field shares_for_fields[] = {
    DIGEST(config_hash),
    NEAR(shares_for_entry),
    SET,
    ROLL_PROOF,
};
#undef P
#undef W

#define P dure_msg_fetch
#define W Dure__Fetch
static const field fetch_fields[] = {
    DIGEST(config_hash),
    U32(first_chunk, 0, UINT32_MAX),
    U32(n_chunks, 1, UINT32_MAX),
};
#undef P
#undef W

#define P dure_msg_chunk
#define W Dure__Chunk
static const field chunk_fields[] = {
    DIGEST(config_hash),
    U32(chunk, 0, UINT32_MAX),
    U32(n_bytes, 1, DURE_MSG_PAYLOAD_MAX),
};
#undef P
#undef W

#define P dure_msg_masked
#define W Dure__Masked
static const field masked_fields[] = {
    DIGEST(config_hash),
    DIGEST(t2),
    DIGEST(root),
    SIGNATURE,
};
#undef P
#undef W

#define P dure_msg_survivors
#define W Dure__Survivors
static const field survivors_fields[] = {
    DIGEST(config_hash),
    NEAR(survivors_entry),
    SET,
    ROLL_PROOF,
};
#undef P
#undef W

#define P dure_msg_consistency
#define W Dure__Consistency
static const field consistency_fields[] = {
    DIGEST(config_hash),
    DIGEST(t3),
    SIGNATURE,
};
#undef P
#undef W

#define P dure_msg_signatures
#define W Dure__Signatures
static const field signatures_fields[] = {
    DIGEST(config_hash),
    DIGEST(t3),
    ALL(signatures_entry),
};
#undef P
#undef W

#define P dure_msg_unmask
#define W Dure__Unmask
static const field unmask_fields[] = {
    DIGEST(config_hash),
    DIGEST(t3),
    NEAR(unmask_entry),
    SIGNATURE,
};
#undef P
#undef W

#define P dure_msg_result
#define W Dure__Result
static const field result_fields[] = {
    DIGEST(config_hash),
    DIGEST(t3),
    DIGEST(sum_digest),
    DIGEST(adapter_digest),
    BYTES(leaf, 1, DURE_MSG_LEAF_MAX),
    U64(leaf_index),
    BYTES(checkpoint, 1, DURE_MSG_CHECKPOINT_MAX),
    REPEATED(inclusion, FIELD_HASHES, DURE_MSG_PROOF_MAX, NULL),
    REPEATED(consistency, FIELD_HASHES, DURE_MSG_PROOF_MAX, NULL),
};
#undef P
#undef W

#define P dure_msg_cosign
#define W Dure__Cosign
static const field cosign_fields[] = {
    U64(checkpoint_size),
    DIGEST(checkpoint_root),
    U64(time_s),
    SIGNATURE,
};
#undef P
#undef W

#define P dure_msg_blob_request
#define W Dure__BlobRequest
static const field blob_request_fields[] = {
    DIGEST(digest),
    U64(offset),
    U32(n_bytes, 1, DURE_MSG_PAYLOAD_MAX),
};
#undef P
#undef W

#define P dure_msg_blob_chunk
#define W Dure__BlobChunk
static const field blob_chunk_fields[] = {
    DIGEST(digest),
    U64(offset),
    U64(total_bytes),
    U32(n_bytes, 0, DURE_MSG_PAYLOAD_MAX),
};
#undef P
#undef W

#define P dure_msg_heartbeat
#define W Dure__Heartbeat
static const field heartbeat_fields[] = {
    DIGEST(config_hash),
    U32(step, 0, UINT32_MAX),
};
#undef P
#undef W

#define P dure_msg_abort
#define W Dure__Abort
static const field abort_fields[] = {
    DIGEST(config_hash),
    U32(code, DURE_ABORT_CHECK, DURE_ABORT_RESTARTED),
    TEXT,
    SIGNATURE,
};
#undef P
#undef W

#define P dure_msg_waiting
#define W Dure__Waiting
static const field waiting_fields[] = {
    DIGEST(config_hash),
    U32(sites_present, 0, UINT32_MAX),
    U32(sites_needed, 0, UINT32_MAX),
    TEXT,
};
#undef P
#undef W

#define P dure_msg_entries_request
#define W Dure__EntriesRequest
static const field entries_request_fields[] = {
    U32(kind, DURE_ENTRIES_LOG, DURE_ENTRIES_NOTES),
    U64(from),
};
#undef P
#undef W

#define P dure_msg_entries
#define W Dure__Entries
static const field entries_fields[] = {
    U32(kind, DURE_ENTRIES_LOG, DURE_ENTRIES_NOTES),
    U64(from),
    U64(total),
    U32(n_entries, 0, UINT32_MAX),
    U32(n_bytes, 0, DURE_MSG_PAYLOAD_MAX),
};
#undef P
#undef W

#define P dure_msg_new_epoch
#define W Dure__NewEpoch
static const field new_epoch_fields[] = {
    BYTES(leaf, 1, DURE_MSG_EPOCH_LEAF_MAX),
};
#undef P
#undef W

/* Every message of DURE_MSG_LIST has a table, or this does not compile. */
const message_table *dure_codec_table(uint32_t type)
{
    static const message_table tables[] = {
#define ROW(name_, number, field_, limit)                                                          \
    [number] = {.name = #name_,                                                                    \
                .descriptor = &dure__##field_##__descriptor,                                       \
                .plain_bytes = sizeof(dure_msg_##field_),                                          \
                .body_max = limit,                                                                 \
                .fields = field_##_fields,                                                         \
                .n_fields = sizeof field_##_fields / sizeof field_##_fields[0]},
        DURE_MSG_LIST(ROW)
#undef ROW
    };
    if (type >= sizeof tables / sizeof tables[0] || !tables[type].fields) return NULL;
    return &tables[type];
}
