# NamedTuples made without their Python constructor, and without a tuple to copy from. Header only: each module compiles
# its own copy.

from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF

cdef extern from "Python.h":
    object PyType_GenericAlloc(PyTypeObject* shape, Py_ssize_t count)
    void PyTuple_SET_ITEM(object entries, Py_ssize_t at, PyObject* entry)


cdef inline object new_named(object shape, Py_ssize_t count):
    """One of `shape`, a NamedTuple of `count` fields, all of which have to be set next."""
    return PyType_GenericAlloc(<PyTypeObject*>shape, count)


cdef inline void set_entry(object entries, Py_ssize_t at, object entry) noexcept:
    """Sets a field that is not set yet."""
    Py_INCREF(entry)
    PyTuple_SET_ITEM(entries, at, <PyObject*>entry)
