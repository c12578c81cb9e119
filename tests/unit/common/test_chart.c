#include "common/chart.h"
#include "support/check.h"

#include <math.h>
#include <string.h>

static void test_chart_steps_are_round_and_large_enough(void **state)
{
    (void)state;
    static const struct {
        double x, step;
    } rows[] = {{1, 1},       {1.01, 2}, {2.2, 2.5}, {2.51, 5},   {5.5, 10},
                {0.03, 0.05}, {99, 100}, {250, 250}, {1e-6, 1e-6}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_true(fabs(dure_chart_round_step(rows[i].x) / rows[i].step - 1) < 1e-12);
}

/* Whatever is drawn lies under the axis' end, and not far under it. */
static void test_chart_axis_ends_above_what_is_drawn(void **state)
{
    (void)state;
    for (double most = 1e-4; most < 1e6; most *= 1.37) {
        const double end = dure_chart_axis_end(most, 1.05);
        assert_true(end >= most * 1.05 * (1 - 1e-9) && end <= 2 * most * 1.05);
    }
}

/* The figures of the axis are those of its rules, from 0 at the bottom to the end at the top. */
static void test_chart_axis_goes_from_the_bottom_to_the_top(void **state)
{
    (void)state;
    static const dure_chart_area area = {50, 500, 20, 220};
    dure_buf out;
    dure_buf_init(&out, 8192);
    dure_chart_put_y_axis(&out, &area, 10, "loss");
    dure_chart_put_x_tick(&out, &area, 123.4, "7");
    dure_put_u8(&out, 0);
    assert_ok(dure_buf_err(&out));
    const char *text = (const char *)out.data;
    assert_non_null(strstr(text, "class=\"axis\" x1=\"50\" x2=\"500\" y1=\"220.0\""));
    assert_non_null(strstr(text, "class=\"grid\" x1=\"50\" x2=\"500\" y1=\"20.0\""));
    assert_non_null(strstr(text, "y=\"224.0\" text-anchor=\"end\">0</text>"));
    assert_non_null(strstr(text, "y=\"24.0\" text-anchor=\"end\">10</text>"));
    assert_non_null(strstr(text, ">loss</text>"));
    assert_non_null(strstr(text, "x=\"123.4\" y=\"240\" text-anchor=\"middle\">7</text>"));
    assert_true(dure_chart_y(&area, 10, 5) == 120);
    dure_buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chart_steps_are_round_and_large_enough),
        cmocka_unit_test(test_chart_axis_ends_above_what_is_drawn),
        cmocka_unit_test(test_chart_axis_goes_from_the_bottom_to_the_top),
    };
    return cmocka_run_group_tests_name("common.chart", tests, NULL, NULL);
}
