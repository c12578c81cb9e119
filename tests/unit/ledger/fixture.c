#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[FIXTURE_SITES] = {"clinic", "harbour", "mill"};

dure_hash fixture_hash(uint8_t value)
{
    dure_hash hash;
    memset(hash.b, value, sizeof hash.b);
    return hash;
}

void fixture_make(fixture *f)
{
    memset(f, 0, sizeof *f);
    temp_dir_make(&f->dir);
    assert_ok(dure_sign_generate(&f->root));
    assert_ok(dure_sign_generate(&f->coordinator));
    for (size_t i = 0; i < FIXTURE_SITES; i++)
        assert_ok(dure_sign_generate(&f->sites[i]));
    f->event = calloc(1, sizeof *f->event);
    assert_non_null(f->event);
    dure_hash id = fixture_hash(0xf1);
    dure_checkpoint_origin(f->origin, "valley", &id);
    assert_ok(dure_journal_open(&f->journal, temp_dir_file(&f->dir, "ledger"), DURE_LEAF_LOG_WRITE,
                                NULL));
}

void fixture_free(fixture *f)
{
    dure_journal_close(&f->journal);
    free(f->event);
    temp_dir_remove(&f->dir);
}

static void start(fixture *f, dure_event_kind kind)
{
    memset(f->event, 0, sizeof *f->event);
    f->event->kind = kind;
    f->event->index = f->journal ? dure_leaf_log_size(dure_journal_log(f->journal)) : 0;
    f->event->time_s = 1772000000 + (int64_t)f->event->index;
}

void fixture_genesis(fixture *f)
{
    start(f, DURE_EVENT_GENESIS);
    dure_event_genesis *genesis = &f->event->u.genesis;
    genesis->federation_id = fixture_hash(0xf1);
    snprintf(genesis->federation, sizeof genesis->federation, "valley");
    memcpy(genesis->root_public, f->root.public_, 32);
    memcpy(genesis->coordinator_sign, f->coordinator.public_, 32);
    genesis->terms = fixture_hash(0x7e);
    genesis->collusion = 1;
}

void fixture_roster(fixture *f, uint64_t size)
{
    start(f, DURE_EVENT_ROSTER);
    dure_event_roster *roster = &f->event->u.roster;
    roster->size = size;
    roster->head = fixture_hash((uint8_t)size);
    roster->n_sites = FIXTURE_SITES;
    for (size_t i = 0; i < FIXTURE_SITES; i++) {
        snprintf(roster->sites[i].name, sizeof roster->sites[i].name, "%s", names[i]);
        memcpy(roster->sites[i].sign_public, f->sites[i].public_, 32);
    }
}

dure_site_key fixture_site(const fixture *f, size_t i)
{
    dure_site_key site = {.name = ""};
    snprintf(site.name, sizeof site.name, "%s", names[i]);
    memcpy(site.sign_public, f->sites[i].public_, 32);
    return site;
}

uint64_t fixture_counting(const fixture *f)
{
    const dure_event_roster *roster = dure_journal_roster(f->journal);
    uint64_t size = 0;
    if (!roster) return 0;
    const dure_cosigners who = {roster->sites, roster->n_sites, 1};
    assert_ok(dure_journal_newest_counting(&size, f->journal, &who, NULL));
    return size;
}

void fixture_round(fixture *f, dure_event_kind kind, uint64_t round)
{
    start(f, kind);
    dure_event_round *r = &f->event->u.round;
    bool closed = kind == DURE_EVENT_CLOSED;
    r->run_id = 5;
    r->round = round;
    r->h_c = fixture_hash((uint8_t)(0x40 + round));
    r->roster_size = 3;
    r->roster_head = fixture_hash(3);
    r->checkpoint_n = fixture_counting(f);
    r->privacy_mode = DURE_PRIVACY_RECORD;
    r->base = fixture_hash(0xba);
    r->adapter_in = f->adapter;
    if (closed) {
        r->t3 = fixture_hash(0x33);
        r->adapter_out = fixture_hash((uint8_t)(0x80 + round));
        r->result = fixture_hash(0x55);
        r->gate = (dure_event_gate){DURE_VERDICT_PASSED, 64, 3.25, 2.5};
    }
    if (kind == DURE_EVENT_ABORTED) snprintf(r->reason, sizeof r->reason, "too few survivors");
    r->sum = (dure_event_sum){
        .suite = 1, .threshold = 3, .u_min = 3, .collusion = 1, .n_words = 1000, .word_bits = 24};
    r->n_members = FIXTURE_SITES;
    for (size_t i = 0; i < FIXTURE_SITES; i++) {
        dure_event_member *member = &r->members[i];
        snprintf(member->name, sizeof member->name, "%s", names[i]);
        memcpy(member->sign_public, f->sites[i].public_, 32);
        member->part = closed ? DURE_PART_SUMMED : DURE_PART_NONE;
        member->plan = (dure_dp_plan){.mechanism = DURE_DP_POISSON_GAUSSIAN,
                                      .sigma_num = 65536,
                                      .clip = 1,
                                      .grid_bits = 16,
                                      .steps = 10};
        assert_ok(dure_dp_plan_set_batch(&member->plan, 100, 1000, NULL));
    }
}

