"""Connections to PostgreSQL that stall, fall silent or are reset inside COPY, under both event loops and on both ways
of a batch: every commit ends, says that it did not happen or that nobody knows, and leaves a ledger that goes on.

Large batches are larger than all that the kernel and the loop take for a peer that does not read: the driver's own COPY
waits for such a peer without end.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import asyncpg
import pytest
import uvloop

from persistence.errors import LedgerUnavailableError
from persistence.postgres import control, ledger
from tests.cut_proxy import COMMIT, COPY_DATA, CutProxy, Loss, Trigger, open_proxy
from tests.ledger_world import World, draft, new_id, open_world

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
SIZES = {"small": 1, "large": 80}  # orders of PERSONAL bytes
PERSONAL = bytes(100_000)
WAIT_S = 30.0  # the longest that anything here may take
LOOK_AGAIN_S = 0.01
BRIEF_S = 0.3  # a time-out for a server that will not answer
# The driver's own COPY, whose statement the server has to have parsed before.
COPY_LIVING = Trigger(re.compile(rb"Q.{4}COPY \"orders\"", re.DOTALL | re.IGNORECASE))


class Scene(NamedTuple):
    """A ledger, the way to it, and one owner's connection over that way."""

    world: World
    proxy: CutProxy
    owner: str

    def lane(self, command_timeout_s: float = WAIT_S) -> ledger.Ledger:
        return self.world.ledger(self.owner, self.proxy.url, command_timeout_s)

    async def is_committed(self, lane: ledger.Ledger, batch_id: bytes, entries: Sequence[ledger.Entry]) -> bool:
        """Whether the batch is committed in the end, as the error says or the ledger when it is asked."""
        try:
            await lane.commit(batch_id, entries)
        except LedgerUnavailableError:
            return False
        except ledger.AmbiguousError as error:
            return await control.resolve(self.world.control, batch_id, error.backend_pid, self.owner)
        return True


Play: TypeAlias = Callable[[Callable[[Scene], Awaitable[None]]], None]


