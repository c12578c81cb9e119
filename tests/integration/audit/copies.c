#include "copies.h"

#include "ledger/cosign.h"
#include "ledger/export.h"
#include "support/check.h"

#include <stdlib.h>
#include <string.h>

/* ---- taking apart and putting together ---- */

static void set(dure_buf *to, dure_span bytes)
{
    dure_buf_fini(to);
    dure_buf_init(to, DURE_EXPORT_MAX);
    dure_put_raw(to, bytes.data, bytes.n);
    assert_ok(dure_buf_err(to));
}

static void read_event(tampering *t, size_t i)
{
    assert_ok(dure_event_decode(t->event, dure_buf_span(&t->p.leaves[i]), NULL));
}

/* Writes the scratch event as leaf i; its stored hash is that of before. */
static void write_event(tampering *t, size_t i)
{
    dure_buf leaf;
    dure_diag diag = {{0}};
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    if (dure_event_encode(&leaf, t->event, &diag)) fail_msg("%s", diag.text);
    set(&t->p.leaves[i], dure_buf_span(&leaf));
    dure_buf_fini(&leaf);
}

static void rehash(tampering *t, size_t i)
{
    assert_ok(dure_merkle_leaf(&t->p.hashes[i], dure_buf_span(&t->p.leaves[i])));
}

void tampering_begin(tampering *t, dure_span export_)
{
    dure_export *e = NULL;
    assert_ok(dure_export_parse(&e, export_, NULL));
    assert_true(e->n_leaves <= COPIES_LEAVES - 2 && e->n_notes <= COPIES_NOTES - 2);
    t->event = calloc(1, sizeof *t->event);
    assert_non_null(t->event);
    t->p.n_leaves = e->n_leaves;
    t->p.n_notes = e->n_notes;
    for (size_t i = 0; i < e->n_leaves; i++) {
        set(&t->p.leaves[i], e->leaves[i].bytes);
        t->p.hashes[i] = e->leaves[i].hash;
        read_event(t, i);
        if (t->event->kind == DURE_EVENT_OPENED) t->opened[t->n_rounds] = i;
        if (t->event->kind == DURE_EVENT_CLOSED) t->closed[t->n_rounds++] = i;
    }
    for (size_t i = 0; i < e->n_notes; i++)
        set(&t->p.notes[i], e->notes[i]);
    set(&t->p.roster, e->roster);
    dure_export_free(&e);
}

void tampering_assemble(tampering *t)
{
    if (t->file.n > 0) return;
    dure_buf_init(&t->file, DURE_EXPORT_MAX);
    dure_put_raw(&t->file, "dure-ledger-export-1\n", 21);
    dure_put_u64(&t->file, t->p.n_leaves);
    for (size_t i = 0; i < t->p.n_leaves; i++) {
        dure_put_bytes(&t->file, t->p.leaves[i].data, t->p.leaves[i].n);
        dure_put_raw(&t->file, t->p.hashes[i].b, DURE_HASH_BYTES);
    }
    dure_put_u64(&t->file, t->p.n_notes);
    for (size_t i = 0; i < t->p.n_notes; i++)
        dure_put_bytes(&t->file, t->p.notes[i].data, t->p.notes[i].n);
    dure_put_bytes(&t->file, t->p.roster.data, t->p.roster.n);
    assert_ok(dure_buf_err(&t->file));
}

void tampering_end(tampering *t)
{
    for (size_t i = 0; i < COPIES_LEAVES; i++)
        dure_buf_fini(&t->p.leaves[i]);
    for (size_t i = 0; i < COPIES_NOTES; i++)
        dure_buf_fini(&t->p.notes[i]);
    dure_buf_fini(&t->p.roster);
    dure_buf_fini(&t->file);
    free(t->event);
    t->event = NULL;
}

static verdict entry(size_t i)
{
    return (verdict){(int)i, (int)i, 0};
}

static verdict entries(size_t first, size_t last)
{
    return (verdict){(int)first, (int)last, 0};
}

static verdict checkpoint(size_t k)
{
    return (verdict){-1, -1, (int)k + 1};
}

static const verdict neither = {-1, -1, 0};

