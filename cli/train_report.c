#include "cli/train_report.h"

#include "cli/text.h"
#include "cli/writable.h"
#include "common/clock.h"
#include "common/json.h"
#include "dp/calibrate.h"
#include "model/decode.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_SAMPLE_BYTES = 1 << 20 };

/* The tokens of --sample-prompt, with room for an answer. */
static dure_err render(dure_tokens *tokens, const dure_train_options *o, const dure_open_model *m,
                       dure_diag *diag)
{
    const dure_message prompt = {DURE_ROLE_USER, dure_span_of_text(o->sample_prompt)};
    const uint32_t context = dure_transformer_shape(m->transformer)->n_context;
    dure_err err = dure_chat_render(tokens, &m->chat, m->tokenizer, &prompt, 1, true, diag);
    if (!err && tokens->n >= context)
        err = dure_diag_set(diag, DURE_ERR_LIMIT,
                            "%zu tokens leave no room for an answer in the model's context of %u",
                            tokens->n, context);
    return err;
}

dure_err dure_train_report_check(const dure_train_options *o, const dure_open_model *m,
                                 dure_diag *diag)
{
    dure_tokens tokens = {0};
    dure_err err = o->sample_prompt ? render(&tokens, o, m, diag) : DURE_OK;
    dure_tokens_fini(&tokens);
    if (err) return dure_diag_prefix(diag, err, "--sample-prompt");
    if (o->log) err = dure_train_log_check(o->log, o->out, diag);
    if (err) return dure_diag_prefix(diag, err, "--log");
    if (o->tensorboard) err = dure_writable_folder(o->tensorboard, diag);
    return err ? dure_diag_prefix(diag, err, "--tensorboard") : DURE_OK;
}

dure_err dure_train_report_start(dure_train_report *r, uint64_t taken, dure_diag *diag)
{
    r->log = (dure_train_log){.fd = -1};
    r->eval_loss = (double)NAN;
    r->told_s = -1;
    dure_err err = DURE_OK;
    if (r->o->log) err = dure_train_log_open(&r->log, r->o->log, r->o->out, taken, diag);
    if (!err && r->o->tensorboard)
        err = dure_event_file_open(&r->events, r->o->tensorboard, taken + 1, diag);
    dure_progress_start(&r->progress, "training", "tokens", r->steps, r->o->json);
    r->progress.first_step = taken;
    return err;
}

void dure_train_report_end(dure_train_report *r)
{
    dure_progress_end(&r->progress);
    dure_train_log_close(&r->log);
    dure_event_file_close(&r->events);
}

/* --- a sample --- */

typedef struct answer {
    const dure_tokenizer *tokenizer;
    dure_buf text;
} answer;

static bool hear(void *state, int32_t id)
{
    answer *a = state;
    dure_span piece = dure_tokenizer_piece(a->tokenizer, id);
    dure_put_raw(&a->text, piece.data, piece.n);
    return dure_buf_err(&a->text) == DURE_OK;
}

/* The most likely answer of the adapter as it is now. */
static dure_err sample(answer *a, const dure_train_report *r, dure_diag *diag)
{
    const dure_open_model *m = r->model;
    dure_tokens tokens = {0};
    dure_decoder *decoder = NULL;
    dure_finish finish;
    const dure_generation how = {.lora = r->lora,
                                 .tokenizer = m->tokenizer,
                                 .max_tokens = (size_t)r->o->sample_tokens,
                                 .sink = hear,
                                 .state = a};
    dure_err err = render(&tokens, r->o, m, diag);
    if (!err) err = dure_decoder_new(&decoder, m->transformer, tokens.n + how.max_tokens);
    if (!err) err = dure_generate(&finish, decoder, tokens.ids, tokens.n, &how, diag);
    if (err) dure_diag_prefix(diag, err, "--sample-prompt");
    dure_decoder_free(&decoder);
    dure_tokens_fini(&tokens);
    return err;
}

