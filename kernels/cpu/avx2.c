/* The vector kernels as compiled with the flags of this level, see kernels/CMakeLists.txt. */
#include "kernels/cpu/dots_body.h"
#include "kernels/cpu/drop_body.h"
#include "kernels/cpu/gates_body.h"
#include "kernels/cpu/gemm_body.h"
#include "kernels/cpu/pack_body.h"
#include "kernels/cpu/rows_body.h"
#include "kernels/cpu/scores_body.h"
#include "kernels/ref/dequant_body.h"

#include "kernels/cpu/levels.h"

const dure_cpu_ops dure_cpu_avx2 = {
    .name = "avx2",
#include "kernels/cpu/ops_table.h"
};
