/* The same protocol where shares and masks go to neighbours alone: eighty sites, of which two may
 * collude and eight drop out. What is tried here is what only such a graph allows, and what must
 * hold on it as on the complete one. */
#include "proto/neighbours.h"
#include "secagg/client_int.h"
#include "secagg/server_int.h"
#include "support/check.h"
#include "world.h"

#include <string.h>

enum { N = 80, COLLUDERS = 2, LEAST = 72, VICTIM = 7 };

/* Decoded messages are the tests' own memory: hooks may write through their const pointers. */
#define WRITABLE(type, pointer) ((type *)(uintptr_t)(pointer))

static uint32_t revealed[N][N]; /* [by][about]: bits of dure_share_kind */
static uint32_t n_sent[N][DURE_MSG_ABORT + 1];

static int setup(void **state)
{
    (void)state;
    memset(revealed, 0, sizeof revealed);
    memset(n_sent, 0, sizeof n_sent);
    return 0;
}

static void observe(bool to_server, uint32_t member, const dure_msg *msg)
{
    if (!to_server) return;
    if (msg->type <= DURE_MSG_ABORT) n_sent[member][msg->type]++;
    if (msg->type != DURE_MSG_UNMASK) return;
    for (size_t i = 0; i < msg->u.unmask.n_entries; i++) {
        const dure_revealed *r = &msg->u.unmask.entries[i];
        revealed[member][r->member] |= 1u << r->kind;
    }
}

static bool watch(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    observe(to_server, member, msg);
    return true;
}

/* Nobody gives both shares of a member, and all give the same kind. */
static void assert_one_kind_each(void)
{
    for (size_t v = 0; v < N; v++) {
        uint32_t kinds = 0;
        for (size_t u = 0; u < N; u++)
            kinds |= revealed[u][v];
        assert_true(kinds == 0 || kinds == 1u << DURE_SHARE_SELF || kinds == 1u << DURE_SHARE_MASK);
    }
}

static void assert_sum(const world *w)
{
    uint32_t plain[WORLD_WORDS];
    dure_members u3, got = dure_secagg_server_set(w->server, 3);
    (void)world_expected(w, &u3);
    if (!w->summed) fail_msg("the round failed: %s", w->last_error);
    assert_true(dure_members_equal(&got, &u3));
    world_plain_sum(plain, w, &u3);
    assert_memory_equal(w->sum, plain, sizeof plain);
}

/* ---- it sums ---- */

static void test_sparse_sums_exactly_with_dropouts_at_every_step(void **state)
{
    for (int step = WORLD_NEVER; step <= WORLD_R4; step++) {
        setup(state);
        world *w = world_new_sparse(N, 100 + (uint64_t)step, COLLUDERS, LEAST);
        for (uint32_t i = 0; i < 8; i++)
            w->dies[9 * i + 3] = (world_step)step;
        w->hook = watch;
        world_run(w);
        assert_sum(w);
        assert_one_kind_each();
        world_free(&w);
    }
}

static void test_sparse_sums_with_dropouts_at_all_steps(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    for (uint32_t i = 0; i < 8; i++)
        w->dies[10 * i] = (world_step)(1 + i % 5);
    w->hook = watch;
    world_run(w);
    assert_sum(w);
    assert_one_kind_each();
    world_free(&w);
}

static size_t most_entries, most_proof;

static bool measure(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    (void)member;
    size_t n = 0, proof = 0;
    if (!to_server && msg->type == DURE_MSG_KEYS)
        n = msg->u.keys.n_entries, proof = msg->u.keys.n_proof;
    if (!to_server && msg->type == DURE_MSG_SHARES_FOR)
        n = msg->u.shares_for.n_entries, proof = msg->u.shares_for.n_proof;
    if (!to_server && msg->type == DURE_MSG_SURVIVORS)
        n = msg->u.survivors.n_entries, proof = msg->u.survivors.n_proof;
    if (to_server && msg->type == DURE_MSG_UNMASK) n = msg->u.unmask.n_entries;
    if (n > most_entries) most_entries = n;
    if (proof > most_proof) most_proof = proof;
    return true;
}

