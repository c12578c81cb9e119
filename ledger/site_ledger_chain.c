/* The ledger's file: lock, read what is new, append one line.
 *
 * Invariants: (1) a line is acknowledged only after fsync; (2) lines are taken in under the lock;
 * (3) read_at is the end of the last whole line, so cutting the file there removes a torn tail
 * and nothing else; (4) the mark, LEDGER.head, names a line that was acknowledged and synced before
 * it, so a ledger without that line is an older copy. */
#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "crypto/wipe.h"
#include "ledger/site_ledger_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_MAX_BYTES ((size_t)1 << 16)
#define FILE_MAX_BYTES ((uint64_t)1 << 28)
#define LOCK_PATIENCE_MS 5000
#define LOCK_RETRY_MS 20

static const char label[] = "dure/site-ledger/1";

/* JSON in its one form here: no spaces, members sorted. Allocated; NULL when out of memory. */
static char *canonical(const json_t *value)
{
    return json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
}

static dure_err entry_hash(dure_hash *out, const dure_site_ledger *ledger, const char *entry_text)
{
    static const dure_hash nothing;
    const dure_hash *previous = ledger->n_chain ? &ledger->chain[ledger->n_chain - 1] : &nothing;
    const dure_span fields[] = {dure_hash_span(previous), dure_span_of_text(entry_text)};
    return dure_hash_labeled(out, label, fields, 2);
}

static dure_err push_hash(dure_site_ledger *ledger, const dure_hash *hash)
{
    if (ledger->n_chain == ledger->chain_capacity) {
        size_t capacity = ledger->chain_capacity ? 2 * ledger->chain_capacity : 64;
        dure_hash *chain = realloc(ledger->chain, capacity * sizeof *chain);
        if (!chain) return DURE_ERR_NOMEM;
        ledger->chain = chain;
        ledger->chain_capacity = capacity;
    }
    ledger->chain[ledger->n_chain++] = *hash;
    return DURE_OK;
}

/* The whole line for an entry, without its newline; allocated. */
static char *form_line(json_t *entry, const dure_hash *hash)
{
    json_t *both = json_object();
    json_t *hex = dure_json_from_hex(hash->b, sizeof hash->b);
    char *line = NULL;
    if (both && hex && !json_object_set(both, "entry", entry) &&
        !json_object_set(both, "hash", hex))
        line = canonical(both);
    json_decref(hex);
    json_decref(both);
    return line;
}

/* The line must be, byte for byte, what its entry and the chain before it give. */
static dure_err check_line(dure_hash *hash, const dure_site_ledger *ledger, json_t *entry,
                           dure_span line)
{
    char *text = canonical(entry), *expected = NULL;
    dure_err err = text ? entry_hash(hash, ledger, text) : DURE_ERR_NOMEM;
    if (!err) expected = form_line(entry, hash);
    if (!err && !expected) err = DURE_ERR_NOMEM;
    if (!err && (strlen(expected) != line.n || !dure_ct_equal(expected, line.data, line.n)))
        err = DURE_ERR_FORMAT;
    free(expected);
    free(text);
    return err;
}

static dure_err take_line(dure_site_ledger *ledger, dure_span line)
{
    dure_diag why = {0};
    dure_hash hash;
    json_t *both = NULL;
    if (line.n > LINE_MAX_BYTES) return DURE_ERR_FORMAT;
    dure_err err = dure_json_parse(&both, line, ledger->path, &why);
    json_t *entry = json_object_get(both, "entry");
    if (!err && !json_is_object(entry)) err = DURE_ERR_FORMAT;
    if (!err) err = check_line(&hash, ledger, entry, line);
    if (!err) err = dure_ledger_apply(ledger, entry, &why);
    if (!err) err = push_hash(ledger, &hash);
    json_decref(both);
    return err;
}

/* How every line begins, as far as it was written. */
static bool begins_a_line(const uint8_t *data, size_t n)
{
    static const char begin[] = "{\"entry\":{";
    return strncmp((const char *)data, begin, n < sizeof begin - 1 ? n : sizeof begin - 1) == 0;
}