/* ---- signing again ---- */

/* How far the signed notes before note k reach. */
static uint64_t size_of(const tampering *t, size_t k)
{
    dure_note *note = calloc(1, sizeof *note);
    assert_non_null(note);
    assert_ok(dure_note_parse(note, dure_buf_span(&t->p.notes[k]), NULL));
    uint64_t size = note->checkpoint.head.n;
    free(note);
    return size;
}

/* Note k anew over the leaves as they are, at `size`, with the cosignatures of the first
 * `n_cosigned` sites. */
static void sign_note(tampering *t, size_t k, uint64_t size, size_t n_cosigned)
{
    dure_note *note = calloc(1, sizeof *note);
    dure_checkpoint c = {.head = {.n = size}};
    dure_buf text;
    assert_non_null(note);
    read_event(t, 0);
    dure_checkpoint_origin(c.origin, t->event->u.genesis.federation,
                           &t->event->u.genesis.federation_id);
    dure_hash *hashes = calloc(size + 1, sizeof *hashes);
    assert_non_null(hashes);
    for (uint64_t i = 0; i < size; i++)
        assert_ok(dure_merkle_leaf(&hashes[i], dure_buf_span(&t->p.leaves[i])));
    assert_ok(dure_merkle_root(&c.head.root, hashes, size));
    dure_buf_init(&text, DURE_NOTE_MAX);
    assert_ok(dure_checkpoint_sign(&text, &c, &t->coordinator));
    for (size_t s = 0; s < n_cosigned; s++) {
        dure_cosignature cosignature;
        dure_site_key site = {.name = ""};
        memcpy(site.name, t->names[s], sizeof site.name);
        memcpy(site.sign_public, t->sites[s].public_, 32);
        assert_ok(dure_cosign(&cosignature, &c, 1772000000, &t->sites[s]));
        assert_ok(dure_cosign_append(&text, &cosignature, &site));
    }
    set(&t->p.notes[k], dure_buf_span(&text));
    dure_buf_fini(&text);
    free(hashes);
    free(note);
}

/* All notes from k on. */
static void sign_from(tampering *t, size_t k, size_t n_cosigned)
{
    for (; k < t->p.n_notes; k++)
        sign_note(t, k, size_of(t, k), n_cosigned);
}

/* The first note that covers entry i. */
static size_t note_over(const tampering *t, size_t i)
{
    size_t k = 0;
    while (k < t->p.n_notes && size_of(t, k) <= i)
        k++;
    return k;
}

/* The entries among which a forged entry i is, as the signed roots leave them. */
static verdict range_around(const tampering *t, size_t i)
{
    size_t k = note_over(t, i);
    return entries(k ? (size_t)size_of(t, k - 1) : 0, (size_t)size_of(t, k) - 1);
}

/* ---- one changed bit ---- */

static verdict flip_leaf(tampering *t, size_t i, size_t at)
{
    assert_true(at < t->p.leaves[i].n);
    t->p.leaves[i].data[at] ^= 4;
    return entry(i);
}

static verdict flip_genesis_id(tampering *t)
{
    return flip_leaf(t, 0, 30);
}

static verdict flip_genesis_root_key(tampering *t)
{
    return flip_leaf(t, 0, t->p.leaves[0].n - 80);
}

static verdict flip_roster_key(tampering *t)
{
    return flip_leaf(t, 1, t->p.leaves[1].n - 1);
}

static verdict flip_opened_configuration(tampering *t)
{
    return flip_leaf(t, t->opened[0], 28 + 16);
}

static verdict flip_member_plan(tampering *t)
{
    return flip_leaf(t, t->opened[1], t->p.leaves[t->opened[1]].n - 24 - 30);
}

static verdict flip_closed_time(tampering *t)
{
    return flip_leaf(t, t->closed[1], 27);
}

static verdict flip_last_entry(tampering *t)
{
    return flip_leaf(t, t->p.n_leaves - 1, 100);
}

static verdict flip_stored_hash(tampering *t)
{
    t->p.hashes[t->closed[0]].b[7] ^= 1;
    return entry(t->closed[0]);
}

/* ---- notes ---- */

