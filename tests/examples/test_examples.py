"""Each file of examples/ does what it says, on the built-in models."""

from __future__ import annotations

import base64
import csv
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from blocks import REPOSITORY, run_edgex

from edgex import samples

EXAMPLES = REPOSITORY / "examples"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in ImageNet model, exported."""
    out = tmp_path_factory.mktemp("model") / "imagenet-1k.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out.parent)
        (out.parent / "pictures").symlink_to(samples.FOLDER)
        run_edgex(["export", "imagenet-1k", "--onnx", "fp32", "--out", str(out)], patch)
    return out


def run(name: str, *arguments: object, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_listed_and_tested() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    here = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".ipynb"):
            assert f"({path.name})" in readme and f'"{path.name}"' in here


def test_camera_loop(model: Path, tmp_path: Path) -> None:
    """A video of a panda, made with FFmpeg: every frame is named, and the video with heatmaps has as many."""
    av = pytest.importorskip("av")
    from PIL import Image

    with Image.open(samples.FOLDER / "panda.jpg") as picture, av.open(str(tmp_path / "in.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = picture.size
        for _ in range(4):
            for packet in stream.encode(av.VideoFrame.from_image(picture)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    lines = run("camera_loop.py", model, tmp_path / "in.mp4", tmp_path / "out.mp4").splitlines()
    assert len(lines) == 4 and all(line.startswith("giant panda") for line in lines)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4
    with Image.open(samples.FOLDER / "panda.jpg") as picture:
        assert np.abs(frames[0].astype(float) - np.asarray(picture)).mean() > 3


def test_folder_to_csv(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("panda", "macaw"):
        (folder / f"{name}.jpg").symlink_to(samples.FOLDER / f"{name}.jpg")
    (folder / "broken.jpg").write_bytes(b"nothing")
    run("folder_to_csv.py", model, folder, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["picture"], row["label"]) for row in rows] == [("macaw.jpg", "macaw"), ("panda.jpg", "giant panda")]
    for row in rows:
        assert 0.7 < float(row["score"]) < 1
        assert 0 <= float(row["left"]) < float(row["right"]) <= 640 and float(row["top"]) < float(row["bottom"])


def test_why_not(model: Path, tmp_path: Path) -> None:
    """What it prints adds up: evidence for both and what needs no patch give the difference of the logits."""
    out = tmp_path / "why.png"
    lines = run("why_not.py", model, samples.FOLDER / "dog.jpg", "Malinois", out).splitlines()
    assert lines[0].startswith("German Shepherd Dog is ahead of Malinois by ")
    parts = [float(line.split()[0]) for line in lines[1:]]
    assert len(parts) == 3 and abs(sum(parts) - float(lines[0].split()[-2])) < 0.04
    assert out.stat().st_size > 10_000


@pytest.fixture
def server(model: Path) -> Iterator[str]:
    """The FastAPI example in a real uvicorn."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "fastapi_server:app", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=EXAMPLES, env={**os.environ, "EDGEX_MODEL": str(model)})
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/openapi.json", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_fastapi_server(server: str) -> None:
    """ "fastapi_server.py": JSON whose heatmap adds up, an overlay of the picture's size, status 422 for nonsense."""
    import io

    from PIL import Image

    from edgex.runtime import decode_heatmap

    picture = (samples.FOLDER / "komodo.jpg").read_bytes()
    answer = json.loads(_post(f"{server}/predict", picture))
    assert answer["label"] == "Komodo dragon"
    assert decode_heatmap(answer["heatmap"]).shape == (14, 14)
    assert len(base64.b64decode(answer["heatmap"]["float16"])) == 392
    other = json.loads(_post(f"{server}/predict?explain=green%20iguana", picture))
    assert other["explained"]["label"] == "green iguana" and other["label"] == "Komodo dragon"
    with Image.open(io.BytesIO(_post(f"{server}/overlay", picture))) as overlay:
        assert overlay.size == (640, 426)
    for path, body in (("/predict", b"nonsense"), ("/predict?explain=no%20such%20class", picture)):
        with pytest.raises(urllib.error.HTTPError, match="422") as caught:
            _post(server + path, body)
        caught.value.close()


def _post(url: str, body: bytes) -> bytes:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "image/jpeg"}, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


@pytest.mark.filterwarnings("default")
def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path / "zoo"))
    notebook = nbformat.read(EXAMPLES / "checkpoint_to_heatmap.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    assert (tmp_path / "mine.onnx").is_file()
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) == 1
