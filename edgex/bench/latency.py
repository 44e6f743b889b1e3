"""What an explanation costs on this machine: one fused pass beside the plain classifier and 150-pass methods.

Everything runs on one picture through one `Session`, in turn, in one run (`edgex.bench.timing`). It needs no torch:
what is not installed here is named among the skipped. Where the fused file and the plain classifier come from is
`edgex.bench.workflow`; how captum and shap are called is `edgex.bench.shap_libraries`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgex.bench.shap_libraries import LIBRARIES, Library, kernel_shap, mean_colour, segments_of
from edgex.bench.timing import Contender, Samples, Summary, machine, ratio, take_turns
from edgex.errors import ArtefactError, UsageError
from edgex.runtime import Session
from edgex.runtime.backends.binding import DeviceBinding
from edgex.runtime.backends.onnxruntime import device_id, import_onnxruntime, open_session

Method = str
"""What a row is: "plain", "fused", "captum", "shap", "passes" (bare ones), or what a script adds."""

PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "torch",
    "captum",
    "shap",
    "scikit-learn",
)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
_PREDICTED = -1
# Enough evaluations to load and compile all that a library runs, few enough not to be waited for.
_WARM_EVALUATIONS = 16


@dataclasses.dataclass(frozen=True)
class Options:
    """What is timed.

    passes: evaluations of Kernel SHAP, and bare passes. players: superpixels of Kernel SHAP, square numbers. rounds:
    how often the many-pass methods run. repeats: how often one pass runs in each round. batch: also time one pass
    over this many pictures; 1 for no such rows.
    """

    passes: int = 150
    players: tuple[int, ...] = (49, 196)
    rounds: int = 5
    repeats: int = 20
    batch: int = 1

    def __post_init__(self) -> None:
        for name, least in (("passes", 4), ("rounds", 1), ("repeats", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"expected {name} of at least {least}, found {getattr(self, name)}", argument=name)


@dataclasses.dataclass(frozen=True)
class Task:
    """A contender and what it is. label: whose it is where several models are timed together, such as "fp32".

    evaluations: how many pictures the last call ran through the model; batch: how many of them at once. precision: of
    the model that runs, "fp32", "fp16" or "int8"; None where its file does not say.
    """

    contender: Contender
    method: Method
    evaluations: Callable[[], int]
    batch: int
    players: int | None = None
    label: str = ""
    precision: str | None = None


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A row that could not be timed, and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A timed task: ms per picture, and its samples' paired ratios to one pass of its label.

    over: "fused" and, where there is one, "plain" -> that pass's samples; of a fused pass over a batch also
    "plain_of_same_batch".
    """

    task: Task
    samples: Samples
    over: dict[str, Samples]

    def ratio_to(self, single: str) -> Summary:
        """Paired ratio of wall-clock times to one "fused" or "plain" pass."""
        return ratio(self.samples.wall, self.over[single].wall)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "name": self.task.contender.name,
            "method": self.task.method,
            "precision": self.task.precision,
            "evaluations": self.task.evaluations(),
            "batch": self.task.batch,
            "players": self.task.players,
            "ms": Summary.of(self.samples.wall).to_dict(),
            "cpu_ms": Summary.of(self.samples.cpu).to_dict(),
            **{f"over_{name}": self.ratio_to(name).to_dict() for name in self.over},
            **{f"cpu_over_{name}": ratio(self.samples.cpu, o.cpu).to_dict() for name, o in self.over.items()},
        }


@dataclasses.dataclass(frozen=True)
class Report:
    """All rows of one model. batches: batch size -> ms per picture of a bare pass, from which the best was taken.

    plain_difference: largest difference between the plain classifier's logits and the fused file's, as a share of
    their range; a sign that both are the same model. None without a plain classifier.
    """

    rows: tuple[Row, ...]
    skipped: tuple[Skipped, ...]
    batches: dict[int, float]
    plain_difference: float | None
    machine: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "rows": [row.to_dict() for row in self.rows],
            "skipped": [dataclasses.asdict(entry) for entry in self.skipped],
            "ms_per_picture_by_batch": {str(size): float(f"{ms:.5g}") for size, ms in self.batches.items()},
            "plain_logits_difference": self.plain_difference,
            "machine": self.machine,
        }