void fixture_share_noise(fixture *f)
{
    dure_event_round *r = &f->event->u.round;
    r->privacy_mode = DURE_PRIVACY_CLIENT;
    for (size_t i = 0; i < FIXTURE_SITES; i++) {
        dure_dp_plan *plan = &r->members[i].plan;
        plan->mechanism = DURE_DP_SITE_GAUSSIAN;
        plan->steps = 1;
        plan->honest = r->sum.u_min - r->sum.collusion;
        plan->n_params = r->sum.n_words;
        assert_ok(dure_dp_plan_set_batch(plan, 1000, 1000, NULL));
    }
}

void fixture_release(fixture *f, dure_event_kind kind, uint64_t round)
{
    start(f, kind);
    f->event->u.release = (dure_event_release){
        .run_id = 5, .round = round, .adapter = fixture_hash((uint8_t)(0x80 + round))};
    snprintf(f->event->u.release.reason, DURE_EVENT_REASON_SIZE, "the gate passed");
}

void fixture_epoch(fixture *f, uint64_t kept_n, const dure_hash *kept_root, uint64_t lost_n)
{
    start(f, DURE_EVENT_NEW_EPOCH);
    dure_event_epoch *epoch = &f->event->u.epoch;
    f->event->index = kept_n;
    epoch->federation_id = fixture_hash(0xf1);
    epoch->epoch = 1;
    epoch->kept = (dure_merkle_head){kept_n, *kept_root};
    epoch->lost_n = lost_n;
    snprintf(epoch->reason, sizeof epoch->reason, "the disk was lost");
    assert_ok(dure_event_epoch_sign(epoch, &f->root));
}

void fixture_append(fixture *f)
{
    dure_diag diag = {{0}};
    dure_err err = dure_journal_append(NULL, f->journal, f->event, &diag);
    if (err) print_error("%s\n", diag.text);
    assert_ok(err);
}

void fixture_begin(fixture *f)
{
    fixture_genesis(f);
    fixture_append(f);
    fixture_roster(f, 3);
    fixture_append(f);
}

uint64_t fixture_checkpoint(fixture *f, size_t cosigned)
{
    dure_buf text;
    dure_note *note = calloc(1, sizeof *note);
    assert_non_null(note);
    dure_buf_init(&text, DURE_NOTE_MAX);
    assert_ok(dure_journal_checkpoint(&text, f->journal, &f->coordinator, NULL));
    assert_ok(dure_note_parse(note, dure_buf_span(&text), NULL));
    for (size_t i = 0; i < cosigned; i++) {
        dure_cosignature cosignature;
        assert_ok(dure_cosign(&cosignature, &note->checkpoint, 1772000100 + i, &f->sites[i]));
        const dure_site_key site = fixture_site(f, i);
        assert_ok(
            dure_journal_cosign(f->journal, note->checkpoint.head.n, &site, &cosignature, NULL));
    }
    uint64_t size = note->checkpoint.head.n;
    free(note);
    dure_buf_fini(&text);
    return size;
}

uint64_t fixture_full_round(fixture *f, uint64_t round, size_t cosigned)
{
    uint64_t cited = fixture_counting(f);
    fixture_round(f, DURE_EVENT_OPENED, round);
    fixture_append(f);
    fixture_round(f, DURE_EVENT_CLOSED, round);
    f->event->u.round.checkpoint_n = cited;
    fixture_append(f);
    f->adapter = f->event->u.round.adapter_out;
    return fixture_checkpoint(f, cosigned);
}

void fixture_note(dure_buf *note, const fixture *f, uint64_t size)
{
    dure_buf_init(note, DURE_NOTE_MAX);
    assert_ok(dure_journal_note(note, f->journal, size, NULL));
}

dure_merkle_proof fixture_proof(const fixture *f, uint64_t n, uint64_t old_n)
{
    dure_merkle_proof proof;
    assert_ok(dure_leaf_log_consistency(&proof, dure_journal_log(f->journal), n, old_n));
    return proof;
}
