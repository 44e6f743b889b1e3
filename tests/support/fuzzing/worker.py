"""A process of its own for campaigns, so that a hanging or crashing parser takes nobody along.

Requests and answers are lines of JSON. `Worker` is the side that starts the process and watches it; running this
module is the other side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from fuzzing.campaign import Campaign, Failure, Report, keep, scratch
from fuzzing.parser import Case

ROOT = Path(__file__).resolve().parents[3]
KEPT = ROOT / "tests" / "fuzz" / "cases"
WORK = ROOT / "build" / "fuzz"
_ADDRESS_SPACE = 8 << 30
"""Bytes beyond which memory is refused to the process, to spare the machine."""


class Worker:
    """Starts the process when it is needed, and again after it died. A context manager."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder = Path()

    def run(self, parser: str, seed: int, count: int) -> Report:
        """Tries `count` inputs; where one ends the process, it is kept as a failure and the rest is left out."""
        answer = self._ask({"parser": parser, "seed": seed, "count": count})
        if isinstance(answer, Failure):
            return Report(parser, 1, {answer.kind: 1}, failures=[answer])
        failures = [Failure(**failure) for failure in answer.pop("failures")]
        return Report(**answer, failures=failures)

    def replay(self, parser: str, file: Path) -> tuple[str, str]:
        """(kind, message) of a kept input's outcome."""
        answer = self._ask({"parser": parser, "file": str(file)})
        return (answer.kind, answer.message) if isinstance(answer, Failure) else (answer["kind"], answer["message"])

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._end()
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if line:
            answer = json.loads(line)
            if "error" in answer:
                raise AssertionError(answer["error"])
            return answer
        return self._died(request)

    def _start(self) -> None:
        self._folder = scratch(WORK)
        with (self._folder / "stderr").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fuzzing.worker", str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self._folder,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT / "tests" / "support"),
                    "OMP_NUM_THREADS": "1",
                    "EDGEX_HOME": str(self._folder / "home"),
                },
            )

    def _died(self, request: dict[str, Any]) -> Failure:
        """The process is gone: the input that it was at is left in its folder."""
        code = self._end()
        said = (self._folder / "stderr").read_text(encoding="utf-8", errors="replace")
        kind = "slow" if "Timeout (" in said else "crash"
        left = sorted((self._folder / request["parser"]).glob("case*"), key=lambda path: path.stat().st_mtime)
        if not left:
            raise AssertionError(f"{request['parser']}: the worker ended with {code} before any input: {said[-3000:]}")
        case = Case(left[-1].read_bytes(), left[-1].name.removeprefix("case"))
        file = request.get("file") or str(keep(case, KEPT / request["parser"]))
        shutil.rmtree(self._folder, ignore_errors=True)
        return Failure(request["parser"], kind, f"{kind} of the process", f"exit {code}: {said[-3000:]}", file)

    def _end(self) -> int:
        """Closes the pipes, at which the process ends; its exit code."""
        assert self._process is not None
        process, self._process = self._process, None
        with contextlib.suppress(OSError), process:
            pass
        return process.returncode


def serve(folder: Path) -> None:
    """Answers requests from standard input until it ends."""
    import resource

    from fuzzing.parsers import PARSERS

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever prints to standard output must not look like an answer.
    os.dup2(2, 1)
    campaigns: dict[str, Campaign] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["parser"]
        try:
            if name not in campaigns:
                campaigns[name] = Campaign(PARSERS[name](), folder / name, KEPT)
                campaigns[name].check_bases()
                used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + _ADDRESS_SPACE, resource.RLIM_INFINITY))
            campaign = campaigns[name]
            if "file" in request:
                answer = dataclasses.asdict(campaign.replay(Path(request["file"])))
            else:
                answer = dataclasses.asdict(campaign.run(request["seed"], request["count"]))
        except Exception:
            import traceback

            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    # A page's server and its threads go on until they are closed.
    os._exit(0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