static void test_sparse_sites_hear_of_their_neighbours_alone(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    most_entries = most_proof = 0;
    w->hook = measure;
    world_run(w);
    assert_sum(w);
    assert_int_equal(most_entries, w->config.neighbours + 1);
    assert_true(most_proof > 0 && most_proof <= 16);
    world_free(&w);
}

static void test_sparse_goes_on_after_a_crash_of_the_coordinator(void **state)
{
    (void)state;
    for (size_t k = 1; k <= 4; k++) {
        world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
        w->crash_after = k;
        w->dies[4] = WORLD_R2;
        world_run(w);
        assert_int_equal(w->crash_after, 0);
        assert_sum(w);
        world_free(&w);
    }
}

/* More dropouts than the graph was chosen for: a clean end, in which nothing is revealed. */
static void test_sparse_ends_when_a_site_loses_its_holders(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    w->config.u_min = 40; /* of the server's own checks the graph's is the one that is left */
    world_start(w);
    const dure_graph graph = w->server->graph;
    for (uint32_t d = 1; d <= w->config.neighbours / 2; d++)
        w->dies[graph.at[(graph.place[VICTIM] + d) % N]] = WORLD_R2;
    w->hook = watch;
    world_run(w);
    assert_true(w->failed);
    for (uint32_t u = 0; u < N; u++)
        assert_int_equal(n_sent[u][DURE_MSG_UNMASK], 0);
    world_free(&w);
}

/* Of those who signed the survivors too few hold the victim's shares: nobody is asked for any. */
static void test_sparse_ends_before_shares_when_holders_are_lost(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    world_start(w);
    const dure_graph graph = w->server->graph;
    for (uint32_t d = 1; d <= w->config.neighbours / 2; d++)
        w->dies[graph.at[(graph.place[VICTIM] + d) % N]] = WORLD_R3;
    w->hook = watch;
    world_run(w);
    assert_true(w->failed);
    assert_int_equal(n_sent[VICTIM][DURE_MSG_CONSISTENCY], 1);
    for (uint32_t u = 0; u < N; u++)
        assert_int_equal(n_sent[u][DURE_MSG_UNMASK], 0);
    world_free(&w);
}

/* ---- a coordinator that lies ---- */

static dure_members shown; /* what VICTIM is shown as U3 */

/* Runs eighty sites; VICTIM must refuse with `err`, saying `text`, and reveal nothing. */
static void assert_victim_refuses(world_hook *hook, dure_err err, const char *text)
{
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    w->hook = hook;
    world_run(w);
    if (w->client_err[VICTIM] != err)
        fail_msg("it said %s: %s", dure_err_text(w->client_err[VICTIM]), w->said[VICTIM]);
    if (!strstr(w->said[VICTIM], text)) fail_msg("it said: %s", w->said[VICTIM]);
    assert_int_equal(n_sent[VICTIM][DURE_MSG_UNMASK], 0);
    assert_int_equal(n_sent[VICTIM][DURE_MSG_ABORT], 1);
    assert_int_equal(dure_secagg_client_stage(w->clients[VICTIM]), DURE_STAGE_IDLE);
    client_secrets zero;
    memset(&zero, 0, sizeof zero);
    assert_memory_equal(&w->clients[VICTIM]->secrets, &zero, sizeof zero);
    world_free(&w);
}

static bool is_for_victim(bool to_server, uint32_t member, const dure_msg *msg, dure_msg_type type)
{
    observe(to_server, member, msg);
    return !to_server && member == VICTIM && msg->type == type;
}

