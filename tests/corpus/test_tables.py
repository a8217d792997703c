"""Reading columns as text: equal values give equal texts in every format, or are refused by row."""

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.corpus.test_prompts import save_to_disk
from ulcmod_dist.config.schema import CorpusConfig
from ulcmod_dist.corpus.files import find_files
from ulcmod_dist.corpus.prompts import Corpus, read_corpus
from ulcmod_dist.corpus.tables import read_table
from ulcmod_dist.errors import InvalidInput

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
HALF = "\ud83d"
"""The first half of a surrogate pair, which JSON can escape and UTF-8 cannot encode."""


def read_texts(path: Path, name: str = "v", *, encoded: bool = False) -> list[str | None]:
    (source,) = find_files(str(path), "train")
    table = read_table(source, [], [name]) if encoded else read_table(source, [name])
    return table[name].to_pylist()  # type: ignore[no-any-return]


def read(*paths: Path, **columns: Any) -> Corpus:
    return read_corpus(CorpusConfig(train=tuple(map(str, paths)), **columns))


def csv_text(rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue()


VALUES: dict[str, tuple[pa.DataType, list[Any], list[str | None]]] = {
    "integers": (pa.uint64(), [0, None, 2**64 - 1], ["0", None, "18446744073709551615"]),
    "floats": (pa.float64(), [1.0, float("nan"), 1e300], ["1.0", "nan", "1e+300"]),
    "small floats": (pa.float32(), [0.1, None, -0.0], ["0.1", None, "-0.0"]),
    "booleans": (pa.bool_(), [True, False, None], ["True", "False", None]),
    "lists": (pa.list_(pa.string()), [["a", 'b"'], [], None], ["['a', 'b\"']", "[]", None]),
    "structs": (pa.struct([("a", pa.int8())]), [{"a": 1}, None], ["{'a': 1}", None]),
    "maps": (pa.map_(pa.string(), pa.bool_()), [{"a": True}], ["{'a': True}"]),
    "labels": (pa.dictionary(pa.int8(), pa.string()), ["x", None, "x"], ["x", None, "x"]),
    "nothing": (pa.null(), [None, None], [None, None]),
}


@pytest.mark.parametrize("kind", VALUES)
def test_read_table__values_of_a_type_read_alike_in_every_format(tmp_path: Path, kind: str) -> None:
    dtype, values, texts = VALUES[kind]
    ids = list(range(len(values)))
    pq.write_table(pa.table({"id": ids, "v": pa.array(values, dtype)}), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"v": v}) + "\n" for v in values))
    (tmp_path / "t.csv").write_text(csv_text([["id", "v"], *zip(ids, values, strict=True)]))
    assert read_texts(tmp_path / "t.parquet") == texts
    assert read_texts(tmp_path / "t.jsonl") == texts
    assert read_texts(tmp_path / "t.csv") == [text or "" for text in texts]


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        (pa.date32(), datetime.date(2024, 1, 2), "2024-01-02"),
        (pa.timestamp("us"), datetime.datetime(2024, 1, 2), "2024-01-02 00:00:00"),
        (pa.timestamp("ns"), datetime.datetime(2024, 1, 2), "2024-01-02 00:00:00"),
        (pa.duration("ns"), datetime.timedelta(days=1), "1 day, 0:00:00"),
        (pa.decimal128(5, 2), decimal.Decimal("1.50"), "1.50"),
        (pa.list_(pa.date32()), [datetime.date(2024, 1, 2)], "['2024-01-02']"),
        (pa.binary(), "grüß".encode(), "grüß"),
        (pa.binary(16), b"a" * 16, "a" * 16),
        (pa.uuid(), uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (pa.string_view(), "x", "x"),
    ],
)
def test_read_table__arrow_types_without_a_json_type_read_as_csv_has_them(
    tmp_path: Path, dtype: pa.DataType, value: Any, text: str
) -> None:
    with pa.ipc.new_stream(tmp_path / "part.arrow", pa.schema([("v", dtype)])) as writer:
        writer.write_table(pa.table({"v": pa.array([None, value], dtype)}))
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "part.arrow"}]}')
    assert read_texts(tmp_path) == [None, text]


