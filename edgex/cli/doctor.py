"""`edgex doctor`: what is installed, what this machine can run on, what is missing and how to get it."""

from __future__ import annotations

from typing import Annotated

import typer

from edgex.cli.command import Command
from edgex.cli.console import print_json, say
from edgex.doctor import PACKAGES, diagnose


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("doctor", cls=Command)(doctor)


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, execution providers, devices, folders, and what is missing."""
    found = diagnose()
    described = found.to_dict()
    if json:
        print_json(described)
        return
    say(f"edgex {described['edgex']}, Python {described['python']}, {described['platform']}")
    for package in PACKAGES:
        state = found.packages[package.distribution] or f"not installed (pip install '.[{package.extra}]')"
        if package.module == "onnxruntime" and found.runtimes and not found.packages[package.distribution]:
            state = f"not installed ({found.runtimes[0]} is: one at a time)"
        say(f"  {package.distribution:<22}{state:<44}{package.purpose}")
    say(f"execution providers: {', '.join(found.providers) or 'none'}")
    say(f"GPUs that torch sees: {', '.join(found.gpus) or 'none'}")
    say(f"telemetry: {', '.join(f'{library} {state}' for library, state in described['telemetry'].items())}")
    say(f"folder of your own models ($EDGEX_HOME): {found.home or 'none'}")
    say(f"newest bake, which `edgex export` takes by default: {found.newest_bake or 'none'}")
    for line in found.advice:
        say(f"advice: {line}")
