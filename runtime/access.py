"""Who may ask a server of edgex: this machine alone, or whoever sends a token. The servers are elsewhere."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path

from edgex.runtime.errors import UsageError

TOKEN_VARIABLE = "EDGEX_TOKEN"
"""The environment variable that holds the token where no file is named."""
LEAST = 16
"""Characters of a token; shorter ones can be guessed."""


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: str | os.PathLike[str] | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The token of a file, or of `TOKEN_VARIABLE` without one; None where there is neither.

    Raises UsageError, which never repeats the token, for one that is no line of at least `LEAST` printable ASCII
    characters without spaces.
    """
    if path is None:
        found, where = environment.get(TOKEN_VARIABLE), f"the environment variable {TOKEN_VARIABLE}"
        if found is None:
            return None
    else:
        where = os.fspath(path)
        try:
            found = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise UsageError(f"expected a file with a token, found {where}: {reason}", argument="token_file") from None
    token = found.strip()
    if len(token) < LEAST or not all("!" <= character <= "~" for character in token):
        raise UsageError(
            f"expected a token of at least {LEAST} ASCII characters without spaces in {where}, found another; "
            "make one with: openssl rand -hex 32",
            argument="token_file",
        )
    return token


def check_address(host: str, token: str | None) -> None:
    """Raises UsageError for an address that other machines reach, without a token."""
    if token is None and not is_loopback(host):
        raise UsageError(
            f"expected a token to listen at {host}, which other machines reach, found none: give a file that holds "
            f"one, or set {TOKEN_VARIABLE}; without, listen at 127.0.0.1",
            argument="token_file",
        )


def is_allowed(authorization: str, token: str) -> bool:
    """Whether the value of an Authorization header holds the token; compared in constant time.

    It is "Bearer TOKEN" (RFC 6750), or "Basic ..." with the token as password (RFC 7617), which browsers ask for.
    """
    scheme, _, value = authorization.strip().partition(" ")
    given = value.strip()
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, ValueError):
            given = ""
    elif scheme.lower() != "bearer":
        given = ""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode("utf-8"))
