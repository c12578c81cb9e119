#include "ledger/event.h"

#include <math.h>
#include <string.h>

static const char leaf_labels[][12] = {"DURE/1/leaf", "DURE/2/leaf"};
enum { LABEL_BYTES = sizeof leaf_labels[0] - 1 };
static const char epoch_label[] = "DURE/1/new-epoch";
static const uint64_t infinity_bits = UINT64_C(0x7ff0000000000000);

const char *dure_event_kind_text(dure_event_kind kind)
{
    switch (kind) {
    case DURE_EVENT_GENESIS:
        return "genesis";
    case DURE_EVENT_ROSTER:
        return "roster";
    case DURE_EVENT_OPENED:
        return "round opened";
    case DURE_EVENT_CLOSED:
        return "round closed";
    case DURE_EVENT_ABORTED:
        return "round aborted";
    case DURE_EVENT_PROMOTED:
        return "promoted";
    case DURE_EVENT_ROLLED_BACK:
        return "rolled back";
    case DURE_EVENT_NEW_EPOCH:
        return "new epoch";
    }
    return "unknown";
}

uint32_t dure_event_round_count(const dure_event_round *round, dure_event_part part)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < round->n_members; i++)
        n += round->members[i].part >= part;
    return n;
}

/* ---- Rules that hold for every event, checked when it is written and when it is read. ---- */

static bool is_zero(const dure_hash *hash)
{
    static const dure_hash zero;
    return dure_hash_equal(hash, &zero);
}

/* Names appear in signed notes and on screens: letters, digits, '.', '_' and '-'. */
static dure_err check_name(const char *name, const char *what, dure_diag *diag)
{
    size_t n = strnlen(name, DURE_EVENT_NAME_SIZE);
    bool fine = n > 0 && n < DURE_EVENT_NAME_SIZE;
    for (size_t i = 0; fine && i < n; i++) {
        char c = name[i];
        fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '.' || c == '_' || c == '-';
    }
    if (fine) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_USAGE,
                         "%s must be 1 to 64 letters, digits, '.', '_' or '-'", what);
}

dure_err dure_event_check_reason(const char *reason, dure_diag *diag)
{
    size_t n = strnlen(reason, DURE_EVENT_REASON_SIZE);
    bool fine = n < DURE_EVENT_REASON_SIZE;
    for (size_t i = 0; fine && i < n; i++)
        fine = (uint8_t)reason[i] >= 0x20 && reason[i] != 0x7f;
    if (fine) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_USAGE,
                         "a reason must be one line of at most %d bytes of text",
                         DURE_EVENT_REASON_SIZE - 1);
}

static dure_err check_roster(const dure_event_roster *roster, dure_diag *diag)
{
    dure_err err = DURE_OK;
    if (roster->n_sites > DURE_EVENT_MEMBERS_MAX) {
        return dure_diag_set(diag, DURE_ERR_USAGE, "a roster holds at most %d sites in force",
                             DURE_EVENT_MEMBERS_MAX);
    }
    for (uint32_t i = 0; !err && i < roster->n_sites; i++) {
        err = check_name(roster->sites[i].name, "a site's name", diag);
        if (!err && i > 0 && strcmp(roster->sites[i - 1].name, roster->sites[i].name) >= 0) {
            err = dure_diag_set(diag, DURE_ERR_USAGE,
                                "the sites must be sorted by name, each once; %s is not",
                                roster->sites[i].name);
        }
    }
    return err;
}

static dure_err check_member(const dure_event_round *round, uint32_t i, dure_event_part most,
                             dure_diag *diag)
{
    const dure_event_member *member = &round->members[i];
    dure_err err = check_name(member->name, "a member's name", diag);
    if (err) return err;
    if (i > 0 && strcmp(round->members[i - 1].name, member->name) >= 0) {
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the members must be sorted by name, each once; %s is not",
                             member->name);
    }
    if ((unsigned)member->part > (unsigned)most) {
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "member %s has a part (%u) that this kind of event cannot have",
                             member->name, (unsigned)member->part);
    }
    err = dure_dp_plan_check(&member->plan, diag);
    if (!err && member->plan.adaptive.count_sigma_num)
        err = dure_diag_set(diag, DURE_ERR_USAGE,
                            "a federation's clip is fixed by its terms, and this plan's adapts");
    return err ? dure_diag_prefix(diag, err, "member %s", member->name) : DURE_OK;
}

