# The Structs of core_ext/shapes.py as C sees them: a view holds the fields in the order of the shape, borrowed from the
# Struct, which has to outlive it. Reading a field from where it lies costs a tenth of a look-up by name.

from cpython.object cimport PyObject

cdef struct OrderView:
    PyObject* id
    PyObject* client_id
    PyObject* channel
    PyObject* currency
    PyObject* status
    PyObject* version
    PyObject* total
    PyObject* lines
    PyObject* created_at
    PyObject* customer_id
    PyObject* external_id
    PyObject* sale_id
    PyObject* metadata
    PyObject* adjustments
    PyObject* placed_at
    PyObject* paid_reference
    PyObject* paid_at
    PyObject* expires_at
    PyObject* note
    PyObject* ship_to

cdef struct LineView:
    PyObject* line
    PyObject* sku
    PyObject* title
    PyObject* quantity
    PyObject* unit_price
    PyObject* amount
    PyObject* stocked
    PyObject* limited

cdef struct ChangeView:
    PyObject* version
    PyObject* at
    PyObject* event
    PyObject* status
    PyObject* actor
    PyObject* previous_status
    PyObject* reason
    PyObject* changed
    PyObject* traceparent

cdef struct OrderInView:
    PyObject* channel
    PyObject* currency
    PyObject* items
    PyObject* customer_id
    PyObject* sale_id
    PyObject* external_id
    PyObject* note
    PyObject* ship_to
    PyObject* metadata
    PyObject* adjustments
    PyObject* placed_at
    PyObject* paid

cdef struct ItemView:
    PyObject* sku
    PyObject* quantity
    PyObject* unit_price

cdef struct ShipToView:
    PyObject* name
    PyObject* phone
    PyObject* country
    PyObject* province
    PyObject* city
    PyObject* district
    PyObject* street
    PyObject* postcode

cdef struct ProductView:
    PyObject* sku
    PyObject* title
    PyObject* price
    PyObject* currency
    PyObject* stocked
    PyObject* active
    PyObject* version
    PyObject* limit

# TypeError for anything but the shape itself.
cdef int see_order(OrderView* view, object order) except -1
cdef int see_line(LineView* view, object line) except -1
cdef int see_change(ChangeView* view, object change) except -1
cdef int see_order_in(OrderInView* view, object order) except -1
cdef int see_item(ItemView* view, object item) except -1
cdef int see_ship_to(ShipToView* view, object ship_to) except -1
cdef int see_product(ProductView* view, object product) except -1
