"""``ulcmod corpus``: make a corpus from published files."""

from collections.abc import Sequence
from pathlib import Path

from ulcmod_dist.corpus.infinity import split_infinity, write_split
from ulcmod_dist.pipeline.summary import Summary


def infinity(
    files: Sequence[str],
    out: Path,
    *,
    train: int,
    test: int,
    seed: int,
    categories: Sequence[str] | None = None,
) -> Summary:
    """Make the paper's corpus of seven categories and say what was dropped and why."""
    split = split_infinity(files, train=train, test=test, seed=seed, categories=categories)
    written = write_split(split, out)
    return Summary(
        title="Prompts of a single category",
        columns={"category": "Category", "available": "Available"},
        rows=[{"category": name, "available": n} for name, n in split.available.items()],
        facts={
            "train_samples": split.train.num_rows,
            "test_samples": split.test.num_rows,
            "dropped": sum(split.dropped.values()),
            **{f"dropped: {reason}": count for reason, count in split.dropped.items()},
        },
        closing=[f"Wrote {path}" for path in written],
    )