static dure_err check_gate(const dure_event_gate *gate, dure_diag *diag)
{
    bool fine = (unsigned)gate->verdict <= DURE_VERDICT_FAILED && !(gate->loss_before < 0) &&
                !(gate->loss_after < 0);
    if (fine) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_USAGE, "the gate's verdict or losses are out of range");
}

static bool is_round(dure_event_kind kind)
{
    return kind == DURE_EVENT_OPENED || kind == DURE_EVENT_CLOSED || kind == DURE_EVENT_ABORTED;
}

/* 2 for a round that records its secure sum, else 1. */
static unsigned version_of(const dure_event *event)
{
    return is_round(event->kind) && event->u.round.sum.suite > 0 ? 2 : 1;
}

/* The rules of proto/config.h, which the sites held this round to. */
static dure_err check_sum(const dure_event_round *round, dure_diag *diag)
{
    const dure_event_sum *sum = &round->sum;
    if (sum->suite == 0) return DURE_OK;
    bool fine = sum->collusion < DURE_EVENT_MEMBERS_MAX && sum->threshold <= round->n_members &&
                2 * sum->threshold > round->n_members + sum->collusion && sum->u_min >= 3 &&
                sum->u_min >= sum->collusion + 2 && sum->n_words > 0 &&
                (sum->word_bits == 24 || sum->word_bits == 32);
    if (!fine) {
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the secure sum's threshold, least number of sites or words are out "
                             "of range");
    }
    return DURE_OK;
}

/* What the noise of a sum rests on where sites are protected: the same share of every member,
 * counted for the fewest honest sites that the sum's own rules leave. */
static dure_err check_shares(const dure_event_round *round, dure_diag *diag)
{
    const dure_event_sum *sum = &round->sum;
    const bool of_sites = round->privacy_mode == DURE_PRIVACY_CLIENT;
    const dure_dp_plan *first = &round->members[0].plan;
    bool fine = !of_sites || sum->suite > 0;
    for (uint32_t i = 0; fine && i < round->n_members; i++) {
        const dure_dp_plan *plan = &round->members[i].plan;
        fine = of_sites == (plan->mechanism == DURE_DP_SITE_GAUSSIAN);
        if (!fine || !of_sites) continue;
        fine = plan->honest == sum->u_min - sum->collusion && plan->n_params == sum->n_words &&
               plan->sigma_num == first->sigma_num && plan->grid_bits == first->grid_bits &&
               !(plan->clip < first->clip) && !(plan->clip > first->clip);
    }
    if (fine) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_USAGE,
                         "noise that sites share does not fit the mode or the rules of the sum, or "
                         "is not the same for all members");
}

static dure_err check_round(const dure_event *event, dure_diag *diag)
{
    const dure_event_round *round = &event->u.round;
    dure_event_kind kind = event->kind;
    static const dure_event_part most[] = {[DURE_EVENT_OPENED] = DURE_PART_NONE,
                                           [DURE_EVENT_CLOSED] = DURE_PART_SUMMED,
                                           [DURE_EVENT_ABORTED] = DURE_PART_UPLOADED};
    bool closed = kind == DURE_EVENT_CLOSED;
    if (round->privacy_mode < 1 || round->privacy_mode > 4) {
        return dure_diag_set(diag, DURE_ERR_USAGE, "privacy_mode must be 1, 2, 3 or 4");
    }
    if (round->checkpoint_n > event->index) {
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "a round cannot cite a checkpoint of entries that come after it");
    }
    if (round->n_members < 1 || round->n_members > DURE_EVENT_MEMBERS_MAX) {
        return dure_diag_set(diag, DURE_ERR_USAGE, "a round has 1 to %d members",
                             DURE_EVENT_MEMBERS_MAX);
    }
    if (closed == is_zero(&round->adapter_out) || closed == is_zero(&round->result) ||
        (closed && is_zero(&round->t3)) || (kind == DURE_EVENT_OPENED && !is_zero(&round->t3))) {
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "t3, adapter_out and result belong to a closed round, and only to it");
    }
    if ((kind == DURE_EVENT_ABORTED) == (round->reason[0] == 0)) {
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "an aborted round has a reason, and only an aborted one");
    }
    dure_err err = dure_event_check_reason(round->reason, diag);
    if (!err) err = check_gate(&round->gate, diag);
    for (uint32_t i = 0; !err && i < round->n_members; i++)
        err = check_member(round, i, most[kind], diag);
    if (!err && closed && dure_event_round_count(round, DURE_PART_SUMMED) == 0) {
        err = dure_diag_set(diag, DURE_ERR_USAGE, "a closed round has nobody in its sum");
    }
    if (!err) err = check_sum(round, diag);
    return err ? err : check_shares(round, diag);
}

