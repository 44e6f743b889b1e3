"""Checks what parsed JSON holds, and says where it is not as expected: `classes[3]: expected text, found 7`.

A schema is put together from checks. A check takes a value of parsed JSON and gives it back as the program uses it: a
list as a tuple, an object as a dataclass. Every card, metadata entry and file of boxes or names is described by one
schema beside what it describes; the JSON itself is read by `json_text`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from edgex.runtime.errors import ArtefactError, EdgexError

T = TypeVar("T")
Check = Callable[[Any], T]

MAX_SIDE = 1 << 14
"""Pixels of one side of a model's input, at most: a larger number in a card would only take the memory."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LARGEST = 2**63 - 1
_SHOWN = 80
"""Characters of a key that a message repeats."""


class MisfitError(Exception):
    """A value is not what a check expects. path: what leads to it from the outermost value, such as "[3].name"."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path

    def below(self, key: str | int) -> MisfitError:
        """The same error, seen from the list or object that holds the value at `key`."""
        self.path = (f"[{key}]" if isinstance(key, int) else _step(key)) + self.path
        return self


@dataclass(frozen=True)
class Default:
    """The check of a key that an object may lack, and the value that stands for it then."""

    check: Check[Any]
    value: Any


def checked(check: Check[T], value: Any, name: str, *, advice: str = "", error: type[EdgexError] = ArtefactError) -> T:
    """A value of parsed JSON as its check gives it back.

    name: opens the error message. advice: closes it, what to do. error: what is raised where the value does not fit,
    with the path to what is wrong.
    """
    try:
        return check(value)
    except MisfitError as misfit:
        path = f"{misfit.path.removeprefix('.')}: " if misfit.path else ""
        raise error(f"{name}: {path}{misfit}{advice and f'; {advice}'}") from None


def text(value: Any) -> str:
    """Text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise _misfit("text", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise MisfitError(f"expected text, found half of a surrogate pair in {ascii(value)[:60]}") from None
    return value


def any_text(value: Any) -> str:
    """Text, also the name of a file that is no UTF-8."""
    if not isinstance(value, str):
        raise _misfit("text", value)
    return value


def digest(value: Any) -> str:
    """A sha256: 64 hexadecimal digits in small letters."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise _misfit("64 hexadecimal digits", value)
    return value


def number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _misfit("a number", value)
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise _misfit("a finite number", value)
    return found


def positive(value: Any) -> float:
    """A finite number above 0."""
    if number(value) <= 0:
        raise _misfit("a number above 0", value)
    return float(value)


def share(value: Any) -> float:
    """A number from 0 to 1."""
    if not 0 <= number(value) <= 1:
        raise _misfit("a number from 0 to 1", value)
    return float(value)


def whole(least: int = 0, most: int = _LARGEST) -> Check[int]:
    """A whole number from `least` to `most`; one with a decimal point is none."""
    expected = f"a whole number of at least {least}" if most == _LARGEST else f"a whole number from {least} to {most}"

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _misfit(expected, value)
        return value

    return check


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _misfit("true or false", value)
    return value


def mapping(value: Any) -> dict[str, Any]:
    """An object whose content is not looked at."""
    if not isinstance(value, dict):
        raise _misfit("an object", value)
    return value


def one_of(*values: str) -> Check[Any]:
    """One of these texts."""
    expected = " or ".join(map(repr, values))

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in values:
            raise _misfit(expected, value)
        return value

    return check


def optional(check: Check[T]) -> Check[T | None]:
    """What `check` takes, or null."""
    return lambda value: None if value is None else check(value)


def listed(check: Check[T], *, least: int = 0, most: int | None = None) -> Check[tuple[T, ...]]:
    """A list of `least` to `most` values of one kind, as a tuple."""
    count = f"{least}" if least == most else f"at least {least}" if most is None else f"{least} to {most}"
    expected = "a list" if (least, most) == (0, None) else f"a list of {count}"

    def check_all(value: Any) -> tuple[T, ...]:
        if not isinstance(value, (list, tuple)) or len(value) < least or (most is not None and len(value) > most):
            raise _misfit(expected, value)
        return tuple(_at(index, check, item) for index, item in enumerate(value))

    return check_all


def row(*checks: Check[Any]) -> Check[tuple[Any, ...]]:
    """A list with one value for each check, as a tuple."""

    def check_each(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) != len(checks):
            raise _misfit(f"a list of {len(checks)}", value)
        return tuple(_at(index, check, item) for index, (check, item) in enumerate(zip(checks, value, strict=True)))

    return check_each


def keyed(check: Check[T]) -> Check[dict[str, T]]:
    """An object of any keys, each with a value of one kind."""
    return lambda value: {key: _at(key, check, item) for key, item in mapping(value).items()}


def record(into: Callable[..., T], /, **checks: Check[Any] | Default) -> Check[T]:
    """An object with these keys, handed to `into` by name; other keys are left out.

    What `into` refuses with an EdgexError does not fit either.
    """

    def check(value: Any) -> T:
        given = mapping(value)
        missing = [key for key, kind in checks.items() if key not in given and not isinstance(kind, Default)]
        if missing:
            raise MisfitError(f"expected its keys, found none of {', '.join(missing)}")
        found = {}
        for key, kind in checks.items():
            if not isinstance(kind, Default):
                found[key] = _at(key, kind, given[key])
            else:
                found[key] = _at(key, kind.check, given[key]) if key in given else kind.value
        try:
            return into(**found)
        except EdgexError as error:
            raise MisfitError(str(error)) from None

    return check


def object_with(**checks: Check[Any] | Default) -> Check[dict[str, Any]]:
    """An object with these keys, given back as it is, with its other keys."""
    check: Check[dict[str, Any]] = record(dict, **checks)

    def check_object(value: Any) -> dict[str, Any]:
        check(value)
        return mapping(value)

    return check_object


def _at(key: str | int, check: Check[T], value: Any) -> T:
    try:
        return check(value)
    except MisfitError as misfit:
        raise misfit.below(key) from None


def _step(key: str) -> str:
    return f".{key[:_SHOWN]}" if _IDENTIFIER.fullmatch(key) else f"[{ascii(key)[:_SHOWN]}]"


def _misfit(expected: str, value: Any) -> MisfitError:
    return MisfitError(f"expected {expected}, found {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return ascii(value[:60])
    if isinstance(value, (list, tuple, dict)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)[:40]
