"""Switches off the telemetry of the libraries that edgex runs on, before they are imported.

| library | variable that edgex sets to 1 | what it would do |
|---|---|---|
| onnxruntime | ORT_DISABLE_TELEMETRY | write a device identifier into the cache, look up a host |
| huggingface_hub (for timm, open_clip too) | HF_HUB_DISABLE_TELEMETRY | describe the installation to the hub |

A variable that is set already keeps its value, so a user can switch telemetry on. torch, timm, open_clip and
OpenVINO's part of onnxruntime have none of their own; Intel's own Python packages have (`opt_in_out --opt_out`), but
edgex imports none of them.
"""

from __future__ import annotations

import os

SWITCHES = {"onnxruntime": "ORT_DISABLE_TELEMETRY", "huggingface_hub": "HF_HUB_DISABLE_TELEMETRY"}
"""Library -> the environment variable that switches its telemetry off."""
WITHOUT = ("torch", "timm", "open_clip", "OpenVINO's provider")
"""Libraries that have none to switch off."""
_ON = ("1", "TRUE", "YES", "ON")


def switch_off() -> None:
    """Sets every switch that is not set."""
    for variable in SWITCHES.values():
        os.environ.setdefault(variable, "1")


def states() -> dict[str, str]:
    """Library -> "off", or "on" where the user's environment says so."""
    return {
        library: "off" if os.environ.get(variable, "").upper() in _ON else "on"
        for library, variable in SWITCHES.items()
    }
