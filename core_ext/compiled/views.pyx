# cython: language_level=3
"""Where the fields of the Structs in core_ext/shapes.py lie. The other compiled modules read them here; there is no
twin, since Python reads fields by their names.

A field of a msgspec Struct is a slot as of any class with __slots__, and CPython's descriptor of it knows the place.
What is not such a slot makes the import fail; a Struct of another type is a TypeError, never a wild read.
"""

from core_ext import shapes

from cpython.object cimport PyObject, PyTypeObject

cdef extern from "structmember.h":
    ctypedef struct PyMemberDef:
        int type
        Py_ssize_t offset
    ctypedef struct PyMemberDescrObject:
        PyMemberDef* d_member
    PyTypeObject PyMemberDescr_Type
    int T_OBJECT_EX
    PyTypeObject* Py_TYPE(object)

cdef enum:
    FIELDS_MAX = 20

cdef struct Places:
    PyTypeObject* shape
    Py_ssize_t count
    Py_ssize_t[FIELDS_MAX] at

cdef Places ORDER, LINE, CHANGE, ORDER_IN, ITEM, SHIP_TO, PRODUCT


cdef int see_order(OrderView* view, object order) except -1:
    return see(<PyObject**>view, order, &ORDER)


cdef int see_line(LineView* view, object line) except -1:
    return see(<PyObject**>view, line, &LINE)


cdef int see_change(ChangeView* view, object change) except -1:
    return see(<PyObject**>view, change, &CHANGE)


cdef int see_order_in(OrderInView* view, object order) except -1:
    return see(<PyObject**>view, order, &ORDER_IN)


cdef int see_item(ItemView* view, object item) except -1:
    return see(<PyObject**>view, item, &ITEM)


cdef int see_ship_to(ShipToView* view, object ship_to) except -1:
    return see(<PyObject**>view, ship_to, &SHIP_TO)


cdef int see_product(ProductView* view, object product) except -1:
    return see(<PyObject**>view, product, &PRODUCT)


cdef int see(PyObject** view, object struct, const Places* places) except -1:
    cdef const char* start = <const char*><PyObject*>struct
    cdef Py_ssize_t at
    if Py_TYPE(struct) != places.shape:
        raise TypeError(f"a {(<object>places.shape).__name__} is needed, not {type(struct).__name__}")
    for at in range(places.count):
        view[at] = (<PyObject**>(start + places.at[at]))[0]
        if view[at] == NULL:
            raise AttributeError("a field has been deleted")
    return 0


cdef int find(Places* places, object shape, size_t view_bytes) except -1:
    cdef tuple names = shape.__struct_fields__
    cdef PyMemberDescrObject* descriptor
    if len(names) * sizeof(PyObject*) != view_bytes or len(names) > FIELDS_MAX:
        raise ImportError(f"the view of {shape.__name__} has other fields than the shape")
    places.shape = <PyTypeObject*><PyObject*>shape
    places.count = len(names)
    for at, name in enumerate(names):
        slot = shape.__dict__[name]
        descriptor = <PyMemberDescrObject*><PyObject*>slot
        if Py_TYPE(slot) != &PyMemberDescr_Type or descriptor.d_member.type != T_OBJECT_EX:
            raise ImportError(f"{shape.__name__}.{name} is not a slot: this msgspec lays Structs out differently")
        places.at[at] = descriptor.d_member.offset
    return 0


find(&ORDER, shapes.Order, sizeof(OrderView))
find(&LINE, shapes.Line, sizeof(LineView))
find(&CHANGE, shapes.Change, sizeof(ChangeView))
find(&ORDER_IN, shapes.OrderIn, sizeof(OrderInView))
find(&ITEM, shapes.ItemIn, sizeof(ItemView))
find(&SHIP_TO, shapes.ShipTo, sizeof(ShipToView))
find(&PRODUCT, shapes.Product, sizeof(ProductView))
