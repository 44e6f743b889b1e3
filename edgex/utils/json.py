"""JSON that every reader knows. NaN and infinity are no numbers of the format (RFC 8259, section 6), though Python's
own module writes and reads them as words.
"""

from __future__ import annotations

import json
import math
from typing import Any

from edgex.runtime.printable import printable_json


def dumps(value: Any, *, indent: int | None = None) -> str:
    """JSON text in Unicode, see `printable_json`; null in place of every number that is not finite."""
    return printable_json(json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False))


def finite(value: Any) -> Any:
    """The same value with None in place of every number that is not finite, however deep; tuples become lists."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
