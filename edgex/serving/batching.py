"""Pictures of all requests go through the model together: those that come while a batch runs make up the next one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

from edgex.errors import EdgexError, UsageError

if TYPE_CHECKING:
    from edgex.runtime import Result, Session
    from edgex.runtime.preprocessing import Prepared


class _Job(NamedTuple):
    prepared: Prepared
    explain: int | None
    result: Future[Result]


class Batcher:
    """Runs a session in one thread, in batches of what waits.

    most: pictures in a batch; at most the model's max_batch, which None stands for.
    window: seconds that a batch which is not full waits for more. At 0, which is right for CPUs, pictures still share a
        batch if they came while the one before ran.
    observe: called with the results and the seconds of each pass, in that thread.

    How many pictures share a batch may change the last bits of their logits and heatmaps: a runtime multiplies larger
    matrices in another order.
    """

    def __init__(
        self,
        session: Session,
        *,
        most: int | None = None,
        window: float = 0.0,
        observe: Callable[[list[Result], float], None] | None = None,
    ) -> None:
        limit = session.metadata.max_batch
        if most is not None and not 1 <= most <= limit:
            raise UsageError(f"expected 1 to {limit} pictures, as the file allows, found {most}", argument="max_batch")
        if not 0 <= window <= 10:
            raise UsageError(f"expected 0 to 10000 ms, found {1000 * window:g}", argument="batch_window_ms")
        self._session, self._most, self._window, self._observe = session, most or limit, window, observe
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="edgex batches", daemon=True)
        self._thread.start()

    def submit(self, prepared: Prepared, explain: int | None) -> Future[Result]:
        """Puts a picture in the queue; cancelling its future takes it out. explain: position of a class, or None."""
        job = _Job(prepared, explain, Future())
        self._jobs.put(job)
        return job.result

    @property
    def waiting(self) -> int:
        """Pictures in the queue."""
        return self._jobs.qsize()

    @property
    def alive(self) -> bool:
        """Whether it still takes pictures."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends the thread once the queue is empty."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch = [job for job in self._gather(first) if job.result.set_running_or_notify_cancel()]
            if batch:
                self._classify(batch)

    def _gather(self, first: _Job) -> list[_Job]:
        batch, end = [first], time.monotonic() + self._window
        while len(batch) < self._most:
            left = end - time.monotonic()
            try:
                job = self._jobs.get(timeout=left) if left > 0 else self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            batch.append(job)
        return batch

    def _classify(self, batch: list[_Job]) -> None:
        start = time.monotonic()
        try:
            results = self._session.classify([job.prepared for job in batch], [job.explain for job in batch])
        except Exception as error:
            if len(batch) > 1 and isinstance(error, EdgexError):
                # One picture's scores may be no numbers: the others are not to fail with it.
                for job in batch:
                    self._classify([job])
                return
            for job in batch:
                job.result.set_exception(error)
            return
        seconds = time.monotonic() - start
        for job, result in zip(batch, results, strict=True):
            job.result.set_result(result)
        if self._observe is not None:
            self._observe(results, seconds)
