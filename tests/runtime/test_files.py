"""Files are created once and whole, also without hard links, and only where they can be."""

import errno
import fcntl
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.files import check_writable, create_exclusively
from ulcmod_dist.runtime.lease import Lease, LeaseHeld
from ulcmod_dist.runtime.rundir import KeyExists, RunDir


@pytest.fixture(params=[True, False], ids=["links", "no-links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system has hard links; without, as exFAT and FAT answer."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not request.param:
        monkeypatch.setattr(os, "link", refuse)
    return bool(request.param)


def test_create__of_concurrent_callers_exactly_one_succeeds(tmp_path: Path, links: bool) -> None:
    def create(number: int) -> bool:
        try:
            create_exclusively(tmp_path / f"new/{number % 5}", f"{number}".encode() * 1000)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(80))) == 5
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["0", "1", "2", "3", "4"]  # and no drafts
    sizes = {path.stat().st_size for path in (tmp_path / "new").iterdir()}
    assert sizes <= {1000, 2000}


def test_run_dir__keys_and_leases_are_exclusive_without_hard_links(
    tmp_path: Path, links: bool
) -> None:
    run = RunDir.at(tmp_path / "run")
    run.create("commits/a.json", b"first")
    with pytest.raises(KeyExists):
        run.create("commits/a.json", b"second")
    assert run.read("commits/a.json") == b"first"
    with Lease.acquire(run, "extract"), pytest.raises(LeaseHeld):
        Lease.acquire(run, "extract")


@pytest.mark.parametrize("name", ["null\0byte", "~no-such-user/run"])
def test_run_dir__what_is_no_path_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="is no path"):
        RunDir.at(name)


def test_run_dir__neither_links_nor_locks_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InvalidInput, match=r"has neither hard links nor locks: .* not supported"):
        RunDir.at(tmp_path).create("lease/1.json", b"")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "locked"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield folder
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("root may write everywhere, and mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("below", ["", "runs/mine"])
def test_check_writable__a_read_only_folder_is_named(read_only: Path, below: str) -> None:
    with pytest.raises(InvalidInput, match=f"{read_only / below} .*: {read_only} is read-only"):
        check_writable(read_only / below)


def test_check_writable__names_what_is_in_the_way_and_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling")
    for name, reason in {
        "taken": "taken is a file, not a folder",
        "taken/run": "taken is a file, not a folder",
        "dangling/run": "dangling is a file, not a folder",
        "n" * 300: "a name of 300 bytes is longer than",
        "ü" * 200: "a name of 400 bytes is longer than",
    }.items():
        with pytest.raises(InvalidInput, match=reason):
            check_writable(tmp_path / name)
    check_writable(tmp_path / "with space/100%/Läufe")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "taken"]
