#include "dataset_desk.h"

#include "support/check.h"
#include "support/tiny_model.h"

#include <stdlib.h>

int dataset_desk_set_up(void **state)
{
    dataset_desk *f = calloc(1, sizeof *f);
    assert_non_null(f);
    temp_dir_make(&f->dir);
    const char *path = temp_dir_file(&f->dir, "m.gguf");
    tiny_model_write(path, &(tiny_model_opts){.seed = 1});
    assert_ok(dure_gguf_open(&f->gguf, path, NULL, NULL));
    assert_ok(dure_tokenizer_new(&f->t, f->gguf, NULL));
    assert_ok(dure_chat_template_open(&f->chat, NULL, f->gguf, f->t, NULL));
    *state = f;
    return 0;
}

int dataset_desk_tear_down(void **state)
{
    dataset_desk *f = *state;
    dure_tokenizer_free(&f->t);
    dure_gguf_close(&f->gguf);
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}
