"""The queue before the models, and how each job ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from folio.run.model import Model
from folio.serving.engine import Engine, Reading
from folio.serving.limits import Limits
from folio.serving.refusals import RequestError
from folio.serving.served import Served


def steps(n: int, failing: Exception | None = None) -> Iterator[int]:
    yield from range(n)
    if failing is not None:
        raise failing


def reading(n: int, failing: Exception | None = None) -> Reading:
    return Reading("tiny", lambda: steps(n, failing))


@pytest.fixture
def engine(tiny: Model) -> Iterator[Engine]:
    engine = Engine({"tiny": Served("tiny", tiny)}, Limits(rows=2, waiting=3))
    yield engine
    engine.stop()


async def heard(engine: Engine, *jobs: Reading) -> list[Any]:
    ticket = engine.submit(jobs)
    return [(job.number, event) async for job, event in ticket.heard()]


def test_jobs_take_a_step_in_turn(engine: Engine):
    told = asyncio.run(heard(engine, reading(3), reading(2)))
    assert told == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
    assert engine.counts.completed == 2 and engine.n_running == 0


def test_nothing_to_do_is_done_at_once(engine: Engine):
    assert asyncio.run(heard(engine)) == []


def test_a_job_that_fails_ends_alone(engine: Engine, capfd: pytest.CaptureFixture[str]):
    async def both() -> None:
        good = asyncio.create_task(heard(engine, reading(50)))
        with pytest.raises(RequestError, match="Something went wrong here") as caught:
            await heard(engine, reading(1, ZeroDivisionError("a secret of the user")))
        assert caught.value.status == 500 and "secret" not in caught.value.message
        assert len(await good) == 50

    asyncio.run(both())
    assert "a secret of the user" in capfd.readouterr().err
    assert engine.counts.failed == 1


def test_the_queue_takes_all_jobs_of_a_request_or_none(engine: Engine):
    async def ask() -> None:
        long = engine.submit([reading(10**9) for _ in range(4)])
        with pytest.raises(RequestError) as caught:
            engine.submit([reading(1), reading(1)])
        assert caught.value.status == 503 and caught.value.headers == {"Retry-After": "1"}
        fits = asyncio.create_task(heard(engine, reading(1)))
        await asyncio.sleep(0)
        engine.leave(long)
        assert await fits == [(0, 0)]

    asyncio.run(ask())
    assert engine.counts.rejected == 1 and engine.counts.cancelled == 4


def test_jobs_that_are_left_end_whether_they_wait_or_run(engine: Engine):
    async def ask() -> None:
        ticket = engine.submit([reading(10**9) for _ in range(5)])
        told = ticket.heard()
        await anext(told)
        engine.leave(ticket)
        async for _ in told:
            pass

    asyncio.run(ask())
    assert engine.n_running == engine.n_waiting == 0


def test_whoever_waits_when_the_server_stops_is_told(engine: Engine):
    async def ask() -> None:
        tickets = [engine.submit([reading(10**9)]) for _ in range(4)]
        await asyncio.sleep(0)
        engine.stop()
        for ticket in tickets:
            with pytest.raises(RequestError, match="stopping"):
                async for _ in ticket.heard():
                    pass
        with pytest.raises(RequestError, match="stopping"):
            engine.submit([reading(1)])

    asyncio.run(ask())
