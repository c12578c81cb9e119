/* Linked with -Wl,--wrap=dure_transformer_new: every model of the program runs on the emulated GPU,
 * as with --device cuda, in passes that it does in a moment. */
#include "model/transformer.h"
#include "model/transformer_cuda.h"

dure_err __real_dure_transformer_new(dure_transformer **out, const dure_gguf *gguf,
                                     const dure_transformer_opts *opts, dure_diag *diag);
dure_err __wrap_dure_transformer_new(dure_transformer **out, const dure_gguf *gguf,
                                     const dure_transformer_opts *opts, dure_diag *diag);

dure_err __wrap_dure_transformer_new(dure_transformer **out, const dure_gguf *gguf,
                                     const dure_transformer_opts *opts, dure_diag *diag)
{
    dure_transformer_opts few = *opts;
    few.rows = 128;
    dure_err err = __real_dure_transformer_new(out, gguf, &few, diag);
    if (!err) err = dure_transformer_cuda_attach(*out, 0, diag);
    if (err) dure_transformer_free(out);
    return err;
}
