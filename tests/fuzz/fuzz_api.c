/* Bodies of requests to the OpenAI API: whatever comes in is parsed or refused, and a refusal can
 * always be told as JSON. */
#include "serve/api.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    for (int chat = 0; chat < 2; chat++) {
        dure_api_request request;
        dure_api_error error = {0};
        dure_span body = dure_span_of(data, n);
        dure_err err = chat ? dure_api_parse_chat(&request, body, &error)
                            : dure_api_parse_completion(&request, body, &error);
        if (err) {
            json_t *told = dure_api_error_json(&error);
            if (!told || error.status < 400) abort();
            json_decref(told);
        }
        dure_api_request_fini(&request);
    }
    return 0;
}
