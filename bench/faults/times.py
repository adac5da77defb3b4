"""How long things take in the system under test: waits that are minutes in production are scaled down, so that a row
breaks it twenty times within minutes. What is scaled is printed.
"""

from typing import NamedTuple


class Times(NamedTuple):
    """Seconds. `outage`: of a server; `stop`: of a process that is stopped; `hole`: of a link that swallows."""

    duplicate_window: int
    owner_timeout: float
    heartbeat: float
    command_timeout: float
    ack_timeout: float
    reply_max: float
    outage: float
    stop: float
    hole: float

    def environment(self) -> dict[str, str]:
        """The settings of the system."""
        milliseconds = {
            "OWNER__TIMEOUT": self.owner_timeout,
            "OWNER__HEARTBEAT": self.heartbeat,
            "POSTGRES__COMMAND_TIMEOUT": self.command_timeout,
            "NATS__ACK_TIMEOUT": self.ack_timeout,
            "ORDERS__REPLY": self.reply_max,
        }
        suffixes = {"ORDERS__REPLY": "_MS_MAX"}
        told = {f"FLOODGATE_{name}{suffixes.get(name, '_MS')}": str(int(s * 1000)) for name, s in milliseconds.items()}
        return told | {"FLOODGATE_NATS__DUPLICATE_WINDOW_S": str(self.duplicate_window)}


SCALED = Times(
    duplicate_window=4,
    owner_timeout=2.0,
    heartbeat=0.25,
    command_timeout=2.0,
    ack_timeout=1.0,
    reply_max=3.0,
    outage=5.0,
    stop=3.5,
    hole=3.0,
)
FULL = Times(
    duplicate_window=120,
    owner_timeout=10.0,
    heartbeat=1.0,
    command_timeout=10.0,
    ack_timeout=5.0,
    reply_max=5.0,
    outage=180.0,
    stop=14.0,  # A worker is ended by its own supervisor after 15 s.
    hole=25.0,
)