/* The last byte but one of line `line` of note k: within the base64 of signatures. */
static verdict flip_note(tampering *t, size_t k, size_t line)
{
    char *at = (char *)t->p.notes[k].data;
    for (size_t i = 0; i <= line; i++) {
        char *end = memchr(at, '\n', t->p.notes[k].n - (size_t)(at - (char *)t->p.notes[k].data));
        assert_non_null(end);
        if (i == line) end[-8] = end[-8] == 'A' ? 'B' : 'A';
        at = end + 1;
    }
    return checkpoint(k);
}

static verdict flip_note_origin(tampering *t)
{
    return flip_note(t, 0, 0);
}

static verdict flip_note_root(tampering *t)
{
    return flip_note(t, 1, 2);
}

static verdict flip_coordinator_signature(tampering *t)
{
    return flip_note(t, 1, 4);
}

static verdict flip_one_cosignature_of_five(tampering *t)
{
    return flip_note(t, 1, 6);
}

static verdict flip_cosigner_name(tampering *t)
{
    dure_buf *note = &t->p.notes[1];
    char *name = memmem(note->data, note->n, t->names[2], strlen(t->names[2]));
    assert_non_null(name);
    name[0] = 'x';
    return checkpoint(1);
}

static verdict cosignature_of_a_stranger(tampering *t)
{
    t->sites[0] = t->sites[1]; /* the first site's name with another site's key */
    sign_note(t, 1, size_of(t, 1), COPIES_SITES);
    return checkpoint(1);
}

/* A cosignature of an earlier checkpoint under a later one. */
static verdict cosignature_moved(tampering *t)
{
    dure_buf *from = &t->p.notes[0], *to = &t->p.notes[1];
    char *line = memmem(from->data, from->n, t->names[4], strlen(t->names[4]));
    char *place = memmem(to->data, to->n, t->names[4], strlen(t->names[4]));
    assert_true(line && place);
    size_t n = (size_t)((char *)memchr(line, '\n', 300) - line);
    assert_int_equal(n, (char *)memchr(place, '\n', 300) - place);
    memcpy(place, line, n);
    return checkpoint(1);
}

static verdict cosignature_twice(tampering *t)
{
    dure_buf *note = &t->p.notes[1];
    char *line = memmem(note->data, note->n, t->names[3], strlen(t->names[3]));
    assert_non_null(line);
    line -= 4; /* the dash and the space */
    dure_buf twice;
    dure_buf_init(&twice, DURE_NOTE_MAX);
    dure_put_raw(&twice, note->data, note->n);
    dure_put_raw(&twice, line, (size_t)((char *)memchr(line, '\n', 300) - line) + 1);
    set(note, dure_buf_span(&twice));
    dure_buf_fini(&twice);
    return checkpoint(1);
}

/* Two cosignatures taken away from a checkpoint that a round cites: three of five are too few. */
static verdict quorum_taken_away(tampering *t)
{
    sign_note(t, 0, size_of(t, 0), 3);
    return entry(t->opened[1]);
}

static verdict cited_note_missing(tampering *t)
{
    for (size_t k = 1; k < t->p.n_notes; k++)
        set(&t->p.notes[k - 1], dure_buf_span(&t->p.notes[k]));
    t->p.n_notes--;
    return entry(t->opened[1]);
}

static verdict notes_swapped(tampering *t)
{
    dure_buf first = t->p.notes[0];
    t->p.notes[0] = t->p.notes[1];
    t->p.notes[1] = first;
    return checkpoint(1);
}

/* ---- the roster ---- */

static verdict flip_roster_bytes(tampering *t, size_t at)
{
    t->p.roster.data[at] ^= 1;
    return entry(0);
}

static verdict flip_invitation(tampering *t)
{
    return flip_roster_bytes(t, 100);
}

static verdict flip_join_signature(tampering *t)
{
    return flip_roster_bytes(t, t->p.roster.n - 10);
}

/* The time of a join is under no signature but in the chain, which the ROSTER leaf ends. */
static verdict flip_join_time(tampering *t)
{
    return (void)flip_roster_bytes(t, 6 + 4 + 8), entry(1);
}

