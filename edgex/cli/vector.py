"""`edgex vector`: label pictures, learn a vector from them, calculate with vectors, show what a vector is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgex.cli.command import HALF, Command, Renamed, command
from edgex.cli.completion import models, vectors
from edgex.cli.console import note, print_json, say
from edgex.errors import UsageError
from edgex.utils.output import refuse_to_overwrite

if TYPE_CHECKING:
    from edgex.training.workflow import LearnResult

_PAIRS = "Paired coalitions per picture."
_PLAYERS = "Superpixels whose Shapley values are computed, a square number. Default: 49, or the nearest that fit."
_CROPS = "Crops per picture: the centre crop, then random ones; may be repeated, one for each --data."
_CLASSES = "Highest-scoring classes to label per picture."
_LIMIT = "Pictures to use per folder, evenly spaced; default: all."
_CACHE = "Folder for label caches and checkpoints; default: <out>.work."
_SKIP = "Go on without pictures that cannot be read."
_WORK = Renamed("--work", "--cache-dir")
_SIDE = Renamed(
    "--side", "--players", convert=lambda side: str(int(side) ** 2) if side.isdecimal() and len(side) < 10 else side
)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(help="Learn and inspect explainability vectors.", no_args_is_help=True)
    group.command("label", cls=command(_WORK, _SIDE, resumes=True))(label)
    group.command("train", cls=command(_WORK, _SIDE, HALF, resumes=True))(train)
    group.command("combine", cls=command(Renamed("--store", "--dtype")))(combine)
    group.command("info", cls=Command)(info)
    app.add_typer(group, name="vector")


def label(
    model: Annotated[
        str,
        typer.Option(
            help="Predictor whose scores on masked inputs are explained: a file or a zoo name.", autocompletion=models
        ),
    ],
    data: Annotated[list[Path], typer.Option(help="Folder of pictures; may be repeated.")],
    out: Annotated[Path, typer.Option(help="File to write the labels to (.safetensors).")],
    name: Annotated[str | None, typer.Option(help="Name of the labels; default: the file's.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help=_CACHE)] = None,
    pairs: Annotated[int, typer.Option(help=_PAIRS)] = 24,
    players: Annotated[int | None, typer.Option(help=_PLAYERS)] = None,
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
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help=_SKIP)] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Label pictures with Shapley values of the predictor's own scores, for `edgex vector train --labels`.

    An interrupted run resumes from its cache when the same command is given again.
    """
    from edgex.shapley import labelling

    card = labelling.make_labels(
        model,
        data,
        out,
        name=name,
        cache_dir=cache_dir,
        pairs=pairs,
        players=players,
        crops=crops,
        classes=classes,
        features=features,
        limit=limit,
        seed=seed,
        device=device,
        precision=precision,
        force=force,
        skip_bad=skip_bad,
        report=note,
    )
    if not _speaks():
        return
    if json:
        print_json({"path": str(out), **card.metrics})
        return
    say(f"{out}: labels of {card.metrics['views']} views of {card.metrics['pictures']} pictures by {model}")
    say(labelling.describe_reliability(card.metrics["split_half_cosine"]))


def train(
    model: Annotated[str, typer.Option(help="Predictor to learn from: a file or a zoo name.", autocompletion=models)],
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
    cache_dir: Annotated[Path | None, typer.Option(help=_CACHE)] = None,
    pairs: Annotated[int | None, typer.Option(help=f"{_PAIRS} Default: 24; 4 fresh ones a step.")] = None,
    players: Annotated[int | None, typer.Option(help=_PLAYERS)] = None,
    crops: Annotated[list[int] | None, typer.Option(help=f"{_CROPS} Default: 1.")] = None,
    classes: Annotated[int | None, typer.Option(help=f"{_CLASSES} Default: 3.")] = None,
    limit: Annotated[int | None, typer.Option(help=_LIMIT)] = None,
    learn: Annotated[
        str | None,
        typer.Option(
            help="readout (copies of attention weights for the heatmap alone; class scores stay) or weights; "
            "default: readout, or weights where a model can have none."
        ),
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(help="With --learn weights: how many of the last blocks to train. Default: 6.")
    ] = None,
    coalitions: Annotated[
        str,
        typer.Option(
            help="fresh (played at every step), kept (labels made before), or auto: fresh on a GPU or with --minutes."
        ),
    ] = "auto",
    minutes: Annotated[
        float | None, typer.Option(help="With fresh coalitions: time to train for. Default: 10.")
    ] = None,
    evidence_blocks: Annotated[
        int | None,
        typer.Option(help="How many of the last blocks the heatmap is made of. Default: 4; all with fresh coalitions."),
    ] = None,
    own_blocks: Annotated[
        int,
        typer.Option(
            help="With a readout: of how many last blocks the model's own contributions are added to its evidence."
        ),
    ] = 0,
    own_weight: Annotated[
        float | None, typer.Option(help="Factor of the model's own part relative to the readout. Default: 0.5.")
    ] = None,
    own_blur: Annotated[
        float | None,
        typer.Option(help="Share of the model's own part that is averaged over neighbouring patches. Default: 0."),
    ] = None,
    learn_mixture: Annotated[
        bool, typer.Option("--learn-mixture", help="Also learn the own part's weight and blur.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(help="Most training steps, the best is kept (600); with fresh coalitions all of them.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Pictures per step, over all processes. Default: 32; 256 with fresh coalitions.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate. Default: 1e-4; 4e-4 with fresh coalitions.")
    ] = None,
    explain_weight: Annotated[
        float | None, typer.Option(help="With kept labels: weight of the explanation term. Default: 1.")
    ] = None,
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
    dtype: Annotated[str, typer.Option(help="How the vector is stored: fp32, fp16 or int8.")] = "fp32",
    force: Annotated[
        bool, typer.Option(help="Overwrite existing files; write a vector that learned nothing, too.")
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help=_SKIP)] = False,
) -> None:
    """Learn a vector: the predictor's answers to parts of its own pictures supervise the heatmap.

    On a GPU coalitions of patches are played at every step; on a CPU pictures are labelled first. No human labels are
    needed. An interrupted run resumes from its label cache and its last checkpoint when the same command is given
    again. Several processes share the work: accelerate launch -m edgex vector train ...
    """
    from edgex.training import workflow

    found = workflow.learn_vector(
        model,
        out,
        data=data,
        supervision=supervision,
        labels=labels,
        masks=masks,
        model_out=model_out,
        name=name,
        source=source,
        cache_dir=cache_dir,
        pairs=pairs,
        players=players,
        crops=crops,
        classes=classes,
        limit=limit,
        learn=learn,
        blocks=blocks,
        coalitions=coalitions,
        minutes=minutes,
        evidence_blocks=evidence_blocks,
        own_blocks=own_blocks,
        own_weight=own_weight,
        own_blur=own_blur,
        learn_mixture=learn_mixture,
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
        dtype=dtype,
        force=force,
        skip_bad=skip_bad,
        report=note,
    )
    if _speaks():
        _print_learned(found)


