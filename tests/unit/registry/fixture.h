/* A registry in a folder of its own, a root, a release key that it certified, and adapter files
 * that are any bytes: the registry does not look into them. */
#pragma once

#include "common/file.h"
#include "registry/registry.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <string.h>

typedef struct fixture {
    temp_dir dir;
    dure_registry *registry;
    dure_sign_key root, key;
    dure_release_certificate certificate;
} fixture;

static const dure_hash fixture_base = {{0xba, 0x5e}};

static inline int fixture_setup(void **state)
{
    static fixture f;
    const uint8_t a[32] = {7}, b[32] = {8};
    memset(&f, 0, sizeof f);
    temp_dir_make(&f.dir);
    *state = &f;
    return dure_sign_from_secret(&f.root, a) || dure_sign_from_secret(&f.key, b) ||
           dure_release_certify(&f.certificate, &f.root, f.key.public_, 100, 1000) ||
           dure_registry_open(&f.registry, f.dir.path, NULL);
}

static inline int fixture_teardown(void **state)
{
    fixture *f = *state;
    dure_registry_close(&f->registry);
    temp_dir_remove(&f->dir);
    return 0;
}

/* Adds a version whose file holds `text`. */
static inline uint64_t fixture_add(fixture *f, const char *text, uint64_t parent, uint64_t round)
{
    uint64_t number = 0;
    const dure_candidate candidate = {.parent = parent,
                                      .round = round,
                                      .ledger_index = round - 1,
                                      .base = fixture_base,
                                      .created_s = 110};
    assert_ok(dure_registry_add(&number, f->registry, &candidate, dure_span_of_text(text), NULL));
    return number;
}

static inline void fixture_gate(fixture *f, uint64_t number, bool passed)
{
    const dure_gate_result gate = {.n_records = 64,
                                   .reference_loss = 3,
                                   .candidate_loss = passed ? 2 : 4,
                                   .difference = passed ? -1 : 1,
                                   .low = passed ? -1.2 : 0.8,
                                   .high = passed ? -0.8 : 1.2,
                                   .passed = passed};
    assert_ok(dure_registry_set_gate(f->registry, number, &gate, 0, NULL));
}

static inline dure_promotion fixture_promotion(const fixture *f)
{
    return (dure_promotion){.key = &f->key,
                            .certificate = &f->certificate,
                            .root_public = f->root.public_,
                            .now_s = 120};
}

static inline dure_version fixture_get(fixture *f, const char *name)
{
    dure_version version;
    assert_ok(dure_registry_find(&version, f->registry, name, NULL));
    return version;
}
