from core_ext.reference.sealing import FORMAT as FORMAT
from core_ext.reference.sealing import KEY_BYTES as KEY_BYTES
from core_ext.reference.sealing import NONCE_BYTES as NONCE_BYTES
from core_ext.reference.sealing import PERSONAL_PURPOSE as PERSONAL_PURPOSE
from core_ext.reference.sealing import WAYS as WAYS
from core_ext.reference.sealing import WRAPPED_PURPOSE as WRAPPED_PURPOSE
from core_ext.reference.sealing import Sealer as Sealer
