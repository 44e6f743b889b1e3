"""What an import takes from the files beside the weights: equal to the library's own pipeline, printed and recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_hub
import torch
from libraries import CLASSES, saved, shaken
from PIL import Image
from safetensors.torch import load_file
from transformers_models import rewrite

from edgex import samples
from edgex.errors import ArtefactError, MismatchError, UnsupportedError, UsageError
from edgex.files.model_file import load_model
from edgex.importers.workflow import ImportResult, import_weights
from edgex.models.self_explaining import normalise

OWN: dict[str, Any] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 0.875,
    "interpolation": "bilinear",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of timm as `save_for_hf` leaves it, with preprocessing other than its name's default."""
    return timm_folder(tmp_path / "timm")


def timm_folder(folder: Path, names: Any = CLASSES, *, size: tuple[int, int] = (160, 160), **cfg: Any) -> Path:
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(0)
    module = shaken(timm.create_model("test_vit", num_classes=len(CLASSES), img_size=size))
    module.pretrained_cfg = {**module.pretrained_cfg, **OWN, "input_size": (3, *size), **cfg}
    arguments: dict[str, Any] = {"label_names": names} if names else {}
    if size != (160, 160):
        arguments["model_args"] = {"img_size": size}
    save_for_hf(module, str(folder), model_config=arguments, safe_serialization=True)
    return folder


def picture() -> Image.Image:
    return Image.open(samples.paths()[0]).convert("RGB")


def scores(path: Path) -> torch.Tensor:
    """Probabilities of an imported model for a photograph, read as the device reads it."""
    network, card = load_model(path)
    pixels = torch.from_numpy(card.preprocessing.array(picture())[None])
    image = normalise(pixels, card.preprocessing.mean, card.preprocessing.std)
    return network(image).logits.softmax(-1)[0]


