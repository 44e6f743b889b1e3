"""Checkpoints of a running training, from which an interrupted run resumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from edgex.errors import ArtefactError, UsageError
from edgex.files import cache_file
from edgex.utils.text import Report, silent

_KIND = "training checkpoint 2"


@dataclasses.dataclass(frozen=True)
class TrainingCheckpoint:
    """One file with the state of everything that a training loop changes.

    path: of the file. identity: JSON-ready description of the run (data, options); a checkpoint of another
    run is refused rather than continued. report: told where a run goes on from the file, and where the
    file is damaged, or none of this edgex's, and the run therefore begins at its start.
    """

    path: Path
    identity: dict[str, Any]
    report: Report = silent

    def save(self, parts: dict[str, Any], position: int) -> None:
        """Stores every part's state and how many epochs or steps are done."""
        state = {name: part.state_dict() for name, part in parts.items()}
        content = {"identity": self.identity, "position": position, "state": state, "rng": torch.get_rng_state()}
        cache_file.save(self.path, content, _KIND)

    def restore(self, parts: dict[str, Any]) -> int:
        """Loads the parts' states where a checkpoint exists; returns how many epochs or steps are done."""
        if not self.path.exists():
            return 0
        try:
            content = cache_file.load(self.path, _KIND)
        except ArtefactError as error:
            self.report(f"{error}: the training begins at its start")
            return 0
        if content["identity"] != self.identity:
            raise UsageError(
                f"{self.path} is the checkpoint of another run (other data or options): delete it to start "
                "over, or repeat the options it was made with"
            )
        for name, part in parts.items():
            part.load_state_dict(content["state"][name])
        torch.set_rng_state(content["rng"].cpu())
        self.report(f"going on from {self.path}")
        return int(content["position"])

    def remove(self) -> None:
        """Deletes the file once the run is complete."""
        self.path.unlink(missing_ok=True)
