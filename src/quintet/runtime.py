"""What `LLM` and `AsyncLLM` share: a loaded model, and requests made from prompts."""

from __future__ import annotations

import dataclasses
import itertools
import operator
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from quintet.chat import ChatOptions, ChatRequest, Messages, plan_chat
from quintet.config import DraftSpeculation, EngineConfig, NgramSpeculation
from quintet.engine.client import EngineClient
from quintet.engine.loading import ModelOptions, load, load_tokenizer
from quintet.engine.request import Request, RequestOptions
from quintet.engine.stream import RequestStream
from quintet.engine.thread import EngineThread
from quintet.errors import CapacityError, RequestError
from quintet.hub.resolve import find, resolve
from quintet.sampling.grammar_check import GrammarCheck
from quintet.sampling.params import SamplingParams
from quintet.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

Prompt: TypeAlias = str | Sequence[int]
Params: TypeAlias = SamplingParams | Sequence[SamplingParams]


class Runtime:
    """
    A model that answers requests.

    Args:
        client: its engine.
        tokenizer: of the same model; closed with this.
        grammars: what constraints must pass first; closed with this.
    """

    def __init__(
        self, client: EngineClient, tokenizer: Tokenizer, grammars: GrammarCheck | None = None
    ) -> None:
        self.client = client
        self.tokenizer = tokenizer
        self._grammars = grammars
        self._ids = itertools.count(1)
        self._is_view = False  # the rest is another runtime's

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        options: ModelOptions,
        config: EngineConfig,
        *,
        isolated: bool = False,
        on_process: Callable[[EngineClient], None] = lambda client: None,
    ) -> Runtime:
        """Find and load a model, and start its engine; see `engine.loading.load`.

        A stored model's own chat template takes the place of its file's.

        Args:
            isolated: the engine in a process of its own rather than in a thread of this one;
                templates and grammars in others, with limits on what they may take.
            on_process: given the engine's process as soon as it starts; closing it ends the load.
        """
        path = resolve(model)
        draft = config.draft_speculation
        if draft is not None:
            draft = dataclasses.replace(draft, model=os.path.abspath(resolve(draft.model)))
            config = dataclasses.replace(config, draft_speculation=draft)
        manifest = find(model)
        template = None if manifest is None else manifest.template
        if isolated:
            return cls._load_isolated(path, options, config, template, on_process)
        loaded = load(path, options, config)
        runtime = cls(EngineThread(loaded.engine), loaded.tokenizer)
        if template is not None:
            try:
                runtime.tokenizer.use_chat_template(template)
            except BaseException:
                runtime.close()
                raise
        return runtime

    def seen_through(self, client: EngineClient) -> Runtime:
        """The same model, asked through another client of its engine; ids stay unique."""
        runtime = Runtime(client, self.tokenizer, self._grammars)
        runtime._ids = self._ids
        runtime._is_view = True
        return runtime

    @classmethod
    def _load_isolated(
        cls,
        path: Path,
        options: ModelOptions,
        config: EngineConfig,
        template: str | None,
        on_process: Callable[[EngineClient], None],
    ) -> Runtime:
        from quintet.engine.worker.process import EngineProcess  # msgspec and zmq, for few

        client = EngineProcess(path, options, config)
        tokenizer = None
        try:
            on_process(client)
            tokenizer = load_tokenizer(path).isolated()  # while the process loads the rest
            if template is not None:
                tokenizer.use_chat_template(template)
            tokenizer.start()
            client.wait_ready()
        except BaseException:
            client.close()
            if tokenizer is not None:
                tokenizer.close()
            raise
        return cls(client, tokenizer, GrammarCheck(tokenizer))

    def close(self) -> None:
        """End what is running with EngineError and free the model.  Idempotent."""
        self.client.close()
        if self._is_view:
            return
        self.tokenizer.close()
        if self._grammars is not None:
            self._grammars.close()

    def requests(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: Params | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[Request]:
        """A request per prompt, each one checked.

        Raises:
            RequestError: a prompt is neither text nor token ids or cannot be served, or there
                are not as many params as prompts.
        """
        several = several_prompts(prompts)
        if params is None or isinstance(params, SamplingParams):
            params = [params or SamplingParams()] * len(several)
        if len(params) != len(several):
            raise RequestError(
                f"expected one, or one for each of {len(several)} prompts, found {len(params)}",
                parameter="params",
            )
        return [
            self.request(prompt, one, **options)
            for prompt, one in zip(several, params, strict=True)
        ]

    def request(
        self,
        prompt: Prompt,
        params: SamplingParams | None,
        **options: Unpack[RequestOptions],
    ) -> Request:
        """A checked request for one prompt."""
        return self._request(self._prompt_ids(prompt), params or SamplingParams(), options)

    def chat_request(
        self,
        messages: Messages,
        params: SamplingParams | None,
        chat_options: ChatOptions,
        **options: Unpack[RequestOptions],
    ) -> ChatRequest:
        """A checked request for the assistant's next message.

        Raises:
            RequestError: also where the template refuses the messages, or tools and tool choice
                make no sense.
        """
        plan = plan_chat(self.tokenizer, messages, params or SamplingParams(), chat_options)
        request = self._request(
            plan.token_ids,
            plan.params,
            options,
            thinking=plan.thinking,
            visible_token_ids=plan.visible_token_ids,
        )
        return ChatRequest(request, plan.new_parser)

    def count_tokens(self, messages: Messages, chat_options: ChatOptions) -> int:
        """Tokens of the prompt that `chat_request` would make; it may be longer than the context.

        Raises:
            RequestError: the template refuses the messages, or the tools make no sense.
        """
        return len(plan_chat(self.tokenizer, messages, SamplingParams(), chat_options).token_ids)

    def _request(
        self, token_ids: Sequence[int], params: SamplingParams, options: RequestOptions, **more: Any
    ) -> Request:
        request = Request(
            request_id=self.new_id(),
            prompt_token_ids=tuple(token_ids),
            params=params,
            **options,
            **more,
        )
        if self._grammars is not None and params.constraint is not None:
            self._grammars.check(params.constraint)
        self.client.check(request)
        return request

    def new_id(self) -> str:
        """A request id that no other request of this runtime has."""
        return f"request-{next(self._ids)}"

    def encode_text(self, text: Prompt, *, parameter: str) -> tuple[Sequence[int], int]:
        """
        Token ids of a text to embed, which never become control tokens, or these ids as they are.

        Returns:
            The ids, and how many of the last close every text.

        Raises:
            RequestError: neither text nor token ids.
        """
        if isinstance(text, str):
            return self.tokenizer.encode(text), len(self.tokenizer.suffix_ids)
        return self._prompt_ids(text, parameter), 0

    def _prompt_ids(self, prompt: Prompt, parameter: str = "prompt") -> Sequence[int]:
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt, add_special=True, parse_special=True)
        try:
            return [operator.index(token_id) for token_id in prompt]
        except TypeError:
            raise RequestError(
                f"expected text or token ids, found {type(prompt).__name__}", parameter=parameter
            ) from None


