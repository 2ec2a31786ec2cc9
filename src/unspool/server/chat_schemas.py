"""The form of the OpenAI interface, as far as it is served.

Fields that would change an answer and are not served are refused by name, never ignored; `user`,
`metadata`, `store` and `service_tier` change nothing and are taken.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

MAX_PROMPTS = 64
MAX_STOPS = 16
MAX_TOKENS = 1 << 20

Stop = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Text = Annotated[str, StringConstraints(max_length=1 << 24)]
"""Text as UTF-8 can hold it; the limit only makes this checked."""
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: Text


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """The message as models take it: one string."""
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return {"role": role, "content": self.content}
        return {"role": role, "content": "".join(part.text for part in self.content)}


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: bool | None = None


class Request(BaseModel):
    """What both kinds of question share."""

    model_config = ConfigDict(extra="forbid")
    model: Annotated[str, StringConstraints(max_length=500)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None

    @field_validator("top_p")
    @classmethod
    def _only_whole(cls, value: float | None) -> float | None:
        if value not in (None, 1.0):
            raise ValueError("only 1 is served: tokens are drawn from the whole distribution")
        return value

    @field_validator("presence_penalty", "frequency_penalty")
    @classmethod
    def _only_none(cls, value: float | None) -> float | None:
        if value:
            raise ValueError("only 0 is served: there are no penalties")
        return value

    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(Request):
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None


class CompletionRequest(Request):
    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
    max_tokens: Tokens | None = 16
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: None = None


class ReadingUsage(BaseModel):
    """What became of the text: every token of it was read, or is counted as dropped."""

    input_tokens: int
    read_tokens: int
    dropped_tokens: int
    output_tokens: int
    seconds: float
    peak_bytes: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    unspool: ReadingUsage


class TopScore(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenScore(TopScore):
    top_logprobs: list[TopScore]


class ChatLogprobs(BaseModel):
    content: list[TokenScore]
    refusal: None = None


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None = None


class CompletionLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    system_fingerprint: str | None = None


class ModelForm(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["unspool"] = "unspool"
    max_model_len: Annotated[
        int | None, Field(description="Most tokens of prompt and answer; null: no limit.")
    ]


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelForm]