static dure_err check_epoch(const dure_event *event, dure_diag *diag)
{
    const dure_event_epoch *epoch = &event->u.epoch;
    if (epoch->epoch == 0 || epoch->lost_n < epoch->kept.n || epoch->kept.n != event->index) {
        return dure_diag_set(
            diag, DURE_ERR_USAGE,
            "a new epoch is numbered from 1, follows directly on what is kept, and "
            "cannot keep more than there was");
    }
    return dure_event_check_reason(epoch->reason, diag);
}

static dure_err check(const dure_event *event, dure_diag *diag)
{
    dure_err err = DURE_OK;
    if (event->time_s < 0) {
        return dure_diag_set(diag, DURE_ERR_USAGE, "the time is before 1970");
    }
    if ((event->kind == DURE_EVENT_GENESIS) != (event->index == 0)) {
        return dure_diag_set(diag, DURE_ERR_USAGE, "genesis is entry 0, and entry 0 is genesis");
    }
    switch (event->kind) {
    case DURE_EVENT_GENESIS:
        err = check_name(event->u.genesis.federation, "the federation's name", diag);
        if (!err && event->u.genesis.collusion >= DURE_EVENT_MEMBERS_MAX) {
            err = dure_diag_set(diag, DURE_ERR_USAGE, "collusion must be below %d",
                                DURE_EVENT_MEMBERS_MAX);
        }
        return err;
    case DURE_EVENT_ROSTER:
        return check_roster(&event->u.roster, diag);
    case DURE_EVENT_OPENED:
    case DURE_EVENT_CLOSED:
    case DURE_EVENT_ABORTED:
        return check_round(event, diag);
    case DURE_EVENT_PROMOTED:
    case DURE_EVENT_ROLLED_BACK:
        return dure_event_check_reason(event->u.release.reason, diag);
    case DURE_EVENT_NEW_EPOCH:
        return check_epoch(event, diag);
    }
    return dure_diag_set(diag, DURE_ERR_USAGE, "there is no kind of event %u",
                         (unsigned)event->kind);
}

/* ---- Writing ---- */

static void put_hash(dure_buf *out, const dure_hash *hash)
{
    dure_put_raw(out, hash->b, DURE_HASH_BYTES);
}

static void put_loss(dure_buf *out, double loss)
{
    uint64_t bits = infinity_bits;
    if (isfinite(loss)) memcpy(&bits, &loss, sizeof bits);
    if (loss == 0) bits = 0; /* one encoding of zero */
    dure_put_u64(out, bits);
}

static void put_genesis(dure_buf *out, const dure_event_genesis *genesis)
{
    put_hash(out, &genesis->federation_id);
    dure_put_text(out, genesis->federation);
    dure_put_raw(out, genesis->root_public, 32);
    dure_put_raw(out, genesis->coordinator_sign, 32);
    put_hash(out, &genesis->terms);
    dure_put_u32(out, genesis->collusion);
}

static void put_roster(dure_buf *out, const dure_event_roster *roster)
{
    dure_put_u64(out, roster->size);
    put_hash(out, &roster->head);
    dure_put_u32(out, roster->n_sites);
    for (uint32_t i = 0; i < roster->n_sites; i++) {
        dure_put_text(out, roster->sites[i].name);
        dure_put_raw(out, roster->sites[i].sign_public, 32);
    }
}

