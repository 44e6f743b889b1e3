"""Files from the Hugging Face hub: hf:// names, downloads, the local cache, errors of one line without a network.

A name is hf://organisation/repository/file, or hf://organisation/repository/file@revision, where a revision is a
branch, a tag or a commit. The sha256 of a file is recorded in $EDGEX_HOME when its name is first used, and checked from
then on: what is published under a name, and what lies in the cache, may change.

The hub's client retries for half a minute where there is no connection. Here one short request first finds out whether
the hub answers; where it does not, the client's cache is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edgex.errors import ArtefactError, MismatchError, MissingExtraError, UsageError
from edgex.files.home import home
from edgex.runtime import schema
from edgex.runtime.atomic_files import atomic_output
from edgex.runtime.errors import first_line, install_hint
from edgex.runtime.json_text import read_json
from edgex.utils.provenance import sha256_of

SCHEME = "hf://"
_FORMS = "hf://organisation/repository/file or hf://organisation/repository/file@revision"
_ANSWER_SECONDS = 10.0
_RECORD = schema.object_with(sha256=schema.digest, commit=schema.Default(schema.optional(schema.text), None))


class HubFile(NamedTuple):
    """A file of the hub: "organisation/repository", the path in it, and the revision, None for the newest.

    path: "" for the repository as a whole.
    """

    repository: str
    path: str
    revision: str | None = None

    def __str__(self) -> str:
        path, revision = f"/{self.path}" if self.path else "", f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.repository}{path}{revision}"


def named(name: str | os.PathLike[str]) -> HubFile | None:
    """What "hf://organisation/repository/path@revision" names, the path "" for the whole repository; None for a path.

    Path and revision may be left out.

    Raises UsageError for a name of another form.
    """
    name = os.fspath(name)
    if not name.startswith(SCHEME):
        return None
    whole, at, revision = name.removeprefix(SCHEME).partition("@")
    organisation, _, rest = whole.partition("/")
    repository, slash, path = rest.partition("/")
    if not (organisation and repository) or bool(slash) != bool(path) or bool(at) != bool(revision):
        raise UsageError(f"expected {_FORMS}, or hf://organisation/repository for all of it, found '{name}'")
    return HubFile(f"{organisation}/{repository}", path, revision or None)


def weights_file(name: str | os.PathLike[str]) -> Path:
    """The file that "hf://organisation/repository/path[@revision]" or a local path stands for, downloaded if needed."""
    source = named(name)
    if source is None:
        return Path(name)
    if not source.path:
        raise UsageError(f"expected {_FORMS}, found '{os.fspath(name)}', a whole repository")
    return fetch(source.repository, [source.path], source.revision)


def fetch(repository: str, files: Sequence[str], revision: str | None = None) -> Path:
    """The first of `files` that a hub repository has, from the cache or downloaded.

    Raises ArtefactError where the hub is out of reach and the cache has none of them, where the repository or
    the files do not exist, or where they may not be read; MismatchError for a file other than when it was first used.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
    except ImportError as error:
        raise MissingExtraError(f"hub files need huggingface_hub: {install_hint('bake')}") from error
    for wanted in (HubFile(repository, file, revision) for file in files):
        try:
            hub.get_hf_file_metadata(
                hub.hf_hub_url(repository, wanted.path, revision=revision), timeout=_ANSWER_SECONDS
            )
            path = hub.hf_hub_download(repository, wanted.path, revision=revision, etag_timeout=_ANSWER_SECONDS)
        except EntryNotFoundError:
            continue
        except HfHubHTTPError as error:
            raise ArtefactError(
                f"the hub does not give {wanted} ({first_line(error)}): check the name and your access to it"
            ) from error
        except Exception as error:
            # No answer: the client raises its own errors here and those of whichever HTTP library it uses.
            if cached := _cached(repository, files, revision):
                return cached
            raise ArtefactError(
                f"cannot get {wanted}: the hub was not reached ({first_line(error)}) and the file is not in "
                "the local cache; download it on a connected machine and give its path instead"
            ) from error
        return _checked(wanted, Path(path))
    raise ArtefactError(f"hub repository {repository} has no file {' or '.join(files)}: check the name")


def fetch_beside(path: Path, names: Sequence[str]) -> None:
    """Gets files of the same folder and revision as one that came from the hub; those it does not have are left out.

    Raises MismatchError for a file other than when it was first used.
    """
    if (source := origin(path)) is None:
        return
    folder = source.path.rpartition("/")[0]
    fetch_some(source, [f"{folder}/{name}" if folder else name for name in names])


def fetch_some(source: HubFile, files: Sequence[str]) -> list[Path]:
    """Those of a repository's files that it has, at the revision of `source`.

    Raises MismatchError for a file other than when it was first used.
    """
    found = []
    for file in files:
        try:
            found.append(fetch(source.repository, [file], source.revision))
        except MismatchError:
            raise
        except ArtefactError:
            continue
    return found


def origin(path: Path) -> HubFile | None:
    """What a path in the client's cache was downloaded as, its commit for a revision; None for other paths."""
    parts = path.parts
    for index, part in enumerate(parts[:-3]):
        if part.startswith("models--") and parts[index + 1] == "snapshots":
            repository = part.removeprefix("models--").replace("--", "/")
            return HubFile(repository, "/".join(parts[index + 3 :]), parts[index + 2])
    return None


def _cached(repository: str, files: Sequence[str], revision: str | None) -> Path | None:
    import huggingface_hub as hub

    for file in files:
        found = hub.try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(found, str):
            return _checked(HubFile(repository, file, revision), Path(found))
    return None


def _checked(wanted: HubFile, path: Path) -> Path:
    """The path, after its content was compared with what it was when the name was first used."""
    sha256 = sha256_of(path)
    source = origin(path)
    commit = source.revision if source else None
    record = home() / "hub" / f"{hashlib.sha256(str(wanted).encode()).hexdigest()[:16]}.json"
    if not record.is_file():
        with atomic_output(record) as temporary:
            temporary.write_text(
                json.dumps({"name": str(wanted), "commit": commit, "sha256": sha256}), encoding="utf-8"
            )
        return path
    earlier = schema.checked(_RECORD, read_json(record), str(record), advice="delete this record")
    if earlier["sha256"] == sha256:
        return path
    changed = f"expected {wanted} with sha256 {earlier['sha256']} as when it was first used, found {sha256}"
    if commit == earlier.get("commit"):
        raise MismatchError(f"{changed}: the downloaded copy is damaged, delete {path.resolve()} to get it again")
    pinned, present = (str(wanted._replace(revision=one)) for one in (earlier.get("commit"), commit))
    raise MismatchError(
        f"{changed}: it was published anew; name {pinned} for the earlier file or {present} for the present one, or "
        f"delete {record} to take whatever is there"
    )
