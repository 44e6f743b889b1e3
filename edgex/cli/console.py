"""What all commands share in talking to people and programs: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

EXIT_FAILURE = 1


def print_error(error: BaseException) -> None:
    """One line on standard error."""
    text = " ".join(str(error).split())
    print(f"edgex: error: {text}", file=sys.stderr)


def note(text: str) -> None:
    """A line for people on standard error."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """A result for programs on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
