/* What a test of data files needs: a folder, a tiny model's tokenizer and its chat template. */
#pragma once

#include "model/dataset.h"
#include "support/temp_dir.h"

typedef struct dataset_desk {
    temp_dir dir;
    dure_gguf *gguf;
    dure_tokenizer *t;
    dure_chat_template chat;
    dure_diag diag;
} dataset_desk;

int dataset_desk_set_up(void **state);
int dataset_desk_tear_down(void **state);
