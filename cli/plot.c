#include "cli/plot.h"

#include <math.h>

enum { WIDTH = 720, HEIGHT = 300, LEFT = 64, RIGHT = 600, TOP = 16, BOTTOM = 246, TICKS = 6 };
enum { LABEL_APART = 15 };

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
    return BOTTOM - y / f->y_high * (BOTTOM - TOP);
}

/* The smallest of 1, 2, 2.5, 5 times a power of ten that is at least x. */
static double round_step(double x)
{
    static const double steps[] = {1, 2, 2.5, 5, 10};
    double power = pow(10, floor(log10(x)));
    size_t i = 0;
    while (i < 4 && steps[i] * power < x * (1 - 1e-9))
        i++;
    return steps[i] * power;
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
    double step = round_step(f->y_high * 1.05 / (TICKS - 1));
    f->y_high = step * ceil(f->y_high * 1.05 / step);
    return true;
}

static void put_y_axis(const frame *f)
{
    double step = round_step(f->y_high / (TICKS - 1) * 0.999);
    for (int i = 0; i * step <= f->y_high * (1 + 1e-9); i++) {
        double y = y_of(f, i * step);
        dure_put_format(f->out,
                        "<line class=\"%s\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                        "<text class=\"tick\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
                        i == 0 ? "axis" : "grid", LEFT, RIGHT, y, y, LEFT - 8, y + 4, i * step);
    }
    dure_put_format(f->out,
                    "<text class=\"tick\" transform=\"translate(15 %d) rotate(-90)\" "
                    "text-anchor=\"middle\">%s</text>\n",
                    (TOP + BOTTOM) / 2, f->plot->y_name);
}

static void put_x_tick(const frame *f, double x)
{
    double at = x_of(f, x);
    dure_put_format(f->out,
                    "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>"
                    "<text class=\"tick\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.5g</text>\n",
                    at, at, BOTTOM, BOTTOM + 5, at, BOTTOM + 19, x);
}

static void put_x_axis(const frame *f)
{
    const dure_plot_line *first = &f->plot->lines[0];
    if (f->plot->x_log) {
        for (size_t i = 0; i < first->n; i++)
            put_x_tick(f, first->x[i]);
    } else {
        double step = round_step((f->x_high - f->x_low) / TICKS);
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
    put_y_axis(&f);
    put_x_axis(&f);
    put_lines(&f);
    put_mark(&f);
    dure_put_format(out, "</svg>\n");
}
