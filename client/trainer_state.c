/* What a run is bound to, and the file from which a killed one goes on. */
#include "client/trainer_int.h"
#include "common/file.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* magic, digest of the options, step, optimizer's step, first loss, best loss, best step,
 * evaluations since, the clip (of a plan that adapts it), factors, moments m and v, the best
 * factors (with an evaluation alone), SHA-256 of all before it. */
static const char magic[8] = {'d', 'u', 'r', 'e', 'r', 'u', 'n', '2'};

enum { HEAD_BYTES = sizeof magic + DURE_HASH_BYTES + 6 * 8 };

/* Floats are written as they lie in memory, little-endian like every machine Dure runs on. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files hold little-endian floats");

static void put_layout(dure_buf *buf, const dure_lora_layout *layout)
{
    const dure_model_shape *s = &layout->shape;
    dure_put_text(buf, s->architecture);
    dure_put_u32(buf, s->n_layers);
    dure_put_u32(buf, s->n_embd);
    dure_put_u32(buf, s->n_ff);
    dure_put_u32(buf, s->n_head);
    dure_put_u32(buf, s->n_head_kv);
    dure_put_u32(buf, s->head_dim);
    dure_put_u32(buf, s->n_vocab);
    dure_put_u32(buf, layout->rank);
    dure_put_f64(buf, (double)layout->alpha);
    dure_put_u32(buf, layout->targets);
    dure_put_u32(buf, layout->first_layer);
    for (int t = 0; t < DURE_LORA_TARGETS; t++)
        dure_put_u32(buf, layout->ranks[t]);
    dure_put_u8(buf, layout->dora);
}

static dure_err put_eval(dure_buf *buf, const dure_trainer_eval *eval)
{
    dure_hash data;
    dure_put_u64(buf, eval->every);
    dure_put_u64(buf, eval->steps);
    dure_put_u64(buf, eval->patience);
    dure_err err = dure_trainer_data_hash(&data, eval->data);
    dure_put_raw(buf, data.b, sizeof data.b);
    return err;
}

static dure_err put_opts(dure_buf *buf, const dure_trainer_opts *opts)
{
    dure_put_u8(buf, (uint8_t)opts->factors);
    dure_put_u8(buf, (uint8_t)opts->optimizer);
    dure_put_f64(buf, opts->learning_rate);
    dure_put_f64(buf, opts->weight_decay);
    dure_put_f64(buf, opts->momentum);
    dure_put_u8(buf, opts->plan != NULL);
    if (opts->plan) {
        dure_dp_plan_put(buf, opts->plan);
        if (opts->plan->mechanism == DURE_DP_POISSON_GAUSSIAN_SUBJECTS)
            dure_put_u32(buf, opts->per_subject);
    } else {
        dure_put_u64(buf, opts->batch);
        dure_put_u64(buf, opts->seed);
    }
    dure_put_u8(buf, opts->subject != NULL);
    if (opts->subject) dure_put_raw(buf, opts->subject->b, sizeof opts->subject->b);
    dure_put_u8(buf, (uint8_t)opts->schedule.kind);
    dure_put_u64(buf, opts->schedule.warmup_steps);
    dure_put_u64(buf, opts->schedule.kind == DURE_SCHEDULE_CONSTANT ? 0 : opts->schedule.steps);
    dure_put_f64(buf, opts->plan ? 0 : opts->clip_norm);
    dure_put_f64(buf, opts->dropout);
    dure_put_u8(buf, opts->eval != NULL);
    return opts->eval ? put_eval(buf, opts->eval) : DURE_OK;
}

/* The digest of the options and the adapter's layout. */
static dure_err options_hash(dure_hash *out, const dure_lora *lora, const dure_trainer_opts *opts)
{
    dure_buf text;
    dure_buf_init(&text, 4096);
    put_layout(&text, &lora->layout);
    dure_err err = put_opts(&text, opts);
    dure_span field = dure_buf_span(&text);
    if (!err) err = dure_buf_err(&text);
    if (!err) err = dure_hash_labeled(out, "dure/trainer/options/2", &field, 1);
    dure_buf_fini(&text);
    return err;
}

dure_err dure_trainer_settings_hash(dure_hash *out, const dure_lora *start,
                                    const dure_trainer_opts *opts, const dure_hash *base)
{
    dure_hash options;
    dure_trainer_opts bare = *opts;
    bare.subject = NULL; /* base and records are named by themselves */
    dure_err err = options_hash(&options, start, &bare);
    const dure_span fields[] = {dure_hash_span(&options), dure_hash_span(base),
                                dure_span_of(start->params, start->n * sizeof *start->params)};
    if (!err) err = dure_hash_labeled(out, "dure/trainer/settings/1", fields, 3);
    return err;
}

