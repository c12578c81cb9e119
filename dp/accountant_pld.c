#include "dp/accountant_pld.h"

#include "dp/gaussian.h"
#include "dp/loss_compose.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* Part of delta that masses beyond reach may take, and that errors of the window should. */
#define REACH_SHARE 1e-9
#define ERROR_SHARE 1e-5
#define SPACING_LEAST 2e-5
#define POINTS_LEAST 1024
#define POINTS_FIRST 4096
#define POINTS_MOST ((size_t)1 << 21)
#define PASSES_MOST 8
#define GRIDS_MOST 6
#define SIDES DURE_LOSS_SIDES

/* One of epsilon and delta is asked for, and NaN until it is known. */
typedef struct problem {
    dure_loss_event *events;
    size_t n_events;
    double steps; /* of all events */
    double epsilon, delta;
    dure_loss_profile *profiles[SIDES];
    double loss_most[SIDES]; /* adding a record never costs more than -log(1 - q) a step */
} problem;

/* What is known while looking for the order and the window of one direction. */
typedef struct choice {
    const problem *p;
    const dure_loss_profile *profiles;
    double noise;              /* variance that the grid adds to the loss of one step */
    double order;              /* while looking for a window's end */
    double order_most;         /* twice it keeps e^(order loss) from overflow */
    double epsilon, log_delta; /* where the answer should be tight */
} choice;

/* ---- Which order and which window ---- */

/* Of the composition, with what the grid adds. */
static double log_moment(const choice *c, double order)
{
    double sum = 0.5 * order * (order + 1) * c->noise * c->p->steps;
    for (size_t i = 0; i < c->p->n_events; i++)
        sum += c->p->events[i].steps * dure_loss_log_moment(&c->profiles[i], order);
    return sum;
}

/* log delta at epsilon by this order alone. */
static double renyi_log_delta(const choice *c, double order)
{
    return log_moment(c, order) + dure_loss_log_peak(order) - order * c->epsilon;
}

static double renyi_epsilon(const choice *c, double order)
{
    return (log_moment(c, order) + dure_loss_log_peak(order) - c->log_delta) / order;
}

/* log of the tilted mass that may be lost for ERROR_SHARE of delta at epsilon. */
static double log_allowed(const choice *c, double order)
{
    double share = log(ERROR_SHARE) + c->log_delta - renyi_log_delta(c, order);
    return fmin(share, log(1e-4));
}

/* The window's ends: the tilted mass beyond is allowed, by theta alone. */
static double upper_end(const choice *c, double theta)
{
    return (log_moment(c, c->order + theta) - log_moment(c, c->order) - log_allowed(c, c->order)) /
           theta;
}

static double minus_lower_end(const choice *c, double theta)
{
    return (log_moment(c, c->order - theta) - log_moment(c, c->order) - log_allowed(c, c->order)) /
           theta;
}

typedef double (*objective)(const choice *c, double x);

/* Golden section over log x, to a few per cent. Every x is allowed; a better one saves work. */
static double minimise(objective f, const choice *c, double low, double high, double *least)
{
    const double golden = 0.6180339887498949;
    double a = log(low), b = log(high);
    double x = b - golden * (b - a), y = a + golden * (b - a);
    double fx = f(c, exp(x)), fy = f(c, exp(y));
    while (b - a > 0.1) {
        if (fx <= fy) {
            b = y;
            y = x;
            fy = fx;
            x = b - golden * (b - a);
            fx = f(c, exp(x));
        } else {
            a = x;
            x = y;
            fx = fy;
            y = a + golden * (b - a);
            fy = f(c, exp(y));
        }
    }
    *least = fmin(fx, fy);
    return exp(fx <= fy ? x : y);
}

typedef struct window {
    double low, high;
    double theta; /* the upper end holds by order + theta */
} window;