static bool replace_neighbour_s_key(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (!is_for_victim(to_server, member, msg, DURE_MSG_KEYS)) return true;
    dure_round_keys *k = WRITABLE(dure_round_keys, msg->u.keys.entries);
    if (k->member == VICTIM) k++;
    dure_hash digest;
    k->channel_public[0] ^= 1;
    const dure_secagg_who who = {&w->config_hash, k->member};
    assert_ok(dure_secagg_digest_r0(&digest, who, k));
    assert_ok(
        dure_sign(k->signature, &w->coordinator, DURE_SECAGG_LABEL_R0, dure_hash_span(&digest)));
    return true;
}

static void test_sparse_refuses_a_replaced_key_of_a_neighbour(void **state)
{
    (void)state;
    assert_victim_refuses(replace_neighbour_s_key, DURE_ERR_AUTH, "round keys does not verify");
}

/* Of the neighbours in U1 one entry is missing: the coordinator would hide a key that it replaced
 * for others. */
static bool hide_a_neighbour(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    if (is_for_victim(to_server, member, msg, DURE_MSG_KEYS)) msg->u.keys.n_entries--;
    return true;
}

static void test_sparse_refuses_a_list_without_a_neighbour(void **state)
{
    (void)state;
    assert_victim_refuses(hide_a_neighbour, DURE_ERR_PROTO, "not those of this site and its");
}

/* The same for what stands for the others: another key of a site that is no neighbour. */
static bool alter_what_is_not_seen(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    if (is_for_victim(to_server, member, msg, DURE_MSG_KEYS))
        WRITABLE(uint8_t, msg->u.keys.proof[0])[3] ^= 1;
    return true;
}

static void test_sparse_two_views_of_strangers_keys_part_the_transcripts(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    w->hook = alter_what_is_not_seen;
    world_run(w);
    /* T1 seals the shares: the victim's open for nobody, and the server machine drops them. */
    assert_false(dure_hash_equal(&w->clients[VICTIM]->t1, &w->clients[VICTIM + 1]->t1));
    assert_true(dure_hash_equal(&w->server->t1, &w->clients[VICTIM + 1]->t1));
    assert_int_equal(n_sent[VICTIM][DURE_MSG_SHARES], 1);
    assert_int_equal(n_sent[VICTIM][DURE_MSG_MASKED], 0);
    world_free(&w);
}

/* Sharers that are not seen differ: T2 does, and so do the masks and what R2 signs. */
static bool alter_unseen_sharers(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    if (is_for_victim(to_server, member, msg, DURE_MSG_SHARES_FOR))
        WRITABLE(uint8_t, msg->u.shares_for.proof[0])[3] ^= 1;
    return true;
}

static void test_sparse_two_views_of_strangers_shares_end_the_vector(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    w->hook = alter_unseen_sharers;
    world_run(w);
    assert_true(w->summed); /* without the site that was lied to */
    const dure_members u3 = dure_secagg_server_set(w->server, 3);
    assert_false(dure_members_has(&u3, VICTIM));
    assert_int_equal(n_sent[VICTIM][DURE_MSG_CONSISTENCY], 0);
    world_free(&w);
}

/* Survivors that are not seen differ: nobody else signs that T3. */
static bool alter_unseen_survivors(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    if (is_for_victim(to_server, member, msg, DURE_MSG_SURVIVORS))
        WRITABLE(uint8_t, msg->u.survivors.proof[0])[3] ^= 1;
    return true;
}

static void test_sparse_two_views_of_strangers_vectors_reveal_nothing(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    w->hook = alter_unseen_survivors;
    world_run(w);
    assert_int_equal(n_sent[VICTIM][DURE_MSG_CONSISTENCY], 1);
    assert_int_equal(n_sent[VICTIM][DURE_MSG_UNMASK], 0);
    assert_int_equal(w->n_blamed, 1); /* for the server machine it signed something else */
    world_free(&w);
}