dure_err dure_trainer_data_hash(dure_hash *out, const dure_dataset *data)
{
    dure_hasher *hasher = NULL;
    uint64_t n = data->n;
    dure_err err = dure_hasher_new(&hasher);
    if (!err) err = dure_hasher_update(hasher, "dure/trainer/data/1", 19);
    if (!err) err = dure_hasher_update(hasher, &n, sizeof n);
    for (size_t i = 0; !err && i < data->n; i++) {
        dure_document doc = dure_dataset_document(data, i);
        uint64_t length = doc.n;
        err = dure_hasher_update(hasher, &length, sizeof length);
        if (!err) err = dure_hasher_update(hasher, doc.tokens, doc.n * sizeof *doc.tokens);
        if (!err) err = dure_hasher_update(hasher, doc.supervised, doc.n);
        if (!err && data->by_subject)
            err = dure_hasher_update(hasher, &data->records[i].subject,
                                     sizeof data->records[i].subject);
    }
    if (!err) err = dure_hasher_final(out, hasher);
    dure_hasher_free(&hasher);
    return err;
}

static bool adapts(const dure_trainer *t)
{
    return t->opts.plan && t->opts.plan->adaptive.count_sigma_num > 0;
}

static size_t head_bytes(const dure_trainer *t)
{
    return HEAD_BYTES + (adapts(t) ? sizeof(double) : 0);
}

size_t dure_trainer_state_bytes(const dure_trainer *t)
{
    size_t floats = t->lora->n + (t->opts.eval ? 3 : 2) * t->n;
    return head_bytes(t) + floats * sizeof(float) + DURE_HASH_BYTES;
}

static dure_err put_head(dure_buf *head, const dure_trainer *t)
{
    dure_hash options;
    dure_err err = options_hash(&options, t->lora, &t->opts);
    if (err) return err;
    dure_put_raw(head, magic, sizeof magic);
    dure_put_raw(head, options.b, sizeof options.b);
    dure_put_u64(head, t->step);
    dure_put_u64(head, t->moments.step);
    dure_put_f64(head, t->first_loss);
    dure_put_f64(head, t->verdict.best_loss);
    dure_put_u64(head, t->verdict.best_step);
    dure_put_u64(head, t->verdict.since_best);
    if (adapts(t)) dure_put_f64(head, t->now.clip);
    return dure_buf_err(head);
}

/* What follows the head. */
typedef struct part {
    float *values;
    size_t bytes;
} part;

enum { N_PARTS = 4 };

static void parts_of(part parts[N_PARTS], const dure_trainer *t)
{
    const size_t bytes = t->n * sizeof(float);
    parts[0] = (part){t->lora->params, t->lora->n * sizeof(float)};
    parts[1] = (part){t->moments.m, bytes};
    parts[2] = (part){t->moments.v, bytes};
    parts[3] = (part){t->verdict.best, t->opts.eval ? bytes : 0};
}

/* Part by part: a copy of the whole would be the most memory that a run ever takes. */
static dure_err write_state(const char *path, const dure_trainer *t, dure_span head,
                            dure_diag *diag)
{
    dure_file_writer file;
    dure_hasher *hasher = NULL;
    dure_hash sum;
    part parts[N_PARTS];
    parts_of(parts, t);
    dure_err err = dure_file_writer_init(&file, path, 0600, diag);
    if (!err) err = dure_hasher_new(&hasher);
    if (!err) err = dure_hasher_update(hasher, head.data, head.n);
    if (!err) err = dure_file_writer_put(&file, head, diag);
    for (size_t i = 0; !err && i < N_PARTS; i++) {
        err = dure_hasher_update(hasher, parts[i].values, parts[i].bytes);
        if (!err)
            err = dure_file_writer_put(&file, dure_span_of(parts[i].values, parts[i].bytes), diag);
    }
    if (!err) err = dure_hasher_final(&sum, hasher);
    if (!err) err = dure_file_writer_put(&file, dure_hash_span(&sum), diag);
    if (!err) err = dure_file_writer_commit(&file, diag);
    dure_hasher_free(&hasher);
    dure_file_writer_fini(&file);
    return err;
}

dure_err dure_trainer_save(const dure_trainer *trainer, const char *path, dure_diag *diag)
{
    dure_buf head;
    dure_buf_init(&head, head_bytes(trainer));
    dure_err err = put_head(&head, trainer);
    if (err)
        dure_diag_set(diag, err, "cannot save the state of the run to %s: %s", path,
                      dure_err_text(err));
    else
        err = write_state(path, trainer, dure_buf_span(&head), diag);
    dure_buf_fini(&head);
    return err;
}

/* A saved state as it is read: twice from its start, and part by part like it was written. */
typedef struct saved {
    FILE *file;
    const char *path;
    size_t bytes;
    dure_hasher *hasher; /* of what has been read from the start */
    uint8_t head[HEAD_BYTES + sizeof(double)];
    dure_diag *diag;
} saved;

