"""The same store in a bucket: a real S3 endpoint over HTTP, started by the test."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from tests.store.conftest import GRID, RECORD, content_of, corpus_of, units_table
from ulcmod_dist.runtime.lease import Lease, LeaseHeld, LeaseLost
from ulcmod_dist.runtime.rundir import KeyExists, RunDir
from ulcmod_dist.store.manifest import write_manifest
from ulcmod_dist.store.matrix_files import import_matrix
from ulcmod_dist.store.records import CorruptionError, Origin
from ulcmod_dist.store.shards import ShardWriter
from ulcmod_dist.store.snapshot import open_snapshot
from ulcmod_dist.store.verify import find_orphans, verify

SECRET = "planted-secret-0123456789"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> RunDir:
    """A run directory in a new bucket; credentials come from the environment alone."""
    name = f"bucket-{abs(hash(request.node.name))}"
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT")):
        pass
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    return RunDir.at(f"s3://{name}/runs/mine")


def test_bucket__write_publish_open_verify(bucket: RunDir) -> None:
    prompts = [f"prompt {number}" for number in range(9)]
    writer = ShardWriter(bucket, GRID)
    shards = [writer.write(content_of(part), Origin(RECORD)) for part in (prompts[:5], prompts[5:])]
    write_manifest(bucket, corpus_of(prompts), units_table(), shards, provenance=RECORD)
    snapshot = open_snapshot(bucket)
    raw = snapshot.activations().raw.compute()
    np.testing.assert_array_equal(raw, content_of(prompts).activations)
    assert verify(bucket).findings == ()
    assert find_orphans(bucket) == []
    bucket.delete(f"{shards[0].folder}/activations/c/0/0")
    with pytest.raises(CorruptionError, match="missing"):
        snapshot.activations().raw.compute()
    assert [finding.problem for finding in verify(bucket).findings] == ["missing"]


def test_bucket__of_two_writers_one_commits(bucket: RunDir) -> None:
    content = content_of(["a", "b"])
    first = ShardWriter(bucket, GRID).write(content, Origin(RECORD))
    assert ShardWriter(bucket, GRID).write(content, Origin(RECORD, attempt=2)) == first
    bucket.create("once", b"x")
    with pytest.raises(KeyExists):
        bucket.create("once", b"y")


def test_bucket__lease_and_fence(bucket: RunDir) -> None:
    first = Lease.acquire(bucket, "extract")
    with pytest.raises(LeaseHeld):
        Lease.acquire(bucket, "extract")
    first.release()
    with Lease.acquire(bucket, "extract"), pytest.raises(LeaseLost):
        first.fence.check()


def test_bucket__a_matrix_is_imported(bucket: RunDir) -> None:
    matrix = np.random.default_rng(0).gamma(1.0, size=(20, 5)).astype(np.float32)
    snapshot = import_matrix(bucket, matrix)
    np.testing.assert_array_equal(snapshot.activations().raw.compute(), matrix)


def test_bucket__actors_write_into_it_and_no_credential_is_printed(
    bucket: RunDir, tmp_path: Path
) -> None:
    (tmp_path / "marks").mkdir()
    command = [sys.executable, "-m", "tests.faults.killing", bucket.url, str(tmp_path / "marks")]
    answer = subprocess.run(
        [*command, "", "", "", "0", "0"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=dict(os.environ),
    )
    assert answer.returncode == 0, answer.stderr
    assert open_snapshot(bucket).samples.num_rows == 40
    assert SECRET not in answer.stdout + answer.stderr
    assert not any(SECRET.encode() in bucket.read(key) for key in dict(bucket.keys()))
