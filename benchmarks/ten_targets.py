"""One vector on ten targets: is a baked heatmap better than the unbaked one, than Kernel SHAP's, than others'?

    python benchmarks/ten_targets.py --data DATA --weights DEIT_TINY.safetensors --work WORK

DATA holds cars, flowers, gtsrb, ... each as <name>/{train,test}/<class>/*.jpg. Predictors are trained as by
`edgex train` where WORK has none yet (`cars` is the built-in one); heatmaps of other methods are kept in
WORK/heatmaps, so an interrupted run goes on. The same rule for every target: alpha is the one of ALPHAS with the
highest mean insertion - deletion on pictures held out of train, among those that cost at most MAX_DROP points of
accuracy there. Test pictures are looked at once, at the end. Results go to results/ten_targets.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, log, save

from edgex import comparison, data, evaluate, predictor, zoo
from edgex.bake import bake
from edgex.baselines import Method
from edgex.checkpoint import load_card, load_model
from edgex.comparison import Plan
from edgex.data import Pictures
from edgex.evaluate import Estimate
from edgex.timing import machine
from edgex.train import TrainOptions
from edgex.vector import load_vector_card

TARGETS = ("cars", "flowers", "gtsrb", "mnist", "cifar10", "dtd", "ucmerced", "scenes", "grocery", "neu")
UPRIGHT = ("gtsrb", "mnist")
"""Targets whose pictures mean something else in a mirror."""
BASE = "timm/deit_tiny_patch16_224"
ALPHAS = (0.5, 1.0, 1.5, 2.0, 3.0)
MAX_DROP = 0.5
HELD_OUT = 0.1
TUNED_ON = 40
METRIC = "difference:mean"


def main() -> None:
    arguments = _arguments()
    vector = zoo.resolve(arguments.vector, "vector")
    card, digest = load_vector_card(vector)
    report: dict[str, Any] = {
        "metric": "insertion minus deletion of the predicted class's probability, mean-colour fill, 14 steps",
        "rule": f"best of alpha {ALPHAS} on {TUNED_ON} held-out training pictures, losing at most {MAX_DROP} points",
        "vector": {"name": card.name, "sha256": digest, "evidence": card.evidence.to_dict()},
        "precision_of_masked_passes": arguments.precision,
        "machine": machine(("torch", "timm")),
        "targets": {},
    }
    for name in arguments.targets.split(","):
        log(name)
        report["targets"][name] = target(name, vector, arguments)
        # After every target, so that a stopped run leaves what it had.
        save(report, table(report), arguments.out)
        plot(report, arguments.out.with_suffix(".png"))


def target(name: str, vector: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything about one target: predictor, alpha by the rule, the report on test pictures."""
    work: Path = arguments.work
    path = trained(name, arguments)
    folder = arguments.data / name
    card, digest = load_card(path)
    _, held = data.labelled(folder, "train").split(HELD_OUT, 0)
    choice = choose(path, vector, data.aligned(held, card.classes, folder), work, arguments.precision)
    baked = baked_file(path, vector, choice["alpha"], work)
    rows: dict[str, Any] = {}
    paired: dict[str, Any] = {}
    accuracy: dict[str, Any] = {}
    rounds = ((arguments.against, arguments.explained), (arguments.costly, arguments.costly_explained))
    for methods, explained in (r for r in rounds if r[0]):
        plan = Plan(
            explained=explained,
            methods=tuple(Method.parse(text) for text in methods.split(",")),
            fills=("mean",),
            precision=arguments.precision,
        )
        made = comparison.compare(("baked", baked), ("unbaked", path), folder / "test", plan, work / "heatmaps")
        first = made.rows[0]
        accuracy = {s.name: {"mean": float(s.correct.mean()), "n": len(s.correct)} for s in made.subjects}
        for row in made.rows:
            if row.name in rows:
                continue
            rows[row.name] = {key: described(values) for key, values in row.values.items()}
            if row is not first:
                found = made.paired(first, row)
                paired[row.name] = {key: {**e.to_dict(), "interval": list(e.interval)} for key, e in found.items()}
    return {
        "predictor_sha256": digest,
        "classes": len(card.classes),
        "alpha": choice["alpha"],
        "chosen_on": choice,
        "accuracy": accuracy,
        "accuracy_change": 100 * (accuracy["baked"]["mean"] - accuracy["unbaked"]["mean"]),
        "methods": rows,
        "baked_minus": paired,
    }


def described(values: Any) -> dict[str, Any]:
    """Mean, standard error and n over pictures."""
    return dict(Estimate.of(values).to_dict())


def trained(name: str, arguments: argparse.Namespace) -> Path:
    """The target's predictor, trained by the same recipe for all where it is not there yet."""
    if name == "cars":
        return zoo.BUILT_IN / "cars.safetensors"
    path: Path = arguments.work / f"{name}.safetensors"
    if not path.is_file():
        options = TrainOptions(epochs=4, batch_size=32, learning_rate=1e-4, mirror=name not in UPRIGHT)
        predictor.train(
            arguments.data / name,
            BASE,
            arguments.weights,
            path,
            options,
            name=name,
            resize=224,
            val_fraction=HELD_OUT,
            half=True,
            report=lambda epoch, numbers: log(f"epoch {epoch}: {numbers}"),
        )
    return path