static bool forge_neighbour_s_vector(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    (void)w;
    if (!is_for_victim(to_server, member, msg, DURE_MSG_SURVIVORS)) return true;
    dure_survivor *s = WRITABLE(dure_survivor, msg->u.survivors.entries);
    if (s->member == VICTIM) s++;
    s->root[5] ^= 1;
    return true;
}

static void test_sparse_refuses_a_forged_vector_of_a_neighbour(void **state)
{
    (void)state;
    assert_victim_refuses(forge_neighbour_s_vector, DURE_ERR_AUTH, "vector does not verify");
}

/* ---- survivors of the coordinator's choosing, each a true one ---- */

static dure_survivor entries[DURE_NEAR_MAX];
static uint8_t bits[DURE_MEMBERS_BYTES_MAX], proof[DURE_MSG_ROLL_PROOF_MAX][DURE_DIGEST_BYTES];

/* A valid A3 for `member` that names `set`. */
static void make_a3(dure_msg *msg, const world *w, uint32_t member, const dure_members *set)
{
    static dure_hash leaves[DURE_ROUND_MEMBERS_MAX];
    const dure_members near = dure_graph_near(&w->server->graph, member);
    const dure_members known = dure_members_both(&near, set);
    dure_msg_survivors *a3 = &msg->u.survivors;
    dure_roll roll;
    a3->entries = entries;
    a3->n_entries = 0;
    for (uint32_t u = 0; u < N; u++) {
        const dure_survivor *r2 = &w->server->members[u].r2;
        assert_ok(dure_secagg_leaf_r2(&leaves[u], u, r2->root));
        if (dure_members_has(&known, u)) entries[a3->n_entries++] = *r2;
    }
    a3->members = dure_members_put(bits, set, N);
    assert_ok(dure_roll_make(&roll, &w->server->graph, set, leaves));
    assert_ok(dure_roll_prove(proof, &a3->n_proof, &roll, &known));
    a3->proof = (const uint8_t(*)[DURE_DIGEST_BYTES])proof;
    dure_roll_fini(&roll);
}

static bool show_chosen_survivors(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (is_for_victim(to_server, member, msg, DURE_MSG_SURVIVORS)) make_a3(msg, w, VICTIM, &shown);
    return true;
}

/* Everybody but those at `from` .. `to` places after the victim. */
static void drop_from_shown(const dure_graph *graph, uint32_t from, uint32_t to)
{
    dure_members gone = {{0}};
    for (uint32_t d = from; d < to; d++)
        dure_members_add(&gone, graph->at[(graph->place[VICTIM] + d) % N]);
    shown = dure_members_minus(&shown, &gone);
}

static bool few_holders(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    /* Eight of 18 neighbours: 72 sites are left, as U_min asks for, and 11 holders would do. */
    shown = dure_members_first(N);
    if (w->server->graph.n) drop_from_shown(&w->server->graph, 1, 9);
    return show_chosen_survivors(w, to_server, member, msg);
}

static void test_sparse_refuses_too_few_holders_of_its_shares(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    /* Within what the configuration asks for; the site's own shares would have 11 holders. */
    w->hook = few_holders;
    w->config.threshold++; /* 12 */
    world_run(w);
    assert_err(w->client_err[VICTIM], DURE_ERR_POLICY);
    assert_non_null(strstr(w->said[VICTIM], "of the sites that hold this one's shares"));
    assert_int_equal(n_sent[VICTIM][DURE_MSG_CONSISTENCY], 0);
    world_free(&w);
}

/* The victim keeps its holders, but two gaps cut the ring: its side would be summed alone. */
static bool two_gaps(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    const uint32_t half = w->config.neighbours / 2;
    shown = dure_members_first(N);
    if (w->server->graph.n) {
        drop_from_shown(&w->server->graph, half + 1, 2 * half);
        drop_from_shown(&w->server->graph, N - 2 * half, N - half - 1);
    }
    return show_chosen_survivors(w, to_server, member, msg);
}

