/* The hot path in C: from `run.step(step, loss=..., ...)` to one row in the ring.

   Why C at all: after a training step the caches hold the training, not us, and every function, name and object that a call touches costs a
   miss. In Python such a call touches some hundred cache lines (20 us where the same call in a tight loop takes 2); here it touches the
   arguments, one slot and this object. `holter/row_writer.py` does the same in Python where this was not built; the tests run both.

   What is not plain (a tensor, a new name, a section under way) goes to `general`, which is Python. Nothing raises but what ends the
   process on purpose (KeyboardInterrupt and the like). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <structmember.h>
#include <time.h>

#define LAYOUTS 16

typedef struct {
    PyObject *names; /* a tuple of str */
    long long schema;
    Py_ssize_t count;
} Layout;

typedef struct {
    PyObject_HEAD
    Py_buffer view;
    char *rows;
    Py_ssize_t num_rows, stride;
    PyObject *general, *look;
    long long wait, no_wait, last_step, look_at, lost;
    int is_plain, num_layouts, newest;
    int64_t ticket;
    Layout layouts[LAYOUTS];
} RowWriter;

static long long now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (long long)time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int fits(const Layout *layout, PyObject *names, Py_ssize_t count)
{
    if (layout->names == names)
        return 1; /* the constant of the same line of code */
    if (layout->count != count)
        return 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *known = PyTuple_GET_ITEM(layout->names, i), *name = PyTuple_GET_ITEM(names, i);
        /* Names in a program's text are one object each; names made at run time are compared by their letters. */
        if (known != name && PyUnicode_Compare(known, name) != 0)
            return 0;
    }
    return 1;
}

static const Layout *find(RowWriter *self, PyObject *names, Py_ssize_t count)
{
    for (int i = 0; i < self->num_layouts; i++) {
        const Layout *layout = &self->layouts[(self->newest + i) % self->num_layouts];
        if (fits(layout, names, count)) {
            self->newest = (int)(layout - self->layouts);
            return layout;
        }
    }
    return NULL;
}

/* 1 when the row was written; 0 when the general way has to be gone, with nothing touched. */
static int write_plain(RowWriter *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names, long long now)
{
    Py_ssize_t count = names ? PyTuple_GET_SIZE(names) : 0;
    if (!self->rows || !self->is_plain || nargs != 1 || count == 0 || !PyLong_CheckExact(args[0]))
        return 0;
    const Layout *layout = find(self, names, count);
    if (!layout)
        return 0;
    for (Py_ssize_t i = 1; i <= count; i++)
        if (!PyFloat_CheckExact(args[i]) && !PyLong_CheckExact(args[i]))
            return 0;
    int overflow;
    long long step = PyLong_AsLongLongAndOverflow(args[0], &overflow);
    if (overflow)
        return 0;
    double values[64];
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *value = args[i + 1];
        values[i] = PyFloat_CheckExact(value) ? PyFloat_AS_DOUBLE(value) : PyLong_AsDouble(value);
        if (values[i] == -1.0 && PyErr_Occurred()) {
            PyErr_Clear(); /* an integer beyond the floats */
            return 0;
        }
    }
    int64_t ticket = __atomic_fetch_add(&self->ticket, 1, __ATOMIC_RELAXED);
    char *end = self->rows + (ticket % self->num_rows + 1) * self->stride;
    int64_t tail[4] = {now, step, self->wait, layout->schema};
    memcpy(end - 8 * (count + 5), values, 8 * count);
    memcpy(end - 40, tail, sizeof tail);
    /* The ticket makes the row whole: no processor may show it before the rest. */
    __atomic_store_n((int64_t *)(end - 8), ticket + 1, __ATOMIC_RELEASE);
    self->last_step = step;
    self->wait = self->no_wait;
    return 1;
}

