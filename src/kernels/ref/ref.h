/* Plain C: what its files share.
 *
 * Numbers are computed in four *domains*, whatever type they are stored in: f32 (float32, float16, bfloat16),
 * f64, i64 (all integers and bool) and u64. `ref_get` and `ref_put` convert rows of up to REF_CHUNK elements
 * between storage and domain; for float32 in contiguous rows nothing is converted and nothing is copied.
 *
 * Element-wise work walks a *loop*: the output's axes in the order of its strides, adjacent axes melted into
 * one wherever all operands allow it, and a function called per innermost row. Everything that needs another
 * shape of access asks for a *dense* copy of an operand (row-major or channels-last, in its domain), which
 * costs nothing if it lies so already.
 *
 * An operator is a function in the table of table.c, plus a function that says how much scratch it takes at
 * most. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kernels/kernel.h"

enum { REF_CHUNK = 256, REF_MAX_OPERANDS = KERNEL_MAX_IN + KERNEL_MAX_OUT };

/* Wider vectors where the processor has them; the arithmetic and so the bits stay the same (no contraction).
 * Nobody looks at the floating-point exception flags, so both sides of a choice may be computed. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) &&     \
    !defined(__SANITIZE_THREAD__)
#define REF_HOT __attribute__((target_clones("avx2", "default"), optimize("O3", "no-trapping-math")))
#else
#define REF_HOT
#endif

/* One run of one operator. The tensors have data; `scratch` is handed out by ref_scratch. */
struct ref_call {
    const struct op_node *node;
    int n_in, n_out;
    const struct tensor *in;
    struct tensor *out; /* only bounded shapes may be changed */
    char *scratch;
    size_t scratch_left;
};
typedef err ref_fn(struct ref_call *c);
typedef size_t ref_scratch_fn(const struct ref_call *c);

struct ref_op {
    ref_fn *run;
    ref_scratch_fn *scratch; /* NULL: none */
    enum kernel_layout layout;
    uint8_t types; /* of input 0 and of output 0: REF_TYPE_* */
};
enum { REF_TYPE_FLOAT = 1, REF_TYPE_INT = 2, REF_TYPE_BOOL = 4, REF_TYPE_NUMBER = 3, REF_TYPE_ALL = 7, REF_TYPE_SMALL = 8 };
const struct ref_op *ref_op_find(enum op_kind kind);

extern const struct kernel_class kernels_ref_class; /* ref.c */

static inline bool ref_has(const struct ref_call *c, int i)
{
    return i < c->n_in && c->in[i].dtype != TENSOR_NONE;
}
static inline bool ref_wants(const struct ref_call *c, int i)
{
    return i < c->n_out && c->out[i].dtype != TENSOR_NONE;
}
static inline int64_t ref_size(const struct tensor *t)
{
    return (int64_t)tensor_dtype_size(t->dtype);
}

/* ---- number.c: types */

enum ref_domain { REF_F32, REF_F64, REF_I64, REF_U64 };
enum ref_domain ref_domain(enum tensor_dtype t);
/* The type whose storage is the domain's own: TENSOR_F32, F64, I64, U64. */
enum tensor_dtype ref_domain_dtype(enum tensor_dtype t);

float ref_half_to_float(uint16_t h);
uint16_t ref_float_to_half(float f);
/* n elements, `step` bytes apart, to or from dense numbers of the domain. Integers are cut to their width. */
void ref_get(enum tensor_dtype t, const void *from, int64_t step, int64_t n, void *to);
void ref_put(enum tensor_dtype t, void *to, int64_t step, int64_t n, const void *from);
/* The row itself if it is dense and in its domain's type, else a copy in buf (REF_CHUNK * 8 bytes; n <=
 * REF_CHUNK). */
const void *ref_fetch(enum tensor_dtype t, const void *from, int64_t step, int64_t n, void *buf);
/* Dense numbers of one domain into another: floats are cut towards zero, NaN is 0, what is too large is the
 * limit. */
void ref_convert(enum ref_domain from, const void *src, enum tensor_dtype to, void *dst, int64_t n);
/* Element number `i` in row-major order. */
double ref_double_at(const struct tensor *t, int64_t i);
int64_t ref_int_at(const struct tensor *t, int64_t i);
/* select.c: a number that orders as element `offset` of the memory does; NaN above all, -0 equal to 0 */
uint64_t ref_key_at(const struct tensor *t, int64_t offset);
int64_t ref_offset(const struct tensor *t, int64_t i); /* of element i, in elements */

/* ---- loop.c: walking */

struct ref_loop {
    int rank, n; /* axes that are left, operands */
    bool empty;
    int64_t dims[TENSOR_MAX_RANK], step[REF_MAX_OPERANDS][TENSOR_MAX_RANK]; /* steps in bytes */
    char *base[REF_MAX_OPERANDS];
};
typedef void ref_row_fn(void *context, char *const *p, const int64_t *step, int64_t n);
/* Operands broadcast to `shape`. Axes are ordered by the strides of operand 0. */
void ref_loop_init(struct ref_loop *l, const struct tensor_shape *shape, int n,
                   const struct tensor *const *operands);
/* Calls `row` for each innermost row. Rank 0 is one row of one element. */
void ref_loop_run(const struct ref_loop *l, ref_row_fn *row, void *context);
/* Adds one to the index in row-major order; false after the last. */
bool ref_next(int rank, const int64_t *dims, int64_t *index);

/* ---- copy.c: moving */

/* Copies elements of the same size between two views of one shape; strides in elements, negative ones too. */
void ref_copy(size_t size, int rank, const int64_t *dims, void *to, const int64_t *to_strides,
              const void *from, const int64_t *from_strides);
/* The same between tensors of equal shape and type. */
void ref_copy_tensor(const struct tensor *to, const struct tensor *from);
/* Converts type as well. */
void ref_cast_tensor(const struct tensor *to, const struct tensor *from);
void ref_fill(const struct tensor *to, const void *element);

/* ---- scratch, in number.c */

void *ref_scratch(struct ref_call *c, size_t bytes);
#define REF_ALIGN(bytes) (((size_t)(bytes) + 63) & ~(size_t)63)

/* A view of tensor i in its domain's type, dense in the layout asked for; a copy in scratch if need be. */
struct tensor ref_dense_in(struct ref_call *c, int i, bool channels_last);
/* Where to write output i so: the output itself or scratch. ref_dense_done copies it to its place. */
struct tensor ref_dense_out(struct ref_call *c, int i, bool channels_last);
void ref_dense_done(struct ref_call *c, int i, const struct tensor *dense);
size_t ref_dense_bytes(const struct tensor *t, bool channels_last);
/* Sum of the above over all inputs and outputs. */
size_t ref_scratch_rows(const struct ref_call *c);
size_t ref_scratch_spatial(const struct ref_call *c);

/* ---- arguments, in number.c */

/* Makes axis positive; ERR_SHAPE if there is no such axis. */
err ref_axis(int64_t axis, int rank, int *ret);
/* Integers of input i where present, else of the attribute; *ret_n = -1 if there is neither. */
err ref_ints(const struct ref_call *c, int i, const char *attr, int64_t *ret, int most, int *ret_n);
/* op_axes for this call. */
err ref_axes(const struct ref_call *c, int i, int rank, int64_t *ret, int *ret_n);

/* unary.c: the post-ops of a query over its output; `in` are the query's inputs. */
void ref_post(const struct tensor *out, int n_post, const struct kernel_post *post, const struct tensor *in);
