"""Embedding requests in the engine: batching, company, failure, cancellation."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from engine.fake import HIDDEN_SIZE, VOCAB_SIZE, FakeExecutor, make_engine, make_request
from quintet.engine.embedding import EmbeddingRequest
from quintet.engine.engine import Engine
from quintet.engine.output import OutputChunk
from quintet.engine.thread import EngineThread
from quintet.errors import ContextLengthError, EngineError, RequestError


def text(length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(np.random.default_rng([length, seed]).integers(1, VOCAB_SIZE, length).tolist())


def embedding(*texts: tuple[int, ...], pooling="mean", name="e", **options) -> EmbeddingRequest:
    return EmbeddingRequest(name, texts, pooling, **options)


def run(engine: Engine) -> list[OutputChunk]:
    """Step until all work is done, auditing after every step."""
    chunks = []
    for _ in range(1000):
        if not engine.has_work:
            return chunks
        chunks += engine.step()
        engine.audit()
    raise AssertionError("it does not end")


def rows_of(chunks: list[OutputChunk], name: str, count: int, width=HIDDEN_SIZE) -> np.ndarray:
    """The vectors of a request that has ended well."""
    mine = [chunk for chunk in chunks if chunk.request_id == name]
    assert [chunk.finish_reason for chunk in mine] == [None] * (len(mine) - 1) + ["stop"]
    rows = np.full((count, width), np.nan, np.float32)
    for chunk in mine:
        found = np.frombuffer(chunk.vectors.data, np.float32).reshape(-1, chunk.vectors.width)
        assert np.isnan(rows[list(chunk.vectors.indices)]).all(), "a text came twice"
        rows[list(chunk.vectors.indices)] = found
    assert not np.isnan(rows).any()
    return rows


def embed(engine: Engine, *texts, **options) -> np.ndarray:
    request = embedding(*texts, **options)
    assert engine.embed(request) is None
    return rows_of(run(engine), request.request_id, len(texts))


TEXTS = [text(length) for length in (3, 40, 1, 17, 16, 200, 64, 5)]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
def test_vectors_have_the_same_bits_alone_and_in_company(pooling):
    """A text's vector does not depend on the others, on the budget, or on running sequences."""
    alone = np.concatenate([embed(make_engine(), t, pooling=pooling) for t in TEXTS])
    np.testing.assert_array_equal(embed(make_engine(), *TEXTS, pooling=pooling), alone)
    narrow = make_engine(
        FakeExecutor(max_num_batched_tokens=24), max_num_batched_tokens=24, max_num_seqs=4
    )
    np.testing.assert_array_equal(embed(narrow, *TEXTS, pooling=pooling), alone)
    busy = make_engine(max_num_mixed_prefill_tokens=8)
    busy.add(make_request(20, 60, request_id="r"))
    assert busy.embed(embedding(*TEXTS, pooling=pooling)) is None
    np.testing.assert_array_equal(rows_of(run(busy), "e", len(TEXTS)), alone)


def test_sequences_are_not_disturbed():
    """A sequence answers the same with texts embedded beside it, prefix cache and all."""
    plain = make_engine()
    plain.add(make_request(40, 30, request_id="r"))
    expected = [chunk.token_ids for chunk in run(plain)]
    busy = make_engine(FakeExecutor(num_blocks=24))
    busy.add(make_request(40, 30, request_id="r"))
    busy.embed(embedding(*TEXTS))
    chunks = run(busy)
    assert [c.token_ids for c in chunks if c.request_id == "r"] == expected
    assert busy.stats().num_used_blocks == 0


def test_texts_share_passes_without_padding():
    """Short texts of several requests go together, as many as the budget holds."""
    executor = FakeExecutor()
    engine = make_engine(executor)
    for name in "ab":
        engine.embed(embedding(*[text(10, seed) for seed in range(30)], name=name))
    chunks = run(engine)
    assert {len(rows_of(chunks, name, 30)) for name in "ab"} == {30}
    assert [len(step.token_ids) for step in executor.steps] == [510, 90]


def test_requests_take_turns():
    """A small request does not wait for a large one that came before."""
    engine = make_engine(FakeExecutor(num_blocks=64))
    engine.embed(embedding(*[text(100, seed) for seed in range(50)], name="large"))
    engine.step()
    engine.embed(embedding(text(5), name="small"))
    ends = [chunk.request_id for chunk in engine.step() + engine.step() if chunk.is_last]
    assert ends == ["small"]


def test_texts_wait_for_blocks_that_sequences_hold():
    """With the cache full of sequences an embedding waits, then gets its turn."""
    engine = make_engine(FakeExecutor(num_blocks=8))
    engine.add(make_request(100, 20, request_id="r"))
    engine.step()
    engine.embed(embedding(text(60)))
    chunks = run(engine)
    assert [chunk.request_id for chunk in chunks if chunk.is_last] == ["r", "e"]


