#include "kernels/lora.h"

void dure_lora_grad_a_run(const dure_lora_grad_a *g, dure_lora_rows doc, const dure_cpu_ops *ops)
{
    ops->gemm(&(dure_gemm){.c = g->da,
                           .ldc = g->in,
                           .a = g->dz + doc.first * g->lddz,
                           .a_row = 1,
                           .a_step = g->lddz,
                           .b = g->x + doc.first * g->ldx,
                           .ldb = g->ldx,
                           .m = g->rank,
                           .n = g->in,
                           .k = doc.n});
}

/* db^T = z^T dy has rows as long as dy's, which the micro-kernel likes; it is turned at the end. */
void dure_lora_grad_b_run(const dure_lora_grad_b *g, dure_lora_rows doc, float *scratch,
                          const dure_cpu_ops *ops)
{
    ops->gemm(&(dure_gemm){.c = scratch,
                           .ldc = g->out,
                           .a = g->z + doc.first * g->ldz,
                           .a_row = 1,
                           .a_step = g->ldz,
                           .b = g->dy + doc.first * g->lddy,
                           .ldb = g->lddy,
                           .m = g->rank,
                           .n = g->out,
                           .k = doc.n});
    ops->transpose(g->db, g->rank, scratch, g->out, g->rank, g->out);
}
