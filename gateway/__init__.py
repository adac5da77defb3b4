"""The gateway: edge, admission, batch, ledger, publisher, with leases beside admission. Only `app` wires them."""
