"""The supervisor's decisions, with processes and a clock that do what the test says."""

import signal
import subprocess
import sys

import pytest

from gateway.settings import WORKERS_MAX
from gateway.slots import Slots
from gateway.workers import (
    LIVED_S,
    PAUSE_S_MAX,
    PAUSE_S_MIN,
    SETTINGS_STATUS,
    SILENT_S_MAX,
    SLOTS,
    STOP_S_MAX,
    SUCCESSOR_S_MAX,
    Supervisor,
)
from tests.unit.slots import shared_slots


class Process:
    """A process that ends when the test says so."""

    def __init__(self, pid: int, slot: int) -> None:
        self.pid = pid
        self.slot = slot
        self.status: int | None = None
        self.signals: list[int] = []

    def poll(self) -> int | None:
        return self.status

    def send_signal(self, sig: int) -> None:
        self.signals.append(sig)


class House:
    """A supervisor, all that it has ever started, and the time."""

    def __init__(self, workers: int) -> None:
        self.now_s = 1000.0
        self.started: list[Process] = []
        self.fails = 0
        self.slots: Slots = shared_slots(SLOTS)
        self.supervisor = Supervisor(workers, self._start, self.slots, lambda: self.now_s)

    def _start(self, slot: int) -> Process:
        if self.fails:
            self.fails -= 1
            raise BlockingIOError("no more processes")
        self.started.append(Process(100 + len(self.started), slot))
        return self.started[-1]

    def living(self) -> list[Process]:
        return [process for process in self.started if process.status is None]

    def staying(self) -> list[Process]:
        """The living that have not been told to end."""
        return [process for process in self.living() if signal.SIGTERM not in process.signals]

    def end(self, process: Process, status: int) -> None:
        process.status = status
        self.supervisor.tick()

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.supervisor.tick()

    def go_on(self, seconds: float) -> None:
        """Time goes by, and the supervisor looks all the while."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.wait(min(1.0, until_s - self.now_s))

    def sign(self, process: Process) -> None:
        self.slots[process.slot].sign_at = self.now_s

    def send(self, number: int) -> None:
        self.supervisor.receive(number)
        self.supervisor.tick()

    def say_ready(self, process: Process) -> None:
        slot = self.slots[process.slot]
        slot.claim(1, 0)
        slot._cells[0] = process.pid
        slot.ready = True
        self.sign(process)
        self.supervisor.tick()


def test_supervisor_starts_every_worker_on_a_slot_of_its_own() -> None:
    house = House(3)
    assert [process.slot for process in house.started] == [0, 1, 2]


def test_supervisor_worker_dies_is_started_again_on_its_slot_and_neighbours_stay() -> None:
    house = House(2)
    dead, neighbour = house.started
    house.end(dead, -signal.SIGKILL)
    assert house.staying() == [neighbour]
    house.wait(PAUSE_S_MIN)
    assert [process.slot for process in house.staying()] == [1, 0]
    assert neighbour.signals == []


def test_supervisor_worker_keeps_dying_pauses_grow_to_their_bound_and_never_end() -> None:
    house = House(1)
    pauses = []
    for _ in range(50):
        house.end(house.living()[0], 1)
        died_s = house.now_s
        while not house.living():
            house.wait(0.1)
        pauses.append(round(house.now_s - died_s, 1))
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(PAUSE_S_MIN, abs=0.1)
    assert pauses[-1] == pytest.approx(PAUSE_S_MAX, abs=0.1)
    assert house.supervisor.status is None


def test_supervisor_worker_that_has_lived_a_while_is_started_again_soon() -> None:
    house = House(1)
    for _ in range(10):
        house.end(house.living()[0], 1)
        house.wait(PAUSE_S_MAX)
    house.wait(LIVED_S)
    house.end(house.living()[0], 1)
    house.wait(PAUSE_S_MIN)
    assert len(house.living()) == 1


def test_supervisor_dead_worker_gives_its_slot_free_for_its_successor() -> None:
    house = House(1)
    house.say_ready(house.started[0])
    house.end(house.started[0], 1)
    assert (house.slots[0].pid, house.slots[0].ready) == (0, False)


def test_supervisor_process_cannot_be_started_is_tried_again() -> None:
    house = House(1)
    house.fails = 3
    house.end(house.started[0], 1)
    for _ in range(4):
        house.wait(PAUSE_S_MAX)
    assert len(house.living()) == 1


def test_supervisor_worker_refuses_its_settings_ends_the_whole_with_2() -> None:
    house = House(2)
    refusing, other = house.started
    house.end(refusing, SETTINGS_STATUS)
    assert other.signals == [signal.SIGTERM]
    house.end(other, 0)
    assert house.supervisor.is_done()
    assert house.supervisor.status == SETTINGS_STATUS


def test_supervisor_worker_falls_silent_is_killed_once_and_started_again() -> None:
    house = House(2)
    silent, other = house.started
    for process in house.started:
        house.say_ready(process)
    house.go_on(SILENT_S_MAX - 1)
    house.sign(other)
    assert silent.signals == []
    house.go_on(3)
    assert (silent.signals, other.signals) == ([signal.SIGKILL], [])
    house.end(silent, -signal.SIGKILL)
    house.wait(PAUSE_S_MIN)
    assert [process.slot for process in house.living()] == [1, 0]


def test_supervisor_worker_was_ready_and_is_not_now_falls_silent_is_killed() -> None:
    house = House(1)
    (worker,) = house.started
    house.say_ready(worker)
    house.slots[worker.slot].ready = False
    house.go_on(SILENT_S_MAX)
    assert worker.signals == [signal.SIGKILL]


def test_supervisor_worker_that_gives_signs_is_left_alone() -> None:
    house = House(1)
    (worker,) = house.started
    house.say_ready(worker)
    for _ in range(10):
        house.go_on(SILENT_S_MAX - 1)
        house.sign(worker)
    assert worker.signals == []


def test_supervisor_worker_that_was_never_ready_may_be_silent() -> None:
    house = House(1)
    (worker,) = house.started
    house.slots[worker.slot].claim(1, 0)
    house.sign(worker)
    house.go_on(2 * SILENT_S_MAX)
    assert worker.signals == []


def test_supervisor_successor_of_a_silent_worker_has_to_be_ready_first() -> None:
    house = House(1)
    house.say_ready(house.started[0])
    house.end(house.started[0], -signal.SIGKILL)
    house.wait(PAUSE_S_MIN)
    house.sign(house.started[1])
    house.go_on(2 * SILENT_S_MAX)
    assert house.started[1].signals == []


def test_supervisor_worker_of_a_version_that_gives_no_signs_is_left_alone() -> None:
    house = House(1)
    (worker,) = house.started
    house.say_ready(worker)
    house.slots[worker.slot].sign_at = 0.0
    house.go_on(2 * SILENT_S_MAX)
    assert worker.signals == []


def test_supervisor_that_was_stopped_itself_hears_its_workers_before_it_judges() -> None:
    house = House(1)
    (worker,) = house.started
    house.say_ready(worker)
    house.wait(100 * SILENT_S_MAX)
    house.go_on(SILENT_S_MAX - 1)
    assert worker.signals == []
    house.go_on(1)
    assert worker.signals == [signal.SIGKILL]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_supervisor_told_to_stop_waits_for_the_last_worker(number: int) -> None:
    house = House(2)
    house.send(number)
    assert [process.signals for process in house.started] == [[signal.SIGTERM]] * 2
    house.end(house.started[0], 0)
    assert not house.supervisor.is_done()
    house.end(house.started[1], 0)
    assert house.supervisor.is_done()
    assert house.supervisor.status == 0
    assert len(house.started) == 2


def test_supervisor_worker_does_not_end_when_told_is_killed() -> None:
    house = House(1)
    house.send(signal.SIGTERM)
    house.wait(STOP_S_MAX - 1)
    assert house.started[0].signals == [signal.SIGTERM]
    house.wait(1)
    assert house.started[0].signals == [signal.SIGTERM, signal.SIGKILL]
    assert not house.supervisor.is_done()
    house.end(house.started[0], -signal.SIGKILL)
    assert house.supervisor.is_done()


def test_supervisor_told_to_stop_starts_no_dead_worker_again() -> None:
    house = House(2)
    house.end(house.started[0], 1)
    house.send(signal.SIGTERM)
    house.wait(PAUSE_S_MAX)
    house.end(house.started[1], 0)
    assert house.supervisor.is_done()
    assert len(house.started) == 2


def test_supervisor_ttin_and_ttou_change_the_number_of_workers() -> None:
    house = House(1)
    house.send(signal.SIGTTIN)
    house.send(signal.SIGTTIN)
    assert len(house.staying()) == 3
    house.send(signal.SIGTTOU)
    assert len(house.staying()) == 2
    leaving = next(process for process in house.living() if process.signals)
    house.end(leaving, 0)
    house.wait(PAUSE_S_MAX)
    assert len(house.living()) == 2


def test_supervisor_ttou_never_takes_the_last_worker() -> None:
    house = House(1)
    house.send(signal.SIGTTOU)
    assert house.started[0].signals == []


def test_supervisor_ttin_stops_at_the_greatest_number() -> None:
    house = House(WORKERS_MAX)
    house.send(signal.SIGTTIN)
    assert len(house.staying()) == WORKERS_MAX


def test_supervisor_worker_that_leaves_keeps_its_slot_until_it_has_ended() -> None:
    house = House(2)
    house.send(signal.SIGTTOU)
    house.send(signal.SIGTTIN)
    assert [process.slot for process in house.living()] == [0, 1, 2]
    house.end(house.started[1], 0)
    house.send(signal.SIGTTIN)
    assert house.started[-1].slot == 1


def test_supervisor_hup_replaces_one_worker_at_a_time_each_by_one_that_is_ready() -> None:
    house = House(2)
    first, second = house.started
    house.send(signal.SIGHUP)
    assert len(house.started) == 3
    assert house.staying() == [first, second, house.started[2]]
    house.say_ready(house.started[2])
    assert house.staying() == [second, house.started[2]]
    assert len(house.started) == 3
    house.end(first, 0)
    house.supervisor.tick()
    house.say_ready(house.started[3])
    house.end(second, 0)
    house.wait(PAUSE_S_MAX)
    assert house.living() == house.started[2:]


@pytest.mark.parametrize("status", [1, SETTINGS_STATUS, -signal.SIGSEGV])
def test_supervisor_hup_successor_dies_leaves_the_old_workers(status: int) -> None:
    house = House(2)
    old = list(house.started)
    house.send(signal.SIGHUP)
    house.end(house.started[2], status)
    house.wait(SUCCESSOR_S_MAX)
    assert house.living() == old
    assert house.staying() == old
    assert house.supervisor.status is None


def test_supervisor_hup_successor_never_gets_ready_is_given_up() -> None:
    house = House(1)
    house.send(signal.SIGHUP)
    old, successor = house.started
    house.wait(SUCCESSOR_S_MAX)
    assert successor.signals == [signal.SIGTERM]
    assert old.signals == []


def test_supervisor_hup_worker_taken_away_meanwhile_has_no_successor() -> None:
    house = House(2)
    first, second = house.started
    house.send(signal.SIGHUP)
    house.say_ready(house.started[2])
    house.end(first, 0)
    house.supervisor.tick()
    house.send(signal.SIGTTOU)
    assert second.signals == [signal.SIGTERM]
    house.say_ready(house.started[3])
    assert house.staying() == [house.started[2]]


def test_supervisor_told_to_stop_ends_a_successor_too() -> None:
    house = House(1)
    house.send(signal.SIGHUP)
    house.send(signal.SIGTERM)
    assert [process.signals for process in house.started] == [[signal.SIGTERM]] * 2


def test_supervisor_runs_until_the_last_worker_has_ended() -> None:
    house = House(1)
    script = iter([None, signal.SIGTERM])

    def receive(timeout_s: float) -> int | None:
        number = next(script, None)
        if house.started[0].signals:
            house.started[0].status = 0
        return number

    assert house.supervisor.run(receive) == 0


def test_supervisor_program_does_not_load_what_serves() -> None:
    heavy = ("litestar", "granian", "asyncpg", "nats", "prometheus_client", "gateway.app")
    program = f"import sys, gateway.cli.serve; sys.exit(str([name for name in {heavy} if name in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