class PlainSession:
    """A plain classifier's ONNX file: one input float32 [N, 3, H, W], normalised, first output logits [N, C].

    Opened as `Session` opens a fused one: same provider, same threads. precision: what is known of it, since such a
    file does not say. cuda_graph: replayed as a fused file is with io_binding on "cuda". Raises ArtefactError for
    another contract, ProviderError and UsageError where onnxruntime does not run it on that provider.
    """

    def __init__(
        self,
        path: Path,
        session: Session,
        threads: int | None = None,
        precision: str | None = None,
        provider_options: Mapping[str, Any] | None = None,
        cuda_graph: bool = False,
    ) -> None:
        self.precision = precision
        if session.metadata.tensorrt is not None:
            raise UsageError(
                f"expected a fused ONNX file to compare the plain classifier {path} with, "
                f"found the engine {session.path}"
            )
        graph = {"enable_cuda_graph": 1} if cuda_graph else {}
        self._session = open_session(path, session.provider, threads, graph | dict(provider_options or {}))
        height, width = session.preprocessing.image_size
        inputs = [(value.type, value.shape) for value in self._session.get_inputs()]
        fits = len(inputs) == 1 and inputs[0][0] == "tensor(float)" and inputs[0][1][1:] == [3, height, width]
        if not fits:
            raise ArtefactError(
                f"{path}: expected a plain classifier with one input float [N, 3, {height}, {width}], found {inputs}"
            )
        self._input = self._session.get_inputs()[0].name
        self._binding = None
        if cuda_graph:
            output = self._session.get_outputs()[0]
            shapes = {output.name: tuple(output.shape[1:])}
            device = device_id(provider_options or {})
            self._binding = DeviceBinding(import_onnxruntime(), shapes, session.metadata.max_batch, "cuda", device)

    def run(self, pictures: np.ndarray) -> np.ndarray:
        """Normalised pictures float32 [N, 3, H, W] -> logits float32 [N, C]."""
        inputs = {self._input: pictures}
        return (self._binding.run(self._session, inputs) if self._binding else self._session.run(None, inputs))[0]


class _Scorer:
    """The explained class's logit of pictures, through the fused session; counts the pictures it is given."""

    def __init__(self, session: Session, index: int) -> None:
        self._session, self._index = session, index
        self.evaluations = 0

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        logits, _, _ = self._session.run(pictures, np.full(len(pictures), _PREDICTED))
        self.evaluations += len(pictures)
        return logits[:, self._index]


