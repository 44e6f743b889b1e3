from __future__ import annotations

import base64
import io
import json
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgex import samples
from edgex.runtime import Session, decode_heatmap
from edgex.runtime.drawing.options import Drawing
from edgex.runtime.frames import decode_picture

Client = Any
JPEG = {"Content-Type": "image/jpeg"}


def session_says(session: Session, data: bytes, explain: Any = None, top: int = 5) -> str:
    return session(decode_picture(data, "the picture"), explain=explain).to_json(top)


def test_a_picture_is_answered_as_by_the_session(client: Client, session: Session, pictures: list[bytes]) -> None:
    """Byte for byte; whatever content type says that it is a picture, or nothing at all."""
    for data, kind in zip(pictures, ("image/png", "image/jpeg", "application/octet-stream", None), strict=False):
        found = client.post("/v1/predict", content=data, headers={"Content-Type": kind} if kind else {})
        assert (found.status_code, found.text) == (200, session_says(session, data))
        assert found.headers["Content-Type"] == "application/json"
    form = client.post("/v1/predict", files={"file": ("a.png", pictures[0], "image/png")})
    assert form.text == session_says(session, pictures[0])
    assert decode_heatmap(form.json()["heatmap"]).shape == (2, 3)


def test_requests_at_once_are_answered_as_by_the_session(
    client: Client, session: Session, pictures: list[bytes], hold: Callable[[], Any], same: Callable[..., None]
) -> None:
    """Their pictures share batches, each with a class of its own."""
    questions = [(data, explain) for data in pictures for explain in (None, "green thing", "3")]
    wanted = [json.loads(session_says(session, *question)) for question in questions]
    held = hold()

    def ask(question: tuple[bytes, str | None]) -> Any:
        data, explain = question
        found = client.post("/v1/predict", content=data, params={} if explain is None else {"explain": explain})
        assert found.status_code == 200, found.text
        return found.json()

    with ThreadPoolExecutor(len(questions)) as pool:
        futures = [pool.submit(ask, question) for question in questions]
        held.entered.acquire()
        while held.batches[0] + client.server._service.batcher.waiting < len(questions):
            time.sleep(0.01)
        held.released.set()
        for future, answer in zip(futures, wanted, strict=True):
            same(future.result(30), answer)
    assert max(held.batches) == 4 and sum(held.batches) == len(questions)


def test_why_not(client: Client, session: Session, pictures: list[bytes]) -> None:
    found = client.post("/v1/predict", content=pictures[0], params={"explain": "blue thing", "top": 2})
    assert found.text == session_says(session, pictures[0], "blue thing", 2)
    assert found.json()["explained"]["label"] == "blue thing" and len(found.json()["top"]) == 2


def test_boxes_and_overlay(client: Client, session: Session, pictures: list[bytes]) -> None:
    result = session(decode_picture(pictures[0], "the picture"), explain=0)
    drawn = result.overlay(decode_picture(pictures[0], "the picture"), "viridis", style="contour")
    asked = {"explain": 0, "boxes": "true", "overlay": "png", "style": "contour", "colormap": "viridis"}
    found = client.post("/v1/predict", content=pictures[0], params=asked).json()
    overlay = found.pop("overlay")
    assert found.pop("boxes") == [box._asdict() for box in result.boxes()] != []
    assert found == result.to_dict()
    assert overlay["type"] == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(overlay["base64"])))), drawn)
    del asked["overlay"]
    png = client.post("/v1/predict", content=pictures[0], params=asked, headers={"Accept": "image/png"})
    assert png.headers["Content-Type"] == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png.content))), drawn)
    jpeg = client.post("/v1/predict", content=pictures[0], headers={"Accept": "image/jpeg;q=0.9, */*"})
    assert Image.open(io.BytesIO(jpeg.content)).format == "JPEG"
    assert client.post("/v1/predict", content=pictures[0], headers={"Accept": "text/html, */*"}).json()["label"]