static void test_sparse_refuses_survivors_that_fall_apart(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    w->config.u_min = 40;
    w->clients[VICTIM]->least = 40; /* the sixteen that are gone are not too many for the floor */
    w->hook = two_gaps;
    world_run(w);
    assert_err(w->client_err[VICTIM], DURE_ERR_POLICY);
    assert_non_null(strstr(w->said[VICTIM], "leaves the ring open in two places"));
    assert_int_equal(n_sent[VICTIM][DURE_MSG_CONSISTENCY], 0);
    world_free(&w);
}

/* Entries that are true, but of somebody else's neighbours: of its own the victim would see none.
 */
static bool survivors_next_to_another(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (!is_for_victim(to_server, member, msg, DURE_MSG_SURVIVORS)) return true;
    const dure_graph *graph = &w->server->graph;
    const dure_members all = dure_members_first(N);
    make_a3(msg, w, graph->at[(graph->place[VICTIM] + 1) % N], &all);
    return true;
}

static void test_sparse_refuses_survivors_of_other_neighbours(void **state)
{
    (void)state;
    assert_victim_refuses(survivors_next_to_another, DURE_ERR_PROTO,
                          "not those of this site and its");
}

/* A stranger is called dropped to the victim alone, which has no entry of it. */
static bool stranger_called_dropped(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    shown = dure_members_first(N);
    if (w->server->graph.n) drop_from_shown(&w->server->graph, N / 2, N / 2 + 1);
    return show_chosen_survivors(w, to_server, member, msg);
}

static void test_sparse_a_stranger_called_dropped_reveals_nothing(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    w->hook = stranger_called_dropped;
    world_run(w);
    assert_int_equal(n_sent[VICTIM][DURE_MSG_CONSISTENCY], 1);
    assert_false(dure_hash_equal(&w->clients[VICTIM]->t3, &w->server->t3));
    assert_int_equal(n_sent[VICTIM][DURE_MSG_UNMASK], 0);
    world_free(&w);
}

static dure_msg kept;

/* After R3 the victim is shown a second set, without one of its neighbours. */
static bool second_survivors(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (!is_for_victim(to_server, member, msg, DURE_MSG_SIGNATURES)) return true;
    kept = (dure_msg){.type = DURE_MSG_SURVIVORS};
    memcpy(kept.u.survivors.config_hash, w->config_hash.b, DURE_DIGEST_BYTES);
    shown = dure_members_first(N);
    drop_from_shown(&w->server->graph, 1, 2);
    make_a3(&kept, w, VICTIM, &shown);
    *msg = kept;
    return true;
}

static void test_sparse_answers_one_set_of_survivors(void **state)
{
    (void)state;
    assert_victim_refuses(second_survivors, DURE_ERR_PROTO, "two different SURVIVORS");
    assert_int_equal(n_sent[VICTIM][DURE_MSG_CONSISTENCY], 1);
}

/* Half of the sites is told that one of theirs dropped out: neither T3 has a quorum. */
static bool equivocate(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (to_server || member >= N / 2 || msg->type != DURE_MSG_SURVIVORS) return true;
    dure_members gone = {{0}}, all = dure_members_first(N);
    dure_members_add(&gone, N - 1);
    shown = dure_members_minus(&all, &gone);
    make_a3(msg, w, member, &shown);
    return true;
}

static void test_sparse_equivocation_finds_no_quorum(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    w->hook = equivocate;
    world_run(w);
    assert_true(w->failed);
    for (uint32_t u = 0; u < N; u++)
        assert_int_equal(n_sent[u][DURE_MSG_UNMASK], 0);
    world_free(&w);
}

/* The threshold concerns neighbours; signatures on T3 come from more than half of all. */
static bool signed_by_few(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (is_for_victim(to_server, member, msg, DURE_MSG_SIGNATURES))
        msg->u.signatures.n_entries = w->config.neighbours + 1;
    return true;
}

