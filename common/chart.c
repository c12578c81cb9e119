#include "common/chart.h"

#include <math.h>
#include <stddef.h>

enum { FIGURES_MAX = 6 };

double dure_chart_round_step(double x)
{
    static const double steps[] = {1, 2, 2.5, 5, 10};
    const double power = pow(10, floor(log10(x)));
    size_t i = 0;
    while (i < 4 && steps[i] * power < x * (1 - 1e-9))
        i++;
    return steps[i] * power;
}

double dure_chart_axis_end(double most, double room)
{
    const double step = dure_chart_round_step(most * room / (FIGURES_MAX - 1));
    return step * ceil(most * room / step);
}

double dure_chart_y(const dure_chart_area *area, double end, double y)
{
    return area->bottom - y / end * (area->bottom - area->top);
}

void dure_chart_put_y_axis(dure_buf *out, const dure_chart_area *area, double end, const char *name)
{
    const double step = dure_chart_round_step(end / (FIGURES_MAX - 1) * 0.999);
    for (int i = 0; i * step <= end * (1 + 1e-9); i++) {
        const double y = dure_chart_y(area, end, i * step);
        dure_put_format(out,
                        "<line class=\"%s\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                        "<text class=\"tick\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
                        i == 0 ? "axis" : "grid", area->left, area->right, y, y, area->left - 8,
                        y + 4, i * step);
    }
    dure_put_format(out,
                    "<text class=\"tick\" transform=\"translate(14 %d) rotate(-90)\" "
                    "text-anchor=\"middle\">%s</text>\n",
                    (area->top + area->bottom) / 2, name);
}

void dure_chart_put_x_tick(dure_buf *out, const dure_chart_area *area, double x, const char *text)
{
    dure_put_format(out,
                    "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>"
                    "<text class=\"tick\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
                    x, x, area->bottom, area->bottom + 5, x, area->bottom + 20, text);
}
