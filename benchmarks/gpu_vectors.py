"""Readouts learned from fresh coalitions by several recipes on one GPU: how faithful, and how well placed, each is.

    python benchmarks/pack_gpu_vectors.py --data DATA --weights DEIT_TINY --out PACK
    python benchmarks/gpu_vectors.py --pack PACK --out OUT --minutes 8.5

Needs torch, timm, safetensors and Pillow. Where edgex is not installed, links stand for it:

    mkdir -p build/clone/edgex && ln -sfn $PWD/edgex/* $PWD/export $PWD/runtime build/clone/edgex/
    PYTHONPATH=build/clone python benchmarks/gpu_vectors.py ...

Fine-tunes a predictor of each target for some seconds (`cars` is the built-in one), then learns one recipe after
another and measures it on every target: insertion minus deletion of the predicted class (mean fill, 14 steps) against
unbaked in pairs, correlation with a Shapley reference, and, where there are boxes, where the heat lies. `tune` pictures
are for choices, `test` pictures for the report. OUT/results.jsonl gets a line as soon as something is measured,
OUT/<recipe>.safetensors a readout as soon as it is learned, so that a run that is cut short still counts; no recipe
begins that would not fit into the minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from edgex.data import image_folders
from edgex.data.image_folders import Pictures
from edgex.data.memory import PicturesInMemory
from edgex.evaluation import localisation
from edgex.evaluation.faithfulness import faithfulness
from edgex.files.model_file import load_model
from edgex.importers.base_weights import load_base
from edgex.models import backbones
from edgex.models.evidence import Encoded, Evidence, Own
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.runtime.preprocessing import Preprocessing
from edgex.shapley.play import draw_sizes, play, players_of
from edgex.shapley.solver import solve_pairs
from edgex.training.fine_tuning import new_head, warmup_cosine
from edgex.training.learning import Learned
from edgex.training.online import OnlineOptions, OnlineRun, Round, learn_online
from edgex.training.resume import TrainingCheckpoint
from edgex.training.vector_training import with_evidence
from edgex.utils import devices
from edgex.utils.processes import Processes

ROOT = Path(__file__).resolve().parents[1]
BASE = "timm/deit_tiny_patch16_224"
TARGETS = ("cars", "flowers", "gtsrb", "mnist", "cifar10", "dtd", "ucmerced", "scenes", "grocery", "neu")
UPRIGHT = ("gtsrb", "mnist")
ALPHAS = (1.0, 1.5)
REFERENCE_PICTURES = 24


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way of learning. share: of the minutes that are left for learning, relative to the others'.

    blocks: of the readout. players: kinds of players, "both", "patches" or "superpixels". placed, smooth, border:
    weights of the loss on boxes, of differences between neighbours, and of evidence at the border. own: where the
    model's own contributions are part of the evidence, the mixture to start from. held: its factors that are not
    learned. few: learn from this many pictures, with many more coalitions of each.
    """

    name: str
    share: float = 1.0
    blocks: int = 12
    players: str = "both"
    placed: float = 0.0
    smooth: float = 0.0
    border: float = 0.0
    own: Own | None = None
    held: tuple[str, ...] = ()
    few: int | None = None


OWN_BLOCKS = 4
"""Last blocks that the model's own contributions are of."""
RECIPES = (
    Recipe("all-blocks", share=2.0),
    Recipe("own-learned", own=Own(OWN_BLOCKS, 1.0, 0.5), share=1.5),
    Recipe("own-held", own=Own(OWN_BLOCKS, 1.0, 1.0), held=("weight", "blur"), share=1.5),
    Recipe("own-learned-not-blurred", own=Own(OWN_BLOCKS, 1.0, 0.0), held=("blur",)),
    Recipe("own-and-boxes-0.1", own=Own(OWN_BLOCKS, 1.0, 0.5), placed=0.1),
    Recipe("boxes-0.1", placed=0.1),
    Recipe("own-and-patches", own=Own(OWN_BLOCKS, 1.0, 0.5), players="patches"),
    Recipe("patches", players="patches"),
    Recipe("own-and-smooth", own=Own(OWN_BLOCKS, 1.0, 0.5), smooth=0.05, border=0.05),
    Recipe("smooth-and-border", smooth=0.05, border=0.05),
    Recipe("four-blocks", blocks=4, share=0.7),
    Recipe("few-pictures", few=512, share=0.7),
    Recipe("superpixels", players="superpixels", share=0.7),
    Recipe("boxes-0.5", placed=0.5),
)


