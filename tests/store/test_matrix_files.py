"""A matrix extracted elsewhere becomes a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import safetensors.torch
import torch
import zarr
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.sparse import csc_array, csr_array, save_npz

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.passes import moments
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.matrix_files import import_matrix
from ulcmod_dist.store.matrix_input import open_matrix
from ulcmod_dist.store.records import committed_digests
from ulcmod_dist.store.snapshot import open_snapshot

SHARD_ROWS = 100


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "BLOCK_BYTES", 4 * 7 * SHARD_ROWS)


@pytest.fixture
def matrix() -> NDArray[np.float64]:
    return np.random.default_rng(0).gamma(1.0, size=(SHARD_ROWS + 30, 7))


WRITERS: dict[str, Callable[[Path, NDArray[np.float64]], object]] = {
    "stored.npz": lambda path, matrix: np.savez(path, activations=matrix, labels=np.zeros(3)),
    "compressed.npz": lambda path, matrix: np.savez_compressed(path, a=matrix),
    "columns.npz": lambda path, matrix: np.savez(path, np.asfortranarray(matrix)),
    "sparse.npz": lambda path, matrix: save_npz(path, csr_array(matrix)),
    "m.npy": np.save,
    "m.safetensors": lambda path, matrix: save_file({"latents": matrix}, path),
    "m.zarr": lambda path, matrix: zarr.create_array(str(path), data=matrix),
}


@pytest.mark.parametrize("name", WRITERS)
def test_import__every_format_becomes_the_same_snapshot(
    run: RunDir, tmp_path: Path, matrix: NDArray[np.float64], name: str
) -> None:
    path = tmp_path / name
    matrix[matrix < 0.5] = 0
    WRITERS[name](path, matrix)
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


def test_import__bfloat16_is_read_exactly(run: RunDir, tmp_path: Path) -> None:
    values = torch.rand(2 * SHARD_ROWS, 7).bfloat16()
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({"activations": values, "other": torch.zeros(3)}, path)
    snapshot = import_matrix(run, open_matrix(str(path)))
    np.testing.assert_array_equal(snapshot.activations().raw.compute(), values.float().numpy())


def test_import__rows_of_an_archive_are_read_in_any_order(tmp_path: Path) -> None:
    values = np.arange(60.0).reshape(20, 3)
    np.savez_compressed(tmp_path / "m.npz", values)
    matrix = open_matrix(str(tmp_path / "m.npz"))
    for rows in (slice(5, 8), slice(12, 20), slice(0, 6)):
        np.testing.assert_array_equal(matrix[rows], values[rows])


def test_import__a_sparse_matrix_by_columns_is_refused(tmp_path: Path) -> None:
    save_npz(tmp_path / "m.npz", csc_array(np.eye(4)))
    with pytest.raises(InvalidInput, match="in the format csc") as refused:
        open_matrix(str(tmp_path / "m.npz"))
    assert "tocsr()" in str(refused.value.remedy)


def test_import__a_sparse_matrix_with_units_beyond_its_width_is_refused(
    run: RunDir, tmp_path: Path
) -> None:
    matrix = csr_array(np.eye(4))
    matrix.indices[2] = 9
    save_npz(tmp_path / "m.npz", matrix)
    with pytest.raises(InvalidInput, match="rows 0 to 3 of the matrix cannot be read"):
        import_matrix(run, open_matrix(str(tmp_path / "m.npz")))


def test_import__a_type_that_numpy_lacks_is_named(tmp_path: Path) -> None:
    values = torch.rand(4, 3).to(torch.float8_e4m3fn)
    safetensors.torch.save_file({"activations": values}, tmp_path / "m.safetensors")
    with pytest.raises(InvalidInput, match="has the type F8_E4M3"):
        open_matrix(str(tmp_path / "m.safetensors"))


def test_import__nothing_but_numbers_of_two_dimensions(tmp_path: Path) -> None:
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    with pytest.raises(InvalidInput, match=r"shape \(2, 2, 2\)"):
        open_matrix(str(tmp_path / "cube.npy"))
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    with pytest.raises(InvalidInput, match="numbers"):
        open_matrix(str(tmp_path / "words.npy"))


def test_import__a_unit_that_float32_cannot_hold_is_named(
    run: RunDir, matrix: NDArray[np.float64]
) -> None:
    matrix[:, 3] += 3e6
    with pytest.raises(InvalidInput, match=r"Unit 3 .* mean 3e\+06 .* would change \d+%"):
        import_matrix(run, matrix)


@pytest.mark.parametrize("constant", [0.1, 1.2345e20])
def test_import__a_constant_is_none_that_float32_cannot_hold(
    run: RunDir, matrix: NDArray[np.float64], constant: float
) -> None:
    matrix[:, 3] = constant
    activations = import_matrix(run, matrix).activations()
    assert activations.std[3] == 1.0
    assert activations.mean[3] == np.float32(constant)


@pytest.mark.parametrize("dtype", ["int64", ">f4", "float16", "uint8"])
def test_import__numbers_of_any_type_and_layout(run: RunDir, tmp_path: Path, dtype: str) -> None:
    given = np.asfortranarray(np.arange(60).reshape(12, 5) % 7, dtype=dtype)
    np.save(tmp_path / "given.npy", given)
    snapshot = import_matrix(run, open_matrix(str(tmp_path / "given.npy")))
    np.testing.assert_array_equal(snapshot.activations().raw.compute(), given)


@pytest.mark.parametrize("dtype", ["complex64", "bool", "datetime64[s]"])
def test_import__what_is_no_real_number_is_refused(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "given.npy", np.ones((2, 3)).astype(dtype))
    with pytest.raises(InvalidInput, match="real numbers"):
        open_matrix(str(tmp_path / "given.npy"))


def test_import__a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "short.npy"
    np.save(path, np.ones((30, 40)))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InvalidInput, match=r"short.npy is cut short: it has 9,720 bytes, of 9,728"):
        open_matrix(str(path))


@pytest.mark.parametrize("name", ["m.npy", "m.npz", "m.zarr/zarr.json", "m.zarr/c/0/0"])
def test_import__a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    array = zarr.create_array(str(tmp_path / "m.zarr"), data=np.ones((4, 4)))
    assert array.nchunks == 1
    (tmp_path / name).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    )
    with pytest.raises(InvalidInput, match=rf"{name} is a pointer of Git LFS"):
        open_matrix(str(tmp_path / name.partition("/")[0]))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("group", [False, True])
def test_import__a_zarr_that_lacks_chunks_is_refused_unless_allowed(
    run: RunDir, tmp_path: Path, zarr_format: Literal[2, 3], group: bool
) -> None:
    path = str(tmp_path / "m.zarr")
    given = np.random.default_rng(1).normal(size=(20, 9)).astype(np.float32)
    # Nothing but the fill value: Zarr leaves both chunks out.
    given[8:16, 6:] = 0
    store: Any = zarr.create_group(path, zarr_format=zarr_format) if group else path
    create = store.create_array if group else zarr.create_array
    name = {"name": "activations"} if group else {"store": store, "zarr_format": zarr_format}
    create(**name, shape=given.shape, chunks=(4, 3), dtype="f4")[:] = given
    with pytest.raises(
        InvalidInput,
        match=r"lacks 2 of its 15 chunks, the first that of the samples 8 to 11 and the units 6 to "
        r"8; they would read as 0\.0\. .* set matrix\.allow_missing_chunks to true",
    ):
        open_matrix(path)
    snapshot = import_matrix(run, open_matrix(path, allow_missing_chunks=True))
    np.testing.assert_array_equal(snapshot.activations().raw.compute(), given)


@pytest.mark.parametrize("index_location", ["start", "end"])
def test_import__chunks_that_a_shard_lacks_count(tmp_path: Path, index_location: str) -> None:
    path = str(tmp_path / "m.zarr")
    sharding: Any = {"shape": (8, 6), "index_location": index_location}
    array = zarr.create_array(path, shape=(19, 8), chunks=(4, 3), shards=sharding, dtype="f4")
    array[:] = np.ones(array.shape)
    # Chunks of the last shards that lie beyond the edge are no part of the array.
    open_matrix(path)
    array[4:8, 3:6] = 0
    (tmp_path / "m.zarr" / "c" / "2" / "1").unlink()
    with pytest.raises(
        InvalidInput, match=r"lacks 2 of its 15 chunks, .* samples 4 to 7 and the u"
    ):
        open_matrix(path)


def test_import__chunks_that_cannot_be_decoded_are_named(run: RunDir, tmp_path: Path) -> None:
    path = tmp_path / "m.zarr"
    zarr.create_array(str(path), data=np.ones((4, 4)), chunks=(2, 4))
    (path / "c" / "1" / "0").write_bytes(b"?")
    with pytest.raises(InvalidInput, match="rows 0 to 3 of the matrix cannot be read"):
        import_matrix(run, open_matrix(str(path)))


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
