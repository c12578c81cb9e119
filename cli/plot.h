/* A line chart as SVG, for pages that have the classes of dure_plot_style. Pure text: no script,
 * no outside file. */
#pragma once

#include "common/buf.h"

#include <stdbool.h>
#include <stddef.h>

enum { DURE_PLOT_POINTS_MAX = 64, DURE_PLOT_LINES_MAX = 4 };

typedef struct dure_plot_line {
    const char *name; /* beside its right end */
    size_t n;
    double x[DURE_PLOT_POINTS_MAX], y[DURE_PLOT_POINTS_MAX]; /* x rises; y not finite: a gap */
} dure_plot_line;

typedef struct dure_plot {
    const char *label; /* for readers of the page's text */
    const char *x_name, *y_name;
    bool x_log; /* every x > 0; ticks at the points of the first line */
    dure_plot_line lines[DURE_PLOT_LINES_MAX];
    size_t n_lines;
    double y_most; /* the axis ends here at most; 0: at the largest y */
    bool marked;   /* a point with its text */
    double mark_x, mark_y;
    char mark[64];
} dure_plot;

/* CSS of charts, in the colours --c0 to --c3, --ink, --soft and --rule of the page. */
extern const char dure_plot_style[];

/* Appends <svg>...</svg>. Texts are ours: they are not escaped. */
void dure_plot_put(dure_buf *out, const dure_plot *plot);
