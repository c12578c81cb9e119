/* Kernels over one row or one run of elements. Sums keep one vector of partial sums and add its
 * lanes at the end: their order depends on the length of the row alone. */
#pragma once

#include "kernels/compute.h"
#include "kernels/cpu/act.h"

#include <math.h>

/* The compiler makes vector code of this loop at every level. */
static void to_bf16(uint16_t *restrict y, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, x + i, sizeof u);
        uint32_t rounded = u + 0x7FFF + (u >> 16 & 1);
        /* Rounding would turn some NaNs into infinities; they stay NaN. */
        y[i] = (uint16_t)(((u & 0x7FFFFFFF) > 0x7F800000 ? u | 0x400000 : rounded) >> 16);
    }
}

/* Loads and stores of up to W elements; the compiler drops the test where n is known. */
static inline vec v_some(const float *p, size_t n)
{
    return n >= W ? v_load(p) : v_load_n(p, n);
}
static inline void v_put(float *p, vec x, size_t n)
{
    if (n >= W)
        v_store(p, x);
    else
        v_store_n(p, x, n);
}
static inline vec a_some(const act *p, size_t n)
{
    return n >= W ? a_load(p) : a_load_n(p, n);
}
static inline void a_put(act *p, vec x, size_t n)
{
    if (n >= W)
        a_store(p, x);
    else
        a_store_n(p, x, n);
}

static void store(void *y, const float *x, size_t n, float scale)
{
    act *to = y;
    for (size_t i = 0; i < n; i += W)
        a_put(to + i, v_some(x + i, n - i) * v_set(scale), n - i);
}

static void load(float *y, const void *x, size_t n)
{
    const act *from = x;
    for (size_t i = 0; i < n; i += W)
        v_put(y + i, a_some(from + i, n - i), n - i);
}

static float dot(const float *x, const float *y, size_t n)
{
    vec s[4] = {v_set(0), v_set(0), v_set(0), v_set(0)};
    size_t i = 0;
    for (; i + 4 * W <= n; i += 4 * W)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            s[j] = v_fma(v_load(x + i + j * W), v_load(y + i + j * W), s[j]);
    for (; i + W <= n; i += W)
        s[0] = v_fma(v_load(x + i), v_load(y + i), s[0]);
    if (i < n) s[1] = v_fma(v_load_n(x + i, n - i), v_load_n(y + i, n - i), s[1]);
    return v_sum((s[0] + s[1]) + (s[2] + s[3]));
}

static float dot_acts(const void *x, const void *y, size_t n)
{
    const act *a = x, *b = y;
    vec even = v_set(0), odd = v_set(0);
    size_t i = 0;
    for (; i + 2 * W <= n; i += 2 * W) {
        even = v_fma(a_load(a + i), a_load(b + i), even);
        odd = v_fma(a_load(a + i + W), a_load(b + i + W), odd);
    }
    for (; i < n; i += W)
        even = v_fma(a_some(a + i, n - i), a_some(b + i, n - i), even);
    return v_sum(even + odd);
}

static void rmsnorm(void *y, void *kept, const float *x, const float *w, size_t n, float eps)
{
    act *to = y, *copy = kept;
    vec r = v_set(1.0f / sqrtf(dot(x, x, n) / (float)n + eps));
    for (size_t i = 0; i < n; i += W) {
        vec v = v_some(x + i, n - i);
        if (copy) a_put(copy + i, v, n - i);
        a_put(to + i, v * r * v_some(w + i, n - i), n - i);
    }
}

static void norm(float *y, void *kept, const float *x, const float *w, size_t n, float eps)
{
    vec r = v_set(1.0f / sqrtf(dot(x, x, n) / (float)n + eps));
    if (kept) store(kept, x, n, 1.0f);
    for (size_t i = 0; i < n; i += W)
        v_put(y + i, v_some(x + i, n - i) * r * v_some(w + i, n - i), n - i);
}

static void rmsnorm_again(void *y, const void *kept, const float *w, size_t n, float eps)
{
    const act *x = kept;
    act *to = y;
    vec r = v_set(1.0f / sqrtf(dot_acts(x, x, n) / (float)n + eps));
    for (size_t i = 0; i < n; i += W)
        a_put(to + i, a_some(x + i, n - i) * r * v_some(w + i, n - i), n - i);
}

/* dx += r (w . dy) - x (r^3 / n) sum(w . dy . x), r = 1 / sqrt(mean(x^2) + eps) */
static void rmsnorm_backward(float *dx, void *out, const float *dy, const void *kept,
                             const float *w, size_t n, float eps)
{
    const act *x = kept;
    act *to = out;
    float r = 1.0f / sqrtf(dot_acts(x, x, n) / (float)n + eps);
    vec s = v_set(0);
    for (size_t i = 0; i < n; i += W)
        s = v_fma(v_some(w + i, n - i) * v_some(dy + i, n - i), a_some(x + i, n - i), s);
    vec pull = v_set(v_sum(s) * r * r * r / (float)n), turn = v_set(r);
    for (size_t i = 0; i < n; i += W) {
        vec g = v_some(w + i, n - i) * v_some(dy + i, n - i) * turn - a_some(x + i, n - i) * pull;
        g = v_some(dx + i, n - i) + g;
        v_put(dx + i, g, n - i);
        if (to) a_put(to + i, g, n - i);
    }
}

static void scale_row(float *y, float a, size_t n)
{
    for (size_t i = 0; i < n; i += W)
        v_put(y + i, v_some(y + i, n - i) * v_set(a), n - i);
}

static void scale_acts(void *x, float by, size_t n)
{
    act *y = x;
    for (size_t i = 0; i < n; i += W)
        a_put(y + i, a_some(y + i, n - i) * v_set(by), n - i);
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += W)
        v_put(y + i, v_some(y + i, n - i) + v_some(x + i, n - i), n - i);
}

static void axpy(float *y, float a, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += W)
        v_put(y + i, v_fma(v_set(a), v_some(x + i, n - i), v_some(y + i, n - i)), n - i);
}

static void adamw(float *w, float *m, float *v, const float *g, size_t n, const dure_adamw_step *s)
{
    for (size_t i = 0; i < n; i += W) {
        size_t left = n - i < W ? n - i : W;
        vec x = v_load_n(w + i, left), gi = v_load_n(g + i, left);
        vec mi = v_set(s->beta1) * v_load_n(m + i, left) + v_set(1 - s->beta1) * gi;
        vec vi = v_set(s->beta2) * v_load_n(v + i, left) + v_set(1 - s->beta2) * gi * gi;
        vec root = v_sqrt(vi * v_set(s->inverse_correction2)) + v_set(s->epsilon);
        x = x - v_set(s->decay) * x - v_set(s->step_size) * mi / root;
        v_store_n(m + i, mi, left);
        v_store_n(v + i, vi, left);
        v_store_n(w + i, x, left);
    }
}
