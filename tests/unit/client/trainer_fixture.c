#include "unit/client/trainer_fixture.h"

#include "support/tiny_model.h"

#include <stdlib.h>

/* Records that one model can learn: the answer repeats a word of the question. */
static void make_data(fixture *f)
{
    static const char *const words[] = {"apple", "river", "stone", "cloud"};
    const dure_dataset_opts opts = {.max_length = 128, .tolerant = true};
    dure_buf text;
    dure_buf_init(&text, 1 << 20);
    for (int i = 0; i < RECORDS; i++)
        dure_put_format(&text, "{\"prompt\":\"say %s %d\",\"response\":\"%s\"}\n", words[i % 4], i,
                        words[i % 4]);
    assert_ok(dure_dataset_parse(&f->data, dure_buf_span(&text), "data", f->tokenizer, &f->chat,
                                 &opts, &f->diag));
    assert_int_equal(f->data.n, RECORDS);
    dure_buf_fini(&text);
}

int trainer_set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    temp_dir_make(&f->dir);
    const char *path = temp_dir_file(&f->dir, "tiny.gguf");
    const tiny_model_opts tiny = {.seed = 5};
    const dure_transformer_opts opts = {.threads = 2, .precision = DURE_PRECISION_F32};
    tiny_model_write(path, &tiny);
    if (dure_gguf_open(&f->gguf, path, NULL, &f->diag)) fail_msg("%s", f->diag.text);
    assert_ok(dure_tokenizer_new(&f->tokenizer, f->gguf, &f->diag));
    assert_ok(dure_chat_template_open(&f->chat, NULL, f->gguf, f->tokenizer, &f->diag));
    assert_ok(dure_transformer_new(&f->model, f->gguf, &opts, &f->diag));
    make_data(f);
    *state = f;
    return 0;
}

int trainer_tear_down(void **state)
{
    fixture *f = *state;
    dure_attempt_fini(&f->attempt);
    dure_dataset_fini(&f->data);
    dure_transformer_free(&f->model);
    dure_tokenizer_free(&f->tokenizer);
    dure_gguf_close(&f->gguf);
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

dure_lora *fresh_lora(fixture *f)
{
    dure_lora_layout layout = {.shape = *dure_transformer_shape(f->model),
                               .rank = 4,
                               .alpha = 8,
                               .targets = 1u << DURE_LORA_Q | 1u << DURE_LORA_V};
    dure_lora *lora = NULL;
    assert_ok(dure_lora_new(&lora, &layout));
    dure_lora_init_uniform(lora, 1);
    return lora;
}

dure_trainer_opts plain_opts(void)
{
    return (dure_trainer_opts){
        .factors = DURE_LORA_FACTOR_BOTH, .learning_rate = 0.02, .batch = 8, .seed = 7};
}

dure_trainer_opts private_opts(fixture *f, const dure_lora *lora, uint64_t steps)
{
    dure_trainer_opts opts = {.factors = DURE_LORA_FACTOR_BOTH, .learning_rate = 0.02};
    static const uint8_t note[DURE_ATTEMPT_NOTE_BYTES];
    static const dure_hash binding, data;
    f->plan = (dure_dp_plan){.mechanism = DURE_DP_POISSON_GAUSSIAN,
                             .sigma_num = DURE_DP_SIGMA_DEN / 64,
                             .clip = 1,
                             .steps = steps};
    assert_ok(dure_dp_plan_set_batch(&f->plan, 8, RECORDS, NULL));
    assert_ok(
        dure_dp_grid_bits(&f->plan.grid_bits, dure_lora_count(&lora->layout, opts.factors), NULL));
    if (!f->attempt.path)
        assert_ok(dure_attempt_begin(&f->attempt, temp_dir_file(&f->dir, "key"), &binding, &data,
                                     note, &f->diag));
    opts.plan = &f->plan;
    opts.attempt = &f->attempt;
    return opts;
}

dure_trainer *trainer_of(fixture *f, dure_lora *lora, const dure_trainer_opts *opts)
{
    dure_trainer *t = NULL;
    if (dure_trainer_new(&t, f->model, &f->data, lora, opts, &f->diag))
        fail_msg("%s", f->diag.text);
    return t;
}

double loss_of(fixture *f, const dure_lora *lora)
{
    dure_document docs[RECORDS];
    dure_document_loss losses[RECORDS];
    double nll = 0, labels = 0;
    for (size_t i = 0; i < RECORDS; i++)
        docs[i] = dure_dataset_document(&f->data, i);
    assert_ok(dure_transformer_loss(losses, f->model, lora, docs, RECORDS, &f->diag));
    for (size_t i = 0; i < RECORDS; i++) {
        nll += losses[i].nll_sum;
        labels += losses[i].n_labels;
    }
    return nll / labels;
}

void run(fixture *f, dure_trainer *t, uint64_t steps)
{
    if (dure_trainer_run(t, steps, NULL, NULL, &f->diag)) fail_msg("%s", f->diag.text);
}
