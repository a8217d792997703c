import pickle
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.rundir import (
    KeyExists,
    RunDir,
    canonical_json,
    fingerprint,
    parquet_bytes,
    parse_parquet,
)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.at(tmp_path / "run")


def test_rundir__keys_are_listed_in_order_with_sizes(run: RunDir) -> None:
    run.write("b/two", b"22")
    run.write("a/one", b"1")
    assert list(run.keys()) == [("a/one", 1), ("b/two", 2)]
    assert list(run.keys("b")) == [("b/two", 2)]


def test_rundir__missing_key_raises_and_does_not_exist(run: RunDir) -> None:
    assert not run.exists("nothing")
    with pytest.raises(FileNotFoundError):
        run.read("nothing")
    run.delete("nothing")


def test_rundir__url_with_credentials_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidInput, match="The run directory is given by a URL that") as caught:
        RunDir.at("https://me:planted-secret@example.com/run")
    assert "planted" not in str(caught.value)


def test_rundir__of_many_creators_one_succeeds(run: RunDir) -> None:
    winners: list[int] = []

    def create(number: int) -> None:
        try:
            run.create("lock", str(number).encode())
        except KeyExists:
            return
        winners.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert run.read("lock") == str(winners[0]).encode()


def test_rundir__write_replaces_as_a_whole(run: RunDir) -> None:
    run.write("key", b"a long first value")
    run.write("key", b"short")
    assert run.read("key") == b"short"


def test_rundir__pickles_after_use(run: RunDir) -> None:
    run.write("key", b"value")
    assert pickle.loads(pickle.dumps(run)).read("key") == b"value"


def test_fingerprint__ignores_the_order_of_keys_and_nothing_else() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})


def test_canonical_json__refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"objective": float("nan")})


def test_parquet__is_read_without_a_thread_that_outlives_the_call() -> None:
    data = parquet_bytes(pa.table({f"c{number}": list(range(2000)) for number in range(30)}))
    before = sys.getrefcount(data)
    for _ in range(60):
        assert parse_parquet(data).num_columns == 30
        assert sys.getrefcount(data) == before
