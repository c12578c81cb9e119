#include "model/lora.h"

#include "common/splitmix.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const NAMES[DURE_LORA_TARGETS] = {"q", "k", "v", "o", "gate", "up", "down"};

uint32_t dure_lora_in(const dure_model_shape *shape, dure_lora_target target)
{
    if (target == DURE_LORA_O) return shape->n_head * shape->head_dim;
    return target == DURE_LORA_DOWN ? shape->n_ff : shape->n_embd;
}

uint32_t dure_lora_out(const dure_model_shape *shape, dure_lora_target target)
{
    switch (target) {
    case DURE_LORA_Q:
        return shape->n_head * shape->head_dim;
    case DURE_LORA_K:
    case DURE_LORA_V:
        return shape->n_head_kv * shape->head_dim;
    case DURE_LORA_GATE:
    case DURE_LORA_UP:
        return shape->n_ff;
    default:
        return shape->n_embd;
    }
}

uint32_t dure_lora_rank(const dure_lora_layout *layout, dure_lora_target target)
{
    return layout->ranks[target] ? layout->ranks[target] : layout->rank;
}

static bool adapts(const dure_lora_layout *layout, dure_lora_target target)
{
    return layout->targets >> target & 1;
}

uint32_t dure_lora_rank_most(const dure_lora_layout *layout)
{
    uint32_t most = 0;
    for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++)
        if (adapts(layout, t) && dure_lora_rank(layout, t) > most) most = dure_lora_rank(layout, t);
    return most;
}

float dure_lora_scale(const dure_lora_layout *layout, dure_lora_target target)
{
    return layout->alpha / (float)dure_lora_rank(layout, target);
}

void dure_lora_ranks_settle(dure_lora_layout *layout)
{
    uint32_t ranks[DURE_LORA_TARGETS], first = 0;
    for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++) {
        ranks[t] = adapts(layout, t) ? dure_lora_rank(layout, t) : 0;
        if (!first) first = ranks[t];
    }
    if (first) layout->rank = first;
    for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++)
        layout->ranks[t] = ranks[t] == layout->rank ? 0 : ranks[t];
}

bool dure_lora_layout_equal(const dure_lora_layout *a, const dure_lora_layout *b)
{
    return strcmp(a->shape.architecture, b->shape.architecture) == 0 && a->rank == b->rank &&
           a->alpha == b->alpha && a->targets == b->targets && a->first_layer == b->first_layer &&
           memcmp(a->ranks, b->ranks, sizeof a->ranks) == 0 && a->dora == b->dora;
}

dure_err dure_lora_layout_check(const dure_lora_layout *layout, dure_diag *diag)
{
    const dure_model_shape *shape = &layout->shape;
    if (layout->rank < 1 || layout->rank > DURE_LORA_RANK_MAX)
        return dure_diag_set(diag, DURE_ERR_USAGE, "the adapter's rank must be 1 to %d, not %u",
                             DURE_LORA_RANK_MAX, layout->rank);
    if (!(layout->alpha > 0) || !isfinite(layout->alpha))
        return dure_diag_set(diag, DURE_ERR_USAGE, "the adapter's alpha must be above 0, not %g",
                             (double)layout->alpha);
    if (layout->targets == 0 || layout->targets >> DURE_LORA_TARGETS)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the adapter needs targets among q,k,v,o,gate,up,down");
    if (layout->first_layer >= shape->n_layers)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the first adapted layer is %u, but the model's layers are 0 to %u",
                             layout->first_layer, shape->n_layers - 1);
    for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++) {
        uint32_t rank = dure_lora_rank(layout, t);
        if (layout->ranks[t] && !adapts(layout, t))
            return dure_diag_set(diag, DURE_ERR_USAGE,
                                 "target '%s' has a rank of its own and is not adapted", NAMES[t]);
        if (!adapts(layout, t)) continue;
        if (rank > DURE_LORA_RANK_MAX || rank > dure_lora_in(shape, t) ||
            rank > dure_lora_out(shape, t))
            return dure_diag_set(
                diag, DURE_ERR_USAGE,
                "rank %u is above %d, or larger than the matrix of target '%s' (%u x %u)", rank,
                DURE_LORA_RANK_MAX, NAMES[t], dure_lora_out(shape, t), dure_lora_in(shape, t));
    }
    return DURE_OK;
}