def test_read_table__columns_read_as_json_keep_the_values_types(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "é", "tags": [1, None]}]
    pq.write_table(pa.table({"v": [chat]}), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text(json.dumps({"v": chat}) + '\n{"v": "[1]"}\n')
    assert json.loads(str(read_texts(tmp_path / "t.parquet", encoded=True)[0])) == chat
    assert json.loads(str(read_texts(tmp_path / "t.jsonl", encoded=True)[0])) == chat
    assert read_texts(tmp_path / "t.jsonl", encoded=True)[1] == "[1]"


def invalid_strings(values: list[bytes]) -> pa.Array:
    """Strings of bytes that Arrow takes to be UTF-8 without a look."""
    return pa.array(values, pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    ("array", "fault"),
    [
        (pa.array([b"a", b"\xff"], pa.binary()), "its bytes are not UTF-8"),
        (invalid_strings([b"a", b"\xe9t\xe9"]), "its bytes are not UTF-8"),
        (pa.array([0, 2**55], pa.timestamp("s")), "too large"),
    ],
)
def test_read_table__arrow_values_without_a_text_are_refused_by_row(
    tmp_path: Path, array: pa.Array, fault: str
) -> None:
    with pa.ipc.new_stream(tmp_path / "part.arrow", pa.schema([("v", array.type)])) as writer:
        writer.write_table(pa.table({"v": array}))
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "part.arrow"}]}')
    with pytest.raises(InvalidInput, match=rf"Row 1 of \S+part.arrow .* text in 'v'.*{fault}"):
        read_texts(tmp_path)


@pytest.mark.parametrize("value", [HALF, [HALF], {"a": {HALF: 1}}, [["x", {"b": HALF}]]])
@pytest.mark.parametrize("columns", [{"text": "v"}, {"category": "v"}, {"id": "v"}])
def test_read_corpus__half_surrogate_pairs_are_refused_in_every_column(
    tmp_path: Path, value: Any, columns: dict[str, str]
) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"text": "x", "v": "fine"}, {"text": "y", "v": value}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InvalidInput, match=r"Row 1 of \S+t.jsonl .* in 'v': .* surrogate pair"):
        read(path, **columns)


@pytest.mark.parametrize("as_text", [False, True])
def test_read_corpus__half_surrogate_pairs_in_chats_are_refused_by_row(
    tmp_path: Path, as_text: bool
) -> None:
    chats = [[{"role": "user", "content": text}] for text in ("\U0001f600", f"x{HALF}")]
    rows = [{"v": json.dumps(chat) if as_text else chat} for chat in chats]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InvalidInput, match=r"Row 1 of \S+t.jsonl .* surrogate pair"):
        read(tmp_path / "t.jsonl", messages="v")


def test_read_corpus__half_surrogate_pairs_in_other_columns_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "x", HALF: HALF}))
    assert read(tmp_path / "t.jsonl").table["text"].to_pylist() == ["x"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"text": ' + "9" * 5000 + "}", "too many digits"),
        ('{"text": "x", "v": [1e400]}', "beyond float64"),
        ('["text"]', "it is a list"),
        ('{"text": "x"', "Expecting ',' delimiter"),
    ],
)
def test_read_table__json_that_cannot_be_parsed_is_refused_by_line(
    tmp_path: Path, line: str, reason: str
) -> None:
    (tmp_path / "t.jsonl").write_text(f'{{"text": "x"}}\n\n{line}\n')
    with pytest.raises(InvalidInput, match=rf"Line 3 of \S+t.jsonl is no JSON object: .*{reason}"):
        read(tmp_path / "t.jsonl")


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("depth", [150, 480, 700, 950])
def test_read_corpus__deeply_nested_chats_are_refused_by_row(
    tmp_path: Path, depth: int, as_text: bool
) -> None:
    nested = "[" * depth + "]" * depth
    chat = f'[{{"role": "user", "content": "x", "extra": {nested}}}]'
    line = f'{{"v": {json.dumps(chat) if as_text else chat}}}\n'
    (tmp_path / "t.jsonl").write_text('{"v": [{"role": "user", "content": "x"}]}\n' + line)
    with pytest.raises(InvalidInput, match=r"([Rr]ow 1|Line 2) of \S+t.jsonl.* nested"):
        read(tmp_path / "t.jsonl", messages="v")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "jsonl.gz", "csv", "csv.bz2"])
