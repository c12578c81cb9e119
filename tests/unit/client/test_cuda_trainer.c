/* Private training on a GPU (emulated, or in a build with CUDA the machine's): what is clipped
 * there is what the host clips, and a GPU that does not keep what privacy counts on is refused. */
#include "client/device_proof.h"
#include "model/transformer_cuda.h"
#include "support/gpu.h"
#include "support/tiny_model.h"
#include "unit/client/trainer_fixture.h"
#ifdef DURE_TEST_EMULATED
#include "kernels/cuda/clip.h"
#include "kernels/cuda/emulated.h"
#endif

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 3, ROWS = 64, TOKENS = 40 };

/* A model of one layer, in passes of a few records: an emulated GPU is slow. */
static int on_gpu(void **state)
{
    const dure_transformer_opts opts = {
        .threads = 1, .precision = DURE_PRECISION_F32, .rows = ROWS};
    assert_int_equal(trainer_set_up(state), 0);
    fixture *f = *state;
    const char *path = temp_dir_file(&f->dir, "small.gguf");
    tiny_model_write(path, &(tiny_model_opts){.seed = 5, .n_layers = 1});
    dure_transformer_free(&f->model);
    dure_gguf_close(&f->gguf);
    assert_ok(dure_gguf_open(&f->gguf, path, NULL, &f->diag));
    assert_ok(dure_transformer_new(&f->model, f->gguf, &opts, &f->diag));
    if (dure_transformer_cuda_attach(f->model, 0, &f->diag)) fail_msg("%s", f->diag.text);
    return 0;
}

static const float *its_own(void *state, size_t record, const float *gradient)
{
    (void)record;
    size_t *calls = state;
    ++*calls;
    return gradient;
}

static dure_err keep(void *state, const dure_trainer_step *step)
{
    dure_trainer_step *kept = state;
    kept[step->step] = *step;
    return DURE_OK;
}

/* The same run twice: clipped on the GPU, and by the host, which a substitute asks for. `size` is
 * that of the adapter's numbers at the start. */
static void train_both_ways(fixture *f, int n_steps, float size, dure_trainer_step *steps)
{
    dure_trainer_step host_steps[STEPS];
    dure_lora *lora[2];
    size_t calls = 0;
    for (int host = 0; host < 2; host++) {
        lora[host] = fresh_lora(f);
        for (size_t i = 0; i < lora[host]->n; i++)
            lora[host]->params[i] = size * (float)((int)(i * 7919 % 201) - 100) * 0.01f;
        dure_lora_changed(lora[host]);
        dure_trainer_opts opts = private_opts(f, lora[host], (uint64_t)n_steps);
        f->plan.clip = 0.5;
        assert_ok(dure_dp_plan_set_batch(&f->plan, 4, RECORDS, NULL));
        assert_ok(dure_dp_adaptive_set(&f->plan.adaptive, 5, 0.3, 0.2, NULL));
        if (host) opts.substitute = its_own, opts.substitute_state = &calls;
        dure_trainer *t = trainer_of(f, lora[host], &opts);
        assert_ok(
            dure_trainer_run(t, (uint64_t)n_steps, keep, host ? host_steps : steps, &f->diag));
        dure_trainer_free(&t);
    }
    size_t records = 0;
    for (int s = 0; s < n_steps; s++) {
        records += steps[s].records;
        assert_int_equal(steps[s].records, host_steps[s].records);
        assert_int_equal(steps[s].refused, host_steps[s].refused);
        assert_int_equal(steps[s].refused_line, host_steps[s].refused_line);
        assert_memory_equal(&steps[s].clip, &host_steps[s].clip, sizeof(double));
        assert_true(steps[s].loss == host_steps[s].loss ||
                    (isnan(steps[s].loss) && isnan(host_steps[s].loss)));
    }
    assert_true(records > 0 && calls == records);
    assert_memory_equal(lora[0]->params, lora[1]->params, lora[0]->n * sizeof(float));
    dure_lora_free(&lora[0]);
    dure_lora_free(&lora[1]);
}

/* With a clip that follows the norms, of which the GPU tells. */
static void test_cuda_trainer_clips_as_the_host_does(void **state)
{
    fixture *f = *state;
    dure_trainer_step steps[STEPS];
    train_both_ways(f, STEPS, 0.1f, steps);
    for (int s = 0; s < STEPS; s++)
        assert_true(steps[s].refused == 0 && isfinite(steps[s].loss));
    assert_true(steps[STEPS - 1].clip != steps[0].clip);
}

/* An adapter whose products overflow: no gradient is finite, and noise alone moves it. */
static void test_cuda_trainer_leaves_out_what_is_not_finite(void **state)
{
    fixture *f = *state;
    dure_trainer_step step;
    train_both_ways(f, 1, 3e38f, &step);
    assert_true(step.records > 0 && step.refused == step.records);
}

