/* The same records in every format that data files have. */
#include "dataset_desk.h"
#include "support/check.h"
#include "support/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static dure_err parse(dure_dataset *out, dataset_desk *f, const char *name, const char *text,
                      bool tolerant)
{
    const dure_dataset_opts opts = {.max_length = 400, .tolerant = tolerant};
    f->diag.text[0] = 0;
    return dure_dataset_parse(out, dure_span_of_text(text), name, f->t, &f->chat, &opts, &f->diag);
}

static dure_dataset parsed(dataset_desk *f, const char *name, const char *text)
{
    dure_dataset out;
    if (parse(&out, f, name, text, false)) fail_msg("%s: %s", name, f->diag.text);
    return out;
}

/* The record's text, or only what is learned of it. */
static void text_of(char text[1024], const dataset_desk *f, const dure_dataset *data, size_t i,
                    bool learned)
{
    dure_document doc = dure_dataset_document(data, i);
    size_t at = 0;
    for (size_t k = 0; k < doc.n; k++) {
        if (learned && !doc.supervised[k]) continue;
        dure_span piece = dure_tokenizer_piece(f->t, doc.tokens[k]);
        at +=
            (size_t)snprintf(text + at, 1024 - at, "%.*s", (int)piece.n, (const char *)piece.data);
    }
    text[at] = 0;
}

/* Another format must give the tokens, the mask and the records of this JSONL. */
static void check_same(dataset_desk *f, const char *name, const char *text, const char *jsonl)
{
    dure_dataset a = parsed(f, name, text), b = parsed(f, "a.jsonl", jsonl);
    assert_int_equal(a.n, b.n);
    assert_int_equal(a.tokens.n, b.tokens.n);
    assert_memory_equal(a.tokens.ids, b.tokens.ids, a.tokens.n * sizeof *a.tokens.ids);
    assert_memory_equal(a.tokens.supervised, b.tokens.supervised, a.tokens.n);
    dure_dataset_fini(&a);
    dure_dataset_fini(&b);
}

static const char two_pairs[] = "{\"prompt\":\"say, \\\"hi\\\"\",\"response\":\"hi\\nho\"}\n"
                                "{\"prompt\":\"and\",\"response\":\"so\"}\n";

static void test_dataset_csv_is_what_the_same_json_is(void **state)
{
    check_same(*state, "a.csv", "prompt,response\n\"say, \"\"hi\"\"\",\"hi\nho\"\nand,so\n",
               two_pairs);
    check_same(*state, "a.tsv",
               "id\tresponse\tprompt\n1\t\"hi\nho\"\t\"say, \"\"hi\"\"\"\n2\tso\tand\n", two_pairs);
    check_same(*state, "a.csv", "instruction,input,output\nadd,1 2,3\nstop,,ok\n",
               "{\"instruction\":\"add\",\"input\":\"1 2\",\"output\":\"3\"}\n"
               "{\"instruction\":\"stop\",\"output\":\"ok\"}\n");
    check_same(*state, "a.csv", "text\nonce upon\n", "{\"text\":\"once upon\"}\n");
}

static void test_dataset_json_array_is_what_its_lines_are(void **state)
{
    dataset_desk *f = *state;
    check_same(f, "a.json",
               " [ {\"prompt\":\"say, \\\"hi\\\"\",\n\"response\":\"hi\\nho\"} ,\n\n"
               "{\"prompt\":\"and\",\"response\":\"so\"}]\n",
               two_pairs);
    check_same(f, "a.json", two_pairs, two_pairs);
    dure_dataset data = parsed(f, "a.json", "[\n{\"text\":\n\"ab\"},\n\n{\"text\":\"cd\"}\n]");
    assert_int_equal(data.records[0].line, 2);
    assert_int_equal(data.records[1].line, 5);
    dure_dataset_fini(&data);
}

