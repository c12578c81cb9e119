/* kernels/cuda/device.h with CUDA's runtime and cuBLASLt. */
#include "kernels/cuda/device.h"

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Products whose algorithm is known; a model has a few dozen shapes. */
enum { PLANS_MOST = 512, OLDEST_MAJOR = 8 };
static const size_t workspace_bytes = (size_t)64 << 20;
/* The number of rows that an algorithm is chosen for, whatever the rows of a call. */
static const size_t usual_rows = 4096;

typedef struct plan {
    size_t n, k, lda, ldw, ldc;
    int as_is, rounded;
    cublasLtMatmulAlgo_t algo;
} plan;

/* What was allocated, to be freed with the device. */
typedef struct allocation {
    void *at;
    struct allocation *next;
} allocation;

struct dure_device {
    int index;
    char name[256];
    cudaStream_t stream;
    cublasLtHandle_t blas;
    void *workspace;
    allocation *memory;
    plan plans[PLANS_MOST];
    size_t n_plans;
    char failed[256]; /* empty: nothing has */
};

static void fail(dure_device *d, const char *what, const char *why)
{
    if (!d->failed[0]) snprintf(d->failed, sizeof d->failed, "%s failed: %s", what, why);
}

static void check(dure_device *d, cudaError_t err, const char *what)
{
    if (err != cudaSuccess) fail(d, what, cudaGetErrorString(err));
}

static void check_blas(dure_device *d, cublasStatus_t status, const char *what)
{
    if (status != CUBLAS_STATUS_SUCCESS) fail(d, what, cublasLtGetStatusString(status));
}

static dure_err find_device(int index, dure_device *d, dure_diag *diag)
{
    int n = 0;
    cudaError_t err = cudaGetDeviceCount(&n);
    if (err != cudaSuccess)
        return dure_diag_set(diag, DURE_ERR_DEVICE, "no GPU can be used: %s",
                             cudaGetErrorString(err));
    if (index < 0 || index >= n)
        return dure_diag_set(diag, DURE_ERR_DEVICE, "there is no GPU number %d; there %s %d", index,
                             n == 1 ? "is" : "are", n);
    cudaDeviceProp properties;
    err = cudaGetDeviceProperties(&properties, index);
    if (err != cudaSuccess)
        return dure_diag_set(diag, DURE_ERR_DEVICE, "GPU %d cannot be asked what it is: %s", index,
                             cudaGetErrorString(err));
    snprintf(d->name, sizeof d->name, "%s", properties.name);
    if (properties.major < OLDEST_MAJOR)
        return dure_diag_set(
            diag, DURE_ERR_DEVICE,
            "the %s has compute capability %d.%d; Dure needs 8.0 (Ampere) or newer", d->name,
            properties.major, properties.minor);
    return DURE_OK;
}

extern "C" dure_err dure_device_open(dure_device **out, int index, dure_diag *diag)
{
    *out = NULL;
    dure_device *d = (dure_device *)calloc(1, sizeof *d);
    if (!d) return DURE_ERR_NOMEM;
    d->index = index;
    dure_err err = find_device(index, d, diag);
    if (!err) {
        check(d, cudaSetDevice(index), "choosing the GPU");
        check(d, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "making a queue");
        if (!d->failed[0]) check_blas(d, cublasLtCreate(&d->blas), "starting cuBLASLt");
        if (!d->failed[0])
            check(d, cudaMalloc(&d->workspace, workspace_bytes), "taking memory for cuBLASLt");
        if (d->failed[0])
            err = dure_diag_set(diag, DURE_ERR_DEVICE, "the GPU %s cannot be used: %s", d->name,
                                d->failed);
    }
    if (err) dure_device_close(&d);
    *out = d;
    return err;
}

extern "C" void dure_device_close(dure_device **device)
{
    dure_device *d = *device;
    if (!d) return;
    if (d->stream) (void)cudaStreamSynchronize(d->stream);
    for (allocation *a = d->memory, *next; a; a = next) {
        next = a->next;
        (void)cudaFree(a->at);
        free(a);
    }
    if (d->workspace) (void)cudaFree(d->workspace);
    if (d->blas) (void)cublasLtDestroy(d->blas);
    if (d->stream) (void)cudaStreamDestroy(d->stream);
    free(d);
    *device = NULL;
}

extern "C" const char *dure_device_name(const dure_device *device)
{
    return device->name;
}

