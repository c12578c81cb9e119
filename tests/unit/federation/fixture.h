/* A small federation for tests: terms that pass every check, keys, invitations and joins. */
#pragma once

#include "federation/roster.h"
#include "federation/terms.h"

typedef struct fixture {
    dure_terms terms;
    dure_sign_key root, coordinator_sign;
    uint8_t coordinator_curve[32];
} fixture;

typedef struct fixture_site {
    dure_sign_key invite, own;
    dure_join join;
} fixture_site;

enum { FIXTURE_ISSUED = 1000000, FIXTURE_EXPIRES = 2000000, FIXTURE_JOINED = 1500000 };

/* Keys are derived from fixed bytes, so a failure repeats. */
void fixture_make(fixture *f);
/* The terms then protect whole sites, with noise 2 shared by two honest ones. */
void fixture_share_noise(fixture *f);
/* A signed invitation for `name`, of an organisation "org-NAME", and its private key. */
void fixture_invite(dure_invitation *out, dure_sign_key *invite, const fixture *f,
                    const char *name);
/* An invited site with keys of its own and a signed join record. */
void fixture_site_make(fixture_site *site, const fixture *f, const char *name);
