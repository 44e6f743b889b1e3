"""`edgex serve`: an exported file over HTTP, with FastAPI and uvicorn (the extra `serve`). It needs no torch.

    from edgex.runtime import Session
    from edgex.serving import Server

    with Session("cars.onnx") as session:
        Server(session, port=8080).run()

A request passes them from top to bottom:

| module | what is in it |
|---|---|
| server | `Server`: binds the address, runs until it is stopped, finishes what it took on |
| connection | a connection's time limits: clients that never send, or never read |
| gate | access, request id, limits on bodies and on requests at once, time limit, log line, counts |
| application | the addresses, their documentation (OpenAPI), errors as JSON |
| bodies | the pictures of a request's body |
| question | what a client may ask of a picture |
| service | a picture becomes an answer: decoded in a pool of threads, run in the batcher's |
| batching | `Batcher`: pictures of all requests go through the model together |
| limits, refusals | the numbers; errors with an HTTP status |
| metrics, request_log | counts for Prometheus; a line for each request |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgex.serving.limits import Limits
    from edgex.serving.server import Server

__all__ = ["Limits", "Server"]

_HOMES = {"Limits": "limits", "Server": "server"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgex.serving' has no attribute '{name}'")
    return getattr(importlib.import_module(f"edgex.serving.{_HOMES[name]}"), name)