static void put_round(dure_buf *out, const dure_event_round *round)
{
    dure_put_u64(out, round->run_id);
    dure_put_u64(out, round->round);
    put_hash(out, &round->h_c);
    put_hash(out, &round->t3);
    dure_put_u64(out, round->roster_size);
    put_hash(out, &round->roster_head);
    dure_put_u64(out, round->checkpoint_n);
    dure_put_u32(out, round->privacy_mode);
    put_hash(out, &round->base);
    put_hash(out, &round->adapter_in);
    put_hash(out, &round->adapter_out);
    put_hash(out, &round->result);
    dure_put_u8(out, (uint8_t)round->gate.verdict);
    dure_put_u64(out, round->gate.records);
    put_loss(out, round->gate.loss_before);
    put_loss(out, round->gate.loss_after);
    dure_put_text(out, round->reason);
    dure_put_u32(out, round->n_members);
    for (uint32_t i = 0; i < round->n_members; i++) {
        const dure_event_member *member = &round->members[i];
        dure_put_text(out, member->name);
        dure_put_raw(out, member->sign_public, 32);
        dure_put_u8(out, (uint8_t)member->part);
        dure_dp_plan_put(out, &member->plan);
    }
    const dure_event_sum *sum = &round->sum;
    if (sum->suite == 0) return;
    dure_put_u32(out, sum->suite);
    dure_put_u32(out, sum->threshold);
    dure_put_u32(out, sum->u_min);
    dure_put_u32(out, sum->collusion);
    dure_put_u32(out, sum->n_words);
    dure_put_u32(out, sum->word_bits);
}

static void put_release(dure_buf *out, const dure_event_release *release)
{
    dure_put_u64(out, release->run_id);
    dure_put_u64(out, release->round);
    put_hash(out, &release->adapter);
    put_hash(out, &release->previous);
    dure_put_raw(out, release->release_public, 32);
    dure_put_text(out, release->reason);
}

/* What the root signs: everything but the signature. */
static void put_epoch(dure_buf *out, const dure_event_epoch *epoch)
{
    put_hash(out, &epoch->federation_id);
    dure_put_u64(out, epoch->epoch);
    dure_put_u64(out, epoch->kept.n);
    put_hash(out, &epoch->kept.root);
    dure_put_u64(out, epoch->lost_n);
    dure_put_text(out, epoch->reason);
}

dure_err dure_event_encode(dure_buf *out, const dure_event *event, dure_diag *diag)
{
    dure_err err = check(event, diag);
    if (err) return err;
    dure_put_raw(out, leaf_labels[version_of(event) - 1], LABEL_BYTES);
    dure_put_u8(out, (uint8_t)event->kind);
    dure_put_u64(out, event->index);
    dure_put_u64(out, (uint64_t)event->time_s);
    switch (event->kind) {
    case DURE_EVENT_GENESIS:
        put_genesis(out, &event->u.genesis);
        break;
    case DURE_EVENT_ROSTER:
        put_roster(out, &event->u.roster);
        break;
    case DURE_EVENT_OPENED:
    case DURE_EVENT_CLOSED:
    case DURE_EVENT_ABORTED:
        put_round(out, &event->u.round);
        break;
    case DURE_EVENT_PROMOTED:
    case DURE_EVENT_ROLLED_BACK:
        put_release(out, &event->u.release);
        break;
    case DURE_EVENT_NEW_EPOCH:
        put_epoch(out, &event->u.epoch);
        dure_put_raw(out, event->u.epoch.signature, 64);
        break;
    }
    err = dure_buf_err(out);
    return err ? dure_diag_set(diag, err, "the event does not fit: %s", dure_err_text(err))
               : DURE_OK;
}

/* ---- Reading ---- */

static dure_err take_hash(dure_hash *out, dure_reader *r)
{
    return dure_take_copy(out->b, r, DURE_HASH_BYTES);
}

static dure_err take_loss(double *out, dure_reader *r)
{
    uint64_t bits = 0;
    dure_err err = dure_take_u64(&bits, r);
    if (!err && bits > infinity_bits) err = DURE_ERR_PROTO; /* negative, or not a number */
    if (!err) memcpy(out, &bits, sizeof *out);
    return err;
}

static dure_err take_genesis(dure_event_genesis *out, dure_reader *r)
{
    dure_err err = take_hash(&out->federation_id, r);
    if (!err) err = dure_take_text(out->federation, sizeof out->federation, r);
    if (!err) err = dure_take_copy(out->root_public, r, 32);
    if (!err) err = dure_take_copy(out->coordinator_sign, r, 32);
    if (!err) err = take_hash(&out->terms, r);
    if (!err) err = dure_take_u32(&out->collusion, r);
    return err;
}

