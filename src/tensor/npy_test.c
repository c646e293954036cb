/* Tests of .npy: what NumPy writes is read back, and every truncation and lie is refused. SPDX-License-Identifier: Apache-2.0 */
#include "tensor/npy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* Exactly what numpy.save(f, numpy.arange(6, dtype='<f4').reshape(2, 3)) writes, apart from the number of spaces. */
static size_t sample(unsigned char *to, const char *dictionary)
{
    static const float values[6] = {0, 1, 2, 3, 4, 5};
    size_t n = strlen(dictionary);
    memcpy(to, "\x93NUMPY\x01\x00", 8);
    to[8] = (unsigned char)n;
    to[9] = 0;
    memcpy(to + 10, dictionary, n);
    memcpy(to + 10 + n, values, sizeof values);
    return 10 + n + sizeof values;
}

static void numpys_own(void **state)
{
    (void)state;
    unsigned char bytes[256];
    struct tensor t;
    size_t n = sample(bytes, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n");
    assert_int_equal(npy_parse("a.npy", bytes, n, &t), ERR_OK);
    assert_int_equal(t.dtype, TENSOR_F32);
    assert_int_equal(t.shape.rank, 2);
    assert_int_equal(t.shape.dims[1], 3);
    float last;
    memcpy(&last, (const char *)t.data + 20, 4);
    assert_true(last == 5);
    for (size_t cut = 0; cut < n; cut++) assert_true(npy_parse("a.npy", bytes, cut, &t) < 0);
}

static void lies_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *dictionary;
        err want;
    } t[] = {{"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", ERR_UNSUPPORTED},
             {"{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }", ERR_UNSUPPORTED},
             {"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }", ERR_UNSUPPORTED},
             {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }", ERR_FORMAT},
             {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }", ERR_LIMIT},
             {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3), }", ERR_FORMAT},
             {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", ERR_LIMIT},
             {"{'descr': '<f4', 'fortran_order': False}", ERR_FORMAT},
             {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3", ERR_FORMAT},
             {"{'other': 1}", ERR_FORMAT},
             {"", ERR_FORMAT}};
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        unsigned char bytes[256];
        struct tensor view;
        size_t n = sample(bytes, t[i].dictionary);
        assert_int_equal(npy_parse("a.npy", bytes, n, &view), t[i].want);
    }
}

static void saved_is_loaded(void **state)
{
    (void)state;
    char path[] = "/tmp/brim-npy-XXXXXX";
    close(mkstemp(path));
    for (int rank = 0; rank <= 4; rank++) {
        int64_t dims[] = {2, 3, 1, 5}, data[30];
        struct tensor_shape s = tensor_shape_of(rank, dims);
        for (int i = 0; i < 30; i++) data[i] = (int64_t)i * 1000000007;
        struct tensor t = tensor_view(TENSOR_I64, &s, data), u;
        void *owned;
        assert_int_equal(npy_save(path, &t), ERR_OK);
        assert_int_equal(npy_load(path, 1 << 20, &u, &owned), ERR_OK);
        assert_true(tensor_shape_equal(&t.shape, &u.shape));
        assert_memory_equal(u.data, data, (size_t)tensor_count(&s) * 8);
        free(owned);
        assert_int_equal(npy_load(path, 16, &u, &owned), ERR_LIMIT);
    }
    unlink(path);
    struct tensor t;
    void *owned;
    assert_int_equal(npy_load(path, 1 << 20, &t, &owned), ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(numpys_own), cmocka_unit_test(lies_are_refused),
                                       cmocka_unit_test(saved_is_loaded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