static verdict roster_cut(tampering *t)
{
    t->p.roster.n -= 20;
    return entry(0);
}

static verdict roster_missing(tampering *t)
{
    t->p.roster.n = 0;
    return entry(1);
}

/* ---- the file ---- */

static verdict flip_magic(tampering *t)
{
    tampering_assemble(t);
    t->file.data[3] ^= 1;
    return neither;
}

static verdict more_entries_stated(tampering *t)
{
    tampering_assemble(t);
    t->file.data[21 + 7]++;
    return entry(t->p.n_leaves); /* what is read as one more is no entry with a hash */
}

/* Where the length of leaf i stands in the file. */
static size_t place_of(const tampering *t, size_t i)
{
    size_t at = 21 + 8;
    for (size_t k = 0; k < i; k++)
        at += 4 + t->p.leaves[k].n + DURE_HASH_BYTES;
    return at;
}

static verdict flip_length(tampering *t)
{
    tampering_assemble(t);
    t->file.data[place_of(t, t->opened[1]) + 3] ^= 1;
    return entry(t->opened[1]);
}

static verdict cut_in_an_entry(tampering *t)
{
    tampering_assemble(t);
    t->file.n = place_of(t, t->closed[1]) + 100;
    return entry(t->closed[1]);
}

static verdict cut_after_the_entries(tampering *t)
{
    tampering_assemble(t);
    t->file.n = place_of(t, t->p.n_leaves) + 30;
    return neither;
}

static verdict bytes_added(tampering *t)
{
    tampering_assemble(t);
    dure_put_u8(&t->file, 0);
    return neither;
}

/* ---- entries dropped, doubled, moved; their hashes with them ---- */

static void remove_leaf(tampering *t, size_t i)
{
    dure_buf gone = t->p.leaves[i];
    memmove(&t->p.leaves[i], &t->p.leaves[i + 1], (t->p.n_leaves - i - 1) * sizeof gone);
    memmove(&t->p.hashes[i], &t->p.hashes[i + 1], (t->p.n_leaves - i - 1) * sizeof(dure_hash));
    t->p.leaves[--t->p.n_leaves] = gone;
}

static verdict entry_dropped(tampering *t)
{
    remove_leaf(t, t->closed[0]);
    return entry(t->closed[0]);
}

static verdict last_entries_dropped(tampering *t)
{
    size_t n = t->p.n_leaves;
    t->p.n_leaves = t->opened[t->n_rounds - 1];
    return entries(t->p.n_leaves, n - 1);
}

static verdict entry_doubled(tampering *t)
{
    size_t i = t->opened[1];
    memmove(&t->p.leaves[i + 2], &t->p.leaves[i + 1],
            (t->p.n_leaves - i - 1) * sizeof t->p.leaves[0]);
    memmove(&t->p.hashes[i + 1], &t->p.hashes[i], (t->p.n_leaves - i) * sizeof(dure_hash));
    t->p.leaves[i + 1] = (dure_buf){0};
    set(&t->p.leaves[i + 1], dure_buf_span(&t->p.leaves[i]));
    t->p.n_leaves++;
    return entry(i + 1);
}

static verdict entries_swapped(tampering *t)
{
    size_t i = t->opened[1], k = t->closed[1];
    dure_buf leaf = t->p.leaves[i];
    dure_hash hash = t->p.hashes[i];
    t->p.leaves[i] = t->p.leaves[k];
    t->p.hashes[i] = t->p.hashes[k];
    t->p.leaves[k] = leaf;
    t->p.hashes[k] = hash;
    return entry(i);
}

/* Dropped, and everything after it renumbered and hashed. */
static verdict round_cut_out(tampering *t)
{
    size_t from = t->opened[1], n = t->closed[1] - t->opened[1] + 1;
    for (size_t k = 0; k < n; k++)
        remove_leaf(t, from);
    for (size_t i = from; i < t->p.n_leaves; i++) {
        read_event(t, i);
        t->event->index = i;
        if (t->event->u.round.checkpoint_n > i) t->event->u.round.checkpoint_n = 0;
        write_event(t, i);
        rehash(t, i);
    }
    return entry(from); /* which starts from an adapter that no round made */
}

