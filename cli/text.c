#include "cli/text.h"

#include <stdbool.h>
#include <utf8proc.h>

json_t *dure_text_json(dure_span text)
{
    dure_buf clean;
    dure_buf_init(&clean, SIZE_MAX);
    for (size_t at = 0; at < text.n;) {
        size_t left = text.n - at < 4 ? text.n - at : 4;
        utf8proc_int32_t code;
        utf8proc_ssize_t used = utf8proc_iterate(text.data + at, (utf8proc_ssize_t)left, &code);
        if (used > 0)
            dure_put_raw(&clean, text.data + at, (size_t)used);
        else
            dure_put_raw(&clean, "\xef\xbf\xbd", 3);
        at += used > 0 ? (size_t)used : 1;
    }
    json_t *value = dure_buf_err(&clean) ? NULL : json_stringn((const char *)clean.data, clean.n);
    if (!value && !dure_buf_err(&clean) && clean.n == 0) value = json_string("");
    dure_buf_fini(&clean);
    return value;
}

void dure_text_print_block(FILE *to, const char *prefix, dure_span text)
{
    bool at_start = true;
    for (size_t i = 0; i < text.n; i++) {
        if (at_start) fputs(prefix, to);
        at_start = text.data[i] == '\n';
        bool control = (text.data[i] < ' ' || text.data[i] == 127) && text.data[i] != '\t';
        fputc(control && !at_start ? '.' : text.data[i], to);
    }
    if (!at_start) fputc('\n', to);
}
