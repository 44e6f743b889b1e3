"""Writes a fused file again with other metadata; the graph or plan inside stays as it is to the last bit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgex.runtime.atomic_files import atomic_output
from edgex.runtime.container import read_engine, read_onnx, with_engine_text, with_onnx_text
from edgex.runtime.json_text import parse_json
from edgex.runtime.metadata import Metadata, load
from edgex.runtime.printable import printable_json

_NO_DIGEST = "0" * 64


def update_metadata(
    path: str | os.PathLike[str], changes: Mapping[str, Any], to: str | os.PathLike[str] | None = None
) -> Metadata:
    """Writes a fused file with some keys of its metadata changed, and the file's digest that follows from that.

    path: an ONNX file or an engine file. changes: JSON-ready values by their keys; other keys stay, also those that
    this version of edgex does not know. to: the file to write. Defaults to `path`, which is replaced and keeps its
    permissions; where that is a link, to the file behind it.

    Returns the metadata as they are now. Raises ArtefactError for a file that is no intact fused model, for changes
    that the contract does not allow, and where the file cannot be written; nothing is written then.
    """
    path = Path(path)
    _, plan = load(path)
    data = path.read_bytes()
    text = read_onnx(data, path).text if plan is None else read_engine(data, path)[0]
    values = {**parse_json(text, f"{path}: metadata"), **changes}
    # Last, as the export writes it: what is replaced below is then the last digest in the text.
    values.pop("file_sha256")
    values["file_sha256"] = _NO_DIGEST
    Metadata.from_dict(values, f"{path}: metadata")

    def pieces(written: bytes) -> list[bytes | memoryview]:
        return [*(with_onnx_text(data, written) if plan is None else with_engine_text(plan, written))]

    unsealed = printable_json(json.dumps(values, ensure_ascii=False, allow_nan=False)).encode()
    digest = hashlib.sha256()
    for piece in pieces(unsealed):
        digest.update(piece)
    head, _, tail = unsealed.rpartition(_NO_DIGEST.encode())
    target = path.resolve() if to is None else Path(to)
    with atomic_output(target) as temporary:
        with temporary.open("wb") as file:
            file.writelines(pieces(head + digest.hexdigest().encode() + tail))
        if to is None:
            shutil.copymode(path, temporary)
    return load(target)[0]