def combine(
    vectors: Annotated[
        list[str], typer.Argument(help="Vectors: files or zoo names, of one base.", autocompletion=vectors)
    ],
    out: Annotated[Path, typer.Option(help="File to write the result to (.safetensors).")],
    weights: Annotated[
        list[float] | None, typer.Option("--weight", help="Factor of each vector, in their order; default: 1 each.")
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
    dtype: Annotated[str, typer.Option(help="How the result is stored: fp32, fp16 or int8.")] = "fp32",
    name: Annotated[str | None, typer.Option(help="Name of the result; default: the file's.")] = None,
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Scale, add, average, trim or merge vectors, or store one in fewer bits.

    The vectors must share architecture, base and the blocks that their heatmaps are made of.
    """
    refuse_to_overwrite(out, force=force)
    if scope is not None and keep is None:
        raise UsageError("the scope says where the kept share counts: add --keep, or leave it out", argument="scope")
    from edgex.files import zoo
    from edgex.runtime.file_names import name_of
    from edgex.vectors import arithmetic

    card = arithmetic.combine(
        [zoo.resolve(vector, "vector") for vector in vectors],
        out,
        name=name_of(out, name),
        weights=weights,
        options=arithmetic.CombineOptions(
            method=method,
            keep=keep,
            scope=scope or "tensor",
            block_alpha=arithmetic.parse_block_alpha(block_alpha) if block_alpha is not None else {},
        ),
        alpha=alpha,
        dtype=dtype,
    )
    lost = card.metrics["storage"]["relative_error"]
    if json:
        print_json({"path": str(out), "alpha": card.alpha, "scale": card.evidence.scale, "relative_error": lost})
        return
    say(f"{out}: vector '{card.name}' from {', '.join(vectors)}, {card.architecture}, alpha {card.alpha:g}")
    say(f"heatmap: {card.evidence}")
    say(f"stored as {dtype}: {out.stat().st_size / 1e6:.1f} MB, {100 * lost:.3g}% of the vector's length lost")


def info(
    vector: Annotated[str, typer.Argument(help="A vector: a file or a zoo name.", autocompletion=vectors)],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a vector is, what it was learned from and what was measured."""
    from edgex.cli.inspect import show
    from edgex.files import zoo
    from edgex.files.vector_file import load_vector_card

    path = zoo.resolve(vector, "vector")
    load_vector_card(path)
    show(path, as_json=json)


def _print_learned(found: LearnResult) -> None:
    card = found.card
    say(f"{found.path}: vector '{card.name}' from {card.source}, {card.architecture}")
    say(f"heatmap: {card.evidence}")
    best = card.metrics["best_step"]
    first, last = card.metrics["history"][0], next(r for r in card.metrics["history"] if r["step"] == best)
    say(f"held-out error: {first['held_out']:.4f} -> {last['held_out']:.4f} of the null (step {best})")
    for line in found.verdict.lines:
        say(line)
    say(f"next: edgex bake --target YOUR-MODEL --vector {found.path} --check YOUR-PICTURES")


def _speaks() -> bool:
    """Whether this process prints the result: of several that a launcher started, the first."""
    return os.environ.get("RANK", "0") == "0"
