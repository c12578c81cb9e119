/* dure adapter export|merge: a version of the registry as a file that other programs read. */
#include "cli/adapter.h"
#include "cli/args.h"
#include "cli/output.h"
#include "common/file.h"
#include "common/json.h"
#include "model/adapter_file.h"
#include "model/base_digest.h"
#include "model/gguf.h"
#include "model/merge.h"
#include "model/shape.h"
#include "registry/blob.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The adapter's bytes, checked against their digest. */
static dure_err read_adapter(dure_buf *out, const dure_adapter_desk *desk,
                             const dure_version *version, dure_diag *diag)
{
    char *blobs = dure_path_join(desk->dir, "blobs/sha256");
    if (!blobs) return DURE_ERR_NOMEM;
    dure_err err =
        dure_blob_get(out, blobs, &version->adapter, DURE_REGISTRY_MAX_ADAPTER_BYTES, diag);
    free(blobs);
    return err;
}

static dure_err write_peft(const char *out, dure_span bytes, const char *base_name, dure_diag *diag)
{
    dure_lora *lora = NULL;
    dure_adapter_notes notes = {0};
    dure_err err = dure_adapter_parse(&lora, &notes, bytes, NULL, diag);
    if (!err) err = dure_adapter_save_peft(out, lora, base_name, &notes, diag);
    dure_lora_free(&lora);
    dure_adapter_notes_fini(&notes);
    return err;
}

typedef struct export_job {
    const char *dir, *name, *out, *format, *base_name;
} export_job;

static dure_err export_version(dure_version *version, const export_job *job, dure_diag *diag)
{
    dure_adapter_desk desk;
    dure_buf bytes = {0};
    dure_err err = dure_adapter_desk_open(&desk, job->dir, NULL, diag);
    if (!err) err = dure_registry_find(version, desk.registry, job->name, diag);
    if (!err) err = read_adapter(&bytes, &desk, version, diag);
    if (!err && !strcmp(job->format, "peft"))
        err = write_peft(job->out, dure_buf_span(&bytes), job->base_name, diag);
    else if (!err)
        err = dure_file_write_atomic(job->out, dure_buf_span(&bytes), 0644, diag);
    dure_buf_fini(&bytes);
    dure_adapter_desk_close(&desk);
    return err;
}

