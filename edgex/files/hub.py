"""Files from the Hugging Face hub: hf:// names, downloads, the local cache, errors of one line without a network.

The hub's client retries for half a minute where there is no connection. Here one short request first finds out whether
the hub answers; where it does not, the client's cache is used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgex.errors import ArtefactError, MissingExtraError, UsageError
from edgex.runtime.errors import first_line, install_hint

SCHEME = "hf://"
_ANSWER_SECONDS = 10.0


def weights_file(name: str | os.PathLike[str]) -> Path:
    """The file that "hf://organisation/repository/path" or a local path stands for, downloaded if needed."""
    name = os.fspath(name)
    if not name.startswith(SCHEME):
        return Path(name)
    parts = name.removeprefix(SCHEME).split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise UsageError(f"expected hf://organisation/repository/file, found '{name}'")
    return fetch(f"{parts[0]}/{parts[1]}", [parts[2]])


def fetch(repository: str, files: Sequence[str]) -> Path:
    """The first of `files` that a hub repository has, from the cache or downloaded.

    Raises ArtefactError where the hub is out of reach and the cache has none of them, where the repository or
    the files do not exist, or where they may not be read.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
    except ImportError as error:
        raise MissingExtraError(f"hub files need huggingface_hub: {install_hint('bake')}") from error
    wanted = f"{SCHEME}{repository}/{files[0]}"
    for file in files:
        try:
            hub.get_hf_file_metadata(hub.hf_hub_url(repository, file), timeout=_ANSWER_SECONDS)
            return Path(hub.hf_hub_download(repository, file, etag_timeout=_ANSWER_SECONDS))
        except EntryNotFoundError:
            continue
        except HfHubHTTPError as error:
            raise ArtefactError(
                f"the hub does not give {wanted} ({first_line(error)}): check the name and your access to it"
            ) from error
        except Exception as error:
            # No answer: the client raises its own errors here and those of whichever HTTP library it uses.
            if cached := _cached(repository, files):
                return cached
            raise ArtefactError(
                f"cannot get {wanted}: the hub was not reached ({first_line(error)}) and the file is not in "
                "the local cache; download it on a connected machine and give its path instead"
            ) from error
    raise ArtefactError(f"hub repository {repository} has no file {' or '.join(files)}: check the name")


def _cached(repository: str, files: Sequence[str]) -> Path | None:
    import huggingface_hub as hub

    for file in files:
        found = hub.try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None
