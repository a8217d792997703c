"""Chats: whole messages, equal in every format, and digests that cover what a template is given."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ulcmod_dist.config.schema import CorpusConfig
from ulcmod_dist.corpus.chats import digest_prompt
from ulcmod_dist.corpus.digests import to_hex
from ulcmod_dist.corpus.prompts import Corpus, read_corpus
from ulcmod_dist.errors import InvalidInput

USER = {"role": "user", "content": "What is the time in Rome?"}
CALL = {"type": "function", "id": "c1", "function": {"name": "time", "arguments": {"zone": "CET"}}}
CHAT = [
    USER,
    {"role": "assistant", "reasoning_content": "Call it.", "tool_calls": [CALL]},
    {"role": "ipython", "name": "time", "tool_call_id": "c1", "content": "12:00"},
    {"role": "User", "content": [{"type": "text", "text": "Thanks"}]},
]


def read(path: Path) -> Corpus:
    return read_corpus(CorpusConfig(train=(str(path),), messages="chat"))


def read_jsonl(folder: Path, chats: list[Any]) -> Corpus:
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps({"chat": chat}) + "\n" for chat in chats))
    return read(path)


def read_parquet(folder: Path, chats: list[Any], schema: pa.Schema | None = None) -> Corpus:
    path = folder / "c.parquet"
    rows = [{"chat": chat} for chat in chats]
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return read(path)


def test_read_corpus__messages_are_kept_whole(tmp_path: Path) -> None:
    corpus = read_jsonl(tmp_path, [CHAT])
    assert corpus.prompt(0) == tuple(CHAT)
    assert corpus.table["text"].to_pylist() == [USER["content"]]


def test_read_corpus__keys_of_tool_arguments_keep_their_order(tmp_path: Path) -> None:
    call = {"function": {"name": "f", "arguments": {"zone": "CET", "day": 1}}}
    orders = [call, {"function": {"name": "f", "arguments": {"day": 1, "zone": "CET"}}}]
    corpus = read_jsonl(
        tmp_path, [[USER, {"role": "assistant", "tool_calls": [each]}] for each in orders]
    )
    kept = corpus.prompt(0)[1]["tool_calls"][0]["function"]["arguments"]  # type: ignore[index]
    assert list(kept) == ["zone", "day"]
    # A template prints them in this order, so the rows differ.
    assert len(set(to_hex(corpus.digests()))) == 2


def test_read_corpus__null_fields_are_absent_in_both_formats(tmp_path: Path) -> None:
    absent = [USER, {"role": "assistant", "tool_calls": [CALL]}]
    null = [
        {**USER, "tool_calls": None, "name": None},
        {
            "role": "assistant",
            "content": None,
            "name": None,
            "tool_calls": [CALL | {"index": None}],
        },
    ]
    digests = to_hex(read_jsonl(tmp_path, [absent, null]).digests())
    assert to_hex(read_parquet(tmp_path, [absent, null]).digests()) == digests
    assert digests[0] == digests[1]


def test_digests__of_plain_chats_are_those_of_earlier_versions() -> None:
    # Of the JSON [{"content": "Hi", "role": "user"}] with an indent of one, as it always was.
    known = "3a9e79c6acc6f6c6c1c6f9e7c0b57748dee5bfe68b0fd092f48e82935e49801e"
    assert digest_prompt(({"role": "user", "content": "Hi"},)).hex() == known


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ([USER, {"role": "assistant", "content": None}], "message 1 has neither content nor"),
        ([{"role": 3, "content": "x"}], "message 0 has no role"),
        ([{"content": "x"}], "message 0 has no role"),
        ([{"role": "user", "content": 7}], "content of message 0 is of type int"),
        ([USER, "x"], "message 1 is no object"),
        ([{"role": "user", "content": " "}], "no message has text"),
        ([{"role": "user", "content": "a", "weight": float("inf")}], "not JSON compliant"),
        ({"role": "user", "content": "a"}, "not a list of messages"),
        ("[" * 10_000, "no JSON that can be read"),
    ],
)
def test_read_corpus__a_faulty_chat_is_refused_with_row_and_reason(
    tmp_path: Path, chat: Any, reason: str
) -> None:
    with pytest.raises(
        InvalidInput, match=rf"1 of 2 train samples .*row 1 of .*c.jsonl: .*{reason}"
    ):
        read_jsonl(tmp_path, [[USER], chat])


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SPOKEN = WORDS.filter(str.strip)
# Templates print arguments in their order, which in Parquet is that of the schema.
ARGUMENT_TYPES = {"q": pa.string(), "n": pa.int64(), "deep": pa.list_(pa.string())}
ARGUMENTS = st.fixed_dictionaries(
    {"q": WORDS}, optional={"n": st.integers(-9, 9), "deep": st.lists(WORDS)}
).map(lambda chosen: {key: chosen[key] for key in ARGUMENT_TYPES if key in chosen})
CALLS = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": SPOKEN, "arguments": ARGUMENTS}),
    },
    optional={"id": st.none() | WORDS},
)
FURTHER = {
    "name": st.none() | WORDS,
    "tool_call_id": st.none() | WORDS,
    "reasoning_content": st.none() | WORDS,
    "weight": st.none() | st.booleans(),
}
ROLES = st.sampled_from(["system", "user", "assistant", "tool", "ipython", "Üser"])
SAID = st.fixed_dictionaries({"role": ROLES, "content": SPOKEN}, optional=FURTHER)
CALLED = st.fixed_dictionaries(
    {"role": st.just("assistant"), "tool_calls": st.lists(CALLS, min_size=1, max_size=2)},
    optional={"content": st.none() | WORDS, **FURTHER},
)
CHATS = st.tuples(SAID, st.lists(SAID | CALLED, max_size=4)).map(
    lambda parts: [parts[0], *parts[1]]
)


SCHEMA = pa.schema({"chat": pa.list_(pa.struct({
    "role": pa.string(), "content": pa.string(), "name": pa.string(), "tool_call_id": pa.string(),
    "reasoning_content": pa.string(), "weight": pa.bool_(),
    "tool_calls": pa.list_(pa.struct({
        "type": pa.string(), "id": pa.string(),
        "function": pa.struct({"name": pa.string(), "arguments": pa.struct(ARGUMENT_TYPES)}),
    })),
}))})  # fmt: skip


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    return list(map(without_nulls, value)) if isinstance(value, list) else value


@settings(max_examples=30, deadline=None)
@given(chats=st.lists(CHATS, min_size=1, max_size=3))
def test_read_corpus__any_chat_is_whole_and_equal_in_both_formats(
    tmp_path_factory: pytest.TempPathFactory, chats: list[Any]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    lines, columns = read_jsonl(folder, chats), read_parquet(folder, chats, SCHEMA)
    given = [tuple(without_nulls(chat)) for chat in chats]
    assert lines.prompts(range(len(chats))) == given
    assert columns.prompts(range(len(chats))) == given
    assert to_hex(lines.digests()) == to_hex(columns.digests())
    as_text = read_jsonl(folder, [json.dumps(chat) for chat in chats])
    assert to_hex(as_text.digests()) == to_hex(lines.digests())
