"""Opens a fused model and runs pictures through it: the one class that camera applications need."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from edgex.runtime import metadata as contract
from edgex.runtime.backends import open_backend
from edgex.runtime.backends.backend import BackendOptions, FusedFile
from edgex.runtime.classes import ClassIndex
from edgex.runtime.errors import ArtefactError, UsageError
from edgex.runtime.frames import ColorOrder, Frame, as_frame
from edgex.runtime.preprocessing import Prepared
from edgex.runtime.result import Result
from edgex.runtime.tiling.cutting import Cutting
from edgex.runtime.tiling.tiles import PREDICTED, ShiftedResult, Tiled, TiledResult, run_parts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from edgex.runtime.preprocessing import Preprocessing
    from edgex.runtime.view import Fit, View

ExplainClass = str | int | None
"""A class name, its position in `classes`, or None for the predicted class."""


class Session:
    """A fused model, ready to run. Safe to share between threads.

        session = Session("cars.onnx")
        result = session(frame)
        result.label, result.score, result.heatmap

    Copied or pickled, it is opened again from its file with the same arguments, also in another process.
    That takes as long as opening it did: give each process of a pool its own, with the pool's initializer.

    path: a fused ONNX file or a TensorRT engine file of edgex.
    provider: what it runs on: "auto", or for ONNX files "cpu", "cuda", "tensorrt", "nv_tensorrt_rtx",
        "openvino", ...; one that is not available raises ProviderError, and no other is used instead. "auto" takes the
        best that works and needs no compilation at start; the attribute `provider` names it. An engine file runs on
        what it was built for.
    threads: CPU threads of one inference. Defaults to what onnxruntime chooses, one per core.
    warmup: inferences at opening, so that the first frame takes no longer than the others and a broken model
        is found at once. Defaults to 1.
    verify: compare the file's sha256 with the one recorded at export (about 1.5 ms per MB). Defaults to True.
    provider_options: handed to the onnxruntime provider that was asked for by name, such as {"device_id": 1}; objects
        become JSON. "cpu" takes none.
    io_binding: keep inputs and results in memory that is allocated once per batch size. On "cuda" that is the GPU's,
        and a pass is captured once and replayed as one CUDA graph by a thread of its own, while callers take turns, of
        other such sessions too; say False where other code of the process works on the GPU at the same time. On other
        providers results are written to memory of the calling thread. Defaults to None: on "cuda" True, unless the
        file cannot be captured (see `captured`), elsewhere False, since on CPUs the copy that keeps results apart
        costs what the allocation did (36 and 38 microseconds for a model that does next to nothing).
    exact_resize: resample frames to the pixels of training to the last bit. False takes half to two thirds of the
        time (benchmarks/preprocess.py) for pixels that are rarely more than one grey level off. Defaults to True.
    tiles: (rows, columns) that each frame is cut into; the tiles are run as one batch, in pieces of at most the file's
        max_batch, and a call gives a `TiledResult`. Defaults to None: the frame is one input.
    overlap: of neighbouring tiles, as a share of a tile's side, 0 to below 0.9. Defaults to 0.1.
    roi: regions of interest: a box (x0, y0, x1, y1), a polygon [(x, y), (x, y), (x, y), ...] or a list of them, in
        pixels of the frame or, where no number is above 1, in shares of it. Of tiles, those that touch a region are
        run; without tiles, each region's bounding box is one input. A call gives a `TiledResult`.
    fit: how a frame becomes the input, "crop", "squash" or "pad", see `edgex.runtime.view`. Defaults to what the file
        says, which is what the model was made for. What a model does not see of a frame, `result.view` says: its
        `seen_share` as a number, its `remark` as a line.

    Raises ArtefactError for a file that is no intact fused model, ProviderError for a provider that is not
    there, MissingExtraError where the package that runs it is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        provider: str = "auto",
        *,
        threads: int | None = None,
        warmup: int = 1,
        verify: bool = True,
        provider_options: Mapping[str, Any] | None = None,
        io_binding: bool | None = None,
        exact_resize: bool = True,
        tiles: tuple[int, int] | None = None,
        overlap: float | None = None,
        roi: Any = None,
        fit: Fit | None = None,
    ) -> None:
        options = BackendOptions(provider, threads, provider_options, io_binding)
        cutting = Cutting.of(tiles, overlap, roi, fit)
        if warmup < 0:
            raise UsageError(f"warmup: expected a number of inferences of at least 0, found {warmup!r}")
        asked: dict[str, Any] = {"verify": verify, "exact_resize": exact_resize, "cutting": cutting, "fit": fit}
        self._open(Path(path), options, warmup=warmup, **asked)

    def _open(
        self,
        path: Path,
        options: BackendOptions,
        *,
        warmup: int,
        verify: bool,
        exact_resize: bool,
        cutting: Cutting | None,
        fit: Fit | None,
        file_sha256: str | None = None,
    ) -> None:
        """file_sha256: of the file that it has to be, None for any."""
        self.path = path
        self._exact_resize = exact_resize
        self._cutting = cutting
        self.metadata, plan = contract.load(path, verify)
        if file_sha256 not in (None, self.metadata.file_sha256):
            raise ArtefactError(
                f"{path}: expected the file that the session was opened from, with sha256 {file_sha256:.12}..., found "
                f"another, with {self.metadata.file_sha256:.12}...; open a new session"
            )
        self._again = {
            # The working directory may be another one later.
            "path": path.absolute(),
            "options": options,
            "warmup": warmup,
            "verify": verify,
            "exact_resize": exact_resize,
            "cutting": cutting,
            "fit": fit,
            "file_sha256": self.metadata.file_sha256,
        }
        self._preprocessing = self.metadata.preprocessing.fitted(fit)
        self._closed = False
        self._backend = open_backend(FusedFile(self.path, self.metadata, plan), options)
        self.provider = self._backend.provider
        self._index = ClassIndex(self.metadata.classes)
        blank = np.zeros((1, *self.preprocessing.image_size, 3), np.uint8)
        for _ in range(warmup):
            self.run(blank, np.array([PREDICTED]))

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the logits."""
        return self.metadata.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """How a frame becomes the model's input, with the `fit` that was asked for."""
        return self._preprocessing

    @property
    def cuts(self) -> bool:
        """Whether each frame is several inputs, for its tiles or regions of interest."""
        return self._cutting is not None

    @property
    def shares_classes(self) -> bool:
        """Whether several classes of one picture cost one pass through the network.

        It is so where the file declares explain_class with a size of its own, as [M] beside image [N, H, W, 3]. Other
        files run one pass per class.
        """
        return self._backend.shares_classes

    @property
    def captured(self) -> bool:
        """Whether passes are replayed as CUDA graphs, see `io_binding`."""
        return self._backend.captured

    def class_number(self, name: str | int) -> int:
        """Position of a class in `classes`, by its name (if need be in other capitals) or by that position.

        Raises UsageError for an unknown class, with the nearest names.
        """
        return self._index.number(name)

    def __repr__(self) -> str:
        return f"Session({str(self.path)!r}, provider={self.provider!r}, classes={len(self.classes)})"

    @overload
    def __call__(
        self, frame: list[Any] | tuple[Any, ...], explain: Any = None, color: ColorOrder = "rgb"
    ) -> list[Result]: ...

    @overload
    def __call__(
        self, frame: Any, explain: list[ExplainClass] | tuple[ExplainClass, ...], color: ColorOrder = "rgb"
    ) -> list[Result]: ...

    @overload
    def __call__(self, frame: Any, explain: ExplainClass = None, color: ColorOrder = "rgb") -> Result: ...

    def __call__(self, frame: Any, explain: Any = None, color: ColorOrder = "rgb") -> Result | list[Result]:
        """Classifies a picture and explains one class, or does so for several.

        frame: a path, a PIL picture or a uint8 array [H, W, 3], see `edgex.runtime.frames.as_frame`; a list
            or tuple of them gives a list of results, run in batches of at most the model's max_batch.
        explain: the class to explain, by name or position; None for the predicted one. A list explains
            several classes of one picture, read and resized once, and run once where `shares_classes`; for a list of
            pictures it holds one each.
        color: channel order of arrays, "rgb" or "bgr" (OpenCV).

        Raises ImageError for an unusable picture, such as one that is too small for the tiles, UsageError for an
        unknown class.
        """
        several = isinstance(explain, (list, tuple))
        if isinstance(frame, (list, tuple)):
            wanted = self._numbers(explain if several else [explain] * len(frame))
            if len(wanted) != len(frame):
                raise UsageError(
                    f"expected one class for all or one each for {len(frame)} pictures, found {len(wanted)}",
                    argument="explain",
                )
            return self._run_frames(frame, wanted, color)
        wanted = self._numbers(explain if several else [explain])
        results = self._run_frame(as_frame(frame, color), wanted, color)
        return results if several else results[0]

    def finer(
        self, frame: Any, shifts: int = 2, explain: ExplainClass = None, color: ColorOrder = "rgb"
    ) -> ShiftedResult:
        """As a call for one picture, with a heatmap of `shifts` times as many cells per patch in each direction.

        The model looks at shifts x shifts views of what it sees of the frame, each shifted by 1/shifts of a patch, and
        the finer heatmap is their mean: shifts^2 passes for a class that is named, and up to twice as many for the
        predicted one.

        Raises UsageError where `shifts` is not from 2 to 16 or the session has tiles or regions of interest, ImageError
        where a shift would be less than a pixel of the frame.
        """
        if self._cutting is not None:
            raise UsageError("expected a session without tiles and roi for a finer heatmap, found one that has them")
        checked = as_frame(frame, color)
        (result,) = self._run_parts(checked, self._numbers([explain]), color, Cutting.shifted(shifts), ShiftedResult)
        return result

    def explain_labels(self, frame: Any, threshold: float | None = None, color: ColorOrder = "rgb") -> list[Result]:
        """One result for each label of one picture that is present, most probable first; none where none is.

        frame, color: as for a call. threshold: as in `Result.labels`.

        Where `shares_classes`, it is one pass, for heatmaps of all classes, of which those of the labels are given
        back: the classes of a multi-label model are few. Elsewhere it is one pass to find the labels, and one for each.
        """
        one = as_frame(frame, color)
        asked = list(range(len(self.classes))) if self.shares_classes else self._numbers([None])
        found = self._run_frame(one, asked, color)
        present = found[0].present(threshold)
        if self.shares_classes or not present:
            return [found[index] for index in present]
        return self._run_frame(one, present, color)

    def prepare(self, frame: Any, color: ColorOrder = "rgb") -> Prepared:
        """Reads and resizes one frame for `classify`, as a call does; servers do it in other threads than the passes.

        Raises as a call does, and UsageError for a session with tiles or regions, whose frames are several inputs.
        """
        if self._cutting is not None:
            raise UsageError("expected a session without tiles and roi to prepare frames for, found one that has them")
        checked = as_frame(frame, color)
        return Prepared(self._pixels(checked), self._view(checked), color)

    def classify(self, prepared: Sequence[Prepared], explain: Sequence[ExplainClass]) -> list[Result]:
        """One pass over frames of `prepare`, at most max_batch of them, with one class to explain for each."""
        return self._classify(prepared, self._numbers(explain))

    def run(self, image: np.ndarray, explain_class: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One inference on pictures that are preprocessed already (see `preprocessing`), without results.

        image: uint8 [N, H, W, 3] RGB at the model's size, N at most max_batch. explain_class: int64 [M], -1 for the
            predicted class; M is N, or anything for one picture where `shares_classes`.

        Returns logits float32 [N, C], heatmap float32 [M, rows, columns] and base float32 [M]. Raises UsageError for
        other inputs, also for a class that there is not: the file itself would give it a heatmap of NaN.
        """
        self._check_inputs(image, explain_class)
        logits, heatmap, base = outputs = self._backend.run(image, explain_class)
        count = len(explain_class)
        expected = ((len(image), len(self.classes)), (count, *self.metadata.grid), (count,))
        found = tuple(output.shape for output in outputs)
        if found != expected:
            raise ArtefactError(f"{self.path}: expected outputs of shapes {expected}, found {found}")
        if not (np.isfinite(logits).all() and np.isfinite(heatmap).all() and np.isfinite(base).all()):
            raise ArtefactError(
                f"{self.path}: expected finite scores, found NaN or infinity (precision "
                f"{self.metadata.precision} on {self.provider}); export it in a higher precision"
            )
        return outputs

    def __getstate__(self) -> dict[str, Any]:
        """What opens it again; UsageError once it is closed."""
        if self._closed:
            raise UsageError(f"expected an open session to copy, found one that was closed ({self.path})")
        return self._again

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens the file again; ArtefactError where another lies in its place."""
        self._open(**state)

    def close(self) -> None:
        """Releases the model. Calls already running in other threads finish; later ones raise UsageError."""
        self._closed = True
        self._backend.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_inputs(self, image: np.ndarray, explain_class: np.ndarray) -> None:
        size, most = self.preprocessing.image_size, self.metadata.max_batch
        if image.dtype != np.uint8 or image.shape[1:] != (*size, 3) or not 1 <= len(image) <= most:
            raise UsageError(
                f"expected an image of uint8 [N, {size[0]}, {size[1]}, 3] with N from 1 to {most}, "
                f"found {image.dtype} {list(image.shape)}"
            )
        fits = len(explain_class) == len(image) or (len(image) == 1 and self.shares_classes and len(explain_class) > 0)
        if explain_class.dtype != np.int64 or explain_class.ndim != 1 or not fits:
            raise UsageError(
                f"expected explain_class of int64 [{len(image)}], found {explain_class.dtype} "
                f"{list(explain_class.shape)}"
            )
        if explain_class.min() < PREDICTED or explain_class.max() >= len(self.classes):
            raise UsageError(
                f"expected explain_class from 0 to {len(self.classes) - 1}, or -1 for the predicted class, found "
                f"{explain_class.min()} to {explain_class.max()}"
            )

    def _view(self, frame: Frame) -> View:
        return self.preprocessing.view(frame.height, frame.width)

    def _pixels(self, frame: Frame) -> np.ndarray:
        return self.preprocessing.array(frame, exact=self._exact_resize)

    def _numbers(self, names: Sequence[ExplainClass]) -> list[int]:
        return [PREDICTED if name is None else self._index.number(name) for name in names]

    def _run_frames(self, frames: Sequence[Any], wanted: list[int], color: ColorOrder) -> list[Result]:
        results: list[Result] = []
        if self._cutting is not None:
            for frame, number in zip(frames, wanted, strict=True):
                results += self._run_parts(as_frame(frame, color), [number], color, self._cutting, TiledResult)
            return results
        step = self.metadata.max_batch
        for start in range(0, len(frames), step):
            chunk = [self.prepare(frame, color) for frame in frames[start : start + step]]
            results += self._classify(chunk, wanted[start : start + step])
        return results

    def _classify(self, prepared: Sequence[Prepared], wanted: list[int]) -> list[Result]:
        images = np.stack([one.pixels for one in prepared])
        return self._results(images, [one.view for one in prepared], wanted, prepared[0].color)

    def _run_frame(self, frame: Frame, wanted: list[int], color: ColorOrder) -> list[Result]:
        if self._cutting is not None:
            return [*self._run_parts(frame, wanted, color, self._cutting, TiledResult)]
        image = self._pixels(frame)[np.newaxis]
        view = self._view(frame)
        if self.shares_classes and wanted:
            return self._results(image, [view] * len(wanted), wanted, color)
        results: list[Result] = []
        step = self.metadata.max_batch
        for start in range(0, len(wanted), step):
            chunk = wanted[start : start + step]
            images = image if len(chunk) == 1 else np.repeat(image, len(chunk), axis=0)
            results += self._results(images, [view] * len(chunk), chunk, color)
        return results

    def _run_parts(
        self, frame: Frame, wanted: list[int], color: ColorOrder, cutting: Cutting, kind: type[Tiled]
    ) -> Sequence[Tiled]:
        layout = cutting.layout(frame.height, frame.width, self.preprocessing, self.metadata.grid)

        def classify(images: np.ndarray, views: Sequence[View], numbers: list[int]) -> list[Result]:
            return self._results(images, views, numbers, color)

        return run_parts(
            frame,
            layout,
            wanted,
            classify,
            batch=self.metadata.max_batch,
            exact=self._exact_resize,
            shared=self.shares_classes,
            kind=kind,
        )

    def _results(self, images: np.ndarray, views: Sequence[View], wanted: list[int], color: ColorOrder) -> list[Result]:
        logits, heatmaps, bases = self.run(images, np.array(wanted, np.int64))
        return [
            Result(
                logits[i % len(logits)],
                heatmaps[i],
                float(bases[i]),
                classes=self.classes,
                view=view,
                explained_index=None if wanted[i] == PREDICTED else wanted[i],
                color=color,
                activation=self.metadata.activation,
                thresholds=self.metadata.thresholds,
                calibration=self.metadata.calibration,
            )
            for i, view in enumerate(views)
        ]
