/* What a trainer will take, and how its model keeps within the memory there is. */
#include "client/trainer.h"

#include "model/memory.h"

/* The factors, the gradient, both moments, the sum; the factors of the best evaluation; a subject's
 * sum. */
static uint64_t trainer_bytes(uint64_t n, const dure_trainer_opts *opts)
{
    const uint64_t floats = 4u + (opts->eval != NULL) + (opts->per_subject > 0);
    return n * (floats * sizeof(float) + sizeof(int64_t));
}

static uint64_t records_bytes(const dure_dataset *data)
{
    return data->n * sizeof *data->records +
           data->tokens.n * (sizeof *data->tokens.ids + sizeof *data->tokens.supervised);
}

/* Measured with two threads (dure train --profile): to take the mean, update and hand over a
 * trained parameter, once a step, and to draw its noise. */
static const double update_ns = 5, noise_ns = 7;

static double step_seconds(uint64_t n, bool is_private)
{
    return (double)n * (update_ns + (is_private ? noise_ns : 0)) * 1e-9;
}

static double labels_of(const dure_dataset *data)
{
    double labels = 0;
    for (size_t i = 0; i < data->n; i++)
        labels += (double)data->records[i].n_labels;
    return data->tokens.n ? labels / (double)data->tokens.n : 0;
}

static size_t longest_of(size_t longest, const dure_dataset *data)
{
    for (size_t i = 0; i < data->n; i++)
        if (data->records[i].n > longest) longest = data->records[i].n;
    return longest;
}

dure_err dure_trainer_expect(dure_transformer_fit *out, dure_transformer *model,
                             const dure_trainer_task *task, uint64_t limit_bytes, dure_diag *diag)
{
    const dure_dataset *data = task->data, *eval = task->opts->eval ? task->opts->eval->data : NULL;
    dure_training_load what = {.layout = task->layout,
                               .factors = task->opts->factors,
                               .together = !task->is_private,
                               .dropout = task->opts->dropout > 0,
                               .longest = longest_of(1, data),
                               .length = data->n ? data->tokens.n / data->n : 0,
                               .labels = labels_of(data),
                               .batch = (double)task->opts->batch,
                               .other_bytes = task->other_bytes + records_bytes(data)};
    uint64_t n = dure_lora_count(task->layout, task->opts->factors);
    what.other_bytes += trainer_bytes(n, task->opts);
    if (eval) {
        what.longest = longest_of(what.longest, eval);
        what.other_bytes += records_bytes(eval);
    }
    if (!limit_bytes) limit_bytes = dure_machine_memory_bytes() / 10 * 9;
    dure_err err = dure_transformer_fit_find(out, model, &what, limit_bytes, diag);
    out->seconds_per_step += step_seconds(n, task->is_private);
    return err;
}

dure_err dure_trainer_fit(dure_transformer_fit *out, dure_transformer *model,
                          const dure_trainer_task *task, uint64_t limit_bytes, dure_diag *diag)
{
    dure_err err = dure_trainer_expect(out, model, task, limit_bytes, diag);
    return err ? err : dure_transformer_adopt(model, out);
}
