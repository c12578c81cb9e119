#include "serve/catalog.h"

#include "support/check.h"

#include <pthread.h>
#include <string.h>

static dure_lora *small_lora(void)
{
    const dure_lora_layout layout = {.shape = {.architecture = "llama",
                                               .n_layers = 1,
                                               .n_embd = 8,
                                               .n_ff = 8,
                                               .n_head = 2,
                                               .n_head_kv = 1,
                                               .head_dim = 4,
                                               .n_vocab = 16,
                                               .n_context = 32},
                                     .rank = 1,
                                     .alpha = 1,
                                     .targets = 1};
    dure_lora *lora;
    assert_ok(dure_lora_new(&lora, &layout));
    return lora;
}

static dure_offer *offer(const char *name, uint64_t version)
{
    dure_offer *o;
    assert_ok(dure_offer_new(&o, name, small_lora(), NULL));
    o->version = version;
    return o;
}

static dure_catalog *make(void)
{
    dure_catalog *catalog;
    assert_ok(dure_catalog_new(&catalog, "base", 100, NULL));
    return catalog;
}

static void test_catalog_offers_base_and_adapters_by_name(void **state)
{
    (void)state;
    dure_catalog *catalog = make();
    assert_ok(dure_catalog_put(catalog, offer("clinic", 3), NULL));
    dure_offer *base = dure_catalog_acquire(catalog, "base");
    dure_offer *clinic = dure_catalog_acquire(catalog, "clinic");
    assert_null(base->lora);
    assert_non_null(clinic->lora);
    assert_null(dure_catalog_acquire(catalog, "Clinic"));
    dure_offer_release(&base);
    dure_offer_release(&clinic);
    dure_catalog_free(&catalog);
    assert_null(catalog);
}

static void test_catalog_a_request_keeps_what_it_started_with(void **state)
{
    (void)state;
    dure_catalog *catalog = make();
    assert_ok(dure_catalog_put(catalog, offer("a", 1), NULL));
    dure_offer *held = dure_catalog_acquire(catalog, "a");
    assert_ok(dure_catalog_put(catalog, offer("a", 2), NULL));
    dure_offer *now = dure_catalog_acquire(catalog, "a");
    assert_int_equal(held->version, 1);
    assert_int_equal(now->version, 2);
    held->lora->params[0] = 1; /* still there */
    assert_true(dure_catalog_remove(catalog, "a"));
    assert_false(dure_catalog_remove(catalog, "a"));
    assert_null(dure_catalog_acquire(catalog, "a"));
    dure_catalog_free(&catalog);
    now->lora->params[0] = 1;
    dure_offer_release(&held);
    dure_offer_release(&now);
}

static void test_catalog_refuses_names(void **state)
{
    (void)state;
    dure_catalog *catalog = make();
    dure_diag diag = {0};
    dure_offer *o;
    static const char *const wrong[] = {"", "a b", "a\"b", "a\nb", "이름"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_err(dure_offer_new(&o, wrong[i], small_lora(), &diag), DURE_ERR_USAGE);
        assert_null(o);
    }
    assert_err(dure_catalog_put(catalog, offer("base", 1), &diag), DURE_ERR_EXISTS);
    assert_false(dure_catalog_remove(catalog, "base"));
    assert_false(dure_catalog_remove(catalog, "absent"));
    dure_catalog_free(&catalog);
}

static void test_catalog_has_room_for_a_limit(void **state)
{
    (void)state;
    dure_catalog *catalog = make();
    char name[16];
    for (int i = 1; i < DURE_CATALOG_MAX; i++) {
        snprintf(name, sizeof name, "a%d", i);
        assert_ok(dure_catalog_put(catalog, offer(name, 1), NULL));
    }
    assert_err(dure_catalog_put(catalog, offer("more", 1), NULL), DURE_ERR_LIMIT);
    assert_ok(dure_catalog_put(catalog, offer("a7", 2), NULL));
    dure_catalog_free(&catalog);
}

static void test_catalog_lists_parent_and_root(void **state)
{
    (void)state;
    dure_catalog *catalog = make();
    dure_offer *o = offer("clinic", 3);
    snprintf(o->digest, sizeof o->digest, "abcd");
    assert_ok(dure_catalog_put(catalog, o, NULL));
    json_t *list = dure_catalog_json(catalog);
    const json_t *data = json_object_get(list, "data");
    const json_t *base = json_array_get(data, 0), *clinic = json_array_get(data, 1);
    assert_int_equal(json_array_size(data), 2);
    assert_string_equal(json_string_value(json_object_get(base, "id")), "base");
    assert_true(json_is_null(json_object_get(base, "parent")));
    assert_string_equal(json_string_value(json_object_get(clinic, "parent")), "base");
    assert_string_equal(json_string_value(json_object_get(clinic, "root")), "sha256:abcd");
    assert_int_equal(json_integer_value(json_object_get(clinic, "version")), 3);
    json_decref(list);
    json_t *one = dure_catalog_model_json(catalog, "clinic");
    assert_string_equal(json_string_value(json_object_get(one, "object")), "model");
    json_decref(one);
    assert_null(dure_catalog_model_json(catalog, "absent"));
    dure_catalog_free(&catalog);
}

/* Readers hold adapters while they are replaced; a sanitizer sees one that goes too early. */
static void *acquire_often(void *arg)
{
    for (int i = 0; i < 2000; i++) {
        dure_offer *o = dure_catalog_acquire(arg, "a");
        if (!o || o->lora->params[0] != (float)o->version) return arg;
        dure_offer_release(&o);
    }
    return NULL;
}

static void test_catalog_swaps_under_readers(void **state)
{
    (void)state;
    dure_catalog *catalog = make();
    pthread_t readers[3];
    void *failed;
    for (int i = 0; i < 1000; i++) {
        dure_offer *o = offer("a", (uint64_t)i);
        o->lora->params[0] = (float)i;
        assert_ok(dure_catalog_put(catalog, o, NULL));
        for (int r = 0; i == 0 && r < 3; r++)
            assert_int_equal(pthread_create(&readers[r], NULL, acquire_often, catalog), 0);
    }
    for (int r = 0; r < 3; r++) {
        pthread_join(readers[r], &failed);
        assert_null(failed);
    }
    dure_catalog_free(&catalog);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_catalog_offers_base_and_adapters_by_name),
        cmocka_unit_test(test_catalog_a_request_keeps_what_it_started_with),
        cmocka_unit_test(test_catalog_refuses_names),
        cmocka_unit_test(test_catalog_has_room_for_a_limit),
        cmocka_unit_test(test_catalog_lists_parent_and_root),
        cmocka_unit_test(test_catalog_swaps_under_readers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