/* What Python code of ours raised is counted; what must end the process goes on its way. */
static int survived(RowWriter *self, PyObject *result)
{
    if (result) {
        Py_DECREF(result);
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return 0;
    PyErr_Clear();
    self->lost++;
    return 1;
}

static PyObject *RowWriter_step(RowWriter *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    long long now = now_ns();
    int may_go_on = 1;
    if (!write_plain(self, args, nargs, names, now) && self->general) {
        PyObject *general = Py_NewRef(self->general); /* it may close us */
        may_go_on = survived(self, PyObject_Vectorcall(general, args, nargs, names));
        Py_DECREF(general);
    }
    if (may_go_on && now > self->look_at && self->look) {
        PyObject *look = Py_NewRef(self->look);
        may_go_on = survived(self, PyObject_CallNoArgs(look));
        Py_DECREF(look);
    }
    if (!may_go_on)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *RowWriter_learn(RowWriter *self, PyObject *args)
{
    PyObject *names;
    long long schema;
    if (!PyArg_ParseTuple(args, "O!L", &PyTuple_Type, &names, &schema))
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(names);
    if (count == 0 || 8 * (count + 5) > self->stride || count > 64)
        Py_RETURN_NONE;
    for (int i = 0; i < self->num_layouts; i++)
        if (fits(&self->layouts[i], names, count))
            Py_RETURN_NONE;
    int at = self->num_layouts < LAYOUTS ? self->num_layouts++ : (self->newest + 1) % LAYOUTS;
    PyObject *old = self->layouts[at].names;
    self->layouts[at] = (Layout){Py_NewRef(names), schema, count};
    self->newest = at;
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

static PyObject *RowWriter_next_ticket(RowWriter *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLongLong(__atomic_fetch_add(&self->ticket, 1, __ATOMIC_RELAXED));
}

static PyObject *RowWriter_close(RowWriter *self, PyObject *Py_UNUSED(ignored))
{
    self->rows = NULL;
    Py_CLEAR(self->general);
    Py_CLEAR(self->look);
    if (self->view.obj)
        PyBuffer_Release(&self->view);
    Py_RETURN_NONE;
}

static int RowWriter_init(RowWriter *self, PyObject *args, PyObject *kwds)
{
    static char *names[] = {"buffer", "offset", "num_rows", "stride", "general", "look", "no_wait", NULL};
    PyObject *buffer, *general, *look;
    Py_ssize_t offset;
    if (self->general) {
        PyErr_SetString(PyExc_RuntimeError, "a RowWriter is made once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "OnnnOOL", names, &buffer, &offset, &self->num_rows, &self->stride, &general, &look,
                                     &self->no_wait))
        return -1;
    if (PyObject_GetBuffer(buffer, &self->view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) < 0)
        return -1;
    if (offset < 0 || offset % 8 || self->stride < 48 || self->stride % 8 || self->num_rows < 1 ||
        offset + self->num_rows * self->stride > self->view.len) {
        PyBuffer_Release(&self->view);
        PyErr_SetString(PyExc_ValueError, "the rows do not lie in the buffer");
        return -1;
    }
    self->rows = (char *)self->view.buf + offset;
    self->general = Py_NewRef(general);
    self->look = Py_NewRef(look);
    self->wait = self->no_wait;
    self->last_step = -1;
    self->is_plain = 1;
    return 0;
}

static int RowWriter_traverse(RowWriter *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->general);
    Py_VISIT(self->look);
    return 0;
}

static int RowWriter_clear(RowWriter *self)
{
    Py_CLEAR(self->general);
    Py_CLEAR(self->look);
    return 0;
}

static void RowWriter_dealloc(RowWriter *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    RowWriter_clear(self);
    if (self->view.obj)
        PyBuffer_Release(&self->view);
    for (int i = 0; i < self->num_layouts; i++)
        Py_XDECREF(self->layouts[i].names);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"step", (PyCFunction)(void (*)(void))RowWriter_step, METH_FASTCALL | METH_KEYWORDS, "step(step, /, **values)\n--\n\nWrite one row."},
    {"learn", (PyCFunction)RowWriter_learn, METH_VARARGS, "learn(names, schema)\n--\n\nWrite rows of these names here from now on."},
    {"next_ticket", (PyCFunction)RowWriter_next_ticket, METH_NOARGS, "The number of a row that the caller writes."},
    {"close", (PyCFunction)RowWriter_close, METH_NOARGS, "Write no more."},
    {NULL},
};

static PyMemberDef members[] = {
    {"wait", T_LONGLONG, offsetof(RowWriter, wait), 0, "Nanoseconds waited for data since the last row."},
    {"last_step", T_LONGLONG, offsetof(RowWriter, last_step), 0, "The step of the newest row; -1 before the first."},
    {"look_at", T_LONGLONG, offsetof(RowWriter, look_at), 0, "Monotonic ns after which `look` is called."},
    {"lost", T_LONGLONG, offsetof(RowWriter, lost), 0, "Calls of `general` or `look` that raised."},
    {"is_plain", T_INT, offsetof(RowWriter, is_plain), 0, "Whether rows may be written here at all; 0 sends every step to `general`."},
    {NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_init, RowWriter_init},         {Py_tp_dealloc, RowWriter_dealloc}, {Py_tp_methods, methods}, {Py_tp_members, members},
    {Py_tp_traverse, RowWriter_traverse}, {Py_tp_clear, RowWriter_clear},     {Py_tp_new, PyType_GenericNew},
    {Py_tp_doc, "Writes rows of plain numbers into the ring."},
    {0, NULL},
};

static PyType_Spec spec = {"holter._hot.RowWriter", sizeof(RowWriter), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};

static int add_types(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!type)
        return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, add_types},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "holter._hot", .m_doc = "The hot path in C; see holter/row_writer.py.", .m_slots = module_slots};

PyMODINIT_FUNC PyInit__hot(void)
{
    return PyModuleDef_Init(&module);
}
