#include "serve/answer.h"

#include "support/check.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static dure_tokenizer *tokenizer;

static int make_tokenizer(void **state)
{
    (void)state;
    temp_dir dir;
    dure_gguf *gguf;
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "tiny.gguf");
    tiny_model_write(path, &(tiny_model_opts){.seed = 1});
    assert_ok(dure_gguf_open(&gguf, path, NULL, NULL));
    assert_ok(dure_tokenizer_new(&tokenizer, gguf, NULL));
    dure_gguf_close(&gguf);
    temp_dir_remove(&dir);
    return 0;
}

static int free_tokenizer(void **state)
{
    (void)state;
    dure_tokenizer_free(&tokenizer);
    return 0;
}

static const dure_answer_head chat = {
    .id = "chatcmpl-1", .created_s = 7, .model = "m", .chat = true};
static const dure_answer_head text = {.id = "cmpl-1", .created_s = 7, .model = "m"};

/* `value` must print as `expected`; takes it. */
static void expect(json_t *value, const char *expected)
{
    char *printed = json_dumps(value, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    assert_non_null(printed);
    assert_string_equal(printed, expected);
    free(printed);
    json_decref(value);
}

static int32_t byte_token(uint8_t byte)
{
    return TINY_BYTES + byte;
}

static void test_answer_whole_chat(void **state)
{
    (void)state;
    const dure_choice choice = {.text = dure_span_of_text("두레"), .finish = "stop"};
    json_t *choices = json_array();
    json_array_append_new(choices, dure_answer_choice(&chat, &choice));
    expect(dure_answer_whole(&chat, choices, (dure_usage){3, 2}),
           "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":7,\"model\":\"m\","
           "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"두레\"},"
           "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,"
           "\"completion_tokens\":2,\"total_tokens\":5}}");
}

static void test_answer_chunks_of_a_chat(void **state)
{
    (void)state;
    const dure_choice part = {.text = dure_span_of_text("a")}, last = {.finish = "length"};
    expect(dure_answer_opening(&chat, 0),
           "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":"
           "\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
           "\"logprobs\":null,\"finish_reason\":null}]}");
    expect(dure_answer_chunk(&chat, &part),
           "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":"
           "\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":null,"
           "\"finish_reason\":null}]}");
    dure_answer_head with_usage = chat;
    with_usage.usage_in_chunks = true;
    expect(dure_answer_chunk(&with_usage, &last),
           "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":"
           "\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":"
           "\"length\"}],\"usage\":null}");
}

static void test_answer_chunk_of_a_completion_and_event(void **state)
{
    (void)state;
    const dure_choice part = {.index = 2, .text = dure_span_of_text("a\n")};
    dure_buf out;
    dure_buf_init(&out, 4096);
    dure_answer_put_event(&out, dure_answer_chunk(&text, &part));
    dure_put_u8(&out, 0);
    assert_ok(dure_buf_err(&out));
    assert_string_equal((char *)out.data,
                        "data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":7,"
                        "\"model\":\"m\",\"choices\":[{\"index\":2,\"text\":\"a\\n\",\"logprobs\":"
                        "null,\"finish_reason\":null}]}\n\n");
    dure_buf_fini(&out);
}

static void test_answer_event_without_memory_is_an_error_of_the_buffer(void **state)
{
    (void)state;
    dure_buf out;
    dure_buf_init(&out, 4096);
    dure_answer_put_event(&out, NULL);
    assert_err(dure_buf_err(&out), DURE_ERR_NOMEM);
    dure_buf_fini(&out);
}

static void test_answer_logprobs_of_a_completion(void **state)
{
    (void)state;
    dure_logprobs l;
    assert_ok(dure_logprobs_init(&l, tokenizer, false));
    dure_token_event first = {.chosen = {byte_token('a'), 0}, .of_prompt = true};
    /* the chosen one is not among the likeliest, and half a character is written in hex */
    dure_token_event second = {.chosen = {byte_token(0xeb), -2.5f},
                               .has_logprob = true,
                               .n_top = 1,
                               .top = {{byte_token('b'), -0.5f}}};
    dure_token_event third = {
        .chosen = {byte_token('c'), -INFINITY}, .has_logprob = true, .n_top = 0};
    assert_ok(dure_logprobs_add(&l, &first));
    assert_ok(dure_logprobs_add(&l, &second));
    assert_ok(dure_logprobs_add(&l, &third));
    expect(dure_logprobs_take(&l),
           "{\"tokens\":[\"a\",\"bytes:\\\\xeb\",\"c\"],\"token_logprobs\":[null,-2.5,-9999.0],"
           "\"top_logprobs\":[null,{\"b\":-0.5,\"bytes:\\\\xeb\":-2.5},{\"c\":-9999.0}],"
           "\"text_offset\":[0,1,2]}");
    assert_ok(dure_logprobs_add(&l, &first)); /* empty again, offsets go on */
    expect(dure_logprobs_take(&l), "{\"tokens\":[\"a\"],\"token_logprobs\":[null],"
                                   "\"top_logprobs\":[null],\"text_offset\":[3]}");
    dure_logprobs_fini(&l);
}

static void test_answer_logprobs_of_a_chat(void **state)
{
    (void)state;
    dure_logprobs l;
    assert_ok(dure_logprobs_init(&l, tokenizer, true));
    dure_token_event event = {.chosen = {byte_token('a'), -1},
                              .has_logprob = true,
                              .n_top = 1,
                              .top = {{byte_token('b'), -0.5f}}};
    assert_ok(dure_logprobs_add(&l, &event));
    expect(dure_logprobs_take(&l),
           "{\"content\":[{\"token\":\"a\",\"logprob\":-1.0,\"bytes\":[97],\"top_logprobs\":[{"
           "\"token\":\"b\",\"logprob\":-0.5,\"bytes\":[98]}]}]}");
    dure_logprobs_fini(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer_whole_chat),
        cmocka_unit_test(test_answer_chunks_of_a_chat),
        cmocka_unit_test(test_answer_chunk_of_a_completion_and_event),
        cmocka_unit_test(test_answer_event_without_memory_is_an_error_of_the_buffer),
        cmocka_unit_test(test_answer_logprobs_of_a_completion),
        cmocka_unit_test(test_answer_logprobs_of_a_chat),
    };
    return cmocka_run_group_tests(tests, make_tokenizer, free_tokenizer);
}
