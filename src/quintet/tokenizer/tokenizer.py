"""Text to token ids and back."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from quintet.errors import ModelNotFoundError
from quintet.formats.gguf import GGUFFile
from quintet.tokenizer.chat import CHATML, ChatTemplate
from quintet.tokenizer.codec import CONTROL_KINDS, Codec, encode_text
from quintet.tokenizer.control_text import ChatEncoder
from quintet.tokenizer.gguf_codec import read_codec
from quintet.tokenizer.isolated_template import IsolatedTemplate
from quintet.tokenizer.json_codec import read_json_codec
from quintet.tokenizer.sentencepiece_model import MODEL_NAME, sentencepiece_keys
from quintet.tokenizer.vocabulary import TokenKind, ids_of_kinds

NewTemplate: TypeAlias = Callable[..., ChatTemplate | IsolatedTemplate]


class Tokenizer:
    """One vocabulary with its rules.  Immutable and safe to share between threads.

    Attributes:
        vocab_size: number of token ids.
        bos_id, eos_id: begin and end of sequence, where the vocabulary has them.
        eog_ids: every token after which generation stops.
        prefix_ids, suffix_ids: what `encode` puts before and after a text.
        between_ids: what stands between the two texts of a pair.
        add_bos, add_eos: whether `encode` puts a token before and after the text.
        drops_leading_space: `decode` drops one space at the start of the text.
        chat_templates: Jinja sources by name, as the model carries them.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._plain = codec.matcher(parse_special=False)
        self._special = codec.matcher(parse_special=True)
        self._control_ids = frozenset(ids_of_kinds(codec.kinds, CONTROL_KINDS))
        self._bytes: dict[int, bytes] = {}
        self.vocab_size = len(codec.tokens)
        self.bos_id = codec.bos_id
        self.eos_id = codec.eos_id
        self.eog_ids = codec.eog_ids
        self.prefix_ids, self.suffix_ids = codec.prefix_ids, codec.suffix_ids
        self.between_ids = codec.between_ids
        self.add_bos = bool(codec.prefix_ids)
        self.add_eos = bool(codec.suffix_ids)
        self.drops_leading_space = codec.drops_leading_space
        self.chat_templates = codec.chat_templates
        self._new_template: NewTemplate = ChatTemplate

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """From a .gguf file, a tokenizer.json, or a Hugging Face directory.

        A directory without tokenizer.json may have SentencePiece's own tokenizer.model.

        Raises:
            ModelNotFoundError: no such file.
            ModelFormatError, UnsupportedModelError: as `from_gguf` and `from_json`.
        """
        path = Path(path)
        if path.is_dir():
            if not (path / "tokenizer.json").is_file() and (path / MODEL_NAME).is_file():
                return cls.from_gguf(sentencepiece_keys(path))
            path = path / "tokenizer.json"
        if not path.is_file():
            raise ModelNotFoundError(f"no tokenizer file at {path}")
        if path.suffix == ".json":
            return cls.from_json(path)
        with GGUFFile.open(path) as file:
            return cls.from_gguf(file.metadata)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """From the metadata of a GGUF file.

        Raises:
            ModelFormatError: a tokenizer key is missing, of the wrong type or inconsistent.
            UnsupportedModelError: a kind of tokenizer or a pre-tokenizer not known here.
        """
        return cls(read_codec(metadata))

    @classmethod
    def from_json(
        cls, path: str | os.PathLike[str], config: Mapping[str, Any] | None = None
    ) -> Tokenizer:
        """From a tokenizer.json and the files beside it.

        Args:
            path: the tokenizer.json.
            config: the content of tokenizer_config.json; by default read from beside it.

        Raises:
            ModelFormatError: a file breaks its format.
            UnsupportedModelError: a decoder not known here.
        """
        return cls(read_json_codec(path, config))

    def isolated(self, new_template: NewTemplate = IsolatedTemplate) -> Tokenizer:
        """The same tokenizer, with its chat template compiled and rendered in a helper process.

        What is wrong with the template is then found when it is first used.  `close` it.

        Args:
            new_template: makes the template, from the arguments of `ChatTemplate`.
        """
        twin = copy.copy(self)
        twin._new_template = new_template
        for name in ("chat_template", "_chat_template_or_chatml"):
            twin.__dict__.pop(name, None)  # this one's
        twin._chat_template_or_chatml  # noqa: B018 - made once, not by several threads at once
        return twin

    def start(self) -> None:
        """Start the helper process of an `isolated` one in the background."""
        if isinstance(self._chat_template_or_chatml, IsolatedTemplate):
            self._chat_template_or_chatml.start()

    def close(self) -> None:
        """End the helper processes of an `isolated` one.  Idempotent."""
        template = self.__dict__.get("_chat_template_or_chatml")
        if isinstance(template, IsolatedTemplate):
            template.close()

    def encode(
        self, text: str, *, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Token ids of a text, in time proportional to its length.

        Args:
            add_special: put BOS, EOS or the like around it, as the vocabulary wants.
            parse_special: text that spells a control token means that token.  Only for text that
                no user wrote; otherwise it is encoded as the characters it consists of.
                User-defined tokens (such as `<think>`) are recognised in any case.

        Raises:
            RequestError: the text holds a lone surrogate.
        """
        ids = encode_text(self._special if parse_special else self._plain, text)
        if not add_special:
            return ids
        return [*self._codec.prefix_ids, *ids, *self._codec.suffix_ids]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD.

        The bytes of the tokens are joined as they are: no spaces are tidied away, except that a
        SentencePiece text loses the one space that encoding put before it.

        Raises:
            IndexError: no such token.
        """
        data = b"".join(
            self.token_bytes(token_id)
            for token_id in ids
            if not (skip_special and self.is_special(token_id))
        )
        if self.drops_leading_space:
            data = data.removeprefix(b" ")
        return data.decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for; a control token stands for its spelling.

        Raises:
            IndexError: no such token.
        """
        data = self._bytes.get(token_id)
        if data is None:
            text, kind = self.token_text(token_id), self._codec.kinds[token_id]
            if kind in CONTROL_KINDS or kind == TokenKind.USER_DEFINED:
                data = self._codec.added_bytes(text)
            else:
                data = self._codec.spelled_bytes(text)
            self._bytes[token_id] = data
        return data

    def token_text(self, token_id: int) -> str:
        """A token's spelling in the vocabulary.

        Raises:
            IndexError: no such token.
        """
        if not 0 <= token_id < self.vocab_size:
            raise IndexError(f"expected a token id below {self.vocab_size}, found {token_id}")
        return self._codec.tokens[token_id]

    def token_to_id(self, text: str) -> int | None:
        """The id of a token by its spelling in the vocabulary."""
        return self._ids.get(text)

    def is_special(self, token_id: int) -> bool:
        """Whether this is a control token: one that is no part of the text."""
        return token_id in self._control_ids

    @property
    def bos_token(self) -> str:
        """The spelling of BOS, or an empty string."""
        return "" if self.bos_id is None else self.token_text(self.bos_id)

    @property
    def eos_token(self) -> str:
        """The spelling of EOS, or an empty string."""
        return "" if self.eos_id is None else self.token_text(self.eos_id)

    @cached_property
    def chat_template(self) -> ChatTemplate | IsolatedTemplate | None:
        """The model's own chat template, or None when it carries none.

        Raises:
            ModelFormatError: the template is not valid Jinja.
        """
        source = self.chat_templates.get("default")
        if source is None:
            return None
        return self._template(source, self.chat_templates.get("tool_use"))

    def use_chat_template(self, source: str) -> None:
        """Take this Jinja source instead of the templates that the model carries.

        Raises:
            ModelFormatError: it is not valid Jinja.
        """
        template = self._template(source)  # may raise: then the old one stays
        self.close()
        self.chat_templates = {"default": source}
        self.__dict__.update(chat_template=template, _chat_template_or_chatml=template)

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """A conversation as the model wants to read it; ChatML when it carries no template.

        Args:
            options: as for `ChatTemplate.render`.
        """
        return self._chat_template_or_chatml.render(messages, **options)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        """Token ids of a rendered conversation.

        Control tokens come from the template alone: where a message, a tool or an option spells
        one, the spelling is encoded as plain text.  Otherwise the ids are those of the rendered
        text with `parse_special=True`, without added BOS: templates write their own.

        Args:
            options: as for `ChatTemplate.render`.
        """
        return self._chat_encoder.encode(self._chat_template_or_chatml, messages, options)

    @cached_property
    def _chat_template_or_chatml(self) -> ChatTemplate | IsolatedTemplate:
        return self.chat_template or self._template(CHATML)

    def _template(
        self, source: str, tool_use: str | None = None
    ) -> ChatTemplate | IsolatedTemplate:
        return self._new_template(
            source, tool_use=tool_use, bos_token=self.bos_token, eos_token=self.eos_token
        )

    @cached_property
    def _chat_encoder(self) -> ChatEncoder:
        return ChatEncoder(self._codec, lambda text: encode_text(self._special, text))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: token_id for token_id, token in enumerate(self._codec.tokens)}