/* --- the proof --- */

typedef struct question {
    dure_record record;
    dure_dataset data;
    dure_lora *lora;
    dure_trainer_opts opts;
    dure_trainer_task task;
} question;

static void make_question(question *q, fixture *f, double dropout)
{
    q->lora = fresh_lora(f);
    q->opts = (dure_trainer_opts){.factors = DURE_LORA_FACTOR_BOTH, .dropout = dropout};
    q->record = (dure_record){.n = TOKENS}; /* only how long they are is asked */
    q->data = (dure_dataset){.records = &q->record, .n = 1};
    q->task = (dure_trainer_task){
        .data = &q->data, .layout = &q->lora->layout, .opts = &q->opts, .is_private = true};
}

static void test_device_proof_lets_a_sound_gpu_pass(void **state)
{
    fixture *f = *state;
    question q;
    size_t records = 0;
    for (int dropout = 0; dropout < 2; dropout++) {
        make_question(&q, f, 0.2 * dropout);
        if (dure_device_proof(&records, f->model, &q.task, &f->diag)) fail_msg("%s", f->diag.text);
        assert_true(records >= 24);
        dure_lora_free(&q.lora);
    }
}

static void test_device_proof_is_of_gpus_alone(void **state)
{
    fixture *f = *state;
    question q;
    size_t records = 1;
    make_question(&q, f, 0);
    assert_ok(dure_device_proof(&records, f->model, &q.task, &f->diag));
    assert_int_equal(records, 0);
    dure_lora_free(&q.lora);
}

#ifdef DURE_TEST_EMULATED
static enum { SOUND, ONE_OFF, LEAVES_OUT, LETS_IN } fault;

void __real_dure_cuda_clip_run(dure_device *device, const dure_cuda_clip *args);
void __wrap_dure_cuda_clip_run(dure_device *device, const dure_cuda_clip *args);

/* The emulated GPU's memory is the host's. */
void __wrap_dure_cuda_clip_run(dure_device *device, const dure_cuda_clip *args)
{
    __real_dure_cuda_clip_run(device, args);
    if (fault == ONE_OFF && args->n_docs > 1) args->sum[args->n - 1]++;
    for (size_t d = 0; d < args->n_docs; d++) {
        if (fault == LEAVES_OUT) args->clipped[d].added = 0;
        if (fault == LETS_IN && !args->clipped[d].finite) args->clipped[d].added = 1;
    }
}

static void refuses(fixture *f, const char *why)
{
    question q;
    size_t records = 1;
    make_question(&q, f, 0);
    memset(&f->diag, 0, sizeof f->diag);
    assert_err(dure_device_proof(&records, f->model, &q.task, &f->diag), DURE_ERR_DEVICE);
    assert_int_equal(records, 0);
    if (!strstr(f->diag.text, why)) fail_msg("%s", f->diag.text);
    assert_non_null(strstr(f->diag.text, "--device cpu"));
    dure_lora_free(&q.lora);
}

/* Products whose sums depend on the number of rows: from a long record on, or in full passes alone.
 */
static void test_device_proof_refuses_sums_that_depend_on_the_rows(void **state)
{
    fixture *f = *state;
    static const size_t above[] = {12, 36, ROWS - 8};
    for (size_t i = 0; i < sizeof above / sizeof above[0]; i++) {
        dure_emulated_split_above(above[i]);
        refuses(f, "changes with the records beside it");
    }
    dure_emulated_split_above(SIZE_MAX);
}

static void test_device_proof_refuses_other_integers(void **state)
{
    fixture *f = *state;
    fault = ONE_OFF;
    refuses(f, "its clipped integers are not the CPU's");
    fault = LEAVES_OUT;
    refuses(f, "it clips other records than the CPU does");
    fault = LETS_IN;
    refuses(f, "it clips other records than the CPU does");
    fault = SOUND;
}
#endif

int main(void)
{
    dure_device *device = gpu_open(); /* skips where there is none */
    dure_device_close(&device);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_cuda_trainer_clips_as_the_host_does, on_gpu,
                                        trainer_tear_down),
        cmocka_unit_test_setup_teardown(test_cuda_trainer_leaves_out_what_is_not_finite, on_gpu,
                                        trainer_tear_down),
        cmocka_unit_test_setup_teardown(test_device_proof_lets_a_sound_gpu_pass, on_gpu,
                                        trainer_tear_down),
        cmocka_unit_test_setup_teardown(test_device_proof_is_of_gpus_alone, trainer_set_up,
                                        trainer_tear_down),
#ifdef DURE_TEST_EMULATED
        cmocka_unit_test_setup_teardown(test_device_proof_refuses_sums_that_depend_on_the_rows,
                                        on_gpu, trainer_tear_down),
        cmocka_unit_test_setup_teardown(test_device_proof_refuses_other_integers, on_gpu,
                                        trainer_tear_down),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
