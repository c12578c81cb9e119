/* The owner's privacy ledger: a file that is kept for years, copied and restored. */
#include "ledger/site_ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char path[64];
    dure_diag diag = {{0}};
    dure_site_ledger *ledger = NULL;
    int fd = memfd_create("ledger", MFD_CLOEXEC);
    if (fd < 0) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (write(fd, data, n) == (ssize_t)n &&
        dure_site_ledger_open_read(&ledger, path, &diag) == DURE_OK) {
        for (size_t i = 0; i < dure_site_ledger_source_count(ledger); i++) {
            dure_source_status status;
            dure_site_ledger_source_at(&status, ledger, i);
            if (status.epsilon_committed < status.epsilon_spent) abort();
        }
        dure_hash head;
        uint64_t entries;
        dure_site_ledger_head(&head, &entries, ledger);
        if (!dure_site_ledger_contains(ledger, &head)) abort();
    }
    dure_site_ledger_close(&ledger);
    close(fd);
    return 0;
}
