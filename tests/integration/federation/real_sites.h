/* The sites of a village as real processes: `dure join` and `dure client run`, on made-up records.
 */
#pragma once

#include "village.h"

enum { REAL_SITE_RECORDS = 60 };

typedef struct real_sites {
    village v;
    pid_t clients[VILLAGE_MAX]; /* 0: not running */
    const char *join_options;   /* more of them; NULL: none */
} real_sites;

void real_sites_records(real_sites *r);
void real_sites_join(real_sites *r);
void real_site_start(real_sites *r, uint32_t i);
void real_site_kill(real_sites *r, uint32_t i);
/* Waits for it to end; the exit status. */
int real_site_wait(real_sites *r, uint32_t i);
/* Kills all, and ends the village. */
void real_sites_end(real_sites *r);
/* Fails the test with the last lines of all logs. */
void real_sites_fail(const real_sites *r, const char *what);
/* Until the coordinator has reported the event n times; fails after so many seconds. */
void real_sites_wait_for(real_sites *r, const char *event, size_t n, uint32_t seconds);
