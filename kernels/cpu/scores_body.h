/* Softmax over rows of attention scores and over blocks of logits. Sums keep one vector of partial
 * sums and add its lanes at the end: their order depends on the length of the row alone. */
#pragma once

#include "kernels/cpu/rows_body.h"

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

static inline void clear(act *x, size_t n)
{
    memset(x, 0, n * sizeof *x);
}

static float softmax(void *p, float *s, size_t seen, size_t padded, float scale)
{
    act *to = p;
    float top = top_of(s, seen) * scale, rest = 0;
    vec sum = v_set(0), k = v_set(scale), b = v_set(-top);
    size_t i = 0;
    for (; i + W <= seen; i += W) {
        vec e = v_exp(v_fma(v_load(s + i), k, b));
        sum = sum + e;
        v_store(s + i, e);
    }
    if (i < seen) {
        v_store_n(s + i, v_exp(v_fma(v_load_n(s + i, seen - i), k, b)), seen - i);
        for (; i < seen; i++)
            rest += s[i];
    }
    float total = v_sum(sum) + rest;
    store(to, s, seen, 1.0f / total);
    clear(to + seen, padded - seen);
    return top + logf(total);
}

static void softmax_backward(void *p, void *ds, const dure_score_row *row)
{
    act *prob = p, *out = ds;
    size_t n = row->seen;
    vec k = v_set(row->scale), b = v_set(-row->lse), d = v_set(row->d);
    for (size_t i = 0; i < n; i += W) {
        vec e = v_exp(v_fma(v_some(row->s + i, n - i), k, b));
        a_put(prob + i, e, n - i);
        a_put(out + i, e * (v_some(row->dp + i, n - i) - d) * k, n - i);
    }
    clear(prob + n, row->padded - n);
    clear(out + n, row->padded - n);
}

static float exp_part(void *e, float *max, const float *x, size_t n)
{
    act *to = e;
    *max = top_of(x, n);
    vec sum = v_set(0), b = v_set(*max);
    float rest = 0;
    size_t i = 0;
    for (; i + W <= n; i += W) {
        vec y = v_exp(v_load(x + i) - b);
        sum = sum + y;
        a_store(to + i, y);
    }
    if (i < n) {
        float last[W];
        vec y = v_exp(v_load_n(x + i, n - i) - b);
        v_store(last, y);
        a_store_n(to + i, y, n - i);
        for (size_t j = 0; j < n - i; j++)
            rest += last[j];
    }
    return v_sum(sum) + rest;
}
