"""Decoding pictures ahead of the computation: by worker processes, or by one thread of this process.

What comes out depends on the requests alone, not on how many workers there are. Workers are torch's `DataLoader`;
starting them takes seconds, so that short jobs keep to the thread.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from edgex.errors import DataError, EdgexError, UsageError

Request = TypeVar("Request")
Result = TypeVar("Result")

WORTH_WORKERS = 1000
"""Pictures from which on worker processes are started by default: they decode about as many while one starts."""
MOST_WORKERS = 8
"""Upper bound of the default; more are taken where they are asked for."""


def default_workers(pictures: int) -> int:
    """Worker processes for decoding that many pictures: none for few, else one for each core of this process."""
    if pictures < WORTH_WORKERS or multiprocessing.current_process().daemon:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A launcher's processes on this machine share its cores.
    return max(1, min(MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def check_workers(workers: int | None) -> None:
    """Raises UsageError for a number of workers below 0; None is the default."""
    if workers is not None and workers < 0:
        raise UsageError(f"expected at least 0 processes that decode pictures, found {workers}", argument="workers")


def loaded(
    load: Callable[[Request], Result], requests: Iterable[Request], *, pictures: int, workers: int | None = None
) -> Iterator[Result]:
    """Yields load(request) for each request, in their order, computed ahead.

    load: function of a module, or an object that can be pickled; its results are best numpy arrays, which need no
        shared memory. requests: may be read ahead. pictures: how many there are in all, which the default depends on.
    workers: processes; 0 for one thread of this process; None for `default_workers`.

    Errors of edgex that `load` raises come out as they are; DataError where a worker dies.
    """
    check_workers(workers)
    count = default_workers(pictures) if workers is None else workers
    if count == 0:
        yield from _by_thread(load, requests)
    else:
        yield from _by_processes(load, requests, count)


def _by_thread(load: Callable[[Request], Result], requests: Iterable[Request]) -> Iterator[Result]:
    """One request ahead."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max_workers=1) as pool:
        for request in requests:
            pending.append(pool.submit(load, request))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _by_processes(load: Callable[[Request], Result], requests: Iterable[Request], count: int) -> Iterator[Result]:
    with warnings.catch_warnings():
        # More workers than cores are what the caller asked for.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[Any] = DataLoader(
            _Requests(load),
            batch_size=None,
            sampler=requests,
            num_workers=count,
            collate_fn=_unchanged,
            worker_init_fn=_leave_signals,
            multiprocessing_context=_context(),
            # The loader draws a seed for its workers: not from the generator that training draws from.
            generator=torch.Generator(),
        )
    with _without_main():
        results = iter(loader)
    try:
        for result in results:
            if isinstance(result, EdgexError):
                raise result
            yield result
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError("a process that decodes pictures died: free memory, or use fewer workers") from error
    finally:
        # Its end ends the workers; a traceback may hold this frame for longer.
        del results


class _Requests(Dataset[Any], Generic[Request, Result]):
    """A data set whose "index" is the request itself."""

    def __init__(self, load: Callable[[Request], Result]) -> None:
        self.load = load

    def __getitem__(self, request: Request) -> Result | EdgexError:
        try:
            return self.load(request)
        except EdgexError as error:
            # Raised in a worker, it would come back with a traceback for a message.
            return error


def _leave_signals(_: int) -> None:
    """Ctrl-C and a service manager's SIGTERM reach all processes; what they end is this program's own decision.

    A worker that SIGTERM killed would look as if it had died of itself; it ends quietly, as the loader also asks.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def _unchanged(result: Result) -> Result:
    return result


def _context() -> Any:
    """Workers fork from a clean server process: a fork of this one would copy its threads' locks and its GPU state."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "edgex.data.crops"])
    return context


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """While processes start: they need nothing of the program's own file, and would run it again unless guarded."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
