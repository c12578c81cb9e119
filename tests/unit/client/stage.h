/* A site's session with a federation of three around it, for tests against a coordinator that lies.
 * No socket is connected: what the session would send is lost, as with a coordinator that is away.
 */
#pragma once

#include "client/session_int.h"
#include "support/temp_dir.h"
#include "unit/federation/fixture.h"

enum { SITES = 3 };

typedef struct stage {
    temp_dir dir;
    fixture f;
    fixture_site others[SITES - 1];
    dure_session *s;
    dure_roster *roster;                     /* the coordinator's */
    dure_config *config;                     /* of the next OPEN */
    dure_buf adapter;                        /* that it starts from */
    char event[64], why[DURE_MSG_TEXT_SIZE]; /* the last one */
    unsigned n_open, n_done;
    bool break_signature;
    uint64_t roster_from;
    dure_buf note; /* checkpoint that comes with OPEN */
    dure_merkle_proof proof;
} stage;

extern stage *st;

int stage_setup(void **state);
int stage_teardown(void **state);
/* The configuration that an honest coordinator would open, into st->config. */
void stage_make_config(uint64_t round);
/* Sends OPEN with st->config, signed. */
void stage_open_round(void);
/* A log of `n` leaves, signed by the coordinator and cosigned by the first `n_cosigned` sites: its
 * checkpoint becomes st->note and is cited by st->config. */
void stage_cite(uint64_t n, uint8_t fill, unsigned n_cosigned);
