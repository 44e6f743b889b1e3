"""What all commands share besides output: errors that name the flag they are about, earlier names of options, and
`--quiet` and `--log-file` of those that take long.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

from edgex._version import __version__
from edgex.cli.console import note
from edgex.cli.ending import offer_to_go_on
from edgex.cli.log import log
from edgex.errors import EdgexError


@dataclasses.dataclass(frozen=True)
class Renamed:
    """An option that has a new name. The old one goes on working for one release, with a note on standard error.

    value: for a switch that became an option with a value, what the switch stands for; `off` is what --no-<switch>
    stands for. convert: makes the new option's value of the old one's.
    """

    old: str
    new: str
    value: str | None = None
    off: str | None = None
    convert: Callable[[str], str] = str

    def arguments(self, argument: str) -> list[str] | None:
        """What replaces a command-line argument such as "--side", "--side=7" or "--no-half"; None where it is another.

        A value in the argument after next stays to be converted by `Command.parse_args`.
        """
        if self.value is not None:
            chosen = {self.old: self.value, self.old.replace("--", "--no-", 1): self.off}.get(argument)
            return None if chosen is None else [self.new, chosen]
        name, equals, value = argument.partition("=")
        if name != self.old:
            return None
        return [self.new, self.convert(value)] if equals else [self.new]


def _talk(
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors and results only.")] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also append every line to a file, each with the time, progress included."),
    ] = None,
) -> None:
    """The options that every long command has besides its own."""


HALF = Renamed("--half", "--dtype", value="fp16", off="fp32")


class Command(TyperCommand):
    """A command that puts the flag before an error about one of its parameters, and knows earlier names of options.

    One that takes long also has the options of `_talk`, which its function does not see.
    """

    renamed: ClassVar[tuple[Renamed, ...]] = ()
    resumes: ClassVar[bool] = False
    long: ClassVar[bool] = False

    def __init__(self, *arguments: Any, params: list[Any] | None = None, **others: Any) -> None:
        super().__init__(*arguments, params=[*(params or []), *(_talk_options() if self.long else [])], **others)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the command line after giving every option its present name."""
        return super().parse_args(ctx, present_names(args, self.renamed))

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        if self.resumes:
            offer_to_go_on()
        quiet, path = (ctx.params.pop(name, None) if self.long else None for name in ("quiet", "log_file"))
        try:
            log.begin(f"edgex {__version__}: {ctx.command_path}", quiet=bool(quiet), path=path)
            return super().invoke(ctx)
        except EdgexError as error:
            if flag := self.flag_of(error.argument):
                error.args = (f"{flag}: {error}", *error.args[1:])
            raise

    def flag_of(self, parameter: str | None) -> str | None:
        """The option ("--alpha") or positional argument ("MODEL") that a parameter of the function is given by."""
        for candidate in self.params:
            if candidate.name == parameter:
                flags = [name for name in candidate.opts if name.startswith("--")]
                return flags[0] if flags else str(candidate.metavar or candidate.name).upper().strip("[]")
        return None


def command(*renamed: Renamed, resumes: bool = False, long: bool = False) -> type[Command]:
    """The class of a command, for typer's `cls`.

    renamed: its options that have new names. resumes: whether it goes on where it was stopped when it is given again.
    long: whether it can take minutes, or runs until it is stopped, and therefore has --quiet and --log-file; a command
    that resumes has them too.
    """
    return type("Command", (Command,), {"renamed": renamed, "resumes": resumes, "long": long or resumes})


def _talk_options() -> list[Any]:
    """The options of `_talk`, as typer makes them of a command's function."""
    app = typer.Typer(add_completion=False)
    app.command()(_talk)
    return [option for option in typer.main.get_command(app).params if option.name in ("quiet", "log_file")]


def present_names(arguments: list[str], renamed: tuple[Renamed, ...]) -> list[str]:
    """The same command line with every option under its present name; a note says which were not."""
    result: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*result, argument, *rest]
        for option in renamed:
            if (replacement := option.arguments(argument)) is not None:
                old = argument.partition("=")[0]
                new = " ".join(replacement) if option.value is not None else option.new
                note(f"edgex: note: {old} is now {new}; the old name works in this release only")
                if len(replacement) == 1 and (value := next(rest, None)) is not None:
                    replacement.append(option.convert(value))
                result += replacement
                break
        else:
            result.append(argument)
    return result
