"""What `edgex serve` makes of a machine, beside a loop around the bare session in one process: paired, round by round.

    python benchmarks/serve.py cars.onnx [--clients 64] [--rounds 5] [--seconds 8] [--out serve.json]

Both sides start from the same JPEG files in memory, decode them, run the same file with the same threads, and make the
same JSON. The loop takes pictures in batches of the file's max_batch or one by one, whichever is faster here. The
clients are one asyncio process that sends the next request on each of its connections once the answer is there; it
takes time of the same cores, which the server's share does not include: `per_cpu_second` is pictures for each second of
CPU that the process itself used, `per_second` what a stopwatch says of a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from common import RESULTS, log, save_json

from edgex import samples
from edgex.bench.timing import machine

PACKAGES = ("numpy", "pillow", "onnxruntime", "fastapi", "uvicorn")
WARM = 1.0
"""Seconds before each measurement."""


def pictures() -> list[bytes]:
    """JPEG files: edgex's samples, 300x451 to 640x615 pixels."""
    return [path.read_bytes() for path in sorted(samples.FOLDER.glob("*.jpg"))]


def bare_session(model: str, threads: int | None) -> None:
    """Answers each line of standard input, "BATCH SECONDS", with one of JSON: pictures and seconds of CPU."""
    from edgex.runtime import Session
    from edgex.runtime.frames import decode_picture

    files = pictures()
    with Session(model, "cpu", threads=threads) as session:
        print(session.metadata.max_batch, flush=True)
        for line in sys.stdin:
            batch, seconds = int(line.split()[0]), float(line.split()[1])
            done, start, used = 0, time.perf_counter(), time.process_time()
            while time.perf_counter() - start < seconds:
                frames = [decode_picture(files[(done + i) % len(files)], "picture") for i in range(batch)]
                answers = [result.to_json() for result in session(frames)]
                done += len(answers)
            wall = time.perf_counter() - start
            print(json.dumps({"pictures": done, "seconds": wall, "cpu": time.process_time() - used}), flush=True)


class Load:
    """Clients that ask a server without a pause, each on a connection of its own."""

    def __init__(self, url: str, clients: int) -> None:
        address = urlsplit(url)
        self.host, self.port, self.clients = address.hostname, address.port, clients
        self.requests = [
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s"
            % (len(data), data)
            for data in pictures()
        ]

    def run(self, seconds: float) -> dict[str, Any]:
        """Answers, errors, latencies in seconds."""
        return asyncio.run(self._run(seconds))

    async def _run(self, seconds: float) -> dict[str, Any]:
        end = time.perf_counter() + seconds
        found = await asyncio.gather(*(self._client(number, end) for number in range(self.clients)))
        return {
            "answers": sum(len(latencies) for latencies, _ in found),
            "errors": sum(errors for _, errors in found),
            "latencies": [latency for latencies, _ in found for latency in latencies],
        }

    async def _client(self, number: int, end: float) -> tuple[list[float], int]:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        latencies: list[float] = []
        errors = 0
        while (start := time.perf_counter()) < end:
            writer.write(self.requests[(number + len(latencies)) % len(self.requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
            body = await reader.readexactly(length)
            if head.startswith(b"HTTP/1.1 200") and b'"heatmap"' in body:
                latencies.append(time.perf_counter() - start)
            else:
                errors += 1
        writer.close()
        return latencies, errors


def cpu_seconds(url: str) -> float:
    """What the server's process has used so far, as its own metrics say."""
    with urllib.request.urlopen(f"{url}metrics", timeout=30) as answer:
        found = re.search(r"^process_cpu_seconds_total (\S+)", answer.read().decode(), re.MULTILINE)
    assert found is not None, "the server's metrics lack process_cpu_seconds_total, which needs Linux"
    return float(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "serve.json")
    arguments = parser.parse_args()
    if arguments.bare:
        bare_session(arguments.model, arguments.threads)
        return
    threads = ["--threads", str(arguments.threads)] if arguments.threads else []
    command = [sys.executable, "-m", "edgex", "serve", arguments.model, "--port", "0", "--provider", "cpu"]
    command.append("--no-request-log")
    server = subprocess.Popen([*command, *threads], stderr=subprocess.PIPE, text=True)
    bare = subprocess.Popen(
        [sys.executable, __file__, arguments.model, "--bare", *threads],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None and bare.stdout is not None
        url = re.search(r"http://\S+/(?= )", server.stderr.readline())[0]  # type: ignore[index]
        report = measure(url, bare, int(bare.stdout.readline()), arguments)
    finally:
        for process in (server, bare):
            process.terminate()
        codes = [process.wait(30) for process in (server, bare)]
    assert codes[0] == 0, f"the server ended with exit code {codes[0]}"
    save_json(report, arguments.out)


def measure(url: str, bare: subprocess.Popen[str], max_batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The report; prints its figures."""

    def loop(batch: int, seconds: float) -> dict[str, float]:
        assert bare.stdin is not None and bare.stdout is not None
        bare.stdin.write(f"{batch} {seconds}\n")
        bare.stdin.flush()
        found = json.loads(bare.stdout.readline())
        return {
            "per_second": found["pictures"] / found["seconds"],
            "per_cpu_second": found["pictures"] / found["cpu"],
        }

    load = Load(url, arguments.clients)
    rounds: list[dict[str, Any]] = []
    latencies: list[float] = []
    errors = 0
    begin = machine(PACKAGES)
    for number in range(arguments.rounds):
        load.run(WARM)
        used, start = cpu_seconds(url), time.perf_counter()
        found = load.run(arguments.seconds)
        wall, used = time.perf_counter() - start, cpu_seconds(url) - used
        errors += found["errors"]
        latencies += found["latencies"]
        served = {"per_second": found["answers"] / wall, "per_cpu_second": found["answers"] / used}
        loops = {}
        for batch in sorted({1, max_batch}):
            loop(batch, WARM / 2)
            loops[batch] = loop(batch, arguments.seconds / 2)
        fastest = {key: max(one[key] for one in loops.values()) for key in served}
        ratio = {key: served[key] / fastest[key] for key in served}
        rounds.append({"server": served, "session": loops, "ratio": ratio})
        log(f"round {number + 1}: server {served}, session {loops}, ratio {ratio}")
    milliseconds = 1000 * np.percentile(latencies, (50, 95, 99))
    report = {
        "machine": begin,
        "model": Path(arguments.model).name,
        "clients": arguments.clients,
        "max_batch": max_batch,
        "answers": len(latencies),
        "errors": errors,
        "latency_ms": dict(zip(("p50", "p95", "p99"), (round(float(ms), 1) for ms in milliseconds), strict=True)),
        "ratio": {
            key: round(float(np.median([one["ratio"][key] for one in rounds])), 3)
            for key in ("per_second", "per_cpu_second")
        },
        "rounds": rounds,
    }
    print(json.dumps({key: value for key, value in report.items() if key not in ("machine", "rounds")}, indent=1))
    return report


if __name__ == "__main__":
    main()
