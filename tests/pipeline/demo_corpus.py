"""Part of the demo's corpus: the first prompts of three of its categories."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

DEMO = Path(__file__).parents[2] / "jobs" / "demo"
CATEGORIES = ("Coding", "Math", "Translation")


def write_demo_corpus(folder: Path, train: int = 20, test: int = 5) -> None:
    """Write train.parquet and test.parquet with so many prompts of each category."""
    for split, count in (("train", train), ("test", test)):
        table = pq.read_table(DEMO / f"{split}.parquet")
        parts = [table.filter(pc.equal(table["category"], name))[:count] for name in CATEGORIES]
        pq.write_table(pa.concat_tables(parts).combine_chunks(), folder / f"{split}.parquet")
