/* Erasing secrets and comparing them without telling by time where they differ. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Overwrites data[0..n) with zeros in a way no compiler removes. NULL with n = 0 is fine. */
void dure_wipe(void *data, size_t n);

/* True when the n bytes are equal; the time depends on n alone. */
bool dure_ct_equal(const void *a, const void *b, size_t n);