static dure_err take_lines(dure_site_ledger *ledger, const uint8_t *data, size_t n, dure_diag *diag)
{
    size_t at = 0;
    const uint8_t *end;
    /* What a crash left of the first line is written over; a file of somebody else must not be. */
    if (ledger->n_chain == 0 && !memchr(data, '\n', n) && !begins_a_line(data, n))
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "%s is no privacy ledger; name the right file with --ledger, or a new "
                             "one",
                             ledger->path);
    while (at < n && (end = memchr(data + at, '\n', n - at))) {
        size_t length = (size_t)(end - (data + at));
        dure_err err = take_line(ledger, dure_span_of(data + at, length));
        if (err == DURE_ERR_FORMAT)
            return dure_diag_set(diag, err,
                                 "entry %zu of the privacy ledger %s is damaged or was altered; "
                                 "nothing is spent on a ledger that does not verify, so restore "
                                 "the newest good copy%s",
                                 ledger->n_chain + 1, ledger->path,
                                 ledger->n_chain ? "" : ", or name the right file with --ledger");
        if (err) return dure_diag_set(diag, err, "cannot read the privacy ledger %s", ledger->path);
        at += length + 1;
        ledger->read_at += length + 1;
    }
    return DURE_OK;
}

static dure_err read_new(dure_site_ledger *ledger, uint64_t size, dure_diag *diag)
{
    size_t n = (size_t)(size - ledger->read_at), have = 0;
    if (n == 0) return DURE_OK;
    uint8_t *data = malloc(n);
    if (!data) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory for %s", ledger->path);
    dure_err err = DURE_OK;
    while (!err && have < n) {
        ssize_t got = pread(ledger->fd, data + have, n - have, (off_t)(ledger->read_at + have));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) err = dure_file_errno(diag, "read", ledger->path);
        if (got > 0) have += (size_t)got;
    }
    if (!err) err = take_lines(ledger, data, n, diag);
    free(data);
    return err;
}

static dure_err take_lock(dure_site_ledger *ledger, dure_diag *diag)
{
    int how = (ledger->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB;
    uint64_t give_up = dure_clock_monotonic_ms() + LOCK_PATIENCE_MS;
    while (flock(ledger->fd, how)) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return dure_file_errno(diag, "lock", ledger->path);
        if (dure_clock_monotonic_ms() > give_up)
            return dure_diag_set(diag, DURE_ERR_BUSY,
                                 "the privacy ledger %s is locked by another process; wait for it "
                                 "to end and try again",
                                 ledger->path);
        dure_clock_sleep_ms(LOCK_RETRY_MS);
    }
    return DURE_OK;
}

/* The path must still name the file that is open: entries written to a file that was replaced
 * would be lost with it. */
static dure_err check_in_place(const dure_site_ledger *ledger, struct stat *open_file,
                               dure_diag *diag)
{
    struct stat named;
    if (fstat(ledger->fd, open_file)) return dure_file_errno(diag, "inspect", ledger->path);
    if (stat(ledger->path, &named) || named.st_ino != open_file->st_ino ||
        named.st_dev != open_file->st_dev || (uint64_t)open_file->st_size < ledger->read_at)
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "the privacy ledger %s was removed, replaced or cut short while in "
                             "use; stop every process that uses it and start again",
                             ledger->path);
    if ((uint64_t)open_file->st_size > FILE_MAX_BYTES)
        return dure_diag_set(diag, DURE_ERR_LIMIT, "the privacy ledger %s is over %llu MB",
                             ledger->path, (unsigned long long)(FILE_MAX_BYTES >> 20));
    return DURE_OK;
}

/* ---- the mark ---- */

/* LEDGER.head, allocated: the hash of the newest acknowledged line, in hex. */
static dure_err mark_path(char **path, const dure_site_ledger *ledger, dure_diag *diag)
{
    static const char ending[] = ".head";
    size_t n = strlen(ledger->path);
    *path = malloc(n + sizeof ending);
    if (!*path) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory for %s", ledger->path);
    memcpy(*path, ledger->path, n);
    memcpy(*path + n, ending, sizeof ending);
    return DURE_OK;
}

static dure_err write_mark(const dure_site_ledger *ledger, dure_diag *diag)
{
    char *path = NULL, hex[2 * DURE_HASH_BYTES + 1];
    dure_err err = mark_path(&path, ledger, diag);
    if (err) return err;
    dure_hex_encode(hex, ledger->chain[ledger->n_chain - 1].b, DURE_HASH_BYTES);
    err = dure_file_write_atomic(path, dure_span_of_text(hex), 0600, diag);
    free(path);
    return err;
}

