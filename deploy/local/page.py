"""What `up` and `status` print: the page of a running system, made from its record."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from deploy.local.demo import SKU
from deploy.local.edge import read_token
from deploy.local.folder import DataFolder

ORDER = f'{{"channel":"app","currency":"CNY","customer_id":"u-1","items":[{{"sku":"{SKU}","quantity":1}}]}}'


def ready_page(folder: DataFolder, record: dict[str, Any], *, detached: bool) -> str:
    """URLs, the token, an order that works when pasted, and what to do next."""
    http, data, floodgate = record["http"], _data(folder), program()
    about = {
        "gateway": http,
        "API": f"{http}/schema",
        "health": f"{http}/readyz?verbose",
        "PostgreSQL": record["postgres"],
        "Valkey": record["redis"],
        "NATS": record["nats"],
        "data": str(folder.path),
        "logs": str(folder.logs),
        "token": f"{read_token(folder.token)}  (in {folder.token})",
    }
    following = {
        f"{floodgate} status{data}": "what runs, and where",
        f"{floodgate} stock show {SKU}{data}": "the stock, shard by shard",
        f"{floodgate} events{data}": "the event of your order",
        f"{floodgate} audit{data}": "whether the books balance",
        f"{floodgate} down{data}" if detached else "Ctrl-C": "stops all of it; the data stay",
    }
    parts = ["Floodgate is ready.", _rows(about), "Try it:", f"  {try_it(folder, http)}", "Next:", _rows(following)]
    return "\n" + "\n\n".join(parts) + "\n"


def program() -> str:
    """How the command of this environment is called from here: by name where the shell finds it, else by path."""
    path = Path(sys.executable).parent / "floodgate"
    if not path.exists() or shutil.which("floodgate") == str(path):
        return "floodgate"
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def try_it(folder: DataFolder, http: str) -> str:
    """One line that places an order, as often as it is pasted; without a demo catalogue it lists the products."""
    token = f'-H "Authorization: Bearer $(cat {shlex.quote(str(folder.token))})"'
    if not folder.seeded_file.exists():
        return f"curl -sS {token} {http}/v1/products"
    key = '-H "Idempotency-Key: try-$(date +%s%N)"'
    return f"curl -sS {http}/v1/orders {token} {key} -H 'Content-Type: application/json' -d '{ORDER}'"


def status_page(report: dict[str, Any]) -> str:
    """The human form of `status --json`, without the secrets."""
    state = "ready" if report["ready"] else "not ready"
    addresses = {name: without_secret(report[name]) for name in ("http", "postgres", "redis", "nats") if report[name]}
    processes = {name: f"pid {pid}" for name, pid in report["pids"].items()}
    head = f"Floodgate runs and is {state}."
    return "\n\n".join([head, _rows({**addresses, "data": report["data"]}), _rows(processes)])


def without_secret(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _rows(cells: dict[str, str]) -> str:
    width = max(len(name) for name in cells)
    return "\n".join(f"  {name.ljust(width)}  {value}" for name, value in cells.items())


def _data(folder: DataFolder) -> str:
    return "" if folder.is_default() else f" --data {shlex.quote(str(folder.path))}"
