"""Where samples are found: partitions as Hive writes them, hidden folders, globs."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import fsspec
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from ulcmod_dist.config.job import Job
from ulcmod_dist.config.schema import CorpusConfig
from ulcmod_dist.corpus.files import find_files
from ulcmod_dist.corpus.prompts import Corpus, read_corpus
from ulcmod_dist.errors import InvalidInput

Rows = list[dict[str, str]]


def write_parquet(path: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_csv(path: Path, rows: Rows) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


FORMATS = {"parquet": write_parquet, "jsonl": write_jsonl, "csv": write_csv}
formats = pytest.mark.parametrize("suffix", FORMATS)


def write_part(folder: Path, suffix: str, rows: Rows) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    FORMATS[suffix](folder / f"part.{suffix}", rows)
    return folder / f"part.{suffix}"


def read(location: object, **columns: str) -> Corpus:
    return read_corpus(CorpusConfig(train=(str(location),), **columns))


def categories(location: object, name: str = "category") -> dict[str, str | None]:
    table = read(location, category=name).table
    return dict(zip(table["text"].to_pylist(), table["category"].to_pylist(), strict=True))


@formats
def test_partition__column_that_files_lack_is_read_from_their_folders(
    tmp_path: Path, suffix: str
) -> None:
    names = {"a": "Math", "b": "grüß/gott = 100%", "c": "__HIVE_DEFAULT_PARTITION__", "d": "007"}
    for text, name in names.items():
        folder = tmp_path / "lang=en" / f"category={quote(name, safe='')}"
        write_part(folder, suffix, [{"text": text}])
    expected = {**names, "c": None}
    assert categories(tmp_path) == expected
    assert categories(f"{tmp_path}/lang=*/category=*/*.{suffix}") == expected
    assert categories(f"{tmp_path}/*/category=*") == expected
    assert categories(tmp_path.as_uri()) == expected
    assert categories(tmp_path / "lang=en/category=Math") == {"a": "Math"}
    assert categories(tmp_path / f"lang=en/category=Math/part.{suffix}") == {"a": "Math"}
    assert categories(tmp_path, "lang") == dict.fromkeys(names, "en")


def test_partition__folders_that_arrow_writes_are_read(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b", "c"], "category": ["x y", None, "z"]})
    pads.write_dataset(
        table, tmp_path, format="parquet", partitioning=["category"], partitioning_flavor="hive"
    )
    assert categories(tmp_path) == {"a": "x y", "b": None, "c": "z"}


def test_partition__hidden_files_are_skipped_but_not_columns_with_an_underscore(
    tmp_path: Path,
) -> None:
    write_part(tmp_path / "_lang=en", "jsonl", [{"text": "a"}])
    write_part(tmp_path / "_temporary", "jsonl", [{"text": "b"}])
    write_part(tmp_path / ".staging=1", "jsonl", [{"text": "c"}])
    assert categories(tmp_path, "_lang") == {"a": "en"}


@formats
def test_partition__column_in_both_must_agree(tmp_path: Path, suffix: str) -> None:
    rows = [{"text": "a", "category": "1"}, {"text": "b", "category": "1"}]
    write_part(tmp_path / "category=1", suffix, rows)
    assert categories(tmp_path) == {"a": "1", "b": "1"}
    write_part(tmp_path / "category=2", suffix, [{"text": "c", "category": "1"}])
    with pytest.raises(InvalidInput, match=r"Row 0 of .*=2/part.* has '1' in 'category', .* '2'"):
        categories(tmp_path)


def test_partition__ids_from_a_folder_are_checked_as_others(tmp_path: Path) -> None:
    write_part(tmp_path / "id=7", "jsonl", [{"text": "a"}, {"text": "b"}])
    with pytest.raises(InvalidInput, match="1 ids occur again: '7'"):
        read(tmp_path, id="id")


def test_partition__other_encodings_are_refused(tmp_path: Path) -> None:
    write_part(tmp_path / "category=%E9t%E9", "jsonl", [{"text": "a"}])
    with pytest.raises(InvalidInput, match="another encoding than UTF-8"):
        categories(tmp_path)


def memory_url(folder: Path) -> str:
    """The folder's files copied into fsspec's object store in memory."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    for path in sorted(folder.rglob("*.jsonl")):
        memory.pipe(f"/bucket/{path.relative_to(folder)}", path.read_bytes())
    return "memory://bucket"


@pytest.mark.parametrize("place", [str, Path.as_uri, memory_url], ids=["path", "file", "memory"])
@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        (".cache/hub/*.jsonl", "a"),
        (".cache/hub", "a"),
        (".cache/h*/part.jsonl", "a"),
        ("*/hub/*.jsonl", "b"),
        (".c*/hub/*.jsonl", "a"),
        ("**/*.jsonl", "b"),
        ("**", "b"),
        ("*", "b"),
        ("o*", "b"),
        ("open/_parts/*", "c"),
        ("open/*/part.jsonl", "b"),
        ("open/_*/part.jsonl", "c"),
        ("open", "b"),
    ],
)
def test_find_files__only_what_the_location_does_not_name_is_hidden(
    tmp_path: Path, pattern: str, texts: str, place: Callable[[Path], str]
) -> None:
    for text, folder in {"a": ".cache/hub", "b": "open/hub", "c": "open/_parts"}.items():
        write_part(tmp_path / folder, "jsonl", [{"text": text}])
    corpus = read(f"{place(tmp_path)}/{pattern}")
    assert corpus.table["text"].to_pylist() == list(texts)


def test_find_files__brackets_in_the_name_of_a_folder_are_no_pattern(tmp_path: Path) -> None:
    write_part(tmp_path / "data[1]/.work", "jsonl", [{"text": "a"}])
    write_part(tmp_path / "data[1]/.work/.old", "jsonl", [{"text": "b"}])
    assert read(tmp_path / "data[1]/.work").table["text"].to_pylist() == ["a"]


def test_find_files__relative_locations_below_hidden_folders_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_part(tmp_path / ".work/data", "jsonl", [{"text": "a"}])
    monkeypatch.chdir(tmp_path / ".work")
    for location in ("data", "./data/", "data/*.jsonl", "../.work/data/*.jsonl", "../.work/data"):
        assert len(find_files(location, "train")) == 1, location


def test_job__keeps_the_name_of_a_file_that_links_to_one_without_a_suffix(tmp_path: Path) -> None:
    # The cache of Hugging Face: snapshots/<revision>/part.jsonl links to blobs/<digest>.
    part = write_part(tmp_path / "snapshots", "jsonl", [{"text": "a"}])
    part.rename(tmp_path / "blob")
    part.symlink_to(tmp_path / "blob")
    text = "run: run\nmodel: {id: m, revision: %s}\ncorpus: {train: ../snapshots/part.jsonl}\n"
    text += "discover: {modules: [1]}\n"
    folder = tmp_path / "jobs"
    folder.mkdir()
    job = Job.from_text(text % ("a" * 40), source="job.yaml", folder=folder)
    assert job.corpus is not None
    assert read_corpus(job.corpus).table["text"].to_pylist() == ["a"]
