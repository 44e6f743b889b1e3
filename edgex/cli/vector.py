"""`edgex vector`: label pictures, learn a vector from them, calculate with vectors, show what a vector is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edgex.cli.command import Command
from edgex.cli.console import note, print_json
from edgex.errors import UsageError
from edgex.utils.output import refuse_to_overwrite

_PAIRS = "Paired coalitions per picture."
_SIDE = "Superpixels per side."
_CROPS = "Views per picture: the centre crop, then random crops; may be repeated, one for each --data."
_CLASSES = "Highest-scoring classes to label per picture."
_LIMIT = "Use that many pictures per folder, evenly spread."


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(help="Learn and inspect explainability vectors.", no_args_is_help=True)
    group.command("label", cls=Command)(label)
    group.command("train", cls=Command)(train)
    group.command("combine", cls=Command)(combine)
    group.command("info", cls=Command)(info)
    app.add_typer(group, name="vector")


def label(
    model: Annotated[str, typer.Option(help="Predictor that plays the coalitions: a file or a zoo name.")],
    data: Annotated[list[Path], typer.Option(help="Folder of pictures; may be repeated.")],
    out: Annotated[Path, typer.Option(help="File to write the labels to (.safetensors).")],
    name: Annotated[str | None, typer.Option(help="Name of the labels; default: the file's.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for the label cache; default: <out>.work.")] = None,
    pairs: Annotated[int, typer.Option(help=_PAIRS)] = 24,
    side: Annotated[int, typer.Option(help=_SIDE)] = 7,
    crops: Annotated[list[int] | None, typer.Option(help=_CROPS)] = None,
    classes: Annotated[int, typer.Option(help=_CLASSES)] = 3,
    features: Annotated[
        bool, typer.Option(help="Also keep differences of the features, which 'vector train --learn readout' needs.")
    ] = True,
    limit: Annotated[int | None, typer.Option(help=_LIMIT)] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<n>.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Label pictures with Shapley values of the predictor's own scores, for `edgex vector train --labels`.

    Interrupted, it goes on from its cache when the same command is given again.
    """
    from edgex.shapley import labelling

    card = labelling.make_labels(
        model,
        data,
        out,
        name=name,
        cache_dir=work,
        pairs=pairs,
        side=side,
        crops=crops,
        classes=classes,
        features=features,
        limit=limit,
        seed=seed,
        device=device,
        precision=precision,
        force=force,
        report=note,
    )
    if not _speaks():
        return
    if json:
        print_json({"path": str(out), **card.metrics})
        return
    print(f"{out}: labels of {card.metrics['views']} views of {card.metrics['pictures']} pictures by {model}")
    print(labelling.describe_reliability(card.metrics["split_half_cosine"]))