@pytest.fixture(params=[("uvloop", "pipelined"), ("uvloop", "stepwise"), ("asyncio", "pipelined")], ids="-".join)
def play(postgres_url: str, request: pytest.FixtureRequest) -> Play:
    """Plays a scene; what it leaves has to balance, and to commit again."""
    loop, way = request.param

    async def run(scene: Callable[[Scene], Awaitable[None]]) -> None:
        async with open_world(postgres_url, pipelined=way == "pipelined") as world, open_proxy(postgres_url) as proxy:
            async with asyncio.timeout(WAIT_S):
                await scene(Scene(world, proxy, await world.owner()))
            await world.assert_clean()
            assert await world.ledger().commit(new_id(), [draft()]) == []

    def play(scene: Callable[[Scene], Awaitable[None]]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(run(scene))

    return play


@pytest.fixture(params=SIZES)
def entries(request: pytest.FixtureRequest) -> list[ledger.Entry]:
    return [draft(personal=PERSONAL) for _ in range(SIZES[request.param])]


only_large = pytest.mark.parametrize("entries", ["large"], indirect=True)


async def until_stalled(lane: ledger.Ledger, proxy: CutProxy, entries: Sequence[ledger.Entry]) -> None:
    """Until the peer reads no more; of a large batch in one write the loop then holds what the kernel does not take."""
    await proxy.cut.wait()
    if len(entries) > 1 and lane.way == "pipelined":
        connection: asyncpg.Connection = lane._connection
        transport: Any = connection._transport
        while not transport.get_write_buffer_size():
            await asyncio.sleep(LOOK_AGAIN_S)


def test_commit_whose_peer_stalls_inside_copy_and_then_resets_did_not_happen(
    play: Play, entries: list[ledger.Entry]
) -> None:
    async def scene(scene: Scene) -> None:
        scene.proxy.arm(COPY_DATA, Loss.SILENCE)
        lane = scene.lane()
        committing = asyncio.create_task(scene.is_committed(lane, new_id(), entries))
        await until_stalled(lane, scene.proxy, entries)
        scene.proxy.take_away()
        assert await committing is False
        assert await scene.world.count("orders") == 0

    play(scene)


@only_large
def test_commit_whose_peer_stalls_inside_copy_for_good_ends_by_its_time_out(
    play: Play, entries: list[ledger.Entry]
) -> None:
    async def scene(scene: Scene) -> None:
        scene.proxy.arm(COPY_DATA, Loss.SILENCE)
        assert await scene.is_committed(scene.lane(BRIEF_S), new_id(), entries) is False
        assert await scene.world.count("orders") == 0

    play(scene)


def test_commit_that_is_reset_inside_copy_did_not_happen(play: Play, entries: list[ledger.Entry]) -> None:
    async def scene(scene: Scene) -> None:
        scene.proxy.arm(COPY_DATA, Loss.REQUEST)
        assert await scene.is_committed(scene.lane(), new_id(), entries) is False
        assert await scene.world.count("orders") == 0

    play(scene)


@only_large
def test_commit_that_is_given_up_while_it_stalls_inside_copy_ends_and_its_ledger_goes_on(
    play: Play, entries: list[ledger.Entry]
) -> None:
    """As a committer does whose patience is over: nothing but its own connection may have to be waited for."""

    async def scene(scene: Scene) -> None:
        scene.proxy.arm(COPY_DATA, Loss.SILENCE)
        lane, batch_id = scene.lane(), new_id()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(BRIEF_S):
                await lane.commit(batch_id, entries)
        assert lane.way == "closed"
        assert await control.resolve(scene.world.control, batch_id, lane.backend_pid, scene.owner) is False
        assert await lane.commit(new_id(), entries) == []
        assert await scene.world.order_ids() == {entry.order_id for entry in entries}

    play(scene)


@pytest.mark.parametrize("loss", list(Loss))
def test_ledger_whose_commit_was_not_answered_never_uses_that_connection_again(play: Play, loss: Loss) -> None:
    """The driver calls it open still."""

    async def scene(scene: Scene) -> None:
        scene.proxy.arm(COMMIT, loss)
        lane = scene.lane(BRIEF_S)
        with pytest.raises(ledger.AmbiguousError) as caught:
            await lane.commit(new_id(), [draft()])
        assert lane.way == "closed"
        assert await lane.commit(new_id(), [draft()]) == []
        assert lane.backend_pid != caught.value.backend_pid

    play(scene)


@only_large
def test_commit_in_which_postgres_is_the_one_that_goes_did_not_happen(play: Play, entries: list[ledger.Entry]) -> None:
    """Its backend is ended while the batch stands half in its socket."""

    async def scene(scene: Scene) -> None:
        scene.proxy.arm(COPY_DATA, Loss.SILENCE)
        lane = scene.lane()
        committing = asyncio.create_task(scene.is_committed(lane, new_id(), entries))
        await until_stalled(lane, scene.proxy, entries)
        assert await scene.world.value("select pg_terminate_backend($1, 5000)", lane.backend_pid)
        assert await committing is False
        assert await scene.world.count("orders") == 0

    play(scene)


@pytest.mark.parametrize("play", [(loop, "pipelined") for loop in LOOPS], indirect=True, ids="-".join)
def test_refused_batch_that_stalls_on_its_second_attempt_did_not_happen(play: Play) -> None:
    """A batch in one write that is refused goes step by step over the same connection: that may stall as well."""

    async def scene(scene: Scene) -> None:
        known = draft()
        lane = scene.lane(BRIEF_S)
        assert await lane.commit(new_id(), [known]) == []
        scene.proxy.arm(COPY_LIVING, Loss.SILENCE)
        batch = [draft(key=known.key_hash), draft(personal=PERSONAL)]
        assert await scene.is_committed(lane, new_id(), batch) is False
        assert scene.proxy.cut.is_set()
        assert await scene.world.order_ids() == {known.order_id}

    play(scene)
