"""Beam search, against transformers' and by itself."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.fake import FakeDetokenizer
from engine.tiny_model import write_tiny_model
from models.tiny import PARITY, make_hf
from quintet import LLM, BeamSearchParams, RequestError
from quintet.backends.reference import ReferenceExecutor
from quintet.beams import Beams
from quintet.config import EngineConfig
from quintet.engine.beam_search import Beam, BeamSearch
from quintet.engine.engine import Engine
from quintet.engine.output import Answer
from quintet.engine.request import Priority
from quintet.engine.thread import EngineThread
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import load_model
from quintet.runtime import Batch, Runtime

EOS = frozenset({3, 50, 77, 101, 120, 159})
PROMPTS = [np.random.default_rng(s).integers(0, 160, n).tolist() for s, n in enumerate((5, 20, 33))]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Runtime]]:
    """A random model in transformers, and the same one behind an engine."""
    directory = tmp_path_factory.mktemp("hf")
    model = make_hf(PARITY[0], directory)
    with SafetensorsDir.open(directory) as source:
        executor = ReferenceExecutor(load_model(source), num_blocks=64, max_num_batched_tokens=128)
    engine = Engine(
        executor,
        lambda *_: FakeDetokenizer(),
        eos_ids=EOS,
        max_model_len=200,
        config=EngineConfig(max_num_seqs=32, max_num_batched_tokens=128),
    )
    client = EngineThread(engine)
    yield model, Runtime(client, None)  # type: ignore[arg-type]
    client.close()


def search(runtime: Runtime, prompts: list[list[int]], params: BeamSearchParams) -> list[Any]:
    """The beams of each prompt, searched together."""
    beams = Beams(runtime, prompts, params, Priority.NORMAL)
    while requests := beams.requests():
        outputs = []
        with Batch(runtime.client, requests) as batch:
            while (following := batch.next()) is not None:
                request, stream = following
                answer = Answer(request)
                for chunk in stream:
                    answer.add(chunk)
                outputs.append(answer.output())
        beams.advance(outputs)
    return [found.beams for found in beams._searches]


@pytest.mark.parametrize("beam_width", [2, 5])
@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -0.7])
@pytest.mark.parametrize("ignore_eos", [False, True])
def test_beams_are_those_of_transformers(
    pair: tuple[Any, Runtime],
    beam_width: int,
    early_stopping: Any,
    length_penalty: float,
    ignore_eos: bool,
) -> None:
    """The answers, their order and their scores are those of `generate(num_beams=...)`."""
    model, runtime = pair
    params = BeamSearchParams(
        beam_width=beam_width,
        max_tokens=12,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        ignore_eos=ignore_eos,
    )
    for prompt, beams in zip(PROMPTS, search(runtime, PROMPTS, params), strict=True):
        wanted = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
            do_sample=False,
            num_beams=beam_width,
            num_return_sequences=beam_width,
            max_new_tokens=12,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            eos_token_id=None if ignore_eos else sorted(EOS),
            pad_token_id=1,
            return_dict_in_generate=True,
            output_scores=True,
        )
        assert len(beams) == beam_width
        for place, beam in enumerate(beams):
            sequence = wanted.sequences[place, len(prompt) :].tolist()
            assert sequence[: len(beam.token_ids)] == list(beam.token_ids)
            assert set(sequence[len(beam.token_ids) :]) <= {1}
            ends = beam.token_ids[-1] in EOS and not ignore_eos
            assert beam.finish_reason == ("stop" if ends else "length")
            score = wanted.sequences_scores[place].item()
            assert beam.score == pytest.approx(score, abs=1e-4)
            length = float(len(beam.token_ids))
            assert beam.score == pytest.approx(beam.logprob / length**length_penalty)


def test_one_beam_is_greedy_decoding(pair: tuple[Any, Runtime]) -> None:
    """A width of one takes the most probable token each time, and its first end."""
    model, runtime = pair
    params = BeamSearchParams(beam_width=1, max_tokens=12, early_stopping=True)
    for prompt, beams in zip(PROMPTS, search(runtime, PROMPTS, params), strict=True):
        wanted = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=sorted(EOS),
            pad_token_id=1,
        )
        assert [list(beam.token_ids) for beam in beams] == [wanted[0, len(prompt) :].tolist()]


def test_beams_share_their_prefixes(pair: tuple[Any, Runtime]) -> None:
    """Full blocks that answers have in common are computed once."""
    _, runtime = pair
    before = runtime.client.stats()
    prompt = list(range(100, 148))
    search(runtime, [prompt], BeamSearchParams(beam_width=4, max_tokens=8, ignore_eos=True))
    after = runtime.client.stats()
    num_prompt = after.num_prompt_tokens - before.num_prompt_tokens
    num_cached = after.num_cached_tokens - before.num_cached_tokens
    assert num_prompt == 48 + 4 * sum(range(49, 56))
    assert num_cached == 7 * 4 * 48


def test_beams_end_where_the_context_does(pair: tuple[Any, Runtime]) -> None:
    """A context of 200 tokens leaves answers of 3 to a prompt of 197."""
    _, runtime = pair
    prompt = [(7 * i) % 160 for i in range(197)]
    params = BeamSearchParams(beam_width=2, max_tokens=50, ignore_eos=True)
    (beams,) = search(runtime, [prompt], params)
    assert [len(beam.token_ids) for beam in beams] == [3, 3]


def test_llm_beam_search_gives_texts(tmp_path: Path) -> None:
    """The best answer's score is no worse than that of greedy decoding; texts go with beams."""
    write_tiny_model(tmp_path / "tiny.gguf")
    with LLM(tmp_path / "tiny.gguf", num_threads=1) as llm:
        params = BeamSearchParams(beam_width=3, max_tokens=6, ignore_eos=True)
        first, second = llm.beam_search(["Once upon", "a time"], params)
        (alone,) = llm.beam_search("a time", params)
        assert [asdict(beam) for beam in alone.beams] == [asdict(beam) for beam in second.beams]
        assert len(first.beams) == len(first.texts) == 3
        assert first.text == first.texts[0] == llm.tokenizer.decode(first.beams[0].token_ids)
        assert llm.beam_search([]) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("beam_width", value) for value in (0, 21, 1.0, True, "4", None)),
        *(("max_tokens", value) for value in (0, -1, 2**31, None)),
        *(("length_penalty", value) for value in (float("nan"), 10.1, -11, "1", None)),
        *(("early_stopping", value) for value in ("always", 1, None, "")),
        *(("ignore_eos", value) for value in (1, None, "never")),
    ],
)
def test_beam_params_refuse_by_name(name: str, value: Any) -> None:
    """A wrong type or a value out of range is refused, naming the parameter."""
    with pytest.raises(RequestError) as caught:
        BeamSearchParams(**{name: value})
    assert caught.value.parameter == name


def test_beam_width_leaves_room_for_the_ends() -> None:
    """Beside the most probable tokens, those that end an answer have to be listed."""
    options: dict[str, Any] = {"eos_ids": EOS, "max_model_len": 100}
    assert BeamSearch([1], BeamSearchParams(beam_width=14), **options).num_continuations == 20
    with pytest.raises(RequestError, match="at most 14 with a model of 6") as caught:
        BeamSearch([1], BeamSearchParams(beam_width=15), **options)
    assert caught.value.parameter == "beam_width"
    assert BeamSearch([1], BeamSearchParams(beam_width=15, ignore_eos=True), **options)


def test_beam_search_stops_without_anywhere_to_go() -> None:
    """When every continuation ends an answer, the search is over."""
    options: dict[str, Any] = {"eos_ids": frozenset({7}), "max_model_len": 100}
    found = BeamSearch([1], BeamSearchParams(beam_width=2), **options)
    found.advance([[(7, -0.5)]])
    assert found.is_finished
    assert found.beams == (Beam((7,), -0.5, -0.5, "stop"),)
