/* The Python package's other half: the handles of brim.h as Python objects, numbers through the buffer protocol.
 *
 * No NumPy headers: arrays come in as buffers, and views into a plan go out as buffers that keep the plan alive;
 * np.asarray() of one is an array with a base, without a copy. So one build fits every NumPy, and the package also
 * works with array.array and memoryview. The interpreter's lock is released in everything that takes a model's lock
 * or computes. A held buffer pins the caller's array meanwhile.
 *
 * What users see (names, types, lists) is __init__.py. SPDX-License-Identifier: Apache-2.0 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "api/brim.h"

#include <stdbool.h>
#include <string.h>

enum { MAX_IO = 64 };

typedef struct {
    PyObject_HEAD brim_budget *b;
} Budget;

typedef struct {
    PyObject_HEAD brim_model *m;
    Py_buffer bytes; /* of a model in memory: borrowed by it */
    bool has_bytes;
} Model;

typedef struct {
    PyObject_HEAD Model *model;
    brim_plan *p;
} Plan;

typedef struct {
    PyObject_HEAD Plan *plan;
    brim_tensor t;
    Py_ssize_t shape[8], strides[8];
    bool readonly;
} View;

static PyTypeObject *budget_type, *model_type, *plan_type, *view_type; /* set once by the module, as types are */
static PyObject *error_class;

/* ---- errors, types */

static PyObject *fail(brim_err e)
{
    PyObject *x = PyObject_CallFunction(error_class, "is", (int)e, brim_error_text());
    if (x) PyErr_SetObject(error_class, x);
    Py_XDECREF(x);
    return NULL;
}

static const struct {
    brim_dtype dtype;
    const char *format;
} formats[] = {{BRIM_F32, "f"}, {BRIM_F64, "d"}, {BRIM_F16, "e"}, {BRIM_BOOL, "?"}, {BRIM_I8, "b"},
               {BRIM_U8, "B"},  {BRIM_I16, "h"}, {BRIM_U16, "H"}, {BRIM_I32, "i"},  {BRIM_U32, "I"},
               {BRIM_I64, "q"}, {BRIM_U64, "Q"}, {BRIM_BF16, "H"}};

static const char *format_of(brim_dtype t)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].dtype == t) return formats[i].format;
    return "B";
}

/* `like`: what the model has there; a bfloat16 comes as uint16, which is what NumPy can hold. */
static brim_dtype dtype_of(const Py_buffer *b, brim_dtype like)
{
    const char *f = b->format ? b->format : "B";
    char c = *f == '@' || *f == '=' || *f == '<' ? f[1] : *f;
    if (c == 'l') c = b->itemsize == 8 ? 'q' : 'i';
    if (c == 'L') c = b->itemsize == 8 ? 'Q' : 'I';
    if (c == 'H' && like == BRIM_BF16) return BRIM_BF16;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].format[0] == c && brim_dtype_size(formats[i].dtype) == (size_t)b->itemsize)
            return formats[i].dtype;
    return BRIM_NONE;
}

static PyObject *shape_tuple(const brim_tensor *t)
{
    PyObject *s = PyTuple_New(t->rank);
    for (int i = 0; s && i < t->rank; i++) {
        PyObject *d = PyLong_FromLongLong(t->shape[i]);
        if (!d)
            Py_CLEAR(s);
        else
            PyTuple_SetItem(s, i, d);
    }
    return s;
}

static void heap_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- Budget(bytes=0, threads=0) */

static PyObject *budget_new(PyTypeObject *type, PyObject *args, PyObject *kw)
{
    static char *names[] = {"bytes", "threads", NULL};
    brim_budget_options o = BRIM_BUDGET_OPTIONS_INIT;
    unsigned long long bytes = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kw, "|Ki", names, &bytes, &o.threads)) return NULL;
    o.bytes = bytes;
    Budget *b = (Budget *)type->tp_alloc(type, 0);
    if (!b) return NULL;
    brim_err e = brim_budget_new(&o, &b->b);
    if (!e) return (PyObject *)b;
    Py_DECREF(b);
    return fail(e);
}

static void budget_dealloc(PyObject *self)
{
    brim_budget_free(&((Budget *)self)->b);
    heap_free(self);
}

static PyObject *budget_used(PyObject *self, void *x)
{
    (void)x;
    return PyLong_FromUnsignedLongLong(brim_budget_used(((Budget *)self)->b));
}

