/* dure epoch draft|sign|take: the root says that entries of the log were lost, and the log goes on.
 */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/federation.h"
#include "cli/output.h"
#include "coordinator/epoch.h"
#include "federation/invitation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *dir, *file, *out, *reason;
    uint64_t keep, lost;
    bool json;
} options;

static int print_epoch(const char *file, const dure_event_epoch *e, const char *next, bool json)
{
    typedef unsigned long long ull;
    if (json)
        return dure_print_json(json_pack("{s:s, s:I, s:I, s:I, s:s}", "file", file, "epoch",
                                         (json_int_t)e->epoch, "kept", (json_int_t)e->kept.n,
                                         "lost", (json_int_t)e->lost_n, "reason", e->reason));
    printf("%s\n", file);
    if (e->lost_n > e->kept.n)
        fprintf(stderr,
                "Epoch %llu: the log keeps its entries 0 to %llu. Entries %llu to %llu, as far as "
                "any site has seen them, count no more. Reason: %s\n",
                (ull)e->epoch, (ull)e->kept.n - 1, (ull)e->kept.n, (ull)e->lost_n - 1, e->reason);
    else
        fprintf(stderr, "Epoch %llu: the log keeps its entries 0 to %llu. Reason: %s\n",
                (ull)e->epoch, (ull)e->kept.n - 1, e->reason);
    fprintf(stderr, "%s\n", next);
    return 0;
}

static int epoch_draft(int argc, char **argv)
{
    options o = {.out = "loss.json"};
    const dure_arg args[] = {
        OPERAND("DIR", o.dir, "the coordinator's folder, DIR/coordinator; it must not run",
                .required = true),
        OPTION(TEXT, "reason", o.reason, "TEXT", "what happened; it stays in the log",
               .required = true),
        OPTION(COUNT, "keep", o.keep, "N",
               "entries that every site agrees on; default: those of the newest checkpoint here"),
        OPTION(COUNT, "lost", o.lost, "N",
               "the longest log that any site has seen; default: the longest that is known here"),
        OPTION(TEXT, "out", o.out, "FILE", "the draft; default loss.json", .letter = 'o'),
        dure_json_arg(&o.json),
    };
    const dure_usage usage = {
        "epoch draft", "states what the log has lost, for the root to sign", args, N_ARGS(args),
        "dure epoch draft fed/coordinator --reason \"the disk failed\" -o loss.json"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    const dure_epoch_opts opts = {o.keep, o.lost, o.reason};
    dure_event_epoch epoch;
    dure_diag diag = {{0}};
    char *dir = dure_federation_part(o.dir, "coordinator");
    dure_err err = dir ? dure_epoch_draft(&epoch, dir, &opts, &diag) : DURE_ERR_NOMEM;
    free(dir);
    if (!err) err = dure_epoch_write(o.out, &epoch, false, &diag);
    if (err) return dure_fail("epoch draft", err, &diag);
    return print_epoch(o.out, &epoch,
                       "Next, where the root's key is: dure epoch sign DIR/admin FILE", o.json);
}

static dure_err sign_file(dure_event_epoch *epoch, const options *o, dure_diag *diag)
{
    dure_admin admin;
    bool is_signed = false;
    dure_hash id;
    dure_err err = dure_epoch_read(epoch, &is_signed, o->file, diag);
    if (err) return err;
    err = dure_admin_open(&admin, o->dir, true, diag);
    if (!err)
        err = dure_federation_id(&id, admin.settings.root_public, admin.settings.terms.federation);
    if (!err && !dure_hash_equal(&id, &epoch->federation_id))
        err = dure_diag_set(diag, DURE_ERR_AUTH, "%s is about another federation", o->file);
    if (!err) err = dure_event_epoch_sign(epoch, &admin.root);
    if (!err) err = dure_epoch_write(o->out, epoch, true, diag);
    dure_admin_close(&admin);
    return err;
}

static int epoch_sign(int argc, char **argv)
{
    options o = {.out = "loss.epoch"};
    const dure_arg args[] = {
        dure_admin_arg(&o.dir),
        OPERAND("FILE", o.file, "what 'dure epoch draft' wrote; read it first", .required = true),
        OPTION(TEXT, "out", o.out, "FILE", "the signed statement; default loss.epoch",
               .letter = 'o'),
        dure_json_arg(&o.json),
    };
    const dure_usage usage = {"epoch sign", "signs, as the root, what the log has lost", args,
                              N_ARGS(args), "dure epoch sign fed/admin loss.json -o loss.epoch"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    dure_event_epoch epoch;
    dure_diag diag = {{0}};
    dure_err err = sign_file(&epoch, &o, &diag);
    if (err) return dure_fail("epoch sign", err, &diag);
    return print_epoch(o.out, &epoch,
                       "Next, at the coordinator: dure epoch take DIR/coordinator FILE", o.json);
}

static int epoch_take(int argc, char **argv)
{
    options o = {0};
    const dure_arg args[] = {
        OPERAND("DIR", o.dir, "the coordinator's folder, DIR/coordinator; it must not run",
                .required = true),
        OPERAND("FILE", o.file, "what 'dure epoch sign' wrote", .required = true),
        dure_json_arg(&o.json),
    };
    const dure_usage usage = {"epoch take",
                              "goes on after what the root keeps of the log; removes the rest here",
                              args, N_ARGS(args), "dure epoch take fed/coordinator loss.epoch"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    dure_event_epoch epoch;
    bool is_signed = false;
    dure_diag diag = {{0}};
    dure_err err = dure_epoch_read(&epoch, &is_signed, o.file, &diag);
    if (!err && !is_signed)
        err = dure_diag_set(&diag, DURE_ERR_USAGE,
                            "%s is not signed; 'dure epoch sign' does that with the root's key",
                            o.file);
    char *dir = dure_federation_part(o.dir, "coordinator");
    if (!err) err = dir ? dure_epoch_take(dir, &epoch, &diag) : DURE_ERR_NOMEM;
    free(dir);
    if (err) return dure_fail("epoch take", err, &diag);
    return print_epoch(o.file, &epoch, "Start the coordinator: it tells the sites.", o.json);
}

int dure_cmd_epoch(int argc, char **argv)
{
    static const dure_verb verbs[] = {
        {"draft", epoch_draft, "state what is lost, from the coordinator's folder"},
        {"sign", epoch_sign, "sign that statement with the root's key"},
        {"take", epoch_take, "the coordinator's log goes on by it"},
    };
    const dure_verbs table = {
        .command = "epoch",
        .summary = "go on after entries of the log were lost, by the root's signature",
        .usage = "DIR|FILE [options]",
        .example = "dure epoch draft fed/coordinator --reason \"the disk failed\"\n  dure epoch "
                   "sign fed/admin loss.json\n  dure epoch take fed/coordinator loss.epoch",
        .verbs = verbs,
        .n = N_ARGS(verbs)};
    return dure_args_verb(&table, argc, argv);
}
