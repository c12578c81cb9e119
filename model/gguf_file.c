/* Opens the file, or the files, of a model.
 *
 * Large models come in parts, each a GGUF of its own: the first has the metadata, and each has some
 * of the tensors, its number (split.no, from 0), the number of parts and that of all tensors. Only
 * the numbers tie them together, so a part is also refused when a key that it repeats has another
 * value than in the first one. Source: llama.cpp src/llama-model-loader.cpp. */
#include "model/gguf.h"

#include "common/file.h"
#include "model/gguf_int.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_NO "split.no"
#define KEY_COUNT "split.count"
#define KEY_TENSORS "split.tensors.count"

static const char first_suffix[] = "-00001-of-";
enum { SUFFIX_LENGTH = sizeof "-00001-of-00000.gguf" - 1 };

uint32_t dure_gguf_files_of(const char *path)
{
    size_t n = strlen(path);
    uint32_t files = 0;
    if (n <= SUFFIX_LENGTH) return 1;
    const char *suffix = path + n - SUFFIX_LENGTH;
    const char *digits = suffix + sizeof first_suffix - 1;
    if (memcmp(suffix, first_suffix, sizeof first_suffix - 1) != 0 || strcmp(digits + 5, ".gguf"))
        return 1;
    for (int i = 0; i < 5; i++) {
        if (digits[i] < '0' || digits[i] > '9') return 1;
        files = files * 10 + (uint32_t)(digits[i] - '0');
    }
    return files ? files : 1;
}

char *dure_gguf_file_name(const char *path, uint32_t i)
{
    uint32_t files = dure_gguf_files_of(path);
    char *name = strdup(path);
    DURE_ASSERT(i < files);
    if (name && files > 1) {
        char suffix[32]; /* `files` was read from five digits, so it has as many again */
        snprintf(suffix, sizeof suffix, "-%05u-of-%05u.gguf", i + 1, files);
        memcpy(name + strlen(name) - SUFFIX_LENGTH, suffix, SUFFIX_LENGTH);
    }
    return name;
}

void gguf_unmap(gguf_map *maps, size_t n)
{
    for (size_t i = 0; i < n; i++)
        munmap(maps[i].at, maps[i].n);
    free(maps);
}

void dure_gguf_let_go(const dure_gguf *g)
{
    for (size_t i = 0; i < g->n_maps; i++)
        (void)madvise(g->maps[i].at, g->maps[i].n, MADV_DONTNEED); /* only memory depends on it */
}

static dure_err map_file(gguf_map *out, const char *path, dure_diag *diag)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return dure_file_errno(diag, "open", path);
    dure_err err = DURE_OK;
    if (fstat(fd, &info))
        err = dure_file_errno(diag, "read", path);
    else if (!S_ISREG(info.st_mode))
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "%s is not a file; name the GGUF file in it",
                            path);
    else if (info.st_size == 0)
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "%s is empty; get it again", path);
    else if (info.st_size < GGUF_HEADER_BYTES)
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "%s: " GGUF_NOT_ONE, path);
    if (!err) {
        out->n = (size_t)info.st_size;
        out->at = mmap(NULL, out->n, PROT_READ, MAP_PRIVATE, fd, 0);
        if (out->at == MAP_FAILED) err = dure_file_errno(diag, "map", path);
    }
    close(fd);
    return err;
}

/* What a part says of itself. A file that names no others is the only one of its model; so is one
 * with a count of 0, which tools leave that put parts together. */
typedef struct part_facts {
    uint32_t no, count, tensors;
} part_facts;

static dure_err read_facts(part_facts *out, const dure_gguf *g, dure_diag *diag)
{
    part_facts f = {0};
    *out = (part_facts){.count = 1, .tensors = (uint32_t)g->n_entries};
    if (!dure_gguf_has(g, KEY_COUNT)) return DURE_OK;
    dure_err err = dure_gguf_u32(&f.count, g, KEY_COUNT, diag);
    if (err || f.count <= 1) return err;
    err = dure_gguf_u32(&f.no, g, KEY_NO, diag);
    if (!err) err = dure_gguf_u32(&f.tensors, g, KEY_TENSORS, diag);
    if (!err && f.no >= f.count)
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "the key " KEY_NO " is %u of %u parts", f.no,
                            f.count);
    if (!err) *out = f;
    return err;
}

static dure_err check_first(const part_facts *facts, size_t n, dure_diag *diag)
{
    if (facts->no > 0)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "this is part %u of %u of a model; open the first part, "
                             "NAME-00001-of-%05u.gguf",
                             facts->no + 1, facts->count, facts->count);
    if (facts->count > 1 && n == 1)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "this is the first of %u parts, but its name does not end in "
                             "-00001-of-%05u.gguf; give the parts the names that they had",
                             facts->count, facts->count);
    if (facts->count != n)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "the model has %u parts by its metadata, but %zu by its name",
                             facts->count, n);
    return DURE_OK;
}

