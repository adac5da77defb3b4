"""An index of the orders that wait for their payment, by when that is due."""

from persistence.postgres.migrate import add_index

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    add_index("orders", "due", "(expires_at) where status = 'pending_payment'")