dure_err dure_lora_targets_parse(uint32_t *targets, const char *text, dure_diag *diag)
{
    *targets = 0;
    if (!strcmp(text, "all")) {
        *targets = (1u << DURE_LORA_TARGETS) - 1;
        return DURE_OK;
    }
    for (const char *at = text;; at++) {
        size_t n = strcspn(at, ",");
        uint32_t bit = 0;
        for (unsigned t = 0; t < DURE_LORA_TARGETS; t++)
            if (strlen(NAMES[t]) == n && !strncmp(NAMES[t], at, n)) bit = 1u << t;
        if (!bit || (*targets & bit)) {
            *targets = 0;
            return dure_diag_set(diag, DURE_ERR_USAGE,
                                 "targets are 'all' or a list of q,k,v,o,gate,up,down without "
                                 "repeats, not '%s'",
                                 text);
        }
        *targets |= bit;
        at += n;
        if (!*at) return DURE_OK;
    }
}

dure_err dure_lora_factor_parse(dure_lora_factor *factor, const char *text, dure_diag *diag)
{
    static const char *const names[] = {
        [DURE_LORA_FACTOR_A] = "a", [DURE_LORA_FACTOR_B] = "b", [DURE_LORA_FACTOR_BOTH] = "both"};
    for (*factor = DURE_LORA_FACTOR_A; *factor <= DURE_LORA_FACTOR_BOTH; (*factor)++)
        if (!strcmp(text, names[*factor])) return DURE_OK;
    *factor = DURE_LORA_FACTOR_BOTH;
    return dure_diag_set(diag, DURE_ERR_USAGE, "the factor to train is a, b or both, not '%s'",
                         text);
}

void dure_lora_targets_text(char text[64], uint32_t targets)
{
    size_t at = 0;
    text[0] = 0;
    for (unsigned t = 0; t < DURE_LORA_TARGETS; t++)
        if (targets >> t & 1)
            at += (size_t)snprintf(text + at, 64 - at, "%s%s", at ? "," : "", NAMES[t]);
}

static dure_err wrong_ranks(const char *text, dure_diag *diag)
{
    return dure_diag_set(
        diag, DURE_ERR_USAGE,
        "ranks are a number of 1 to %d, and may go on with those of targets, as in "
        "8,v=16,o=4; not '%s'",
        DURE_LORA_RANK_MAX, text);
}

/* Digits up to a comma or the end; 0: it is none, or too large. */
static uint32_t take_rank(const char **at)
{
    uint32_t value = 0;
    for (; **at >= '0' && **at <= '9' && value <= DURE_LORA_RANK_MAX; (*at)++)
        value = 10 * value + (uint32_t)(**at - '0');
    return value <= DURE_LORA_RANK_MAX && (**at == ',' || **at == 0) ? value : 0;
}

dure_err dure_lora_ranks_parse(dure_lora_layout *layout, const char *text, dure_diag *diag)
{
    const char *at = text;
    memset(layout->ranks, 0, sizeof layout->ranks);
    layout->rank = take_rank(&at);
    if (!layout->rank) return wrong_ranks(text, diag);
    while (*at == ',') {
        size_t n = strcspn(++at, "=");
        dure_lora_target t = 0;
        while (t < DURE_LORA_TARGETS && (strlen(NAMES[t]) != n || strncmp(NAMES[t], at, n)))
            t++;
        if (t == DURE_LORA_TARGETS || !at[n] || layout->ranks[t]) return wrong_ranks(text, diag);
        at += n + 1;
        layout->ranks[t] = take_rank(&at);
        if (!layout->ranks[t]) return wrong_ranks(text, diag);
    }
    return DURE_OK;
}

void dure_lora_ranks_text(char text[64], const dure_lora_layout *layout)
{
    size_t at = (size_t)snprintf(text, 64, "%u", layout->rank);
    for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++)
        if (layout->ranks[t])
            at += (size_t)snprintf(text + at, 64 - at, ",%s=%u", NAMES[t], layout->ranks[t]);
}

/* Parameters of one factor of one target. */
static size_t factor_count(const dure_lora_layout *layout, dure_lora_target target,
                           dure_lora_factor factor)
{
    const dure_model_shape *shape = &layout->shape;
    size_t n = 0;
    if (factor & DURE_LORA_FACTOR_A) n += dure_lora_in(shape, target);
    if (factor & DURE_LORA_FACTOR_B) n += dure_lora_out(shape, target);
    n *= dure_lora_rank(layout, target);
    bool magnitude = layout->dora && (factor & DURE_LORA_FACTOR_B);
    return magnitude ? n + dure_lora_out(shape, target) : n;
}

