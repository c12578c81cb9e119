/* Invitation files and federation.yaml: text that people send and edit. */
#include "federation/invitation.h"
#include "federation/settings.h"

#include "common/buf.h"
#include "crypto/wipe.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    dure_invitation invitation;
    dure_sign_key key;
    dure_settings settings;
    dure_diag diag = {{0}};
    const dure_span text = dure_span_of(data, n);
    if (dure_invitation_parse(&invitation, &key, text, "input", &diag) == DURE_OK) {
        /* What parses was signed by the root that it names. */
        if (dure_invitation_verify(&invitation, invitation.root_public, &diag)) abort();
        dure_wipe(&key, sizeof key);
    }
    if (dure_settings_parse(&settings, text, "input", &diag) == DURE_OK &&
        dure_terms_check(&settings.terms, &diag))
        abort();
    return 0;
}
