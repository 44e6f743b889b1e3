"""The main jobs on a small model, one after the other, in one process: `python silent_job.py`, in an empty folder.

Writes to seen.json what an audit hook saw: look-ups and connections, files written
outside of this folder, $EDGEX_HOME and the temporary folder.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

seen: list[str] = []
PLACES = (".", os.environ["EDGEX_HOME"], tempfile.gettempdir(), "/dev", "/proc")
ALLOWED = tuple(os.path.realpath(path) for path in PLACES)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        seen.append(f"{event} {arguments[:2]}")
    written = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
    if (written or event in ("os.mkdir", "os.rename")) and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if not path.startswith(ALLOWED):
            seen.append(f"{event} {path}")


def run(line: str) -> None:
    """One command in this process."""
    from edgex.cli import main

    sys.argv = ["edgex", *line.split()]
    try:
        main()
    except SystemExit as ending:
        if ending.code:
            raise


def job() -> None:
    """Import, train, learn a vector, bake, export, predict, evaluate."""
    import timm
    import torch

    from pictures import picture_folder

    torch.save(timm.create_model("test_vit", num_classes=7).state_dict(), "base.pt")
    picture_folder(Path("shapes"), {"train": 4, "val": 2})
    small = "--players 25 --pairs 2 --steps 2 --blocks 2 --batch-size 4 --learn weights --precision fp32"
    run("train --data shapes --base timm/test_vit --weights base.pt --out my.safetensors --epochs 1 --precision fp32")
    run("import base.pt --arch timm/test_vit --classes a,b,c,d,e,f,g --out source.safetensors")
    run(f"vector train --model source.safetensors --data shapes/train {small} --out tau.safetensors")
    run("bake --target my.safetensors --vector tau.safetensors --alpha 0.8 --out baked.safetensors")
    run("export --onnx fp32 --out baked.onnx --threshold top1_agreement=0")
    run("predict baked.onnx shapes/val --overlay overlays")
    run("eval baked.safetensors --data shapes/val --unbaked my.safetensors")
    run("doctor")


if __name__ == "__main__":
    sys.addaudithook(watch)
    job()
    Path("seen.json").write_text(json.dumps(seen), encoding="utf-8")
