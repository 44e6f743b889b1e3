"""The command line: `edgex <command>`, one module a command, put together in `edgex.cli.application`.

It needs typer and rich, which the extra `cli` installs; this module does without them, so that `main` can say so.
"""

from __future__ import annotations

import importlib.util
import sys

from edgex.cli.ending import ends_in_words
from edgex.runtime.errors import install_hint


@ends_in_words()
def main() -> None:
    """The entry point of the `edgex` command; says how to install the extra `cli` where that is missing."""
    if missing := [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]:
        print(f"edgex: error: the command line needs {' and '.join(missing)}: {install_hint('cli')}", file=sys.stderr)
        sys.exit(1)
    from edgex.cli.application import run

    run()
