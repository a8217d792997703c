"""A matrix extracted elsewhere becomes a run."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.matrix_files import SHARD_ROWS, import_matrix, open_matrix
from ulcmod_dist.store.records import committed_digests
from ulcmod_dist.store.snapshot import open_snapshot


@pytest.fixture
def matrix() -> NDArray[np.float64]:
    return np.random.default_rng(0).gamma(1.0, size=(SHARD_ROWS + 30, 7))


@pytest.mark.parametrize("kind", ["npy", "npz", "zarr"])
def test_import__every_format_becomes_the_same_snapshot(
    run: RunDir, tmp_path: Path, matrix: NDArray[np.float64], kind: str
) -> None:
    path = tmp_path / f"matrix.{kind}"
    if kind == "npy":
        np.save(path, matrix)
    elif kind == "npz":
        np.savez(path, activations=matrix, labels=np.zeros(3))
    else:
        zarr.create_array(str(path), data=matrix)
    import_matrix(run, open_matrix(str(path)))
    snapshot = open_snapshot(run)
    np.testing.assert_array_equal(snapshot.activations().raw.compute(), matrix.astype(np.float32))
    np.testing.assert_allclose(snapshot.activations().std, matrix.std(0, ddof=1), rtol=1e-6)
    assert snapshot.sample_ids()[:3] == ["0", "1", "2"]
    assert snapshot.units["layer"].null_count == 7


def test_import__again_writes_nothing(run: RunDir, matrix: NDArray[np.float64]) -> None:
    first = import_matrix(run, matrix)
    keys = list(run.keys())
    assert import_matrix(run, matrix).digest == first.digest
    assert list(run.keys()) == keys
    assert len(committed_digests(run)) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_import__what_is_not_finite_is_named(
    run: RunDir, matrix: NDArray[np.float64], bad: float
) -> None:
    matrix[SHARD_ROWS + 2, 5] = bad
    with pytest.raises(InvalidInput, match=rf"sample {SHARD_ROWS + 2} .* unit 5"):
        import_matrix(run, matrix)


def test_import__nothing_but_numbers_of_two_dimensions(tmp_path: Path) -> None:
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    with pytest.raises(InvalidInput, match=r"shape \(2, 2, 2\)"):
        open_matrix(str(tmp_path / "cube.npy"))
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    with pytest.raises(InvalidInput, match="numbers"):
        open_matrix(str(tmp_path / "words.npy"))


def test_import__pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInput, match="cannot be read"):
        open_matrix(str(tmp_path / "objects.npy"))


@pytest.mark.parametrize("name", ["absent.npy", "absent.zarr", "matrix.csv"])
def test_import__what_cannot_be_read_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        open_matrix(str(tmp_path / name))


def test_import__an_archive_of_several_arrays_must_name_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    with pytest.raises(InvalidInput, match=r"\['a', 'b'\]"):
        open_matrix(str(tmp_path / "two.npz"))
