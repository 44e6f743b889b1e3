"""What every reader of JSON knows. NaN and infinity are no numbers of the format (RFC 8259, section 6), though Python
writes and reads them as words of its own.
"""

from __future__ import annotations

import math
from typing import Any


def finite(value: Any) -> Any:
    """The same value with None in place of every number that is not finite, however deep; tuples become lists."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