class TestTimm:
    @pytest.mark.parametrize("mode", ["center", "squash", "border"])
    @pytest.mark.parametrize("size", [(160, 160), (96, 176)])
    def test_scores_equal_timms_own_pipeline(self, tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
        import timm

        folder = timm_folder(tmp_path / "timm", size=size, crop_mode=mode)
        reference = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(reference))
        with torch.no_grad():
            expected = reference(transform(picture())[None]).softmax(-1)[0]
        result = import_weights(weights=folder / "model.safetensors", out=tmp_path / "m.safetensors")
        assert (scores(result.path) - expected).abs().max() < 1e-5
        defaults = import_weights(
            weights=saved(tmp_path / "alone.safetensors", dict(reference.state_dict())),
            arch="timm/test_vit",
            classes="a,b,c",
            image_size=size,
            out=tmp_path / "d.safetensors",
        )
        assert (scores(defaults.path) - expected).abs().max() > 1e-3, "the picture tells the two apart"

    @pytest.mark.parametrize(
        ("given", "resize"),
        [
            ({"fit": "pad"}, (160, 160)),
            ({"fit": "squash"}, (160, 160)),
            ({"fit": "crop"}, 182),
            ({"fit": "squash", "crop_pct": 0.8}, (200, 200)),
            ({"fit": "squash", "resize": 170}, (170, 170)),
            ({"fit": "crop", "resize": 170}, 170),
        ],
    )
    def test_a_fit_replaces_the_stated_one(
        self, folder: Path, tmp_path: Path, given: dict[str, Any], resize: Any
    ) -> None:
        result = import_weights(weights=folder / "model.safetensors", out=tmp_path / "m.safetensors", **given)
        assert load_model(result.path).card.preprocessing == result.card.preprocessing
        assert (result.card.preprocessing.fit, result.card.preprocessing.resize) == (given["fit"], resize)
        assert result.card.provenance[0]["taken_from"]["resize"] == "argument"

    @pytest.mark.parametrize("size", [(96, 176), (176, 96), 192])
    def test_another_size_is_timms_own_resampling(self, folder: Path, tmp_path: Path, size: Any) -> None:
        """Rows and columns alike; the class token's position stays."""
        import timm
        from timm.models.vision_transformer import checkpoint_filter_fn

        result = import_weights(weights=folder / "model.safetensors", out=tmp_path / "m.safetensors", image_size=size)
        network, card = load_model(result.path)
        reference: Any = timm.create_model("test_vit", num_classes=len(CLASSES), img_size=size).eval()
        reference.load_state_dict(checkpoint_filter_fn(load_file(folder / "model.safetensors"), reference))
        image = torch.randn(2, 3, *card.architecture.image_size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert (network(image).logits - reference(image)).abs().max() < 1e-5
        square = import_weights(weights=folder / "model.safetensors", out=tmp_path / "s.safetensors")
        assert card.base.fingerprint == square.card.base.fingerprint, "a vector of one size fits the other"

    def test_positions_of_no_square_are_named(self, tmp_path: Path) -> None:
        folder = timm_folder(tmp_path / "timm", size=(96, 176))
        with pytest.raises(MismatchError, match="'pos_embed' holds positions of 66 patches, which are no square"):
            import_weights(weights=folder / "model.safetensors", out=tmp_path / "m.safetensors", image_size=160)

    @pytest.mark.parametrize(
        ("size", "message"),
        [
            ((100, 448), "image size 100x448 is no multiple of .* 16x16: the nearest is 96x448 or 112x448"),
            (250, "the nearest is 240x240 or 256x256"),
            (7, "the nearest is 16x16"),
            ((0, 4), "expected an image size from 1 to .* pixels, found 0"),
            ((4, 4, 4), r"expected an image size of one whole number or of \(height, width\), found \(4, 4, 4\)"),
            ("256", "expected an image size of one whole number"),
        ],
    )
    def test_unusable_sizes_are_named(self, folder: Path, size: Any, message: str) -> None:
        with pytest.raises(UsageError, match=message) as caught:
            import_weights(weights=folder / "model.safetensors", image_size=size)
        assert caught.value.argument == "image_size"

    def test_a_fit_stands_in_for_a_stated_one_that_edgex_does_not_have(
        self, tmp_path: Path, run: Callable[..., str]
    ) -> None:
        folder = timm_folder(tmp_path / "timm", crop_mode="mirror")
        weights = str(folder / "model.safetensors")
        said = run("import", weights, "--fit", "pad", "--image-size", "96x176", "--out", "m.safetensors")
        assert "m.safetensors: timm/test_vit (96x176 px, token pooling)" in said
        assert load_model(tmp_path / "m.safetensors").card.preprocessing.fit == "pad"
        assert "fit pad, 96x176 px (bilinear), mean 0.485 0.456 0.406" in run("inspect", "m.safetensors")

    def test_everything_stated_is_taken_printed_and_recorded(self, folder: Path, tmp_path: Path) -> None:
        said: list[str] = []
        result = import_weights(
            weights=folder / "model.safetensors", out=tmp_path / "m.safetensors", report=said.append
        )
        assert str(result.card.architecture) == "timm/test_vit (160x160 px, token pooling)"
        assert result.card.classes == CLASSES
        assert result.card.preprocessing.resize == 182
        assert said == [
            "taken from config.json: arch, image_size, pooling, classes, mean, std, interpolation, resize",
        ]
        (step,) = result.card.provenance
        assert set(step["taken_from"].values()) == {"config.json"}
        assert [entry["role"] for entry in step["inputs"]] == ["weights", "configuration"]

    def test_the_command_needs_the_folder_alone_and_inspect_shows_what_was_taken(
        self, folder: Path, run: Callable[..., str]
    ) -> None:
        said = run("import", str(folder / "model.safetensors"), "--std", "0.4", "0.5", "0.6", "--name", "mine")
        assert "mine.safetensors: timm/test_vit (160x160 px, token pooling), 3 classes" in said
        assert "warning: std 0.4 0.5 0.6 as given replaces 0.229 0.224 0.225 of config.json" in said
        shown = run("inspect", "mine.safetensors")
        assert "short side 182 px (bilinear), centre crop 160x160, mean 0.485 0.456 0.406, std 0.4 0.5 0.6" in shown
        assert "settings: arch config.json, image_size config.json" in shown
        assert "std argument" in shown

    def test_files_of_the_hub_bring_their_configuration(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit = "0123456789abcdef0123456789abcdef01234567"
        files = {f"sub/{file.name}": file.read_bytes() for file in folder.iterdir()}
        with small_hub.serve() as hub:
            hub.publish(commit, files)
            small_hub.point_client(monkeypatch, tmp_path, hub.address)
            result = import_weights(weights="hf://org/repo/sub/model.safetensors", out=tmp_path / "m.safetensors")
        assert result.card.preprocessing.mean == OWN["mean"]
        names = [entry["hub"] for entry in result.card.provenance[0]["inputs"]]
        assert names == [f"hf://org/repo/sub/{name}@{commit}" for name in ("model.safetensors", "config.json")]

    def test_what_no_file_states_is_assumed_aloud(self, timm_vit: Any, tmp_path: Path) -> None:
        said: list[str] = []
        file = saved(tmp_path / "w.safetensors", timm_vit.state_dict())
        result = import_weights(
            "timm/test_vit", "a,b,c", file, out=tmp_path / "m.safetensors", mean=(0, 0, 0), report=said.append
        )
        assert said == [
            "assumed from the name timm/test_vit, since no file states it: std, interpolation, resize",
        ]
        assert result.card.provenance[0]["taken_from"]["mean"] == "argument"
        assert result.card.provenance[0]["taken_from"]["std"] == "assumed"

    def test_an_argument_replaces_a_statement_and_says_so(self, folder: Path, tmp_path: Path) -> None:
        said: list[str] = []
        result = import_weights(
            weights=folder / "model.safetensors",
            out=tmp_path / "m.safetensors",
            mean=(0.5, 0.5, 0.5),
            std=OWN["std"],
            interpolation="bicubic",
            crop_pct=1,
            report=said.append,
        )
        preprocessing = result.card.preprocessing
        assert (preprocessing.mean, preprocessing.resize, preprocessing.interpolation) == ((0.5,) * 3, 160, "bicubic")
        assert preprocessing.std == OWN["std"]
        assert said[1:] == [
            "warning: mean 0.5 0.5 0.5 as given replaces 0.485 0.456 0.406 of config.json",
            "warning: interpolation bicubic as given replaces bilinear of config.json",
            "warning: resize 160 as given replaces 182 of config.json",
        ]

    def test_another_image_size_keeps_the_share_of_the_crop(self, tmp_path: Path) -> None:
        import timm
        from timm.models import save_for_hf

        module = shaken(timm.create_model("test_vit", num_classes=3, img_size=192, global_pool="avg"))
        module.pretrained_cfg = {**module.pretrained_cfg, **OWN}
        save_for_hf(module, str(tmp_path / "t"), safe_serialization=True)
        result = import_weights(
            weights=tmp_path / "t" / "model.safetensors", classes="a,b,c", out=tmp_path / "m.safetensors"
        )
        assert str(result.card.architecture) == "timm/test_vit (192x192 px, avg pooling)"
        assert result.card.preprocessing.resize == 219

    @pytest.mark.parametrize(
        ("cfg", "message", "argument"),
        [
            (
                {"crop_mode": "mirror"},
                "config.json: edgex resizes the short side .* mode 'mirror'",
                {"resize": 160},
            ),
            ({"interpolation": "lanczos"}, "expected interpolation .* 'lanczos'", {"interpolation": "bicubic"}),
        ],
    )
    def test_what_edgex_cannot_do_is_refused_unless_an_argument_replaces_it(
        self, tmp_path: Path, cfg: dict[str, Any], message: str, argument: dict[str, Any]
    ) -> None:
        file = timm_folder(tmp_path / "timm", **cfg) / "model.safetensors"
        with pytest.raises(UnsupportedError, match=message):
            import_weights(weights=file, out=tmp_path / "m.safetensors")
        said: list[str] = []
        import_weights(weights=file, out=tmp_path / "m.safetensors", report=said.append, **argument)
        assert "as given replaces what config.json states" in said[-1]

    def test_a_changed_structure_is_taken_from_its_arguments(self, tmp_path: Path) -> None:
        import timm
        from timm.models import save_for_hf

        changed: dict[str, Any] = {
            "depth": 2,
            "patch_size": 8,
            "qkv_bias": False,
            "act_layer": "relu",
            "drop_rate": 0.1,
        }
        module = shaken(timm.create_model("test_vit", num_classes=3, img_size=64, **changed)).eval()
        save_for_hf(module, str(tmp_path / "t"), safe_serialization=True)
        rewrite(tmp_path / "t" / "config.json", model_args={"img_size": [64, 64], **changed})
        said: list[str] = []
        out = tmp_path / "m.safetensors"
        import_weights(weights=tmp_path / "t", classes="a,b,c", out=out, report=said.append)
        assert "timm/test_vit with act_layer=relu, depth=2, patch_size=8, qkv_bias=False" in said
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            assert torch.allclose(load_model(out).network(images).logits, module(images), atol=1e-5)

    def test_a_model_of_one_channel_is_taken_as_one(self, tmp_path: Path) -> None:
        import timm
        from timm.models import save_for_hf

        module = shaken(timm.create_model("test_vit", num_classes=3, img_size=64, in_chans=1)).eval()
        module.pretrained_cfg = {**module.pretrained_cfg, "input_size": (1, 64, 64), "mean": (0.3,), "std": (0.2,)}
        save_for_hf(module, str(tmp_path / "t"), safe_serialization=True)
        out = tmp_path / "m.safetensors"
        result = import_weights(weights=tmp_path / "t", classes="a,b,c", out=out)
        assert result.card.architecture.options == {"in_chans": 1}
        assert (result.card.preprocessing.mean, result.card.preprocessing.std) == ((0.3,) * 3, (0.2,) * 3)
        grey = torch.rand(2, 1, 64, 64)
        with torch.no_grad():
            found = load_model(out).network(grey.expand(-1, 3, -1, -1)).logits
            assert torch.allclose(found, module(grey), atol=1e-5)

    def test_arguments_of_another_architecture_than_the_given_one_are_left_out(
        self, folder: Path, tmp_path: Path
    ) -> None:
        rewrite(folder / "config.json", architecture="deit_tiny_patch16_224", model_args={"depth": 2})
        result = import_weights(arch="timm/test_vit", weights=folder, out=tmp_path / "m.safetensors")
        assert result.card.architecture.options == {}

    def test_a_structure_that_cannot_be_built_is_refused(self, folder: Path, tmp_path: Path) -> None:
        rewrite(folder / "config.json", model_args={"block_fn": "PostNorm"})
        with pytest.raises(UnsupportedError, match="was made with block_fn='PostNorm', which edgex cannot build"):
            import_weights(weights=folder / "model.safetensors", out=tmp_path / "m.safetensors")

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            ("cat,teapot,traffic light", "class 1 is 'teapot' here and 'traffic light' in config.json"),
            ("cat,traffic light", "expected the 3 classes of config.json, found 2"),
        ],
    )
    def test_classes_of_another_order_or_number_are_refused(
        self, folder: Path, tmp_path: Path, classes: str, message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            import_weights(classes=classes, weights=folder / "model.safetensors", out=tmp_path / "m.safetensors")
        import_weights(classes=",".join(CLASSES), weights=folder / "model.safetensors", out=tmp_path / "m.safetensors")

    def test_classes_can_be_renamed_with_a_warning(self, folder: Path, tmp_path: Path) -> None:
        said: list[str] = []
        names = (CLASSES[0], "Ampel", "Kanne")
        found = import_weights(
            classes=",".join(names),
            weights=folder / "model.safetensors",
            out=tmp_path / "m.safetensors",
            report=said.append,
        )
        assert found.card.classes == names
        assert said[-1] == f"warning: class name 'Ampel' as given replaces '{CLASSES[1]}' of config.json (and 1 more)"

    def test_the_classes_of_a_replaced_head_are_not_taken(
        self, folder: Path, tmp_path: Path, linear_head: Callable[[int], tuple[Path, Any]]
    ) -> None:
        result = import_weights(
            classes="a,b,c",
            weights=folder / "model.safetensors",
            head=linear_head(64)[0],
            out=tmp_path / "m.safetensors",
        )
        assert result.card.classes == ("a", "b", "c")

    def test_numbered_names_and_old_files_are_read(self, tmp_path: Path) -> None:
        file = timm_folder(tmp_path / "timm", names={"1": "b", "0": "a", "2": "c"}) / "config.json"
        old = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**old["pretrained_cfg"], **{k: old[k] for k in ("architecture", "label_names")}}))
        result = import_weights(weights=file.with_name("model.safetensors"), out=tmp_path / "m.safetensors")
        assert result.card.classes == ("a", "b", "c")
        assert result.card.preprocessing.mean == OWN["mean"]

    @pytest.mark.parametrize(
        "changes",
        [
            {"pretrained_cfg": 3},
            {"pretrained_cfg": {"mean": "grey"}},
            {"pretrained_cfg": {"mean": [1, 2]}},
            {"pretrained_cfg": {"std": [0, 0, 0]}},
            {"pretrained_cfg": {"crop_pct": -1}},
            {"model_args": {"img_size": ["a", "b"]}},
            {"label_names": {"0": "a", "5": "b"}},
            {"label_names": [1, 2, 3]},
            {"model_args": []},
            {"model_args": ["img_size"]},
            {"architecture": 7},
            {"global_pool": 7},
        ],
    )
    def test_mistyped_statements_are_one_line(self, folder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
        rewrite(folder / "config.json", **changes)
        if changes == {"model_args": []}:  # as good as none
            import_weights(weights=folder / "model.safetensors", out=tmp_path / "m.safetensors")
            return
        with pytest.raises((ArtefactError, UnsupportedError), match="config.json") as caught:
            import_weights(weights=folder / "model.safetensors", out=tmp_path / "m.safetensors")
        assert "\n" not in str(caught.value)

    def test_names_that_a_configuration_gives_twice_can_be_replaced(self, tmp_path: Path) -> None:
        file = timm_folder(tmp_path / "timm", names=["crane", "cow", "crane"]) / "model.safetensors"
        stated = import_weights(weights=file, out=tmp_path / "stated.safetensors").card
        assert stated.classes == ("crane", "cow", "crane"), "as ImageNet's, asked for by number"
        names = ("crane (bird)", "cow", "crane (machine)")
        assert import_weights(None, ",".join(names), file, out=tmp_path / "m.safetensors").card.classes == names

    def test_another_programs_file_is_passed_over(self, timm_vit: Any, tmp_path: Path) -> None:
        file = saved(tmp_path / "w.safetensors", timm_vit.state_dict())
        for content in ("[1]", '{"lr": 0.1}'):
            (tmp_path / "config.json").write_text(content)
            with pytest.raises(UsageError, match=r"no file beside w.safetensors states the architecture"):
                import_weights(weights=file, out=tmp_path / "m.safetensors")
            with pytest.raises(UsageError, match=r"no file beside w.safetensors states the classes"):
                import_weights("timm/test_vit", weights=file, out=tmp_path / "m.safetensors")

    @pytest.mark.parametrize(
        ("given", "message", "argument"),
        [
            ({"crop_pct": 1.5}, "expected a share from 0.01 to 1, found 1.5", "crop_pct"),
            ({"crop_pct": 0.9, "resize": 200}, "leave one of them out", "crop_pct"),
            ({"std": (1, 1, 0)}, "expected std above 0", "std"),
            ({"mean": (1, 2)}, "expected mean of 3 floats", "mean"),
            ({"interpolation": "area"}, "expected interpolation", "interpolation"),
            ({"resize": 0}, "at least 1 pixel", "resize"),
            ({"fit": "stretch"}, "expected a fit of crop, squash, pad, found 'stretch'", "fit"),
            ({"fit": "pad", "resize": 200}, "leave this out", "resize"),
            ({"fit": "pad", "crop_pct": 0.9}, "leave this out", "crop_pct"),
        ],
    )
    def test_unusable_arguments_are_named(
        self, folder: Path, given: dict[str, Any], message: str, argument: str
    ) -> None:
        with pytest.raises(UsageError, match=message) as caught:
            import_weights(weights=folder / "model.safetensors", **given)
        assert caught.value.argument == argument


def processor(folder: Path, **changes: Any) -> None:
    """transformers' preprocessor_config.json of a CLIP model of 64 pixels."""
    content = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 72},
        "do_center_crop": True,
        "crop_size": {"height": 64, "width": 64},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 0.00392156862745098,
        "do_normalize": True,
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.25, 0.3],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps({**content, **changes}), encoding="utf-8")


