"""tokenizer.json against transformers, on vocabularies trained here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from quintet.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from quintet.tokenizer import Detokenizer, Tokenizer

from .conversations import user

CORPUS = [
    "The quick brown fox jumps over the lazy dog, again and again.",
    "Wir müssen draußen bleiben; it's 12:45 already!",
    "def main():\n    return [x for x in range(10)]\n\n",
    "hello world hello there, world's end",
]
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def byte_level_bpe() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def llama_like() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(
        models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][: len(SPECIAL)]  # bytes are ordinary tokens
    return tokenizers.Tokenizer.from_str(json.dumps(data))


def metaspace_unigram() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def word_piece() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


KINDS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "byte-level": byte_level_bpe,
    "llama-like": llama_like,
    "metaspace": metaspace_unigram,
    "word pieces": word_piece,
}


def save(folder: Path, tokenizer: tokenizers.Tokenizer, **config: Any) -> Path:
    """A Hugging Face directory with this tokenizer."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module", params=KINDS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, PreTrainedTokenizerFast]:
    """Our tokenizer and transformers' from one file that also adds BOS and EOS."""
    tokenizer = KINDS[request.param]()
    tokenizer.add_tokens([tokenizers.AddedToken("<think>", special=False, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    folder = save(tmp_path_factory.mktemp(request.param.replace(" ", "-")), tokenizer)
    theirs = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="</s>"
    )
    return Tokenizer.from_file(folder), theirs


texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(
        st.sampled_from([*SPECIAL, "<think>", " ", "hello", "\n", "ü", ".", "'s", "<", "12"]),
        max_size=12,
    ).map("".join),
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=texts)
def test_ids_and_text_are_those_of_transformers(
    pair: tuple[Tokenizer, PreTrainedTokenizerFast], text: str
) -> None:
    """Encoding with special tokens, without, and decoding agree with transformers."""
    ours, theirs = pair
    ids = theirs.encode(text)
    assert ours.encode(text, parse_special=True) == ids
    plain = theirs.encode(text, add_special_tokens=False)
    assert ours.encode(text, add_special=False, parse_special=True) == plain
    decoded = theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert ours.decode(ids) == decoded
    detokenizer = Detokenizer(ours)
    assert "".join(map(detokenizer.push, ids)) + detokenizer.flush() == decoded


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=texts)
def test_user_text_makes_no_control_token(
    pair: tuple[Tokenizer, PreTrainedTokenizerFast], text: str
) -> None:
    """T5: without parse_special only the unknown token, which no text spells, can appear."""
    ours, _ = pair
    ids = ours.encode(text, add_special=False)
    assert not {1, 2, 3, 4} & set(ids)


def test_special_ids_are_read(pair: tuple[Tokenizer, PreTrainedTokenizerFast]) -> None:
    """BOS, EOS, end of turn and what goes around a text."""
    ours, theirs = pair
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert ours.eog_ids == {2, 4}
    assert (ours.add_bos, ours.add_eos) == (True, True)
    assert ours.vocab_size == len(theirs)
    assert ours.token_to_id("<think>") == ours.vocab_size - 1


def test_generation_config_adds_end_of_generation_tokens(tmp_path: Path) -> None:
    """eos_token_id of generation_config.json may be several; ids out of range are left out."""
    folder = save(tmp_path, byte_level_bpe())
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 3, 9999, "x"]}')
    assert Tokenizer.from_file(folder).eog_ids == {2, 3, 4}


def test_config_decides_over_the_post_processor(tmp_path: Path) -> None:
    """add_bos_token in the config is what transformers goes by, and so do we."""
    folder = save(tmp_path, byte_level_bpe(), add_bos_token=True)
    tokenizer = Tokenizer.from_file(folder)
    assert tokenizer.encode("hello")[0] == 1
    assert (tokenizer.add_bos, tokenizer.add_eos) == (True, False)
    other = Tokenizer.from_json(folder / "tokenizer.json", {"bos_token": {"content": "<s>"}})
    assert (other.add_bos, other.bos_id, other.eos_id) == (False, 1, None)


def test_chat_templates_are_read_from_config_and_file(tmp_path: Path) -> None:
    """A template may be one, a list of named ones, or a file of its own, which wins."""
    folder = save(tmp_path, byte_level_bpe(), chat_template="one {{ eos_token }}")
    assert Tokenizer.from_file(folder).render_chat([user("a")]) == "one </s>"
    named = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    folder = save(tmp_path, byte_level_bpe(), chat_template=named)
    tokenizer = Tokenizer.from_file(folder)
    assert tokenizer.render_chat([user("a")]) == "d"
    assert tokenizer.render_chat([user("a")], tools=[]) == "t"
    (folder / "chat_template.jinja").write_text("own")
    assert Tokenizer.from_file(folder).render_chat([user("a")]) == "own"


def test_model_without_template_speaks_chatml(tmp_path: Path) -> None:
    """chat_template says that there is none; a chat is rendered as ChatML all the same."""
    tokenizer = Tokenizer.from_file(save(tmp_path, byte_level_bpe()))
    assert tokenizer.chat_template is None
    start, end = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("<|im_end|>")
    ids = tokenizer.encode_chat([user("hello")])
    assert (ids[0], ids.count(start), ids.count(end)) == (start, 2, 1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}, "merges": []}}'),
        ("tokenizer.json", b"\xff\xfe"),
        ("tokenizer_config.json", "["),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", b"\xff"),
        ("tokenizer_config.json", '{"chat_template": [{"name": "x"}]}'),
        ("tokenizer_config.json", "[" * 100_000),
        ("generation_config.json", "7"),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_broken_file_is_a_format_error(tmp_path: Path, name: str, content: str | bytes) -> None:
    """Any file that is not what it should be is the model's fault."""
    folder = save(tmp_path, byte_level_bpe())
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelFormatError):
        Tokenizer.from_file(folder)


def test_ids_far_apart_are_refused(tmp_path: Path) -> None:
    """One token with a huge id must not make us allocate for all below it."""
    folder = save(tmp_path, byte_level_bpe())
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"]["vocab"]["far"] = 4_000_000_000
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(ModelFormatError, match="gaps"):
        Tokenizer.from_file(folder)


def test_unknown_decoder_is_refused_by_name(tmp_path: Path) -> None:
    """A decoder that is not ours is named."""
    tokenizer = byte_level_bpe()
    tokenizer.decoder = decoders.CTC()
    with pytest.raises(UnsupportedModelError, match="CTC"):
        Tokenizer.from_file(save(tmp_path, tokenizer))


def test_missing_tokenizer_json_is_not_found(tmp_path: Path) -> None:
    """A directory without tokenizer.json says so."""
    with pytest.raises(ModelNotFoundError):
        Tokenizer.from_json(tmp_path / "tokenizer.json")


def test_truncation_and_padding_are_not_for_us(tmp_path: Path) -> None:
    """Training settings in the file cut or pad nothing."""
    tokenizer = byte_level_bpe()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    loaded = Tokenizer.from_file(save(tmp_path, tokenizer))
    assert loaded.decode(loaded.encode("hello there, world's end")) == "hello there, world's end"