static dure_err take_roster(dure_event_roster *out, dure_reader *r)
{
    dure_err err = dure_take_u64(&out->size, r);
    if (!err) err = take_hash(&out->head, r);
    if (!err) err = dure_take_u32(&out->n_sites, r);
    if (!err && out->n_sites > DURE_EVENT_MEMBERS_MAX) err = DURE_ERR_PROTO;
    for (uint32_t i = 0; !err && i < out->n_sites; i++) {
        err = dure_take_text(out->sites[i].name, sizeof out->sites[i].name, r);
        if (!err) err = dure_take_copy(out->sites[i].sign_public, r, 32);
    }
    return err;
}

static dure_err take_member(dure_event_member *out, dure_reader *r)
{
    uint8_t part = 0;
    dure_err err = dure_take_text(out->name, sizeof out->name, r);
    if (!err) err = dure_take_copy(out->sign_public, r, 32);
    if (!err) err = dure_take_u8(&part, r);
    if (!err && part > DURE_PART_SUMMED) err = DURE_ERR_PROTO;
    if (!err) err = dure_dp_plan_take(&out->plan, r);
    if (!err) out->part = (dure_event_part)part;
    return err;
}

static dure_err take_gate(dure_event_gate *out, dure_reader *r)
{
    uint8_t verdict = 0;
    dure_err err = dure_take_u8(&verdict, r);
    if (!err && verdict > DURE_VERDICT_FAILED) err = DURE_ERR_PROTO;
    if (!err) err = dure_take_u64(&out->records, r);
    if (!err) err = take_loss(&out->loss_before, r);
    if (!err) err = take_loss(&out->loss_after, r);
    if (!err) out->verdict = (dure_event_verdict)verdict;
    return err;
}

static dure_err take_sum(dure_event_sum *out, dure_reader *r)
{
    dure_err err = dure_take_u32(&out->suite, r);
    if (!err && out->suite == 0) err = DURE_ERR_PROTO; /* that is version 1 */
    if (!err) err = dure_take_u32(&out->threshold, r);
    if (!err) err = dure_take_u32(&out->u_min, r);
    if (!err) err = dure_take_u32(&out->collusion, r);
    if (!err) err = dure_take_u32(&out->n_words, r);
    if (!err) err = dure_take_u32(&out->word_bits, r);
    return err;
}

static dure_err take_round(dure_event_round *out, unsigned version, dure_reader *r)
{
    dure_err err = dure_take_u64(&out->run_id, r);
    if (!err) err = dure_take_u64(&out->round, r);
    if (!err) err = take_hash(&out->h_c, r);
    if (!err) err = take_hash(&out->t3, r);
    if (!err) err = dure_take_u64(&out->roster_size, r);
    if (!err) err = take_hash(&out->roster_head, r);
    if (!err) err = dure_take_u64(&out->checkpoint_n, r);
    if (!err) err = dure_take_u32(&out->privacy_mode, r);
    if (!err) err = take_hash(&out->base, r);
    if (!err) err = take_hash(&out->adapter_in, r);
    if (!err) err = take_hash(&out->adapter_out, r);
    if (!err) err = take_hash(&out->result, r);
    if (!err) err = take_gate(&out->gate, r);
    if (!err) err = dure_take_text(out->reason, sizeof out->reason, r);
    if (!err) err = dure_take_u32(&out->n_members, r);
    if (!err && out->n_members > DURE_EVENT_MEMBERS_MAX) err = DURE_ERR_PROTO;
    for (uint32_t i = 0; !err && i < out->n_members; i++)
        err = take_member(&out->members[i], r);
    if (!err && version == 2) err = take_sum(&out->sum, r);
    return err;
}

static dure_err take_release(dure_event_release *out, dure_reader *r)
{
    dure_err err = dure_take_u64(&out->run_id, r);
    if (!err) err = dure_take_u64(&out->round, r);
    if (!err) err = take_hash(&out->adapter, r);
    if (!err) err = take_hash(&out->previous, r);
    if (!err) err = dure_take_copy(out->release_public, r, 32);
    if (!err) err = dure_take_text(out->reason, sizeof out->reason, r);
    return err;
}

