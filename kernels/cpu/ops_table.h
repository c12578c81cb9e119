/* The members of a dure_cpu_ops whose functions carry the members' names; no #pragma once, as
 * each level includes it inside its own initialiser. */
.act_bytes = sizeof(act), .width = W, .group = G, .rows = MR, .gemm = gemm, .dots = dots,
    .pack_nt = pack_nt, .pack_nn = pack_nn, .pack_nt_f32 = pack_nt_f32, .pack_nn_f32 = pack_nn_f32,
    .repack = REPACK, .dequant = dequant, .transpose = transpose, .to_bf16 = to_bf16,
    .store = store, .load = load, .dot = dot, .dot_acts = dot_acts, .rmsnorm = rmsnorm,
    .rmsnorm_again = rmsnorm_again, .norm = norm, .rmsnorm_backward = rmsnorm_backward,
    .swiglu = swiglu, .swiglu_backward = swiglu_backward, .geglu = geglu,
    .geglu_backward = geglu_backward, .rotate = rotate, .rotate_halves = rotate_halves,
    .softmax = softmax, .softmax_backward = softmax_backward, .exp_part = exp_part,
    .scale_acts = scale_acts, .add = add, .axpy = axpy, .scale = scale_row, .adamw = adamw,
    .drop = drop, .add_kept = add_kept,
