"""Health and metrics: open where orchestrators ask, closed where numbers tell about the business."""

from gateway import api
from tests.api import Fake, Placing, call, services


async def test_livez_of_a_worker_that_can_do_nothing_is_ok() -> None:
    parts = services(stream=Fake(connected=False), following=Fake(ready=False))
    reply = await call(api.create(parts), "GET", "/livez", token=None)
    assert (reply.status, reply.body) == (200, b"ok")


async def test_readyz_of_a_ready_worker_is_ok() -> None:
    reply = await call(api.create(services()), "GET", "/readyz", token=None)
    assert (reply.status, reply.body) == (200, b"ok")


async def test_readyz_without_the_ledger_is_503() -> None:
    placing = Placing()
    placing.open = False
    reply = await call(api.create(services(admission=placing)), "GET", "/readyz", token=None)
    assert (reply.status, reply.body) == (503, b"not ready")


class Journal:
    """Stands for Journaling."""

    def __init__(self, *, usable: bool, wanted: bool = True) -> None:
        self.usable, self.wanted = usable, wanted
        self.fault = "" if usable else "the disk is full"
        self.left = 3


async def test_readyz_without_the_ledger_is_ok_while_the_journal_takes_orders() -> None:
    placing = Placing()
    placing.open = False
    parts = services(admission=placing, journaling=Journal(usable=True))
    reply = await call(api.create(parts), "GET", "/readyz?verbose", token=None)
    lines = reply.body.decode().splitlines()
    assert reply.status == 200
    assert "[-]ledger failed: away, 3 orders in the journal" in lines
    assert "[+]journal ok" in lines


async def test_readyz_without_the_ledger_is_503_when_the_journal_takes_no_orders() -> None:
    placing = Placing()
    placing.open = False
    parts = services(admission=placing, journaling=Journal(usable=False))
    reply = await call(api.create(parts), "GET", "/readyz?verbose", token=None)
    assert reply.status == 503
    assert "[-]journal failed: the disk is full" in reply.body.decode().splitlines()


async def test_readyz_does_not_miss_a_journal_that_nobody_wants() -> None:
    parts = services(journaling=Journal(usable=False, wanted=False))
    reply = await call(api.create(parts), "GET", "/readyz?verbose", token=None)
    assert "[+]journal ok" in reply.body.decode().splitlines()


async def test_readyz_while_draining_is_503() -> None:
    placing = Placing()
    placing.draining = True
    assert (await call(api.create(services(admission=placing)), "GET", "/readyz", token=None)).status == 503


async def test_readyz_verbose_names_each_part() -> None:
    parts = services(stream=Fake(connected=False))
    reply = await call(api.create(parts), "GET", "/readyz?verbose", token=None)
    lines = reply.body.decode().splitlines()
    assert reply.status == 200
    assert "[+]ledger ok" in lines
    assert "[-]stream failed" in lines
    assert lines[-1] == "readyz check passed"


async def test_readyz_verbose_says_why_live_settings_are_not_applied() -> None:
    parts = services()
    parts.live.fault = "version 5 cannot be applied"
    reply = await call(api.create(parts), "GET", "/readyz?verbose", token=None)
    assert reply.status == 200
    assert "[-]settings failed: version 5 cannot be applied" in reply.body.decode().splitlines()


async def test_readyz_without_the_excluded_part_is_as_the_others_are() -> None:
    placing = Placing()
    placing.open = False
    app = api.create(services(admission=placing))
    assert (await call(app, "GET", "/readyz?exclude=ledger", token=None)).status == 200
    reply = await call(app, "GET", "/readyz?exclude=clock&exclude=stream", token=None)
    assert (reply.status, reply.body, reply.header("content-type")) == (503, b"not ready", "text/plain; charset=utf-8")


async def test_readyz_verbose_names_what_is_excluded_and_warns_of_what_is_no_part() -> None:
    app = api.create(services())
    lines = (await call(app, "GET", "/readyz?verbose&exclude=ledger&exclude=x", token=None)).body.decode().splitlines()
    assert "[+]ledger excluded: ok" in lines
    assert lines[-2:] == ["warn: a part that is to be excluded does not exist", "readyz check passed"]


async def test_metrics_for_a_client_with_the_scope_are_prometheus_text() -> None:
    parts = services()
    parts.counters.created(2, 5)
    reply = await call(api.create(parts), "GET", "/metrics")
    assert reply.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert b"floodgate_orders_created_total 1.0" in reply.body