class TestTransformers:
    @pytest.fixture
    def clip_folder(self, tiny_clips: None, hf_config: Any, tmp_path: Path) -> Path:
        from transformers import CLIPVisionModelWithProjection

        torch.manual_seed(0)
        module = shaken(CLIPVisionModelWithProjection(hf_config.vision_config))
        module.save_pretrained(tmp_path / "hf")
        processor(tmp_path / "hf")
        return tmp_path / "hf"

    def import_(self, folder: Path, head: Path, **given: Any) -> Any:
        given = {"arch": "open_clip/tiny-quickgelu", "classes": "a,b,c", **given}
        return import_weights(weights=folder / "model.safetensors", head=head, out=folder / "m.safetensors", **given)

    def test_pixels_equal_transformers_own(
        self, clip_folder: Path, linear_head: Callable[[int], tuple[Path, Any]]
    ) -> None:
        from transformers import CLIPImageProcessorPil

        said: list[str] = []
        preprocessing = self.import_(clip_folder, linear_head(32)[0], report=said.append).card.preprocessing
        assert preprocessing.resize == 72
        assert said[0] == "taken from config.json: image_size"
        assert said[1] == "taken from preprocessor_config.json: mean, std, interpolation, resize"
        theirs = CLIPImageProcessorPil.from_pretrained(clip_folder)(picture(), return_tensors="pt")["pixel_values"]
        pixels = torch.from_numpy(preprocessing.array(picture())[None])
        ours = normalise(pixels, preprocessing.mean, preprocessing.std)
        assert (ours - theirs).abs().max() < 1e-4

    @pytest.mark.parametrize(
        ("changes", "resize"),
        [
            ({"size": 80}, 80),
            ({"size": {"height": 72, "width": 80}}, (72, 80)),
            ({"size": {"height": 64, "width": 64}, "do_center_crop": False}, (64, 64)),
            ({"size": 80, "image_processor_type": "DeiTImageProcessor"}, (80, 80)),
        ],
    )
    def test_every_way_to_state_a_size_is_followed(
        self, clip_folder: Path, linear_head: Callable[[int], tuple[Path, Any]], changes: dict[str, Any], resize: Any
    ) -> None:
        processor(clip_folder, **changes)
        assert self.import_(clip_folder, linear_head(32)[0]).card.preprocessing.resize == resize

    @pytest.mark.parametrize(
        ("changes", "mean", "std"),
        [
            ({"do_normalize": False}, 0.0, 1.0),
            ({"do_rescale": False}, 0.4 / 255, 0.2 / 255),
            ({"rescale_factor": 1 / 127.5}, 0.2, 0.1),
            ({"image_mean": 0.1, "image_std": [0.5]}, 0.1, 0.5),
        ],
    )
    def test_every_way_to_scale_pixels_is_followed(
        self,
        clip_folder: Path,
        linear_head: Callable[[int], tuple[Path, Any]],
        changes: dict[str, Any],
        mean: float,
        std: float,
    ) -> None:
        processor(clip_folder, **changes)
        preprocessing = self.import_(clip_folder, linear_head(32)[0]).card.preprocessing
        assert preprocessing.mean[0] == pytest.approx(mean, abs=1e-9)
        assert preprocessing.std[0] == pytest.approx(std, abs=1e-9)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"do_resize": False}, "found do_resize false"),
            ({"do_center_crop": False}, "found size .* without a centre crop"),
            ({"size": {"longest_edge": 72}}, "found size"),
            ({"do_center_crop": False, "size": {"height": 72, "width": 72}}, "crops to 72x72 pixels"),
            ({"do_pad": True}, "no step 'do_pad'"),
            ({"do_flip_channel_order": True}, "no step 'do_flip_channel_order'"),
            ({"resample": 0}, "expected interpolation bicubic or bilinear, found 'nearest'"),
            ({"crop_size": {"height": 96, "width": 96}}, "crops to 96x96 pixels, config.json says 64x64"),
            ({"crop_size": {"height": 64, "width": 32}}, "crops to 64x32 pixels, config.json says 64x64"),
        ],
    )
    def test_steps_that_edgex_does_not_have_are_refused(
        self,
        clip_folder: Path,
        linear_head: Callable[[int], tuple[Path, Any]],
        changes: dict[str, Any],
        message: str,
    ) -> None:
        processor(clip_folder, **changes)
        with pytest.raises(UnsupportedError, match=message):
            self.import_(clip_folder, linear_head(32)[0])

    @pytest.fixture
    def labelled_vit(self, tmp_path: Path) -> Callable[..., tuple[Any, Path]]:
        """`labelled_vit(problem_type=..., ...)` -> transformers' ViTForImageClassification, and its folder."""

        def make(**changes: Any) -> tuple[Any, Path]:
            from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

            sizes: dict[str, Any] = {
                "hidden_size": 64,
                "num_hidden_layers": 6,
                "num_attention_heads": 2,
                "intermediate_size": 192,
            }
            torch.manual_seed(0)
            reference = shaken(ViTForImageClassification(ViTConfig(image_size=160, **sizes, **changes)))
            reference.save_pretrained(tmp_path / "hf")
            ViTImageProcessorPil(size={"height": 160, "width": 160}, resample=2).save_pretrained(tmp_path / "hf")
            return reference, tmp_path / "hf"

        return make

    def import_vit(self, folder: Path, **options: Any) -> ImportResult:
        return import_weights("timm/test_vit", weights=folder, out=folder / "m.safetensors", **options)

    def test_several_labels_are_taken_from_the_problem_type(
        self, labelled_vit: Callable[..., tuple[Any, Path]]
    ) -> None:
        reference, folder = labelled_vit(problem_type="multi_label_classification", id2label=dict(enumerate(CLASSES)))
        said: list[str] = []
        card = self.import_vit(folder, report=said.append).card
        assert (card.classes, card.head_activation) == (CLASSES, "sigmoid")
        assert any(line.startswith("taken from config.json:") and "multi_label" in line for line in said)
        assert card.provenance[0]["taken_from"]["multi_label"] == "config.json"
        images = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = reference(images).logits
            found = load_model(folder / "m.safetensors").network(images)
        assert (found.logits - expected).abs().max() < 1e-4
        own = expected.max(dim=1).values
        assert (found.heatmap.sum(dim=(1, 2)) + found.base - own).abs().max() < 1e-3
        one = self.import_vit(folder, multi_label=False, force=True, report=said.append).card
        assert one.head_activation == "softmax" and one.provenance[0]["taken_from"]["multi_label"] == "argument"

    def test_a_regression_is_refused(self, labelled_vit: Callable[..., tuple[Any, Path]]) -> None:
        _, folder = labelled_vit(problem_type="regression", num_labels=1)
        with pytest.raises(UnsupportedError, match=r"config\.json: the model was trained for regression, so that"):
            self.import_vit(folder, classes="age")

    def test_a_problem_type_that_is_none(self, labelled_vit: Callable[..., tuple[Any, Path]]) -> None:
        _, folder = labelled_vit(num_labels=3)
        rewrite(folder / "config.json", problem_type="several")
        with pytest.raises(
            ArtefactError, match=r"problem_type: expected 'single_label_classification' or .* 'several'"
        ):
            self.import_vit(folder, classes="a,b,c")

    def test_one_label_of_its_vit_is_a_sigmoid(self, labelled_vit: Callable[..., tuple[Any, Path]]) -> None:
        _, folder = labelled_vit(num_labels=1)
        assert self.import_vit(folder, classes="defect").card.head_activation == "sigmoid"

    def test_scores_of_its_vit_equal_its_own_pipeline(self, tmp_path: Path) -> None:
        from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

        folder = tmp_path / "hf"
        config = ViTConfig(
            hidden_size=64,
            num_hidden_layers=6,
            num_attention_heads=2,
            intermediate_size=192,
            image_size=160,
            id2label=dict(enumerate(CLASSES)),
        )
        torch.manual_seed(0)
        reference = shaken(ViTForImageClassification(config))
        reference.save_pretrained(folder)
        process = ViTImageProcessorPil(size={"height": 160, "width": 160}, resample=2)
        process.save_pretrained(folder)
        file = folder / "model.safetensors"
        with torch.no_grad():
            expected = reference(**process(picture(), return_tensors="pt")).logits.softmax(-1)[0]
        for arch in (None, "timm/test_vit"):
            card = import_weights(arch, weights=file, out=tmp_path / "m.safetensors", force=True).card
            assert (scores(tmp_path / "m.safetensors") - expected).abs().max() < 1e-5
            assert (card.classes, card.preprocessing.resize) == (CLASSES, (160, 160))
        rewrite(folder / "config.json", num_attention_heads=4)
        with pytest.raises(MismatchError, match="says num_attention_heads 4, timm/test_vit has 2"):
            import_weights("timm/test_vit", weights=file)

    def test_the_architecture_of_its_vit_follows_from_its_shape(self, tmp_path: Path) -> None:
        from transformers import ViTConfig, ViTForImageClassification

        config = ViTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=768)
        torch.manual_seed(0)
        ViTForImageClassification(config).save_pretrained(tmp_path)
        file = tmp_path / "model.safetensors"
        with pytest.raises(UsageError, match=r"no file beside model.safetensors states the classes"):
            import_weights(weights=file)  # LABEL_0 and LABEL_1 are no names
        card = import_weights(classes="a,b", weights=file, out=tmp_path / "m.safetensors").card
        assert card.architecture.name == "timm/vit_tiny_patch16_224"

    @pytest.mark.parametrize("name", ["SwinForImageClassification", "BertModel"])
    def test_other_models_are_named(self, clip_folder: Path, name: str) -> None:
        rewrite(clip_folder / "config.json", architectures=[name])
        index = clip_folder / "other.safetensors.index.json"
        for weights in (clip_folder / "model.safetensors", clip_folder, index):
            index.write_text('{"weight_map": {"w": "model.safetensors"}}', encoding="utf-8")
            with pytest.raises(UnsupportedError, match=rf"{name} \(transformers\) .*; nearest: "):
                import_weights("timm/test_vit", "a,b", weights, out=clip_folder / "m.safetensors")


class TestOpenClip:
    def test_its_configuration_is_read(self, clip: Any, tmp_path: Path) -> None:
        import open_clip

        file = saved(tmp_path / "open_clip_model.safetensors", clip.state_dict())
        content = {
            "model_cfg": open_clip.get_model_config("tiny-token"),
            "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear"},
        }
        (tmp_path / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
        card = import_weights(classes="cat,dog", weights=file, out=tmp_path / "m.safetensors").card
        assert card.architecture.name == "open_clip/tiny-token"
        assert card.preprocessing.mean == (0.1, 0.2, 0.3)
        assert card.preprocessing.interpolation == "bilinear"
        assert card.preprocessing.resize == 64
        rewrite(tmp_path / "open_clip_config.json", preprocess_cfg={"resize_mode": "longest"})
        with pytest.raises(UnsupportedError, match="open_clip_config.json: .* found mode 'longest'"):
            import_weights(classes="cat,dog", weights=file, out=tmp_path / "m2.safetensors")
