r"""Planning, opening and updating runs of many prompts: seconds and memory of each step.

    python -m tests.benchmarks.corpus --prompts 1_000_000 --folder /tmp/corpus
    python -m tests.benchmarks.corpus --prompts 10_000_000 --folder /tmp/corpus --steps plan
    python -m tests.benchmarks.corpus --model jobs/demo/model --steps plan --folder /tmp/corpus

By default the model is a tiny one of random weights and the rows are drawn, not computed, except
those of the 1% of prompts that change at the end: what is measured is everything around the forward
passes. Each step is a process of its own, and its seconds include the start of Python. ``change``
writes the other corpus and plans it, ``update`` extracts it, and ``changed`` is a whole rerun.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

JOB = """\
run: {folder}/run
model: {{id: {model}, dtype: float32}}
corpus: {{train: {folder}/corpus.parquet, text: text, category: category, id: id}}
extract: {{batch_tokens: 4096, workers: 2}}
discover: {{modules: [2], restarts: 1}}
evaluate: {{null_permutations: 1, baselines: []}}
"""
TOPICS = np.array(["algebra", "poetry", "history", "cooking", "code", "physics", "travel"])
BLOCK = 500_000
STEPS = (
    "plan", "draw", "extract", "rerun", "status", "open", "again", "run", "change", "update",
    "changed",
)  # fmt: skip


def write_corpus(folder: Path, count: int, changed: int = 0) -> None:
    """Short prompts; the last ``changed`` differ from those of a call without it."""
    names = ["id", "text", "category"]
    schema = pa.schema([(name, pa.string()) for name in names])
    with pq.ParquetWriter(folder / "corpus.parquet", schema, compression="zstd") as writer:
        for start in range(0, count, BLOCK):
            rows = range(start, min(start + BLOCK, count))
            topics = TOPICS[np.array(rows) % len(TOPICS)]
            marks = ["a new word" if row >= count - changed else "a word" for row in rows]
            texts = [
                f"Say {mark} about {topic}, number {row}."
                for row, mark, topic in zip(rows, marks, topics, strict=True)
            ]
            columns = [[f"s{row}" for row in rows], texts, topics]
            writer.write_table(pa.table(columns, schema=schema))


@dataclass(frozen=True)
class Draw:
    """Writes shards of random rows, a block of prompts around each of seven centres."""

    run: Any
    shape: Any
    provenance: dict[str, str]
    units: int

    def __call__(self, rows: np.ndarray, digests: np.ndarray) -> None:
        from ulcmod_dist.store.records import Origin
        from ulcmod_dist.store.shards import ShardContent, ShardWriter

        generator = np.random.default_rng(int(rows[0]))
        centres = np.random.default_rng(0).gamma(1.0, size=(len(TOPICS), self.units))
        values = generator.random((len(rows), self.units), np.float32)
        values += centres[rows % len(TOPICS)].astype(np.float32)
        content = ShardContent(digests, values, np.full(len(rows), 30, np.int64))
        ShardWriter(self.run, self.shape).write(content, Origin(self.provenance))


def draw(folder: Path) -> None:
    from ulcmod_dist.pipeline.plan import prepare_extraction

    context = open_context(folder)
    prepared = prepare_extraction(context, save=False)
    plan = prepared.plan
    write = Draw(context.run, plan.chunk_shape, plan.provenance, plan.num_units)
    # A forked process would wait for the threads of the object store, which it does not have.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        rows = [shard.rows for shard in plan.shards]
        list(pool.map(write, rows, (prepared.digests[part] for part in rows)))


def open_context(folder: Path) -> Any:
    from ulcmod_dist.config.job import Job
    from ulcmod_dist.pipeline.context import Context
    from ulcmod_dist.runtime.rundir import RunDir

    job = Job.from_yaml(folder / "job.yaml")
    return Context(job, RunDir.at(job.run))


def plan(folder: Path) -> None:
    from ulcmod_dist.pipeline.context import writing
    from ulcmod_dist.pipeline.plan import prepare_extraction

    with writing(open_context(folder), "plan") as held:
        figures = prepare_extraction(held, save=True, update=True).plan.summary()
    print({name: figures[name] for name in ("prompts", "reused", "shards", "tokens")})


def update_snapshot(folder: Path) -> None:
    from ulcmod_dist.pipeline.extract import extract

    print(extract(open_context(folder), update=True).facts)


def open_samples(folder: Path) -> None:
    import ulcmod_dist as um

    print(um.open_run(folder / "run").snapshot.samples.num_rows, "samples")


def command(name: str, folder: Path) -> None:
    from ulcmod_dist.cli import main as ulcmod

    sys.argv = ["ulcmod", name, str(folder / "job.yaml")]
    ulcmod()


FUNCTIONS: dict[str, Callable[[Path], None]] = {
    "plan": plan,
    "draw": draw,
    "extract": partial(command, "extract"),
    "rerun": partial(command, "rerun"),
    "status": partial(command, "status"),
    "open": open_samples,
    "again": partial(command, "rerun"),
    "run": partial(command, "run"),
    "change": plan,
    "update": update_snapshot,
    "changed": partial(command, "rerun"),
}


def measure(name: str, folder: Path) -> tuple[float, float, int]:
    """Seconds and processor seconds of a step as a process, its largest resident memory in bytes.

    The memory is that of its largest process; of what Ray starts, nothing is counted.
    """
    began = time.perf_counter()
    words = [sys.executable, "-m", "tests.benchmarks.corpus", "--folder", str(folder)]
    process = subprocess.Popen([*words, "--step", name])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name} failed.")
    processor = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - began, processor, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--model", help="a folder; by default a tiny model is made")
    parser.add_argument("--steps", nargs="*", default=STEPS, choices=STEPS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.step:
        FUNCTIONS[options.step](folder)
        return
    if "plan" in options.steps:
        prepare(folder / "base", 1000, options.model)
        prepare(folder, options.prompts, options.model)
    _, _, base = measure("plan", folder / "base")
    print(f"{options.prompts:,} prompts; planning 1,000 takes {base / 2**20:,.0f} MiB")
    for name in options.steps:
        if name == "change":
            write_corpus(folder, options.prompts, options.prompts // 100)
        seconds, processor, peak = measure(name, folder)
        each = (peak - base) / options.prompts
        print(
            f"{name:8} {seconds:8.1f} s, {processor:8.1f} s of processors, "
            f"{peak / 2**20:8,.0f} MiB, {each:6.0f} B a prompt more"
        )


def prepare(folder: Path, count: int, model: str | None) -> None:
    """Write a corpus, a model unless one is given, and the job."""
    from tests.forward.tiny import save_tiny

    folder.mkdir(parents=True, exist_ok=True)
    write_corpus(folder, count)
    if model is None:
        model = str(save_tiny(folder / "model", max_position_embeddings=512))
    (folder / "job.yaml").write_text(JOB.format(folder=folder, model=Path(model).resolve()))


if __name__ == "__main__":
    main()