static dure_err open_saved(saved *s)
{
    struct stat info;
    s->file = fopen(s->path, "rb");
    if (!s->file || fstat(fileno(s->file), &info)) return dure_file_errno(s->diag, "open", s->path);
    s->bytes = (size_t)info.st_size;
    return dure_hasher_new(&s->hasher);
}

static void close_saved(saved *s)
{
    if (s->file) fclose(s->file);
    dure_hasher_free(&s->hasher);
}

/* DURE_ERR_FORMAT if there are fewer. */
static dure_err read_bytes(saved *s, void *to, size_t n)
{
    if (fread(to, 1, n, s->file) == n) return DURE_OK;
    return ferror(s->file) ? dure_file_errno(s->diag, "read", s->path) : DURE_ERR_FORMAT;
}

static dure_err read_hashed(saved *s, void *to, size_t n)
{
    dure_err err = read_bytes(s, to, n);
    return err ? err : dure_hasher_update(s->hasher, to, n);
}

/* The sum at the end is that of all before it. */
static dure_err read_sum(saved *s)
{
    dure_hash want, sum;
    dure_err err = dure_hasher_final(&sum, s->hasher);
    if (!err) err = read_bytes(s, want.b, sizeof want.b);
    if (err) return err;
    return memcmp(sum.b, want.b, sizeof sum.b) ? DURE_ERR_FORMAT : DURE_OK;
}

/* Everything is checked before anything is taken over. */
static dure_err check_state(saved *s, const dure_trainer *t)
{
    dure_hash options;
    uint8_t block[16384];
    if (s->bytes > dure_trainer_state_bytes(t)) return DURE_ERR_STATE; /* no state of this run */
    if (s->bytes < HEAD_BYTES + DURE_HASH_BYTES) return DURE_ERR_FORMAT;
    size_t left = s->bytes - HEAD_BYTES - DURE_HASH_BYTES;
    dure_err err = read_hashed(s, s->head, HEAD_BYTES);
    while (!err && left > 0) {
        size_t n = left < sizeof block ? left : sizeof block;
        err = read_hashed(s, block, n);
        left -= n;
    }
    if (!err) err = read_sum(s);
    if (err) return err;
    /* The sum holds, so another magic is another version's. */
    if (memcmp(s->head, magic, sizeof magic) != 0) return DURE_ERR_STATE;
    err = options_hash(&options, t->lora, &t->opts);
    if (err) return err;
    if (memcmp(options.b, s->head + sizeof magic, sizeof options.b) != 0) return DURE_ERR_STATE;
    return s->bytes == dure_trainer_state_bytes(t) ? DURE_OK : DURE_ERR_FORMAT;
}

static dure_err take_head(dure_trainer *t, const saved *s)
{
    dure_reader r = dure_reader_of(dure_span_of(s->head, head_bytes(t)));
    r.at = sizeof magic + DURE_HASH_BYTES;
    dure_err err = dure_take_u64(&t->step, &r);
    if (!err) err = dure_take_u64(&t->moments.step, &r);
    if (!err) err = dure_take_f64(&t->first_loss, &r);
    if (!err) err = dure_take_f64(&t->verdict.best_loss, &r);
    if (!err) err = dure_take_u64(&t->verdict.best_step, &r);
    if (!err) err = dure_take_u64(&t->verdict.since_best, &r);
    if (!err && adapts(t)) err = dure_take_f64(&t->now.clip, &r);
    return err;
}

/* The sum is looked at again: what is taken over is what was checked. */
static dure_err take_state(dure_trainer *t, saved *s)
{
    part parts[N_PARTS];
    parts_of(parts, t);
    rewind(s->file);
    dure_err err = read_hashed(s, s->head, head_bytes(t));
    for (size_t i = 0; !err && i < N_PARTS; i++)
        err = read_hashed(s, parts[i].values, parts[i].bytes);
    dure_lora_changed(t->lora);
    if (!err) err = read_sum(s);
    if (!err) return take_head(t, s);
    if (err == DURE_ERR_FORMAT)
        err = dure_diag_set(s->diag, DURE_ERR_IO,
                            "%s was changed while it was read; start the run again", s->path);
    return err;
}

dure_err dure_trainer_load(dure_trainer *trainer, const char *path, dure_diag *diag)
{
    saved s = {.path = path, .diag = diag};
    dure_err err = open_saved(&s);
    if (!err) err = check_state(&s, trainer);
    if (!err)
        err = take_state(trainer, &s);
    else if (err == DURE_ERR_STATE)
        dure_diag_set(diag, err,
                      "%s belongs to a run with other settings, or of another version of dure; "
                      "remove its folder to start anew",
                      path);
    else if (err == DURE_ERR_FORMAT)
        dure_diag_set(diag, err, "%s is damaged: %s", path, dure_err_text(err));
    close_saved(&s);
    return err;
}