/* A ledger that was restored by itself, or removed, lacks the line. Without a mark nothing is
 * asked: the file may come from another machine. A mark that is behind, because its writer died, is
 * brought up before anyone acts on the lines after it. */
static dure_err check_mark(const dure_site_ledger *ledger, dure_diag *diag)
{
    char *path = NULL, hex[2 * DURE_HASH_BYTES + 1] = "";
    dure_buf text = {0};
    dure_hash seen = {{0}};
    dure_err err = mark_path(&path, ledger, diag);
    if (err) return err;
    err = dure_file_read(&text, path, sizeof hex - 1, diag);
    if (err == DURE_ERR_NOT_FOUND) {
        err = DURE_OK;
        goto out;
    }
    if (err) goto out;
    if (text.n) memcpy(hex, text.data, text.n);
    if (dure_hex_decode(seen.b, sizeof seen.b, hex) || !dure_site_ledger_contains(ledger, &seen))
        err = dure_diag_set(diag, DURE_ERR_STATE,
                            "the privacy ledger %s lacks the newest entry that was written to it: "
                            "an older copy was put back; restore the newest one (if it is lost, "
                            "removing %s accepts that what was spent since is forgotten)",
                            ledger->path, path);
    else if (!ledger->read_only && !dure_hash_equal(&seen, &ledger->chain[ledger->n_chain - 1]))
        err = write_mark(ledger, diag);
out:
    dure_buf_fini(&text);
    free(path);
    return err;
}

dure_err dure_ledger_begin(dure_site_ledger *ledger, dure_diag *diag)
{
    struct stat info;
    dure_err err = take_lock(ledger, diag);
    if (err) return err;
    err = check_in_place(ledger, &info, diag);
    if (!err) err = read_new(ledger, (uint64_t)info.st_size, diag);
    if (!err) err = check_mark(ledger, diag);
    if (err) dure_ledger_end(ledger);
    return err;
}

void dure_ledger_end(dure_site_ledger *ledger)
{
    (void)flock(ledger->fd, LOCK_UN);
}

/* Writes at read_at, where a torn tail of a crashed process may lie, and syncs. */
static dure_err write_line(dure_site_ledger *ledger, const char *line, dure_diag *diag)
{
    size_t n = strlen(line), at = 0;
    off_t start = (off_t)ledger->read_at;
    bool failed = ftruncate(ledger->fd, start) != 0;
    while (!failed && at < n) {
        ssize_t put = pwrite(ledger->fd, line + at, n - at, start + (off_t)at);
        if (put < 0 && errno == EINTR) continue;
        failed = put <= 0;
        if (!failed) at += (size_t)put;
    }
    if (!failed) failed = fsync(ledger->fd) != 0;
    if (!failed) return DURE_OK;
    dure_err err = dure_file_errno(diag, "append to", ledger->path);
    /* Best effort: a tail that stays is torn, and the next append cuts it. */
    if (ftruncate(ledger->fd, start) == 0) (void)fsync(ledger->fd);
    return err;
}

dure_err dure_ledger_append(dure_site_ledger *ledger, json_t *entry, dure_diag *diag)
{
    dure_hash hash;
    char *text = entry ? canonical(entry) : NULL, *line = NULL, *whole = NULL;
    dure_err err = text ? DURE_OK : DURE_ERR_NOMEM;
    if (ledger->read_only) err = DURE_ERR_STATE;
    if (!err) err = entry_hash(&hash, ledger, text);
    if (!err) line = form_line(entry, &hash);
    if (!err && (!line || !(whole = malloc(strlen(line) + 2)))) err = DURE_ERR_NOMEM;
    if (err) {
        dure_diag_set(diag, err, "cannot write to the privacy ledger %s: %s", ledger->path,
                      dure_err_text(err));
        goto out;
    }
    size_t n = strlen(line);
    memcpy(whole, line, n);
    memcpy(whole + n, "\n", 2);
    err = write_line(ledger, whole, diag);
    /* The same code takes a line in whether it was just written or is read years later. */
    if (!err) err = take_lines(ledger, (const uint8_t *)whole, n + 1, diag);
    if (!err) err = write_mark(ledger, diag);
out:
    free(whole);
    free(line);
    free(text);
    json_decref(entry);
    return err;
}
