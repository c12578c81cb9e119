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

static size_t longest_of(size_t longest, const dure_dataset *data)
{
    for (size_t i = 0; i < data->n; i++)
        if (data->records[i].n > longest) longest = data->records[i].n;
    return longest;
}

dure_err dure_trainer_fit(dure_transformer_fit *out, dure_transformer *model,
                          const dure_trainer_task *task, uint64_t limit_bytes, dure_diag *diag)
{
    const dure_dataset *data = task->data, *eval = task->opts->eval ? task->opts->eval->data : NULL;
    dure_training_load what = {.layout = task->layout,
                               .factors = task->opts->factors,
                               .together = !task->is_private,
                               .dropout = task->opts->dropout > 0,
                               .longest = longest_of(1, data),
                               .length = data->n ? data->tokens.n / data->n : 0,
                               .other_bytes = task->other_bytes + records_bytes(data)};
    what.other_bytes +=
        trainer_bytes(dure_lora_count(task->layout, task->opts->factors), task->opts);
    if (eval) {
        what.longest = longest_of(what.longest, eval);
        what.other_bytes += records_bytes(eval);
    }
    if (!limit_bytes) limit_bytes = dure_machine_memory_bytes() / 10 * 9;
    dure_err err = dure_transformer_fit_find(out, model, &what, limit_bytes, diag);
    return err ? err : dure_transformer_adopt(model, out);
}
