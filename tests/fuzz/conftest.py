"""The process that tries mutated inputs, one for each file of tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fuzzing.worker import KEPT, Worker

CASES = 200
"""Inputs of each parser; `make fuzz` tries many more."""


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as found:
        yield found


@pytest.fixture
def holds(worker: Worker) -> Callable[[str], None]:
    """`holds("picture")` fails for an input of a parser, kept or new, that breaks it or is wrongly accepted."""

    def check(parser: str) -> None:
        for file in sorted((KEPT / parser).glob("*")):
            kind, message = worker.replay(parser, file)
            assert kind in ("refused", "accepted"), f"{file}: {kind}: {message}"
        report = worker.run(parser, seed=0, count=CASES)
        found = [f"{failure.file}: {failure.kind}: {failure.message}" for failure in report.failures]
        assert not found, "\n".join(found)
        assert report.cases == CASES

    return check
