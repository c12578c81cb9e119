/* dure serve: an OpenAI-compatible server on a base model and its adapters, named on the command
 * line or followed by alias in a coordinator's registry. */
#include "cli/adapter.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/model_open.h"
#include "cli/output.h"
#include "common/file.h"
#include "common/log.h"
#include "federation/settings.h"
#include "serve/server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LISTEN_DEFAULT "127.0.0.1:8080"
#define REFRESH_S 1          /* how often the registry is asked whether an alias has moved */
#define DRAIN_MS (60 * 1000) /* how long running requests may take after SIGTERM */
#define ALIASES_MAX 16

typedef struct options {
    const char *dir, *model, *adapters, *aliases, *root, *listen, *key_file, *cert, *key, *name;
    const char *chat_template, *device;
    dure_device_choice on; /* what `device` means */
    uint64_t threads, slots, queue, context;
    bool insecure, json;
} options;

/* An alias that is followed, and what it names at present. */
typedef struct followed {
    char name[64];
    uint64_t version; /* on offer; 0: none */
} followed;

typedef struct desk {
    dure_server *server;
    dure_http_keys *keys;
    dure_adapter_desk registry;
    dure_settings *settings;
    followed aliases[ALIASES_MAX];
    size_t n_aliases;
    uint64_t generation;
} desk;

/* The next piece of a comma-separated list, copied; false at its end. */
static bool next_piece(char *piece, size_t size, const char **list)
{
    while (**list == ',')
        (*list)++;
    if (!**list) return false;
    size_t n = strcspn(*list, ",");
    snprintf(piece, size, "%.*s", (int)(n < size ? n : size), *list);
    *list += n;
    return true;
}

/* --adapter NAME=PATH[,NAME=PATH...] */
static dure_err offer_named(desk *d, const char *list, dure_diag *diag)
{
    char piece[4096];
    while (next_piece(piece, sizeof piece, &list)) {
        char *equals = strchr(piece, '=');
        if (!equals)
            return dure_diag_set(diag, DURE_ERR_USAGE, "--adapter '%s': write NAME=PATH", piece);
        *equals = 0;
        const dure_server_adapter adapter = {.name = piece, .path = equals + 1};
        dure_err err = dure_server_offer(d->server, &adapter, diag);
        if (err) return dure_diag_prefix(diag, err, "%s", adapter.path);
    }
    return DURE_OK;
}

/* The bytes that are loaded are those whose signature was verified. */
static dure_err check_digest(void *state, const dure_hash *digest, dure_diag *diag)
{
    const dure_version *version = state;
    if (dure_hash_equal(digest, &version->adapter)) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_AUTH, "the file of version %llu has been altered",
                         (unsigned long long)version->number);
}

static dure_err offer_version(desk *d, const char *name, dure_version *version, dure_diag *diag)
{
    dure_registry *registry = d->registry.registry;
    dure_err err = dure_registry_verify(registry, version, d->registry.root_public,
                                        dure_server_base(d->server), diag);
    if (err) return err;
    char *path = dure_registry_adapter_path(registry, version);
    if (!path) return DURE_ERR_NOMEM;
    const dure_server_adapter adapter = {.name = name,
                                         .path = path,
                                         .version = version->number,
                                         .created_s = version->created_s,
                                         .check = check_digest,
                                         .check_state = version};
    err = dure_server_offer(d->server, &adapter, diag);
    free(path);
    return err;
}

/* Makes one alias stand for what the registry says. A version that fails its checks is not
 * offered; what was offered before goes too, for the registry no longer calls it so: it may have
 * been rolled back for good reason. */
static void follow(desk *d, followed *alias)
{
    dure_diag diag = {{0}};
    dure_version version = {0};
    dure_err err = dure_registry_find(&version, d->registry.registry, alias->name, &diag);
    if (err == DURE_ERR_NOT_FOUND) {
        if (dure_server_withdraw(d->server, alias->name) || alias->version == 0)
            fprintf(stderr, "dure serve: %s\n", diag.text);
        alias->version = 0;
        return;
    }
    if (err) { /* the registry cannot be read just now: nothing is known to have moved */
        dure_log(DURE_LOG_WARN, "serve", "registry_unreadable", "reason=\"%s\"", diag.text);
        return;
    }
    if (version.number == alias->version) return;
    err = offer_version(d, alias->name, &version, &diag);
    alias->version = err ? 0 : version.number;
    if (!err) {
        fprintf(stderr, "dure serve: %s is version %llu\n", alias->name,
                (unsigned long long)version.number);
        return;
    }
    dure_server_withdraw(d->server, alias->name);
    fprintf(stderr, "dure serve: %s is not offered: %s\n", alias->name,
            diag.text[0] ? diag.text : dure_err_text(err));
}

/* Follows every alias when the registry has changed, or when `always`. */
static void refresh(desk *d, bool always)
{
    uint64_t generation = 0;
    dure_diag diag = {{0}};
    if (!d->registry.registry) return;
    if (dure_registry_generation(&generation, d->registry.registry, &diag)) {
        dure_log(DURE_LOG_WARN, "serve", "registry_unreadable", "reason=\"%s\"", diag.text);
        return;
    }
    if (!always && generation == d->generation) return;
    d->generation = generation;
    for (size_t i = 0; i < d->n_aliases; i++)
        follow(d, &d->aliases[i]);
}

static dure_err open_registry(desk *d, const options *o, dure_diag *diag)
{
    const char *list = o->aliases ? o->aliases : "champion";
    dure_err err = dure_adapter_desk_open(&d->registry, o->dir, o->root, diag);
    while (!err && d->n_aliases < ALIASES_MAX &&
           next_piece(d->aliases[d->n_aliases].name, sizeof d->aliases[0].name, &list))
        d->n_aliases++;
    if (err || o->model) return err;
    char *path = dure_path_join(d->registry.dir, "federation.yaml");
    d->settings = calloc(1, sizeof *d->settings);
    err = path && d->settings ? dure_settings_read(d->settings, path, diag) : DURE_ERR_NOMEM;
    free(path);
    return err;
}