static bool sample_is_due(const dure_train_report *r, uint64_t step)
{
    if (!r->o->sample_prompt) return false;
    return step % dure_train_options_every(r->o->sample_every, r->steps) == 0 || step == r->steps;
}

/* --- one step --- */

/* What the steps so far would have spent. The accountant may take longer than a step does, so it is
 * asked at most a tenth of the time, and always at the end. */
static dure_err account(dure_train_report *r, uint64_t step, dure_diag *diag)
{
    if (!r->plan) return DURE_OK;
    double now = dure_clock_monotonic_s();
    r->epsilon_is_new =
        r->told_s < 0 || now - r->told_s > 10 * r->epsilon_took_s || step == r->steps;
    if (!r->epsilon_is_new) return DURE_OK;
    dure_dp_plan so_far = *r->plan;
    so_far.steps = step;
    dure_err err = dure_calibrate_epsilon(&r->epsilon, &so_far, NULL, r->o->delta);
    if (err)
        return dure_diag_set(diag, err, "cannot tell what %llu steps spend",
                             (unsigned long long)step);
    r->told_s = dure_clock_monotonic_s();
    r->epsilon_took_s = r->told_s - now;
    return DURE_OK;
}

/* Of what the multipliers could do at most in the time of the step; 0 when that is not known. */
static double of_peak(const dure_train_report *r, const dure_trainer_step *s)
{
    if (!(r->peak_tokens > 0 && s->seconds > 0)) return 0;
    return (double)s->tokens / s->seconds / r->peak_tokens;
}

static json_t *step_json(const dure_train_report *r, const dure_trainer_step *s, dure_span said)
{
    json_t *line = json_pack("{s:I, s:o, s:I, s:f, s:f}", "step", (json_int_t)s->step + 1, "loss",
                             dure_json_from_double(s->loss), "tokens", (json_int_t)s->tokens,
                             "seconds", s->seconds, "learning_rate", s->learning_rate);
    if (r->peak_tokens > 0) json_object_set_new(line, "of_peak", json_real(of_peak(r, s)));
    if (r->plan && r->epsilon_is_new)
        json_object_set_new(line, "epsilon", dure_json_from_double(r->epsilon));
    if (r->plan && r->plan->adaptive.count_sigma_num)
        json_object_set_new(line, "clip", json_real(s->clip));
    if (!r->plan)
        json_object_set_new(line, "gradient_norm", dure_json_from_double(s->gradient_norm));
    if (s->refused) {
        json_object_set_new(line, "refused", json_integer((json_int_t)s->refused));
        json_object_set_new(line, "refused_line", json_integer(s->refused_line));
    }
    if (s->judged) {
        json_object_set_new(line, "eval_loss", dure_json_from_double(s->eval_loss));
        json_object_set_new(line, "best", json_boolean(s->best));
    }
    if (said.data) json_object_set_new(line, "sample", dure_text_json(said));
    return line;
}

static dure_err put_sample(const dure_train_report *r, uint64_t step, dure_span said,
                           dure_diag *diag)
{
    json_t *text = dure_text_json(said); /* what is not UTF-8 is replaced */
    dure_err err = text ? DURE_OK : DURE_ERR_NOMEM;
    if (!err) err = dure_event_file_text(r->events, "sample", step, json_string_value(text), diag);
    json_decref(text);
    return err;
}

