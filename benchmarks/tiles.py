"""A 4K frame in 3 x 4 tiles: one call of a session with tiles against 12 calls of a plain session with crops.

    python benchmarks/tiles.py [--rounds 9] [--threads 1] [--precisions fp32 int8]

The built-in imagenet-1k model (DeiT-tiny, 224 pixels), exported with a largest batch of 12 and with frames squashed to
its input, so that both ways see the same pixels; the tiles overlap by 0.1. Three calls are timed against the 12: for a
class that is named (one pass for each tile), for the frame's own class (tiles that predict another class are run
again), and the plain session on the whole frame. Interleaved, in one process; times are of one frame, resizing
included. That both ways give the same logits and heatmaps is checked. Results go to results/tiles.json and .md.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
from common import RESULTS, Subject, log, measured_on, save
from preprocess import FRAMES, frame_of

from edgex.bench.timing import Contender, Summary, machine, ratio, take_turns
from edgex.runtime import Session, TiledResult

TILES, OVERLAP = (3, 4), 0.1
COUNT = TILES[0] * TILES[1]
NAMED, OWN, SEPARATE, WHOLE = "tiles, class named", "tiles, frame's own class", f"{COUNT} calls", "whole frame, 1 call"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="imagenet-1k")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--out", type=Path, default=RESULTS / "tiles.json")
    arguments = parser.parse_args()
    subject = Subject.load(arguments.model, None)
    squashed = subject.card.preprocessing.fitted("squash")
    subject = dataclasses.replace(subject, card=dataclasses.replace(subject.card, preprocessing=squashed))
    frame = frame_of(FRAMES["4K"])
    report: dict[str, Any] = subject.describe()
    report |= {"tiles": TILES, "overlap": OVERLAP, "threads": arguments.threads, "precisions": {}}
    with tempfile.TemporaryDirectory() as folder:
        for precision in arguments.precisions:
            path = Path(folder) / f"{precision}.onnx"
            subject.export(precision, path, max_batch=COUNT)
            report["precisions"][precision] = measured(path, frame, arguments.rounds, arguments.threads)
    report["machine"]["load_average_at_end"] = machine(())["load_average"]
    save(report, as_markdown(report), arguments.out)


def measured(path: Path, frame: np.ndarray, rounds: int, threads: int) -> dict[str, Any]:
    """Milliseconds per frame of each way, and ratios to the separate calls."""
    with (
        Session(path, "cpu", threads=threads) as plain,
        Session(path, "cpu", threads=threads, tiles=TILES, overlap=OVERLAP) as tiled,
    ):
        named = plain(frame).index
        result = cast("TiledResult", tiled(frame, explain=named))
        boxes = [tile.box for tile in result.tiles]

        def separate() -> list[Any]:
            return [plain(frame[top:bottom, left:right], explain=named) for top, left, bottom, right in boxes]

        difference = largest_difference(result, separate())
        ways = {
            SEPARATE: separate,
            NAMED: lambda: tiled(frame, explain=named),
            OWN: lambda: tiled(frame),
            WHOLE: lambda: plain(frame, explain=named),
        }
        found = take_turns([Contender(name, run) for name, run in ways.items()], rounds, log)
        own = cast("TiledResult", tiled(frame))
    return {
        "largest_difference": difference,
        "passes_of_the_own_class": COUNT + sum(tile.label != own.label for tile in own.tiles),
        "ways": {
            name: {
                "wall_ms": Summary.of(times.wall).to_dict(),
                "cpu_ms": Summary.of(times.cpu).to_dict(),
                "wall_over_separate": ratio(times.wall, found[SEPARATE].wall).to_dict(),
                "cpu_over_separate": ratio(times.cpu, found[SEPARATE].cpu).to_dict(),
            }
            for name, times in found.items()
        },
    }


def largest_difference(result: TiledResult, separate: list[Any]) -> dict[str, float]:
    """Between the tiles' and the crops' results; batches of other sizes may add up in another order."""
    pairs = [(tile.result, crop) for tile, crop in zip(result.tiles, separate, strict=True)]
    return {
        name: float(max(np.abs(getattr(tile, name) - getattr(crop, name)).max() for tile, crop in pairs))
        for name in ("logits", "heatmap")
    }


def as_markdown(report: dict[str, Any]) -> str:
    """One row per precision and way."""
    lines = [
        f"{measured_on(report)} {report['threads']} thread(s) per inference. A 4K frame in {TILES[0]} x {TILES[1]} "
        f"tiles that overlap by {OVERLAP}; medians with quartiles, of one frame.",
        "",
        f"| precision | way | ms | quartiles | over {SEPARATE} | quartiles | CPU time over {SEPARATE} |",
        "|---|---|---|---|---|---|---|",
    ]
    for precision, found in report["precisions"].items():
        for name, row in found["ways"].items():
            shown = name if name != OWN else f"{name} ({found['passes_of_the_own_class']} passes)"
            wall, over, cpu = row["wall_ms"], row["wall_over_separate"], row["cpu_over_separate"]
            cells = [
                f"{wall['median']:.0f}",
                "{:.0f} to {:.0f}".format(*wall["quartiles"]),
                f"{over['median']:.2f}",
                "{:.2f} to {:.2f}".format(*over["quartiles"]),
                f"{cpu['median']:.2f}",
            ]
            lines.append(f"| {precision} | {shown} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
