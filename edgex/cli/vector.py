"""`edgex vector`: learn a vector from pictures, show what a vector is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgex.cli.console import note
from edgex.runtime.errors import UsageError


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(help="Learn and inspect explainability vectors.", no_args_is_help=True)
    group.command("train")(train)
    group.command("info")(info)
    app.add_typer(group, name="vector")


def train(
    model: Annotated[str, typer.Option(help="Predictor to learn from: a file or a zoo name.")],
    data: Annotated[list[Path], typer.Option(help="Folder of pictures of the source domain; may be repeated.")],
    out: Annotated[Path, typer.Option(help="File to write the vector to (.safetensors).")],
    model_out: Annotated[Path | None, typer.Option(help="Also write the self-explaining source model.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the vector; default: the file's.")] = None,
    source: Annotated[str | None, typer.Option(help="Name of the source domain; default: the first folder's.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for label caches and checkpoints.")] = None,
    pairs: Annotated[int, typer.Option(help="Paired coalitions per picture.")] = 24,
    side: Annotated[int, typer.Option(help="Superpixels per side.")] = 7,
    crops: Annotated[int, typer.Option(help="Views per picture: the centre crop, then random crops.")] = 1,
    classes: Annotated[int, typer.Option(help="Highest-scoring classes to label per picture.")] = 3,
    limit: Annotated[int | None, typer.Option(help="Use that many pictures per folder, evenly spread.")] = None,
    blocks: Annotated[int, typer.Option(help="How many of the last blocks to train.")] = 6,
    evidence_blocks: Annotated[int, typer.Option(help="Of how many last blocks the heatmap is made.")] = 4,
    steps: Annotated[int, typer.Option(help="Most training steps; the best on held-out pictures is kept.")] = 600,
    batch_size: Annotated[int, typer.Option(help="Pictures per step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-4,
    explain_weight: Annotated[float, typer.Option(help="Weight of the explanation term.")] = 1.0,
    class_weight: Annotated[float, typer.Option(help="Weight of the class term.")] = 2.0,
    class_loss: Annotated[str, typer.Option(help="hold (the predictor's own outputs) or labels.")] = "hold",
    alpha: Annotated[float, typer.Option(help="Recommended alpha to record in the vector.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<n>.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    half: Annotated[bool, typer.Option(help="Store the vector in half precision.")] = False,
    force: Annotated[bool, typer.Option(help="Overwrite existing files.")] = False,
) -> None:
    """Learn a vector: label pictures with the predictor itself, then train with and without explanations.

    No human labels are needed. Interrupted, it goes on from its label cache and its last checkpoint when the
    same command is given again.
    """
    for path in (out, model_out):
        if path is not None and path.exists() and not force:
            raise UsageError(f"{path} exists: choose another file, or --force to overwrite it")
    from edgex import vector_training, zoo
    from edgex.learn import LearnOptions
    from edgex.supervise import LabelOptions

    card = vector_training.train(
        zoo.resolve(model, "model"),
        data,
        out,
        name=name or out.name.removesuffix(".safetensors"),
        source=source or data[0].resolve().name,
        labels=LabelOptions(crops=crops, pairs=pairs, side=side, classes=classes, seed=seed),
        options=LearnOptions(
            blocks=blocks,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            explain_weight=explain_weight,
            class_weight=class_weight,
            class_loss=class_loss,
            seed=seed,
            device=device,
            precision=precision,
        ),
        evidence_blocks=evidence_blocks,
        alpha=alpha,
        work=work or out.with_name(out.name + ".work"),
        model_out=model_out,
        half=half,
        limit=limit,
        report=note,
    )
    print(f"{out}: vector '{card.name}' from {card.source}, {card.architecture}")
    print(f"heatmap: {card.evidence.kind}, last {card.evidence.blocks} blocks, scale {card.evidence.scale:.4f}")
    best = card.metrics["best_step"]
    first, last = card.metrics["history"][0], next(r for r in card.metrics["history"] if r["step"] == best)
    print(f"held-out error: {first['held_out']:.4f} -> {last['held_out']:.4f} of the null (step {best})")


def info(
    vector: Annotated[str, typer.Argument(help="A vector: a file or a zoo name.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a vector is, what it was learned from and what was measured."""
    from edgex import zoo
    from edgex.cli.inspect import show
    from edgex.vector import load_vector_card

    path = zoo.resolve(vector, "vector")
    load_vector_card(path)
    show(path, as_json=json)