static window window_at(const choice *c, double order)
{
    choice at = *c;
    double variance = c->p->steps * c->noise, lower = 0;
    at.order = order;
    for (size_t i = 0; i < c->p->n_events; i++)
        variance += c->p->events[i].steps * dure_loss_variance(&c->profiles[i], order);
    double theta = sqrt(-2 * log_allowed(&at, order) / fmax(variance, 1e-30));
    window w = {.low = 0};
    /* Large single losses want a theta of about one over their size. */
    double least = fmin(theta * 0.02, c->order_most / 300), most = fmin(theta * 1.5, c->order_most);
    w.theta = minimise(upper_end, &at, fmin(least, most), most, &w.high);
    (void)minimise(minus_lower_end, &at, theta * 0.1, theta * 10, &lower);
    w.low = fmin(-lower, c->epsilon);
    return w;
}

/* The order with the shortest window of those up to twice the curve's slope at the answer. Sums
 * that single large losses dominate want a small one; what round-off would do counts too. */
static double best_order(const choice *c, double slope)
{
    double best = INFINITY, order = fmin(slope, c->order_most);
    for (double at = fmin(2 * slope, c->order_most), last = 1e-3 * at; at > last; at *= 0.6) {
        /* Beyond the end of the loss the curve falls without bound; no order there is of use. */
        if (renyi_log_delta(c, at) < 2 * c->log_delta - 20) continue;
        window w = window_at(c, at);
        double round_off = fmax(log(c->p->steps * 1e-14) - log_allowed(c, at), 0);
        double work = (w.high - w.low) * (1 + round_off);
        if (!(work < best)) continue;
        best = work;
        order = at;
    }
    return order;
}

/* ---- Passes ---- */

typedef struct pass {
    dure_loss_bound answers[SIDES]; /* about what comes out, then what came out */
    double window;                  /* length */
    double spacing;
} pass;

static choice choice_of(const problem *p, const pass *at, int side)
{
    double largest = 1e-6;
    for (size_t i = 0; i < p->n_events; i++)
        largest = fmax(largest, dure_loss_most(&p->profiles[side][i]));
    return (choice){.p = p,
                    .profiles = p->profiles[side],
                    .noise = at->spacing * at->spacing / 6,
                    .order_most = 300 / largest,
                    .epsilon = at->answers[side].epsilon,
                    .log_delta = log(fmax(at->answers[side].delta, 1e-300))};
}

/* Before anything is known: what the Renyi accountant says, on the low side. */
static void first_guess(const problem *p, pass *at)
{
    for (int s = 0; s < SIDES; s++) {
        dure_loss_bound *guess = &at->answers[s];
        *guess = (dure_loss_bound){.epsilon = p->epsilon, .delta = p->delta};
        choice c = choice_of(p, at, s);
        double most = c.order_most, least = 0;
        if (isnan(p->epsilon)) {
            guess->slope = minimise(renyi_epsilon, &c, most * 1e-6, most, &least);
            /* It is too large by a few 1 / order, and by more where single losses are large. */
            double low = fmax(fmax(0.5 * least, least - 8 / guess->slope), 0);
            guess->epsilon = fmin(low, p->loss_most[s]);
        } else {
            guess->slope = minimise(renyi_log_delta, &c, most * 1e-6, most, &least);
            guess->delta = exp(fmin(least, 0) - 5);
        }
    }
}

/* How far apart the points of one step's grid may lie if it were the only one, so that a direction
 * comes out within the tolerance; that which is not the larger need only stay below it. */
static double tolerable(const pass *at, int side)
{
    double larger = fmax(at->answers[0].epsilon, at->answers[1].epsilon);
    const dure_loss_bound *a = &at->answers[side];
    double tolerance = 1.5e-4 * larger + 5e-7 + 0.3 * (larger - a->epsilon);
    return sqrt(12 * tolerance / (a->slope + 1));
}

static double spacing_wanted(const problem *p, const pass *at)
{
    return fmin(tolerable(at, 0), tolerable(at, 1)) / sqrt(p->steps);
}

static void choose(dure_loss_composition *c, const problem *p, pass *at)
{
    at->window = 0;
    for (int s = 0; s < SIDES; s++) {
        choice looking = choice_of(p, at, s);
        double order = best_order(&looking, fmax(at->answers[s].slope, 1e-6));
        window w = window_at(&looking, order);
        c->tracks[s] = (dure_loss_track){.profiles = p->profiles[s],
                                         .order = order,
                                         .order_above = order + w.theta,
                                         .low = w.low,
                                         .widest = 0.5 * tolerable(at, s)};
        at->window = fmax(at->window, w.high - w.low);
    }
}

