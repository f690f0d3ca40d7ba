"""Request bodies: client fields only, unknown ones ignored, types taken literally.

Sources: OpenAI API reference, "Create chat completion", "Create completion" and "Create
embeddings"; what OpenAI lacks carries the names of vLLM, docs/serving/openai_compatible_server.md
(top_k, guided_json, structured_outputs, priority, continuous_usage_stats...), or of llama-server,
tools/server/README.md (typical_p, dry_multiplier, samplers, grammar...).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from quintet.server.bodies import MAX_LOGIT_BIAS, MAX_STOP_STRINGS, Body, KeepAlive, StopString

MAX_CHOICES = 64  # prompts times n of one request
MAX_N = 16
MAX_TOP_LOGPROBS = 20
MAX_EMBEDDINGS = 2048
MAX_GUIDED_CHOICES = 1024

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
ModelName = Annotated[str, Field(min_length=1, max_length=256)]


ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class StreamOptions(Body):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class ChatTemplateKwargs(Body):
    """The one template variable a client may set; others could reach what a template hides."""

    model_config = ConfigDict(extra="forbid")
    enable_thinking: bool | None = None


class JsonSchema(Body):
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: str
    json_schema: JsonSchema | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


GuidedJson = str | dict[str, Any] | bool
GuidedChoice = Annotated[list[str], Field(min_length=1, max_length=MAX_GUIDED_CHOICES)]


class StructuredOutputs(Body):
    """vLLM's newer spelling of the guided_* fields."""

    json_: GuidedJson | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: GuidedChoice | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: Any = None


class SamplerBody(Body):
    """How tokens are drawn and what form they must take: on every route that generates."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: Annotated[list[str], Field(max_length=16)] | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    samplers: Annotated[list[str], Field(max_length=16)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_STRINGS)] | None = None
    include_stop_str_in_output: bool | None = None
    logit_bias: (
        Annotated[
            dict[Annotated[str, Field(pattern="^[0-9]{1,10}$")], float],
            Field(max_length=MAX_LOGIT_BIAS),
        ]
        | None
    ) = None
    min_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    ignore_eos: bool | None = None
    grammar: str | None = None
    json_schema: GuidedJson | None = None
    guided_json: GuidedJson | None = None
    guided_regex: str | None = None
    guided_choice: GuidedChoice | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None
    response_format: ResponseFormat | None = None
    # Named only to be refused: each would change the answer.
    allowed_token_ids: Any = None
    bad_words: Any = None
    use_beam_search: Any = None
    prompt_logprobs: Any = None
    truncate_prompt_tokens: Any = None


class RequestBody(SamplerBody):
    """What every route that generates has besides: the model, and how the request is served."""

    model: ModelName
    stream: bool | None = None
    priority: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    timeout: float | None = None
    keep_alive: KeepAlive | None = None


class SamplingBody(RequestBody):
    """What chat completions and completions have in common."""

    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_N)] | None = None
    max_tokens: Annotated[int, Field(ge=-1, lt=2**31)] | None = None


class ContentPart(Body):
    type: str
    text: str | None = None


class FunctionCall(Body):
    name: str
    arguments: str


class ToolCall(Body):
    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class FunctionDefinition(Body):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    type: Literal["function"]
    function: FunctionDefinition


class ThinkingBody(Body):
    """Two spellings of one switch, and two of how long a thought may be: vLLM's name, and
    llama-server's with -1 for no limit."""

    enable_thinking: bool | None = None
    chat_template_kwargs: ChatTemplateKwargs | None = None
    thinking_token_budget: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    thinking_budget_tokens: Annotated[int, Field(ge=-1, lt=2**31)] | None = None


class ConversationBody(ThinkingBody):
    """What becomes the prompt of a chat."""

    model: ModelName
    messages: Annotated[list[Message], Field(min_length=1)]
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: ReasoningEffort | None = None


class ChatBody(SamplingBody, ConversationBody):
    """POST /v1/chat/completions."""

    max_completion_tokens: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    modalities: list[str] | None = None
    functions: Any = None
    function_call: Any = None
    chat_template: Any = None


class CompletionBody(SamplingBody):
    """POST /v1/completions."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_N)] | None = None
    suffix: str | None = None


class EmbeddingBody(Body):
    """POST /v1/embeddings."""

    model: ModelName
    input: str | list[str] | list[TokenId] | list[list[TokenId]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    keep_alive: KeepAlive | None = None


def wants_usage(body: SamplingBody) -> bool:
    """Whether a stream is to end with its usage."""
    return body.stream_options is not None and body.stream_options.include_usage


def wants_continuous_usage(body: SamplingBody) -> bool:
    """Whether each chunk of a stream is to carry the usage so far."""
    return bool(body.stream and body.stream_options and body.stream_options.continuous_usage_stats)
