"""Write the demo corpus: `python -m jobs.demo.write_corpus` from the repository's root."""

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .corpus import Pair, generate

SEED = 2026
HERE = Path(__file__).parent


def table(split: str, pairs: dict[str, list[Pair]]) -> pa.Table:
    """Return the pairs as a table with columns id, category, text and answer."""
    rows = [
        {"id": f"{split}-{category.lower()}-{index:03d}", "category": category,
         "text": pair.text, "answer": pair.answer}
        for category, members in pairs.items()
        for index, pair in enumerate(members)
    ]  # fmt: skip
    columns = ("id", "category", "text", "answer")
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in columns]))


def write(folder: Path, seed: int = SEED) -> None:
    """Write train.parquet and test.parquet into a folder."""
    splits = generate(seed)
    for split, pairs in (("train", splits.train), ("test", splits.test)):
        pq.write_table(table(split, pairs), folder / f"{split}.parquet", compression="zstd")


def main() -> None:
    """Write the corpus beside this script, or where --out says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    write(arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
