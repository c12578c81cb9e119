/* The budget chart: each site's epsilon over time as steps, and the most that any plan can come to.
 * Up to LABELLED_MAX sites are told apart by colour, dash and a name at the line's end; in larger
 * federations all lines are thin and only the largest is named. */
#include "common/chart.h"
#include "common/clock.h"
#include "ledger/statement_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WIDTH = 760,
    HEIGHT = 330,
    LEFT = 52,
    RIGHT = 580,
    TOP = 18,
    BOTTOM = 286,
    LABELLED_MAX = 8,
    LABEL_APART = 15,
    NAME_CHARS = 16, /* that fit beside the lines, before the figure */
    TICKS_MAX = 6,
};

static const dure_chart_area area = {LEFT, RIGHT, TOP, BOTTOM};

typedef struct chart {
    dure_buf *out;
    const dure_statement *statement;
    int64_t from_s, to_s;
    double top; /* epsilon at the upper edge */
} chart;

static double x_of(const chart *c, int64_t time_s)
{
    double span = (double)(c->to_s - c->from_s);
    return LEFT + (double)(time_s - c->from_s) / span * (RIGHT - LEFT);
}

static double y_of(const chart *c, double epsilon)
{
    return dure_chart_y(&area, c->top, epsilon);
}

static bool is_drawn(const dure_statement_curve *curve)
{
    return curve->n_points > 0 && isfinite(curve->points[curve->n_points - 1].epsilon);
}

static double last_of(const dure_statement_curve *curve)
{
    return curve->points[curve->n_points - 1].epsilon;
}

/* False if there is nothing to draw. */
static bool measure(chart *c)
{
    const dure_statement *s = c->statement;
    bool any = false;
    double most = 0;
    c->from_s = s->report->totals.first_s;
    c->to_s = s->report->totals.last_s;
    for (size_t i = 0; i < s->n_curves; i++) {
        const dure_statement_curve *curve = &s->curves[i];
        if (!is_drawn(curve)) continue;
        any = true;
        if (last_of(curve) > most) most = last_of(curve);
        if (isfinite(curve->planned) && curve->planned > most) most = curve->planned;
    }
    if (!any || !(most > 0)) return false;
    /* The genesis may be much older than the first round: the curve's own time is what matters. */
    for (size_t i = 0; i < s->n_rounds; i++) {
        if (i == 0 || s->rounds[i].opened_s < c->from_s) c->from_s = s->rounds[i].opened_s;
        if (s->rounds[i].ended_s > c->to_s) c->to_s = s->rounds[i].ended_s;
    }
    if (c->to_s <= c->from_s) c->to_s = c->from_s + 1;
    c->top = dure_chart_axis_end(most, 1.08);
    return true;
}

/* ---- axes ---- */

/* Steps in which people count time, from a second to a year. */
static int64_t time_step(int64_t span_s)
{
    static const int64_t steps[] = {1,       2,       5,        10,      15,     30,     60,
                                    120,     300,     600,      900,     1800,   3600,   7200,
                                    10800,   21600,   43200,    86400,   172800, 604800, 1209600,
                                    2592000, 7776000, 15552000, 31536000};
    const size_t n = sizeof steps / sizeof *steps;
    for (size_t i = 0; i < n; i++)
        if (span_s / steps[i] < TICKS_MAX) return steps[i];
    return span_s / (TICKS_MAX - 1);
}

/* ISO 8601 text is YYYY-MM-DDTHH:MM:SSZ: the part of it that changes from tick to tick. */
static void tick_text(char text[DURE_CLOCK_TEXT_SIZE], int64_t time_s, int64_t step_s)
{
    char whole[DURE_CLOCK_TEXT_SIZE];
    dure_clock_text(whole, time_s);
    if (step_s >= 86400) {
        (void)snprintf(text, DURE_CLOCK_TEXT_SIZE, "%.10s", whole);
    } else if (step_s >= 3600) {
        (void)snprintf(text, DURE_CLOCK_TEXT_SIZE, "%.5s %.5s", whole + 5, whole + 11);
    } else {
        (void)snprintf(text, DURE_CLOCK_TEXT_SIZE, "%.*s", step_s >= 60 ? 5 : 8, whole + 11);
    }
}

static void put_x_axis(const chart *c)
{
    const int64_t step_s = time_step(c->to_s - c->from_s);
    char text[DURE_CLOCK_TEXT_SIZE];
    for (int64_t t = (c->from_s + step_s - 1) / step_s * step_s; t <= c->to_s; t += step_s) {
        tick_text(text, t, step_s);
        dure_chart_put_x_tick(c->out, &area, x_of(c, t), text);
    }
    char from[DURE_CLOCK_TEXT_SIZE], to[DURE_CLOCK_TEXT_SIZE];
    dure_clock_text(from, c->from_s);
    dure_clock_text(to, c->to_s);
    dure_put_format(c->out,
                    "<text class=\"tick\" x=\"%d\" y=\"%d\" text-anchor=\"middle\">time, UTC "
                    "(%.10s%s%.10s)</text>\n",
                    (LEFT + RIGHT) / 2, BOTTOM + 38, from, strncmp(from, to, 10) ? " to " : "",
                    strncmp(from, to, 10) ? to : "");
}