def choose(path: Path, vector: Path, held: Pictures, work: Path, precision: str) -> dict[str, Any]:
    """Alpha by the rule, from held-out training pictures only, and what it was chosen from."""
    stored = work / f"alpha-{load_card(path)[1][:12]}-{load_vector_card(vector)[1][:12]}.json"
    if stored.is_file():
        return dict(json.loads(stored.read_text(encoding="utf-8")))
    curve = []
    for alpha in (0.0, *ALPHAS):
        model, card = load_model(baked_file(path, vector, alpha, work) if alpha else path)
        subject = comparison.Subject(f"alpha {alpha}", path, model.freeze(), card, torch.empty(0).numpy())
        images = torch.from_numpy(data.load_batch(data.spread(held.paths, TUNED_ON), card.preprocessing))
        made, _ = comparison.own_heatmaps(subject, images)
        plan = Plan(fills=("mean",), precision=precision)
        values = comparison.scores(subject, images, made, plan, subject.name)[METRIC]
        hits = evaluate.accuracy(model, held, card.preprocessing, precision=precision)
        curve.append({"alpha": alpha, METRIC: float(values.mean()), "accuracy": hits})
    allowed = [row for row in curve[1:] if 100 * (curve[0]["accuracy"] - row["accuracy"]) <= MAX_DROP + 1e-9]
    best = max(allowed, key=lambda row: row[METRIC])["alpha"] if allowed else ALPHAS[0]
    choice = {"alpha": best, "within_limit": bool(allowed), "pictures": TUNED_ON, "n": len(held), "curve": curve}
    stored.write_text(json.dumps(choice), encoding="utf-8")
    return choice


def baked_file(path: Path, vector: Path, alpha: float, work: Path) -> Path:
    """The baked model, kept until its vector changes."""
    out = work / "baked" / f"{path.stem}-{load_vector_card(vector)[1][:12]}-{alpha:g}.safetensors"
    if not out.is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        bake(path, vector, out, alpha=alpha)
    return out


def methods_of(report: dict[str, Any], key: str) -> list[str]:
    """What was measured on any target, without the crossed rows (heatmaps of one model on another)."""
    return list(dict.fromkeys(m for t in report["targets"].values() for m in t[key] if " on " not in m))


def table(report: dict[str, Any]) -> str:
    """Markdown: one row per target, insertion - deletion of every method, paired gains of the baked heatmap."""
    names = methods_of(report, "methods")
    lines = [
        f"| target | alpha | accuracy | {' | '.join(names)} | baked - unbaked (95%) |",
        "|" + "---|" * (len(names) + 4),
    ]
    for name, t in report["targets"].items():
        cells = [
            f"{m[METRIC]['mean']:.3f} ± {m[METRIC]['standard_error']:.3f}" if (m := t["methods"].get(n)) else ""
            for n in names
        ]
        gain = t["baked_minus"]["unbaked"][METRIC]
        low, high = gain["interval"]
        accuracy = f"{100 * t['accuracy']['unbaked']['mean']:.2f}% -> {100 * t['accuracy']['baked']['mean']:.2f}%"
        lines.append(
            f"| {name} | {t['alpha']:g} | {accuracy} | {' | '.join(cells)} | "
            f"{gain['mean']:+.4f} [{low:+.4f}, {high:+.4f}] |"
        )
    return "\n".join([*lines, "", *summary(report)]) + "\n"


def summary(report: dict[str, Any]) -> list[str]:
    """How often the baked heatmap wins, by the mean and beyond doubt, and what accuracy does."""
    targets = report["targets"].values()
    lines = []
    for other in methods_of(report, "baked_minus"):
        gains = [t["baked_minus"][other][METRIC] for t in targets if other in t["baked_minus"]]
        better = sum(g["mean"] > 0 for g in gains)
        surely = sum(g["interval"][0] > 0 for g in gains)
        worse = sum(g["interval"][1] < 0 for g in gains)
        lines.append(
            f"- baked against {other}: better on {better} of {len(gains)} (95% interval above 0 on {surely}, below 0 "
            f"on {worse}), n = {gains[0]['n']} each"
        )
    changes = [t["accuracy_change"] for t in targets]
    lines.append(f"- accuracy: mean change {sum(changes) / len(changes):+.2f} points, worst {min(changes):+.2f}")
    return lines


def plot(report: dict[str, Any], out: Path) -> None:
    """Insertion - deletion of every method on every target, with standard errors."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    names = methods_of(report, "methods")
    figure, axes = pyplot.subplots(figsize=(12, 4.5), layout="constrained")
    for index, method in enumerate(names):
        points = [
            (place + (index - len(names) / 2) * 0.1, t["methods"][method][METRIC])
            for place, t in enumerate(report["targets"].values())
            if method in t["methods"]
        ]
        axes.errorbar(
            [x for x, _ in points],
            [m["mean"] for _, m in points],
            [m["standard_error"] for _, m in points],
            fmt="o",
            markersize=7 if method in ("baked", "unbaked") else 4,
            label=method,
        )
    axes.set_xticks(range(len(report["targets"])), list(report["targets"]))
    axes.set_ylabel("insertion - deletion")
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.legend(ncols=4, fontsize=8)
    figure.savefig(out, dpi=120)
    pyplot.close(figure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--vector", default="imagenet")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--explained", type=int, default=50)
    parser.add_argument("--against", default="kernel-shap:150,kernel-shap:150@patches,grad-cam,rollout")
    parser.add_argument("--costly", default="kernel-shap:1000", help="Methods for fewer pictures.")
    parser.add_argument("--costly-explained", type=int, default=20)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS / "ten_targets.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
