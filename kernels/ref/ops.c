/* The leaf kernels in plain C, one element after the other: the truth that every vector version
 * is tested against, and the floor for a CPU that has none. Activations are float32. */
#include "kernels/compute.h"
#include "kernels/cpu/levels.h"
#include "kernels/ref/dequant_body.h"

#include <math.h>

typedef float act;
enum { W = 4, G = 1, MR = 4 };

static void gemm(const dure_gemm *g)
{
    for (size_t i = 0; i < g->m; i++)
        for (size_t j = 0; j < g->n; j++) {
            float *c = &g->c[i * g->ldc + j], sum = 0;
            const float *a = (const float *)g->a + i * g->a_row;
            const float *b = (const float *)g->b + j / W * g->b_panel + j % W;
            for (size_t p = 0; p < g->k; p++)
                sum = fmaf(a[p * g->a_step], b[p * W], sum);
            const float *a2 = (const float *)g->a2 + i * g->a2_row;
            const float *b2 = (const float *)g->b2 + j / W * g->b2_panel + j % W;
            for (size_t p = 0; p < g->k2; p++)
                sum = fmaf(a2[p], b2[p * W], sum);
            *c = g->accumulate ? *c + sum : sum;
        }
}

static void dots(const dure_dots *d)
{
    for (size_t i = 0; i < d->m; i++)
        for (size_t j = 0; j < d->n; j++) {
            const float *x = (const float *)d->x + i * d->ldx,
                        *y = (const float *)d->y + j * d->ldy;
            double sum = 0;
            for (size_t k = 0; k < d->k; k++)
                sum += (double)x[k] * (double)y[k];
            d->c[i * d->ldc + j] = (float)sum;
        }
}

static void pack_nt(const dure_pack *p)
{
    for (size_t j = 0; j < dure_round_up(p->n, W); j++)
        for (size_t k = 0; k < p->k; k++)
            ((float *)p->to.at)[j / W * p->to.panel + k * W + j % W] =
                j < p->n ? ((const float *)p->x)[j * p->ld + k] : 0;
}

static void pack_nn(const dure_pack *p)
{
    for (size_t j = 0; j < dure_round_up(p->n, W); j++)
        for (size_t k = 0; k < p->k; k++)
            ((float *)p->to.at)[j / W * p->to.panel + k * W + j % W] =
                j < p->n ? ((const float *)p->x)[k * p->ld + j] : 0;
}

/* Activations are float32. */
static void pack_nt_f32(const dure_pack *p)
{
    pack_nt(p);
}
static void pack_nn_f32(const dure_pack *p)
{
    pack_nn(p);
}
#define REPACK NULL

static void transpose(float *to, size_t width, const float *rows, size_t ld, size_t n, size_t k)
{
    for (size_t p = 0; p < k; p++)
        for (size_t r = 0; r < width; r++)
            to[p * width + r] = r < n ? rows[r * ld + p] : 0;
}

static void to_bf16(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = dure_float_to_bf16(x[i]);
}

static void store(void *y, const float *x, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++)
        ((float *)y)[i] = scale * x[i];
}

static void load(float *y, const void *x, size_t n)
{
    memcpy(y, x, n * sizeof *y);
}

static float dot(const float *x, const float *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return (float)sum;
}

static float dot_acts(const void *x, const void *y, size_t n)
{
    return dot(x, y, n);
}

static void rmsnorm_again(void *y, const void *kept, const float *w, size_t n, float eps)
{
    const float *x = kept;
    float r = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        ((float *)y)[i] = x[i] * r * w[i];
}

static void rmsnorm(void *y, void *kept, const float *x, const float *w, size_t n, float eps)
{
    if (kept) memcpy(kept, x, n * sizeof *x);
    rmsnorm_again(y, x, w, n, eps);
}

static void norm(float *y, void *kept, const float *x, const float *w, size_t n, float eps)
{
    rmsnorm(y, kept, x, w, n, eps);
}