class Run(OnlineRun):
    """`OnlineRun` by the recipe and the marked pictures in `setting`."""

    setting: tuple[Recipe, Marked]

    def __init__(self, *given: Any) -> None:
        recipe, self.marked = self.setting
        self.recipe = recipe
        super().__init__(*given)
        for name in recipe.held:
            del self.model.strategy.factors[name]
        if recipe.players != "both":
            self.players = self.table.players[:1] if recipe.players == "patches" else self.table.players[1:]
        if recipe.few is not None:
            self.training = self.training[: recipe.few]

    def loss(self, error: Tensor, played: Round, evidence: Tensor, generator: torch.Generator) -> Tensor:
        """The error and what the recipe adds to it."""
        recipe, found = self.recipe, error
        rows, columns = self.model.backbone.grid
        maps = self._of_class(evidence, played.classes).unflatten(1, (rows, columns))
        if recipe.smooth:
            spread = maps.flatten(1).var(dim=1).mean()
            jumps = maps.diff(dim=1).square().mean() + maps.diff(dim=2).square().mean()
            found = found + recipe.smooth * jumps / spread
        if recipe.border:
            squares = maps.square()
            inside = squares[:, 1:-1, 1:-1].sum()
            found = found + recipe.border * (squares.sum() - inside) / squares.sum()
        if recipe.placed:
            found = found + recipe.placed * self._placed(generator)
        return found

    def _placed(self, generator: torch.Generator) -> Tensor:
        """1 - cosine between heatmaps and boxes, both without their means."""
        chosen = torch.randint(len(self.marked.coverage), (64,), generator=generator, device=self.group.device)
        pixels = normalise(
            self.marked.images[chosen], self.pictures.preprocessing.mean, self.pictures.preprocessing.std
        )
        with torch.no_grad():
            tokens = self.table.model.backbone.embed(pixels.to(self.table.dtype))
            encoded = self.table.model.strategy.encode(tokens, keep=True)
            encoded = Encoded(encoded.features.float(), encoded.tokens.float(), encoded.kept)
            classes = self.model.head(encoded.features).argmax(dim=1)
        maps = self._of_class(self.evidence(encoded), classes)
        wanted = self.marked.coverage[chosen]
        maps, wanted = (part - part.mean(dim=1, keepdim=True) for part in (maps, wanted))
        return 1 - F.cosine_similarity(maps, wanted, dim=1).mean()

    def _of_class(self, evidence: Tensor, classes: Tensor) -> Tensor:
        """Evidence [N, P] of one class per picture from that of the features."""
        return (self.error.own(classes)[:, None] @ evidence)[:, 0]


@dataclasses.dataclass(frozen=True)
class Marked:
    """Pictures whose object is known: uint8 [V, H, W, 3], share of each patch that it covers [V, P]; on the device."""

    images: Tensor
    coverage: Tensor


@dataclasses.dataclass(frozen=True)
class Judged:
    """Pictures that heatmaps of one predictor are measured on, with their unbaked results.

    places, coverage: which pictures have boxes, and where; None without. reference: Shapley values [n, P] of the
    first n pictures.
    """

    name: str
    network: SelfExplainingViT
    pixels: Tensor
    classes: Tensor
    places: np.ndarray | None
    coverage: np.ndarray | None
    reference: Tensor | None
    unbaked: Tensor
    faithful: np.ndarray