def test_rank_gives_columns_of_the_head():
    """Ranking runs the model with its head and gives the columns asked for."""
    engine = make_engine()
    request = embedding(TEXTS[1], TEXTS[3], pooling="rank", label_ids=(4, 2))
    engine.embed(request)
    found = rows_of(run(engine), "e", 2, width=2)
    whole = make_engine()
    whole.embed(embedding(TEXTS[1], TEXTS[3], pooling="rank"))
    np.testing.assert_array_equal(found, rows_of(run(whole), "e", 2, VOCAB_SIZE)[:, [4, 2]])


def test_failed_pass_ends_only_whom_it_fails_for():
    """What the model raises ends the request that it raises for; its neighbour has its vector."""
    engine = make_engine(FakeExecutor(raise_at=[1, 2]))
    engine.embed(embedding(*TEXTS, name="a"))
    engine.embed(embedding(TEXTS[0], name="b"))
    chunks = run(engine)
    (failed,) = [chunk for chunk in chunks if chunk.request_id == "a"]
    assert failed.finish_reason == "error"
    assert "could not compute" in failed.error
    np.testing.assert_array_equal(rows_of(chunks, "b", 1), embed(make_engine(), TEXTS[0]))
    assert engine.stats().num_used_blocks == 0


def test_failed_request_alone_is_not_tried_again():
    """There is nobody else whom it could have been."""
    executor = FakeExecutor(raise_at=[1])
    engine = make_engine(executor)
    engine.embed(embedding(*TEXTS))
    assert [chunk.finish_reason for chunk in run(engine)] == ["error"]
    assert len(executor.steps) == 1


def test_vector_with_nan_fails_its_request_only():
    """A vector that is no number is an error, not an answer; its neighbour's is one."""
    engine = make_engine(FakeExecutor(nan_at=[1]))
    engine.embed(embedding(text(9), name="a", pooling="last"))
    engine.embed(embedding(text(8), name="b", pooling="last"))
    chunks = {chunk.request_id: chunk for chunk in engine.step()}
    assert (chunks["a"].finish_reason, chunks["b"].finish_reason) == ("error", "stop")


def test_abort_ends_a_request_between_passes():
    """What is left of an aborted request is not computed."""
    executor = FakeExecutor()
    engine = make_engine(executor)
    engine.embed(embedding(*[text(100, seed) for seed in range(50)]))
    engine.step()
    assert engine.abort("e").finish_reason == "abort"
    assert not engine.has_work
    assert engine.abort("e") is None
    assert len(executor.steps) == 1
    stats = engine.stats()
    assert (stats.num_requests, stats.num_running) == (1, 0)


def test_usage_counts_all_tokens():
    """The last chunk, and the engine's counters, say how many tokens it took."""
    engine = make_engine()
    engine.embed(embedding(*TEXTS))
    assert run(engine)[-1].usage.num_prompt_tokens == sum(map(len, TEXTS))
    assert engine.stats().num_prompt_tokens == sum(map(len, TEXTS))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (embedding(), RequestError),
        (embedding(()), RequestError),
        (embedding((VOCAB_SIZE,)), RequestError),
        (embedding((-1,)), RequestError),
        (embedding(("a",)), RequestError),
        (embedding(text(129)), ContextLengthError),
    ],
)
def test_what_cannot_be_served_is_refused(request_, error):
    """At the client's door with an error, in the loop with a last chunk."""
    engine = make_engine(max_model_len=128)
    with pytest.raises(error):
        engine.limits.check_embedding(request_)
    chunk = engine.embed(request_)
    assert chunk.finish_reason == "error"
    assert not engine.has_work


def test_id_in_use_is_refused():
    """Two unfinished requests cannot have one id, of whatever kind they are."""
    engine = make_engine()
    engine.add(make_request(4, request_id="e"))
    assert "in use" in engine.embed(embedding(text(3))).error


def test_thread_streams_vectors_and_cancels():
    """The engine's thread serves embeddings, and an abort reaches it while it computes."""
    gate = threading.Event()
    client = EngineThread(make_engine(FakeExecutor(gate=gate)))
    try:
        stream = client.embed(embedding(*[text(100, seed) for seed in range(50)]))
        other = client.embed(embedding(text(7), name="other"))
        stream.abort()
        gate.set()
        assert list(stream)[-1].finish_reason == "abort"
        assert list(other)[-1].usage.num_prompt_tokens == 7
        with pytest.raises(RequestError):
            client.embed(embedding(()))
    finally:
        client.close()
    with pytest.raises(EngineError):
        client.embed(embedding(text(7)))
