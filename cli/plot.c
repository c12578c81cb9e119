#include "cli/plot.h"

#include "common/chart.h"

#include <math.h>
#include <stdio.h>

enum { WIDTH = 720, HEIGHT = 300, LEFT = 64, RIGHT = 600, TOP = 16, BOTTOM = 246, TICKS = 6 };
enum { LABEL_APART = 15 };

static const dure_chart_area area = {LEFT, RIGHT, TOP, BOTTOM};

const char dure_plot_style[] =
    "svg{width:100%;height:auto;display:block}svg text{font:12px system-ui,\"DejaVu Sans\","
    "sans-serif;fill:var(--ink)}svg .tick{fill:var(--soft)}svg .axis{stroke:var(--soft)}"
    "svg .grid{stroke:var(--rule)}svg .line{fill:none;stroke-width:2.2;stroke-linejoin:round}"
    "svg .name{font-weight:600}svg .mark{fill:var(--page);stroke:var(--ink);stroke-width:2}"
    "svg .said{paint-order:stroke;stroke:var(--page);stroke-width:4px}"
    "svg .drop{stroke:var(--soft);stroke-dasharray:2 4}"
    ".s0{stroke:var(--c0)}.s1{stroke:var(--c1);stroke-dasharray:9 3}.s2{stroke:var(--c2);"
    "stroke-dasharray:3 3}.s3{stroke:var(--c3);stroke-dasharray:9 3 2 3}\n";

typedef struct frame {
    dure_buf *out;
    const dure_plot *plot;
    double x_low, x_high, y_high;
} frame;

static double scaled(const frame *f, double x)
{
    return f->plot->x_log ? log(x) : x;
}

static double x_of(const frame *f, double x)
{
    double low = scaled(f, f->x_low), span = scaled(f, f->x_high) - low;
    return LEFT + (scaled(f, x) - low) / span * (RIGHT - LEFT);
}

static double y_of(const frame *f, double y)
{
    return dure_chart_y(&area, f->y_high, y);
}

/* False if there is nothing to draw. */
static bool measure(frame *f)
{
    const dure_plot *p = f->plot;
    f->x_low = INFINITY;
    f->x_high = -INFINITY;
    for (size_t k = 0; k < p->n_lines; k++) {
        const dure_plot_line *line = &p->lines[k];
        for (size_t i = 0; i < line->n; i++) {
            f->x_low = fmin(f->x_low, line->x[i]);
            f->x_high = fmax(f->x_high, line->x[i]);
            if (isfinite(line->y[i])) f->y_high = fmax(f->y_high, line->y[i]);
        }
    }
    if (p->y_most > 0) f->y_high = fmin(f->y_high, p->y_most);
    if (p->marked) f->y_high = fmax(f->y_high, p->mark_y);
    if (!(f->x_high > f->x_low) || !(f->y_high > 0)) return false;
    f->y_high = dure_chart_axis_end(f->y_high, 1.05);
    return true;
}

static void put_x_tick(const frame *f, double x)
{
    char text[32];
    snprintf(text, sizeof text, "%.5g", x);
    dure_chart_put_x_tick(f->out, &area, x_of(f, x), text);
}

static void put_x_axis(const frame *f)
{
    const dure_plot_line *first = &f->plot->lines[0];
    if (f->plot->x_log) {
        for (size_t i = 0; i < first->n; i++)
            put_x_tick(f, first->x[i]);
    } else {
        double step = dure_chart_round_step((f->x_high - f->x_low) / TICKS);
        for (double x = step * ceil(f->x_low / step); x <= f->x_high * (1 + 1e-9); x += step)
            put_x_tick(f, x);
    }
    dure_put_format(f->out,
                    "<text class=\"tick\" x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
                    (LEFT + RIGHT) / 2, BOTTOM + 40, f->plot->x_name);
}

/* Returns where the line ends, or below the axis if nothing of it shows. */
static double put_line(const frame *f, size_t k)
{
    const dure_plot_line *line = &f->plot->lines[k];
    double last = BOTTOM + 1;
    bool down = false;
    dure_put_format(f->out, "<path class=\"line s%zu\" clip-path=\"url(#area)\" d=\"", k);
    for (size_t i = 0; i < line->n; i++) {
        bool shows = isfinite(line->y[i]);
        if (shows)
            dure_put_format(f->out, "%c%.1f %.1f", down ? 'L' : 'M', x_of(f, line->x[i]),
                            y_of(f, line->y[i]));
        if (shows) last = y_of(f, line->y[i]);
        down = shows;
    }
    dure_put_format(f->out, "\"/>\n");
    return last;
}

/* Names beside the lines' ends; a name that would cover the one before moves away from it. */
static void put_lines(const frame *f)
{
    double before = -INFINITY;
    for (size_t k = 0; k < f->plot->n_lines; k++) {
        double y = fmax(put_line(f, k), TOP);
        if (y > BOTTOM) continue;
        if (fabs(y - before) < LABEL_APART) y = before + (y < before ? -LABEL_APART : LABEL_APART);
        before = y;
        dure_put_format(f->out, "<text class=\"name\" x=\"%d\" y=\"%.1f\">%s</text>\n", RIGHT + 8,
                        y + 4, f->plot->lines[k].name);
    }
}

static void put_mark(const frame *f)
{
    const dure_plot *p = f->plot;
    if (!p->marked) return;
    double x = x_of(f, p->mark_x), y = y_of(f, p->mark_y);
    bool left = x > (LEFT + RIGHT) / 2.0;
    dure_put_format(f->out,
                    "<line class=\"drop\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%d\"/>"
                    "<circle class=\"mark\" cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\"/>"
                    "<text class=\"said\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n",
                    x, x, y, BOTTOM, x, y, left ? x - 10 : x + 10, y - 9, left ? "end" : "start",
                    p->mark);
}

void dure_plot_put(dure_buf *out, const dure_plot *plot)
{
    frame f = {.out = out, .plot = plot};
    if (!measure(&f)) return;
    dure_put_format(out,
                    "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">"
                    "<clipPath id=\"area\"><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>"
                    "</clipPath>\n",
                    WIDTH, HEIGHT, plot->label, LEFT, TOP - 2, RIGHT - LEFT, BOTTOM - TOP + 4);
    dure_chart_put_y_axis(out, &area, f.y_high, plot->y_name);
    put_x_axis(&f);
    put_lines(&f);
    put_mark(&f);
    dure_put_format(out, "</svg>\n");
}
