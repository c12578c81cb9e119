/* Texts from files and models on their way to a terminal or into JSON. */
#pragma once

#include "common/buf.h"

#include <jansson.h>
#include <stdio.h>

/* A new JSON text; bytes that are not UTF-8 become U+FFFD. NULL when out of memory. */
json_t *dure_text_json(dure_span text);

/* Prints the text line by line, each with `prefix`. Control characters become '.', so no text can
 * move the cursor or change the terminal's settings. */
void dure_text_print_block(FILE *to, const char *prefix, dure_span text);
