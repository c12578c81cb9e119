/* The digest that names a base model. */
#pragma once

#include "crypto/hash.h"

/* SHA-256 of the file, or of the parts of a model in several files, one after the other. Reads the
 * names only, so a part that does not belong there is found by dure_gguf_open(), not here. */
DURE_MUST_USE dure_err dure_base_digest(dure_hash *out, const char *path, dure_diag *diag);
