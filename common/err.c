#include "common/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *dure_err_text(dure_err err)
{
    switch (err) {
    case DURE_OK:
        return "success";
#define DURE_ERR_CASE(code, text)                                                                  \
    case DURE_ERR_##code:                                                                          \
        return text;
        DURE_ERR_LIST(DURE_ERR_CASE)
#undef DURE_ERR_CASE
    }
    return "unknown error";
}

bool dure_err_is_local(dure_err err)
{
    return err == DURE_ERR_NOMEM || err == DURE_ERR_IO || err == DURE_ERR_DISK_FULL ||
           err == DURE_ERR_CRYPTO || err == DURE_ERR_RNG;
}

dure_err dure_diag_set(dure_diag *diag, dure_err err, const char *format, ...)
{
    if (!diag) return err;
    va_list args;
    va_start(args, format);
    vsnprintf(diag->text, sizeof diag->text, format, args);
    va_end(args);
    return err;
}

dure_err dure_diag_prefix(dure_diag *diag, dure_err err, const char *format, ...)
{
    if (!diag) return err;
    dure_diag tail = *diag;
    if (!tail.text[0]) snprintf(tail.text, sizeof tail.text, "%s", dure_err_text(err));
    va_list args;
    va_start(args, format);
    int n = vsnprintf(diag->text, sizeof diag->text, format, args);
    va_end(args);
    size_t used = n < 0 ? 0 : strlen(diag->text);
    snprintf(diag->text + used, sizeof diag->text - used, ": %s", tail.text);
    return err;
}

void dure_assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "dure: internal error: %s does not hold at %s:%d\n", condition, file, line);
    abort();
}
