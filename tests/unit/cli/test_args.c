#include "cli/args.h"
#include "support/check.h"

#include <stdio.h>
#include <string.h>

typedef struct options {
    const char *operand, *text;
    uint64_t count, few;
    double number;
    bool flag, given;
} options;

static dure_args_result parse(options *o, int argc, const char *const *words)
{
    const dure_arg args[] = {
        {.name = "FILE", .kind = DURE_ARG_OPERAND, .out = &o->operand, .required = true},
        {.name = "text",
         .kind = DURE_ARG_TEXT,
         .out = &o->text,
         .value = "T",
         .given = &o->given,
         .letter = 't'},
        {.name = "count", .kind = DURE_ARG_COUNT, .out = &o->count, .value = "N"},
        {.name = "few",
         .kind = DURE_ARG_COUNT,
         .out = &o->few,
         .value = "N",
         .least = 2,
         .most = 9},
        {.name = "number", .kind = DURE_ARG_NUMBER, .out = &o->number, .value = "X"},
        {.name = "flag", .kind = DURE_ARG_FLAG, .out = &o->flag},
    };
    const dure_usage usage = {"test", "A test.", args, sizeof args / sizeof args[0], "dure test f"};
    char *argv[16];
    for (int i = 0; i < argc; i++)
        argv[i] = (char *)(uintptr_t)words[i];
    return dure_args_parse(&usage, argc, argv);
}

#define PARSE(o, ...)                                                                              \
    parse(o, (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)),                        \
          (const char *[]){__VA_ARGS__})

static void test_args_takes_every_form(void **state)
{
    (void)state;
    options o = {0};
    assert_int_equal(PARSE(&o, "test", "--count=7", "f", "-t", "x", "--number", "-2.5", "--flag"),
                     DURE_ARGS_RUN);
    assert_string_equal(o.operand, "f");
    assert_string_equal(o.text, "x");
    assert_int_equal(o.count, 7);
    assert_true(o.number == -2.5);
    assert_true(o.flag && o.given);
}

static void test_args_keeps_a_count_within_its_range(void **state)
{
    (void)state;
    options o = {0};
    assert_int_equal(PARSE(&o, "test", "f", "--few", "2"), DURE_ARGS_RUN);
    assert_int_equal(PARSE(&o, "test", "f", "--few", "9"), DURE_ARGS_RUN);
    assert_int_equal(PARSE(&o, "test", "f", "--few", "1"), DURE_ARGS_WRONG);
    assert_int_equal(PARSE(&o, "test", "f", "--few", "10"), DURE_ARGS_WRONG);
    assert_int_equal(PARSE(&o, "test", "f", "--count", "0"), DURE_ARGS_RUN);
    assert_int_equal(PARSE(&o, "test", "f", "--count", "18446744073709551615"), DURE_ARGS_RUN);
}

static void test_args_double_dash_ends_the_options(void **state)
{
    (void)state;
    options o = {0};
    assert_int_equal(PARSE(&o, "test", "--", "--count"), DURE_ARGS_RUN);
    assert_string_equal(o.operand, "--count");
}

static void test_args_refuses_what_is_wrong(void **state)
{
    (void)state;
    options o = {0};
    assert_int_equal(PARSE(&o, "test"), DURE_ARGS_WRONG);                          /* missing */
    assert_int_equal(PARSE(&o, "test", "f", "g"), DURE_ARGS_WRONG);                /* too many */
    assert_int_equal(PARSE(&o, "test", "f", "--nope"), DURE_ARGS_WRONG);           /* unknown */
    assert_int_equal(PARSE(&o, "test", "f", "-x"), DURE_ARGS_WRONG);               /* unknown */
    assert_int_equal(PARSE(&o, "test", "f", "--text"), DURE_ARGS_WRONG);           /* no value */
    assert_int_equal(PARSE(&o, "test", "f", "--flag=1"), DURE_ARGS_WRONG);         /* a value */
    assert_int_equal(PARSE(&o, "test", "f", "--flag", "--flag"), DURE_ARGS_WRONG); /* twice */
    assert_int_equal(PARSE(&o, "test", "f", "--count", "-1"), DURE_ARGS_WRONG);    /* sign */
    assert_int_equal(PARSE(&o, "test", "f", "--count", "1x"), DURE_ARGS_WRONG);    /* tail */
    assert_int_equal(PARSE(&o, "test", "f", "--count", "99999999999999999999"), DURE_ARGS_WRONG);
    assert_int_equal(PARSE(&o, "test", "f", "--number", "nan"), DURE_ARGS_WRONG);
    assert_int_equal(PARSE(&o, "test", "f", "--number", "1e999"), DURE_ARGS_WRONG);
    assert_int_equal(PARSE(&o, "test", "f", "--number", "0x10"), DURE_ARGS_WRONG);
    assert_int_equal(PARSE(&o, "test", "f", "--number", "-0X1p3"), DURE_ARGS_WRONG);
}

static void test_args_help_wins(void **state)
{
    (void)state;
    options o = {0};
    assert_int_equal(PARSE(&o, "test", "--help"), DURE_ARGS_HELP);
}

static int told(int argc, char **argv)
{
    return argc == 2 && !strcmp(argv[0], "tell") && !strcmp(argv[1], "x") ? 7 : 1;
}

static void test_args_verb_runs_what_is_named(void **state)
{
    (void)state;
    static const dure_verb verbs[] = {{"ask", NULL, "asks"}, {"tell", told, "tells"}};
    const dure_verbs table = {"talk", "talking", "WORD", "dure talk tell x", verbs, 2};
    char talk[] = "talk", tells[] = "tell", x[] = "x", asked[] = "--help", unknown[] = "nod";
    char *tell[] = {talk, tells, x}, *help[] = {talk, asked}, *nod[] = {talk, unknown};
    assert_int_equal(dure_args_verb(&table, 3, tell), 7);
    assert_int_equal(dure_args_verb(&table, 2, help), 0);
    assert_int_equal(dure_args_verb(&table, 2, nod), 2);
    assert_int_equal(dure_args_verb(&table, 1, nod), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_args_takes_every_form),
        cmocka_unit_test(test_args_keeps_a_count_within_its_range),
        cmocka_unit_test(test_args_double_dash_ends_the_options),
        cmocka_unit_test(test_args_refuses_what_is_wrong),
        cmocka_unit_test(test_args_help_wins),
        cmocka_unit_test(test_args_verb_runs_what_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
