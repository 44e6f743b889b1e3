"""A picture becomes an answer: decoded and resized in a pool of threads, run by the batcher, drawn in the pool again.

The event loop waits for all of it and does none. Bodies are kept, decoded pictures are not: at most one for each thread
of the pool is there at a time, and an overlay decodes its picture again.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from PIL import Image

from edgex.errors import ImageError
from edgex.runtime.frames import decode_picture
from edgex.runtime.printable import printable, printable_json
from edgex.serving.batching import Batcher
from edgex.serving.bodies import Upload
from edgex.serving.question import Question

if TYPE_CHECKING:
    from edgex.runtime import Result, Session

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg"}
"""Of overlays, by what `Question.overlay` calls them."""
_QUALITY = 90
"""Of JPEG overlays."""
_MOST_THREADS = 8


class Service:
    """Answers questions about pictures; its coroutines belong to one event loop.

    batcher: of the session. threads: that decode; defaults to one for each core, at most 8.
    """

    def __init__(self, session: Session, batcher: Batcher, threads: int | None = None) -> None:
        self.session, self.batcher = session, batcher
        count = threads or min(_MOST_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="edgex pictures")

    async def answer(self, upload: Upload, question: Question) -> str:
        """JSON: `Result.to_json`, with boxes and overlay where they are asked for.

        Raises ImageError for an unusable picture, UsageError for an unknown class or way of drawing.
        """
        result = await self._result(upload, question)
        if not question.boxes and question.overlay is None:
            return result.to_json(question.top)
        return await self._in_pool(_full_answer, result, upload, question)

    async def answers(self, uploads: Sequence[Upload], question: Question) -> str:
        """JSON: {"results": [...]}, an answer for each picture, in order, or {"error": ...} for an unusable one."""

        async def one(upload: Upload) -> str:
            try:
                return await self.answer(upload, question)
            except ImageError as error:
                return json.dumps({"error": printable(error)})

        return f'{{"results": [{", ".join(await asyncio.gather(*map(one, uploads)))}]}}'

    async def overlay(self, upload: Upload, question: Question, kind: str) -> bytes:
        """The picture with the heatmap drawn over it, encoded. kind: "png" or "jpeg". Raises as `answer`."""
        return await self._in_pool(_overlay, await self._result(upload, question), upload, question, kind)

    def close(self) -> None:
        """Ends its threads once what they have to do is done."""
        self._pool.shutdown()
        self.batcher.close()

    async def _result(self, upload: Upload, question: Question) -> Result:
        # What is wrong with the question is said before anything is decoded.
        _ = question.drawing
        number = None if question.explain is None else self.session.class_number(question.explain)
        return await asyncio.wrap_future(await self._in_pool(self._enter, upload, number))

    def _enter(self, upload: Upload, number: int | None) -> Future[Result]:
        return self.batcher.submit(self.session.prepare(decode_picture(upload.data, upload.name)), number)

    async def _in_pool(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


def _full_answer(result: Result, upload: Upload, question: Question) -> str:
    values = result.to_dict(question.top)
    if question.boxes:
        values["boxes"] = [box._asdict() for box in result.boxes()]
    if question.overlay is not None:
        encoded = base64.b64encode(_overlay(result, upload, question, question.overlay)).decode("ascii")
        values["overlay"] = {"type": MEDIA_TYPES[question.overlay], "base64": encoded}
    return printable_json(json.dumps(values, ensure_ascii=False))


def _overlay(result: Result, upload: Upload, question: Question, kind: str) -> bytes:
    frame = decode_picture(upload.data, upload.name)
    drawing = question.drawing
    pixels = drawing.captioned(result, frame) if question.caption else drawing.overlay(result, frame)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind, **({"quality": _QUALITY} if kind == "jpeg" else {"compress_level": 1}))
    return encoded.getvalue()
