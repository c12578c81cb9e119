/* dure train --dry-run: what a run would do, before anything is reserved, drawn or written. */
#pragma once

#include "cli/train_setup.h"
#include "client/private_run.h"

/* Prints the plan on stdout. `private_run` is NULL without privacy. Time and memory are measured on
 * a few records. */
DURE_MUST_USE dure_err dure_train_plan_print(dure_train_setup *s, const dure_train_options *o,
                                             const dure_private_run_opts *private_run,
                                             dure_diag *diag);