static void test_sparse_quorum_is_of_all_sites(void **state)
{
    (void)state;
    assert_victim_refuses(signed_by_few, DURE_ERR_AUTH, "which is no quorum");
}

/* ---- the order ---- */

static bool another_beacon(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (!is_for_victim(to_server, member, msg, DURE_MSG_KEYS)) return true;
    /* What the beacon signed before: an order that the coordinator could foresee. */
    assert_ok(dure_beacon_sign(WRITABLE(uint8_t, msg->u.keys.beacon.data), &w->beacon,
                               w->config.federation_id, w->config.beacon_index - 1));
    return true;
}

static void test_sparse_refuses_an_order_of_the_coordinator_s(void **state)
{
    (void)state;
    assert_victim_refuses(another_beacon, DURE_ERR_AUTH, "does not come from the round's beacon");
}

/* A site as in the world, but for its bound on colluders and the beacon that it trusts. */
static dure_err new_client(const world *w, uint32_t collusion, dure_secagg_beacon trusted)
{
    dure_secagg_client *client = NULL;
    dure_secagg_client_opts opts = w->clients[0]->opts;
    opts.floors.collusion = collusion;
    opts.beacon = trusted;
    dure_err err = dure_secagg_client_new(&client, &opts, NULL);
    dure_secagg_client_free(&client);
    return err;
}

/* The coordinator's own key, or that of somebody who would sign when it is asked to. */
static void test_sparse_refuses_another_beacon_than_its_own(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    assert_ok(new_client(w, 1, (dure_secagg_beacon){w->beacon.public_, 0}));
    assert_err(new_client(w, 1, (dure_secagg_beacon){w->keys[3].public_, 0}), DURE_ERR_POLICY);
    memcpy(w->config.beacon_public, w->coordinator.public_, DURE_KEY_BYTES);
    assert_err(new_client(w, 1, (dure_secagg_beacon){w->coordinator.public_, 0}), DURE_ERR_POLICY);
    world_free(&w);
}

static void test_sparse_is_refused_without_a_beacon_of_the_site_s(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    assert_err(new_client(w, 1, (dure_secagg_beacon){0}), DURE_ERR_POLICY);
    world_free(&w);
}

static void test_sparse_refuses_an_order_that_was_out(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    dure_secagg_beacon trusted = {w->beacon.public_, w->config.beacon_index};
    assert_ok(new_client(w, 1, trusted));
    trusted.next++;
    assert_err(new_client(w, 1, trusted), DURE_ERR_POLICY);
    world_free(&w);
}

static void test_sparse_refuses_a_threshold_for_fewer_colluders(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    const dure_secagg_beacon trusted = {w->beacon.public_, 0};
    assert_ok(new_client(w, COLLUDERS, trusted));
    assert_err(new_client(w, COLLUDERS + 1, trusted), DURE_ERR_POLICY);
    world_free(&w);
}

static void test_sparse_waits_for_the_beacon(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    const dure_config config = w->config;
    uint8_t signature[DURE_SIGNATURE_BYTES];
    dure_secagg_actions actions = {0};
    w->config.neighbours = 0; /* so that world_start() leaves the beacon to us */
    world_start(w);
    w->config = config;
    world_deliver(w);
    assert_int_equal(dure_secagg_server_phase(w->server), DURE_SECAGG_PHASE_KEYS);
    assert_err(dure_secagg_server_advance(&actions, w->server), DURE_ERR_STATE);
    assert_ok(dure_beacon_sign(signature, &w->coordinator, config.federation_id, 77));
    const dure_span span = dure_span_of(signature, sizeof signature);
    assert_err(dure_secagg_server_beacon(&actions, w->server, span, NULL), DURE_ERR_AUTH);
    assert_ok(dure_beacon_sign(signature, &w->beacon, config.federation_id, 77));
    assert_ok(dure_secagg_server_beacon(&actions, w->server, span, NULL));
    assert_int_equal(dure_secagg_server_phase(w->server), DURE_SECAGG_PHASE_SHARES);
    assert_err(dure_secagg_server_beacon(&actions, w->server, span, NULL), DURE_ERR_STATE);
    dure_secagg_actions_fini(&actions);
    world_free(&w);
}