extern "C" size_t dure_device_room(const dure_device *device)
{
    size_t room = 0, all = 0;
    if (cudaSetDevice(device->index) != cudaSuccess) return 0;
    return cudaMemGetInfo(&room, &all) == cudaSuccess ? room : 0;
}

extern "C" dure_err dure_device_new(void **out, dure_device *d, size_t bytes, dure_diag *diag)
{
    *out = NULL;
    allocation *a = (allocation *)calloc(1, sizeof *a);
    if (!a) return DURE_ERR_NOMEM;
    cudaError_t err = cudaSetDevice(d->index);
    if (err == cudaSuccess) err = cudaMalloc(&a->at, bytes ? bytes : 1);
    if (err == cudaSuccess) {
        a->next = d->memory;
        d->memory = a;
        *out = a->at;
        return DURE_OK;
    }
    free(a);
    (void)cudaGetLastError(); /* it is told here, and no launch after it failed */
    if (err != cudaErrorMemoryAllocation)
        return dure_diag_set(diag, DURE_ERR_DEVICE, "taking memory on the GPU failed: %s",
                             cudaGetErrorString(err));
    return dure_diag_set(diag, DURE_ERR_NOMEM,
                         "the GPU has %.0f MB free, and %.0f MB more are needed",
                         (double)dure_device_room(d) / 1e6, (double)bytes / 1e6);
}

extern "C" void dure_device_free(dure_device *d, void *memory)
{
    for (allocation **at = &d->memory; memory && *at; at = &(*at)->next) {
        allocation *a = *at;
        if (a->at != memory) continue;
        *at = a->next;
        check(d, cudaFree(memory), "giving memory back");
        free(a);
        return;
    }
}

static void copy(dure_device *d, void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    if (d->failed[0] || bytes == 0) return;
    check(d, cudaSetDevice(d->index), "choosing the GPU"); /* for this thread */
    check(d, cudaMemcpyAsync(to, from, bytes, kind, d->stream), "a copy");
}

extern "C" void dure_device_upload(dure_device *d, void *to, const void *from, size_t bytes)
{
    copy(d, to, from, bytes, cudaMemcpyHostToDevice);
}

extern "C" void dure_device_copy(dure_device *d, void *to, const void *from, size_t bytes)
{
    copy(d, to, from, bytes, cudaMemcpyDeviceToDevice);
}

extern "C" void dure_device_download(dure_device *d, void *to, const void *from, size_t bytes)
{
    copy(d, to, from, bytes, cudaMemcpyDeviceToHost);
}

extern "C" void dure_device_zero(dure_device *d, void *at, size_t bytes)
{
    if (d->failed[0] || bytes == 0) return;
    check(d, cudaSetDevice(d->index), "choosing the GPU");
    check(d, cudaMemsetAsync(at, 0, bytes, d->stream), "clearing memory");
}

extern "C" dure_err dure_device_wait(dure_device *d, dure_diag *diag)
{
    if (!d->failed[0]) check(d, cudaStreamSynchronize(d->stream), "the GPU's work");
    if (!d->failed[0]) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_DEVICE, "the GPU %s: %s", d->name, d->failed);
}

extern "C" int dure_device_failed(const dure_device *d)
{
    return d->failed[0] != 0;
}

extern "C" void *dure_device_stream(dure_device *d)
{
    (void)cudaSetDevice(d->index);
    return d->stream;
}

extern "C" void dure_device_launched(dure_device *d)
{
    check(d, cudaGetLastError(), "starting a kernel");
}

/* --- products --- */

/* cuBLASLt counts in columns: a row-major matrix is its transpose there. So C^T[n x m] is the
 * product of W (turned, unless as it is) and A^T. */
typedef struct layouts {
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t w, a, c;
} layouts;

