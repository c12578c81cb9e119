/* The tables of the compiled levels; kernels/compute.c chooses among them. */
#pragma once

#include "kernels/compute.h"

extern const dure_cpu_ops dure_cpu_reference, dure_cpu_portable;
#if defined(DURE_X86)
extern const dure_cpu_ops dure_cpu_avx2, dure_cpu_avx512, dure_cpu_avx512_bf16;
#endif
