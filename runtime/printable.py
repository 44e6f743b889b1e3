"""Makes text safe for people to read: names come from files and folders, and may hold what steers a terminal.

Everything that edgex prints, draws, logs or stores for people goes through `printable`; JSON goes through
`printable_json`. What makes two class names the same is in `classes`.
"""

from __future__ import annotations

import re
from typing import Any

# C1 controls and delete; soft hyphen; marks, overrides and isolates of the writing direction (Unicode UAX 9); line and
# paragraph separator; characters without a width, except the joiners U+200C and U+200D that Persian and emoji are
# spelt with; byte-order mark; tags; surrogates, which stand for the bytes of a name that is not UTF-8.
_HIDDEN = (
    "\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0001"
)
_IN_TEXT = re.compile(f"[\x00-\x1f{_HIDDEN}]")
_IN_JSON = re.compile(f"[{_HIDDEN}]")
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")


def printable(text: object) -> str:
    r"""The text on one line, with a backslash escape for every character that is not seen or that steers a terminal.

    Control characters (C0, C1), overrides of the writing direction, line separators, characters without a width and
    the surrogates that Python puts for bytes that are not UTF-8 become \n, \x1b, \u202e, \udce9. The result can be
    encoded as UTF-8. Text that is printable already is returned as it is.
    """
    return _IN_TEXT.sub(_escape, str(text))


def printable_values(value: Any) -> Any:
    """JSON-ready values with every text in them, however deep, made `printable`; keys stay."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: printable_values(entry) for key, entry in value.items()}
    return type(value)(map(printable_values, value)) if isinstance(value, (list, tuple)) else value


def printable_json(text: str, encoding: str | None = "utf-8") -> str:
    r"""JSON text of the same value, with \uXXXX for the characters that `printable` escapes.

    encoding: of the file or terminal that it goes to; where that cannot hold the text, JSON in ASCII results. None
    stands for UTF-8.
    """
    text = _IN_JSON.sub(_escape_json, text)
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return _NOT_ASCII.sub(_escape_json, text)
    return text


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _escape_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