/* In a JSONL file a line that begins like an array is one bad record, not the end of the run. */
static void test_dataset_jsonl_never_becomes_an_array(void **state)
{
    dataset_desk *f = *state;
    dure_dataset data;
    assert_ok(parse(&data, f, "a.jsonl", "[1,\n{\"prompt\":\"a\",\"response\":\"b\"}\n", true));
    assert_int_equal(data.n, 2);
    assert_int_equal(data.n_unusable, 1);
    dure_dataset_fini(&data);
}

static void test_dataset_instruction_and_input_are_one_question(void **state)
{
    dataset_desk *f = *state;
    char text[1024];
    dure_dataset data = parsed(
        f, "a.jsonl",
        "{\"instruction\":\"add\",\"input\":\"1 2\",\"output\":\"3\",\"text\":\"ignored\"}\n");
    text_of(text, f, &data, 0, false);
    assert_non_null(strstr(text, "<|im_start|>user\nadd\n\n1 2<|im_end|>\n"));
    text_of(text, f, &data, 0, true);
    assert_string_equal(text, "3<|im_end|>");
    dure_dataset_fini(&data);
}

static void test_dataset_system_message_of_a_pair_replaces_the_default(void **state)
{
    dataset_desk *f = *state;
    char text[1024];
    dure_dataset data =
        parsed(f, "a.jsonl", "{\"system\":\"Be brief.\",\"prompt\":\"hi\",\"response\":\"ho\"}\n");
    text_of(text, f, &data, 0, false);
    assert_string_equal(text, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi"
                              "<|im_end|>\n<|im_start|>assistant\nho<|im_end|>\n");
    dure_dataset_fini(&data);
}

/* A special token inside a text stays text; the one that ends it is added. */
static void test_dataset_text_is_learned_to_its_end(void **state)
{
    dataset_desk *f = *state;
    char text[1024];
    dure_dataset data = parsed(f, "a.jsonl", "{\"text\":\"xyz<|im_end|>\"}\n");
    text_of(text, f, &data, 0, true);
    assert_string_equal(text, "yz<|im_end|><|endoftext|>");
    dure_document doc = dure_dataset_document(&data, 0);
    assert_int_equal(doc.tokens[doc.n - 1], TINY_ENDOFTEXT);
    for (size_t i = 0; i + 1 < doc.n; i++)
        assert_true(doc.tokens[i] > TINY_IM_END);
    assert_int_equal(doc.supervised[0], 0);
    dure_dataset_fini(&data);
}

static void test_dataset_plain_text_is_cut_into_pieces(void **state)
{
    dataset_desk *f = *state;
    const dure_dataset_opts opts = {.max_length = 8};
    static const char text[] = "0123456\n89\nbcdefgh";
    dure_dataset data;
    char piece[1024];
    assert_ok(dure_dataset_parse(&data, dure_span_of_text(text), "a.txt", f->t, &f->chat, &opts,
                                 &f->diag));
    assert_int_equal(data.n, 3);
    text_of(piece, f, &data, 0, false);
    assert_string_equal(piece, "0123456\n");
    assert_int_equal(data.records[0].n_labels, 7);
    text_of(piece, f, &data, 2, false);
    assert_string_equal(piece, "gh<|endoftext|>");
    assert_int_equal(data.records[1].line, 2);
    assert_int_equal(data.records[2].line, 3);
    dure_dataset_fini(&data);
}

static void test_dataset_plain_text_has_no_records_to_protect(void **state)
{
    dataset_desk *f = *state;
    const dure_dataset_opts opts = {.max_length = 8, .tolerant = true, .private_records = true};
    dure_dataset data;
    assert_err(dure_dataset_parse(&data, dure_span_of_text("abc"), "a.md", f->t, &f->chat, &opts,
                                  &f->diag),
               DURE_ERR_USAGE);
    assert_non_null(strstr(f->diag.text, "record of its own"));
}