/* Points for the window at about this spacing, and the spacing that uses them all. */
static size_t fit_grid(const problem *p, pass *at, double spacing)
{
    double least = SPACING_LEAST * fmin(1, sqrt(50000 / p->steps));
    size_t n = POINTS_LEAST;
    while (n < POINTS_MOST && (double)(n - 2) * fmax(1.3 * spacing, least) < at->window)
        n *= 2;
    at->spacing = fmax(at->window / (double)(n - 2), least);
    return n;
}

/* The grid's own variance makes the window longer. A window that was chosen for a finer grid than
 * comes of it is too short at its low end, and what lies below goes around to the top, where it
 * counts in full: so it is chosen anew for the coarser one. */
static size_t choose_grid(dure_loss_composition *c, const problem *p, pass *at, double spacing)
{
    size_t n = fit_grid(p, at, spacing);
    double assumed = 0;
    for (int i = 0; i < GRIDS_MOST && at->spacing > assumed; i++) {
        assumed = at->spacing;
        choose(c, p, at);
        n = fit_grid(p, at, spacing);
    }
    return n;
}

/* Composes with what the pass says and takes what comes out into it. */
static dure_err run(const problem *p, dure_loss_composition *c, pass *at, size_t n)
{
    c->spacing = at->spacing;
    dure_err err = dure_loss_compose(c, n);
    for (int s = 0; !err && s < SIDES; s++) {
        at->answers[s] = isnan(p->epsilon) ? dure_loss_read_epsilon(c, (dure_loss_side)s, p->delta)
                                           : dure_loss_read_delta(c, (dure_loss_side)s, p->epsilon);
        if (at->answers[s].epsilon > p->loss_most[s]) at->answers[s].epsilon = p->loss_most[s];
    }
    dure_loss_composition_fini(c);
    return err;
}

/* Whether the larger direction is not known yet; what is not known at all is guessed anew. */
static bool is_off(pass *at, const pass *before)
{
    double larger = fmax(at->answers[0].epsilon, at->answers[1].epsilon);
    bool off = isinf(larger);
    for (int s = 0; s < SIDES; s++) {
        dure_loss_bound *a = &at->answers[s];
        if (a->at_end && a->epsilon == larger) off = true;
        if (isinf(a->epsilon)) a->epsilon = 1.5 * before->answers[s].epsilon + 1e-3;
    }
    return off;
}

static void problem_fini(problem *p)
{
    for (int s = 0; s < SIDES; s++)
        free(p->profiles[s]);
    free(p->events);
}

static dure_err make_profiles(problem *p)
{
    double rare = REACH_SHARE * (isnan(p->delta) ? 1e-20 : p->delta);
    for (size_t i = 0; i < p->n_events; i++)
        p->steps += p->events[i].steps;
    p->loss_most[DURE_LOSS_REMOVE] = INFINITY;
    for (size_t i = 0; i < p->n_events; i++)
        p->loss_most[DURE_LOSS_ADD] -= p->events[i].steps * log1p(-p->events[i].rate);
    double reach = sqrt(-2 * log(rare / p->steps));
    for (int s = 0; s < SIDES; s++) {
        p->profiles[s] = calloc(p->n_events, sizeof *p->profiles[s]);
        if (!p->profiles[s]) return DURE_ERR_NOMEM;
        for (size_t i = 0; i < p->n_events; i++)
            dure_loss_profile_init(&p->profiles[s][i], p->events[i].rate, p->events[i].sigma,
                                   (dure_loss_side)s, reach);
    }
    return DURE_OK;
}