static void make_layouts(layouts *l, dure_device *d, const dure_device_product *p, size_t rows)
{
    cublasOperation_t turn = p->as_is ? CUBLAS_OP_N : CUBLAS_OP_T;
    cudaDataType_t out = p->rounded ? CUDA_R_16BF : CUDA_R_32F;
    memset(l, 0, sizeof *l);
    check_blas(d, cublasLtMatmulDescCreate(&l->product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
               "a product");
    if (d->failed[0]) return;
    check_blas(
        d,
        cublasLtMatmulDescSetAttribute(l->product, CUBLASLT_MATMUL_DESC_TRANSA, &turn, sizeof turn),
        "a product");
    check_blas(d,
               cublasLtMatrixLayoutCreate(&l->w, CUDA_R_16BF, p->as_is ? p->n : p->k,
                                          p->as_is ? p->k : p->n, (int64_t)p->ldw),
               "a product");
    check_blas(d, cublasLtMatrixLayoutCreate(&l->a, CUDA_R_16BF, p->k, rows, (int64_t)p->lda),
               "a product");
    check_blas(d, cublasLtMatrixLayoutCreate(&l->c, out, p->n, rows, (int64_t)p->ldc), "a product");
}

static void free_layouts(layouts *l)
{
    if (l->c) (void)cublasLtMatrixLayoutDestroy(l->c);
    if (l->a) (void)cublasLtMatrixLayoutDestroy(l->a);
    if (l->w) (void)cublasLtMatrixLayoutDestroy(l->w);
    if (l->product) (void)cublasLtMatmulDescDestroy(l->product);
}

/* The first algorithm that adds each sum in one piece, for the usual number of rows. */
static void choose_algorithm(plan *out, dure_device *d, const dure_device_product *p)
{
    layouts l;
    cublasLtMatmulPreference_t wish = NULL;
    cublasLtMatmulHeuristicResult_t found;
    uint32_t whole = CUBLASLT_REDUCTION_SCHEME_NONE, alignment = 16;
    int n = 0;
    make_layouts(&l, d, p, usual_rows);
    check_blas(d, cublasLtMatmulPreferenceCreate(&wish), "choosing an algorithm");
    if (!d->failed[0]) {
        cublasLtMatmulPreferenceAttributes_t at[] = {
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
        check_blas(d,
                   cublasLtMatmulPreferenceSetAttribute(wish,
                                                        CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                        &workspace_bytes, sizeof workspace_bytes),
                   "choosing an algorithm");
        check_blas(d,
                   cublasLtMatmulPreferenceSetAttribute(
                       wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &whole, sizeof whole),
                   "choosing an algorithm");
        for (int i = 0; i < 4; i++)
            check_blas(
                d, cublasLtMatmulPreferenceSetAttribute(wish, at[i], &alignment, sizeof alignment),
                "choosing an algorithm");
    }
    if (!d->failed[0])
        check_blas(d,
                   cublasLtMatmulAlgoGetHeuristic(d->blas, l.product, l.w, l.a, l.c, l.c, wish, 1,
                                                  &found, &n),
                   "choosing an algorithm");
    if (!d->failed[0] && n == 0) fail(d, "choosing an algorithm", "there is none for this product");
    if (!d->failed[0]) out->algo = found.algo;
    if (wish) (void)cublasLtMatmulPreferenceDestroy(wish);
    free_layouts(&l);
}

static const plan *plan_for(dure_device *d, const dure_device_product *p)
{
    for (size_t i = 0; i < d->n_plans; i++) {
        const plan *at = &d->plans[i];
        if (at->n == p->n && at->k == p->k && at->lda == p->lda && at->ldw == p->ldw &&
            at->ldc == p->ldc && at->as_is == p->as_is && at->rounded == p->rounded)
            return at;
    }
    if (d->n_plans == PLANS_MOST) {
        fail(d, "a product", "the model has too many shapes of matrices");
        return NULL;
    }
    plan *at = &d->plans[d->n_plans];
    at->n = p->n;
    at->k = p->k;
    at->lda = p->lda;
    at->ldw = p->ldw;
    at->ldc = p->ldc;
    at->as_is = p->as_is;
    at->rounded = p->rounded;
    choose_algorithm(at, d, p);
    if (d->failed[0]) return NULL;
    d->n_plans++;
    return at;
}

extern "C" void dure_device_multiply(dure_device *d, const dure_device_product *p)
{
    const float one = 1.0f, beta = p->add ? 1.0f : 0.0f;
    if (d->failed[0] || p->m == 0 || p->n == 0) return;
    check(d, cudaSetDevice(d->index), "choosing the GPU");
    const plan *plan = plan_for(d, p);
    if (!plan) return;
    layouts l;
    make_layouts(&l, d, p, p->m);
    if (!d->failed[0])
        check_blas(d,
                   cublasLtMatmul(d->blas, l.product, &one, p->w, l.w, p->a, l.a, &beta, p->c, l.c,
                                  p->c, l.c, &plan->algo, d->workspace, workspace_bytes, d->stream),
                   "a product");
    free_layouts(&l);
}