def bench(
    session: Session,
    plain: PlainSession | Skipped,
    picture: np.ndarray,
    options: Options,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Times one model. picture: uint8 [H, W, 3] at the model's size. plain: the classifier, or why there is none.

    Raises UsageError for options that do not fit the model.
    """
    start = machine(PACKAGES)
    batches = bare_batches(session, picture, options)
    tasks, skipped = tasks_of(session, plain, picture, options, best_batch=min(batches, key=batches.__getitem__))
    difference = None if isinstance(plain, Skipped) else logits_difference(session, plain, picture)
    rows = measure(tasks, options.rounds, progress)
    return Report(tuple(rows), tuple(skipped), batches, difference, start)


def tasks_of(
    session: Session,
    plain: PlainSession | Skipped,
    picture: np.ndarray,
    options: Options,
    *,
    best_batch: int,
    label: str = "",
) -> tuple[list[Task], list[Skipped]]:
    """All that can be timed of one model, and what cannot be. best_batch: for the many-pass methods."""
    check_options(session, options)
    tasks = single_passes(session, plain, picture, options, label)
    skipped = [plain] if isinstance(plain, Skipped) else []
    sizes = [1] if best_batch == 1 else [1, best_batch]
    if len(sizes) == 1:
        most = session.metadata.max_batch
        reason = f"the file takes batches of {most}" if most == 1 else "no batch is faster than one picture at a time"
        skipped.append(Skipped(f"{options.passes} passes and Kernel SHAP in batches", reason))
    for library in LIBRARIES:
        if missing := _missing(library):
            reason = f"needs the package {missing}: pip install '.[bench]'"
            skipped.append(Skipped(f"Kernel SHAP by {library}", reason))
            continue
        for players in options.players:
            tasks += [_shap_task(session, picture, options, library, players, size, label) for size in sizes]
    tasks += [_bare_task(session, picture, options.passes, size, label) for size in sizes]
    return tasks, skipped


def check_options(session: Session, options: Options) -> None:
    """Raises UsageError where options do not fit a model."""
    if options.batch > session.metadata.max_batch:
        raise UsageError(
            f"expected a batch of at most {session.metadata.max_batch}, which the file was exported for, "
            f"found {options.batch}",
            argument="batch",
        )
    for players in options.players:
        segments_of(session.preprocessing.image_size, players)


def measure(tasks: Sequence[Task], rounds: int, progress: Callable[[str], None] | None = None) -> list[Row]:
    """Times tasks, one fused pass per label among them, in turn."""
    samples = take_turns([task.contender for task in tasks], rounds, progress)

    rows = []
    for task in tasks:
        singles = [t for t in tasks if t.label == task.label and t.batch == 1 and t.method in ("fused", "plain")]
        over: dict[str, Samples] = {t.method: samples[t.contender.name] for t in singles}
        if task.method == "fused" and task.batch > 1:
            for other in tasks:
                if (other.label, other.batch, other.method) == (task.label, task.batch, "plain"):
                    over["plain_of_same_batch"] = samples[other.contender.name]
        if "fused" not in over:
            raise UsageError(f"expected a fused pass with the label '{task.label}' to compare with, found none")
        rows.append(Row(task, samples[task.contender.name], over))
    return rows


def bare_batches(session: Session, picture: np.ndarray, options: Options, rounds: int = 3) -> dict[int, float]:
    """Batch size -> median ms per picture of a bare pass, for the sizes that the file and `passes` allow."""
    largest = min(session.metadata.max_batch, options.passes)
    sizes = {size for size in BATCHES if size <= largest} | ({largest} if largest == options.passes else set())
    tasks = [_bare_task(session, picture, size, size, "") for size in sorted(sizes)]
    samples = take_turns([task.contender for task in tasks], rounds)
    # One call is `size` evaluations for one explanation: what counts here is the time of each.
    return {task.batch: float(np.median(samples[task.contender.name].wall)) / task.batch for task in tasks}


def logits_difference(session: Session, plain: PlainSession, picture: np.ndarray) -> float:
    """Largest difference between both files' logits as a share of the fused one's range.

    Raises ArtefactError where the plain classifier has another number of classes.
    """
    fused, _, _ = session.run(picture[np.newaxis], np.array([_PREDICTED]))
    found = plain.run(normalised(session, picture, 1))
    if found.shape != fused.shape:
        raise ArtefactError(
            f"expected a plain classifier of the {fused.shape[1]} classes of {session.path}, found logits of "
            f"shape {list(found.shape)}: give the same model's"
        )
    return float(np.abs(found - fused).max() / np.ptp(fused))


def normalised(session: Session, picture: np.ndarray, batch: int) -> np.ndarray:
    """A picture uint8 [H, W, 3] as a plain classifier takes it: float32 [batch, 3, H, W]."""
    mean, std = (np.asarray(v, np.float32) for v in (session.preprocessing.mean, session.preprocessing.std))
    one = ((picture.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)
    return np.ascontiguousarray(np.repeat(one[np.newaxis], batch, axis=0))


def single_passes(
    session: Session, plain: PlainSession | Skipped, picture: np.ndarray, options: Options, label: str
) -> list[Task]:
    """One pass of the plain classifier and of the fused file, over one picture and over a batch."""
    tasks = []
    for batch in sorted({1, options.batch}):
        images, explain = np.repeat(picture[np.newaxis], batch, axis=0), np.full(batch, _PREDICTED)
        runs: dict[Method, tuple[str, Callable[[], object], str | None]] = {}
        if not isinstance(plain, Skipped):
            pixels = normalised(session, picture, batch)
            runs["plain"] = "plain classifier, no heatmap", _bound(plain.run, pixels), plain.precision
        fused = _bound(session.run, images, explain)
        runs["fused"] = "fused, class and heatmap", fused, session.metadata.precision
        for method, (name, run, precision) in runs.items():
            contender = Contender(_named(name, batch, label), run, pictures=batch, calls=options.repeats)
            tasks.append(Task(contender, method, lambda: 1, batch, label=label, precision=precision))
    return tasks


def _shap_task(
    session: Session, picture: np.ndarray, options: Options, library: Library, players: int, batch: int, label: str
) -> Task:
    logits, _, _ = session.run(picture[np.newaxis], np.array([_PREDICTED]))
    scorer = _Scorer(session, int(logits[0].argmax()))
    segments = segments_of(session.preprocessing.image_size, players)
    colour = mean_colour(session.preprocessing)

    def explain(evaluations: int) -> None:
        scorer.evaluations = 0
        kernel_shap(library, scorer, picture, segments, colour, evaluations=evaluations, batch=batch)

    name = _named(f"Kernel SHAP by {library}, {players} players", batch, label)
    warm = _bound(explain, min(options.passes, _WARM_EVALUATIONS))
    contender = Contender(name, _bound(explain, options.passes), warm=warm)
    return Task(contender, library, lambda: scorer.evaluations, batch, players, label, session.metadata.precision)


def _bare_task(session: Session, picture: np.ndarray, passes: int, batch: int, label: str) -> Task:
    images = np.repeat(picture[np.newaxis], batch, axis=0)
    sizes = [batch] * (passes // batch) + ([passes % batch] if passes % batch else [])

    def run() -> None:
        for size in sizes:
            session.run(images[:size], np.full(size, _PREDICTED))

    def warm() -> None:
        for size in set(sizes):
            session.run(images[:size], np.full(size, _PREDICTED))

    contender = Contender(_named(f"{passes} bare passes", batch, label), run, warm=warm)
    return Task(contender, "passes", lambda: passes, batch, label=label, precision=session.metadata.precision)


def _bound(function: Callable[..., object], *arguments: Any) -> Callable[[], object]:
    return lambda: function(*arguments)


def _named(name: str, batch: int, label: str) -> str:
    return f"{label}: " * bool(label) + name + (f", batch {batch}" if batch > 1 else "")


def _missing(library: str) -> str | None:
    """The package that one of the libraries needs and that is not installed here."""
    needed = ("torch", "captum") if library == "captum" else ("shap",)
    return next((name for name in needed if importlib.util.find_spec(name) is None), None)