int dure_cmd_adapter_export(int argc, char **argv)
{
    export_job job = {.format = "gguf", .base_name = "HuggingFaceTB/SmolLM2-135M-Instruct"};
    bool json = false;
    const dure_arg args[] = {
        dure_coordinator_arg(&job.dir),
        dure_version_arg(&job.name),
        OPTION(TEXT, "out", job.out, "PATH", "file (gguf) or folder (peft) to write", .letter = 'o',
               .required = true),
        OPTION(TEXT, "format", job.format, "gguf|peft",
               "gguf for llama.cpp and dure (default), peft for transformers"),
        OPTION(TEXT, "base-name", job.base_name, "NAME",
               "peft: what transformers loads the base model from"),
        dure_json_arg(&json),
    };
    const dure_usage usage = {"adapter export", "writes a version as GGUF LoRA or PEFT folder",
                              args, N_ARGS(args),
                              "dure adapter export fed/coordinator champion -o adapter.gguf"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    if (strcmp(job.format, "gguf") != 0 && strcmp(job.format, "peft") != 0)
        return dure_args_refuse(&usage, "--format is gguf or peft, not '%s'", job.format);
    dure_diag diag = {0};
    dure_version version;
    dure_err err = export_version(&version, &job, &diag);
    if (err) return dure_fail("adapter export", err, &diag);
    if (!version.is_signed)
        fprintf(stderr, "Note: version %llu is not signed; 'dure adapter promote' signs it.\n",
                (unsigned long long)version.number);
    if (json)
        return dure_print_json(json_pack("{s:I, s:s, s:s, s:b}", "version",
                                         (json_int_t)version.number, "format", job.format, "path",
                                         job.out, "signed", (int)version.is_signed));
    printf("%s\n", job.out);
    return 0;
}

typedef struct merge_job {
    const char *dir, *name, *model, *out;
    dure_merge_mode mode;
} merge_job;

/* Verified up to the root and for this very base: what is merged can no longer be told from it. */
static dure_err load_verified(dure_lora **lora, dure_version *version, dure_hash *base,
                              const merge_job *job, const dure_gguf *gguf, dure_diag *diag)
{
    dure_adapter_desk desk;
    dure_buf bytes = {0};
    dure_model_shape shape;
    dure_err err = dure_adapter_desk_open(&desk, job->dir, NULL, diag);
    if (!err) err = dure_registry_find(version, desk.registry, job->name, diag);
    if (!err) err = dure_base_digest(base, job->model, diag);
    if (!err) err = dure_registry_verify(desk.registry, version, desk.root_public, base, diag);
    if (!err) err = read_adapter(&bytes, &desk, version, diag);
    if (!err) err = dure_model_shape_read(&shape, gguf, diag);
    if (!err) err = dure_adapter_parse(lora, NULL, dure_buf_span(&bytes), &shape, diag);
    dure_buf_fini(&bytes);
    dure_adapter_desk_close(&desk);
    return err;
}

static dure_err merge_version(dure_merge_report *report, dure_version *version,
                              const merge_job *job, dure_diag *diag)
{
    dure_gguf *gguf = NULL;
    dure_lora *lora = NULL;
    dure_hash base;
    char base_hex[65], adapter_hex[65];
    dure_err err = dure_gguf_open(&gguf, job->model, NULL, diag);
    if (!err) err = load_verified(&lora, version, &base, job, gguf, diag);
    if (!err) {
        dure_hex_encode(base_hex, base.b, 32);
        dure_hex_encode(adapter_hex, version->adapter.b, 32);
        const dure_merge_opts opts = {
            .mode = job->mode, .base_digest = base_hex, .adapter_digest = adapter_hex};
        err = dure_merge_save(report, job->out, gguf, lora, &opts, diag);
    }
    dure_lora_free(&lora);
    dure_gguf_close(&gguf);
    return err;
}

static json_t *fidelity_json(const dure_merge_report *report, const dure_version *version,
                             const char *out)
{
    json_t *tensors = json_array();
    for (size_t i = 0; i < report->n; i++) {
        const dure_merge_fidelity *f = &report->tensors[i];
        json_array_append_new(
            tensors, json_pack("{s:s, s:s, s:s, s:f, s:f, s:f}", "tensor", f->tensor, "from",
                               dure_gguf_type_name(f->from_type), "to",
                               dure_gguf_type_name(f->to_type), "relative_size", f->relative_size,
                               "gain", f->gain, "relative_error", f->relative_error));
    }
    return json_pack("{s:s, s:I, s:o, s:f, s:f, s:o}", "path", out, "version",
                     (json_int_t)version->number, "adapter",
                     dure_json_from_hex(version->adapter.b, 32), "gain", report->gain,
                     "relative_error", report->relative_error, "tensors", tensors);
}

/* Beside the merged file, so that whoever serves it can read what was kept. */
static dure_err store_fidelity(json_t *fidelity, const char *out, dure_diag *diag)
{
    size_t n = strlen(out) + sizeof ".fidelity.json";
    char *path = malloc(n);
    if (!path || !fidelity) {
        free(path);
        return DURE_ERR_NOMEM;
    }
    snprintf(path, n, "%s.fidelity.json", out);
    dure_err err = dure_json_write(path, fidelity, 0644, diag);
    free(path);
    return err;
}

static void print_fidelity(const dure_merge_report *report, const char *out)
{
    printf("TENSOR                        FROM    TO      UPDATE/WEIGHT  KEPT      ERROR/UPDATE\n");
    for (size_t i = 0; i < report->n; i++) {
        const dure_merge_fidelity *f = &report->tensors[i];
        printf("%-28s  %-6s  %-6s  %13.2e  %7.3f %%  %11.4f %%\n", f->tensor,
               dure_gguf_type_name(f->from_type), dure_gguf_type_name(f->to_type), f->relative_size,
               100 * f->gain, 100 * f->relative_error);
    }
    printf("all together                                                 %7.3f %%  %11.4f %%\n",
           100 * report->gain, 100 * report->relative_error);
    fprintf(stderr, "Wrote %s and %s.fidelity.json\n", out, out);
}

static int report_merge(const dure_merge_report *report, const dure_version *version,
                        const char *out, bool json)
{
    dure_diag diag = {0};
    json_t *fidelity = fidelity_json(report, version, out);
    dure_err err = store_fidelity(fidelity, out, &diag);
    int status = 0;
    if (err)
        status = dure_fail("adapter merge", err, &diag);
    else if (json)
        status = dure_print_json(json_incref(fidelity));
    else
        print_fidelity(report, out);
    json_decref(fidelity);
    return status;
}

int dure_cmd_adapter_merge(int argc, char **argv)
{
    merge_job job = {0};
    const char *mode = "f16";
    bool json = false;
    const dure_arg args[] = {
        dure_coordinator_arg(&job.dir),
        OPERAND("VERSION", job.name,
                "a number, a digest, latest, champion or previous; it must be signed",
                .required = true),
        OPTION(TEXT, "model", job.model, "FILE", "the base model the adapter was trained on, GGUF",
               .required = true),
        OPTION(TEXT, "out", job.out, "FILE",
               "the merged GGUF; FILE.fidelity.json is written beside it", .letter = 'o',
               .required = true),
        OPTION(TEXT, "type", mode, "f16|mixed",
               "the adapted matrices as F16 (default), or as Q8_0 where they were quantized"),
        dure_json_arg(&json),
    };
    const dure_usage usage = {
        "adapter merge", "writes the base model with a version merged in, and how much was kept",
        args, N_ARGS(args),
        "dure adapter merge fed/coordinator champion --model M.gguf -o merged.gguf"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    dure_diag diag = {0};
    dure_version version;
    dure_merge_report report = {0};
    dure_err err = dure_merge_mode_parse(&job.mode, mode, &diag);
    if (!err) err = merge_version(&report, &version, &job, &diag);
    int status = err ? dure_fail("adapter merge", err, &diag)
                     : report_merge(&report, &version, job.out, json);
    dure_merge_report_fini(&report);
    return status;
}
