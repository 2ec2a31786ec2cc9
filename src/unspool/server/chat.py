"""The OpenAI interface over any `LanguageModel`: chat, completions, models; streamed or whole.

Source: the OpenAI API reference (chat/completions, completions, models; server-sent events).
Departures: a prompt that is too long is refused with what to choose, never cut; `usage.unspool`
says how many tokens were read and dropped; a missing seed is 0, so the same request gives the same
answer; fields that are not served are refused by name.
Cost: prompts are tokenised once more than needed, to refuse a long one before it waits.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, cast

import orjson
from fastapi import APIRouter, Request, Response

from unspool._overflow import fit
from unspool.backends.prompts import encode_prompt, has_chat_template
from unspool.backends.stream import Piece, StreamingModel
from unspool.errors import OverflowPolicyError, UnspoolError
from unspool.server import chat_schemas as forms
from unspool.server.answers import ERRORS, reply
from unspool.server.events import EventStream, while_connected
from unspool.server.failures import ServiceError, as_service_error
from unspool.server.service import Service, service_of
from unspool.types import LanguageModel, Prompt, Usage

router = APIRouter(
    prefix="/v1",
    tags=["model"],
    responses={**ERRORS, 502: {**ERRORS[503], "description": "The model failed."}},
)

_CHAT_TOKENS = 1024
"""Most tokens of an answer whose request names no number, where the window has room for them."""


@dataclass(frozen=True)
class _Plan:
    """A question, checked, and how its answer is to be written."""

    model: LanguageModel
    prompt: Prompt
    max_tokens: int
    temperature: float
    seed: int
    stop: tuple[str, ...]
    top_logprobs: int | None

    def pieces(self, cancelled: Callable[[], bool]) -> Generator[Piece, None, None]:
        settings: dict[str, Any] = {
            "max_tokens": self.max_tokens,
            "stop": self.stop,
            "temperature": self.temperature,
            "seed": self.seed,
        }
        if isinstance(self.model, StreamingModel):
            yield from self.model.generate_stream(
                self.prompt, top_logprobs=self.top_logprobs, cancelled=cancelled, **settings
            )
            return
        (whole,) = self.model.generate([self.prompt], **settings)
        yield Piece(whole.text, (), whole.finish_reason, whole.usage)


def _model(service: Service, name: str) -> LanguageModel:
    model = service.model
    if model is None:
        raise ServiceError(
            404,
            "model_not_found",
            "No model is served here. Start the service with --model NAME, or --model '' for the "
            "small one that comes with the package.",
            param="model",
        )
    if name not in (model.name, model.name.partition("@")[0]):
        raise ServiceError(
            404,
            "model_not_found",
            f"There is no model called {name!r} here; this service has {model.name!r}.",
            param="model",
        )
    return model


async def _plan(
    service: Service, body: forms.Request, prompt: Prompt, tokens: int | None, top: int | None
) -> _Plan:
    model = _model(service, body.model)
    if top is not None and not isinstance(model, StreamingModel):
        raise ServiceError(
            400, "unsupported", f"{model.name} gives no log-probabilities.", param="logprobs"
        )
    if not isinstance(prompt, str) and not has_chat_template(model.tokenizer):
        raise ServiceError(
            400,
            "unsupported",
            f"{model.name} has no chat template. Use /v1/completions.",
            param="messages",
        )
    most = await asyncio.to_thread(_room, model, prompt, tokens)
    return _Plan(
        model,
        prompt,
        most,
        1.0 if body.temperature is None else body.temperature,
        body.seed or 0,
        body.stops(),
        top,
    )


def _room(model: LanguageModel, prompt: Prompt, tokens: int | None) -> int:
    """Tokens of the answer; refuses a prompt that leaves no room for them."""
    window = model.window
    if window is None or model.tokenizer is None:
        return tokens or _CHAT_TOKENS
    ids = encode_prompt(model.tokenizer, prompt)
    left = window - len(ids)
    wanted = tokens or max(1, min(_CHAT_TOKENS, left))
    try:
        fit(ids, window - wanted, "error", what="The prompt")
    except OverflowPolicyError:
        raise ServiceError(
            400,
            "context_length_exceeded",
            f"The prompt has {len(ids):,} tokens and the answer {wanted:,}; {model.name} has a "
            f"window of {window:,}. Nothing is cut here: send fewer tokens, ask the service for a "
            "text of any length at /read, or start it with a --method that reads past the window.",
            param="messages" if not isinstance(prompt, str) else "prompt",
        ) from None
    return wanted


def client_of(request: Request) -> str:
    """Whose line a question waits in."""
    return request.client.host if request.client else "unknown"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "unspool": usage.to_json(),
    }


def _count(service: Service, usage: Usage) -> None:
    for kind in ("read_tokens", "dropped_tokens", "output_tokens"):
        service.metrics.tokens.labels(kind).inc(getattr(usage, kind))


def _head(kind: str, prefix: str, model: LanguageModel) -> dict[str, Any]:
    now = time.time_ns()
    return {
        "id": f"{prefix}-{now:x}",
        "object": kind,
        "created": now // 1_000_000_000,
        "model": model.name,
        "system_fingerprint": None,
    }


async def _whole(request: Request, plan: _Plan) -> tuple[str, list[Piece], str, Usage]:
    """The complete answer, given up when the client leaves."""
    service = service_of(request)

    async def collect() -> list[Piece]:
        return [p async for p in service.writer.pieces(client_of(request), plan.pieces)]

    pieces = await while_connected(request, collect())
    last = pieces[-1] if pieces else Piece("", (), None, None)
    if last.usage is None or last.finish_reason is None:
        raise ServiceError(502, "model_failed", "The model ended without saying why.")
    _count(service, last.usage)
    return "".join(p.text for p in pieces), pieces, last.finish_reason, last.usage


@router.get("/models", response_model=forms.ModelList)
async def models(request: Request) -> Response:
    """The model that is served, if there is one."""
    model = service_of(request).model
    data = [] if model is None else [_describe(model)]
    return reply({"object": "list", "data": data})


@router.get("/models/{name:path}", response_model=forms.ModelForm)
async def model_info(request: Request, name: str) -> Response:
    """The model of this name."""
    return reply(_describe(_model(service_of(request), name)))


def _describe(model: LanguageModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "unspool",
        "max_model_len": model.window,
    }


@router.post("/chat/completions", response_model=forms.ChatCompletion)
async def chat(request: Request, body: forms.ChatRequest) -> Response:
    """An answer to a conversation."""
    if body.top_logprobs is not None and not body.logprobs:
        raise ServiceError(
            400, "invalid_request", "top_logprobs needs logprobs=true.", param="top_logprobs"
        )
    top = (body.top_logprobs or 0) if body.logprobs else None
    tokens = body.max_completion_tokens or body.max_tokens
    plan = await _plan(service_of(request), body, [m.plain() for m in body.messages], tokens, top)
    if body.stream:
        return _stream(request, body, plan, _chat_chunk, "chat.completion.chunk", "chatcmpl")
    text, pieces, reason, usage = await _whole(request, plan)
    return reply(
        {
            **_head("chat.completion", "chatcmpl", plan.model),
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": _chat_logprobs(pieces) if top is not None else None,
                    "finish_reason": reason,
                }
            ],
            "usage": _usage(usage),
        }
    )


@router.post("/completions", response_model=forms.Completion)
async def completions(request: Request, body: forms.CompletionRequest) -> Response:
    """The continuation of a text, or of each of several."""
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    service = service_of(request)
    plans = [
        await _plan(service, body, prompt, body.max_tokens or 16, body.logprobs)
        for prompt in prompts
    ]
    if body.stream:
        if len(plans) > 1:
            raise ServiceError(400, "unsupported", "Stream one prompt at a time.", param="prompt")
        return _stream(request, body, plans[0], _text_chunk, "text_completion", "cmpl")
    choices, total = [], Usage()
    for number, plan in enumerate(plans):
        text, pieces, reason, usage = await _whole(request, plan)
        total = total + usage
        scores = _text_logprobs(pieces, 0) if body.logprobs is not None else None
        choices.append({"index": number, "text": text, "logprobs": scores, "finish_reason": reason})
    return reply(
        {
            **_head("text_completion", "cmpl", plans[0].model),
            "choices": choices,
            "usage": _usage(total),
        }
    )


Chunk = Callable[[Piece, bool, int, bool], dict[str, Any]]


def _stream(
    request: Request, body: forms.Request, plan: _Plan, chunk: Chunk, kind: str, prefix: str
) -> Response:
    service = service_of(request)
    head = _head(kind, prefix, plan.model)
    wants_usage = body.stream_options is not None and body.stream_options.include_usage
    scored = plan.top_logprobs is not None

    def event(value: dict[str, Any]) -> bytes:
        extra = {"usage": None} if wants_usage and "usage" not in value else {}
        return b"data: " + orjson.dumps({**head, **value, **extra}) + b"\n\n"

    async def events() -> AsyncIterator[bytes]:
        offset, first = 0, True
        try:
            async for found in service.writer.pieces(client_of(request), plan.pieces):
                piece = cast(Piece, found)
                yield event({"choices": [chunk(piece, first, offset, scored)]})
                offset, first = offset + len(piece.text), False
                if piece.usage is not None:
                    _count(service, piece.usage)
                    if wants_usage:
                        yield event({"choices": [], "usage": _usage(piece.usage)})
        except (ServiceError, UnspoolError) as error:
            known = as_service_error(error)
            if first or known is None:  # nothing was sent yet: the status can still say it
                raise
            yield b"data: " + orjson.dumps(known.body()) + b"\n\n"
        yield b"data: [DONE]\n\n"

    return EventStream(events())


def _chat_chunk(piece: Piece, first: bool, offset: int, scored: bool) -> dict[str, Any]:
    delta: dict[str, Any] = {"role": "assistant"} if first else {}
    if piece.text or first:
        delta["content"] = piece.text
    return {
        "index": 0,
        "delta": delta,
        "logprobs": _chat_logprobs([piece]) if scored else None,
        "finish_reason": piece.finish_reason,
    }


def _text_chunk(piece: Piece, first: bool, offset: int, scored: bool) -> dict[str, Any]:
    return {
        "index": 0,
        "text": piece.text,
        "logprobs": _text_logprobs([piece], offset) if scored else None,
        "finish_reason": piece.finish_reason,
    }


def _scored(text: str, logprob: float) -> dict[str, Any]:
    spelled = None if "\ufffd" in text else list(text.encode())
    return {"token": text, "logprob": logprob, "bytes": spelled}


def _chat_logprobs(pieces: Iterable[Piece]) -> dict[str, Any]:
    return {
        "content": [
            {**_scored(t.text, t.logprob), "top_logprobs": [_scored(*each) for each in t.top]}
            for piece in pieces
            for t in piece.tokens
        ],
        "refusal": None,
    }


def _text_logprobs(pieces: Iterable[Piece], offset: int) -> dict[str, Any]:
    tokens = [t for piece in pieces for t in piece.tokens]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [t.text for t in tokens],
        "token_logprobs": [t.logprob for t in tokens],
        # Two tokens may be spelled alike: the likelier one keeps the name.
        "top_logprobs": [dict(reversed(t.top)) for t in tokens],
        "text_offset": offsets,
    }
