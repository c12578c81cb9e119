#include "kernels/cuda/dropout.h"

#include "kernels/cuda/language.h"
#include "kernels/dropout.h"

enum { BLOCK = 256 };

/* A thread does the elements that one word decides. */
DURE_KERNEL(drop, dure_cuda_drop)
{
    size_t words = a.width / DURE_DROP_LANES, i = thread_number();
    if (i >= a.rows * words) return;
    size_t row = i / words, column = i % words * DURE_DROP_LANES;
    dure_drop mask;
    mask.key = dure_drop_row_key(a.seed[row], a.layer, a.input, a.position[row]);
    mask.threshold = a.threshold;
    for (size_t c = column; c < column + DURE_DROP_LANES; c++) {
        size_t at = row * a.width + c;
        int kept = dure_drop_keeps(&mask, c);
        if (a.y)
            a.y[at] = kept ? to_bf16(a.scale * from_bf16(a.x[at])) : 0;
        else if (kept)
            a.sum[at] += a.scale * a.apart[at];
    }
}

void dure_cuda_drop_run(dure_device *device, const dure_cuda_drop *args)
{
    size_t threads = args->rows * (args->width / DURE_DROP_LANES);
    DURE_LAUNCH(drop, dure_blocks_for(threads, BLOCK), 1, BLOCK, 0, dure_device_stream(device),
                *args);
    dure_device_launched(device);
}