static dure_err open_desk(desk *d, const options *o, dure_diag *diag)
{
    dure_err err = o->key_file ? dure_http_keys_read(&d->keys, o->key_file, diag) : DURE_OK;
    if (!err && o->dir) err = open_registry(d, o, diag);
    if (err) return err;
    const dure_server_opts opts = {.model_path = o->model ? o->model : d->settings->model,
                                   .model_name = o->name,
                                   .chat_template = o->chat_template,
                                   .threads = (uint32_t)o->threads,
                                   .cuda = o->on.cuda,
                                   .device = o->on.index,
                                   .slots = (uint32_t)o->slots,
                                   .queue = (uint32_t)o->queue,
                                   .context = (uint32_t)o->context,
                                   .http = {.listen = o->listen,
                                            .keys = d->keys,
                                            .tls_cert_path = o->cert,
                                            .tls_key_path = o->key,
                                            .insecure = o->insecure}};
    dure_device_say(o->device);
    err = dure_server_new(&d->server, &opts, diag);
    if (!err && o->adapters) err = offer_named(d, o->adapters, diag);
    if (!err) refresh(d, true);
    return err ? err : dure_server_listen(d->server, diag);
}

static void close_desk(desk *d)
{
    dure_server_close(&d->server);
    if (d->keys) dure_http_keys_free(&d->keys);
    if (d->registry.dir) dure_adapter_desk_close(&d->registry);
    free(d->settings);
}

static int say_ready(const desk *d, const options *o)
{
    fprintf(stderr, "dure serve: %s (%s)\n", dure_server_url(d->server),
            dure_server_compute(d->server));
    if (!o->json) return 0;
    return dure_print_json(json_pack("{s:s, s:s}", "url", dure_server_url(d->server), "compute",
                                     dure_server_compute(d->server)));
}

/* Until SIGTERM or SIGINT; SIGHUP asks the registry at once. */
static void wait_for_end(desk *d, const sigset_t *signals)
{
    for (;;) {
        const struct timespec step = {.tv_sec = REFRESH_S};
        int got = sigtimedwait(signals, NULL, &step);
        if (got == SIGTERM || got == SIGINT) return;
        if (got > 0 || errno == EAGAIN) refresh(d, got == SIGHUP);
    }
}

static int serve(const options *o)
{
    desk d = {0};
    dure_diag diag = {{0}};
    sigset_t signals;
    /* Blocked before any thread exists, so that they all leave them to wait_for_end(). */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    dure_err err = open_desk(&d, o, &diag);
    int status = 0;
    if (err) {
        status = dure_fail("serve", err, &diag);
    } else {
        status = say_ready(&d, o);
        if (!status) wait_for_end(&d, &signals);
        fprintf(stderr, "dure serve: finishing what runs\n");
        if (!dure_server_drain(d.server, DRAIN_MS))
            fprintf(stderr, "dure serve: cut off what was still running\n");
    }
    close_desk(&d);
    return status;
}

int dure_cmd_serve(int argc, char **argv)
{
    options o = {.listen = LISTEN_DEFAULT};
    const dure_arg args[] = {
        OPERAND("DIR/coordinator", o.dir, "follow the aliases of this coordinator's registry"),
        OPTION(TEXT, "model", o.model, "FILE", "the base model, GGUF; default: the federation's"),
        dure_chat_template_arg(&o.chat_template),
        OPTION(TEXT, "name", o.name, "NAME",
               "what clients call the base; default: the file's name"),
        OPTION(TEXT, "adapter", o.adapters, "NAME=PATH,...", "adapters to offer, by name"),
        OPTION(TEXT, "alias", o.aliases, "NAME,...",
               "what to follow: champion, previous, ...; default champion"),
        OPTION(TEXT, "root", o.root, "HEX",
               "the root's public key; default: the one in federation.yaml"),
        OPTION(TEXT, "listen", o.listen, "HOST:PORT", "where to listen; default " LISTEN_DEFAULT),
        OPTION(TEXT, "api-key-file", o.key_file, "FILE", "ask for a key; one a line"),
        OPTION(TEXT, "tls-cert", o.cert, "FILE", "certificate, PEM"),
        OPTION(TEXT, "tls-key", o.key, "FILE", "its private key, PEM"),
        FLAG("insecure-http", o.insecure,
             "allow another address without keys and TLS, behind a proxy"),
        dure_threads_arg(&o.threads),
        dure_device_arg(&o.device),
        OPTION(COUNT, "slots", o.slots, "N", "prompts answered at once; default 4", .most = 256),
        OPTION(COUNT, "queue", o.queue, "N", "prompts that may wait; default 64", .most = 65536),
        OPTION(COUNT, "context", o.context, "N",
               "tokens of a prompt and its answer; default: the model's", .most = 1 << 24),
        FLAG("json", o.json, "print the URL as JSON"),
    };
    const dure_usage usage = {"serve", "an OpenAI-compatible server for a model and its adapters",
                              args, N_ARGS(args),
                              "dure serve fed/coordinator --alias champion\n"
                              "  dure serve --model base.gguf --adapter clinic=adapter.gguf"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    if (!o.dir && !o.model)
        return dure_args_refuse(&usage, "give --model or a coordinator's folder");
    if (!o.dir && (o.root || o.aliases))
        return dure_args_refuse(&usage, "--root and --alias are about a coordinator's folder");
    int status = dure_device_check(&o.on, o.device, &usage);
    return status ? status : serve(&o);
}
