"""What the model of the ledger, the stream and the disk can be told to leave out, so that it can be seen that the
simulation notices. In the product each stands in SQL or in a server.
"""


class Guards:
    """True: as the product has it."""

    take_owner_alive = True  # stock_take looks whether its owner is alive
    take_once_per_lease = True  # a take that is asked again answers what was granted
    give_names_old_value = True  # a give that is asked again moves units once
    exact_tail = True  # of the last units a take grants what is needed, or nothing, and says how many there are
    batch_once = True  # the plain INSERT of the batch id
    lease_state = True  # a commit looks whether the lease is active
    lease_bound = True  # a commit looks whether the lease has the units
    key_once = True  # a key is claimed by one order
    buyer_limit = True  # a commit looks what the buyer has already
    commit_tag = True  # the answer to COMMIT says whether it was one
    outbox_row = True  # a commit writes what has to be told
    event_id = True  # the stream stores an event of the same id once
    mirror_version = True  # the mirror keeps the later state of a shard
    journal_pins_leases = True  # leases of an owner with a journal are left to who has replayed it
    journal_lock = True  # a journal is adopted only when its process is gone
    expiry_state = True  # an order that is paid does not expire
    fsync = True  # what the journal has acknowledged survives its process


GUARDS = Guards()
