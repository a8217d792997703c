"""Readers: every format and location gives the same prompts; faulty rows are named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from ulcmod_dist.config.schema import CorpusConfig
from ulcmod_dist.corpus.digests import to_hex
from ulcmod_dist.corpus.prompts import Corpus, read_corpus
from ulcmod_dist.errors import InvalidInput

ROWS: list[dict[str, Any]] = [
    {"key": "a", "text": "Sort a list, quickly.", "category": "Coding"},
    {"key": "b", "text": 'Say "grüß Gott"\nto the world.', "category": None},
    {"key": "c", "text": "翻译这句话。", "category": "Translation"},
]


def read(train: list[str], test: list[str] | None = None, **columns: Any) -> Corpus:
    return read_corpus(CorpusConfig(train=tuple(train), test=tuple(test or ()), **columns))


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    pacsv.write_csv(pa.Table.from_pylist(rows), path)


def save_to_disk(folder: Path, rows: list[dict[str, Any]]) -> None:
    """The layout of the Hugging Face library: Arrow streams beside state.json."""
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    names = [f"data-{number:05d}-of-00002.arrow" for number in range(2)]
    for name, part in zip(names, (table.slice(0, 2), table.slice(2)), strict=True):
        with pa.ipc.new_stream(folder / name, part.schema) as writer:
            writer.write_table(part)
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


Writer = Callable[[Path, list[dict[str, Any]]], None]


@pytest.mark.parametrize(
    ("write", "suffix"),
    [(write_parquet, ".parquet"), (write_jsonl, ".jsonl"), (write_csv, ".csv"), (save_to_disk, "")],
)
def test_read_corpus__every_format_gives_the_same_samples(
    tmp_path: Path, write: Writer, suffix: str
) -> None:
    path = tmp_path / f"corpus{suffix}"
    write(path, ROWS)
    prompts = read([str(path)], category="category", id="key")
    assert prompts.table.select(["sample_id", "text", "category"]).to_pylist() == [
        {"sample_id": row["key"], "text": row["text"], "category": row["category"]} for row in ROWS
    ]
    assert prompts.prompt(2) == ROWS[2]["text"]


def test_read_corpus__train_comes_before_test_and_ids_count_rows(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS[:2])
    write_parquet(tmp_path / "b.parquet", ROWS[2:])
    write_csv(tmp_path / "held.csv", ROWS[:1])
    prompts = read([f"{tmp_path}/a.jsonl", f"{tmp_path}/b.*"], [f"{tmp_path}/held.csv"])
    assert prompts.table["sample_id"].to_pylist() == ["train-0", "train-1", "train-2", "test-0"]
    assert prompts.table["split"].to_pylist() == ["train"] * 3 + ["test"]
    assert prompts.table["category"].to_pylist() == [None] * 4
    assert len(prompts) == 4


def test_read_corpus__folder_is_read_in_path_order_and_other_files_passed_over(
    tmp_path: Path,
) -> None:
    (tmp_path / "deep").mkdir()
    write_jsonl(tmp_path / "z.jsonl", ROWS[2:])
    write_jsonl(tmp_path / "deep" / "a.jsonl", ROWS[:2])
    (tmp_path / "README.md").write_text("no samples")
    (tmp_path / "_SUCCESS.json").write_text("")
    prompts = read([str(tmp_path)])
    assert prompts.table["text"].to_pylist() == [row["text"] for row in ROWS]


def test_read_corpus__url_is_read_like_a_path(tmp_path: Path) -> None:
    write_parquet(tmp_path / "corpus.parquet", ROWS)
    by_url = read([tmp_path.as_uri() + "/*.parquet"])
    np.testing.assert_array_equal(by_url.digests(), read([str(tmp_path)]).digests())


def test_read_corpus__saved_splits_are_chosen_by_name(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    save_to_disk(saved / "train", ROWS)
    save_to_disk(saved / "test", ROWS[::-1])
    (saved / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    prompts = read([str(saved)], [str(saved)])
    assert prompts.table["text"][3].as_py() == ROWS[2]["text"]
    (saved / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    with pytest.raises(InvalidInput, match="holds the splits train, not 'test'"):
        read([str(saved)], [str(saved)])


TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
PUBLISHED_TURNS = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi"}]


@pytest.mark.parametrize("write", [write_parquet, write_jsonl])
@pytest.mark.parametrize("turns", [TURNS, PUBLISHED_TURNS, json.dumps(TURNS)])
def test_read_corpus__chats_of_either_spelling_are_equal(
    tmp_path: Path, write: Writer, turns: Any
) -> None:
    path = tmp_path / ("c.parquet" if write is write_parquet else "c.jsonl")
    write(path, [{"chat": turns}])
    prompts = read([str(path)], text=None, messages="chat")
    assert prompts.prompt(0) == tuple(TURNS)
    assert prompts.table["text"].to_pylist() == ["Hi"]


def test_digests__equal_prompts_have_equal_digests_and_chats_differ_from_texts(
    tmp_path: Path,
) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"text": "Hi"}, {"text": "Hi "}, {"text": "Hi"}])
    write_jsonl(tmp_path / "c.jsonl", [{"chat": [{"role": "user", "content": "Hi"}]}])
    first, other, again = to_hex(read([f"{tmp_path}/t.jsonl"]).digests())
    (chat,) = to_hex(read([f"{tmp_path}/c.jsonl"], text=None, messages="chat").digests())
    assert first == again
    assert len({first, other, chat}) == 3


def test_read_corpus__missing_and_blank_texts_are_refused_by_row(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    write_jsonl(path, [{"text": "fine"}, {"text": "  "}, {"text": ""}, {"text": None}, {}])
    with pytest.raises(InvalidInput, match=r"4 of 5 train samples have no text.*row 1 of .*row 4"):
        read([str(path)])


def test_read_corpus__only_the_first_faulty_rows_are_listed(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "c.jsonl", [{"text": ""}] * 9)
    with pytest.raises(InvalidInput, match=r"row 4 of \S+ and 4 more") as caught:
        read([f"{tmp_path}/c.jsonl"])
    assert "row 5" not in str(caught.value)


@pytest.mark.parametrize("chat", [None, [], "no json", [{"role": "user"}], [{"role": "x"}], "[3]"])
def test_read_corpus__faulty_chats_are_refused_by_row(tmp_path: Path, chat: Any) -> None:
    write_jsonl(tmp_path / "c.jsonl", [{"chat": TURNS}, {"chat": chat}])
    with pytest.raises(InvalidInput, match=r"1 of 2 train samples .* row 1 of"):
        read([str(tmp_path)], text=None, messages="chat")


def test_read_corpus__repeated_ids_are_refused_across_splits(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    write_jsonl(tmp_path / "b.jsonl", ROWS[1:2])
    with pytest.raises(InvalidInput, match=r"1 ids occur again: 'b' \(row 0 of .*row 1 of"):
        read([f"{tmp_path}/a.jsonl"], [f"{tmp_path}/b.jsonl"], id="key")


def test_read_corpus__integer_ids_and_categories_become_strings(tmp_path: Path) -> None:
    write_parquet(tmp_path / "c.parquet", [{"text": "x", "n": 1}, {"text": "y", "n": 20}])
    write_jsonl(tmp_path / "d.jsonl", [{"text": "z", "n": 3}])
    prompts = read([str(tmp_path)], id="n", category="n")
    assert prompts.table["sample_id"].to_pylist() == ["1", "20", "3"]
    assert prompts.table["category"].to_pylist() == ["1", "20", "3"]


def test_read_corpus__class_numbers_become_their_names(tmp_path: Path) -> None:
    features = {"label": {"names": ["Math", "Coding"], "_type": "ClassLabel"}, "text": {}}
    table = pa.table({"text": ["x", "y", "z"], "label": [1, 0, -1]})
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(noted), tmp_path / "c.parquet")
    prompts = read([str(tmp_path)], category="label")
    assert prompts.table["category"].to_pylist() == ["Coding", "Math", None]


@pytest.mark.parametrize(
    ("write", "suffix"), [(write_parquet, ".parquet"), (write_jsonl, ".jsonl"), (write_csv, ".csv")]
)
def test_read_corpus__missing_column_names_the_existing_ones(
    tmp_path: Path, write: Writer, suffix: str
) -> None:
    write(tmp_path / f"c{suffix}", ROWS)
    with pytest.raises(InvalidInput, match=r"no column 'body'.* are 'key', 'text', 'category'"):
        read([str(tmp_path)], text="body")


@pytest.mark.parametrize("name", ["c.parquet", "c.csv", "c.jsonl", "c.jsonl.gz"])
def test_read_corpus__unreadable_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe\x00 no such thing")
    with pytest.raises(InvalidInput, match=f"{name} cannot be read as"):
        read([str(tmp_path)])


def test_read_corpus__broken_json_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"text": "x"}\n\n{"text": \n')
    with pytest.raises(InvalidInput, match=r"Line 3 of .*c.jsonl"):
        read([str(tmp_path)])


@pytest.mark.parametrize(
    ("location", "fault"),
    [
        ("absent.parquet", "does not exist"),
        ("*.parquet", "holds no samples"),
        ("notes.txt", "no suffix"),
        ("nowhere://bucket/x.parquet", "cannot be opened"),
    ],
)
def test_read_corpus__useless_locations_are_refused(
    tmp_path: Path, location: str, fault: str
) -> None:
    (tmp_path / "notes.txt").write_text("x")
    place = location if "://" in location else f"{tmp_path}/{location}"
    with pytest.raises(InvalidInput, match=fault):
        read([place])


def test_read_corpus__answers_change_no_digest_and_blank_ones_are_none(tmp_path: Path) -> None:
    answers = ["42", " ", None]
    write_jsonl(tmp_path / "a.jsonl", [{**r, "a": a} for r, a in zip(ROWS, answers, strict=True)])
    prompts = read([f"{tmp_path}/a.jsonl"], answer="a")
    assert prompts.table["answer"].to_pylist() == ["42", None, None]
    np.testing.assert_array_equal(prompts.digests(), read([f"{tmp_path}/a.jsonl"]).digests())


def test_read_corpus__an_answer_after_a_chat_that_ends_with_one_is_refused(tmp_path: Path) -> None:
    user, assistant = ({"role": role, "content": "Hi."} for role in ("user", "assistant"))
    rows = [{"chat": [user], "a": "Yes."}, {"chat": [user, assistant], "a": "No."}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(InvalidInput, match=r"1 of 2 train samples have an answer in 'a' .*row 1"):
        read([f"{tmp_path}/a.jsonl"], messages="chat", answer="a")
    rows[1]["a"] = ""
    write_jsonl(tmp_path / "a.jsonl", rows)
    found = read([f"{tmp_path}/a.jsonl"], messages="chat", answer="a")
    assert found.table["answer"].to_pylist() == ["Yes.", None]
