"""The addresses of the server, their documentation, and errors as JSON. What all requests pass before is in `gate`."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse
from swagger_ui_bundle import swagger_ui_path

from edgex._version import __version__
from edgex.errors import EdgexError
from edgex.serving import metrics as counts
from edgex.serving.bodies import FORM, uploads_of
from edgex.serving.gate import PROBLEM, Slots
from edgex.serving.limits import Limits
from edgex.serving.question import Question
from edgex.serving.refusals import RefusedError, refusal_of
from edgex.serving.service import MEDIA_TYPES, Service

JSON = "application/json"
_BINARY = {"type": "string", "format": "binary"}
_STATUSES = {
    400: "The body is empty or malformed.",
    401: "The token is missing or wrong.",
    408: "The request took too long to arrive.",
    413: "The body is too large, or holds too many pictures.",
    415: "The body is of a type that holds no pictures.",
    422: "The picture cannot be decoded, or a parameter is wrong, such as an unknown class.",
    503: "There is too much to do, or the server is stopping; Retry-After says how many seconds to wait.",
}
_ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js")


def create_application(
    service: Service,
    metrics: counts.Metrics,
    limits: Limits,
    slots: Slots,
    ready: Callable[[], bool],
    example: dict[str, Any],
) -> FastAPI:
    """ready: whether new requests are taken. example: a true answer of the model, for the documentation."""
    app = FastAPI(
        title="edgex",
        version=__version__,
        description=f"Classes and heatmaps of pictures, from `{service.session.path.name}`.",
        docs_url=None,
        redoc_url=None,
        # What the page of the documentation, which needs no network, can show.
        openapi_url="/openapi.json",
    )
    app.openapi_version = "3.0.2"
    _add_errors(app)
    _add_predictions(app, service, limits, slots, example)
    _add_state(app, service, metrics, ready)
    _add_documentation(app)
    return app


def _add_predictions(app: FastAPI, service: Service, limits: Limits, slots: Slots, example: dict[str, Any]) -> None:
    pictures = {kind: {"schema": _BINARY} for kind in MEDIA_TYPES.values()}
    one = {**pictures, FORM: {"schema": {"type": "object", "properties": {"file": _BINARY}}}}
    files = {"type": "object", "properties": {"files": {"type": "array", "items": _BINARY}}}

    @app.post(
        "/v1/predict",
        tags=["pictures"],
        summary="Classify a picture and explain one class",
        responses=_responses({JSON: {"schema": {"type": "object"}, "example": example}, **pictures}),
        openapi_extra=_body(one),
    )
    async def predict(request: Request, question: Annotated[Question, Query()]) -> Response:
        """The body is a picture (JPEG, PNG, ...), or a form with one file.

        The answer is JSON; with the header `Accept: image/png` or `image/jpeg` it is the picture with the heatmap
        drawn over it. In JSON the heatmap is base64 of float16, in logits per patch: `edgex.runtime.decode_heatmap`
        reads it.
        """
        uploads = await uploads_of(request.headers, await request.body(), limits)
        if len(uploads) > 1:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, f"expected one picture, found {len(uploads)}; /v1/batch takes several"
            )
        kind = _wanted(request.headers.get("accept", ""))
        if kind is None:
            return Response(await service.answer(uploads[0], question), media_type=JSON)
        return Response(await service.overlay(uploads[0], question, kind), media_type=MEDIA_TYPES[kind])

    @app.post(
        "/v1/batch",
        tags=["pictures"],
        summary="Classify several pictures",
        responses=_responses({JSON: {"schema": {"type": "object"}, "example": {"results": [example]}}}),
        openapi_extra=_body({FORM: {"schema": files}}),
    )
    async def batch(request: Request, question: Annotated[Question, Query()]) -> Response:
        """The body is a form with a file for each picture; the answers come in their order.

        For a picture that cannot be decoded, `{"error": ...}` stands in its place.
        """
        uploads = await uploads_of(request.headers, await request.body(), limits)
        async with slots.take(len(uploads) - 1):
            return Response(await service.answers(uploads, question), media_type=JSON)


def _add_state(app: FastAPI, service: Service, metrics: counts.Metrics, ready: Callable[[], bool]) -> None:
    session = service.session
    state: list[str | Enum] = ["state"]

    @app.get("/v1/model", tags=state, summary="What is served")
    async def model() -> dict[str, Any]:
        """Classes in the order of their positions, input size, and which file it is."""
        return {
            "file": session.path.name,
            "file_sha256": session.metadata.file_sha256,
            "edgex_version": __version__,
            "provider": session.provider,
            "image_size": list(session.preprocessing.image_size),
            "grid": list(session.metadata.grid),
            "max_batch": session.metadata.max_batch,
            "classes": list(session.classes),
        }

    @app.get("/healthz", tags=state, summary="Whether the process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        tags=state,
        summary="Whether new requests are taken",
        responses={503: {"description": "They are not."}},
    )
    async def readyz() -> dict[str, str]:
        if not ready():
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the server is being stopped")
        return {"status": "ready"}

    @app.get("/metrics", tags=state, summary="Counts for Prometheus", response_class=Response)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=counts.CONTENT_TYPE)


def _add_documentation(app: FastAPI) -> None:
    """The page of Swagger UI, from this machine. Its addresses are relative, for servers behind a path of a proxy."""

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("docs")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        css, script = (f"docs/{name}" for name in _ASSETS)
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="edgex",
            swagger_js_url=script,
            swagger_css_url=css,
            swagger_favicon_url="data:,",
        )

    @app.get("/docs/{name}", include_in_schema=False)
    async def asset(name: str) -> FileResponse:
        if name not in _ASSETS:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return FileResponse(swagger_ui_path / name)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        words = {
            HTTPStatus.NOT_FOUND: "there is nothing at this address; /docs lists those that there are",
            HTTPStatus.METHOD_NOT_ALLOWED: f"this address does not take {request.method}",
        }
        status = HTTPStatus(error.status_code)
        return _refusal(request, RefusedError(status, words.get(status, status.phrase), dict(error.headers or {})))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = str(first["loc"][-1])[:100]
        words = f"{name}: expected a parameter of this address, found another"
        if first["type"] != "extra_forbidden":
            words = f"{name}: {first['msg']}, found {str(first['input'])[:100]!r}"
        return _refusal(request, RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, words))

    @app.exception_handler(RefusedError)
    @app.exception_handler(EdgexError)
    @app.exception_handler(Exception)
    async def refused(request: Request, error: Exception) -> Response:
        return _refusal(request, refusal_of(error))


def _refusal(request: Request, refusal: RefusedError) -> Response:
    request.scope[PROBLEM] = refusal
    return Response(refusal.body, int(refusal.status), refusal.headers, JSON)


def _wanted(accept: str) -> str | None:
    """The kind of picture that is accepted before JSON, if any."""
    for entry in accept.split(","):
        kind = entry.partition(";")[0].strip().lower()
        if kind in (JSON, "*/*"):
            return None
        for name, media_type in MEDIA_TYPES.items():
            if kind in (media_type, "image/*"):
                return name
    return None


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


def _responses(content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    errors: dict[int | str, dict[str, Any]] = {
        status: {"description": words, "content": {JSON: {"example": {"error": words}}}}
        for status, words in _STATUSES.items()
    }
    return {200: {"description": "The answer.", "content": content}, **errors}