/* ---- a site that lies ---- */

/* The victim's neighbour, by number, after which comes a stranger: the list stays in order when
 * that one takes its place. */
static uint32_t before_a_stranger(const world *w)
{
    const dure_members near = dure_graph_near(&w->server->graph, VICTIM);
    uint32_t u = 0;
    while (u == VICTIM || !dure_members_has(&near, u) || dure_members_has(&near, u + 1))
        u++;
    assert_true(u + 1 < N);
    return u;
}

/* It sends a neighbour's shares to a stranger, signed. */
static bool share_with_a_stranger(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server || member != VICTIM || msg->type != DURE_MSG_SHARES) return true;
    dure_msg_shares *r1 = &msg->u.shares;
    const uint32_t neighbour = before_a_stranger(w);
    dure_hash digest;
    for (size_t i = 0; i < r1->n_entries; i++)
        WRITABLE(dure_sealed, r1->entries)[i].member += r1->entries[i].member == neighbour;
    assert_ok(dure_secagg_digest_r1(&digest, &w->clients[VICTIM]->t1, VICTIM, r1));
    assert_ok(
        dure_sign(r1->signature, &w->keys[VICTIM], DURE_SECAGG_LABEL_R1, dure_hash_span(&digest)));
    return true;
}

static void test_sparse_drops_a_site_that_shares_with_strangers(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    w->hook = share_with_a_stranger;
    world_run(w);
    assert_true(w->summed);
    assert_int_equal(w->n_blamed, 1);
    assert_int_equal(w->blamed[0], VICTIM);
    world_free(&w);
}

/* Two of the victim's neighbours: by number the first, whose R4s come before the sum is there. */
static bool is_liar(const world *w, uint32_t member)
{
    const dure_members near = dure_graph_near(&w->server->graph, VICTIM);
    const size_t rank = dure_members_rank(&near, member);
    return member != VICTIM && dure_members_has(&near, member) &&
           rank < 2 + (size_t)(member > VICTIM);
}

/* They reveal wrong shares of all that they hold. */
static bool reveal_wrong_shares(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server || msg->type != DURE_MSG_UNMASK || !is_liar(w, member)) return true;
    dure_msg_unmask *r4 = &msg->u.unmask;
    dure_hash digest;
    for (size_t i = 0; i < r4->n_entries; i++)
        WRITABLE(dure_revealed, r4->entries)[i].share[10] ^= 1;
    const dure_secagg_who who = {&w->config_hash, member};
    assert_ok(dure_secagg_digest_r4(&digest, who, &w->server->t3, r4->entries, r4->n_entries));
    assert_ok(
        dure_sign(r4->signature, &w->keys[member], DURE_SECAGG_LABEL_R4, dure_hash_span(&digest)));
    return true;
}

static void test_sparse_sums_despite_wrong_shares_and_names_the_liars(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    w->dies[VICTIM] = WORLD_R2; /* so that shares of either kind are wrong */
    w->hook = reveal_wrong_shares;
    world_run(w);
    assert_sum(w);
    assert_int_equal(w->n_blamed, 2);
    assert_true(is_liar(w, w->blamed[0]) && is_liar(w, w->blamed[1]));
    world_free(&w);
}