class Batch:
    """
    Many requests on their way through one engine, more than its queue may hold.

    Use as a context manager: what is unfinished when it is left gets aborted.

    Args:
        client: the engine.
        requests: submitted in this order.
    """

    def __init__(self, client: EngineClient, requests: Iterable[Request]) -> None:
        self._client = client
        self._unsubmitted = deque(requests)
        self._unread: deque[tuple[Request, RequestStream]] = deque()
        self._submitted: list[RequestStream] = []

    def next(self) -> tuple[Request, RequestStream] | None:
        """Submit what the queue takes; return the first stream not read yet, None at the end.

        Raises:
            CapacityError: others fill the queue, so that nothing of ours is in it.
        """
        while self._unsubmitted:
            try:
                stream = self._client.submit(self._unsubmitted[0])
            except CapacityError:
                if not self._unread:
                    raise
                break
            stream.max_unread_chunks = None  # it is read in its turn, and all of it is wanted
            self._unread.append((self._unsubmitted.popleft(), stream))
            self._submitted.append(stream)
        return self._unread.popleft() if self._unread else None

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._submitted:
            stream.abort()


def ngram_options(value: NgramSpeculation | bool) -> NgramSpeculation | None:
    """What `LLM` takes for n-gram speculation, as the engine's option."""
    if isinstance(value, bool):
        return NgramSpeculation() if value else None
    return value


def cache_option(value: bool | str | os.PathLike[str]) -> bool | str:
    """What `LLM` takes for the packed cache, as the model's option."""
    if isinstance(value, bool):
        return value
    return os.path.abspath(value) if os.fspath(value) else ""


def draft_options(
    value: DraftSpeculation | str | os.PathLike[str] | None,
) -> DraftSpeculation | None:
    """What `LLM` takes for a draft model, as the engine's option."""
    if value is None or isinstance(value, DraftSpeculation):
        return value
    return DraftSpeculation(model=os.fspath(value))


def several_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt, a text or token ids, becomes a list of one."""
    if isinstance(prompts, str):
        return [prompts]
    listed = list(prompts)
    if listed and all(hasattr(item, "__index__") for item in listed):
        return [cast("list[int]", listed)]
    return cast("list[Prompt]", listed)
