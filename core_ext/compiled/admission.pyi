from core_ext.reference.admission import CREATED as CREATED
from core_ext.reference.admission import PAID as PAID
from core_ext.reference.admission import PENDING_PAYMENT as PENDING_PAYMENT
from core_ext.reference.admission import tell as tell
from core_ext.reference.admission import write as write
