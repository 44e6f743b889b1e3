"""The pictures of a request's body, as bytes: the body itself, or the files of a form. Decoding is in `service`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import NamedTuple

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from edgex.serving.limits import Limits
from edgex.serving.refusals import RefusedError

FORM = "multipart/form-data"
_NAMELESS = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""What programs say of bytes that they know nothing of; the last is curl's."""
_LONGEST_NAME = 100


class Upload(NamedTuple):
    """A picture file's bytes. name: opens error messages."""

    name: str
    data: bytes


class _Parser(MultiPartParser):
    # The body is in memory already: nothing is written to the disk.
    spool_max_size = 1 << 40


async def uploads_of(headers: Headers, body: bytes, limits: Limits) -> list[Upload]:
    """The pictures of a body, at least one. RefusedError for none, for too many, and for another content type."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        found = await _of_form(headers, body, limits)
    elif kind in _NAMELESS or kind.startswith("image/"):
        found = [Upload("the picture", body)]
    else:
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"expected a picture (image/jpeg, image/png, ...) or {FORM} with pictures, found {kind[:_LONGEST_NAME]}",
        )
    if not found or not all(upload.data for upload in found):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "expected a picture, found an empty body or file")
    return found


async def _of_form(headers: Headers, body: bytes, limits: Limits) -> list[Upload]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        # One more than allowed, so that the error about too many is this server's own.
        parser = _Parser(headers, stream(), max_files=limits.max_pictures + 1, max_fields=limits.max_pictures)
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        # A form without a boundary, for example, is a KeyError.
        reason = getattr(error, "message", None) or "no boundary, or an unusable one"
        if reason.startswith("Too many files"):
            raise _too_many(limits) from None
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"expected a well-formed {FORM}, found: {reason}") from None
    uploads = []
    for _, part in form.multi_items():
        if not isinstance(part, UploadFile):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "expected files in the form, found a field without a file name")
        uploads.append(Upload((part.filename or "a picture")[:_LONGEST_NAME], part.file.read()))
        part.file.close()
    if len(uploads) > limits.max_pictures:
        raise _too_many(limits)
    return uploads


def _too_many(limits: Limits) -> RefusedError:
    return RefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {limits.max_pictures} pictures in a request, found more"
    )
