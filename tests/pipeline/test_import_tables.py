"""Tables of samples and units beside an imported matrix: text as written, or refused by row."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ulcmod_dist as um
from tests.pipeline.conftest import Ulcmod

SAMPLES, UNITS = 4, 3


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    activations = np.random.default_rng(0).lognormal(size=(SAMPLES, UNITS))
    np.save(tmp_path / "matrix.npy", activations.astype(np.float32))
    return tmp_path / "matrix.npy"


def write(path: Path, content: Any) -> Path:
    if isinstance(content, dict):
        pq.write_table(pa.table(content), path)
    else:
        path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "t.csv",
            "category,sample_id,split\r\n01,007,train\n,1e2,test\n NA,True,train\n, x,train\n",
        ),
        (
            "t.jsonl",
            '{"sample_id": "007", "category": "01", "split": "train"}\n'
            '{"sample_id": "1e2", "category": null, "split": "test"}\n'
            '{"sample_id": true, "category": " NA", "split": "train"}\n'
            '{"sample_id": " x", "category": "  ", "split": "train"}\n',
        ),
        (
            "t.parquet",
            {
                "sample_id": ["007", "1e2", "True", " x"],
                "category": ["01", None, " NA", ""],
                "split": ["train", "test", "train", "train"],
            },
        ),
    ],
)
def test_import__ids_and_categories_stay_as_written(
    tmp_path: Path, matrix: Path, ulcmod: Ulcmod, name: str, content: Any
) -> None:
    table = write(tmp_path / name, content)
    answer = ulcmod("import", matrix, "--samples", table, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    samples = um.open_run(tmp_path / "run").snapshot.samples
    assert samples["sample_id"].to_pylist() == ["007", "1e2", "True", " x"]
    assert samples["category"].to_pylist() == ["01", None, " NA", None]
    assert samples["split"].to_pylist() == ["train", "test", "train", "train"]


def test_import__parts_of_a_table_are_one_after_the_other(
    tmp_path: Path, matrix: Path, ulcmod: Ulcmod
) -> None:
    for category, ids in {"x": "ab", "y": "cd"}.items():
        folder = tmp_path / f"table/category={category}"
        folder.mkdir(parents=True)
        write(folder / "part.jsonl", "".join(json.dumps({"sample_id": i}) + "\n" for i in ids))
    answer = ulcmod("import", matrix, "--samples", tmp_path / "table", "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    samples = um.open_run(tmp_path / "run").snapshot.samples
    assert samples["sample_id"].to_pylist() == ["a", "b", "c", "d"]
    assert samples["category"].to_pylist() == ["x", "x", "y", "y"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("sample_id\na\nb\nb\na\n", "2 ids occur again: 'b' (row 2 of T, before: row 1 of T)"),
        ("sample_id,split\na,train\n,train\n ,test\nb,train\n", "2 of 4 samples have no id in "),
        ("sample_id\na\nb\0\nc\nd\n", "1 of 4 samples have a NUL character in 'sample_id': row 1"),
        ("category\na\nb\0\nc\nd\n", "1 of 4 samples have a NUL character in 'category': row 1"),
        ("id,label\na,x\nb,x\nc,x\nd,x\n", "T has the unknown columns 'id', 'label'. Known are"),
        ("sampel_id\na\nb\nc\nd\n", "The nearest to 'sampel_id' is 'sample_id'"),
        ("sample_id;split\na;train\nb;train\nc;train\nd;test\n", "separated by semicolons"),
        ("sample_id\tsplit\na\ttrain\nb\ttrain\nc\ttrain\nd\ttest\n", "separated by tabs"),
        ("split\ntrain\nTrain\n\"\"\ntest \n", "row 1 of T: 'Train', row 2 of T: '', row 3 of T: "),
        ("split\ntest\ntest\ntest\ntest\n", "T has no train samples"),
        ("sample_id\na\nb\nc\n", "T describes 3 samples; the matrix has 4"),
        ("sample_id,sample_id\na,a\nb,b\nc,c\nd,d\n", "T has several columns 'sample_id'"),
        ("version https://git-lfs.github.com/spec/v1\noid\nsize\n", "T is a pointer of Git LFS"),
        ("", "T is empty"),
    ],
)  # fmt: skip
def test_import__faulty_samples_are_refused_by_row(
    tmp_path: Path, matrix: Path, ulcmod: Ulcmod, content: str, fault: str
) -> None:
    table = write(tmp_path / "samples.csv", content)
    answer = ulcmod("import", matrix, "--samples", table, "--out", tmp_path / "run")
    assert answer.code == 2
    assert fault in answer.err.replace(str(table), "T")
    assert not (tmp_path / "run" / "activations.zarr").exists()


WHOLE = "have no whole number from 0 to 2,147,483,647"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("layer,index\nL0,0\n0,1\n1,0\n", f"1 of 3 units {WHOLE} in 'layer': row 0 of T: 'L0'"),
        ("layer,index\n0,0\n0.5,1\n1.0,0\n", f"2 of 3 units {WHOLE} in 'layer': row 1 of T: '0.5'"),
        ("layer,index\n0,0\n-1,1\n1,0\n", f"1 of 3 units {WHOLE} in 'layer': row 1 of T: '-1'"),
        ("layer,index\n0,0\n0,3000000000\n1,0\n", f"{WHOLE} in 'index': row 1 of T: '3000000000'"),
        ("layer\n0\n\u0661\n1\n", f"1 of 3 units {WHOLE} in 'layer': row 1 of T: '\u0661'"),
        ('layer\n0\n"1\n"\n1\n', f"1 of 3 units {WHOLE} in 'layer': row 1 of T: '1\\n'"),
        ("expert\nx\n\n1\n2\n", f"{WHOLE} in 'expert': row 0 of T: 'x'"),
        ("layer,index\n0,0\n,1\n1,0\n", "1 of 3 units have no value in 'layer'"),
        ("index,path\n0,a\n1,\n0,b\n", "1 of 3 units have no value in 'path'"),
        ("layer,index\n0,0\n0,0\n1,0\n", "1 units (layer, index) occur again: (0, 0) (row 1 of T"),
        ("unit,layer\n0,0\n2,0\n1,0\n", "2 of 3 units have another number than their row in"),
        ("Layer,idx\n0,0\n0,1\n1,0\n", "T has the unknown columns 'Layer', 'idx'"),
        ("layer;index\n0;0\n0;1\n1;0\n", "separated by semicolons"),
        ("layer,index\n0,0\n0,1\n", "T describes 2 units; the matrix has 3"),
    ],
)
def test_import__faulty_units_are_refused_by_row(
    tmp_path: Path, matrix: Path, ulcmod: Ulcmod, content: str, fault: str
) -> None:
    table = write(tmp_path / "units.csv", content)
    answer = ulcmod("import", matrix, "--units", table, "--out", tmp_path / "run")
    assert answer.code == 2
    assert fault in answer.err.replace(str(table), "T")


@pytest.mark.parametrize(
    "content",
    [
        "unit,layer,index,path,expert\n0,0,0,a,\n1,0,1,a,\n2,1,0,b,3\n",
        {
            "layer": [0, 0, 1],
            "index": [0, 1, 0],
            "path": ["a", "a", "b"],
            "expert": [None, None, 3],
        },
    ],
)
def test_import__units_keep_their_places(
    tmp_path: Path, matrix: Path, ulcmod: Ulcmod, content: Any
) -> None:
    table = write(tmp_path / ("u.csv" if isinstance(content, str) else "u.parquet"), content)
    answer = ulcmod("import", matrix, "--units", table, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert um.open_run(tmp_path / "run").snapshot.units.to_pylist() == [
        {"unit": 0, "layer": 0, "index": 0, "path": "a", "expert": None},
        {"unit": 1, "layer": 0, "index": 1, "path": "a", "expert": None},
        {"unit": 2, "layer": 1, "index": 0, "path": "b", "expert": 3},
    ]