static dure_err put_events(const dure_train_report *r, const dure_trainer_step *s, dure_span said,
                           dure_diag *diag)
{
    const struct {
        const char *tag;
        double value;
        bool there;
    } all[] = {
        {"train/loss", s->loss, isfinite(s->loss)},
        {"train/learning_rate", s->learning_rate, true},
        {"train/gradient_norm", s->gradient_norm, isfinite(s->gradient_norm)},
        {"privacy/clip", s->clip, isfinite(s->clip)},
        {"train/tokens_per_second", (double)s->tokens / s->seconds, s->tokens && s->seconds > 0},
        {"privacy/epsilon", r->epsilon, r->plan && r->epsilon_is_new},
        {"eval/loss", s->eval_loss, s->judged && isfinite(s->eval_loss)},
    };
    dure_err err = DURE_OK;
    if (!r->events) return DURE_OK;
    for (size_t i = 0; !err && i < sizeof all / sizeof all[0]; i++)
        if (all[i].there)
            err = dure_event_file_scalar(r->events, all[i].tag, s->step + 1, all[i].value, diag);
    if (!err && said.data) err = put_sample(r, s->step + 1, said, diag);
    return err ? err : dure_event_file_flush(r->events, diag);
}

static void show(dure_train_report *r, const dure_trainer_step *s, dure_span said)
{
    char note[160];
    size_t n = 0;
    if (isfinite(s->loss))
        n += (size_t)snprintf(note, sizeof note, "loss %.4f", s->loss);
    else
        n += (size_t)snprintf(note, sizeof note, "no labels in this step");
    if (isfinite(r->eval_loss))
        n += (size_t)snprintf(note + n, sizeof note - n, "  eval %.4f", r->eval_loss);
    if (of_peak(r, s) > 0)
        n += (size_t)snprintf(note + n, sizeof note - n, "  %.0f%% of peak", 100 * of_peak(r, s));
    if (r->plan)
        snprintf(note + n, sizeof note - n, "  epsilon %.3g of %.3g", r->epsilon, r->o->epsilon);
    dure_progress_step(&r->progress, s->step + 1, (double)r->tokens, note);
    if (r->o->json) return;
    if (s->refused) {
        dure_progress_end(&r->progress);
        fprintf(stderr,
                "step %llu: %zu records had no finite gradient and contributed nothing; "
                "the first is in line %u\n",
                (unsigned long long)s->step + 1, s->refused, s->refused_line);
    }
    if (s->judged) {
        dure_progress_end(&r->progress);
        fprintf(stderr, "step %llu: evaluation loss %.4f%s\n", (unsigned long long)s->step + 1,
                s->eval_loss, s->best ? ", the lowest so far" : "");
    }
    if (said.data) {
        dure_progress_end(&r->progress);
        fprintf(stderr, "step %llu answers:\n", (unsigned long long)s->step + 1);
        dure_text_print_block(stderr, "  | ", said);
    }
}

static dure_err tell(dure_train_report *r, const dure_trainer_step *s, answer *a, dure_diag *diag)
{
    dure_span said = {NULL, 0};
    if (a->tokenizer) {
        dure_put_u8(&a->text, 0); /* an empty answer has data too */
        dure_err err = dure_buf_err(&a->text);
        if (err) return err;
        said = dure_span_of(a->text.data, a->text.n - 1);
    }
    show(r, s, said);
    if (r->o->json && dure_print_json(step_json(r, s, said))) return DURE_ERR_IO;
    dure_err err = DURE_OK;
    if (r->o->log) err = dure_train_log_put(&r->log, step_json(r, s, said), diag);
    return err ? err : put_events(r, s, said, diag);
}

dure_err dure_train_report_step(dure_train_report *r, const dure_trainer_step *step,
                                dure_diag *diag)
{
    answer a = {.tokenizer = NULL};
    r->tokens += step->tokens;
    r->seconds += step->seconds;
    if (step->judged) r->eval_loss = step->eval_loss;
    dure_buf_init(&a.text, MAX_SAMPLE_BYTES);
    dure_err err = account(r, step->step + 1, diag);
    if (!err && sample_is_due(r, step->step + 1)) {
        a.tokenizer = r->model->tokenizer;
        err = sample(&a, r, diag);
    }
    if (!err) err = tell(r, step, &a, diag);
    dure_buf_fini(&a.text);
    return err;
}
