from core_ext.reference.ids import floor_of as floor_of
from core_ext.reference.ids import format_id as format_id
from core_ext.reference.ids import new_id as new_id
from core_ext.reference.ids import parse_id as parse_id
from core_ext.reference.ids import partition_of as partition_of
from core_ext.reference.ids import time_of as time_of
