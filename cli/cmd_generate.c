/* dure generate: a model's answer to one prompt. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/model_open.h"
#include "cli/output.h"
#include "cli/text.h"
#include "common/clock.h"
#include "model/decode.h"

#include <stdio.h>
#include <string.h>

enum { MAX_TEXT_BYTES = 16 << 20 };

typedef struct options {
    const char *model, *adapter, *prompt, *system, *chat_template, *device;
    dure_device_choice on; /* what `device` means */
    uint64_t max_tokens, seed, threads;
    double temperature, top_p;
    bool any_base, raw, json;
} options;

typedef struct listener {
    const dure_tokenizer *tokenizer;
    dure_buf text;
    size_t n;
    double first_s;
    bool echo;
} listener;

static bool hear(void *state, int32_t id)
{
    listener *l = state;
    dure_span piece = dure_tokenizer_piece(l->tokenizer, id);
    dure_put_raw(&l->text, piece.data, piece.n);
    if (l->n++ == 0) l->first_s = dure_clock_monotonic_s();
    if (l->echo) {
        fwrite(piece.data, 1, piece.n, stdout);
        fflush(stdout);
    }
    return dure_buf_err(&l->text) == DURE_OK;
}

/* The prompt as tokens: as it stands with --raw, else as a conversation. */
static dure_err prompt_tokens(dure_tokens *out, const dure_open_model *m, const options *o,
                              dure_diag *diag)
{
    dure_span prompt = dure_span_of_text(o->prompt);
    if (o->raw) {
        dure_err err = dure_tokenizer_begin(out, m->tokenizer);
        return err ? err : dure_tokenizer_encode(out, m->tokenizer, prompt, false);
    }
    dure_message messages[2];
    size_t n = 0;
    if (o->system) messages[n++] = (dure_message){DURE_ROLE_SYSTEM, dure_span_of_text(o->system)};
    messages[n++] = (dure_message){DURE_ROLE_USER, prompt};
    return dure_chat_render(out, &m->chat, m->tokenizer, messages, n, true, diag);
}

static dure_err run(listener *l, dure_finish *finish, const dure_open_model *m, const options *o,
                    dure_diag *diag)
{
    dure_tokens tokens = {0};
    dure_decoder *decoder = NULL;
    dure_generation how = {.lora = m->lora,
                           .tokenizer = m->tokenizer,
                           .sampling = {o->temperature, o->top_p, o->seed},
                           .max_tokens = (size_t)o->max_tokens,
                           .sink = hear,
                           .state = l};
    dure_err err = prompt_tokens(&tokens, m, o, diag);
    if (!err && tokens.n == 0) err = dure_diag_set(diag, DURE_ERR_USAGE, "the prompt is empty");
    if (!err) err = dure_decoder_new(&decoder, m->transformer, tokens.n + how.max_tokens);
    if (!err) err = dure_generate(finish, decoder, tokens.ids, tokens.n, &how, diag);
    dure_decoder_free(&decoder);
    dure_tokens_fini(&tokens);
    return err;
}

static int print_json(const listener *l, dure_finish finish, double seconds)
{
    return dure_print_json(json_pack(
        "{s:o, s:I, s:s, s:f}", "text", dure_text_json(dure_buf_span(&l->text)), "tokens",
        (json_int_t)l->n, "finish", finish == DURE_FINISH_STOP ? "stop" : "length",
        "tokens_per_second", l->n > 1 && seconds > 0 ? (double)(l->n - 1) / seconds : 0.0));
}

static int generate(const options *o)
{
    dure_open_model m;
    dure_diag diag = {{0}};
    dure_finish finish = DURE_FINISH_LENGTH;
    dure_open_opts opts = {.model = o->model,
                           .adapter = o->adapter,
                           .any_base = o->any_base,
                           .chat_template = o->chat_template,
                           .threads = (uint32_t)o->threads,
                           .device = o->on};
    dure_device_say(o->device);
    dure_err err = dure_open_model_init(&m, &opts, &diag);
    if (err) return dure_fail("generate", err, &diag);
    listener l = {.tokenizer = m.tokenizer, .echo = !o->json};
    dure_buf_init(&l.text, MAX_TEXT_BYTES);
    err = run(&l, &finish, &m, o, &diag);
    double seconds = dure_clock_monotonic_s() - l.first_s;
    int status = 0;
    if (err)
        status = dure_fail("generate", err, &diag);
    else if (o->json)
        status = print_json(&l, finish, seconds);
    else
        putchar('\n');
    dure_buf_fini(&l.text);
    dure_open_model_fini(&m);
    return status;
}

static int check(options *o, const dure_usage *usage)
{
    int status = dure_device_check(&o->on, o->device, usage);
    if (status) return status;
    if (o->any_base && !o->adapter) return dure_args_refuse(usage, "--any-base is about --adapter");
    if (o->raw && (o->system || o->chat_template))
        return dure_args_refuse(usage, "--raw writes no conversation: leave out --system and "
                                       "--chat-template");
    if (o->temperature < 0 || o->top_p < 0 || o->top_p > 1)
        return dure_args_refuse(usage, "--temperature is at least 0 and --top-p from 0 to 1");
    return 0;
}

int dure_cmd_generate(int argc, char **argv)
{
    options o = {.max_tokens = 256, .temperature = 0};
    const dure_arg args[] = {
        dure_model_arg(&o.model),
        OPTION(TEXT, "prompt", o.prompt, "TEXT", "what the user says", .required = true),
        dure_adapter_arg(&o.adapter),
        dure_any_base_arg(&o.any_base),
        dure_chat_template_arg(&o.chat_template),
        OPTION(TEXT, "system", o.system, "TEXT", "the system message; default: the model's own"),
        FLAG("raw", o.raw, "continue the text as it stands, without the chat template"),
        OPTION(COUNT, "max-tokens", o.max_tokens, "N", "most tokens to generate; default 256",
               .least = 1, .most = 1 << 24),
        OPTION(NUMBER, "temperature", o.temperature, "X",
               "0 takes the most likely token; default 0"),
        OPTION(NUMBER, "top-p", o.top_p, "X",
               "sample among the most likely tokens of this mass; default 1"),
        OPTION(COUNT, "seed", o.seed, "N", "of the sampling; default 0"),
        dure_threads_arg(&o.threads),
        dure_device_arg(&o.device),
        dure_json_arg(&o.json),
    };
    const dure_usage usage = {
        "generate", "a model's answer to one prompt, with or without an adapter", args,
        N_ARGS(args),
        "dure generate --model base.gguf --prompt 'What is gravity?' --max-tokens 64"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    int wrong = check(&o, &usage);
    return wrong ? wrong : generate(&o);
}