static PyObject *budget_peak(PyObject *self, void *x)
{
    (void)x;
    return PyLong_FromUnsignedLongLong(brim_budget_peak(((Budget *)self)->b));
}

static PyObject *budget_limit(PyObject *self, void *x)
{
    (void)x;
    uint64_t limit = brim_budget_limit(((Budget *)self)->b);
    if (limit == UINT64_MAX) Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(limit);
}

static PyGetSetDef budget_fields[] = {{"used", budget_used, NULL, "Bytes in use now.", NULL},
                                      {"peak", budget_peak, NULL, "The most that was in use.", NULL},
                                      {"limit", budget_limit, NULL, "Bytes, or None.", NULL},
                                      {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot budget_slots[] = {
    {Py_tp_new, budget_new},
    {Py_tp_dealloc, budget_dealloc},
    {Py_tp_getset, budget_fields},
    {Py_tp_doc, "Budget(bytes=0, threads=0): bytes and threads that models share; 0 is no limit and all processors."},
    {0, NULL}};
static PyType_Spec budget_spec = {"brim.Budget", sizeof(Budget), 0, Py_TPFLAGS_DEFAULT, budget_slots};

/* ---- Model(path or None, bytes or None, budget, threads, precision, max_idle_plans, cache or None) */

static PyObject *model_new(PyTypeObject *type, PyObject *args, PyObject *kw)
{
    static char *names[] = {"path", "data", "budget", "threads", "precision", "max_idle_plans", "cache", NULL};
    PyObject *path, *data, *budget, *encoded = NULL;
    brim_model_options o = BRIM_MODEL_OPTIONS_INIT;
    int precision;
    if (!PyArg_ParseTupleAndKeywords(args, kw, "OOO!iiiz", names, &path, &data, budget_type, &budget, &o.threads,
                                     &precision, &o.max_idle_plans, &o.cache))
        return NULL;
    o.precision = (brim_precision)precision;
    o.budget = ((Budget *)budget)->b;
    Model *m = (Model *)type->tp_alloc(type, 0);
    brim_err e;
    if (!m) return NULL;
    if (path != Py_None) {
        if (!PyUnicode_FSConverter(path, &encoded)) goto failed;
        const char *name = PyBytes_AS_STRING(encoded);
        Py_BEGIN_ALLOW_THREADS e = brim_model_open(name, &o, &m->m);
        Py_END_ALLOW_THREADS Py_DECREF(encoded);
    } else {
        if (PyObject_GetBuffer(data, &m->bytes, PyBUF_SIMPLE)) goto failed;
        m->has_bytes = true;
        Py_BEGIN_ALLOW_THREADS e = brim_model_open_bytes(m->bytes.buf, (size_t)m->bytes.len, &o, &m->m);
        Py_END_ALLOW_THREADS
    }
    if (!e) return (PyObject *)m;
    fail(e);
failed:
    Py_DECREF(m);
    return NULL;
}

static void model_dealloc(PyObject *self)
{
    Model *m = (Model *)self;
    brim_model_free(&m->m);
    if (m->has_bytes) PyBuffer_Release(&m->bytes);
    heap_free(self);
}

static PyObject *io_tuple(const brim_io *io)
{
    PyObject *shape = io->rank < 0 ? Py_NewRef(Py_None) : PyTuple_New(io->rank);
    for (int i = 0; shape && i < io->rank; i++) {
        PyObject *d = io->shape[i] >= 0 ? PyLong_FromLongLong(io->shape[i])
                      : io->symbol[i]
                          ? PyUnicode_DecodeUTF8(io->symbol[i], (Py_ssize_t)strlen(io->symbol[i]), "replace")
                          : PyUnicode_FromString("");
        if (!d)
            Py_CLEAR(shape);
        else
            PyTuple_SetItem(shape, i, d);
    }
    if (!shape) return NULL;
    PyObject *name = PyUnicode_DecodeUTF8(io->name, (Py_ssize_t)strlen(io->name), "replace");
    return Py_BuildValue("(NsN)", name, io->dtype ? brim_dtype_name(io->dtype) : "", shape);
}

static PyObject *ios(Model *m, bool input)
{
    int n = input ? brim_model_input_count(m->m) : brim_model_output_count(m->m);
    PyObject *list = PyList_New(n);
    for (int i = 0; list && i < n; i++) {
        brim_io io = BRIM_IO_INIT;
        brim_err e = input ? brim_model_input(m->m, i, &io) : brim_model_output(m->m, i, &io);
        PyObject *t = e ? fail(e) : io_tuple(&io);
        if (!t)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, i, t);
    }
    return list;
}

static PyObject *model_ios(PyObject *self, PyObject *which)
{
    int input = PyObject_IsTrue(which);
    return input < 0 ? NULL : ios((Model *)self, input);
}

/* A sequence of one tuple of sizes per input. */
static bool read_shapes(PyObject *list, int n, brim_shape *ret)
{
    if (PySequence_Size(list) != n) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "%zd shapes: the model has %d inputs", PySequence_Size(list), n);
        return false;
    }
    for (int i = 0; i < n; i++) {
        PyObject *s = PySequence_GetItem(list, i);
        Py_ssize_t rank = s ? PySequence_Size(s) : -1;
        if (rank > 8) PyErr_Format(PyExc_ValueError, "rank %zd: 8 at most", rank);
        ret[i].rank = (int)rank;
        for (int k = 0; k < rank && rank <= 8; k++) {
            PyObject *d = PySequence_GetItem(s, k);
            ret[i].dims[k] = d ? PyLong_AsLongLong(d) : -1;
            Py_XDECREF(d);
        }
        Py_XDECREF(s);
        if (PyErr_Occurred()) return false;
    }
    return true;
}