static void test_dataset_names_what_is_wrong_in_a_table_or_an_array(void **state)
{
    dataset_desk *f = *state;
    static const struct {
        const char *name, *text, *sentence;
    } bad[] = {
        {"a.csv", "prompt,answer\na,b\n", "the first row names the columns"},
        {"a.csv", "prompt,response,\na,b,c\n", "the name of column 3 is empty"},
        {"a.csv", "text,text\na,b\n", "column 2 has the name of an earlier one"},
        {"a.csv", "prompt,response\na,b\nc\n", "line 3: the row has 1 fields, and the header 2"},
        {"a.csv", "text\n\xff\xfe\n", "line 2: column 'text' is not UTF-8"},
        {"a.csv", "text\nfine\n\"open\n", "line 3: a quote is never closed"},
        {"a.csv", "text\n", "holds no record"},
        {"a.csv", "", "holds no record"},
        {"a.json", "[{\"text\":\"ab\"}", "does not end"},
        {"a.json", "[{\"text\":\"ab\"}\n{\"text\":\"ab\"}]", "line 2: the array needs a comma"},
        {"a.json", "[{\"text\":\"ab\"},\n]", "line 2: the array's element cannot be read"},
        {"a.json", "[{\"text\":\"ab\"},\nfoo]", "line 2: the array's element cannot be read"},
        {"a.json", "[{\"text\":\"ab\"}] more", "something follows it"},
        {"a.json", "[\n{\"text\":\"\"}]", "line 2: \"text\" is empty"},
        {"a.json", "[]", "holds no record"},
        {"a.txt", "", "holds no record"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        dure_dataset data;
        if (parse(&data, f, bad[i].name, bad[i].text, false) != DURE_ERR_FORMAT)
            fail_msg("%s is accepted", bad[i].text);
        if (!strstr(f->diag.text, bad[i].sentence) || !strstr(f->diag.text, bad[i].name))
            fail_msg("%s: %s", bad[i].text, f->diag.text);
    }
}

/* A bad row empties its record; a file that is no table at all is still refused. */
static void test_dataset_tolerant_table_keeps_its_rows(void **state)
{
    dataset_desk *f = *state;
    dure_dataset data;
    assert_ok(parse(&data, f, "a.csv", "prompt,response\na,b\nc\nd,e,f\ng,h\n", true));
    assert_int_equal(data.n, 4);
    assert_int_equal(data.n_unusable, 2);
    assert_int_equal(data.records[3].line, 5);
    dure_dataset_fini(&data);
    assert_err(parse(&data, f, "a.csv", "prompt,response\na,b\n\"c", true), DURE_ERR_FORMAT);
}

static void test_dataset_format_can_be_named(void **state)
{
    dataset_desk *f = *state;
    dure_dataset_format format = DURE_DATASET_AUTO;
    assert_ok(dure_dataset_format_parse(&format, "csv", NULL));
    const dure_dataset_opts opts = {.max_length = 100, .format = format};
    dure_dataset data;
    assert_ok(dure_dataset_parse(&data, dure_span_of_text("text\nab\n"), "a.txt", f->t, &f->chat,
                                 &opts, &f->diag));
    assert_int_equal(data.n, 1);
    dure_dataset_fini(&data);
    assert_err(dure_dataset_format_parse(&format, "xml", &f->diag), DURE_ERR_USAGE);
    assert_non_null(strstr(f->diag.text, "'xml'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dataset_csv_is_what_the_same_json_is),
        cmocka_unit_test(test_dataset_json_array_is_what_its_lines_are),
        cmocka_unit_test(test_dataset_jsonl_never_becomes_an_array),
        cmocka_unit_test(test_dataset_instruction_and_input_are_one_question),
        cmocka_unit_test(test_dataset_system_message_of_a_pair_replaces_the_default),
        cmocka_unit_test(test_dataset_text_is_learned_to_its_end),
        cmocka_unit_test(test_dataset_plain_text_is_cut_into_pieces),
        cmocka_unit_test(test_dataset_plain_text_has_no_records_to_protect),
        cmocka_unit_test(test_dataset_names_what_is_wrong_in_a_table_or_an_array),
        cmocka_unit_test(test_dataset_tolerant_table_keeps_its_rows),
        cmocka_unit_test(test_dataset_format_can_be_named),
    };
    return cmocka_run_group_tests(tests, dataset_desk_set_up, dataset_desk_tear_down);
}
