import runpy
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_job_reference__equals_what_the_models_say() -> None:
    written = (DOCS / "job.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(DOCS / "job_reference.py"))["reference"]() == written