static PyObject *model_plan(PyObject *self, PyObject *list)
{
    Model *m = (Model *)self;
    brim_shape shapes[MAX_IO];
    int n = brim_model_input_count(m->m);
    brim_err e;
    if (n > MAX_IO) return PyErr_Format(PyExc_ValueError, "%d inputs: %d at most", n, MAX_IO);
    memset(shapes, 0, sizeof shapes);
    if (list != Py_None && !read_shapes(list, n, shapes)) return NULL;
    Plan *p = (Plan *)plan_type->tp_alloc(plan_type, 0);
    if (!p) return NULL;
    p->model = (Model *)Py_NewRef(self);
    Py_BEGIN_ALLOW_THREADS e = brim_plan_new(m->m, list == Py_None ? NULL : shapes, &p->p);
    Py_END_ALLOW_THREADS if (!e) return (PyObject *)p;
    fail(e);
    Py_DECREF(p);
    return NULL;
}

static PyMethodDef model_methods[] = {
    {"ios", model_ios, METH_O, "(name, dtype, shape) of the inputs (True) or outputs (False)."},
    {"plan", model_plan, METH_O, "A plan for the shapes, or for those of the file (None)."},
    {NULL, NULL, 0, NULL}};
static PyType_Slot model_slots[] = {
    {Py_tp_new, model_new}, {Py_tp_dealloc, model_dealloc}, {Py_tp_methods, model_methods}, {0, NULL}};
static PyType_Spec model_spec = {"brim._brim.Model", sizeof(Model), 0, Py_TPFLAGS_DEFAULT, model_slots};

/* ---- Plan */

static void plan_dealloc(PyObject *self)
{
    Plan *p = (Plan *)self;
    brim_plan_free(&p->p);
    Py_XDECREF(p->model);
    heap_free(self);
}

static PyObject *view(Plan *p, int i, bool input)
{
    View *v = (View *)view_type->tp_alloc(view_type, 0);
    if (!v) return NULL;
    brim_tensor t = BRIM_TENSOR_INIT;
    brim_err e;
    Py_BEGIN_ALLOW_THREADS e = input ? brim_plan_input(p->p, i, &t) : brim_plan_output(p->p, i, &t);
    Py_END_ALLOW_THREADS if (e)
    {
        Py_DECREF(v);
        return fail(e);
    }
    v->plan = (Plan *)Py_NewRef((PyObject *)p);
    v->t = t;
    v->readonly = !input;
    for (int k = 0; k < t.rank; k++)
        v->shape[k] = (Py_ssize_t)t.shape[k], v->strides[k] = (Py_ssize_t)t.strides[k];
    return (PyObject *)v;
}

static PyObject *plan_view(PyObject *self, PyObject *args)
{
    int input, i;
    if (!PyArg_ParseTuple(args, "pi", &input, &i)) return NULL;
    return view((Plan *)self, i, input);
}

