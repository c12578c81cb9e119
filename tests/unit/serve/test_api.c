#include "serve/api.h"

#include "support/check.h"

#include <string.h>

#define CHAT(rest) "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" rest "}"
#define COMPLETION(rest) "{\"model\":\"m\",\"prompt\":\"hi\"" rest "}"

static dure_err parse(dure_api_request *r, const char *body, bool chat, dure_api_error *error)
{
    *error = (dure_api_error){0};
    dure_span bytes = dure_span_of_text(body);
    return chat ? dure_api_parse_chat(r, bytes, error) : dure_api_parse_completion(r, bytes, error);
}

/* `body` must be refused with 400 and name `param`. */
static void refuse(const char *body, bool chat, const char *param)
{
    dure_api_request r;
    dure_api_error error;
    assert_err(parse(&r, body, chat, &error), DURE_ERR_USAGE);
    assert_int_equal(error.status, 400);
    assert_string_equal(error.param, param);
    assert_string_equal(error.type, "invalid_request_error");
    assert_true(error.message[0] != 0);
    dure_api_request_fini(&r);
}

static void test_api_chat_defaults(void **state)
{
    (void)state;
    dure_api_request r;
    dure_api_error error;
    assert_ok(parse(&r, CHAT(""), true, &error));
    assert_true(r.chat);
    assert_string_equal(r.model, "m");
    assert_int_equal(r.n_messages, 1);
    assert_int_equal(r.messages[0].role, DURE_ROLE_USER);
    assert_int_equal(r.messages[0].content.n, 2);
    assert_false(r.stream || r.has_max_tokens || r.has_seed || r.logprobs);
    assert_true(r.temperature == 1 && r.top_p == 1);
    dure_api_request_fini(&r);
}

static void test_api_chat_takes_every_option(void **state)
{
    (void)state;
    dure_api_request r;
    dure_api_error error;
    assert_ok(parse(&r,
                    CHAT(",\"max_tokens\":3,\"max_completion_tokens\":7,\"temperature\":0.5,"
                         "\"top_p\":0.25,\"seed\":-1,\"stop\":[\"a\",\"bc\"],\"stream\":true,"
                         "\"stream_options\":{\"include_usage\":true},\"logprobs\":true,"
                         "\"top_logprobs\":5,\"n\":1,\"user\":\"u\",\"frequency_penalty\":0,"
                         "\"tools\":[],\"response_format\":{\"type\":\"text\"},\"logit_bias\":{}"),
                    true, &error));
    assert_int_equal(r.max_tokens, 7);
    assert_true(r.temperature == 0.5 && r.top_p == 0.25);
    assert_true(r.has_seed && r.seed == UINT64_MAX);
    assert_int_equal(r.n_stops, 2);
    assert_memory_equal(r.stops[1].data, "bc", 2);
    assert_true(r.stream && r.include_usage && r.logprobs);
    assert_int_equal(r.top_logprobs, 5);
    dure_api_request_fini(&r);
}

static void test_api_chat_joins_text_parts(void **state)
{
    (void)state;
    dure_api_request r;
    dure_api_error error;
    assert_ok(parse(&r,
                    "{\"model\":\"m\",\"messages\":[{\"role\":\"developer\",\"content\":[{\"type\":"
                    "\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"bc\"}]},{\"role\":"
                    "\"assistant\",\"content\":\"d\"},{\"role\":\"user\",\"content\":[{\"type\":"
                    "\"text\",\"text\":\"e\"}]}]}",
                    true, &error));
    assert_int_equal(r.messages[0].role, DURE_ROLE_SYSTEM);
    assert_int_equal(r.messages[0].content.n, 3);
    assert_memory_equal(r.messages[0].content.data, "abc", 3);
    assert_int_equal(r.messages[1].role, DURE_ROLE_ASSISTANT);
    assert_memory_equal(r.messages[2].content.data, "e", 1);
    dure_api_request_fini(&r);
}

static void test_api_chat_refuses(void **state)
{
    (void)state;
    refuse("", true, "");
    refuse("[]", true, "");
    refuse("{\"model\":\"m\",\"model\":\"m\"}", true, "");
    refuse("{\"messages\":[]}", true, "model");
    refuse("{\"model\":3}", true, "model");
    refuse("{\"model\":\"m\"}", true, "messages");
    refuse("{\"model\":\"m\",\"messages\":[]}", true, "messages");
    refuse("{\"model\":\"m\",\"messages\":[3]}", true, "messages");
    refuse("{\"model\":\"m\",\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", true,
           "messages");
    refuse("{\"model\":\"m\",\"messages\":[{\"role\":\"user\"}]}", true, "messages");
    refuse("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
           "\"image_url\",\"text\":\"x\"}]}]}",
           true, "messages");
    refuse(CHAT(",\"top_logprobs\":2"), true, "top_logprobs");
    refuse(CHAT(",\"logprobs\":true,\"top_logprobs\":21"), true, "top_logprobs");
    refuse(CHAT(",\"max_tokens\":0"), true, "max_tokens");
    refuse(CHAT(",\"max_completion_tokens\":-1"), true, "max_completion_tokens");
}