static size_t layer_count(const dure_lora_layout *layout, dure_lora_factor factors)
{
    size_t n = 0;
    for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++)
        if (layout->targets >> t & 1) n += factor_count(layout, t, factors);
    return n;
}

size_t dure_lora_count(const dure_lora_layout *layout, dure_lora_factor factors)
{
    return (layout->shape.n_layers - layout->first_layer) * layer_count(layout, factors);
}

size_t dure_lora_count_most(const dure_model_shape *shape)
{
    dure_lora_layout most = {.shape = *shape, .rank = DURE_LORA_RANK_MAX, .dora = true};
    for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++) {
        uint32_t in = dure_lora_in(shape, t), out = dure_lora_out(shape, t);
        uint32_t least = in < out ? in : out;
        most.targets |= 1u << t;
        most.ranks[t] = least < DURE_LORA_RANK_MAX ? least : DURE_LORA_RANK_MAX;
    }
    return dure_lora_count(&most, DURE_LORA_FACTOR_BOTH);
}

bool dure_lora_find(size_t *offset, const dure_lora_layout *layout, uint32_t layer,
                    dure_lora_target target, dure_lora_factor factor)
{
    if (layer < layout->first_layer || layer >= layout->shape.n_layers) return false;
    if (!(layout->targets >> target & 1)) return false;
    size_t at = (layer - layout->first_layer) * layer_count(layout, DURE_LORA_FACTOR_BOTH);
    for (dure_lora_target t = 0; t < target; t++)
        if (layout->targets >> t & 1) at += factor_count(layout, t, DURE_LORA_FACTOR_BOTH);
    if (factor == DURE_LORA_FACTOR_B) at += factor_count(layout, target, DURE_LORA_FACTOR_A);
    *offset = at;
    return true;
}

bool dure_lora_find_magnitude(size_t *offset, const dure_lora_layout *layout, uint32_t layer,
                              dure_lora_target target)
{
    if (!layout->dora || !dure_lora_find(offset, layout, layer, target, DURE_LORA_FACTOR_B))
        return false;
    *offset += (size_t)dure_lora_out(&layout->shape, target) * dure_lora_rank(layout, target);
    return true;
}

/* Rows of the adapted matrices of one layer, those before `end` alone. */
static size_t layer_rows(const dure_lora_layout *layout, dure_lora_target end)
{
    size_t n = 0;
    for (dure_lora_target t = 0; t < end; t++)
        if (adapts(layout, t)) n += dure_lora_out(&layout->shape, t);
    return n;
}

size_t dure_lora_norm_index(const dure_lora_layout *layout, uint32_t layer, dure_lora_target target)
{
    return (layer - layout->first_layer) * layer_rows(layout, DURE_LORA_TARGETS) +
           layer_rows(layout, target);
}

static dure_err make_norms(dure_lora *lora)
{
    const dure_lora_layout *layout = &lora->layout;
    if (!layout->dora) return DURE_OK;
    dure_lora_norms *norms = calloc(1, sizeof *norms);
    lora->norms = norms;
    if (!norms) return DURE_ERR_NOMEM;
    norms->n =
        (layout->shape.n_layers - layout->first_layer) * layer_rows(layout, DURE_LORA_TARGETS);
    norms->base = calloc(norms->n, sizeof *norms->base);
    norms->norm = calloc(norms->n, sizeof *norms->norm);
    norms->gain = calloc(norms->n, sizeof *norms->gain);
    return norms->base && norms->norm && norms->gain ? DURE_OK : DURE_ERR_NOMEM;
}

static uint64_t next_version(void)
{
    static atomic_uint_fast64_t last;
    return atomic_fetch_add(&last, 1) + 1;
}

dure_err dure_lora_new(dure_lora **out, const dure_lora_layout *layout)
{
    *out = NULL;
    dure_lora *lora = calloc(1, sizeof *lora);
    if (!lora) return DURE_ERR_NOMEM;
    lora->layout = *layout;
    lora->version = next_version();
    lora->n = dure_lora_count(layout, DURE_LORA_FACTOR_BOTH);
    lora->params = calloc(lora->n ? lora->n : 1, sizeof *lora->params);
    dure_err err = lora->params ? make_norms(lora) : DURE_ERR_NOMEM;
    if (err)
        dure_lora_free(&lora);
    else
        *out = lora;
    return err;
}

