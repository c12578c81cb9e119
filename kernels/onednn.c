#include "kernels/onednn.h"

#include <dlfcn.h>
#include <dnnl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Version 3 made memory descriptors opaque and folded operation descriptors into the primitive
 * descriptor. `descriptor` is what a function that takes one wants, in either version. */
#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t descriptor;
typedef const_dnnl_memory_desc_t const_descriptor;

static bool describe(descriptor *out, size_t a, size_t b, dnnl_data_type_t type,
                     dnnl_format_tag_t tag)
{
    const dnnl_dims_t dims = {(dnnl_dim_t)a, (dnnl_dim_t)b};
    return dnnl_memory_desc_create_with_tag(out, 2, dims, type, tag) == dnnl_success;
}

static void forget(descriptor *d)
{
    dnnl_memory_desc_destroy(*d);
}

static bool describe_product(dnnl_primitive_desc_t *out, dnnl_engine_t engine, descriptor input,
                             descriptor weights, descriptor result, const_dnnl_primitive_attr_t how)
{
    return dnnl_matmul_primitive_desc_create(out, engine, input, weights, NULL, result, how) ==
           dnnl_success;
}
#else
typedef dnnl_memory_desc_t storage;
typedef const dnnl_memory_desc_t *const_descriptor;
typedef storage *descriptor;

static bool describe(descriptor *out, size_t a, size_t b, dnnl_data_type_t type,
                     dnnl_format_tag_t tag)
{
    const dnnl_dims_t dims = {(dnnl_dim_t)a, (dnnl_dim_t)b};
    *out = malloc(sizeof **out);
    return *out && dnnl_memory_desc_init_by_tag(*out, 2, dims, type, tag) == dnnl_success;
}

static void forget(descriptor *d)
{
    free(*d);
}

static bool describe_product(dnnl_primitive_desc_t *out, dnnl_engine_t engine, descriptor input,
                             descriptor weights, descriptor result, const_dnnl_primitive_attr_t how)
{
    dnnl_matmul_desc_t product;
    return dnnl_matmul_desc_init(&product, input, weights, NULL, result) == dnnl_success &&
           dnnl_primitive_desc_create(out, &product, how, engine, NULL) == dnnl_success;
}
#endif

static dnnl_engine_t engine;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* OpenMP's omp_set_num_threads(), for the calling thread; NULL when oneDNN runs without OpenMP. It
 * is looked up because it comes with whatever OpenMP the library itself was linked to. */
static void (*set_team)(int threads);

static void alone(void)
{
    if (set_team) set_team(1);
}

static void make_engine(void)
{
    void *found = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    memcpy(&set_team, &found, sizeof set_team);
    alone();
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success) engine = NULL;
}

struct dure_onednn_product {
    dnnl_primitive_t primitive;
    descriptor input, result;
    dnnl_memory_t weights;
    void *packed;             /* what `weights` points at */
    const_descriptor scratch; /* of one run, borrowed from the primitive */
};

/* Threads run one primitive at the same time. Scratch that oneDNN manages would be one for all of
 * them, and what one thread puts there another would read: every run brings its own. The kernels
 * of the gradient path need about a kilobyte, which is on the stack. */
enum { SCRATCH_ON_STACK = 8192 };

/* Everything that is made on the way to a primitive. */
typedef struct plan {
    descriptor input, any, result;
    dnnl_primitive_attr_t how;
    dnnl_primitive_desc_t desc;
} plan;

static void plan_fini(plan *p)
{
    if (p->desc) dnnl_primitive_desc_destroy(p->desc);
    if (p->how) dnnl_primitive_attr_destroy(p->how);
    if (p->input) forget(&p->input);
    if (p->any) forget(&p->any);
    if (p->result) forget(&p->result);
    *p = (plan){0};
}

static const char *name_of(const plan *p)
{
    const char *name = NULL;
    dnnl_primitive_desc_query(p->desc, dnnl_query_impl_info_str, 0, (void *)&name);
    return name ? name : "";
}

/* False when oneDNN has no implementation that `shape` accepts. */
static bool plan_make(plan *p, const dure_onednn_shape *shape)
{
    *p = (plan){0};
    pthread_once(&once, make_engine);
    alone();
    bool made = engine && describe(&p->input, shape->rows, shape->inner, dnnl_bf16, dnnl_ab) &&
                describe(&p->any, shape->inner, shape->outer, dnnl_bf16, dnnl_format_tag_any) &&
                describe(&p->result, shape->rows, shape->outer, dnnl_f32, dnnl_ab) &&
                dnnl_primitive_attr_create(&p->how) == dnnl_success &&
                dnnl_primitive_attr_set_scratchpad_mode(p->how, dnnl_scratchpad_mode_user) ==
                    dnnl_success &&
                describe_product(&p->desc, engine, p->input, p->any, p->result, p->how);
    if (made && (!shape->only_brg || !strncmp(name_of(p), "brg", 3))) return true;
    plan_fini(p);
    return false;
}

bool dure_onednn_find(char name[64], const dure_onednn_shape *shape)
{
    plan p;
    if (!plan_make(&p, shape)) return false;
    snprintf(name, 64, "%s", name_of(&p));
    plan_fini(&p);
    return true;
}

void dure_onednn_version(char text[32])
{
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, 32, "%d.%d.%d", v->major, v->minor, v->patch);
}

