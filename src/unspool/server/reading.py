"""The reading page: a text of any length, a question, and the answer with its evidence marked."""

import tempfile
from collections.abc import Callable, Generator
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile

from unspool.backends.stream import Cancelled
from unspool.errors import UnspoolError
from unspool.reading.ask import ask
from unspool.server import markup
from unspool.server.chat import client_of
from unspool.server.events import while_connected
from unspool.server.failures import ServiceError, as_service_error
from unspool.server.pages import page
from unspool.server.service import service_of
from unspool.types import Answer, LanguageModel

router = APIRouter(include_in_schema=False)

_SUFFIXES = (".txt", ".md", ".html", ".htm", ".jsonl")
_MAX_TOKENS = 128


@router.get("/read")
async def form(request: Request) -> Response:
    """An empty form."""
    if service_of(request).model is None:
        problem = "No model is served here. Start the service with --model to ask questions."
        return page(request, "wrong.html", 404, problem=problem)
    return page(request, "read.html", page="read", text="", question="")


@router.post("/read")
async def read(request: Request) -> Response:
    """The answer to a question about a text."""
    service = service_of(request)
    async with request.form(max_part_size=service.settings.max_upload) as given:
        question = str(given.get("question") or "").strip()
        text, file = str(given.get("text") or "").replace("\r\n", "\n"), given.get("file")
        uploaded = isinstance(file, UploadFile) and bool(file.filename)
        given_name = file.filename or "" if isinstance(file, UploadFile) else ""
        data = await file.read() if isinstance(file, UploadFile) and uploaded else text.encode()
    part = request.headers.get("hx-request") == "true"
    template = "answer.html" if part else "read.html"
    values: dict[str, Any] = {"page": "read", "question": question, "text": ""}
    try:
        model = service.model
        if model is None:
            raise ServiceError(404, "model_not_found", "No model is served here.")
        if not question:
            raise ServiceError(400, "bad_input", "The question is empty.")
        name = _safe_name(given_name) if uploaded else "text.txt"
        if not part:
            values["text"] = text
        if not data.strip():
            raise ServiceError(400, "bad_input", "There is no text. Paste one, or drop a file.")

        def produce(cancelled: Callable[[], bool]) -> Generator[Any, None, None]:
            yield _answer(model, name, data, question, cancelled)

        async def collect() -> list[Any]:
            return [each async for each in service.writer.pieces(client_of(request), produce)]

        (answer,) = await while_connected(request, collect())
        values |= answer
    except (ServiceError, UnspoolError) as error:
        known = as_service_error(error)
        assert known is not None
        return page(request, template, known.status, **{**values, "problem": str(known)})
    return page(request, template, **values)


def _safe_name(given: str) -> str:
    """A name for the file on this machine: its ending decides how it is read, nothing else."""
    suffix = PurePosixPath(given.replace("\\", "/")).suffix.lower()
    if suffix not in _SUFFIXES:
        raise ServiceError(
            400,
            "bad_input",
            f"Files ending in {', '.join(_SUFFIXES)} can be read, not {given[-40:]!r}.",
        )
    return f"text{suffix}"


def _answer(
    model: LanguageModel, name: str, data: bytes, question: str, cancelled: Callable[[], bool]
) -> dict[str, Any]:
    """Runs in the thread of the model."""

    def progress(stage: str, done: int | float, total: int | float | None) -> None:
        if cancelled():
            raise Cancelled("The answer is no longer wanted.")

    with tempfile.TemporaryDirectory(prefix="unspool-read-") as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        most = _MAX_TOKENS if model.window is None else min(_MAX_TOKENS, model.window // 4)
        found = ask([path], question, model=model, max_tokens=max(1, most), progress=progress)
    values = shown_answer(found, name, data)
    return {**values, "is_full": found.usage.output_tokens >= most}


def shown_answer(found: Answer, name: str, data: bytes) -> dict[str, Any]:
    """An answer in the form of the page; marks stand in the text only where offsets are of it."""
    values: dict[str, Any] = {
        "answer": found.text,
        "unsupported": found.unsupported,
        "usage": found.usage,
        "passages": len(found.evidence),
        "jumps": list(range(len(found.evidence))),
    }
    plain = name.endswith((".txt", ".md"))
    if plain:
        segments = markup.evidence(data, found.evidence)
    else:
        # Offsets are of the text inside; the passages are shown one after the other.
        segments = []
        for rank, passage in enumerate(found.evidence):
            segments.append({"text": passage.span.text, "rank": rank, "skipped": 0})
            segments.append({"text": "\n\n", "rank": None, "skipped": 0})
    marked = {each["rank"] for each in segments}
    values["jumps"] = [rank for rank in values["jumps"] if rank in marked]
    return {**values, "segments": segments}
