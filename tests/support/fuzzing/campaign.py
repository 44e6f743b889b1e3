"""Many inputs for one parser, in this process: hypothesis draws them, and makes a failing one small."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis import strategies as st

from fuzzing.judge import Outcome, judge
from fuzzing.parser import Case, Parser

_SHRINKING_SECONDS = 5
_PACKED_FROM = 8192
"""Bytes from which a kept input is compressed."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """A failing input that was kept: its file, and what became of it."""

    parser: str
    kind: str
    signature: str
    message: str
    file: str


@dataclasses.dataclass
class Report:
    """Counts of one parser's inputs; seconds and memory (bytes) of the worst one."""

    parser: str
    cases: int = 0
    kinds: dict[str, int] = dataclasses.field(default_factory=dict)
    slowest: float = 0.0
    memory: int = 0
    failures: list[Failure] = dataclasses.field(default_factory=list)

    def count(self, outcome: Outcome) -> None:
        self.cases += 1
        self.kinds[outcome.kind] = self.kinds.get(outcome.kind, 0) + 1
        self.slowest, self.memory = max(self.slowest, outcome.seconds), max(self.memory, outcome.memory)


class _FailedError(Exception):
    """An input failed; hypothesis makes it smaller."""


class Campaign:
    """One parser's bases and folder. folder: of its own; kept: where failing inputs are stored."""

    def __init__(self, parser: Parser, folder: Path, kept: Path) -> None:
        self.parser, self.folder, self.kept = parser, folder, kept
        self.folder.mkdir(parents=True, exist_ok=True)
        self.bases = list(parser.bases(folder))
        self.known: set[str] = set()

    def check_bases(self) -> None:
        """Every base must be accepted as it is: otherwise nothing is tested."""
        for base in self.bases:
            # The first one imports what the parser needs, which takes long on a busy machine.
            outcome = judge(self.parser, base, self.folder, seconds=300)
            if outcome.kind != "accepted":
                raise AssertionError(f"{self.parser.name}: base {base.suffix}: {outcome.kind}: {outcome.message}")

    def run(self, seed: int, count: int) -> Report:
        """Tries `count` inputs; each kind of failure is kept once, as small as was found in a few seconds."""
        report = Report(self.parser.name)
        while report.cases < count:
            before = report.cases
            self._run(seed, count - before, report)
            seed += 1_000_003
            if report.cases == before:
                break
        return report

    def replay(self, file: Path) -> Outcome:
        """A kept input, tried again."""
        data, suffix = file.read_bytes(), "".join(file.suffixes)
        if suffix.endswith(".gz"):
            data, suffix = gzip.decompress(data), suffix.removesuffix(".gz")
        return judge(self.parser, Case(data, suffix), self.folder)

    def _run(self, seed: int, count: int, report: Report) -> None:
        smallest: list[tuple[Case, Outcome]] = []
        until = 0.0

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            print_blob=False,
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
        )
        @hypothesis.given(st.randoms(use_true_random=False))
        def attempt(random: Random) -> None:
            nonlocal until
            if smallest and time.monotonic() > until:
                return
            case = self.parser.mutate(random, self.bases)
            outcome = judge(self.parser, case, self.folder)
            if not smallest:
                report.count(outcome)
            if outcome.failed and outcome.signature not in self.known:
                if smallest and outcome.signature != smallest[-1][1].signature:
                    return
                until = until or time.monotonic() + _SHRINKING_SECONDS
                smallest.append((case, outcome))
                raise _FailedError

        try:
            attempt()
        except (_FailedError, hypothesis.errors.HypothesisException):
            # Out of time, hypothesis finds that the input does not fail any more, and says so.
            if not smallest:
                raise
        if smallest:
            case, outcome = min(smallest, key=lambda found: len(found[0].data))
            self.known.add(outcome.signature)
            file = keep(case, self.kept / self.parser.name)
            report.failures.append(
                Failure(self.parser.name, outcome.kind, outcome.signature, outcome.message, str(file))
            )


def keep(case: Case, folder: Path) -> Path:
    """Stores an input under its digest, a long one compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = len(case.data) > _PACKED_FROM
    file = folder / f"{hashlib.sha256(case.data).hexdigest()[:12]}{case.suffix}{'.gz' if packed else ''}"
    file.write_bytes(gzip.compress(case.data, mtime=0) if packed else case.data)
    return file


def scratch(parent: Path) -> Path:
    """A new folder for one process's inputs."""
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent))


def picked(random: Random, bases: Sequence[Case], suffix: str | None = None) -> Case:
    """One of the bases, of this suffix where one is asked for."""
    return random.choice([base for base in bases if suffix in (None, base.suffix)])