/* A coarse pass says where the answer is, a second one finds it there; more if that was wrong. */
static dure_err compute(problem *p)
{
    dure_loss_composition c = {.events = p->events, .n_events = p->n_events};
    pass at = {.spacing = 0}, before;
    double epsilon = INFINITY, delta = 1;
    dure_err err = make_profiles(p);
    if (err) return err;
    first_guess(p, &at);
    choose(&c, p, &at);
    int tries = 0;
    do {
        double wanted = spacing_wanted(p, &at);
        if (tries == 0) wanted = fmax(wanted, fmin(2 * at.window / POINTS_FIRST, 10 * wanted));
        size_t n = choose_grid(&c, p, &at, wanted);
        before = at;
        err = run(p, &c, &at, n);
        if (err) return err;
        /* Every pass gives an upper bound. */
        epsilon = fmin(epsilon, fmax(at.answers[0].epsilon, at.answers[1].epsilon));
        delta = fmin(delta, fmax(at.answers[0].delta, at.answers[1].delta));
    } while ((is_off(&at, &before) || tries == 0) && ++tries < PASSES_MOST);
    if (tries == PASSES_MOST) return DURE_ERR_LIMIT;
    if (isnan(p->epsilon)) p->epsilon = epsilon;
    if (isnan(p->delta)) p->delta = delta;
    return DURE_OK;
}

/* ---- From plans to events ---- */

static void add_event(problem *p, dure_loss_event add)
{
    for (size_t i = 0; i < p->n_events; i++) {
        dure_loss_event *e = &p->events[i];
        if (e->rate != add.rate || e->sigma != add.sigma) continue;
        e->steps += add.steps;
        return;
    }
    p->events[p->n_events++] = add;
}

/* Equal steps become one event, and all Gaussians without sampling one of a single step; *bare
 * says that a plan has no noise. */
static dure_err gather(problem *p, bool *bare, const dure_dp_plan *plans, size_t n)
{
    double square = 0; /* of mu, over the Gaussians */
    *bare = false;
    p->events = calloc(n + 1, sizeof *p->events);
    if (!p->events) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        dure_loss_event e = {dure_dp_plan_rate(&plans[i]), dure_dp_plan_sigma_effective(&plans[i]),
                             (double)plans[i].steps};
        if (e.steps == 0 || e.rate == 0) continue;
        if (e.sigma == 0)
            *bare = true;
        else if (e.rate >= 1)
            square += e.steps / (e.sigma * e.sigma);
        else
            add_event(p, e);
    }
    if (square > 0) p->events[p->n_events++] = (dure_loss_event){1, 1 / sqrt(square), 1};
    return DURE_OK;
}

dure_err dure_pld_epsilon(double *epsilon, const dure_dp_plan *plans, size_t n, double delta)
{
    problem p = {.epsilon = NAN, .delta = delta};
    bool bare = false;
    *epsilon = INFINITY;
    if (!(delta > 0 && delta < 1)) return DURE_ERR_USAGE;
    dure_err err = gather(&p, &bare, plans, n);
    if (err || bare) goto out;
    if (p.n_events > DURE_PLD_EVENTS_MAX) err = DURE_ERR_LIMIT;
    if (err) goto out;
    if (p.n_events == 0)
        *epsilon = 0;
    else if (p.n_events == 1 && p.events[0].steps == 1)
        *epsilon = dure_subsampled_epsilon(p.events[0].rate, p.events[0].sigma, delta);
    else if (!(err = compute(&p)))
        *epsilon = p.epsilon;
out:
    if (err) *epsilon = INFINITY;
    problem_fini(&p);
    return err;
}

dure_err dure_pld_delta(double *delta, const dure_dp_plan *plans, size_t n, double epsilon)
{
    problem p = {.epsilon = epsilon, .delta = NAN};
    bool bare = false;
    *delta = 1;
    if (!(epsilon >= 0 && isfinite(epsilon))) return DURE_ERR_USAGE;
    dure_err err = gather(&p, &bare, plans, n);
    if (err || bare) goto out;
    if (p.n_events > DURE_PLD_EVENTS_MAX) err = DURE_ERR_LIMIT;
    if (err) goto out;
    if (p.n_events == 0)
        *delta = 0;
    else if (p.n_events == 1 && p.events[0].steps == 1)
        *delta = dure_subsampled_delta(p.events[0].rate, p.events[0].sigma, epsilon);
    else if (!(err = compute(&p)))
        *delta = p.delta;
out:
    if (err) *delta = 1;
    problem_fini(&p);
    return err;
}