/* A part of another model, or in another place. */
static dure_err check_other(const dure_gguf *part, const dure_gguf *first, size_t i,
                            const part_facts *whole, dure_diag *diag)
{
    part_facts facts;
    dure_err err = read_facts(&facts, part, diag);
    if (err) return err;
    if (facts.no != i || facts.count != whole->count || facts.tensors != whole->tensors)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "part %zu of %u of a model with %u tensors is wanted, but the file "
                             "says that it is part %u of %u of one with %u",
                             i + 1, whole->count, whole->tensors, facts.no + 1, facts.count,
                             facts.tensors);
    for (size_t k = 0; k < part->n_values; k++) {
        const gguf_value *value = &part->values[k], *other = gguf_find_value(first, value->key);
        /* The numbers of the split were compared above; their widths may differ. */
        if (!other || !strncmp(value->key, "split.", 6)) continue;
        if (value->raw.n != other->raw.n || memcmp(value->raw.data, other->raw.data, value->raw.n))
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "the key %.96s has another value than in the first part: the "
                                 "file is of another model",
                                 value->key);
    }
    return DURE_OK;
}

/* Appends the tensors of `part`, whose data outlive it, to those of `first`. */
static dure_err append_tensors(dure_gguf *first, const dure_gguf *part, dure_diag *diag)
{
    size_t n = first->n_entries + part->n_entries;
    if (n > first->limits.max_tensors)
        return dure_diag_set(diag, DURE_ERR_LIMIT, "the parts have more tensors than the limit");
    gguf_entry *entries = realloc(first->entries, (n + 1) * sizeof *entries);
    if (!entries) return DURE_ERR_NOMEM;
    memcpy(entries + first->n_entries, part->entries, part->n_entries * sizeof *entries);
    for (size_t i = 0; i < n; i++)
        entries[i].tensor.name = entries[i].name;
    first->entries = entries;
    first->n_entries = n;
    return gguf_index_tensors(first, diag);
}

/* `names[i]`, where there are any, are for the errors. */
static dure_err parse_all(dure_gguf **out, const dure_span *parts, size_t n, char *const *names,
                          const dure_gguf_limits *limits, dure_diag *diag)
{
    dure_gguf *first = NULL, *part = NULL;
    part_facts whole;
    *out = NULL;
    const char *name = names ? names[0] : NULL;
    dure_err err = gguf_parse_file(&first, parts[0], limits, diag);
    if (!err) err = read_facts(&whole, first, diag);
    if (!err) err = check_first(&whole, n, diag);
    for (size_t i = 1; i < n && !err; i++) {
        name = names ? names[i] : NULL;
        err = gguf_parse_file(&part, parts[i], limits, diag);
        if (!err) err = check_other(part, first, i, &whole, diag);
        if (!err) err = append_tensors(first, part, diag);
        dure_gguf_close(&part);
    }
    if (!err && first->n_entries != whole.tensors) {
        name = names ? names[0] : NULL;
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "the model has %zu tensors, not %u",
                            first->n_entries, whole.tensors);
    }
    for (size_t i = 0; i < n && !err; i++)
        first->all_bytes += parts[i].n;
    if (err) {
        dure_gguf_close(&first);
        return name ? dure_diag_prefix(diag, err, "%s", name) : err;
    }
    *out = first;
    return DURE_OK;
}

dure_err dure_gguf_parse_parts(dure_gguf **out, const dure_span *parts, size_t n,
                               const dure_gguf_limits *limits, dure_diag *diag)
{
    DURE_ASSERT(n > 0);
    return parse_all(out, parts, n, NULL, limits, diag);
}

dure_err dure_gguf_parse(dure_gguf **out, dure_span bytes, const dure_gguf_limits *limits,
                         dure_diag *diag)
{
    return parse_all(out, &bytes, 1, NULL, limits, diag);
}

uint64_t dure_gguf_bytes(const dure_gguf *g)
{
    return g->all_bytes;
}

static dure_err map_part(gguf_map *map, char **name, const char *path, uint32_t i, dure_diag *diag)
{
    *name = dure_gguf_file_name(path, i);
    if (!*name) return DURE_ERR_NOMEM;
    dure_err err = map_file(map, *name, diag);
    if (err != DURE_ERR_NOT_FOUND || i == 0) return err;
    return dure_diag_set(diag, err, "%s, part %u of %u of the model, is missing; get it too", *name,
                         i + 1, dure_gguf_files_of(path));
}

dure_err dure_gguf_open(dure_gguf **out, const char *path, const dure_gguf_limits *limits,
                        dure_diag *diag)
{
    *out = NULL;
    uint32_t files = dure_gguf_files_of(path), mapped = 0;
    if (files > (limits ? limits : &dure_gguf_default_limits)->max_files)
        return dure_diag_set(diag, DURE_ERR_LIMIT, "%s: the model has too many parts", path);
    gguf_map *maps = calloc(files, sizeof *maps);
    dure_span *spans = calloc(files, sizeof *spans);
    char **names = calloc(files, sizeof *names);
    dure_err err = maps && spans && names ? DURE_OK : DURE_ERR_NOMEM;
    for (uint32_t i = 0; i < files && !err; i++) {
        err = map_part(&maps[i], &names[i], path, i, diag);
        if (err) break;
        spans[i] = dure_span_of(maps[i].at, maps[i].n);
        mapped++;
    }
    if (!err) err = parse_all(out, spans, files, names, limits, diag);
    if (err) {
        gguf_unmap(maps, mapped);
    } else {
        (*out)->maps = maps;
        (*out)->n_maps = files;
    }
    for (uint32_t i = 0; names && i < files; i++)
        free(names[i]);
    free(names);
    free(spans);
    return err;
}