def test_read_table__pointer_of_git_lfs_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    path.write_text(LFS_POINTER)
    with pytest.raises(InvalidInput, match=rf"{path} is a pointer of Git LFS"):
        read(path)


@pytest.mark.parametrize("name", ["state.json", "dataset_dict.json"])
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (LFS_POINTER, "pointer of Git LFS"),
        ("[]", "save_to_disk"),
        ("{}", "save_to_disk"),
        ('{"splits": 1, "_data_files": [{}]}', "save_to_disk"),
    ],
)
def test_find_files__damaged_state_of_a_saved_data_set_is_named(
    tmp_path: Path, name: str, content: str, fault: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInput, match=rf"{name} .*{fault}"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("content", ["", "\n\n"])
def test_read_table__empty_part_is_named(tmp_path: Path, suffix: str, content: str) -> None:
    (tmp_path / f"a.{suffix}").write_text('{"text": "x"}\n' if suffix == "jsonl" else "text\nx\n")
    (tmp_path / f"b.{suffix}").write_text(content)
    with pytest.raises(InvalidInput, match=rf"b.{suffix} is empty"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [("csv", "text\nfine\n\u00e9t\u00e9\n"), ("jsonl", '{"text": "x"}\n\n"é')],
)
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_read_table__other_encodings_are_refused_by_line(
    tmp_path: Path, suffix: str, content: str, encoding: str
) -> None:
    (tmp_path / f"t.{suffix}").write_text(content, encoding=encoding)
    with pytest.raises(
        InvalidInput, match=rf"t.{suffix} cannot .* line 3 is not UTF-8.* byte 0xe9"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("id,text\n1,a\n2,b,c\n", "Line 3 of .* has 3 fields, but its header 2"),
        ('id,text\n1,"a\nb"\n2\n', "Line 4 of .* has 1 fields, but its header 2"),
        ('id,text\n1,a\n2,"b\nc\nd', "a quote in the record of line 3 is never closed"),
        ('text\n"', "a quote in the record of line 2 is never closed"),
        ("text,text\na,b\n", "has several columns 'text'"),
        ("id;text\n1;a\n", "no column 'text'.*separated by semicolons"),
        ("id\ttext\n1\ta\n", "no column 'text'.*separated by tabs"),
    ],
)
def test_read_table__csv_that_would_be_misread_is_refused(
    tmp_path: Path, content: str, fault: str
) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InvalidInput, match=fault):
        read(tmp_path / "t.csv")


def test_read_table__csv_rows_of_many_megabytes_are_read_whole(tmp_path: Path) -> None:
    # Newlines and quotes at every offset around the edges of blocks of a power of two.
    texts = ["\r\n" * 2**20, '"\n' * (2**19 + 7), "x" * (2**22 + 1), "\0\r", "  y\n"]
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["v"], *([text] for text in texts)])
    limit = csv.field_size_limit()
    assert read_texts(tmp_path / "t.csv") == texts
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_read_table__csv_of_any_dialect_of_pythons_reader_is_equal(
    tmp_path: Path, quoting: Any, end: str
) -> None:
    rows = [["id", "v"], ["1", 'say "x",\r\ny'], ["2", 'lone\r"carriage"'], ["3", "last"]]
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, quoting=quoting, lineterminator=end).writerows(rows)
    text = (tmp_path / "t.csv").read_bytes().removesuffix(end.encode())
    (tmp_path / "t.csv").write_bytes(text)
    assert read_texts(tmp_path / "t.csv") == [row[1] for row in rows[1:]]


