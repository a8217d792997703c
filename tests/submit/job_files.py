"""Job files for the tests of submission."""

from pathlib import Path

REVISION = "0123456789abcdef0123456789abcdef01234567"

HUB_JOB = f"""\
run: s3://bucket/runs/mine
model: {{id: someone/model, revision: {REVISION}}}
corpus: {{train: /data/train.parquet}}
extract: {{workers: 6}}
discover: {{modules: [5]}}
"""

CLUSTER = """\
cluster:
  nodes: 3
  cpus: 16
  memory_gib: 64
  gpus: 2
  hours: 1.5
  image: registry.example/ulcmod:1
  volumes: [data:/data, models:/models]
  secrets: [object-store]
"""

MATRIX_JOB = """\
run: {run}
matrix: {{path: matrix.npy}}
discover: {{modules: [2]}}
"""


def job_file(folder: Path, text: str = HUB_JOB + CLUSTER) -> Path:
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path