class Bench:
    """The whole run: deadline, device, log of results."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments, self.folder = arguments, folder
        self.started = time.monotonic()
        self.device = devices.device_of(arguments.device)
        self.out: Path = arguments.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.base, self.base_weights = load_base(
            backbones.architecture(arguments.base), arguments.pack / "weights.safetensors"
        )
        self.preprocessing = dataclasses.replace(self.base.preprocessing, resize=224)

    def blocks(self, recipe: Recipe) -> int:
        """Of a recipe's readout: as many as the base has, at most."""
        return min(recipe.blocks, len(self.base.blocks))

    def left(self) -> float:
        """Seconds until the run must be over."""
        return 60 * self.arguments.minutes - (time.monotonic() - self.started)

    def tell(self, kind: str, **values: Any) -> None:
        """One line of results, written at once."""
        line = json.dumps({"kind": kind, "at": round(time.monotonic() - self.started, 1), **values})
        with (self.out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line[:300], flush=True)

    def run(self) -> None:
        """Everything, in the order of its worth."""
        self.tell("machine", device=str(self.device), gpu=_gpu_name(self.device), torch=torch.__version__)
        source_model = self.source_model()
        paths = image_folders.list_images([self.folder / "source", self.folder / "marked" / "learn"])
        paths = image_folders.subsample_evenly(paths, self.arguments.limit)
        pictures = PicturesInMemory.load(paths, self.base.preprocessing, self.device)
        marked = self.marked("learn", self.base.preprocessing)
        judged = [self.judged("imagenet", source_model, self.folder / "marked" / "tune", self.base.preprocessing)]
        for name in self.arguments.targets:
            network, preprocessing = self.predictor(name)
            judged += [
                self.judged(f"{name}:{part}", network, self.folder / name / part, preprocessing)
                for part in ("tune", "test")
            ]
        before = self.left()
        recipes = [recipe for recipe in RECIPES if recipe.name in self.arguments.recipes]
        total = sum(recipe.share for recipe in recipes)
        judging = 0.0
        for recipe in recipes:
            seconds = self.arguments.seconds or max(5.0, (before - len(recipes) * 12) * recipe.share / total)
            if self.left() < seconds + judging + 10:
                self.tell("left out", recipe=recipe.name)
                continue
            learned = self.learned(recipe, source_model, pictures, marked, seconds)
            begun = time.monotonic()
            for alpha in ALPHAS:
                for those in judged:
                    self.measure(recipe, learned, alpha, those)
            judging = time.monotonic() - begun
        self.tell("done")

    def source_model(self) -> SelfExplainingViT:
        """ImageNet's classifier: the base with its own head."""
        from edgex.importers.workflow import import_weights

        classes = ",".join(f"n{number:04d}" for number in range(1000))
        path = self.folder / "source.safetensors"
        if not path.exists():
            import_weights(self.arguments.base, classes, self.arguments.pack / "weights.safetensors", out=path)
        return load_model(path).network.to(self.device).freeze()

    def predictor(self, name: str) -> tuple[SelfExplainingViT, Preprocessing]:
        """A target's predictor: the built-in one, or fine-tuned for some seconds."""
        if name == "cars":
            loaded = load_model(ROOT / "edgex" / "built_in" / "cars.safetensors")
            return loaded.network.to(self.device).freeze(), loaded.card.preprocessing
        pictures = image_folders.labelled(self.folder / name, "train")
        backbone, _ = load_base(
            backbones.architecture(self.arguments.base), self.arguments.pack / "weights.safetensors"
        )
        head = new_head(len(pictures.classes), backbone.output_width)
        network = SelfExplainingViT(backbone, head, Evidence.default(backbone)).to(self.device)
        self.fine_tune(network, pictures, mirror=name not in UPRIGHT)
        network.freeze()
        test = image_folders.labelled(self.folder / name, "test")
        test = image_folders.remap_labels(test, pictures.classes, self.folder / name)
        with torch.inference_mode():
            found = [network(part).logits.argmax(dim=1).cpu() for part in self.pixels(test.paths, self.preprocessing)]
        hits = (torch.cat(found) == torch.tensor(test.labels)).float()
        self.tell("predictor", target=name, pictures=len(pictures), accuracy=round(float(hits.mean()), 4), n=len(hits))
        return network, self.preprocessing

    def fine_tune(self, network: SelfExplainingViT, pictures: Pictures, *, mirror: bool) -> None:
        """All weights, for `--predictor-seconds`; the learning rate follows the clock."""
        memory = PicturesInMemory.load(pictures.paths, self.preprocessing, self.device)
        labels = torch.tensor(pictures.labels, device=self.device)
        network.train().requires_grad_(True)
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-4, weight_decay=0.05)
        factor, generator = warmup_cosine(1000, 0.05), torch.Generator(self.device).manual_seed(0)
        begun, spent = time.monotonic(), 0.0
        while spent < 1:
            for group in optimizer.param_groups:
                group["lr"] = 2e-4 * factor(int(1000 * spent))
            chosen = torch.randint(len(memory), (128,), generator=generator, device=self.device)
            views = memory.random_views(chosen, generator, crop_scale=0.35, mirror=mirror)
            with devices.mixed_precision(self.device, "auto"):
                pixels = normalise(views, self.preprocessing.mean, self.preprocessing.std)
                logits = network.logits(network.backbone.embed(pixels))
            loss = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            spent = (time.monotonic() - begun) / self.arguments.predictor_seconds

    def marked(self, part: str, preprocessing: Preprocessing) -> Marked:
        """Pictures with boxes, centre crops."""
        root = self.folder / "marked" / part
        paths = image_folders.list_images([root])
        found = localisation.objects(root, paths, preprocessing, self.base.grid)
        assert found is not None
        images = image_folders.load_batch([paths[i] for i in found[0]], preprocessing)
        return Marked(torch.from_numpy(images).to(self.device), torch.from_numpy(found[1]).to(self.device))

    def judged(self, name: str, network: SelfExplainingViT, root: Path, preprocessing: Preprocessing) -> Judged:
        """Pictures below `root` with their predicted classes, references and unbaked results."""
        paths = image_folders.list_images([root])[: self.arguments.pictures]
        pixels = torch.cat(self.pixels(paths, preprocessing))
        with torch.inference_mode():
            outputs = [network(part) for part in pixels.split(256)]
        classes = torch.cat([output.logits.argmax(dim=1) for output in outputs])
        unbaked = torch.cat([output.heatmap for output in outputs]).float()
        found = localisation.objects(root, paths, preprocessing, network.backbone.grid)
        places, coverage = (None, None) if found is None else found
        reference = None if name.endswith(":tune") else self.reference(network, pixels[:REFERENCE_PICTURES], classes)
        judged = Judged(
            name, network, pixels, classes, places, coverage, None if reference is None else reference[0], unbaked,
            np.zeros(0),
        )  # fmt: skip
        judged = dataclasses.replace(judged, faithful=self.faithful(judged, unbaked))
        self.report("unbaked", 0.0, judged, unbaked, None if reference is None else reference[1])
        return judged

    def reference(self, network: SelfExplainingViT, pixels: Tensor, classes: Tensor) -> tuple[Tensor, float]:
        """Shapley values [n, P] of superpixels, each shared evenly by its patches; and the two halves' correlation."""
        players = players_of(network.backbone.grid)[-1]
        repeats = 16
        calls = max(2, self.arguments.coalitions // (2 * repeats))
        sizes, generator = np.random.default_rng(7), torch.Generator(self.device).manual_seed(7)
        signs, differences = [], []
        weights = network.head.explained_weight()[classes[: len(pixels)]]
        with torch.inference_mode(), devices.mixed_precision(self.device, "auto"):
            tokens = network.backbone.embed(pixels)
            explained = network.explain(tokens)
            centred = explained.logits.gather(1, classes[: len(pixels), None])[:, 0] - explained.logits.mean(dim=1)
            total = (centred - explained.base).float()
            for size in draw_sizes(players, calls, sizes):
                pairs = play(network, tokens.repeat(repeats, 1, 1), players, size, generator)
                signs.append(pairs.signs[:, players[:, 0]].unflatten(0, (repeats, -1)))
                differences.append((pairs.differences.unflatten(0, (repeats, -1)) * weights).sum(dim=2))
        coalitions = (torch.cat(signs).transpose(0, 1) > 0).cpu()
        found = torch.cat(differences).T[..., None].float().cpu()
        # Ranges of sizes follow each other: halves take turns, so that both see all of them.
        halves = [
            solve_pairs(coalitions[:, part], found[:, part], total.cpu()[:, None])[..., 0]
            for part in (slice(0, None, 2), slice(1, None, 2))
        ]
        player_of = torch.empty(players.numel(), dtype=torch.int64)
        player_of[players.flatten()] = torch.arange(len(players)).repeat_interleave(players.shape[1])
        values = [(half / players.shape[1])[:, player_of].float() for half in halves]
        return (values[0] + values[1]) / 2, float(_correlation(values[0], values[1]).mean())

    def learned(
        self, recipe: Recipe, model: SelfExplainingViT, pictures: PicturesInMemory, marked: Marked, seconds: float
    ) -> Learned:
        """One readout, saved."""
        network = with_evidence(model, self.blocks(recipe), readout=True, own=recipe.own)
        network.evidence = dataclasses.replace(network.evidence, scale=1.0)
        run = type("RecipeRun", (Run,), {"setting": (recipe, marked)})
        options = OnlineOptions(
            minutes=seconds / 60, batch_size=self.arguments.batch_size, device=str(self.device), seed=1
        )
        begun = time.monotonic()
        found = learn_online(
            network, pictures, options,
            checkpoint=TrainingCheckpoint(Path(tempfile.mkdtemp()) / "checkpoint", {}),
            report=_unheard, group=Processes(0, 1, self.device), recipe=run,
        )  # fmt: skip
        network.to(self.device)
        assert network.readout is not None
        before = with_evidence(model, self.blocks(recipe), readout=True).readout
        assert before is not None
        deltas = {
            name: (tensor.detach().cpu() - before.tensors()[name].detach().cpu()).contiguous()
            for name, tensor in network.readout.tensors().items()
        }
        save_file({name: delta.half() for name, delta in deltas.items()}, self.out / f"{recipe.name}.safetensors")
        pairs = found.history[-1]["pairs"]
        self.tell(
            "learned", recipe=dataclasses.asdict(recipe), seconds=round(time.monotonic() - begun, 1),
            asked_seconds=round(seconds, 1), pairs=pairs, pairs_a_second=round(pairs / seconds), scale=found.scale,
            factors=found.factors,
            best_step=found.step, held_out=[round(row["held_out"], 5) for row in found.history],
            flops_a_pair=_flops_a_pair(self.base), peak=_peak(self.device),
        )  # fmt: skip
        return dataclasses.replace(found, tensors=deltas)

    def measure(self, recipe: Recipe, learned: Learned, alpha: float, judged: Judged) -> None:
        """A recipe's heatmaps of one predictor at one alpha."""
        own = None
        if recipe.own is not None:
            factors = {"weight": recipe.own.weight, "blur": recipe.own.blur, **learned.factors}
            own = Own(recipe.own.blocks, **factors)
        network = with_evidence(judged.network, self.blocks(recipe), readout=True, own=own).to(self.device)
        assert network.readout is not None
        tensors = network.readout.tensors()
        network.readout.load(
            {name: tensors[name].detach() + alpha * delta.to(self.device) for name, delta in learned.tensors.items()}
        )
        heatmaps, direct = [], []
        with torch.inference_mode():
            for pixels, classes in zip(judged.pixels.split(128), judged.classes.split(128), strict=True):
                tokens = network.backbone.embed(pixels)
                evidence = learned.scale * network.evidence_of(tokens, classes[:, None])[1][:, 0]
                explained = judged.network.explain(tokens, classes)
                direct.append(evidence.unflatten(1, network.backbone.grid))
                total = explained.heatmap.flatten(1).sum(dim=1)
                correction = (total - evidence.sum(dim=1)) / evidence.shape[1]
                heatmaps.append((evidence + correction[:, None]).unflatten(1, network.backbone.grid))
        found = torch.cat(heatmaps).float()
        self.report(recipe.name, alpha, judged, found, direct=torch.cat(direct).float())
        if recipe.name == RECIPES[0].name:
            blurred = F.avg_pool2d(F.pad(judged.unbaked[:, None], (1, 1, 1, 1), mode="replicate"), 3, 1)[:, 0]
            both = sum(part / part.flatten(1).std(dim=1)[:, None, None] for part in (found, blurred))
            assert isinstance(both, Tensor)
            self.report(f"{recipe.name} + unbaked blurred", alpha, judged, both)

    def report(
        self,
        recipe: str,
        alpha: float,
        judged: Judged,
        heatmaps: Tensor,
        halves: float | None = None,
        direct: Tensor | None = None,
    ) -> None:
        """One line: how faithful and how well placed these heatmaps are.

        direct: the evidence alone, without the correction, which only the mass of positive values depends on.
        """
        faithful = judged.faithful if recipe == "unbaked" else self.faithful(judged, heatmaps)
        values: dict[str, Any] = {"difference": _mean(faithful)}
        if recipe != "unbaked":
            values["gain"] = _mean(faithful - judged.faithful)
        if judged.reference is not None:
            few = heatmaps[: len(judged.reference)].flatten(1).cpu()
            values["reference"] = _mean(_correlation(_on_superpixels(few, judged), judged.reference).numpy())
        if halves is not None:
            values["reference_halves"] = halves
        if judged.places is not None and judged.coverage is not None:
            maps = heatmaps.cpu().numpy()[judged.places]
            values |= {key: _mean(found) for key, found in localisation.localise(maps, judged.coverage).items()}
            if direct is not None:
                flat = direct.flatten(1).cpu().numpy()[judged.places]
                values["relevance_mass_without_correction"] = _mean(localisation.relevance_mass(flat, judged.coverage))
        values["border"] = _mean(localisation.strongest_at_border(heatmaps.cpu().numpy()))
        values["positive"] = _mean((heatmaps.flatten(1) > 0).float().mean(dim=1).cpu().numpy())
        self.tell("heatmaps", recipe=recipe, alpha=alpha, pictures=judged.name, n=len(heatmaps), **values)

    def faithful(self, judged: Judged, heatmaps: Tensor) -> np.ndarray:
        """Insertion minus deletion [N]."""
        return np.concatenate(
            [
                faithfulness(judged.network, *part, precision="auto").difference
                for part in zip(
                    judged.pixels.split(128), judged.classes.split(128), heatmaps.to(self.device).split(128),
                    strict=True,
                )
            ]
        )  # fmt: skip

    def pixels(self, paths: Any, preprocessing: Preprocessing) -> list[Tensor]:
        """The pictures as a model takes them, in parts of at most 256."""
        images = torch.from_numpy(image_folders.load_batch(paths, preprocessing)).to(self.device)
        return [normalise(part, preprocessing.mean, preprocessing.std) for part in images.split(256)]


def _on_superpixels(heatmaps: Tensor, judged: Judged) -> Tensor:
    """Heatmaps [n, P] with each superpixel's sum shared evenly by its patches."""
    players = players_of(judged.network.backbone.grid)[-1]
    means = heatmaps[:, players].mean(dim=2, keepdim=True).expand(-1, -1, players.shape[1])
    return torch.empty_like(heatmaps).scatter_(1, players.flatten().expand_as(heatmaps), means.flatten(1))


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's, [n], of maps [n, P]."""
    first, second = (part - part.mean(dim=1, keepdim=True) for part in (first, second))
    return F.cosine_similarity(first, second, dim=1)


def _mean(values: Any) -> dict[str, float]:
    values = np.asarray(values, dtype=np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return {"mean": round(float(values.mean()), 5), "standard_error": round(float(error), 5)}


def _flops_a_pair(backbone: Any) -> float:
    """Of one pair with half of the patches each, counted by torch on one picture."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(backbone.parameters()).device
    places = torch.arange(backbone.patches // 2, device=device)[None]
    tokens = torch.zeros(1, backbone.prefix_tokens + places.shape[1], backbone.width, device=device)
    head = new_head(2, backbone.output_width).to(device)
    network = SelfExplainingViT(backbone, head, Evidence.default(backbone))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.features(tokens, places)
    return 2.0 * counter.get_total_flops()


def _peak(device: torch.device) -> float | None:
    """FLOP/s of a large bf16 product on this card; None without one."""
    if device.type != "cuda":
        return None
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    times: list[float] = []
    for _ in range(8):
        torch.cuda.synchronize()
        begun = time.monotonic()
        a @ b
        torch.cuda.synchronize()
        times.append(time.monotonic() - begun)
    return 2 * 8192**3 / float(np.median(times[3:]))


def _unheard(row: dict[str, float]) -> None:
    """What a run reports of itself; its history is kept."""


def _gpu_name(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(arguments.pack / "pictures.tar") as archive:
        archive.extractall(folder, filter="data")
        Bench(arguments, Path(folder)).run()


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--pack", type=Path, required=True)
    made.add_argument("--out", type=Path, required=True, help="folder for results and readouts")
    made.add_argument("--minutes", type=float, default=8.5, help="for everything")
    made.add_argument("--seconds", type=float, help="of each recipe; default: what the minutes allow")
    made.add_argument("--recipes", nargs="+", default=[recipe.name for recipe in RECIPES])
    made.add_argument("--base", default=BASE, help="whose weights the pack holds")
    made.add_argument("--predictor-seconds", type=float, default=7.0)
    made.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    made.add_argument("--pictures", type=int, default=100, help="most pictures of each target that are measured on")
    made.add_argument("--coalitions", type=int, default=4096, help="of the Shapley reference")
    made.add_argument("--limit", type=int, default=10_000, help="most source pictures")
    made.add_argument("--batch-size", type=int, default=256)
    made.add_argument("--device", default="auto")
    return made.parse_args()


if __name__ == "__main__":
    main()