/* It reveals, signed, what it says is a share of a site that is none of its neighbours. */
static bool reveal_of_a_stranger(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    observe(to_server, member, msg);
    if (!to_server || member != VICTIM || msg->type != DURE_MSG_UNMASK) return true;
    dure_msg_unmask *r4 = &msg->u.unmask;
    const uint32_t neighbour = before_a_stranger(w);
    dure_hash digest;
    for (size_t i = 0; i < r4->n_entries; i++)
        WRITABLE(dure_revealed, r4->entries)[i].member += r4->entries[i].member == neighbour;
    const dure_secagg_who who = {&w->config_hash, VICTIM};
    assert_ok(dure_secagg_digest_r4(&digest, who, &w->server->t3, r4->entries, r4->n_entries));
    assert_ok(
        dure_sign(r4->signature, &w->keys[VICTIM], DURE_SECAGG_LABEL_R4, dure_hash_span(&digest)));
    return true;
}

static void test_sparse_drops_a_site_that_reveals_of_strangers(void **state)
{
    (void)state;
    world *w = world_new_sparse(N, 9, COLLUDERS, LEAST);
    w->hook = reveal_of_a_stranger;
    world_run(w);
    assert_sum(w);
    assert_int_equal(w->n_blamed, 1);
    assert_int_equal(w->blamed[0], VICTIM);
    world_free(&w);
}

int main(void)
{
    if (world_lacks_suite()) return WORLD_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_sparse_sums_exactly_with_dropouts_at_every_step, setup),
        cmocka_unit_test_setup(test_sparse_sums_with_dropouts_at_all_steps, setup),
        cmocka_unit_test_setup(test_sparse_sites_hear_of_their_neighbours_alone, setup),
        cmocka_unit_test_setup(test_sparse_goes_on_after_a_crash_of_the_coordinator, setup),
        cmocka_unit_test_setup(test_sparse_ends_when_a_site_loses_its_holders, setup),
        cmocka_unit_test_setup(test_sparse_ends_before_shares_when_holders_are_lost, setup),
        cmocka_unit_test_setup(test_sparse_refuses_a_replaced_key_of_a_neighbour, setup),
        cmocka_unit_test_setup(test_sparse_refuses_a_list_without_a_neighbour, setup),
        cmocka_unit_test_setup(test_sparse_two_views_of_strangers_keys_part_the_transcripts, setup),
        cmocka_unit_test_setup(test_sparse_two_views_of_strangers_shares_end_the_vector, setup),
        cmocka_unit_test_setup(test_sparse_two_views_of_strangers_vectors_reveal_nothing, setup),
        cmocka_unit_test_setup(test_sparse_refuses_a_forged_vector_of_a_neighbour, setup),
        cmocka_unit_test_setup(test_sparse_refuses_too_few_holders_of_its_shares, setup),
        cmocka_unit_test_setup(test_sparse_refuses_survivors_that_fall_apart, setup),
        cmocka_unit_test_setup(test_sparse_refuses_survivors_of_other_neighbours, setup),
        cmocka_unit_test_setup(test_sparse_a_stranger_called_dropped_reveals_nothing, setup),
        cmocka_unit_test_setup(test_sparse_answers_one_set_of_survivors, setup),
        cmocka_unit_test_setup(test_sparse_equivocation_finds_no_quorum, setup),
        cmocka_unit_test_setup(test_sparse_quorum_is_of_all_sites, setup),
        cmocka_unit_test_setup(test_sparse_refuses_an_order_of_the_coordinator_s, setup),
        cmocka_unit_test_setup(test_sparse_refuses_another_beacon_than_its_own, setup),
        cmocka_unit_test_setup(test_sparse_is_refused_without_a_beacon_of_the_site_s, setup),
        cmocka_unit_test_setup(test_sparse_refuses_an_order_that_was_out, setup),
        cmocka_unit_test_setup(test_sparse_refuses_a_threshold_for_fewer_colluders, setup),
        cmocka_unit_test_setup(test_sparse_waits_for_the_beacon, setup),
        cmocka_unit_test_setup(test_sparse_drops_a_site_that_shares_with_strangers, setup),
        cmocka_unit_test_setup(test_sparse_sums_despite_wrong_shares_and_names_the_liars, setup),
        cmocka_unit_test_setup(test_sparse_drops_a_site_that_reveals_of_strangers, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
