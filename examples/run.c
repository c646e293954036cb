/* The C API in one page: classifies one picture of zeros with any image model and says what it took.
 *
 *     cc run.c -o run $(pkg-config --cflags --libs brim) && ./run model.onnx
 */
#include <brim.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    brim_model *model = NULL;
    brim_plan *plan = NULL;
    brim_tensor in = BRIM_TENSOR_INIT, out = BRIM_TENSOR_INIT;
    brim_memory memory = BRIM_MEMORY_INIT;
    if (argc != 2) return fprintf(stderr, "usage: run MODEL.onnx\n"), 2;

    /* 1. Open it, and plan it for the shapes that the file has (or those you give). */
    if (brim_model_open(argv[1], NULL, &model) || brim_plan_new(model, NULL, &plan)) goto failed;

    /* 2. Write the first input through its view: any strides, in bytes. Here: zeros everywhere. */
    for (int i = 0; i < brim_model_input_count(model); i++) {
        if (brim_plan_input(plan, i, &in)) goto failed;
        for (size_t k = 0; k < in.bytes; k++)
            ((unsigned char *)in.data)[k] = 0;
    }

    /* 3. Run it, and look at the first output, again without a copy. */
    if (brim_run(plan, NULL, 0, NULL, 0) || brim_plan_output(plan, 0, &out)) goto failed;
    printf("%s: output 0 is %s, rank %d, %zu bytes\n", argv[1], brim_dtype_name(out.dtype), out.rank, out.bytes);

    /* 4. What did it take? */
    if (brim_plan_memory(plan, &memory)) goto failed;
    printf("weights %llu, activations %llu, scratch %llu, code %llu bytes; %.3f GFLOP in %d kernels\n",
           (unsigned long long)memory.weights, (unsigned long long)memory.activations,
           (unsigned long long)memory.scratch, (unsigned long long)memory.code, (double)memory.flops / 1e9,
           memory.kernels);
    brim_plan_free(&plan);
    brim_model_free(&model);
    return 0;
failed:
    fprintf(stderr, "run: %s\n", brim_error_text());
    brim_plan_free(&plan);
    brim_model_free(&model);
    return 1;
}