/* ---- what the plans can come to ---- */

static void put_planned(const chart *c)
{
    double most = 0;
    for (size_t i = 0; i < c->statement->n_curves; i++) {
        const dure_statement_curve *curve = &c->statement->curves[i];
        if (is_drawn(curve) && isfinite(curve->planned) && curve->planned > most)
            most = curve->planned;
    }
    if (!(most > 0)) return;
    double y = y_of(c, most);
    dure_put_format(c->out,
                    "<line class=\"planned\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                    "<text class=\"tick\" x=\"%d\" y=\"%.1f\">most that a plan comes to: ",
                    LEFT, RIGHT, y, y, LEFT + 6, y - 5);
    dure_statement_put_epsilon(c->out, most);
    dure_put_format(c->out, "</text>\n");
}

/* ---- curves ---- */

static void put_curve(const chart *c, const dure_statement_curve *curve, int style)
{
    dure_put_format(c->out, "<path class=\"line s%d\" d=\"M%d %d", style, LEFT, BOTTOM);
    for (size_t k = 0; k < curve->n_points; k++) {
        dure_put_format(c->out, "H%.1fV%.1f", x_of(c, curve->points[k].time_s),
                        y_of(c, curve->points[k].epsilon));
    }
    dure_put_format(c->out, "H%d\"/>\n", RIGHT);
}

typedef struct label {
    double y;
    size_t curve;
    int style;
} label;

static int by_place(const void *a, const void *b)
{
    double x = ((const label *)a)->y, y = ((const label *)b)->y;
    return (x > y) - (x < y);
}

/* Names beside the lines' ends, moved apart where the lines end together. */
static void put_labels(const chart *c, label *labels, size_t n)
{
    qsort(labels, n, sizeof *labels, by_place);
    for (size_t k = 0; k < n; k++) {
        double least = k ? labels[k - 1].y + LABEL_APART : TOP;
        if (labels[k].y < least) labels[k].y = least;
    }
    double over = n ? labels[n - 1].y - BOTTOM : 0;
    for (size_t k = n; k-- > 0;) {
        double most = k + 1 < n ? labels[k + 1].y - LABEL_APART : BOTTOM;
        if (over > 0 && labels[k].y > most) labels[k].y = most;
    }
    for (size_t k = 0; k < n; k++) {
        const dure_statement_curve *curve = &c->statement->curves[labels[k].curve];
        dure_put_format(c->out,
                        "<line class=\"lead s%d\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                        "<text class=\"name\" x=\"%d\" y=\"%.1f\">",
                        labels[k].style, RIGHT + 1, RIGHT + 10, y_of(c, last_of(curve)),
                        labels[k].y, RIGHT + 13, labels[k].y + 4);
        char shown[24];
        const char *name = curve->account->name;
        bool cut = strlen(name) > NAME_CHARS;
        (void)snprintf(shown, sizeof shown, "%.*s%s", NAME_CHARS - cut, name,
                       cut ? "\xe2\x80\xa6" : "");
        dure_statement_put_text(c->out, shown);
        dure_put_format(c->out, " ");
        dure_statement_put_epsilon(c->out, last_of(curve));
        dure_put_format(c->out, "</text>\n");
    }
}

static void put_curves(const chart *c)
{
    const dure_statement *s = c->statement;
    label labels[LABELLED_MAX];
    size_t n_drawn = 0, n = 0, largest = 0;
    for (size_t i = 0; i < s->n_curves; i++) {
        if (!is_drawn(&s->curves[i])) continue;
        if (n_drawn == 0 || last_of(&s->curves[i]) > last_of(&s->curves[largest])) largest = i;
        n_drawn++;
    }
    for (size_t i = 0; i < s->n_curves; i++) {
        if (!is_drawn(&s->curves[i])) continue;
        bool named = n_drawn <= LABELLED_MAX || i == largest;
        int style = n_drawn <= LABELLED_MAX ? (int)n : i == largest ? 0 : 9;
        put_curve(c, &s->curves[i], style);
        if (named && n < LABELLED_MAX)
            labels[n++] = (label){y_of(c, last_of(&s->curves[i])), i, style};
    }
    put_labels(c, labels, n);
}

void dure_statement_chart(dure_buf *out, const dure_statement *statement)
{
    chart c = {.out = out, .statement = statement};
    if (!measure(&c)) return;
    dure_put_format(out,
                    "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"Privacy loss of each "
                    "site over time\">\n",
                    WIDTH, HEIGHT);
    dure_chart_put_y_axis(out, &area, c.top, "privacy loss \xce\xb5");
    put_x_axis(&c);
    put_planned(&c);
    put_curves(&c);
    dure_put_format(out, "</svg>\n");
}