static void test_api_refuses_wrong_values(void **state)
{
    (void)state;
    static const struct {
        const char *rest, *param;
    } cases[] = {
        {",\"n\":2", "n"},
        {",\"best_of\":3", "best_of"},
        {",\"temperature\":-0.1", "temperature"},
        {",\"temperature\":2.5", "temperature"},
        {",\"temperature\":\"hot\"", "temperature"},
        {",\"top_p\":1.5", "top_p"},
        {",\"seed\":1.5", "seed"},
        {",\"stop\":\"\"", "stop"},
        {",\"stop\":[1]", "stop"},
        {",\"stop\":{}", "stop"},
        {",\"stream\":\"yes\"", "stream"},
        {",\"stream_options\":{\"include_usage\":true}", "stream_options"},
        {",\"presence_penalty\":0.1", "presence_penalty"},
        {",\"tools\":[{}]", "tools"},
        {",\"logit_bias\":{\"1\":2}", "logit_bias"},
        {",\"suffix\":\"x\"", "suffix"},
        {",\"response_format\":{\"type\":\"json_object\"}", "response_format"},
    };
    char body[256];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(body, sizeof body, COMPLETION("%s"), cases[i].rest);
        refuse(body, false, cases[i].param);
    }
}

static void test_api_completion_prompts_in_all_forms(void **state)
{
    (void)state;
    dure_api_request r;
    dure_api_error error;
    assert_ok(
        parse(&r, COMPLETION(",\"echo\":true,\"logprobs\":0,\"max_tokens\":0"), false, &error));
    assert_int_equal(r.n_prompts, 1);
    assert_memory_equal(r.prompts[0].text.data, "hi", 2);
    assert_true(r.echo && r.logprobs && r.has_max_tokens);
    assert_int_equal(r.top_logprobs, 0);
    dure_api_request_fini(&r);
    assert_ok(parse(&r, "{\"model\":\"m\",\"prompt\":[\"a\",\"b\"]}", false, &error));
    assert_int_equal(r.n_prompts, 2);
    assert_memory_equal(r.prompts[1].text.data, "b", 1);
    dure_api_request_fini(&r);
    assert_ok(parse(&r, "{\"model\":\"m\",\"prompt\":[1,2,3],\"logprobs\":null}", false, &error));
    assert_int_equal(r.n_prompts, 1);
    assert_int_equal(json_array_size(r.prompts[0].ids), 3);
    assert_false(r.logprobs);
    dure_api_request_fini(&r);
    assert_ok(parse(&r, "{\"model\":\"m\",\"prompt\":[[1],[2,3]]}", false, &error));
    assert_int_equal(r.n_prompts, 2);
    assert_int_equal(json_array_size(r.prompts[1].ids), 2);
    dure_api_request_fini(&r);
}

static void test_api_completion_refuses_prompts(void **state)
{
    (void)state;
    refuse("{\"model\":\"m\"}", false, "prompt");
    refuse("{\"model\":\"m\",\"prompt\":null}", false, "prompt");
    refuse("{\"model\":\"m\",\"prompt\":[]}", false, "prompt");
    refuse("{\"model\":\"m\",\"prompt\":[[]]}", false, "prompt");
    refuse("{\"model\":\"m\",\"prompt\":[1,\"a\"]}", false, "prompt");
    refuse("{\"model\":\"m\",\"prompt\":[-1]}", false, "prompt");
    refuse("{\"model\":\"m\",\"prompt\":[2147483648]}", false, "prompt");
    refuse("{\"model\":\"m\",\"prompt\":[\"a\",null]}", false, "prompt");
    refuse(COMPLETION(",\"logprobs\":true"), false, "logprobs");
    refuse(COMPLETION(",\"echo\":1"), false, "echo");
}

static void test_api_error_has_the_documented_shape(void **state)
{
    (void)state;
    dure_api_error error;
    dure_api_refuse(&error, 404, "model", "no model '%s'", "x");
    json_t *value = dure_api_error_json(&error);
    char *text = json_dumps(value, JSON_COMPACT | JSON_PRESERVE_ORDER);
    assert_string_equal(text, "{\"error\":{\"message\":\"no model 'x'\",\"type\":"
                              "\"invalid_request_error\",\"param\":\"model\",\"code\":"
                              "\"model_not_found\"}}");
    free(text);
    json_decref(value);
    dure_api_refuse(&error, 400, NULL, "cut in half: \xed\x95");
    value = dure_api_error_json(&error);
    assert_non_null(value);
    assert_true(json_is_null(json_object_get(json_object_get(value, "error"), "param")));
    json_decref(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_api_chat_defaults),
        cmocka_unit_test(test_api_chat_takes_every_option),
        cmocka_unit_test(test_api_chat_joins_text_parts),
        cmocka_unit_test(test_api_chat_refuses),
        cmocka_unit_test(test_api_refuses_wrong_values),
        cmocka_unit_test(test_api_completion_prompts_in_all_forms),
        cmocka_unit_test(test_api_completion_refuses_prompts),
        cmocka_unit_test(test_api_error_has_the_documented_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
