"""LangChain's chat model and embeddings.

Source: LangChain's guides "Custom chat model" and "Custom embeddings".
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from densecore.config import GenerationConfig
from densecore.engine import DenseCore
from densecore.exceptions import load_errors, request_errors
from densecore.hub import pretrained_model
from quintet import LLM
from quintet.parsing.events import ToolCallDelta

try:
    from langchain_core.callbacks import CallbackManagerForLLMRun
    from langchain_core.embeddings import Embeddings
    from langchain_core.language_models import BaseChatModel, LanguageModelInput
    from langchain_core.messages import (
        AIMessage,
        AIMessageChunk,
        BaseMessage,
        InvalidToolCall,
        convert_to_openai_messages,
    )
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.messages.tool import (
        ToolCall,
        ToolCallChunk,
        invalid_tool_call,
        tool_call,
        tool_call_chunk,
    )
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
    from langchain_core.runnables import Runnable
    from langchain_core.tools import BaseTool
    from langchain_core.utils.function_calling import convert_to_openai_tool
    from pydantic import PrivateAttr
except ImportError as error:
    raise ImportError(
        "expected langchain-core; to install it: pip install 'quintet-faces[langchain]'"
    ) from error

__all__ = ["DenseCoreChatModel", "DenseCoreEmbeddings"]


class DenseCoreChatModel(BaseChatModel):
    """
    A chat model; it is loaded with the first message, and shared with others of this process.

    Args:
        model_path: a GGUF file, or what Quintet knows by this name.
        hf_repo_id: where no path is given, the repository to load from.
        threads: that compute; 0 for one per physical core.
        temperature, max_tokens, top_p, top_k, repetition_penalty: see `GenerationConfig`; each may
            also be given with a call.
        stop_sequences: texts that end an answer.
    """

    model_path: str | None = None
    hf_repo_id: str | None = None
    threads: int = 0
    temperature: float = 0.8
    max_tokens: int = 256
    top_p: float = 0.95
    top_k: int = 40
    repetition_penalty: float = 1.1
    stop_sequences: list[str] | None = None

    _llm: LLM | None = PrivateAttr(default=None)

    @property
    def _llm_type(self) -> str:
        return "densecore"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model_path or self.hf_repo_id, **self._defaults()}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """
        The same model with tools it may call.

        Args:
            tool_choice: "auto", "none", "required" (or "any"), or the name of one.
        """
        if tool_choice == "any":
            tool_choice = "required"
        choice: Any = tool_choice or "auto"
        if choice not in ("auto", "none", "required"):
            choice = {"type": "function", "function": {"name": choice}}
        schemas = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=schemas, tool_choice=choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config, options = self._call(stop, kwargs)
        with request_errors():
            output = self._model().chat(_messages(messages), config.sampling(), **options)
        calls: list[ToolCall] = []
        broken: list[InvalidToolCall] = []
        for call in output.tool_calls:
            parsed = _parsed(call.id, call.name, call.arguments)
            (calls if parsed["type"] == "tool_call" else broken).append(parsed)
        usage = output.usage
        message = AIMessage(
            output.text,
            tool_calls=calls,
            invalid_tool_calls=broken,
            usage_metadata=_usage(usage.num_prompt_tokens, usage.num_generated_tokens),
            response_metadata={"finish_reason": output.finish_reason},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        config, options = self._call(stop, kwargs)
        with request_errors():
            for chunk in self._model().stream_chat(
                _messages(messages), config.sampling(), **options
            ):
                metadata = {"finish_reason": chunk.finish_reason} if chunk.is_last else {}
                usage = chunk.usage if chunk.is_last else None
                piece = ChatGenerationChunk(
                    message=AIMessageChunk(
                        content=chunk.text,
                        tool_call_chunks=[_call_chunk(delta) for delta in chunk.tool_calls],
                        usage_metadata=None
                        if usage is None
                        else _usage(usage.num_prompt_tokens, usage.num_generated_tokens),
                        response_metadata=metadata,
                    )
                )
                if run_manager is not None and chunk.text:
                    run_manager.on_llm_new_token(chunk.text, chunk=piece)
                yield piece

    def _model(self) -> LLM:
        if self._llm is None:
            with load_errors():
                model = self.model_path or pretrained_model(self.hf_repo_id or "")
                self._llm = LLM(model, num_threads=self.threads or None, shared=True)
        return self._llm

    def _defaults(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "repetition_penalty": self.repetition_penalty,
        }

    def _call(
        self, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """How to generate, and what goes with the messages; of keywords, those we know."""
        given = {name: kwargs.get(name, value) for name, value in self._defaults().items()}
        config = GenerationConfig(
            **given,
            stop_sequences=stop or self.stop_sequences,
            json_mode=bool(kwargs.get("json_mode", False)),
        )
        options: dict[str, Any] = {
            name: kwargs[name] for name in ("tools", "tool_choice") if name in kwargs
        }
        return config, options


class DenseCoreEmbeddings(Embeddings):
    """
    Embeddings of texts.

    Args:
        model_path: a GGUF file, or what Quintet knows by this name.
        pooling_strategy, normalize: see `DenseCore.embed`.
        threads: that compute; 0 for one per physical core.

    Raises: as `DenseCore`.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        pooling_strategy: str = "mean",
        normalize: bool = True,
        threads: int = 0,
    ) -> None:
        self.pooling_strategy = pooling_strategy
        self.normalize = normalize
        self._engine = DenseCore(os.fspath(model_path), threads)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector of each text."""
        vectors = self._engine.embed_batch(texts, self.pooling_strategy, self.normalize)
        return [[float(number) for number in vector] for vector in vectors]

    def embed_query(self, text: str) -> list[float]:
        """A text's vector."""
        return self.embed_documents([text])[0]


def _messages(messages: list[BaseMessage]) -> list[dict[str, Any]]:
    """A conversation for a chat template, which wants the arguments of calls as objects."""
    converted: list[dict[str, Any]] = list(convert_to_openai_messages(messages))
    for message in converted:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return converted


def _parsed(id: str, name: str, arguments: str) -> Any:
    """A call as LangChain has it; one whose arguments are no object is an invalid one."""
    try:
        values = json.loads(arguments)
    except ValueError as error:
        return invalid_tool_call(name=name, args=arguments, id=id, error=str(error))
    if not isinstance(values, dict):
        return invalid_tool_call(name=name, args=arguments, id=id, error="expected an object")
    return tool_call(name=name, args=values, id=id)


def _call_chunk(delta: ToolCallDelta) -> ToolCallChunk:
    return tool_call_chunk(name=delta.name, args=delta.arguments, id=delta.id, index=delta.index)


def _usage(num_prompt_tokens: int, num_generated_tokens: int) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=num_prompt_tokens,
        output_tokens=num_generated_tokens,
        total_tokens=num_prompt_tokens + num_generated_tokens,
    )