/* (dtype, shape) per output: what to make room for. Sizes that depend on data are upper bounds. */
static PyObject *plan_outputs(PyObject *self, PyObject *none)
{
    (void)none;
    Plan *p = (Plan *)self;
    int n = brim_model_output_count(p->model->m);
    PyObject *list = PyList_New(n);
    for (int i = 0; list && i < n; i++) {
        brim_tensor t = BRIM_TENSOR_INIT;
        brim_err e;
        Py_BEGIN_ALLOW_THREADS e = brim_plan_output(p->p, i, &t);
        Py_END_ALLOW_THREADS PyObject *item =
            e ? fail(e)
              : Py_BuildValue("(sN)", t.dtype == BRIM_BF16 ? "uint16" : brim_dtype_name(t.dtype), shape_tuple(&t));
        if (!item)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, i, item);
    }
    return list;
}

struct call {
    brim_tensor in[MAX_IO], out[MAX_IO];
    Py_buffer buffers[2 * MAX_IO];
    int n_in, n_out, n_buffers;
};

static bool take_input(Plan *p, struct call *c, int i, PyObject *x)
{
    c->in[i] = (brim_tensor)BRIM_TENSOR_INIT;
    if (x == Py_None) return true; /* written through its view */
    Py_buffer *b = &c->buffers[c->n_buffers];
    brim_io io = BRIM_IO_INIT;
    if (PyObject_GetBuffer(x, b, PyBUF_FULL_RO)) return false;
    c->n_buffers++;
    brim_model_input(p->model->m, i, &io);
    brim_tensor *t = &c->in[i];
    if (b->ndim > 8) return PyErr_Format(PyExc_ValueError, "input %d: rank %d, 8 at most", i, b->ndim), false;
    if (b->suboffsets) return PyErr_Format(PyExc_BufferError, "input %d: indirect buffers are not taken", i), false;
    t->dtype = dtype_of(b, io.dtype);
    t->rank = b->ndim;
    for (int k = 0; k < b->ndim; k++)
        t->shape[k] = b->shape[k], t->strides[k] = b->strides[k];
    t->data = b->buf ? b->buf : (void *)"";
    return true;
}

static bool take_output(struct call *c, int i, PyObject *x)
{
    c->out[i] = (brim_tensor)BRIM_TENSOR_INIT;
    if (x == Py_None) return true;
    Py_buffer *b = &c->buffers[c->n_buffers];
    if (PyObject_GetBuffer(x, b, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)) return false;
    c->n_buffers++;
    c->out[i].data = b->buf ? b->buf : (void *)c;
    c->out[i].bytes = (size_t)b->len;
    return true;
}

static PyObject *run_call(Plan *p, struct call *c)
{
    brim_err e;
    Py_BEGIN_ALLOW_THREADS e = brim_run(p->p, c->in, c->n_in, c->out, c->n_out);
    Py_END_ALLOW_THREADS if (e) return fail(e);
    PyObject *list = PyList_New(c->n_out);
    for (int i = 0; list && i < c->n_out; i++) {
        PyObject *s = shape_tuple(&c->out[i]);
        if (!s)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, i, s);
    }
    return list;
}

/* run(inputs, outputs): sequences of buffers or None, either may be empty; the outputs' shapes come back. */
static PyObject *plan_run(PyObject *self, PyObject *args)
{
    PyObject *in, *out, *result = NULL;
    if (!PyArg_ParseTuple(args, "OO", &in, &out)) return NULL;
    Py_ssize_t n_in = PySequence_Size(in), n_out = PySequence_Size(out);
    if (n_in < 0 || n_out < 0) return NULL;
    if (n_in > MAX_IO || n_out > MAX_IO)
        return PyErr_Format(PyExc_ValueError, "%d inputs or outputs at most", MAX_IO);
    struct call *c = PyMem_Calloc(1, sizeof *c);
    if (!c) return PyErr_NoMemory();
    c->n_in = (int)n_in, c->n_out = (int)n_out;
    bool fine = true;
    for (int i = 0; i < n_in && fine; i++) {
        PyObject *x = PySequence_GetItem(in, i);
        fine = x && take_input((Plan *)self, c, i, x);
        Py_XDECREF(x);
    }
    for (int i = 0; i < n_out && fine; i++) {
        PyObject *x = PySequence_GetItem(out, i);
        fine = x && take_output(c, i, x);
        Py_XDECREF(x);
    }
    if (fine) result = run_call((Plan *)self, c);
    for (int i = 0; i < c->n_buffers; i++)
        PyBuffer_Release(&c->buffers[i]);
    PyMem_Free(c);
    return result;
}