def test_a_batch(client: Client, session: Session, pictures: list[bytes], same: Callable[..., None]) -> None:
    """Answers in the order of the files; one that cannot be decoded has an error in its place."""
    files = [("files", (f"{index}.png", data, "image/png")) for index, data in enumerate(pictures)]
    files.insert(2, ("files", ("broken.jpg", b"no picture", "image/jpeg")))
    found = client.post("/v1/batch", files=files, params={"explain": 1}).json()["results"]
    error = found.pop(2)["error"]
    assert error.startswith("broken.jpg: expected a picture (JPEG, ")
    for answer, data in zip(found, pictures, strict=True):
        same(answer, json.loads(session_says(session, data, 1)))


def problem(answer: Any, status: int) -> str:
    """The one line of an error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert list(answer.json()) == ["error"]
    message = str(answer.json()["error"])
    assert message and "\n" not in message
    return message


def test_errors_of_bodies(serve: Callable[..., Client], pictures: list[bytes]) -> None:
    client = serve(max_pictures=3)
    post = client.post
    assert "empty" in problem(post("/v1/predict", content=b""), 400)
    assert "empty" in problem(post("/v1/batch", files={"files": ("a.png", b"")}), 400)
    assert "field without" in problem(post("/v1/predict", files={"a": (None, "text")}), 400)
    for header in ("multipart/form-data", "multipart/form-data; boundary=b"):
        message = problem(post("/v1/batch", content=b"nonsense", headers={"Content-Type": header}), 400)
        assert message.startswith("expected a well-formed multipart/form-data, found: ")
    two = [("files", (f"{index}", data)) for index, data in enumerate(pictures[:2])]
    assert "/v1/batch takes several" in problem(post("/v1/predict", files=two), 400)
    for kind in ("application/json", "text/plain", "video/mp4"):
        message = problem(post("/v1/predict", content=pictures[0], headers={"Content-Type": kind}), 415)
        assert message.endswith(f"found {kind}")
    for count in (4, 5):
        many = [("files", (f"{index}", data)) for index, data in enumerate(pictures[:count])]
        assert "at most 3 pictures" in problem(post("/v1/batch", files=many), 413)
    assert "expected a picture (JPEG" in problem(post("/v1/predict", content=b"nonsense"), 422)
    assert "cannot be decoded" in problem(post("/v1/predict", content=pictures[1][:-500], headers=JPEG), 422)


def test_pictures_of_too_many_pixels(client: Client) -> None:
    """A PNG of 5 kB that claims 400 million."""
    stream = io.BytesIO()
    Image.new("1", (20, 20)).save(stream, "PNG")
    bomb = bytearray(stream.getvalue())
    bomb[16:24] = (20_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    assert "expected at most 178956970 pixels" in problem(client.post("/v1/predict", content=bytes(bomb)), 422)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"explain": "grey thing"}, "explain: expected one of the model's 4 classes, found 'grey thing'; did you mean"),
        ({"explain": "9"}, "explain: expected a class from 0 to 3, found 9"),
        ({"top": "0"}, "top: Input should be greater than or equal to 1, found '0'"),
        ({"top": "many"}, "top: "),
        ({"overlay": "gif"}, "overlay: Input should be 'png' or 'jpeg', found 'gif'"),
        ({"overlay": "png", "style": "glitter"}, "glitter"),
        ({"scale": "0.5"}, "scale: expected picture, calibrated or fixed:VALUE with a value above 0, found '0.5'"),
        ({"overlay": "png", "colormap": "glitter"}, "glitter"),
        ({"explian": "red thing"}, "explian: expected a parameter of this address, found another"),
    ],
)
def test_errors_of_questions(client: Client, pictures: list[bytes], parameters: dict[str, str], words: str) -> None:
    assert words in problem(client.post("/v1/predict", content=pictures[0], params=parameters), 422)


def test_errors_of_addresses(client: Client) -> None:
    assert "nothing at this address" in problem(client.get("/v2"), 404)
    assert "nothing at this address" in problem(client.get("/docs/../server.py"), 404)
    assert "does not take GET" in problem(client.get("/v1/predict"), 405)
    assert problem(client.put("/v1/predict", content=b"x"), 405)


def test_failures_of_the_model(
    client: Client, session: Session, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the runtime says is 503 and one line; a bug is 500 and one line. The server goes on."""
    from edgex.errors import ProviderError

    for error, status in ((ProviderError("the GPU is gone\nfar away"), 503), (ZeroDivisionError("a bug"), 500)):
        with monkeypatch.context() as patch:
            patch.setattr(session, "classify", lambda *_, error=error: (_ for _ in ()).throw(error))
            assert str(error).splitlines()[0] in problem(client.post("/v1/predict", content=pictures[0]), status)
    assert client.post("/v1/predict", content=pictures[0]).status_code == 200
    assert [line.split()[3] for line in client.log] == ["503", "500", "200"]
    assert client.log[0].endswith("ms: the model cannot be run: the GPU is gone")
    assert client.log[1].endswith("ms: ZeroDivisionError: a bug")