/* ---- forged with its hash; no signature ---- */

/* Of one member; of all where sites share noise, since no entry with different shares can be
 * written.
 */
static void inflate(dure_event_round *round, uint32_t member)
{
    const bool all = round->privacy_mode == DURE_PRIVACY_CLIENT;
    for (uint32_t i = 0; i < round->n_members; i++)
        if (all || i == member) round->members[i].plan.sigma_num += 65536;
}

static verdict noise_inflated(tampering *t)
{
    read_event(t, t->opened[1]);
    inflate(&t->event->u.round, 2);
    write_event(t, t->opened[1]);
    rehash(t, t->opened[1]);
    return entry(t->opened[1]); /* not what the site declared */
}

static verdict adapter_swapped(tampering *t)
{
    read_event(t, t->closed[1]);
    t->event->u.round.adapter_out.b[0] ^= 0x55;
    write_event(t, t->closed[1]);
    rehash(t, t->closed[1]);
    return range_around(t, t->closed[1]);
}

static verdict charge_removed(tampering *t)
{
    read_event(t, t->closed[2]);
    t->event->u.round.members[0].part = DURE_PART_NONE;
    write_event(t, t->closed[2]);
    rehash(t, t->closed[2]);
    return range_around(t, t->closed[2]);
}

/* The configuration of a round replaced where it was opened: its end then contradicts it. */
static verdict configuration_swapped(tampering *t)
{
    read_event(t, t->opened[2]);
    memset(t->event->u.round.h_c.b, 0x11, sizeof t->event->u.round.h_c.b);
    write_event(t, t->opened[2]);
    rehash(t, t->opened[2]);
    verdict v = range_around(t, t->opened[2]);
    v.last = (int)t->closed[2];
    return v;
}

/* ---- the coordinator signs another history ---- */

/* Another sum in the second round; the sites' cosignatures are left under the new checkpoint. */
static verdict fork_with_old_cosignatures(tampering *t)
{
    size_t i = t->closed[1], k = note_over(t, i);
    dure_buf old = t->p.notes[k];
    t->p.notes[k] = (dure_buf){0};
    set(&t->p.notes[k], dure_buf_span(&old));
    read_event(t, i);
    t->event->u.round.result.b[0] ^= 1;
    write_event(t, i);
    rehash(t, i);
    sign_from(t, k, 0);
    uint8_t *lines = memmem(old.data, old.n, t->names[0], strlen(t->names[0]));
    assert_non_null(lines);
    lines -= 4; /* the dash and the space */
    dure_put_raw(&t->p.notes[k], lines, old.n - (size_t)(lines - old.data));
    dure_buf_fini(&old);
    return checkpoint(k);
}

/* Nothing but the last result is replaced, and signed; whoever was there has another checkpoint. */
static verdict fork_of_the_last_round(tampering *t)
{
    size_t last = t->closed[t->n_rounds - 1];
    read_event(t, last);
    t->event->u.round.result.b[0] ^= 1;
    write_event(t, last);
    rehash(t, last);
    sign_from(t, note_over(t, last), 0);
    t->with_checkpoint = true;
    return entries(0, (size_t)size_of(t, t->p.n_notes - 1) - 1);
}

/* The charge of one site taken out of the first round and all signed again by the coordinator, and
 * by three of five sites that work with it. */
static verdict fork_with_colluding_sites(tampering *t)
{
    read_event(t, t->closed[0]);
    t->event->u.round.members[4].part = DURE_PART_UPLOADED;
    write_event(t, t->closed[0]);
    rehash(t, t->closed[0]);
    sign_from(t, note_over(t, t->closed[0]), 3);
    return entry(t->opened[1]);
}

/* ---- changes of a round that all sites sign as well: only what the root signed is left ---- */

static void inflate_second(dure_event_round *round)
{
    inflate(round, 1);
}

static bool is_of_sites(const dure_event_round *round)
{
    return round->privacy_mode == DURE_PRIVACY_CLIENT;
}