static PyObject *plan_memory(PyObject *self, PyObject *none)
{
    (void)none;
    brim_memory m = BRIM_MEMORY_INIT;
    brim_err e;
    Py_BEGIN_ALLOW_THREADS e = brim_plan_memory(((Plan *)self)->p, &m);
    Py_END_ALLOW_THREADS if (e) return fail(e);
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:L,s:i,s:i}", "weights", (unsigned long long)m.weights, "activations",
                         (unsigned long long)m.activations, "activations_lower_bound",
                         (unsigned long long)m.activations_lower_bound, "scratch", (unsigned long long)m.scratch,
                         "code", (unsigned long long)m.code, "flops", (long long)m.flops, "kernels", m.kernels,
                         "plain_kernels", m.plain_kernels);
}

static PyObject *plan_explain(PyObject *self, PyObject *as_json)
{
    int json = PyObject_IsTrue(as_json);
    char *text = NULL;
    brim_err e;
    if (json < 0) return NULL;
    Py_BEGIN_ALLOW_THREADS e = brim_plan_explain(((Plan *)self)->p, json, &text);
    Py_END_ALLOW_THREADS if (e) return fail(e);
    PyObject *s = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
    brim_text_free(&text);
    return s;
}

static PyMethodDef plan_methods[] = {
    {"view", plan_view, METH_VARARGS, "view(is_input, i): a buffer that keeps the plan alive."},
    {"outputs", plan_outputs, METH_NOARGS, "(dtype, shape) per output."},
    {"run", plan_run, METH_VARARGS, "run(inputs, outputs)"},
    {"memory", plan_memory, METH_NOARGS, "Bytes by purpose."},
    {"explain", plan_explain, METH_O, "A table, or JSON."},
    {NULL, NULL, 0, NULL}};
static PyType_Slot plan_slots[] = {{Py_tp_dealloc, plan_dealloc}, {Py_tp_methods, plan_methods}, {0, NULL}};
static PyType_Spec plan_spec = {"brim._brim.Plan", sizeof(Plan), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, plan_slots};

/* ---- View */

static void view_dealloc(PyObject *self)
{
    Py_XDECREF(((View *)self)->plan);
    heap_free(self);
}

static int view_buffer(PyObject *self, Py_buffer *b, int flags)
{
    View *v = (View *)self;
    if ((flags & PyBUF_WRITABLE) && v->readonly) {
        PyErr_SetString(PyExc_BufferError, "an output's view is read-only");
        return -1;
    }
    if ((flags & PyBUF_STRIDES) != PyBUF_STRIDES) {
        PyErr_SetString(PyExc_BufferError, "a view has strides; use numpy.asarray");
        return -1;
    }
    *b = (Py_buffer){.buf = v->t.data,
                     .len = 1,
                     .itemsize = (Py_ssize_t)brim_dtype_size(v->t.dtype),
                     .readonly = v->readonly,
                     .ndim = v->t.rank,
                     .shape = v->shape,
                     .strides = v->strides,
                     .format = flags & PyBUF_FORMAT ? (char *)(uintptr_t)format_of(v->t.dtype) : NULL};
    for (int i = 0; i < b->ndim; i++)
        b->len *= v->shape[i];
    b->len *= b->itemsize;
    b->obj = Py_NewRef(self);
    return 0;
}

static PyType_Slot view_slots[] = {{Py_tp_dealloc, view_dealloc}, {Py_bf_getbuffer, view_buffer}, {0, NULL}};
static PyType_Spec view_spec = {"brim._brim.View", sizeof(View), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, view_slots};

/* ---- the module */

static PyObject *set_error_class(PyObject *self, PyObject *class)
{
    (void)self;
    Py_XSETREF(error_class, Py_NewRef(class));
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {{"set_error_class", set_error_class, METH_O, "Called once by __init__.py."},
                                  {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_brim", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__brim(void);
PyMODINIT_FUNC PyInit__brim(void)
{
    PyObject *m = PyModule_Create(&module);
    if (!m) return NULL;
    budget_type = (PyTypeObject *)PyType_FromSpec(&budget_spec);
    model_type = (PyTypeObject *)PyType_FromSpec(&model_spec);
    plan_type = (PyTypeObject *)PyType_FromSpec(&plan_spec);
    view_type = (PyTypeObject *)PyType_FromSpec(&view_spec);
    if (!budget_type || !model_type || !plan_type || !view_type ||
        PyModule_AddObjectRef(m, "Budget", (PyObject *)budget_type) ||
        PyModule_AddObjectRef(m, "Model", (PyObject *)model_type) ||
        PyModule_AddStringConstant(m, "version", brim_version())) {
        Py_DECREF(m);
        return NULL;
    }
    return m;
}
