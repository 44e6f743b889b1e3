"""What the heatmap costs over the plain classifier, and what int8 gains, in the same runtime, paired.

    python benchmarks/export_overhead.py --out export_overhead.json [--models ...] [--rounds 30]

The plain classifier is the library's own model through torch.onnx with its defaults; its int8 is onnxruntime's
dynamic quantisation with its defaults. All files take turns within a round on one thread; times are the CPU time
of that thread, so that other work on the machine disturbs them little, and each file's ratio is the median over
rounds of its time over the plain classifier's in the same round.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from export_families import load, test_support
from torch import nn

from edgex.export.build import Recipe, build_graph
from edgex.export.int8 import Budget
from edgex.export.report import Stages

MODELS = ("timm/deit_tiny_patch16_224", "timm/vit_small_patch16_224", "timm/vit_base_patch16_224", "open_clip/ViT-B-32")


class PlainClip(nn.Module):
    """open_clip's image tower with a zero-shot head: what a user would export without edgex."""

    def __init__(self, tower: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.tower, self.head = tower, nn.Linear(width, classes, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 100 * self.head(nn.functional.normalize(self.tower(image), dim=-1))


def plain_classifier(name: str, width: int, classes: int) -> nn.Module:
    family, _, model = name.partition("/")
    if family == "timm":
        import timm

        return timm.create_model(model, num_classes=classes).eval()
    import open_clip

    return PlainClip(open_clip.create_model(model).visual, width, classes).eval()


def export_plain(name: str, model: Any, card: Any, folder: Path) -> dict[str, Path]:
    plain = plain_classifier(name, model.backbone.output_width, len(card.classes))
    image = torch.zeros(2, 3, *card.preprocessing.image_size)
    files = {"plain": folder / "plain.onnx", "plain dynamic int8": folder / "plain-int8.onnx"}
    torch.onnx.export(
        plain,
        (image,),
        files["plain"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    from onnxruntime.quantization import quantize_dynamic

    # The quantiser refuses the exporter's shape notes where it transposes the head.
    bare = onnx.load(files["plain"])
    del bare.graph.value_info[:]
    onnx.save(bare, folder / "bare.onnx")
    quantize_dynamic(folder / "bare.onnx", files["plain dynamic int8"])
    return files


def export_fused(model: Any, card: Any, pictures: np.ndarray, folder: Path) -> dict[str, Path]:
    free = Budget(math.inf, math.inf)
    recipes = {
        "fused": Recipe(),
        "fused, Attention of opset 23": Recipe(opset=23, attention="onnx"),
        "fused, MultiHeadAttention": Recipe(attention="fused"),
        "fused dynamic int8": Recipe("int8", int8_form="dynamic", budget=free),
        "fused static int8": Recipe("int8", int8_form="static", budget=free),
    }
    files = {}
    for index, (label, recipe) in enumerate(recipes.items()):
        files[label] = folder / f"fused-{index}.onnx"
        ir.save(build_graph(model, card, recipe, pictures[:2], Stages(None)).graph, files[label])
    return files


def compare(name: str, rounds: int, batches: tuple[int, ...]) -> list[dict[str, Any]]:
    model, card, weights = load(name)
    pictures = test_support()._natural_pictures(max(batches), card.preprocessing.image_size)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = export_plain(name, model, card, Path(folder)) | export_fused(model, card, pictures, Path(folder))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        sessions = {
            label: onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for label, path in files.items()
        }
        sizes = {label: path.stat().st_size for label, path in files.items()}
    rows = []
    for batch in batches:
        image, explain = pictures[:batch], np.full(batch, -1, dtype=np.int64)
        normalised = np.random.default_rng(0).normal(size=(batch, 3, *image.shape[1:3])).astype(np.float32)
        times: dict[str, list[float]] = {label: [] for label in sessions}
        for _ in range(rounds + 2):
            for label, session in sessions.items():
                inputs = [value.name for value in session.get_inputs()]
                feeds = dict(zip(inputs, [normalised] if len(inputs) == 1 else [image, explain], strict=True))
                start = time.thread_time()
                session.run(None, feeds)
                times[label].append(time.thread_time() - start)
        measured = {label: np.array(values[2:]) * 1e3 for label, values in times.items()}
        for label, values in measured.items():
            ratios = values / measured["plain"]
            rows.append(
                {
                    "model": name,
                    "weights": weights,
                    "batch": batch,
                    "file": label,
                    "cpu_ms_median": round(float(np.median(values)), 2),
                    "cpu_ms_min": round(float(values.min()), 2),
                    "ratio_to_plain": round(float(np.median(ratios)), 4),
                    "ratio_quartiles": [round(float(q), 4) for q in np.quantile(ratios, (0.25, 0.75))],
                    "ratio_to_plain_int8": round(float(np.median(values / measured["plain dynamic int8"])), 4),
                    "file_mb": round(sizes[label] / 1e6, 1),
                }
            )
            print(f"{name} batch {batch} {label:30} {rows[-1]['cpu_ms_median']:8.1f} ms  {rows[-1]['ratio_to_plain']}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("export_overhead.json"))
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    rows: list[dict[str, Any]] = []
    for name in arguments.models:
        rows += compare(name, arguments.rounds, tuple(arguments.batches))
        result = {"onnxruntime": onnxruntime.__version__, "torch": torch.__version__, "rows": rows}
        arguments.out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
