from core_ext.reference.documents import MASKED as MASKED
from core_ext.reference.documents import NONE as NONE
from core_ext.reference.documents import PLAIN as PLAIN
from core_ext.reference.documents import event_id as event_id
from core_ext.reference.documents import event_json as event_json
from core_ext.reference.documents import event_subject as event_subject
from core_ext.reference.documents import order_json as order_json
