/* dure adapter list|show|promote|rollback|verify: the registry at a desk. Export and merge are in
 * cmd_adapter_files.c. */
#include "cli/adapter.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/federation.h"
#include "cli/output.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "coordinator/founding.h"
#include "coordinator/releases.h"
#include "crypto/wipe.h"
#include "federation/settings.h"
#include "model/base_digest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static dure_err read_root(uint8_t root_public[32], const char *dir, const char *root_hex,
                          dure_diag *diag)
{
    if (root_hex) {
        if (!dure_hex_decode(root_public, 32, root_hex)) return DURE_OK;
        return dure_diag_set(diag, DURE_ERR_USAGE, "--root needs 64 hex digits");
    }
    char *path = dure_path_join(dir, "federation.yaml");
    dure_settings *settings = calloc(1, sizeof *settings);
    dure_err err = DURE_ERR_NOMEM;
    if (path && settings) err = dure_settings_read(settings, path, diag);
    if (!err) memcpy(root_public, settings->root_public, 32);
    free(settings);
    free(path);
    return err;
}

dure_err dure_adapter_desk_open(dure_adapter_desk *desk, const char *dir, const char *root_hex,
                                dure_diag *diag)
{
    *desk = (dure_adapter_desk){.dir = dure_federation_part(dir, "coordinator")};
    char *root_key = desk->dir ? dure_path_join(desk->dir, DURE_ADMIN_ROOT_KEY) : NULL;
    dure_err err = root_key ? DURE_OK : DURE_ERR_NOMEM;
    if (!err && dure_file_exists(root_key)) /* no registry is to be made beside it */
        err = dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                            "%s is the admin's folder: give the coordinator's", desk->dir);
    free(root_key);
    if (!err) err = read_root(desk->root_public, desk->dir, root_hex, diag);
    return err ? err : dure_registry_open(&desk->registry, desk->dir, diag);
}

void dure_adapter_desk_close(dure_adapter_desk *desk)
{
    dure_registry_close(&desk->registry);
    free(desk->dir);
    desk->dir = NULL;
}

static json_t *gate_json(const dure_version *v)
{
    const dure_gate_result *g = &v->gate;
    if (!v->has_gate) return json_null();
    return json_pack(
        "{s:b, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "passed", (int)g->passed, "records",
        (json_int_t)g->n_records, "reference", (json_int_t)v->gate_reference, "reference_loss",
        dure_json_from_double(g->reference_loss), "loss", dure_json_from_double(g->candidate_loss),
        "difference", dure_json_from_double(g->difference), "low", dure_json_from_double(g->low),
        "high", dure_json_from_double(g->high), "margin", dure_json_from_double(g->margin));
}

static json_t *version_json(const dure_version *v)
{
    char created[DURE_CLOCK_TEXT_SIZE], is_signed[DURE_CLOCK_TEXT_SIZE];
    dure_clock_text(created, v->created_s);
    dure_clock_text(is_signed, v->signed_s);
    return json_pack(
        "{s:I, s:s, s:I, s:I, s:o, s:o, s:o, s:I, s:s, s:o, s:o, s:b, s:s}", "version",
        (json_int_t)v->number, "state", dure_version_state_text(v->state), "parent",
        (json_int_t)v->parent, "round", (json_int_t)v->round, "ledger_index",
        v->ledger_index == DURE_RELEASE_NO_LEDGER ? json_null()
                                                  : json_integer((json_int_t)v->ledger_index),
        "adapter", dure_json_from_hex(v->adapter.b, 32), "base", dure_json_from_hex(v->base.b, 32),
        "bytes", (json_int_t)v->n_bytes, "created", created, "gate", gate_json(v), "signed",
        v->is_signed ? json_string(is_signed) : json_null(), "forced", (int)v->forced, "reason",
        v->reason);
}

/* "-" where there is no gate result yet. */
static void gate_column(char text[48], const dure_version *v)
{
    if (v->has_gate)
        snprintf(text, 48, "%.3f -> %.3f", v->gate.reference_loss, v->gate.candidate_loss);
    else
        snprintf(text, 48, "-");
}

