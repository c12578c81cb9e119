/* Any bytes as a configuration file of options: every value that comes out belongs to an option
 * that may be in a file, and is text. */
#include "cli/args.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *text = NULL;
    uint64_t count = 0;
    double number = 0;
    bool flag = false;
    dure_args_config config = {.path = "train.yaml"};
    const dure_arg args[] = {
        {.name = "Heading", .kind = DURE_ARG_HEADING},
        {.name = "FILE", .kind = DURE_ARG_OPERAND, .out = &text},
        {.name = "config", .kind = DURE_ARG_CONFIG, .out = &config},
        {.name = "rank", .kind = DURE_ARG_COUNT, .out = &count},
        {.name = "learning-rate", .kind = DURE_ARG_NUMBER, .out = &number},
        {.name = "targets", .kind = DURE_ARG_TEXT, .out = &text},
        {.name = "no-dp", .kind = DURE_ARG_FLAG, .out = &flag},
    };
    const dure_usage usage = {"train", "", args, sizeof args / sizeof args[0], NULL};
    dure_diag diag = {{0}};
    if (!dure_args_config_parse(&config, &usage, (dure_span){data, n}, &diag)) {
        if (config.n != usage.n_args) abort();
        for (size_t i = 0; i < config.n; i++)
            if (config.values[i] && (i < 3 || strlen(config.values[i]) > n)) abort();
    } else if (!diag.text[0]) {
        abort();
    }
    dure_args_config_fini(&config);
    return 0;
}
