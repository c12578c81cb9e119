/* Gates and rotations: element by element, or pair by pair. After rows_body.h, whose loads and
 * stores of part of a vector it uses. */
#pragma once

#include "kernels/cpu/rows_body.h"

static inline vec sigmoid(vec x)
{
    return v_set(1) / (v_set(1) + v_exp(-x));
}

/* The gate's value and slope: x sig(x), or x sig(z) with z = 2 sqrt(2/pi) (x + 0.044715 x^3), which
 * is gelu in its form with tanh. */
static inline vec gate_at(vec x, vec *slope, bool gelu)
{
    const vec a = v_set(1.59576912f), b = v_set(0.0713548163f);
    vec z = x;
    if (gelu) z = z * v_fma(b, x * x, a);
    vec s = sigmoid(z), rest = x * (v_set(1) - s);
    if (gelu) rest = rest * v_fma(v_set(3) * b, x * x, a);
    *slope = s * (v_set(1) + rest);
    return x * s;
}

static inline void gated(act *to, const act *gate, const act *up, size_t n, bool gelu)
{
    vec slope;
    for (size_t i = 0; i < n; i += W)
        a_put(to + i, gate_at(a_some(gate + i, n - i), &slope, gelu) * a_some(up + i, n - i),
              n - i);
}

/* du = dh g(e), de = dh u g'(e) */
static inline void gated_backward(act *to, act *gate, act *up, const float *dh, size_t n, bool gelu)
{
    vec slope;
    for (size_t i = 0; i < n; i += W) {
        vec y = a_some(up + i, n - i), g = v_some(dh + i, n - i);
        vec value = gate_at(a_some(gate + i, n - i), &slope, gelu);
        a_put(to + i, value * y, n - i);
        a_put(up + i, g * value, n - i);
        a_put(gate + i, g * y * slope, n - i);
    }
}

static void swiglu(void *h, const void *e, const void *u, size_t n)
{
    gated(h, e, u, n, false);
}

static void swiglu_backward(void *h, void *e, void *u, const float *dh, size_t n)
{
    gated_backward(h, e, u, dh, n, false);
}

static void geglu(void *h, const void *e, const void *u, size_t n)
{
    gated(h, e, u, n, true);
}

static void geglu_backward(void *h, void *e, void *u, const float *dh, size_t n)
{
    gated_backward(h, e, u, dh, n, true);
}

static void rotate(float *restrict x, const float *restrict cos_sin, size_t n, float sign)
{
    size_t i = 0;
#if defined(__AVX512F__)
    for (; i + W <= n; i += W) {
        vec cs = v_load(cos_sin + i), a = v_load(x + i);
        vec s = _mm512_movehdup_ps(cs) * v_set(sign);
        vec turned = _mm512_permute_ps(a, 0xB1) * s;
        v_store(x + i, _mm512_fmaddsub_ps(a, _mm512_moveldup_ps(cs), turned));
    }
#endif
    for (; i < n; i += 2) {
        float c = cos_sin[i], s = cos_sin[i + 1] * sign, a = x[i], b = x[i + 1];
        x[i] = a * c - b * s;
        x[i + 1] = a * s + b * c;
    }
}

static void rotate_halves(float *x, const float *cos_sin, size_t n, float sign)
{
    float *restrict low = x, *restrict high = x + n / 2;
    const float *cosine = cos_sin, *sine = cos_sin + n / 2;
    for (size_t i = 0; i < n / 2; i += W) {
        size_t left = n / 2 - i;
        vec c = v_some(cosine + i, left), s = v_some(sine + i, left) * v_set(sign);
        vec a = v_some(low + i, left), b = v_some(high + i, left);
        v_put(low + i, a * c - b * s, left);
        v_put(high + i, a * s + b * c, left);
    }
}