void dure_lora_free(dure_lora **lora)
{
    if (!*lora) return;
    dure_lora_norms *norms = (*lora)->norms;
    if (norms) {
        free(norms->base);
        free(norms->norm);
        free(norms->gain);
    }
    free(norms);
    free((*lora)->params);
    free(*lora);
    *lora = NULL;
}

void dure_lora_changed(dure_lora *lora)
{
    lora->version = next_version();
}

/* A multiple of 2^-53 in [-1, 1). */
static double uniform(uint64_t *state)
{
    return (double)(dure_splitmix64(state) >> 10) * 0x1p-53 - 1.0;
}

/* A's rows become orthonormal: Gram-Schmidt with sums in double, each row twice against the
 * earlier ones, which brings the overlap that remains down to rounding (Giraud et al., Numer.
 * Math. 101, 2005). */
static void orthonormalise(float *rows, size_t rank, size_t in)
{
    for (size_t i = 0; i < rank; i++) {
        float *x = rows + i * in;
        double norm = 0;
        for (size_t j = 0; j < 2 * i; j++) {
            const float *y = rows + j % i * in;
            double overlap = 0;
            for (size_t k = 0; k < in; k++)
                overlap += (double)x[k] * (double)y[k];
            for (size_t k = 0; k < in; k++)
                x[k] = (float)((double)x[k] - overlap * (double)y[k]);
        }
        for (size_t k = 0; k < in; k++)
            norm += (double)x[k] * (double)x[k];
        norm = sqrt(norm);
        for (size_t k = 0; k < in; k++)
            x[k] = (float)((double)x[k] / norm);
    }
}

/* Every A in canonical order from one stream; every B zero. */
static void init(dure_lora *lora, uint64_t seed, bool orthonormal)
{
    const dure_lora_layout *layout = &lora->layout;
    memset(lora->params, 0, lora->n * sizeof *lora->params);
    for (uint32_t layer = layout->first_layer; layer < layout->shape.n_layers; layer++)
        for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++) {
            size_t at, in = dure_lora_in(&layout->shape, t);
            if (!dure_lora_find(&at, layout, layer, t, DURE_LORA_FACTOR_A)) continue;
            double bound = orthonormal ? 1.0 : 1.0 / sqrt((double)in);
            size_t rank = dure_lora_rank(layout, t);
            for (size_t i = 0; i < rank * in; i++)
                lora->params[at + i] = (float)(uniform(&seed) * bound);
            if (orthonormal) orthonormalise(lora->params + at, rank, in);
        }
}

void dure_lora_init_uniform(dure_lora *lora, uint64_t seed)
{
    init(lora, seed, false);
}

void dure_lora_init_orthonormal(dure_lora *lora, uint64_t seed)
{
    init(lora, seed, true);
}

/* Where the factors named of one matrix lie: A and B are neighbours in the whole vector. */
static bool find_factors(size_t *offset, size_t *n, const dure_lora_layout *layout, uint32_t layer,
                         dure_lora_target target, dure_lora_factor factors)
{
    dure_lora_factor first = factors & DURE_LORA_FACTOR_A ? DURE_LORA_FACTOR_A : DURE_LORA_FACTOR_B;
    *n = factor_count(layout, target, factors);
    return dure_lora_find(offset, layout, layer, target, first);
}

void dure_lora_pack(float *active, const dure_lora *lora, dure_lora_factor factors)
{
    const dure_lora_layout *layout = &lora->layout;
    for (uint32_t layer = layout->first_layer; layer < layout->shape.n_layers; layer++)
        for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++) {
            size_t at, n;
            if (!find_factors(&at, &n, layout, layer, t, factors)) continue;
            memcpy(active, lora->params + at, n * sizeof *active);
            active += n;
        }
}

void dure_lora_unpack(dure_lora *lora, const float *active, dure_lora_factor factors)
{
    const dure_lora_layout *layout = &lora->layout;
    for (uint32_t layer = layout->first_layer; layer < layout->shape.n_layers; layer++)
        for (dure_lora_target t = 0; t < DURE_LORA_TARGETS; t++) {
            size_t at, n;
            if (!find_factors(&at, &n, layout, layer, t, factors)) continue;
            memcpy(lora->params + at, active, n * sizeof *active);
            active += n;
        }
    dure_lora_changed(lora);
}