def test_failures_are_reported_where_requests_are_not(
    serve: Callable[..., Client], session: Session, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgex.errors import ProviderError

    failures: list[str] = []
    client = serve(log_requests=False, report_failure=failures.append)
    monkeypatch.setattr(session, "classify", lambda *_: (_ for _ in ()).throw(ProviderError("the GPU is gone")))
    problem(client.post("/v1/predict", content=b"no picture"), 422)
    problem(client.post("/v1/predict", content=pictures[0]), 503)
    end = time.monotonic() + 10
    while not failures and time.monotonic() < end:
        time.sleep(0.01)
    assert client.log == [] and len(failures) == 1
    assert failures[0].endswith("ms: the model cannot be run: the GPU is gone")


def test_scale_and_legend_are_those_of_the_command_line(
    client: Client, session: Session, pictures: list[bytes]
) -> None:
    picture = np.asarray(Image.open(io.BytesIO(pictures[0])).convert("RGB"))
    asked = {"scale": "fixed:0.5", "caption": "true"}
    png = client.post("/v1/predict", content=pictures[0], params=asked, headers={"Accept": "image/png"})
    drawn = Drawing(scale=0.5).captioned(session(picture), picture)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png.content))), drawn)


def test_the_model_is_described(client: Client, session: Session) -> None:
    found = client.get("/v1/model").json()
    assert found["classes"] == list(session.classes) and found["file"] == "colours.onnx"
    assert found["file_sha256"] == session.metadata.file_sha256 and found["image_size"] == [32, 48]


def test_health_and_metrics(client: Client, pictures: list[bytes]) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    client.post("/v1/predict", content=pictures[0])
    client.post("/v1/predict", content=b"nonsense")
    client.post("/v1/batch", files=[("f", (f"{index}", data)) for index, data in enumerate(pictures)])
    client.get("/nowhere/at/all")
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    from prometheus_client.parser import text_string_to_metric_families

    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert values["edgex_requests_total", "/v1/predict", "200"] == 1
    assert values["edgex_requests_total", "/v1/predict", "422"] == 1
    assert values["edgex_requests_total", "/v1/batch", "200"] == 1
    assert values["edgex_requests_total", "404", "other"] == 1
    assert values["edgex_request_seconds_count", "/v1/predict"] == 2
    assert values["edgex_batch_pictures_sum",] == 1 + len(pictures)
    assert values["edgex_pending_pictures",] == values["edgex_waiting_pictures",] == 0


def test_the_documentation_shows_true_answers(client: Client, session: Session) -> None:
    """Its example is what the model says of a sample picture; its page needs no other server."""
    described = client.get("/openapi.json").json()
    assert {"/v1/predict", "/v1/batch", "/v1/model", "/healthz", "/readyz", "/metrics"} == set(described["paths"])
    operation = described["paths"]["/v1/predict"]["post"]
    example = operation["responses"]["200"]["content"]["application/json"]["example"]
    assert example == session(samples.paths()[0]).to_dict(3)
    assert set(operation["requestBody"]["content"]) == {"image/png", "image/jpeg", "multipart/form-data"}
    assert {"400", "401", "408", "413", "415", "422", "503"} <= set(operation["responses"])
    assert "HTTPValidationError" not in json.dumps(described)
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert {"explain", "top", "boxes", "overlay", "style", "colormap", "scale", "legend"} <= names
    page = client.get("/", follow_redirects=True)
    assert str(page.url).endswith("/docs") and "https://" not in page.text
    for name in ("swagger-ui.css", "swagger-ui-bundle.js"):
        assert f"docs/{name}" in page.text
        assert client.get(f"/docs/{name}").status_code == 200