@settings(max_examples=150, deadline=None)
@given(st.text('ab",\r\n\0 é', max_size=30), st.sampled_from(["v,w\n", '"v",w\r\n', "\ufeffv,w\r"]))
@example('1,"a', "v,w\n")
@example('1,2\n"a""', "v,w\n")
def test_read_table__csv_is_what_pythons_reader_reads_or_refused(text: str, header: str) -> None:
    content = header + text
    rows = list(csv.reader(io.StringIO(content.removeprefix("\ufeff"), newline="")))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "t.csv"
        path.write_bytes(content.encode())
        (source,) = find_files(str(path), "train")
        refusal = None
        try:
            table = read_table(source, ["v", "w"])
        except InvalidInput as error:
            refusal = str(error)
    if refusal is None:
        found = zip(table["v"].to_pylist(), table["w"].to_pylist(), strict=True)
        assert [list(row) for row in found] == [row for row in rows[1:] if row]
    else:
        assert any(len(row) not in (0, 2) for row in rows) or "never closed" in refusal


def compress(data: bytes, suffix: str) -> bytes:
    zstd = pa.Codec("zstd")
    packers: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".zst": lambda data: zstd.compress(data, asbytes=True),
    }
    return packers[suffix](data)


printable = st.text(min_size=1, max_size=40).filter(lambda text: bool(text.strip()))
any_text = printable | st.text('a",\r\n\0 \ufeff\u2028', min_size=1).map(lambda text: f"{text}.")


labels = st.text(max_size=20).filter(lambda text: "\0" not in text)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.none() | labels | st.integers() | st.floats() | st.booleans(), min_size=1))
def test_read_corpus__any_label_is_equal_in_jsonl_and_csv(values: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [{"text": "x", "label": value} for value in values]
        (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        table = csv_text([["text", "label"], *(["x", value] for value in values)])
        (folder / "t.csv").write_bytes(table.encode())
        found = [read(folder / f"t.{kind}", category="label").table for kind in ("jsonl", "csv")]
    assert found[0].equals(found[1])
    for value, label in zip(values, found[0]["category"].to_pylist(), strict=True):
        assert label in (str(value), None)
        assert value is None or isinstance(value, str) or label is not None


@settings(max_examples=60, deadline=None)
@given(st.lists(any_text, min_size=1, max_size=8), st.sampled_from(["", ".gz", ".bz2", ".zst"]))
@example(["\ufeffx", "a\0", '"', "\r\n\r.", "\u2028\x1e.", "\ud7ff\U0010ffff"], "")
def test_read_corpus__any_text_is_equal_in_every_format(texts: list[str], packed: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(pa.table({"text": texts}), folder / "t.parquet")
        lines = "".join(
            json.dumps({"text": text}, ensure_ascii=not number % 2) + "\n"
            for number, text in enumerate(texts)
        )
        (folder / f"t.jsonl{packed}").write_bytes(compress(lines.encode(), packed))
        table = csv_text([["text"], *([text] for text in texts)])
        (folder / f"t.csv{packed}").write_bytes(compress(table.encode(), packed))
        save_to_disk(folder / "saved", [{"text": text} for text in texts])
        corpora = [read(path) for path in sorted(folder.iterdir())]
    assert len(corpora) == 4
    for corpus in corpora:
        assert corpus.table["text"].to_pylist() == texts
        np.testing.assert_array_equal(corpus.digests(), corpora[0].digests())


@pytest.mark.parametrize("suffix", ["jsonl.gz", "csv.gz", "jsonl.bz2", "csv.zst"])
def test_read_table__truncated_compressed_file_is_refused(tmp_path: Path, suffix: str) -> None:
    lines = [json.dumps({"text": str(uuid.uuid4())}) for _ in range(5000)]
    content = "\n".join(lines if "jsonl" in suffix else ["text", *lines])
    whole = compress(content.encode(), suffix[suffix.index(".") :])
    (tmp_path / f"t.{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInput, match=f"t.{suffix}"):
        read(tmp_path)
