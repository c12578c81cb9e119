#include "serve/metrics.h"

#include "support/check.h"

#include <string.h>

static dure_catalog *one_adapter(void)
{
    dure_catalog *catalog;
    dure_offer *o;
    assert_ok(dure_catalog_new(&catalog, "base", 0, NULL));
    assert_ok(dure_offer_new(&o, "clinic", NULL, NULL));
    o->version = 7;
    assert_ok(dure_catalog_put(catalog, o, NULL));
    return catalog;
}

static char *text_of(dure_buf *out, dure_metrics *m)
{
    const dure_gauges gauges = {
        .queued = 2, .queue_capacity = 64, .slots = 4, .slots_busy = 3, .kv_used_ratio = 0.25};
    dure_catalog *catalog = one_adapter();
    dure_buf_init(out, 1 << 20);
    dure_metrics_put(out, m, &gauges, catalog);
    dure_put_u8(out, 0);
    assert_ok(dure_buf_err(out));
    dure_catalog_free(&catalog);
    return (char *)out->data;
}

static void test_metrics_counts_and_gauges(void **state)
{
    (void)state;
    dure_metrics *m;
    dure_buf out;
    assert_ok(dure_metrics_new(&m));
    dure_metrics_end(m, DURE_END_STOP, 10, 5);
    dure_metrics_end(m, DURE_END_LENGTH, 1, 2);
    dure_metrics_status(m, 200);
    dure_metrics_status(m, 404);
    dure_metrics_status(m, 100000); /* of no use, and of no harm */
    const char *text = text_of(&out, m);
    static const char *const lines[] = {
        "\ndure_serve_prompt_tokens_total 11\n",
        "\ndure_serve_generated_tokens_total 7\n",
        "\ndure_serve_answers_total{end=\"stop\"} 1\n",
        "\ndure_serve_http_requests_total{code=\"404\"} 1\n",
        "\ndure_serve_queue_requests 2\n",
        "\ndure_serve_slots_busy 3\n",
        "\ndure_serve_kv_used_ratio 0.25\n",
        "\ndure_adapter_active_info{adapter=\"clinic\",version=\"7\",digest=\"\"} 1\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        assert_non_null(strstr(text, lines[i]));
    dure_buf_fini(&out);
    dure_metrics_free(&m);
    assert_null(m);
}

static void test_metrics_histograms_are_cumulative(void **state)
{
    (void)state;
    dure_metrics *m;
    dure_buf out;
    assert_ok(dure_metrics_new(&m));
    dure_metrics_time(m, DURE_TIMING_TOKEN, 0.001);
    dure_metrics_time(m, DURE_TIMING_TOKEN, 0.02);
    dure_metrics_time(m, DURE_TIMING_TOKEN, 1000);
    const char *text = text_of(&out, m);
    static const char *const lines[] = {
        "# TYPE dure_serve_itl_seconds histogram\n",
        "\ndure_serve_itl_seconds_bucket{le=\"0.001\"} 1\n",
        "\ndure_serve_itl_seconds_bucket{le=\"0.01\"} 1\n",
        "\ndure_serve_itl_seconds_bucket{le=\"0.025\"} 2\n",
        "\ndure_serve_itl_seconds_bucket{le=\"300\"} 2\n",
        "\ndure_serve_itl_seconds_bucket{le=\"+Inf\"} 3\n",
        "\ndure_serve_itl_seconds_count 3\n",
        "\ndure_serve_itl_seconds_sum 1000.021\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        assert_non_null(strstr(text, lines[i]));
    dure_buf_fini(&out);
    dure_metrics_free(&m);
}

/* Each family has its HELP and TYPE once, directly before its samples. */
static void test_metrics_text_is_well_formed(void **state)
{
    (void)state;
    dure_metrics *m;
    dure_buf out;
    assert_ok(dure_metrics_new(&m));
    char *text = text_of(&out, m), *save = NULL, family[128] = "";
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char name[128];
        if (!strncmp(line, "# HELP ", 7)) {
            assert_int_equal(sscanf(line, "# HELP %127s", family), 1);
        } else if (!strncmp(line, "# TYPE ", 7)) {
            assert_int_equal(sscanf(line, "# TYPE %127s", name), 1);
            assert_string_equal(name, family);
        } else {
            assert_int_equal(strncmp(line, family, strlen(family)), 0);
            assert_non_null(strchr(line, ' '));
        }
    }
    dure_buf_fini(&out);
    dure_metrics_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics_counts_and_gauges),
        cmocka_unit_test(test_metrics_histograms_are_cumulative),
        cmocka_unit_test(test_metrics_text_is_well_formed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
