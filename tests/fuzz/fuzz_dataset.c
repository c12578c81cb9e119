/* Any bytes as a data file of every format, strictly and tolerantly; labels and bounds are then
 * walked. */
#include "model/dataset.h"
#include "small_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void walk(const dure_dataset *data)
{
    for (size_t i = 0; i < data->n; i++) {
        dure_document doc = dure_dataset_document(data, i);
        uint32_t labels = 0;
        for (size_t k = 0; k < doc.n; k++)
            labels += doc.supervised[k];
        if (labels != data->records[i].n_labels || doc.n > 64 || (doc.n && doc.supervised[0]))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const small_tokenizer *small = small_tokenizer_get();
    for (int i = 0; i < 2 * (DURE_DATASET_TEXT + 1); i++) {
        dure_dataset_opts opts = {
            .format = (dure_dataset_format)(i / 2), .max_length = 64, .tolerant = i % 2 == 1};
        dure_dataset out;
        dure_diag diag = {{0}};
        dure_span text = dure_span_of(data, n);
        if (dure_dataset_parse(&out, text, "fuzz", small->t, &small->chat, &opts, &diag)) continue;
        walk(&out);
        dure_dataset_fini(&out);
    }
    return 0;
}