static void print_row(const dure_version *v)
{
    char gate[48], created[DURE_CLOCK_TEXT_SIZE], digest[65];
    gate_column(gate, v);
    dure_clock_text(created, v->created_s);
    dure_hex_encode(digest, v->adapter.b, 32);
    printf("%7llu  %-9s  %5llu  %-16s  %-6s  %s  %.12s\n", (unsigned long long)v->number,
           dure_version_state_text(v->state), (unsigned long long)v->round, gate,
           !v->is_signed ? "-"
           : v->forced   ? "forced"
                         : "yes",
           created, digest);
}

static int print_list(const dure_version *all, size_t n, bool json)
{
    if (json) {
        json_t *list = json_array();
        for (size_t i = 0; i < n; i++)
            json_array_append_new(list, version_json(&all[i]));
        return dure_print_json(list);
    }
    if (n == 0) {
        fprintf(stderr, "No adapter yet: the first round that completes adds one.\n");
        return 0;
    }
    printf("VERSION  STATE      ROUND  LOSS              SIGNED  CREATED               ADAPTER\n");
    for (size_t i = 0; i < n; i++)
        print_row(&all[i]);
    return 0;
}

static int adapter_list(int argc, char **argv)
{
    const char *dir = NULL;
    bool json = false;
    const dure_arg args[] = {
        dure_coordinator_arg(&dir),
        dure_json_arg(&json),
    };
    const dure_usage usage = {"adapter list", "every version, oldest first", args, N_ARGS(args),
                              "dure adapter list fed/coordinator"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    dure_adapter_desk desk;
    dure_diag diag = {0};
    dure_version *all = NULL;
    size_t n = 0;
    dure_err err = dure_adapter_desk_open(&desk, dir, NULL, &diag);
    if (!err) err = dure_registry_list(&all, &n, desk.registry, &diag);
    int status = err ? dure_fail("adapter list", err, &diag) : print_list(all, n, json);
    free(all);
    dure_adapter_desk_close(&desk);
    return status;
}

static void print_version(const dure_version *v, const char *path)
{
    char hex[65], when[DURE_CLOCK_TEXT_SIZE], gate[192];
    printf("version   %llu (%s)\n", (unsigned long long)v->number,
           dure_version_state_text(v->state));
    if (v->parent)
        printf("parent    %llu\n", (unsigned long long)v->parent);
    else
        printf("parent    the base model\n");
    if (v->round) printf("round     %llu\n", (unsigned long long)v->round);
    if (v->ledger_index != DURE_RELEASE_NO_LEDGER)
        printf("ledger    entry %llu\n", (unsigned long long)v->ledger_index);
    dure_hex_encode(hex, v->adapter.b, 32);
    printf("adapter   %s\n", hex);
    dure_hex_encode(hex, v->base.b, 32);
    printf("base      %s\n", hex);
    dure_clock_text(when, v->created_s);
    printf("created   %s\n", when);
    if (v->has_gate) dure_gate_text(gate, &v->gate);
    printf("gate      %s\n", v->has_gate ? gate : "not yet");
    dure_clock_text(when, v->signed_s);
    printf("signed    %s\n", v->is_signed ? when : "no");
    if (v->forced) printf("forced    %s\n", v->reason);
    printf("file      %s\n", path ? path : "");
}

static int adapter_show(int argc, char **argv)
{
    const char *dir = NULL, *name = NULL;
    bool json = false;
    const dure_arg args[] = {
        dure_coordinator_arg(&dir),
        dure_version_arg(&name),
        dure_json_arg(&json),
    };
    const dure_usage usage = {"adapter show", "where a version comes from and how it did", args,
                              N_ARGS(args), "dure adapter show fed/coordinator champion"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    dure_adapter_desk desk;
    dure_diag diag = {0};
    dure_version version;
    int status = 0;
    dure_err err = dure_adapter_desk_open(&desk, dir, NULL, &diag);
    if (!err) err = dure_registry_find(&version, desk.registry, name, &diag);
    if (err) {
        status = dure_fail("adapter show", err, &diag);
    } else {
        char *path = dure_registry_adapter_path(desk.registry, &version);
        if (json) {
            json_t *value = version_json(&version);
            json_object_set_new(value, "file", json_string(path ? path : ""));
            status = dure_print_json(value);
        } else {
            print_version(&version, path);
        }
        free(path);
    }
    dure_adapter_desk_close(&desk);
    return status;
}

static dure_err read_release_key(dure_sign_key *key, dure_release_certificate *certificate,
                                 const char *dir, dure_diag *diag)
{
    char *key_path = dure_path_join(dir, DURE_RELEASE_KEY_FILE);
    char *certificate_path = dure_path_join(dir, DURE_RELEASE_CERTIFICATE_FILE);
    dure_err err = DURE_ERR_NOMEM;
    if (key_path && certificate_path) err = dure_sign_load(key, key_path, diag);
    if (!err) err = dure_release_certificate_read(certificate, certificate_path, diag);
    free(certificate_path);
    free(key_path);
    return err;
}

/* Who is served belongs into the federation's log. */
static dure_err enter_in_log(dure_adapter_desk *desk, dure_diag *diag)
{
    bool waits = false;
    dure_err err = dure_releases_log_folder(&waits, desk->dir, desk->registry, diag);
    if (err)
        return dure_diag_prefix(diag, err,
                                "it is done, but the ledger has no entry of it yet; the next "
                                "'dure coordinator run' makes one");
    if (waits)
        fprintf(stderr, "The running coordinator enters it in the ledger; if none runs, the next "
                        "'dure coordinator run' does.\n");
    return DURE_OK;
}

static dure_err promote(dure_version *version, dure_adapter_desk *desk, const char *name,
                        const char *reason, dure_diag *diag)
{
    dure_sign_key key = {0};
    dure_release_certificate certificate;
    const dure_promotion promotion = {.key = &key,
                                      .certificate = &certificate,
                                      .root_public = desk->root_public,
                                      .force_reason = reason,
                                      .now_s = dure_clock_wall_s()};
    dure_err err = dure_registry_find(version, desk->registry, name, diag);
    if (!err) err = read_release_key(&key, &certificate, desk->dir, diag);
    if (!err) err = dure_registry_promote(desk->registry, version->number, &promotion, diag);
    if (!err) err = dure_registry_get(version, desk->registry, version->number, diag);
    dure_wipe(&key, sizeof key);
    return err ? err : enter_in_log(desk, diag);
}

static int adapter_promote(int argc, char **argv)
{
    const char *dir = NULL, *name = NULL, *reason = NULL;
    bool json = false;
    const dure_arg args[] = {
        dure_coordinator_arg(&dir),
        dure_version_arg(&name),
        OPTION(TEXT, "force", reason, "REASON",
               "promote although the gate did not pass; the reason is kept"),
        dure_json_arg(&json),
    };
    const dure_usage usage = {
        "adapter promote",
        "signs a version that passed the gate and makes it the champion, which is served", args,
        N_ARGS(args), "dure adapter promote fed/coordinator latest"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    dure_adapter_desk desk;
    dure_diag diag = {0};
    dure_version version;
    int status = 0;
    dure_err err = dure_adapter_desk_open(&desk, dir, NULL, &diag);
    if (!err) err = promote(&version, &desk, name, reason, &diag);
    if (err)
        status = dure_fail("adapter promote", err, &diag);
    else if (json)
        status = dure_print_json(version_json(&version));
    else
        fprintf(stderr, "Version %llu is signed and is the champion now.\n",
                (unsigned long long)version.number);
    dure_adapter_desk_close(&desk);
    return status;
}

static int adapter_rollback(int argc, char **argv)
{
    const char *dir = NULL;
    bool json = false;
    const dure_arg args[] = {
        dure_coordinator_arg(&dir),
        dure_json_arg(&json),
    };
    const dure_usage usage = {"adapter rollback",
                              "makes the previous champion the champion again, at once", args,
                              N_ARGS(args), "dure adapter rollback fed/coordinator"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    dure_adapter_desk desk;
    dure_diag diag = {0};
    dure_version version;
    uint64_t now = 0;
    int status = 0;
    dure_err err = dure_adapter_desk_open(&desk, dir, NULL, &diag);
    if (!err) err = dure_registry_rollback(&now, desk.registry, dure_clock_wall_s(), &diag);
    if (!err) err = dure_registry_get(&version, desk.registry, now, &diag);
    if (!err) err = enter_in_log(&desk, &diag);
    if (err)
        status = dure_fail("adapter rollback", err, &diag);
    else if (json)
        status = dure_print_json(version_json(&version));
    else
        fprintf(stderr, "Version %llu is the champion again.\n", (unsigned long long)now);
    dure_adapter_desk_close(&desk);
    return status;
}

/* Verifies the version named, or every signed one; prints a line each. */
static dure_err verify_all(json_t *results, dure_adapter_desk *desk, const char *name,
                           const dure_hash *base, dure_diag *diag)
{
    dure_version *all = NULL;
    size_t n = 1, verified = 0;
    dure_err first = DURE_OK, err = DURE_OK;
    if (name) {
        all = malloc(sizeof *all);
        err = all ? dure_registry_find(all, desk->registry, name, diag) : DURE_ERR_NOMEM;
    } else {
        err = dure_registry_list(&all, &n, desk->registry, diag);
    }
    for (size_t i = 0; !err && i < n; i++) {
        dure_diag why = {0};
        if (!name && !all[i].is_signed) continue;
        verified++;
        dure_err bad = dure_registry_verify(desk->registry, &all[i], desk->root_public, base, &why);
        if (results)
            json_array_append_new(results,
                                  json_pack("{s:I, s:b, s:s}", "version", (json_int_t)all[i].number,
                                            "verified", !bad, "problem", why.text));
        else if (!bad)
            printf("version %llu: file, signature%s as they should be\n",
                   (unsigned long long)all[i].number, base ? " and base" : "");
        if (bad && !first) {
            first = bad;
            *diag = why;
        }
    }
    free(all);
    if (!err && verified == 0) fprintf(stderr, "no version is signed yet: nothing to verify\n");
    return err ? err : first;
}

static int adapter_verify(int argc, char **argv)
{
    const char *dir = NULL, *name = NULL, *model = NULL, *root = NULL;
    bool json = false;
    const dure_arg args[] = {
        dure_coordinator_arg(&dir),
        OPERAND("VERSION", name,
                "a number, a digest, latest, champion or previous; default: all that are signed"),
        OPTION(TEXT, "model", model, "FILE",
               "also check that the adapters were made for this base model"),
        OPTION(TEXT, "root", root, "HEX",
               "the federation's root key as you know it, not as the folder says"),
        dure_json_arg(&json),
    };
    const dure_usage usage = {
        "adapter verify", "checks digests and signatures; exit 1 when one does not hold", args,
        N_ARGS(args), "dure adapter verify fed/coordinator champion --model M.gguf"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    dure_adapter_desk desk;
    dure_diag diag = {0};
    dure_hash base;
    json_t *results = json ? json_array() : NULL;
    dure_err err = dure_adapter_desk_open(&desk, dir, root, &diag);
    if (!err && model) err = dure_base_digest(&base, model, &diag);
    if (!err) err = verify_all(results, &desk, name, model ? &base : NULL, &diag);
    if (json && dure_print_json(json_incref(results)) && !err) err = DURE_ERR_IO;
    json_decref(results);
    dure_adapter_desk_close(&desk);
    return err ? dure_fail("adapter verify", err, &diag) : 0;
}

int dure_cmd_adapter(int argc, char **argv)
{
    static const dure_verb verbs[] = {
        {"list", adapter_list, "every version, oldest first"},
        {"show", adapter_show, "where a version comes from and how it did at the gate"},
        {"promote", adapter_promote, "sign a version and make it the champion"},
        {"rollback", adapter_rollback, "back to the previous champion"},
        {"export", dure_cmd_adapter_export, "write a version as GGUF or PEFT"},
        {"merge", dure_cmd_adapter_merge, "write the base model with a version merged in"},
        {"verify", adapter_verify, "check digests, signatures and the base model"},
    };
    const dure_verbs table = {.command = "adapter",
                              .summary = "the federation's adapters, from candidate to champion",
                              .usage = "DIR/coordinator [VERSION] [options]",
                              .example = "dure adapter list fed/coordinator",
                              .verbs = verbs,
                              .n = N_ARGS(verbs)};
    return dure_args_verb(&table, argc, argv);
}
