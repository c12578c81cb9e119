/* DIR/status.json: what `dure status` shows of a running coordinator: once a second while a round
 * runs or when something happened, else every ten. */
#include "coordinator/coordinator_int.h"

#include "common/clock.h"
#include "common/json.h"

#include <stdlib.h>
#include <unistd.h>

enum { STATUS_MS = 1000, STATUS_IDLE_MS = 10000 };

static json_t *site_json(const dure_coordinator *c, size_t i, uint64_t now_ms)
{
    const dure_roster_member *m = dure_roster_at(c->roster, i);
    const dure_site_state *s = &c->sites[i];
    const bool here = dure_coordinator_site_present(c, i, now_ms);
    uint32_t member, step = 0;
    if (dure_coordinator_member_of(&member, c, i)) step = dure_round_step_of(c->now.round, member);
    return json_pack(
        "{s:s, s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:o}", "name", m->join.invitation.name,
        "organisation", m->join.invitation.organisation, "revoked", m->revoked, "here", here,
        "records", (json_int_t)m->join.declared.n_pub, "step", (json_int_t)step, "bytes_received",
        (json_int_t)s->bytes_in, "bytes_sent", (json_int_t)s->bytes_out, "silent_seconds",
        s->heard_ms ? json_real((double)dure_elapsed_ms(now_ms, s->heard_ms) / 1000) : json_null());
}

static json_t *status_json(const dure_coordinator *c, uint64_t now_ms)
{
    static const char *const states[] = {"gathering", "running", "gating"};
    char waiting[DURE_MSG_TEXT_SIZE];
    uint32_t present, needed;
    dure_coordinator_waiting(&present, &needed, waiting, c, now_ms);
    json_t *sites = json_array();
    for (size_t i = 0; i < dure_roster_count(c->roster); i++)
        json_array_append_new(sites, site_json(c, i, now_ms));
    return json_pack("{s:s, s:s, s:I, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:o}", "federation",
                     c->folder.settings.terms.federation, "endpoint", dure_coordinator_endpoint(c),
                     "pid", (json_int_t)getpid(), "updated", (json_int_t)dure_clock_wall_s(),
                     "state", states[c->state], "waiting", waiting, "round",
                     (json_int_t)(c->now.config ? c->now.row.round : 0), "rounds_done",
                     (json_int_t)c->facts.n_done, "rounds_planned",
                     (json_int_t)c->folder.settings.terms.training.rounds, "sites_here",
                     (json_int_t)present, "sites_needed", (json_int_t)needed, "sites", sites);
}

/* In a round sites move or fall silent, which is no event. */
dure_err dure_coordinator_write_status(dure_coordinator *c, uint64_t now_ms, dure_diag *diag)
{
    const uint64_t age = dure_elapsed_ms(now_ms, c->status_ms);
    const bool moves = c->status_stale || c->state == DURE_LOOP_RUNNING;
    if (age < (moves ? STATUS_MS : STATUS_IDLE_MS) && c->status_ms) return DURE_OK;
    json_t *status = status_json(c, now_ms);
    char *path = dure_folder_path(&c->folder, DURE_FOLDER_STATUS);
    dure_err err = status && path ? dure_json_write(path, status, 0644, diag) : DURE_ERR_NOMEM;
    json_decref(status);
    free(path);
    c->status_stale = false;
    c->status_ms = now_ms;
    return err;
}
