/* Which processor computes, `--device auto|cpu|cuda[:N]`: alike in every command that has it. */
#pragma once

#include "cli/args.h"
#include "model/transformer.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct dure_device_choice {
    bool cuda;
    int index; /* of the GPU */
} dure_device_choice;

dure_arg dure_device_arg(const char **device);
/* NULL means cpu; false: it is none of these. */
bool dure_device_parse(dure_device_choice *out, const char *device);
/* The same as an exit status: 2 and a sentence when it is none. */
int dure_device_check(dure_device_choice *out, const char *device, const dure_usage *usage);
/* One line on stderr where the choice needs one: what `auto` took and why, and that the GPU's code
 * is not verified. */
void dure_device_say(const char *device);
/* "GPU memory  about 5.2 GB; weights ...", one line on stdout; nothing where no GPU is used. */
void dure_device_print_memory(const dure_transformer_fit *fit);
/* One line on stderr: a GPU has passed client/device_proof.h, with so many records. */
void dure_device_say_proved(size_t records);