/* Reorders M from float32 into the packed layout that the primitive asked for. */
static bool fill(dnnl_memory_t to, const_descriptor packed, const dure_onednn_shape *shape,
                 const float *m)
{
    union {
        const float *given;
        void *handle;
    } data = {.given = m};
    descriptor plain = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t from = NULL;
    dnnl_stream_t stream = NULL;
    bool done = describe(&plain, shape->inner, shape->outer, dnnl_f32,
                         shape->outer_major ? dnnl_ba : dnnl_ab) &&
                dnnl_memory_create(&from, plain, engine, data.handle) == dnnl_success &&
                dnnl_reorder_primitive_desc_create(&desc, plain, engine, packed, engine, NULL) ==
                    dnnl_success &&
                dnnl_primitive_create(&reorder, desc) == dnnl_success &&
                dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success;
    if (done) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
        done = dnnl_primitive_execute(reorder, stream, 2, args) == dnnl_success &&
               dnnl_stream_wait(stream) == dnnl_success;
    }
    if (stream) dnnl_stream_destroy(stream);
    if (reorder) dnnl_primitive_destroy(reorder);
    if (desc) dnnl_primitive_desc_destroy(desc);
    if (from) dnnl_memory_destroy(from);
    if (plain) forget(&plain);
    return done;
}

static bool run_with(const dure_onednn_product *p, void *result, void *input, void *scratch)
{
    dnnl_memory_t from = NULL, to = NULL, room = NULL;
    dnnl_stream_t stream = NULL;
    alone();
    bool done = dnnl_memory_create(&from, p->input, engine, input) == dnnl_success &&
                dnnl_memory_create(&to, p->result, engine, result) == dnnl_success &&
                dnnl_memory_create(&room, p->scratch, engine, scratch) == dnnl_success &&
                dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success;
    if (done) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, from},
                                  {DNNL_ARG_WEIGHTS, p->weights},
                                  {DNNL_ARG_DST, to},
                                  {DNNL_ARG_SCRATCHPAD, room}};
        done = dnnl_primitive_execute(p->primitive, stream, 4, args) == dnnl_success &&
               dnnl_stream_wait(stream) == dnnl_success;
    }
    if (stream) dnnl_stream_destroy(stream);
    if (room) dnnl_memory_destroy(room);
    if (to) dnnl_memory_destroy(to);
    if (from) dnnl_memory_destroy(from);
    return done;
}

static bool run(const dure_onednn_product *p, void *result, void *input)
{
    _Alignas(64) uint8_t stack[SCRATCH_ON_STACK];
    size_t bytes = dnnl_memory_desc_get_size(p->scratch);
    if (bytes <= sizeof stack) return run_with(p, result, input, stack);
    void *heap = aligned_alloc(64, (bytes + 63) / 64 * 64);
    bool done = heap && run_with(p, result, input, heap);
    free(heap);
    return done;
}

/* One run on zeros: a product that cannot run is found before anything depends on it. */
static bool try_once(const dure_onednn_product *p, const dure_onednn_shape *shape)
{
    void *input = calloc(shape->rows * shape->inner, sizeof(uint16_t));
    void *result = calloc(shape->rows * shape->outer, sizeof(float));
    bool done = input && result && run(p, result, input);
    free(input);
    free(result);
    return done;
}

static dure_err build(dure_onednn_product *p, plan *made, const dure_onednn_shape *shape,
                      const float *m)
{
    const_descriptor packed = dnnl_primitive_desc_query_md(made->desc, dnnl_query_weights_md, 0);
    p->packed = aligned_alloc(64, (dnnl_memory_desc_get_size(packed) + 63) / 64 * 64);
    if (!p->packed) return DURE_ERR_NOMEM;
    if (dnnl_memory_create(&p->weights, packed, engine, p->packed) != dnnl_success ||
        !fill(p->weights, packed, shape, m) ||
        dnnl_primitive_create(&p->primitive, made->desc) != dnnl_success)
        return DURE_ERR_DEVICE;
    const_dnnl_primitive_desc_t own = NULL;
    if (dnnl_primitive_get_primitive_desc(p->primitive, &own) != dnnl_success)
        return DURE_ERR_DEVICE;
    p->scratch = dnnl_primitive_desc_query_md(own, dnnl_query_scratchpad_md, 0);
    p->input = made->input;
    p->result = made->result;
    made->input = made->result = NULL;
    return try_once(p, shape) ? DURE_OK : DURE_ERR_DEVICE;
}

dure_err dure_onednn_product_new(dure_onednn_product **out, const dure_onednn_shape *shape,
                                 const float *m)
{
    plan made;
    *out = NULL;
    if (!plan_make(&made, shape)) return DURE_ERR_UNSUPPORTED;
    dure_onednn_product *p = calloc(1, sizeof *p);
    dure_err err = p ? build(p, &made, shape, m) : DURE_ERR_NOMEM;
    plan_fini(&made);
    if (err)
        dure_onednn_product_free(&p);
    else
        *out = p;
    return err;
}

void dure_onednn_product_free(dure_onednn_product **product)
{
    dure_onednn_product *p = *product;
    if (!p) return;
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    if (p->weights) dnnl_memory_destroy(p->weights);
    if (p->input) forget(&p->input);
    if (p->result) forget(&p->result);
    free(p->packed);
    free(p);
    *product = NULL;
}

void dure_onednn_product_run(const dure_onednn_product *product, float *result,
                             const uint16_t *input)
{
    union {
        const uint16_t *given;
        void *handle;
    } data = {.given = input};
    bool done = run(product, result, data.handle);
    DURE_ASSERT(done);
}
