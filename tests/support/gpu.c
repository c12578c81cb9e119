#include "support/gpu.h"

#include "kernels/dequant.h"
#include "support/check.h"
#ifdef DURE_TEST_EMULATED
#include "kernels/cuda/emulated.h"
#endif

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

bool gpu_is_emulated(void)
{
#ifdef DURE_TEST_EMULATED
    return true;
#else
    return false;
#endif
}

void gpu_reverse(bool reverse)
{
#ifdef DURE_TEST_EMULATED
    dure_emulated_reverse(reverse);
#else
    (void)reverse;
#endif
}

dure_device *gpu_open(void)
{
    dure_diag diag = {{0}};
    dure_device *device = NULL;
    if (dure_device_open(&device, 0, &diag)) {
        printf("SKIPPED: %s\n", diag.text);
        exit(77);
    }
    return device;
}

void *gpu_new(dure_device *device, const void *from, size_t bytes)
{
    void *at = NULL;
    assert_ok(dure_device_new(&at, device, bytes, NULL));
    if (from) dure_device_upload(device, at, from, bytes);
    assert_ok(dure_device_wait(device, NULL));
    return at;
}

void gpu_read(void *to, dure_device *device, const void *from, size_t bytes)
{
    dure_diag diag = {{0}};
    dure_device_download(device, to, from, bytes);
    dure_err err = dure_device_wait(device, &diag);
    if (err) print_error("%s\n", diag.text);
    assert_ok(err);
}

void gpu_fill(float *x, size_t n, float size)
{
    static uint64_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        float uniform = (float)(state >> 40) * 0x1p-23f - 1.0f;
        x[i] = dure_bf16_to_float(dure_float_to_bf16(size * uniform));
    }
}

uint16_t *gpu_new_bf16(dure_device *device, const float *x, size_t n)
{
    uint16_t *rounded = malloc(n * sizeof *rounded);
    assert_non_null(rounded);
    for (size_t i = 0; i < n; i++)
        rounded[i] = dure_float_to_bf16(x[i]);
    void *at = gpu_new(device, rounded, n * sizeof *rounded);
    free(rounded);
    return at;
}

void gpu_read_bf16(float *to, dure_device *device, const uint16_t *from, size_t n)
{
    uint16_t *rounded = malloc(n * sizeof *rounded);
    assert_non_null(rounded);
    gpu_read(rounded, device, from, n * sizeof *rounded);
    for (size_t i = 0; i < n; i++)
        to[i] = dure_bf16_to_float(rounded[i]);
    free(rounded);
}

float *gpu_floats(size_t n, float size)
{
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    gpu_fill(x, n, size);
    return x;
}

void gpu_near(const float *x, const float *y, size_t n, double relative)
{
    double size = 1e-30, error = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(isfinite(x[i]) && isfinite(y[i]));
        size = fmax(size, fabs((double)y[i]));
        error = fmax(error, fabs((double)x[i] - (double)y[i]));
    }
    if (error > relative * size) print_error("error %g of %g\n", error, size);
    assert_true(error <= relative * size);
}
