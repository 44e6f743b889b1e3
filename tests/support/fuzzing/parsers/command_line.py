"""Values of options and arguments on the command line."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from edgex.errors import UsageError
from fuzzing.mutations import damaged
from fuzzing.parser import Case, Parser
from fuzzing.parsers.artefacts import write_model, write_pictures, write_vector

_FORMS: dict[str, tuple[str, ...]] = {
    "alpha": ("bake", "--target", "model.safetensors", "--vector", "vector-fp32.safetensors", "--alpha"),
    "image-size": ("import", "model.pt", "--arch", "timm/fuzz_vit", "--classes", "a,b,c,d", "--image-size"),
    "resize": ("import", "model.pt", "--arch", "timm/fuzz_vit", "--classes", "a,b,c,d", "--resize"),
    "classes": ("import", "model.pt", "--arch", "timm/fuzz_vit", "--classes"),
    "players": ("vector", "label", "--model", "model.safetensors", "--data", "pictures", "--players"),
    "pairs": ("vector", "label", "--model", "model.safetensors", "--data", "pictures", "--players", "4", "--pairs"),
    "explain": ("predict", "fused.onnx", "pictures/class 0/0.png", "--json", "--explain"),
    "top": ("predict", "fused.onnx", "pictures/class 0/0.png", "--json", "--top"),
}
_RIGHT = {
    "alpha": "1.5",
    "image-size": "16",
    "resize": "18",
    "classes": "a,b,c,d",
    "players": "4",
    "pairs": "2",
    "explain": "blue thing",
    "top": "2",
}
_VALUES = (
    "0",
    "1",
    "-1",
    "4",
    "9",
    "160",
    "1e9",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "1_0",
    "٣",
    "0x10",
    "1e-400",
    "99999999999999999999",
    "9" * 5000,
    "",
    " ",
    "auto",
    "--",
    "-",
    "@",
    "@/dev/null",
    "@/",
    "red thing",
    "RED THING",
    "\x1b[31m",
    "a\nb",
    "\u202eabc",
    "../../x",
    "a,a,b,c",
    "a,,b,c",
    "True",
    "None",
    "1.0000000000000002",
    "1/2",
)


def options() -> Parser:
    """A command with one value that nobody would give, run in this process.

    Wrongly accepted: an exit code but 0, 1 and 2; a failure without a line that begins with "edgex: error:"; a success
    whose result does not hold the value.
    """
    return Parser("option", _bases, _mutate, _run, _wrong_result, names_file=False)


def _bases(folder: Path) -> Sequence[Case]:
    from fuzzing import tiny  # which makes its model known
    from small_model import write

    del tiny
    model = write_model(folder)
    write_vector(folder, model)
    write_pictures(folder / "pictures", 1)
    write(folder / "fused.onnx")
    return [_case(name, value) for name, value in _RIGHT.items()]


def _case(name: str, value: str) -> Case:
    return Case(json.dumps([name, value]).encode(), ".option.json")


def _mutate(random: Random, bases: Sequence[Case]) -> Case:
    name = random.choice(sorted(_FORMS))
    if random.random() < 0.6:
        return _case(name, random.choice(_VALUES))
    return _case(name, damaged(random, _RIGHT[name].encode(), [b"1.5", b"blue thing"])[:200].decode("utf-8", "replace"))


def _run(path: Path) -> Any:
    from edgex.cli import main

    name, value = json.loads(path.read_bytes())
    if "\0" in value:  # no shell can pass it on
        raise UsageError("no shell can pass this on")
    outputs = ["--out", "out.safetensors", "--force"] if _FORMS[name][0] != "predict" else []
    before, arguments = Path.cwd(), sys.argv
    output, errors = io.StringIO(), io.StringIO()
    code: Any = None
    with contextlib.chdir(path.parent), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        sys.argv = ["edgex", *_FORMS[name][:-1], f"{_FORMS[name][-1]}={value}", *outputs]
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
        finally:
            sys.argv = arguments
    assert Path.cwd() == before
    if code in (1, 2) and (line := _refusal(errors.getvalue())):
        raise UsageError(line)
    return name, value, code or 0, errors.getvalue(), output.getvalue()


def _refusal(text: str) -> str | None:
    """The one line that says what is wrong; typer draws its own ones into a box."""
    lines = [line for line in text.splitlines() if not line.startswith(("Usage:", "Try 'edgex"))]
    if lines and lines[-1].startswith(("edgex: error: ", "Error: ")):
        return lines[-1]
    return None


def _wrong_result(meaning: Any, case: Case) -> str | None:
    name, value, code, errors, output = meaning
    if code:
        return f"exit code {code} without a line that says why: {errors[-200:]!r}"
    if name == "alpha" and value != "auto" and not math.isfinite(float(value)):
        return "an alpha that is no number"
    if name == "explain" and "thing" not in value and not value.lstrip("-").isdecimal():
        return _explained(value, output)
    return None


def _explained(value: str, output: str) -> str | None:
    shown = json.loads(output)[0]["explained"]["class"] if output else ""
    return None if value.strip().casefold() == np.str_(shown).casefold() else f"another class than {ascii(value)[:40]}"
