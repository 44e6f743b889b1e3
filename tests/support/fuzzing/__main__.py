"""The long run: `python -m fuzzing [--cases 20000] [--kills 20] [--parser NAME]`, behind `make fuzz`.

Inputs for all parsers, then kills of every command of `fuzzing.crashes`. It goes on where it was stopped, prints a
table, and ends with 1 where anything failed. Failing inputs are kept in tests/fuzz/cases, and `make test` tries them
again ever after.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from fuzzing.campaign import Failure, Report
from fuzzing.crashes import COMMANDS, crash
from fuzzing.parsers import PARSERS
from fuzzing.worker import WORK, Worker

_CHUNK = 100
_PROGRESS = WORK / "progress.json"
_FIRST_SEED = 1
"""`make test` has seed 0."""


class Progress:
    """What was tried so far, in a file. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self.reports: dict[str, Report] = {}
        self._next: dict[str, int] = {}
        if path.is_file():
            stored = json.loads(path.read_text(encoding="utf-8"))
            self._next = stored["next"]
            for name, report in stored["reports"].items():
                failures = [Failure(**failure) for failure in report.pop("failures")]
                self.reports[name] = Report(**report, failures=failures)

    def seed(self, parser: str) -> int:
        """The next seed of a parser that was not used before."""
        with self._lock:
            self._next[parser] = self._next.get(parser, _FIRST_SEED - 1) + 1
            return self._next[parser]

    def add(self, found: Report) -> None:
        """Counts a chunk and stores the state."""
        with self._lock:
            total = self.reports.setdefault(found.parser, Report(found.parser))
            total.cases += found.cases
            for kind, count in found.kinds.items():
                total.kinds[kind] = total.kinds.get(kind, 0) + count
            total.slowest, total.memory = max(total.slowest, found.slowest), max(total.memory, found.memory)
            known = {failure.signature for failure in total.failures}
            total.failures += [failure for failure in found.failures if failure.signature not in known]
            content = {
                "next": self._next,
                "reports": {name: dataclasses.asdict(report) for name, report in self.reports.items()},
            }
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_suffix(".new")
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(self._path)


@contextlib.contextmanager
def noted(broken: list[str]) -> Iterator[None]:
    """What keeps one parser from being tried does not keep the others."""
    try:
        yield
    except AssertionError as error:
        broken.append(str(error))


def table(reports: list[Report]) -> str:
    """One line a parser."""
    kinds = ("refused", "accepted", "traceback", "wrong", "unclear", "memory", "slow", "crash")
    heads = ("refused", "accepted rightly", "tracebacks", "wrongly accepted", "unclear", "memory", "slow", "crashes")
    rows = [["parser", "cases", *heads, "slowest [s]", "peak memory [MB]"]]
    total = Report("total")
    for report in [*reports, total]:
        rows.append(
            [
                report.parser,
                str(report.cases),
                *[str(report.kinds.get(kind, 0)) for kind in kinds],
                f"{report.slowest:.2f}",
                str(report.memory >> 20),
            ]
        )
        total.cases += report.cases
        total.slowest, total.memory = max(total.slowest, report.slowest), max(total.memory, report.memory)
        for kind, count in report.kinds.items():
            total.kinds[kind] = total.kinds.get(kind, 0) + count
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=20_000, help="inputs of all parsers together")
    parser.add_argument("--parser", action="append", choices=sorted(PARSERS), help="only this one; may be repeated")
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="begin at the first seed instead of going on")
    arguments = parser.parse_args()
    if arguments.again:
        _PROGRESS.unlink(missing_ok=True)
    progress = Progress(_PROGRESS)
    chosen = arguments.parser or list(PARSERS)
    broken: list[str] = []
    wanted = -(-arguments.cases // len(chosen))

    def run(name: str) -> None:
        done = progress.reports[name].cases if name in progress.reports else 0
        with Worker() as worker, noted(broken):
            while done < wanted:
                found = worker.run(name, progress.seed(name), min(_CHUNK, wanted - done))
                done += found.cases
                progress.add(found)
                for failure in found.failures:
                    print(f"{name}: {failure.kind}: {failure.signature}: {failure.file}", flush=True)
        print(f"{name}: {done} inputs", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(arguments.processes) as pool:
        list(pool.map(run, chosen))
    reports = [progress.reports[name] for name in chosen if name in progress.reports]
    print(table(reports))
    for command in COMMANDS if arguments.kills else ():
        found = crash(command, arguments.kills)
        print(f"{command}: {found.kills} kills left {found.old} old and {found.new} new outputs", flush=True)
        broken += [f"{command}: {problem}" for problem in found.problems]
    for problem in broken:
        print(f"\n{problem}")
    failures = [failure for report in reports for failure in report.failures]
    for failure in failures:
        print(f"\n{failure.parser}: {failure.kind}: {failure.file}\n{failure.message}")
    sys.exit(1 if failures or broken else 0)


if __name__ == "__main__":
    main()
