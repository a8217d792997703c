"""The disk fills up in mid-run."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.killing import Killer, extraction
from tests.faults.test_kills import marks, require_whole, undisturbed
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.extract.monitor import ExtractionProgress
from ulcmod_dist.runtime.rundir import RunDir

__all__ = ["marks", "undisturbed"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=4m", "tmpfs"]
    if subprocess.run(["mount", *options, str(place)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_disk_full__one_clear_error_and_a_resume_completes(
    small_disk: Path, marks: str, undisturbed: str
) -> None:
    run = RunDir.at(small_disk / "run")
    filler = small_disk / "filler"

    def fill(progress: ExtractionProgress) -> None:
        if progress.shards_done >= 1 and not filler.exists():
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

    with pytest.raises(UlcmodError, match=r"The disk that holds .* is full. Make space"):
        extraction(run, Killer(marks), None, 0.1, on_progress=fill)
    filler.unlink()
    extraction(run, Killer(marks), None, 0.0)
    require_whole(run, marks, undisturbed)


def test_disk_too_small__extraction_does_not_start(
    small_disk: Path, marks: str, local_ray: None
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(4 * 2**20 - 16384))
    with pytest.raises(UlcmodError, match=r"The extraction writes .* bytes free"):
        extraction(RunDir.at(small_disk / "run"), Killer(marks), None, 0.0)
    assert not any(Path(marks).iterdir())
