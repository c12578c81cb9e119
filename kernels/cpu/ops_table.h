/* The members of a dure_cpu_ops whose functions carry the members' names; no #pragma once, as
 * each level includes it inside its own initialiser. */
.gemm = gemm, .dequant = dequant, .transpose = transpose, .to_bf16 = to_bf16, .dot = dot,
    .rmsnorm = rmsnorm, .rmsnorm_backward = rmsnorm_backward, .swiglu = swiglu,
    .swiglu_backward = swiglu_backward, .softmax = softmax, .softmax_again = softmax_again,
    .softmax_backward = softmax_backward, .logsumexp = logsumexp, .exp_scaled = exp_scaled,
    .add = add, .axpy = axpy, .scale = scale_row, .adamw = adamw,
