#include "cli/device.h"

#include "cli/output.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICES_MOST = 1024 };

dure_arg dure_device_arg(const char **device)
{
    return (dure_arg)OPTION(TEXT, "device", *device, "D",
                            "cpu, cuda, cuda:1 (the second GPU), or auto; default cpu");
}

bool dure_device_parse(dure_device_choice *out, const char *device)
{
    *out = (dure_device_choice){.cuda = false};
    if (!device || !strcmp(device, "cpu") || !strcmp(device, "auto")) return true;
    if (strncmp(device, "cuda", 4) != 0) return false;
    out->cuda = true;
    if (!device[4]) return true;
    char *end = NULL;
    if (device[4] != ':' || !isdigit((unsigned char)device[5])) return false;
    long index = strtol(device + 5, &end, 10);
    if (*end || index > DEVICES_MOST) return false;
    out->index = (int)index;
    return true;
}

int dure_device_check(dure_device_choice *out, const char *device, const dure_usage *usage)
{
    if (dure_device_parse(out, device)) return 0;
    return dure_args_refuse(usage, "--device must be auto, cpu, cuda or cuda:N, not '%s'", device);
}

void dure_device_print_memory(const dure_transformer_fit *fit)
{
    char memory[32];
    if (!fit->bytes) return;
    dure_format_bytes(memory, fit->bytes);
    printf("GPU memory  about %s; weights %s, %u layers computed twice, passes of %zu tokens\n",
           memory, fit->packed ? "as bfloat16" : "as in the file", fit->recompute, fit->rows);
}

void dure_device_say_proved(size_t records)
{
    fprintf(stderr,
            "the GPU was checked with %zu synthetic records: a record's gradient is the same bits "
            "in any batch, and its clipped integers are the CPU's\n",
            records);
}

void dure_device_say(const char *device)
{
    dure_device_choice choice;
    if (!device || !dure_device_parse(&choice, device)) return;
    if (choice.cuda)
        fprintf(stderr, "warning: what runs on a GPU has been verified on an emulated one alone; "
                        "docs/gpu.md says how to verify it on this one first\n");
    else if (!strcmp(device, "auto"))
        fprintf(stderr,
                "device: cpu (auto takes no GPU until its code has been verified on one)\n");
}