static void rmsnorm_backward(float *dx, void *out, const float *dy, const void *kept,
                             const float *w, size_t n, float eps)
{
    const float *x = kept;
    double r = 1.0 / sqrt((double)dot(x, x, n) / (double)n + (double)eps), sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)w[i] * (double)dy[i] * (double)x[i];
    double pull = sum * r * r * r / (double)n;
    for (size_t i = 0; i < n; i++)
        dx[i] += (float)((double)w[i] * (double)dy[i] * r - (double)x[i] * pull);
    if (out) memcpy(out, dx, n * sizeof *dx);
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static void swiglu(void *h, const void *e, const void *u, size_t n)
{
    const float *gate = e, *up = u;
    for (size_t i = 0; i < n; i++)
        ((float *)h)[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

static void swiglu_backward(void *h, void *e, void *u, const float *dh, size_t n)
{
    float *to = h, *gate = e, *up = u;
    for (size_t i = 0; i < n; i++) {
        float x = gate[i], y = up[i], s = sigmoid(x);
        to[i] = x * s * y;
        up[i] = dh[i] * x * s;
        gate[i] = dh[i] * y * s * (1 + x * (1 - s));
    }
}

/* gelu in its form with tanh, and its slope. */
static float gelu(float at, float *slope)
{
    double x = (double)at, a = 0.79788456080286536, t = tanh(a * (x + 0.044715 * x * x * x));
    *slope = (float)(0.5 * (1 + t) + 0.5 * x * (1 - t * t) * a * (1 + 3 * 0.044715 * x * x));
    return (float)(0.5 * x * (1 + t));
}

static void geglu(void *h, const void *e, const void *u, size_t n)
{
    const float *gate = e, *up = u;
    float slope;
    for (size_t i = 0; i < n; i++)
        ((float *)h)[i] = gelu(gate[i], &slope) * up[i];
}

static void geglu_backward(void *h, void *e, void *u, const float *dh, size_t n)
{
    float *to = h, *gate = e, *up = u, slope;
    for (size_t i = 0; i < n; i++) {
        float y = up[i], value = gelu(gate[i], &slope);
        to[i] = value * y;
        up[i] = dh[i] * value;
        gate[i] = dh[i] * y * slope;
    }
}

static void rotate_halves(float *x, const float *cos_sin, size_t n, float sign)
{
    size_t half = n / 2;
    for (size_t i = 0; i < half; i++) {
        float c = cos_sin[i], s = cos_sin[half + i] * sign, a = x[i], b = x[half + i];
        x[i] = a * c - b * s;
        x[half + i] = a * s + b * c;
    }
}

static void rotate(float *x, const float *cos_sin, size_t n, float sign)
{
    for (size_t i = 0; i < n; i += 2) {
        float c = cos_sin[i], s = cos_sin[i + 1] * sign, a = x[i], b = x[i + 1];
        x[i] = a * c - b * s;
        x[i + 1] = a * s + b * c;
    }
}

/* y = exp(scale x - max), the largest of scale x; returns the sum. */
static double exp_row(float *y, float *max, const float *x, size_t n, float scale)
{
    double sum = 0;
    *max = -INFINITY;
    for (size_t i = 0; i < n; i++)
        *max = fmaxf(*max, scale * x[i]);
    for (size_t i = 0; i < n; i++) {
        y[i] = expf(scale * x[i] - *max);
        sum += (double)y[i];
    }
    return sum;
}

static float softmax(void *p, float *s, size_t seen, size_t padded, float scale)
{
    float *to = p, max;
    double sum = exp_row(to, &max, s, seen, scale);
    for (size_t i = 0; i < padded; i++)
        to[i] = i < seen ? (float)((double)to[i] / sum) : 0;
    return (float)((double)max + log(sum));
}

static void softmax_backward(void *p, void *ds, const dure_score_row *row)
{
    float *prob = p, *out = ds;
    for (size_t i = 0; i < row->padded; i++) {
        bool seen = i < row->seen;
        prob[i] = seen ? expf(row->scale * row->s[i] - row->lse) : 0;
        out[i] = seen ? prob[i] * (row->dp[i] - row->d) * row->scale : 0;
    }
}

static float exp_part(void *e, float *max, const float *x, size_t n)
{
    return (float)exp_row(e, max, x, n, 1.0f);
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

static void scale_acts(void *x, float by, size_t n)
{
    scale_row(x, by, n);
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

static void drop(void *y, const void *x, size_t n, const dure_drop *d)
{
    for (size_t i = 0; i < n; i++)
        ((float *)y)[i] = dure_drop_keeps(d, i) ? ((const float *)x)[i] : 0;
}

static void add_kept(float *y, const float *x, size_t column, size_t n, const dure_drop *d)
{
    for (size_t i = 0; i < n; i++)
        if (dure_drop_keeps(d, column + i)) y[i] += x[i];
}

const dure_cpu_ops dure_cpu_reference = {
    .name = "reference",
#include "kernels/cpu/ops_table.h"
};
