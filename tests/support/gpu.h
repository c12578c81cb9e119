/* A GPU for tests: the emulated one, or in a build with CUDA the first of the machine. Without any,
 * the program ends as skipped. */
#pragma once

#include "kernels/cuda/device.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

dure_device *gpu_open(void);
/* Whether what runs is the emulation. */
bool gpu_is_emulated(void);
/* From now on the emulation runs blocks and threads last to first; nothing on hardware. */
void gpu_reverse(bool reverse);

/* Memory of the device with these bytes in it; with NULL, whatever is there. */
void *gpu_new(dure_device *device, const void *from, size_t bytes);
void gpu_read(void *to, dure_device *device, const void *from, size_t bytes);

/* Uniform in (-size, size), rounded to bfloat16, from a fixed sequence; and as bfloat16. */
void gpu_fill(float *x, size_t n, float size);
/* n bfloat16 of x on the device. */
uint16_t *gpu_new_bf16(dure_device *device, const float *x, size_t n);
void gpu_read_bf16(float *to, dure_device *device, const uint16_t *from, size_t n);

/* n floats so filled, all 0 for size 0; the caller's. */
float *gpu_floats(size_t n, float size);
/* All finite, and no further apart than `relative` times the largest of y. */
void gpu_near(const float *x, const float *y, size_t n, double relative);
