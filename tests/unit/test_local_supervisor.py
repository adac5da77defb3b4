"""The supervisor's decisions, with processes that only pretend and a clock that is passed in."""

from pathlib import Path

import pytest

from deploy.local.failure import StackError
from deploy.local.process import Process
from deploy.local.supervisor import DEATHS_MAX, DEATHS_WINDOW_S, PAUSE_S_MAX, PAUSE_S_MIN, Interrupted, Supervisor


class Pretended(Process):
    """A process that lives and dies by assignment."""

    def __init__(self, name: str = "steward", *, refuses_settings: bool = False) -> None:
        super().__init__(name, [], Path("/nowhere") / f"{name}.log", refuses_settings=refuses_settings)
        self.starts = 0
        self.status: int | None = None

    def start(self) -> None:
        self.starts += 1
        self.status = None

    def poll(self) -> int | None:
        return self.status

    def leftovers(self) -> list[int]:
        return []

    def tail(self, lines: int = 20) -> str:
        return "the ledger is away" if lines == 1 else "first\nthe ledger is away"


class World:
    """A supervisor with one child, what it said, and the time."""

    def __init__(self, child: Pretended) -> None:
        self.now_s = 1000.0
        self.said: list[str] = []
        self.child = child
        self.supervisor = Supervisor(self.said.append, lambda: None, clock=lambda: self.now_s, pause=self.pass_time)
        self.supervisor.add(child)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    def die_and_restart(self, status: int = 1) -> None:
        self.child.status = status
        self.supervisor.tick()
        self.pass_time(PAUSE_S_MAX)
        self.supervisor.tick()


def test_supervisor_dead_child_is_started_again_after_the_pause() -> None:
    world = World(Pretended())
    world.child.status = -9
    world.supervisor.tick()
    assert world.child.starts == 1
    world.pass_time(PAUSE_S_MIN)
    world.supervisor.tick()
    assert world.child.starts == 2


def test_supervisor_dead_child_says_what_why_and_where() -> None:
    world = World(Pretended())
    world.child.status = -9
    world.supervisor.tick()
    [line] = world.said
    for part in ("steward died", "signal 9, SIGKILL", "the ledger is away", "/nowhere/steward.log"):
        assert part in line


def test_supervisor_pause_grows_with_each_death() -> None:
    world = World(Pretended())
    world.die_and_restart()
    world.child.status = 1
    world.supervisor.tick()
    world.pass_time(PAUSE_S_MIN)
    world.supervisor.tick()
    assert world.child.starts == 2
    world.pass_time(PAUSE_S_MIN)
    world.supervisor.tick()
    assert world.child.starts == 3


def test_supervisor_child_that_keeps_dying_ends_the_system() -> None:
    world = World(Pretended())
    for _ in range(DEATHS_MAX - 1):
        world.die_and_restart()
    world.child.status = 1
    with pytest.raises(StackError, match="steward died 5 times within 60 s"):
        world.supervisor.tick()


def test_supervisor_old_deaths_are_forgotten() -> None:
    world = World(Pretended())
    for _ in range(3 * DEATHS_MAX):
        world.die_and_restart()
        world.pass_time(DEATHS_WINDOW_S / 2)
    assert world.child.starts == 1 + 3 * DEATHS_MAX


def test_supervisor_refused_settings_end_the_system_at_once() -> None:
    world = World(Pretended(refuses_settings=True))
    world.child.status = 2
    with pytest.raises(StackError, match=r"(?s)cannot use its settings.*the ledger is away"):
        world.supervisor.tick()


def test_supervisor_status_two_of_a_server_is_an_ordinary_death() -> None:
    world = World(Pretended("postgres"))
    world.child.status = 2
    world.supervisor.tick()
    assert world.child.starts == 1
    assert len(world.said) == 1


def test_supervisor_wait_ends_with_the_complaint() -> None:
    world = World(Pretended())
    with pytest.raises(StackError, match="too late"):
        world.supervisor.wait(lambda: False, 3.0, lambda: "too late")


def test_supervisor_wait_is_ended_by_a_request_to_stop() -> None:
    world = World(Pretended())
    world.supervisor.stopping = True
    with pytest.raises(Interrupted):
        world.supervisor.wait(lambda: False, 3.0, lambda: "too late")


def test_supervisor_wait_restarts_children_meanwhile() -> None:
    world = World(Pretended())
    world.child.status = 1
    world.supervisor.wait(lambda: world.child.starts == 2, 10.0, lambda: "too late")


def test_supervisor_failed_command_shows_its_last_lines() -> None:
    world = World(Pretended())

    class Failing(Pretended):
        def start(self) -> None:
            self.status = 1

    with pytest.raises(StackError, match=r"(?s)`migrate` failed .exit status 1.*first"):
        world.supervisor.run_once(Failing("migrate"), 5.0)