/* What is protected is one record, one subject or one site. */
static void change_unit(dure_event_round *round)
{
    const bool of_sites = is_of_sites(round);
    for (uint32_t i = 0; i < round->n_members; i++) {
        dure_dp_plan *plan = &round->members[i].plan;
        if (!of_sites && i != 3) continue;
        plan->mechanism = plan->mechanism == DURE_DP_POISSON_GAUSSIAN
                              ? DURE_DP_POISSON_GAUSSIAN_SUBJECTS
                              : DURE_DP_POISSON_GAUSSIAN;
        plan->honest = 0;
        plan->n_params = 0;
    }
    if (of_sites) round->privacy_mode = DURE_PRIVACY_RECORD;
}

static void change_steps(dure_event_round *round)
{
    dure_dp_plan *plan = &round->members[2].plan;
    plan->steps = plan->steps > 1 ? plan->steps - 1 : 2;
}

/* Half the sampling rate; of whole sites, which are never sampled, one parameter fewer. */
static void change_batch(dure_event_round *round)
{
    dure_dp_plan *plan = &round->members[1].plan;
    if (!is_of_sites(round)) {
        assert_ok(dure_dp_plan_set_batch(plan, plan->batch / 2, plan->n_pub, NULL));
        return;
    }
    round->sum.n_words--;
    for (uint32_t i = 0; i < round->n_members; i++)
        round->members[i].plan.n_params--;
}

static void change_clip(dure_event_round *round)
{
    for (uint32_t i = 0; i < round->n_members; i++)
        round->members[i].plan.clip /= 2;
}

static void change_grid(dure_event_round *round)
{
    for (uint32_t i = 0; i < round->n_members; i++)
        round->members[i].plan.grid_bits++;
}

/* Two colluders are expected in place of one, with as many honest sites. */
static void change_collusion(dure_event_round *round)
{
    round->sum.collusion++;
    round->sum.u_min++;
}

/* Where sites share noise, one honest site fewer; else no privacy at all. */
static void change_mode(dure_event_round *round)
{
    if (!is_of_sites(round)) {
        round->privacy_mode = DURE_PRIVACY_NONE;
        return;
    }
    round->sum.u_min--;
    for (uint32_t i = 0; i < round->n_members; i++)
        round->members[i].plan.honest--;
}

static void change_base(dure_event_round *round)
{
    round->base.b[7] ^= 1;
}

/* A round that the terms do not plan, after the last one, signed by everybody. */
static verdict round_added_by_everybody(tampering *t)
{
    const size_t from[] = {t->opened[t->n_rounds - 1], t->closed[t->n_rounds - 1]};
    uint64_t cited = size_of(t, t->p.n_notes - 1);
    read_event(t, from[1]);
    const dure_hash adapter = t->event->u.round.adapter_out;
    for (size_t k = 0; k < 2; k++) {
        size_t i = t->p.n_leaves++;
        read_event(t, from[k]);
        dure_event_round *r = &t->event->u.round;
        t->event->index = i;
        r->round++;
        r->checkpoint_n = cited;
        r->adapter_in = adapter;
        if (k == 1) r->adapter_out.b[1] ^= 1;
        write_event(t, i);
        rehash(t, i);
    }
    sign_note(t, t->p.n_notes++, t->p.n_leaves, COPIES_SITES);
    return entry(t->p.n_leaves - 1);
}

/* Another root invites sites of its own under the federation's name: another federation, which only
 * somebody who knows the root key can tell. */
static verdict another_root(tampering *t)
{
    t->with_root = true;
    read_event(t, 0);
    t->event->u.genesis.root_public[5] ^= 1;
    write_event(t, 0);
    rehash(t, 0);
    return entry(0);
}

/* The citation of the newest checkpoint replaced by none, signed by the coordinator alone. */
static void uncite(dure_event_round *round)
{
    round->checkpoint_n = 0;
}

static verdict stranger_in_the_roster(tampering *t)
{
    read_event(t, 1);
    memcpy(t->event->u.roster.sites[0].sign_public, t->coordinator.public_, 32);
    write_event(t, 1);
    rehash(t, 1);
    sign_from(t, 0, 0);
    return entry(t->opened[0]); /* whose member has the key that the root's chain gives */
}

