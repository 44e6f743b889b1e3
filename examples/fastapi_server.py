"""A picture over HTTP -> its classes and heatmap as JSON, or the overlay as a JPEG.

EDGEX_MODEL=cars.onnx uvicorn fastapi_server:app
curl --data-binary @photo.jpg http://127.0.0.1:8000/predict
curl --data-binary @photo.jpg http://127.0.0.1:8000/overlay --output overlay.jpg
"""

import io
import os
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Response
from PIL import Image

from edgex.runtime import EdgexError, Result, Session

app = FastAPI()
session = Session(os.environ["EDGEX_MODEL"])
Picture = Annotated[bytes, Body(media_type="image/jpeg")]


def run(body: bytes, explain: str | None) -> tuple[Image.Image, Result]:
    """Decodes and runs one picture; what the caller sent wrong becomes status 422."""
    try:
        image = Image.open(io.BytesIO(body))
        return image, session(image, explain=explain)
    except (EdgexError, OSError, Image.DecompressionBombError) as error:
        raise HTTPException(422, str(error)) from None


# Plain functions, not coroutines: FastAPI calls them in threads, and a session may be shared between threads.
@app.post("/predict")
def predict(body: Picture, explain: str | None = None) -> dict[str, Any]:
    """Classes, probabilities and the heatmap (float16, base64; `edgex.runtime.decode_heatmap` reads it)."""
    return run(body, explain)[1].to_dict()


@app.post("/overlay", response_class=Response)
def overlay(body: Picture, explain: str | None = None) -> Response:
    """The picture with the heatmap drawn over it."""
    image, result = run(body, explain)
    encoded = io.BytesIO()
    Image.fromarray(result.overlay(image)).save(encoded, "JPEG", quality=90)
    return Response(encoded.getvalue(), media_type="image/jpeg")