def train(
    model: Annotated[str, typer.Option(help="Predictor to learn from: a file or a zoo name.")],
    out: Annotated[Path, typer.Option(help="File to write the vector to (.safetensors).")],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of pictures of the source domain; may be repeated. With --labels: where they lie."),
    ] = None,
    supervision: Annotated[
        str, typer.Option(help="shapley (no human labels), or masks: masks or boxes beside the pictures.")
    ] = "shapley",
    labels: Annotated[Path | None, typer.Option(help="Labels that 'edgex vector label' made.")] = None,
    masks: Annotated[
        list[Path] | None, typer.Option(help="Folder of PNG masks, laid out like --data; one for each.")
    ] = None,
    model_out: Annotated[Path | None, typer.Option(help="Also write the self-explaining source model.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the vector; default: the file's.")] = None,
    source: Annotated[str | None, typer.Option(help="Name of the source domain; default: the first folder's.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for label caches and checkpoints.")] = None,
    pairs: Annotated[int | None, typer.Option(help=f"{_PAIRS} Default: 24.")] = None,
    side: Annotated[int | None, typer.Option(help=f"{_SIDE} Default: 7.")] = None,
    crops: Annotated[list[int] | None, typer.Option(help=f"{_CROPS} Default: 1.")] = None,
    classes: Annotated[int | None, typer.Option(help=f"{_CLASSES} Default: 3.")] = None,
    limit: Annotated[int | None, typer.Option(help=_LIMIT)] = None,
    learn: Annotated[
        str | None,
        typer.Option(
            help="readout (copies that only heatmaps are read with; classes stay as they are) or weights; default: "
            "readout, or weights where a model can have none."
        ),
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(help="With --learn weights: how many of the last blocks to train. Default: 6.")
    ] = None,
    evidence_blocks: Annotated[int, typer.Option(help="Of how many last blocks the heatmap is made.")] = 4,
    steps: Annotated[int, typer.Option(help="Most training steps; the best on held-out pictures is kept.")] = 600,
    batch_size: Annotated[int, typer.Option(help="Pictures per step, over all processes.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-4,
    explain_weight: Annotated[float, typer.Option(help="Weight of the explanation term.")] = 1.0,
    class_weight: Annotated[
        float | None, typer.Option(help="With --learn weights: weight of the class term. Default: 2.")
    ] = None,
    class_loss: Annotated[
        str | None,
        typer.Option(help="With --learn weights: hold (the predictor's own outputs, the default) or labels."),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Recommended alpha to record in the vector.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<n>.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    half: Annotated[bool, typer.Option(help="Store the vector in half precision.")] = False,
    force: Annotated[bool, typer.Option(help="Overwrite existing files.")] = False,
) -> None:
    """Learn a vector: label pictures with the predictor itself, then train with and without explanations.

    No human labels are needed. Interrupted, it goes on from its label cache and its last checkpoint when the
    same command is given again. Several processes share the work: accelerate launch -m edgex vector train ...
    """
    from edgex.training import workflow

    card = workflow.learn_vector(
        model,
        out,
        data=data,
        supervision=supervision,
        labels=labels,
        masks=masks,
        model_out=model_out,
        name=name,
        source=source,
        cache_dir=work,
        pairs=pairs,
        side=side,
        crops=crops,
        classes=classes,
        limit=limit,
        learn=learn,
        blocks=blocks,
        evidence_blocks=evidence_blocks,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        explain_weight=explain_weight,
        class_weight=class_weight,
        class_loss=class_loss,
        alpha=alpha,
        seed=seed,
        device=device,
        precision=precision,
        dtype="fp16" if half else "fp32",
        force=force,
        report=note,
    ).card
    if not _speaks():
        return
    print(f"{out}: vector '{card.name}' from {card.source}, {card.architecture}")
    print(f"heatmap: {card.evidence}")
    best = card.metrics["best_step"]
    first, last = card.metrics["history"][0], next(r for r in card.metrics["history"] if r["step"] == best)
    print(f"held-out error: {first['held_out']:.4f} -> {last['held_out']:.4f} of the null (step {best})")


def combine(
    vectors: Annotated[list[str], typer.Argument(help="Vectors: files or zoo names, of one base.")],
    out: Annotated[Path, typer.Option(help="File to write the result to (.safetensors).")],
    weight: Annotated[
        list[float] | None, typer.Option(help="Factor of each vector, in their order; default: 1 each.")
    ] = None,
    method: Annotated[str, typer.Option(help="sum, average or ties (elected signs).")] = "sum",
    keep: Annotated[
        float | None, typer.Option(help="Trim: share of entries to keep, largest magnitudes first.")
    ] = None,
    scope: Annotated[
        str | None, typer.Option(help="With --keep: where that share is counted, tensor (the default) or vector.")
    ] = None,
    block_alpha: Annotated[
        str | None, typer.Option(help="Factors of single blocks, from 0: '6=0.5,7=1' or a ramp '6..11=0.5..1'.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Recommended alpha to record; default: the vectors' own, averaged.")
    ] = None,
    store: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    name: Annotated[str | None, typer.Option(help="Name of the result; default: the file's.")] = None,
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Scale, add, average, trim or merge vectors, or store one in fewer bits.

    The vectors must share architecture, base and the blocks that their heatmaps are made of.
    """
    refuse_to_overwrite(out, force=force)
    if scope is not None and keep is None:
        raise UsageError("--scope says where --keep counts: add --keep, or leave it out")
    from edgex.files import zoo
    from edgex.vectors import arithmetic

    card = arithmetic.combine(
        [zoo.resolve(vector, "vector") for vector in vectors],
        out,
        name=name or out.name.removesuffix(".safetensors"),
        weights=weight,
        options=arithmetic.CombineOptions(
            method=method,
            keep=keep,
            scope=scope or "tensor",
            block_alpha=arithmetic.parse_block_alpha(block_alpha) if block_alpha is not None else {},
        ),
        alpha=alpha,
        store=store,
    )
    lost = card.metrics["storage"]["relative_error"]
    if json:
        print_json({"path": str(out), "alpha": card.alpha, "scale": card.evidence.scale, "relative_error": lost})
        return
    print(f"{out}: vector '{card.name}' from {', '.join(vectors)}, {card.architecture}, alpha {card.alpha:g}")
    print(f"heatmap: {card.evidence}")
    print(f"stored as {store}: {out.stat().st_size / 1e6:.1f} MB, {100 * lost:.3g}% of the vector's length lost")


def info(
    vector: Annotated[str, typer.Argument(help="A vector: a file or a zoo name.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a vector is, what it was learned from and what was measured."""
    from edgex.cli.inspect import show
    from edgex.files import zoo
    from edgex.files.vector_file import load_vector_card

    path = zoo.resolve(vector, "vector")
    load_vector_card(path)
    show(path, as_json=json)


def _speaks() -> bool:
    """Whether this process prints the result: of several that a launcher started, the first."""
    return os.environ.get("RANK", "0") == "0"