const copy_kind copy_kinds[] = {
    {"a bit of the federation's id", flip_genesis_id, NULL},
    {"a bit of the root key", flip_genesis_root_key, NULL},
    {"a bit of a site's key", flip_roster_key, NULL},
    {"a bit of a configuration's hash", flip_opened_configuration, NULL},
    {"a bit of a member's plan", flip_member_plan, NULL},
    {"a bit of a time", flip_closed_time, NULL},
    {"a bit of the last entry", flip_last_entry, NULL},
    {"a bit of a stored hash", flip_stored_hash, NULL},
    {"a checkpoint's origin", flip_note_origin, NULL},
    {"a checkpoint's root", flip_note_root, NULL},
    {"the coordinator's signature", flip_coordinator_signature, NULL},
    {"one of five cosignatures", flip_one_cosignature_of_five, NULL},
    {"a cosigner's name", flip_cosigner_name, NULL},
    {"a cosignature with another key", cosignature_of_a_stranger, NULL},
    {"a cosignature of another checkpoint", cosignature_moved, NULL},
    {"a cosignature twice", cosignature_twice, NULL},
    {"a quorum taken away", quorum_taken_away, NULL},
    {"a cited checkpoint left out", cited_note_missing, NULL},
    {"checkpoints swapped", notes_swapped, NULL},
    {"a bit of an invitation", flip_invitation, NULL},
    {"a bit of a join's signature", flip_join_signature, NULL},
    {"a bit of a join's time", flip_join_time, NULL},
    {"a roster cut short", roster_cut, NULL},
    {"no roster", roster_missing, NULL},
    {"another kind of file", flip_magic, NULL},
    {"more entries stated than there are", more_entries_stated, NULL},
    {"a bit of an entry's length", flip_length, NULL},
    {"cut in an entry", cut_in_an_entry, NULL},
    {"cut after the entries", cut_after_the_entries, NULL},
    {"bytes at the end", bytes_added, NULL},
    {"an entry dropped", entry_dropped, NULL},
    {"the last entries dropped", last_entries_dropped, NULL},
    {"an entry doubled", entry_doubled, NULL},
    {"entries swapped", entries_swapped, NULL},
    {"a round cut out and the rest renumbered", round_cut_out, NULL},
    {"noise inflated", noise_inflated, NULL},
    {"an adapter's digest swapped", adapter_swapped, NULL},
    {"a charge removed", charge_removed, NULL},
    {"a configuration swapped", configuration_swapped, NULL},
    {"a fork under old cosignatures", fork_with_old_cosignatures, NULL},
    {"a fork of the last round", fork_of_the_last_round, NULL},
    {"a fork with three colluding sites", fork_with_colluding_sites, NULL},
    {"noise inflated, signed by everybody", NULL, inflate_second},
    {"another unit of privacy, signed by everybody", NULL, change_unit},
    {"another number of steps, signed by everybody", NULL, change_steps},
    {"another batch or adapter, signed by everybody", NULL, change_batch},
    {"another clip, signed by everybody", NULL, change_clip},
    {"another grid, signed by everybody", NULL, change_grid},
    {"another collusion, signed by everybody", NULL, change_collusion},
    {"less privacy, signed by everybody", NULL, change_mode},
    {"another base model, signed by everybody", NULL, change_base},
    {"a round too many, signed by everybody", round_added_by_everybody, NULL},
    {"another root key", another_root, NULL},
    {"a citation removed, signed by everybody", NULL, uncite},
    {"another key in the roster entry, signed again", stranger_in_the_roster, NULL},
};
const size_t copy_kinds_n = sizeof copy_kinds / sizeof *copy_kinds;

verdict copy_make(const copy_kind *kind, tampering *t)
{
    if (kind->make) return kind->make(t);
    const size_t both[] = {t->opened[1], t->closed[1]};
    for (size_t i = 0; i < 2; i++) {
        read_event(t, both[i]);
        kind->change(&t->event->u.round);
        write_event(t, both[i]);
        rehash(t, both[i]);
    }
    sign_from(t, note_over(t, both[0]), COPIES_SITES);
    return entry(t->opened[1]);
}
