"""Conversations with a model, in threads and on an event loop."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from engine.tiny_model import CONTEXT_LENGTH, write_tiny_model
from quintet import LLM, AsyncLLM, ContextLengthError, RequestError, SamplingParams
from quintet.engine.output import OutputChunk
from quintet.parsing.events import ToolCallDelta
from quintet.sessions import AsyncSessions, Sessions, SessionStore
from quintet.sessions.exchange import Exchange, trim

SHORT = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_tiny_model(path)
    return path


@pytest.fixture(scope="module")
def llm(model: Path) -> Iterator[LLM]:
    with LLM(model, num_threads=1, kv_cache_bytes=2**20) as llm:
        yield llm


def say(text: str) -> dict:
    return {"role": "user", "content": text}


def answer(text: str) -> dict:
    return {"role": "assistant", "content": text}


def test_session_answers_from_the_whole_conversation(llm: LLM) -> None:
    """Each reply is what the model says to all that was said before."""
    sessions = Sessions(llm)
    first = sessions.chat("a", "one", SHORT, system="be brief")
    second = sessions.chat("a", "two", SHORT)
    messages = [{"role": "system", "content": "be brief"}, say("one"), answer(first.text)]
    assert first.text == llm.chat(messages[:2], SHORT).text
    assert second.text == llm.chat([*messages, say("two")], SHORT).text
    assert sessions.history("a") == [*messages, say("two"), answer(second.text)]
    assert second.num_hidden_turns == 0


def test_session_goes_on_after_a_restart(llm: LLM, tmp_path: Path) -> None:
    """A new program with the same file continues where the old one stopped."""
    with Sessions(llm, tmp_path / "s.db") as sessions:
        sessions.chat("a", "one", SHORT)
        expected = sessions.history("a")
    with Sessions(llm, tmp_path / "s.db") as sessions:
        assert sessions.history("a") == expected
        sessions.chat("a", "two", SHORT)
        assert len(sessions.history("a")) == 4
        assert [info.name for info in sessions.list()] == ["a"]


def test_sessions_do_not_know_each_other(llm: LLM) -> None:
    """Two names, two conversations; reset keeps the system prompt, delete nothing."""
    sessions = Sessions(llm)
    sessions.chat("a", "one", SHORT, system="be brief")
    alone = sessions.chat("b", "one", SHORT)
    assert alone.text == llm.chat([say("one")], SHORT).text
    sessions.reset("a")
    assert sessions.history("a") == [{"role": "system", "content": "be brief"}]
    assert sessions.delete("a")
    assert sessions.history("a") == []
    assert not sessions.delete("a")


def test_session_streams_and_keeps_what_was_read_to_the_end(llm: LLM) -> None:
    """A stream gives the same as chat; one that is left leaves the conversation as it was."""
    sessions = Sessions(llm)
    chunks = list(sessions.stream("a", "one", SHORT))
    text = "".join(chunk.text for chunk in chunks)
    assert text == llm.chat([say("one")], SHORT).text
    assert sessions.history("a") == [say("one"), answer(text)]
    for _ in sessions.stream("a", "two", SHORT):
        break
    assert len(sessions.history("a")) == 2
    assert len(sessions._locks) == 0


def test_session_takes_messages_of_any_role(llm: LLM) -> None:
    """Results of tools are part of a turn."""
    sessions = Sessions(llm)
    sessions.chat("a", "one", SHORT)
    sessions.chat("a", [{"role": "tool", "content": "42", "name": "f"}], SHORT)
    assert sessions.history("a")[2] == {"role": "tool", "content": "42", "name": "f"}


@pytest.mark.parametrize("arguments", ['{"city": "Paris"}', '{"city": "Par'])
def test_session_keeps_tool_calls_as_templates_read_them(arguments: str) -> None:
    """A whole call is part of the history, its arguments as values; one cut short is not."""
    store = SessionStore()
    exchange = Exchange(store.read("a"), (say("weather?"),))
    call = ToolCallDelta(0, arguments, "abcdefghi", "weather")
    exchange.finish_stream(
        store, [OutputChunk("r", text="Let me see. ", tool_calls=(call,), finish_reason="stop")]
    )
    (turn,) = store.read("a").turns
    expected = answer("Let me see. ")
    if arguments.endswith("}"):
        function = {"name": "weather", "arguments": {"city": "Paris"}}
        expected["tool_calls"] = [{"id": "abcdefghi", "type": "function", "function": function}]
    assert turn == (say("weather?"), expected)


def test_session_hides_whole_turns_when_the_context_is_full(llm: LLM) -> None:
    """The oldest turns go, the system prompt and all of the last ones stay; nothing is lost."""
    sessions = Sessions(llm)
    hidden = []
    for i in range(30):
        reply = sessions.chat("a", f"question {i} " * 2, SHORT, system="be brief")
        hidden.append(reply.num_hidden_turns)
        assert len(reply.output.prompt_token_ids) <= CONTEXT_LENGTH - 6
        shown = llm.tokenizer.decode(reply.output.prompt_token_ids, skip_special=False)
        assert shown.count("be brief") == 1
        assert shown.count("user\n") == i + 1 - reply.num_hidden_turns
        assert f"question {i} " in shown
    assert hidden == sorted(hidden)
    assert hidden[0] == 0 < hidden[-1]
    # The start of the prompt is the same for some exchanges: that is what the cache needs.
    assert len(set(hidden)) < 20
    assert len(sessions.history("a")) == 61


def test_session_says_when_a_question_alone_is_too_long(llm: LLM) -> None:
    """The question is never cut, and the conversation stays as it was."""
    sessions = Sessions(llm)
    sessions.chat("a", "one", SHORT)
    with pytest.raises(ContextLengthError):
        sessions.chat("a", "x" * CONTEXT_LENGTH, SHORT)
    assert len(sessions.history("a")) == 2
    sessions.chat("a", "two", SHORT)


@given(st.lists(st.integers(1, 50), max_size=20), st.data())
def test_trim_hides_as_few_turns_as_it_may(lengths: list[int], data: st.DataObject) -> None:
    """Nothing while all fits; else the fewest that leave a quarter of the room free."""
    first = data.draw(st.integers(0, len(lengths)))
    room = data.draw(st.integers(1, 400))

    def num_tokens(start: int) -> int:
        return 5 + sum(lengths[start:])

    start = trim(first, len(lengths), num_tokens, room)
    assert first <= start <= len(lengths)
    if num_tokens(first) <= room:
        assert start == first
    elif num_tokens(start) <= room * 3 // 4:
        assert start == first + 1 or num_tokens(start - 1) > room * 3 // 4
    else:
        assert start == len(lengths)


def test_session_refuses_several_answers_and_none_to_answer(llm: LLM) -> None:
    """One question, one answer."""
    sessions = Sessions(llm)
    with pytest.raises(RequestError, match="n: expected one answer"):
        sessions.chat("a", "one", SamplingParams(n=2))
    with pytest.raises(RequestError, match="content"):
        sessions.chat("a", [], SHORT)


def test_session_exchanges_of_one_name_wait_for_each_other(llm: LLM) -> None:
    """Eight threads say one thing each: eight whole turns, one after another."""
    sessions = Sessions(llm)
    params = SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True)
    threads = [
        threading.Thread(target=sessions.chat, args=("a", f"n{i}", params)) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = sessions.history("a")
    assert [message["role"] for message in history] == ["user", "assistant"] * 8
    assert {message["content"] for message in history[::2]} == {f"n{i}" for i in range(8)}
    for i in range(0, 16, 2):
        assert history[i + 1]["content"] == llm.chat(history[: i + 1], params).text
    assert len(sessions._locks) == 0


def test_async_sessions_answer_as_sessions_do(llm: LLM, model: Path, tmp_path: Path) -> None:
    """The same conversation on an event loop, in the same file."""
    expected = Sessions(llm)
    texts = [expected.chat("a", text, SHORT, system="be brief").text for text in ("one", "two")]

    async def main() -> None:
        async with (
            AsyncLLM(model, num_threads=1, kv_cache_bytes=2**20) as async_llm,
            AsyncSessions(async_llm, tmp_path / "s.db") as sessions,
        ):
            reply = await sessions.chat("a", "one", SHORT, system="be brief")
            assert reply.text == texts[0]
            chunks = [chunk async for chunk in sessions.stream("a", "two", SHORT)]
            assert "".join(chunk.text for chunk in chunks) == texts[1]
            assert await sessions.history("a") == expected.history("a")
            assert [info.num_turns for info in await sessions.list()] == [2]

            await asyncio.gather(*(sessions.chat("b", f"n{i}", SHORT) for i in range(5)))
            assert len(await sessions.history("b")) == 10
            task = asyncio.ensure_future(sessions.chat("b", "late", SHORT))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert len(await sessions.history("b")) == 10
            await sessions.reset("b")
            assert await sessions.history("b") == []
            assert await sessions.delete("b")
            assert sessions._locks == {}
        with Sessions(llm, tmp_path / "s.db") as sync:
            assert sync.history("a") == expected.history("a")

    asyncio.run(main())


def test_sessions_have_the_same_methods_sync_and_async() -> None:
    """Whoever knows one knows the other."""

    def names(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert names(Sessions) == names(AsyncSessions)
