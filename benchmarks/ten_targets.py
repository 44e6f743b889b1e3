"""One vector on ten targets: is a baked heatmap better than the unbaked one, than Kernel SHAP's, than others'?

    python benchmarks/ten_targets.py --data DATA --weights DEIT_TINY.safetensors --work WORK

DATA holds cars, flowers, gtsrb, ... each as <name>/{train,test}/<class>/*.jpg. Predictors are trained as by
`edgex train` where WORK has none yet (`cars` is the built-in one); heatmaps of other methods are kept in
WORK/heatmaps and every finished target in WORK/kept, so an interrupted run goes on. The same rule for every target:
alpha is the one that the vector recommends, chosen on pictures held out of training (built_in/RECORD.md). Both fills of
the metric are measured; table and plot go by the mean colour. A second table has SaCo, agreement with a Shapley
reference of 4000 coalitions (more than an hour a target on a CPU; `--reference 0` leaves it out) and what each method
costs. Results go to results/ten_targets.json, .md and .png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import RESULTS, log, save
from figures import INSERTION_MINUS_DELETION, figure, measured_where, style_of
from targets import (
    METRIC,
    METRIC_IN_WORDS,
    PEERS,
    RULE,
    TARGETS,
    Setting,
    against,
    baked_file,
    bracketed,
    described,
    folder_of,
    identity_of,
    methods_of,
    parser,
    plus_minus,
    remembered,
    trained,
)

from edgex.bench.timing import machine
from edgex.evaluation.faithfulness import FILLS
from edgex.evaluation.methods.kernel_shap import KernelShap
from edgex.evaluation.plan import REFERENCE
from edgex.files import zoo
from edgex.files.model_file import load_card
from edgex.files.vector_file import load_vector_card

MEASURES = ("difference:mean", "difference:blur", "saco:mean", "saco:blur", "reference_correlation")
"""What stands side by side in the report."""


def main() -> None:
    arguments = _arguments()
    vector = zoo.resolve(arguments.vector, "vector")
    report: dict[str, Any] = {
        "metric": f"{METRIC_IN_WORDS}; the same with a blurred fill beside it",
        "rule": RULE,
        "vector": described(vector),
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
    setting = Setting.of(arguments)
    path = trained(name, setting)
    folder = folder_of(name, setting)
    card, digest = load_card(path)
    alpha = load_vector_card(vector)[0].alpha
    rounds = ((arguments.against, arguments.explained), (arguments.costly, arguments.costly_explained))
    settings = {
        "predictor": digest,
        "vector": identity_of(vector),
        "alpha": alpha,
        "rounds": rounds,
        "fills": FILLS,
        "precision": arguments.precision,
        "measures": MEASURES,
        "reference": arguments.reference,
    }
    reference = KernelShap(arguments.reference) if arguments.reference else None

    def measure() -> dict[str, Any]:
        baked = baked_file(path, vector, alpha, setting.work)
        return against(baked, path, folder / "test", rounds, FILLS, setting, reference)

    return {
        "predictor_sha256": digest,
        "classes": len(card.classes),
        "alpha": alpha,
        **remembered(setting.work, f"target-{name}", settings, measure),
    }


def table(report: dict[str, Any]) -> str:
    """Markdown: one row per target, insertion - deletion of every method, paired gains of the baked heatmap."""
    names = methods_of(report["targets"], "methods")
    lines = [
        f"| target | alpha | accuracy | {' | '.join(names)} | baked - unbaked (95%) |",
        "|" + "---|" * (len(names) + 4),
    ]
    for name, t in report["targets"].items():
        cells = [plus_minus(m[METRIC]) if (m := t["methods"].get(n)) else "" for n in names]
        accuracy = f"{100 * t['accuracy']['unbaked']['mean']:.2f}% -> {100 * t['accuracy']['baked']['mean']:.2f}%"
        gain = bracketed(t["baked_minus"]["unbaked"][METRIC])
        lines.append(f"| {name} | {t['alpha']:g} | {accuracy} | {' | '.join(cells)} | {gain} |")
    changes = [t["accuracy_change"] for t in report["targets"].values()]
    return "\n".join(
        [
            f"Metric: {report['metric']}; mean ± standard error. {report['rule'].capitalize()}.",
            "",
            *lines,
            "",
            "By the mean-colour fill (the table's), baked against",
            "",
            *summary(report, METRIC),
            "",
            "By the blurred fill, baked against",
            "",
            *summary(report, "difference:blur"),
            "",
            *measures_table(report),
            "",
            f"Accuracy: mean change {sum(changes) / len(changes):+.2f} points, worst {min(changes):+.2f}.",
            "",
        ]
    )


def measures_table(report: dict[str, Any]) -> list[str]:
    """Markdown: every measure of every method, averaged over the targets that have it, with the method's costs.

    Behind a mean stands on how many of the targets the method is first among those of one forward pass.
    """
    targets = report["targets"].values()
    names = methods_of(report["targets"], "methods")
    keys = [key for key in MEASURES if any(key in t["methods"]["baked"] for t in targets)]
    lines = [
        "Side by side, means over targets; in brackets, on how many targets a method is first among those of one "
        "forward pass:",
        "",
        f"| heatmap | passes | ms | {' | '.join(keys)} |",
        "|" + "---|" * (len(keys) + 3),
    ]
    for name in names:
        costs = [t["costs"][name] for t in targets if name in t.get("costs", {})]
        timed = sorted(c["milliseconds"] for c in costs if c["milliseconds"])
        cells = [costs[0]["passes"] if costs else "", f"{timed[len(timed) // 2]:.1f}" if timed else ""]
        for key in keys:
            means = [t["methods"][name][key]["mean"] for t in targets if key in t["methods"].get(name, {})]
            first = sum(name == _first(t, key) for t in targets)
            cells.append(f"{sum(means) / len(means):.3f} ({first})" if means else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    halves = [t["reference_halves"]["unbaked"]["mean"] for t in targets if t.get("reference_halves")]
    if halves:
        lines += ["", f"The reference's two halves agree by {sum(halves) / len(halves):.3f} on average."]
    return lines


def _first(target: dict[str, Any], key: str) -> str | None:
    """The method with the largest mean of a measure among those of one forward pass."""
    single = {
        name: values[key]["mean"]
        for name, values in target["methods"].items()
        if key in values and target.get("costs", {}).get(name, {}).get("passes", "").partition(" ")[0] == "1"
    }
    return max(single, key=lambda name: single[name], default=None)


def summary(report: dict[str, Any], metric: str) -> list[str]:
    """How often the baked heatmap wins over each other one by this metric, by the mean and significantly (95% CI)."""
    targets = report["targets"].values()
    lines = []
    for other in methods_of(report["targets"], "baked_minus"):
        gains = [t["baked_minus"][other][metric] for t in targets if other in t["baked_minus"]]
        better = sum(g["mean"] > 0 for g in gains)
        surely = sum(g["interval"][0] > 0 for g in gains)
        not_worse = sum(g["interval"][1] >= 0 for g in gains)
        counts = sorted({g["n"] for g in gains})
        lines.append(
            f"- {other}: better on {better} of {len(gains)} (95% interval above 0 on {surely}), not worse on "
            f"{not_worse} (interval not wholly below 0); n = {' to '.join(map(str, counts))} each"
        )
    return lines


def plot(report: dict[str, Any], out: Path) -> None:
    """Insertion - deletion of every method on every target, with standard errors, side by side."""
    targets = report["targets"]
    names = methods_of(targets, "methods")
    counts = {n: {t["methods"][n][METRIC]["n"] for t in targets.values() if n in t["methods"]} for n in names}
    usual = max(max(found) for found in counts.values())
    subtitle = (
        f"Higher is more faithful; {usual} test pictures of each data set, mean ± standard error. All methods explain "
        f"the same classifiers. {INSERTION_MINUS_DELETION}."
    )
    size = (2.0 + 1.05 * len(targets), 4.6)
    title = f"Faithfulness of heatmaps on {len(targets)} data sets"
    with figure(out, title, subtitle, measured_where(report), size, columns=3) as (_, axes):
        for index, method in enumerate(names):
            points = [
                (place + (index - (len(names) - 1) / 2) * 0.8 / len(names), t["methods"][method][METRIC])
                for place, t in enumerate(targets.values())
                if method in t["methods"]
            ]
            fewer = "" if max(counts[method]) == usual else f" ({max(counts[method])} pictures)"
            style = style_of(method)
            axes.errorbar(
                [x for x, _ in points],
                [m["mean"] for _, m in points],
                [m["standard_error"] for _, m in points],
                markersize=8 if method in ("baked", "unbaked") else 6,
                elinewidth=1.2,
                capsize=2,
                label=style.name + fewer,
                **style.points(),
            )
        for place in range(0, len(targets), 2):
            axes.axvspan(place - 0.5, place + 0.5, color="black", alpha=0.04, linewidth=0)
        axes.set_xticks(range(len(targets)), list(targets))
        axes.set_xlim(-0.5, len(targets) - 0.5)
        axes.set_ylabel("insertion minus deletion")
        axes.axhline(0, color="grey", linewidth=0.7)
        axes.grid(axis="y", alpha=0.3)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, RESULTS / "ten_targets.json")
    options.add_argument("--vector", default="imagenet")
    options.add_argument("--targets", default=",".join(TARGETS))
    options.add_argument("--explained", type=int, default=50)
    options.add_argument("--against", default=f"kernel-shap:150,kernel-shap:150@patches,{PEERS}")
    options.add_argument("--costly", default="kernel-shap:1000,rise:4000", help="Methods for fewer pictures.")
    options.add_argument("--costly-explained", type=int, default=20)
    options.add_argument(
        "--reference", type=int, default=REFERENCE.passes, help="Coalitions of the Shapley reference; 0 for none."
    )
    return options.parse_args()


if __name__ == "__main__":
    main()
