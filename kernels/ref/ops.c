/* The leaf kernels in plain C, one element after the other: the truth that every vector version
 * is tested against, and the floor for a CPU that has none. */
#include "kernels/compute.h"
#include "kernels/cpu/levels.h"
#include "kernels/ref/dequant_body.h"

#include <math.h>

static void gemm(const dure_gemm *g)
{
    for (size_t i = 0; i < g->m; i++)
        for (size_t j = 0; j < g->n; j++) {
            float *c = &g->c[i * g->ldc + j], sum = 0;
            for (size_t p = 0; p < g->k; p++)
                sum = fmaf(g->a[i * g->a_row + p * g->a_step], g->b[p * g->ldb + j], sum);
            *c = g->accumulate ? *c + sum : sum;
        }
}

static void transpose(float *panel, size_t width, const float *rows, size_t ld, size_t n, size_t k)
{
    for (size_t p = 0; p < k; p++)
        for (size_t r = 0; r < width; r++)
            panel[p * width + r] = r < n ? rows[r * ld + p] : 0;
}

static void to_bf16(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = dure_float_to_bf16(x[i]);
}

static float dot(const float *x, const float *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return (float)sum;
}

static void rmsnorm(float *y, const float *x, const float *w, size_t n, float eps)
{
    float r = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * r * w[i];
}

static void rmsnorm_backward(float *dx, const float *dy, const float *x, const float *w, size_t n,
                             float eps)
{
    double r = 1.0 / sqrt((double)dot(x, x, n) / (double)n + (double)eps), sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)w[i] * (double)dy[i] * (double)x[i];
    double pull = sum * r * r * r / (double)n;
    for (size_t i = 0; i < n; i++)
        dx[i] += (float)((double)w[i] * (double)dy[i] * r - (double)x[i] * pull);
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static void swiglu(float *h, const float *e, const float *u, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h[i] = e[i] * sigmoid(e[i]) * u[i];
}

static void swiglu_backward(float *de, float *du, const float *dh, const float *e, const float *u,
                            size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = e[i], y = u[i], s = sigmoid(x);
        du[i] = dh[i] * x * s;
        de[i] = dh[i] * y * s * (1 + x * (1 - s));
    }
}

static float logsumexp(const float *x, size_t n)
{
    float top = -INFINITY;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        top = fmaxf(top, x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - (double)top);
    return (float)((double)top + log(sum));
}

static void softmax_again(float *s, size_t n, float scale, float lse)
{
    for (size_t i = 0; i < n; i++)
        s[i] = expf(scale * s[i] - lse);
}

static float softmax(float *s, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++)
        s[i] *= scale;
    float lse = logsumexp(s, n);
    softmax_again(s, n, 1.0f, lse);
    return lse;
}

static void softmax_backward(float *dp, const float *p, size_t n, float d, float scale)
{
    for (size_t i = 0; i < n; i++)
        dp[i] = p[i] * (dp[i] - d) * scale;
}

static void exp_scaled(float *x, size_t n, float lse, float weight)
{
    for (size_t i = 0; i < n; i++)
        x[i] = weight * expf(x[i] - lse);
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void axpy(float *y, float a, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = fmaf(a, x[i], y[i]);
}

static void scale_row(float *y, float a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] *= a;
}

static void adamw(float *w, float *m, float *v, const float *g, size_t n, const dure_adamw_step *s)
{
    for (size_t i = 0; i < n; i++) {
        m[i] = s->beta1 * m[i] + (1 - s->beta1) * g[i];
        v[i] = s->beta2 * v[i] + (1 - s->beta2) * g[i] * g[i];
        float root = sqrtf(v[i] * s->inverse_correction2) + s->epsilon;
        w[i] = w[i] - s->decay * w[i] - s->step_size * m[i] / root;
    }
}

const dure_cpu_ops dure_cpu_reference = {
    .name = "reference",
#include "kernels/cpu/ops_table.h"
};
