#include "dp/loss_grid.h"

#include <math.h>
#include <stdbool.h>

/* More than the relative error of any mass below, in the loss it is moved by. */
#define LOSS_SLACK 0x1p-40

/* The loss of removing a record at output x; falls to log(1 - q). */
static double loss_of(double x, double rate, double sigma)
{
    double g = (x - 0.5) / (sigma * sigma);
    if (rate >= 1) return g;
    return g < 30 ? log1p(rate * expm1(g)) : g + log(rate) + log1p((1 / rate - 1) * exp(-g));
}

/* Its inverse; minus infinity at and below log(1 - q). */
static double output_of(double loss, double rate, double sigma)
{
    if (rate >= 1) return 0.5 + sigma * sigma * loss;
    double log_ratio;
    if (loss > 30) {
        log_ratio = loss - log(rate) + log1p((rate - 1) * exp(-loss));
    } else if (loss > -0.5) {
        double above = expm1(loss) / rate;
        if (above <= -1) return -INFINITY;
        log_ratio = log1p(above);
    } else {
        double ratio = (exp(loss) - (1 - rate)) / rate;
        if (ratio <= 0) return -INFINITY;
        log_ratio = log(ratio);
    }
    return 0.5 + sigma * sigma * log_ratio;
}

/* Standard normal mass of [a, b]. Short intervals by the series about the middle, whose first
 * neglected term is below 1e-16 of the mass; long ones from the side where nothing cancels. */
static double normal_mass(double a, double b)
{
    double m = 0.5 * (a + b), d = b - a;
    if (!(d > 0)) return 0;
    if (d * (fabs(m) + 1) < 0.1) {
        double m2 = m * m, d2 = d * d;
        double series = (m2 - 1) / 24 + d2 * ((m2 * m2 - 6 * m2 + 3) / 1920 +
                                              d2 * (((m2 - 15) * m2 + 45) * m2 - 15) / 322560);
        return d * exp(-0.5 * m2) * (M_SQRT1_2 * M_2_SQRTPI / 2) * (1 + d2 * series);
    }
    if (m < 0) return 0.5 * (erfc(-b / M_SQRT2) - erfc(-a / M_SQRT2));
    return 0.5 * (erfc(a / M_SQRT2) - erfc(b / M_SQRT2));
}

void dure_loss_profile_init(dure_loss_profile *profile, double rate, double sigma,
                            dure_loss_side side, double reach)
{
    dure_loss_profile *p = profile;
    p->rate = rate;
    p->sigma = sigma;
    p->side = side;
    p->x_low = -reach * sigma;
    p->x_high = 1 + reach * sigma;
    double range = p->x_high - p->x_low, fine = fmin(sigma / 5, sigma * sigma / 2);
    p->n = (size_t)fmin(DURE_LOSS_NODES, ceil(range / fine) + 1);
    p->distance = range / (double)(p->n - 1);
    double log_density = log(p->distance / sigma) - 0.5 * log(2 * M_PI);
    for (size_t i = 0; i < p->n; i++) {
        double x = p->x_low + (double)i * p->distance, z = x / sigma;
        double loss = loss_of(x, rate, sigma);
        p->loss[i] = side == DURE_LOSS_REMOVE ? loss : -loss;
        p->log_mass[i] = log_density - 0.5 * z * z + (side == DURE_LOSS_REMOVE ? loss : 0);
    }
}

double dure_loss_log_moment(const dure_loss_profile *profile, double order)
{
    const dure_loss_profile *p = profile;
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < p->n; i++)
        most = fmax(most, p->log_mass[i] + order * p->loss[i]);
    for (size_t i = 0; i < p->n; i++) {
        double power = p->log_mass[i] + order * p->loss[i] - most;
        if (power > -40) sum += exp(power);
    }
    return most + log(sum);
}

double dure_loss_variance(const dure_loss_profile *profile, double order)
{
    const dure_loss_profile *p = profile;
    double log_moment = dure_loss_log_moment(p, order), first = 0, second = 0;
    for (size_t i = 0; i < p->n; i++) {
        double w = exp(p->log_mass[i] + order * p->loss[i] - log_moment);
        first += w * p->loss[i];
        second += w * p->loss[i] * p->loss[i];
    }
    return fmax(second - first * first, 0);
}

double dure_loss_most(const dure_loss_profile *profile)
{
    const dure_loss_profile *p = profile;
    return p->side == DURE_LOSS_REMOVE ? p->loss[p->n - 1] : p->loss[0];
}

void dure_loss_profile_tilt(dure_loss_profile *profile, double order)
{
    dure_loss_profile *p = profile;
    double log_moment = dure_loss_log_moment(p, order), sum = 0;
    p->x_middle = p->x_low;
    for (size_t i = 0; i < p->n; i++) {
        sum += exp(p->log_mass[i] + order * p->loss[i] - log_moment);
        p->tail[i] = sum;
        if (sum < 0.5) p->x_middle = p->x_low + ((double)i + 0.5) * p->distance;
    }
    sum = 0;
    for (size_t i = p->n; i-- > 0;) {
        sum += exp(p->log_mass[i] + order * p->loss[i] - log_moment);
        p->tail[i] = fmin(p->tail[i], sum);
    }
}

