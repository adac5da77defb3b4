"""Tasks that somebody owns: run to their end, counted when they fail, ended at the close."""

import asyncio

import pytest

from gateway import tasks as rooms
from gateway.tasks import Tasks
from tests.unit.fakes import turns


async def fail() -> None:
    raise ValueError("a bug")


async def test_tasks_started_work_runs_to_its_end() -> None:
    tasks, done = Tasks(), asyncio.Event()

    async def work() -> None:
        done.set()

    tasks.start(work())
    await done.wait()
    await tasks.close(wait_s=0)


async def test_tasks_work_that_fails_is_counted_and_hurts_nobody() -> None:
    tasks = Tasks()
    tasks.start(fail())
    await turns()
    assert tasks.failures == 1
    await tasks.close(wait_s=0)


async def test_tasks_loop_that_fails_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "RESTART_PAUSE_S", 0)
    tasks, runs = Tasks(), 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            await fail()

    await tasks.loop("loop", run)
    assert (runs, tasks.failures) == (3, 2)
    await tasks.close(wait_s=0)


async def test_tasks_loop_that_returns_is_done() -> None:
    tasks, runs = Tasks(), 0

    async def run() -> None:
        nonlocal runs
        runs += 1

    await tasks.loop("loop", run)
    assert runs == 1
    await tasks.close(wait_s=0)


async def test_tasks_close_waits_for_work_that_was_started() -> None:
    tasks, done = Tasks(), False

    async def work() -> None:
        nonlocal done
        await turns()
        done = True

    tasks.start(work())
    await tasks.close(wait_s=10)
    assert done


async def test_tasks_close_ends_loops_and_work_that_does_not_end() -> None:
    tasks, ended = Tasks(), []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    tasks.start(hang())
    tasks.loop("loop", hang)
    await turns()
    await tasks.close(wait_s=0)
    assert ended == [True, True]
