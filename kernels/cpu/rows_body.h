/* Kernels over one row or one run of elements. Sums keep one vector of partial sums and add its
 * lanes at the end: their order depends on the length of the row alone. */
#pragma once

#include "kernels/compute.h"
#include "kernels/cpu/vec.h"

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

static void rmsnorm(float *y, const float *x, const float *w, size_t n, float eps)
{
    float r = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
    size_t i = 0;
    for (; i + W <= n; i += W)
        v_store(y + i, v_load(x + i) * v_set(r) * v_load(w + i));
    for (; i < n; i++)
        y[i] = x[i] * r * w[i];
}

/* dx += r (w . dy) - x (r^3 / n) sum(w . dy . x), r = 1 / sqrt(mean(x^2) + eps) */
static void rmsnorm_backward(float *dx, const float *dy, const float *x, const float *w, size_t n,
                             float eps)
{
    float r = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
    vec s = v_set(0);
    size_t i = 0;
    for (; i + W <= n; i += W)
        s = v_fma(v_load(w + i) * v_load(dy + i), v_load(x + i), s);
    if (i < n)
        s = v_fma(v_load_n(w + i, n - i) * v_load_n(dy + i, n - i), v_load_n(x + i, n - i), s);
    float pull = v_sum(s) * r * r * r / (float)n;
    for (i = 0; i + W <= n; i += W) {
        vec g = v_load(w + i) * v_load(dy + i) * v_set(r) - v_load(x + i) * v_set(pull);
        v_store(dx + i, v_load(dx + i) + g);
    }
    for (; i < n; i++)
        dx[i] += w[i] * dy[i] * r - x[i] * pull;
}

static inline vec sigmoid(vec x)
{
    return v_set(1) / (v_set(1) + v_exp(-x));
}

static void swiglu(float *h, const float *e, const float *u, size_t n)
{
    size_t i = 0;
    for (; i + W <= n; i += W) {
        vec x = v_load(e + i);
        v_store(h + i, x * sigmoid(x) * v_load(u + i));
    }
    if (i < n) {
        vec x = v_load_n(e + i, n - i);
        v_store_n(h + i, x * sigmoid(x) * v_load_n(u + i, n - i), n - i);
    }
}

/* du = dh silu(e), de = dh u sig(e) (1 + e (1 - sig(e))) */
static void swiglu_backward(float *de, float *du, const float *dh, const float *e, const float *u,
                            size_t n)
{
    for (size_t i = 0; i < n; i += W) {
        size_t left = n - i < W ? n - i : W;
        vec x = v_load_n(e + i, left), y = v_load_n(u + i, left), g = v_load_n(dh + i, left);
        vec s = sigmoid(x);
        v_store_n(du + i, g * x * s, left);
        v_store_n(de + i, g * y * s * (v_set(1) + x * (v_set(1) - s)), left);
    }
}

static float top_of(const float *x, size_t n)
{
    float top = -INFINITY;
    size_t i = 0;
    if (n >= W) {
        vec m = v_load(x);
        for (i = W; i + W <= n; i += W)
            m = v_max(m, v_load(x + i));
        top = v_top(m);
    }
    for (; i < n; i++)
        top = top > x[i] ? top : x[i];
    return top;
}

/* s = weight * exp(scale * s - lse); returns the sum before the weight. */
static float exp_row(float *s, size_t n, float scale, float lse, float weight)
{
    vec sum = v_set(0), k = v_set(scale), b = v_set(-lse), f = v_set(weight);
    size_t i = 0;
    for (; i + W <= n; i += W) {
        vec e = v_exp(v_fma(v_load(s + i), k, b));
        sum = sum + e;
        v_store(s + i, e * f);
    }
    float rest = 0;
    if (i < n) {
        float e[W];
        v_store(e, v_exp(v_fma(v_load_n(s + i, n - i), k, b)));
        for (size_t j = 0; j < n - i; j++) {
            rest += e[j];
            s[i + j] = e[j] * weight;
        }
    }
    return v_sum(sum) + rest;
}

static void scale_row(float *y, float a, size_t n)
{
    size_t i = 0;
    for (; i + W <= n; i += W)
        v_store(y + i, v_load(y + i) * v_set(a));
    for (; i < n; i++)
        y[i] *= a;
}

static float softmax(float *s, size_t n, float scale)
{
    float top = top_of(s, n) * scale;
    float sum = exp_row(s, n, scale, top, 1.0f);
    scale_row(s, 1.0f / sum, n);
    return top + logf(sum);
}

static void softmax_again(float *s, size_t n, float scale, float lse)
{
    exp_row(s, n, scale, lse, 1.0f);
}

static void softmax_backward(float *dp, const float *p, size_t n, float d, float scale)
{
    size_t i = 0;
    for (; i + W <= n; i += W)
        v_store(dp + i, v_load(p + i) * (v_load(dp + i) - v_set(d)) * v_set(scale));
    for (; i < n; i++)
        dp[i] = p[i] * (dp[i] - d) * scale;
}

static float logsumexp(const float *x, size_t n)
{
    /* Blocks of 1024 keep the float32 partial sums short; the blocks are added in double. */
    enum { BLOCK_WIDTH = 1024 };
    float top = top_of(x, n), e[W];
    double sum = 0;
    for (size_t i = 0; i < n; i += BLOCK_WIDTH) {
        size_t end = n - i < BLOCK_WIDTH ? n : i + BLOCK_WIDTH, j = i;
        vec part = v_set(0);
        for (; j + W <= end; j += W)
            part = part + v_exp(v_load(x + j) - v_set(top));
        sum += (double)v_sum(part);
        if (j == end) continue;
        v_store(e, v_exp(v_load_n(x + j, end - j) - v_set(top)));
        for (size_t k = 0; k < end - j; k++)
            sum += (double)e[k];
    }
    return (float)((double)top + log(sum));
}

static void exp_scaled(float *x, size_t n, float lse, float weight)
{
    exp_row(x, n, 1.0f, lse, weight);
}

static void add(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + W <= n; i += W)
        v_store(y + i, v_load(y + i) + v_load(x + i));
    for (; i < n; i++)
        y[i] += x[i];
}

static void axpy(float *y, float a, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + W <= n; i += W)
        v_store(y + i, v_fma(v_set(a), v_load(x + i), v_load(y + i)));
    if (i < n) {
        vec sum = v_fma(v_set(a), v_load_n(x + i, n - i), v_load_n(y + i, n - i));
        v_store_n(y + i, sum, n - i);
    }
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
