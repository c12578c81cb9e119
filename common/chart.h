/* What the charts of our pages have in common, as SVG text: an area, an upright axis from 0 with
 * round figures, and ticks below. The page has the classes axis, grid and tick. */
#pragma once

#include "common/buf.h"

/* In the units of the picture, y downwards. */
typedef struct dure_chart_area {
    int left, right, top, bottom;
} dure_chart_area;

/* The smallest of 1, 2, 2.5, 5 times a power of ten that is at least x > 0. */
double dure_chart_round_step(double x);
/* Where the axis ends so that `most` > 0, with `room` times as much above it, is at or below: at a
 * round figure, with six figures on the axis at most. */
double dure_chart_axis_end(double most, double room);

/* The place of `y` on an axis that ends at `end`. */
double dure_chart_y(const dure_chart_area *area, double end, double y);

/* Appends the axis with its rules and figures, and its name (not escaped). */
void dure_chart_put_y_axis(dure_buf *out, const dure_chart_area *area, double end,
                           const char *name);
/* Appends a tick at `x` of the picture, with its text below (not escaped). */
void dure_chart_put_x_tick(dure_buf *out, const dure_chart_area *area, double x, const char *text);