static dure_err take_epoch(dure_event_epoch *out, dure_reader *r)
{
    dure_err err = take_hash(&out->federation_id, r);
    if (!err) err = dure_take_u64(&out->epoch, r);
    if (!err) err = dure_take_u64(&out->kept.n, r);
    if (!err) err = take_hash(&out->kept.root, r);
    if (!err) err = dure_take_u64(&out->lost_n, r);
    if (!err) err = dure_take_text(out->reason, sizeof out->reason, r);
    if (!err) err = dure_take_copy(out->signature, r, 64);
    return err;
}

static dure_err take_body(dure_event *out, unsigned version, dure_reader *r)
{
    if (version > 1 && !is_round(out->kind)) return DURE_ERR_PROTO;
    switch (out->kind) {
    case DURE_EVENT_GENESIS:
        return take_genesis(&out->u.genesis, r);
    case DURE_EVENT_ROSTER:
        return take_roster(&out->u.roster, r);
    case DURE_EVENT_OPENED:
    case DURE_EVENT_CLOSED:
    case DURE_EVENT_ABORTED:
        return take_round(&out->u.round, version, r);
    case DURE_EVENT_PROMOTED:
    case DURE_EVENT_ROLLED_BACK:
        return take_release(&out->u.release, r);
    case DURE_EVENT_NEW_EPOCH:
        return take_epoch(&out->u.epoch, r);
    }
    return DURE_ERR_PROTO;
}

/* The version that the label names; 0 for another text. */
static unsigned version_named(const uint8_t *label)
{
    for (unsigned version = 1; version <= sizeof leaf_labels / sizeof *leaf_labels; version++) {
        size_t i = 0;
        while (i < LABEL_BYTES && label[i] == (uint8_t)leaf_labels[version - 1][i])
            i++;
        if (i == LABEL_BYTES) return version;
    }
    return 0;
}

static dure_err take_head(dure_event *out, unsigned *version, dure_reader *r)
{
    const uint8_t *label = NULL;
    uint8_t kind = 0;
    uint64_t time_s = 0;
    dure_err err = dure_take_raw(&label, r, LABEL_BYTES);
    if (!err && (*version = version_named(label)) == 0) err = DURE_ERR_PROTO;
    if (!err) err = dure_take_u8(&kind, r);
    if (!err) err = dure_take_u64(&out->index, r);
    if (!err) err = dure_take_u64(&time_s, r);
    if (!err && (time_s > INT64_MAX || kind < DURE_EVENT_GENESIS || kind > DURE_EVENT_NEW_EPOCH)) {
        err = DURE_ERR_PROTO;
    }
    if (err) return err;
    out->kind = (dure_event_kind)kind;
    out->time_s = (int64_t)time_s;
    return DURE_OK;
}

dure_err dure_event_decode(dure_event *out, dure_span leaf, dure_diag *diag)
{
    dure_reader r = dure_reader_of(leaf);
    memset(out, 0, sizeof *out);
    unsigned version = 0;
    dure_err err = take_head(out, &version, &r);
    if (!err) err = take_body(out, version, &r);
    if (!err) err = dure_reader_end(&r);
    if (err) {
        err = dure_diag_set(diag, DURE_ERR_PROTO, "it is not a log entry: malformed at byte %zu",
                            r.at);
    } else if (check(out, diag)) {
        err = DURE_ERR_PROTO;
    }
    if (err) memset(out, 0, sizeof *out);
    return err;
}

/* ---- The root's statement of a loss ---- */

static dure_err epoch_message(dure_buf *message, const dure_event_epoch *epoch)
{
    dure_buf_init(message, DURE_LEAF_MAX);
    put_epoch(message, epoch);
    return dure_buf_err(message);
}

dure_err dure_event_epoch_sign(dure_event_epoch *epoch, const dure_sign_key *root)
{
    dure_buf message;
    dure_err err = epoch_message(&message, epoch);
    if (!err) err = dure_sign(epoch->signature, root, epoch_label, dure_buf_span(&message));
    dure_buf_fini(&message);
    return err;
}

dure_err dure_event_epoch_verify(const dure_event_epoch *epoch, const uint8_t root_public[32])
{
    dure_buf message;
    dure_err err = epoch_message(&message, epoch);
    if (!err) {
        err = dure_sign_verify(root_public, epoch_label, dure_buf_span(&message), epoch->signature);
    }
    dure_buf_fini(&message);
    return err;
}
