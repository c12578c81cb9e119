#include "client/trainer_schedule.h"

#include <math.h>
#include <stdbool.h>

#define PI 3.14159265358979323846

dure_err dure_schedule_check(const dure_schedule *s, dure_diag *diag)
{
    bool falls = s->kind != DURE_SCHEDULE_CONSTANT;
    if (falls && s->steps == 0)
        return dure_diag_set(diag, DURE_ERR_USAGE, "a schedule that falls needs its last step");
    if (falls && s->warmup_steps >= s->steps)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the warm-up of %llu steps must be shorter than the run of %llu",
                             (unsigned long long)s->warmup_steps, (unsigned long long)s->steps);
    return DURE_OK;
}

double dure_schedule_factor(const dure_schedule *s, uint64_t step)
{
    if (step < s->warmup_steps) return (double)(step + 1) / (double)(s->warmup_steps + 1);
    if (s->kind == DURE_SCHEDULE_CONSTANT) return 1;
    if (step >= s->steps) return 0;
    double done = (double)(step - s->warmup_steps) / (double)(s->steps - s->warmup_steps);
    return s->kind == DURE_SCHEDULE_LINEAR ? 1 - done : 0.5 * (1 + cos(PI * done));
}
