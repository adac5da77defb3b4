from core_ext.reference.validation import check_order as check_order