/* The widest cell, in points, that may begin or end at output x: moving mass m over w points adds
 * less than m w^2 to the variance, and the sum of this over cells of w = m^-0.4 / 4 is about 1/3.
 */
static double widest_at(const dure_loss_profile *p, double x)
{
    double at = (x - p->x_low) / p->distance;
    size_t i = at > 0 ? (at < (double)(p->n - 2) ? (size_t)at : p->n - 2) : 0;
    double mass = fmax(p->tail[i], p->tail[i + 1]);
    return mass > 0.03 ? 1 : 0.25 * pow(fmax(mass, 1e-40), -0.4);
}

typedef struct cell {
    double x; /* output at the upper edge, within reach */
    double p, q;
} cell;

/* Masses of P and Q between the outputs at two losses. */
static cell measure(const dure_loss_profile *p, double x_before, double loss)
{
    double x = output_of(p->side == DURE_LOSS_REMOVE ? loss : -loss, p->rate, p->sigma);
    cell c = {.x = fmin(fmax(x, p->x_low), p->x_high)};
    double a = fmin(c.x, x_before), b = fmax(c.x, x_before);
    double without = normal_mass(a / p->sigma, b / p->sigma);
    double with = normal_mass((a - 1) / p->sigma, (b - 1) / p->sigma);
    double mixed = (1 - p->rate) * without + p->rate * with;
    c.p = p->side == DURE_LOSS_REMOVE ? mixed : without;
    c.q = p->side == DURE_LOSS_REMOVE ? without : mixed;
    return c;
}

/* Mass of P beyond reach, on the side of small losses or of large ones. */
static double mass_beyond(const dure_loss_profile *p, bool large)
{
    bool right = large == (p->side == DURE_LOSS_REMOVE);
    double edge = right ? p->x_high : p->x_low, sign = right ? M_SQRT1_2 : -M_SQRT1_2;
    double without = 0.5 * erfc(sign * edge / p->sigma);
    if (p->side == DURE_LOSS_ADD) return without;
    return (1 - p->rate) * without + p->rate * 0.5 * erfc(sign * (edge - 1) / p->sigma);
}

/* The next point above `at`, at most `last`: as far as the masses at both edges allow and the
 * weights do not vary much, and not across the middle. */
static int64_t next_point(const dure_loss_profile *p, const dure_loss_tilt *tilt, int64_t at,
                          int64_t last, double x, int64_t width)
{
    double sign = p->side == DURE_LOSS_REMOVE ? 1 : -1;
    double most = fmin(tilt->widest, 0.5 / (tilt->order_above + 1)) / tilt->spacing;
    most = fmin(fmin(most, widest_at(p, x)), (double)(last - at));
    for (width *= 2; width > 1; width /= 2) {
        if ((double)width > most) continue;
        double edge = output_of(sign * (double)(at + width) * tilt->spacing, p->rate, p->sigma);
        bool crosses = (x < p->x_middle) != (edge < p->x_middle);
        if (!crosses && (double)width <= widest_at(p, edge)) break;
    }
    return at + (width > 1 ? width : 1);
}

/* What is moved to the cell's upper point; the rest stays at its lower one. */
static double share_above(const cell *c, double loss, double gap)
{
    if (loss > 700) return c->p; /* e^loss would overflow; all of it is on the safe side */
    double up = (c->p - exp(loss) * c->q) / -expm1(-gap);
    return fmin(fmax(up, 0) + LOSS_SLACK / gap * c->p, c->p);
}

static void put(double *cells, size_t n, dure_loss_sums *sums, const dure_loss_tilt *tilt,
                int64_t at, double mass)
{
    double loss = (double)at * tilt->spacing;
    double weighted = mass * exp(tilt->order * loss - tilt->log_scale);
    cells[(uint64_t)at & (n - 1)] += weighted;
    sums->mass += weighted;
    sums->mass_above += mass * exp(tilt->order_above * loss - tilt->log_scale_above);
}

dure_loss_sums dure_loss_grid_fill(double *cells, size_t n, const dure_loss_profile *profile,
                                   const dure_loss_tilt *tilt)
{
    const dure_loss_profile *p = profile;
    bool remove = p->side == DURE_LOSS_REMOVE;
    double h = tilt->spacing, x = remove ? p->x_low : p->x_high;
    double least = remove ? p->loss[0] : p->loss[p->n - 1];
    int64_t at = (int64_t)floor(least / h), last = (int64_t)ceil(dure_loss_most(p) / h);
    double here = mass_beyond(p, false); /* of small loss: raised to the first point */
    dure_loss_sums sums = {.infinite = mass_beyond(p, true)};
    int64_t width = 1;
    while (at < last) {
        int64_t next = next_point(p, tilt, at, last, x, width);
        width = next - at;
        cell c = measure(p, x, (double)next * h);
        double up = share_above(&c, (double)at * h, (double)width * h);
        put(cells, n, &sums, tilt, at, here + c.p - up);
        here = up;
        x = c.x;
        at = next;
    }
    put(cells, n, &sums, tilt, at, here);
    return sums;
}
