"""Rows, losses and completions on a GPU are those of the CPU."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2Model

from tests.forward.test_prefix import make_chats
from tests.forward.tiny import FAMILIES, SPARSE, make_prompts, tiny_model
from ulcmod_dist.forward.architectures import is_decoder
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.memory import estimate_token_bytes, get_device_memory
from ulcmod_dist.intervene.engine import LossEngine
from ulcmod_dist.intervene.generate import Sampling, SteeringEngine
from ulcmod_dist.intervene.masks import Mask

# Where the first product of a process is that of a backward pass, in a thread of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS:UserWarning")

LENGTHS = [1, 37, 5, 12, 2, 29]
DECODERS = [family for family in FAMILIES if is_decoder(family)]


def make_engines(family: str, **options: Any) -> tuple[Engine, Engine]:
    """The same model on the CPU and on the GPU."""
    head = options.get("statistic") == "attribution"
    on_cpu, on_gpu = (tiny_model(family, head=head) for _ in range(2))
    return Engine(on_cpu, **options), Engine(on_gpu.to("cuda"), **options)


def make_qwen(layers: int = 4, *, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A model of the size of real ones, with random weights."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=10_000, hidden_size=896, intermediate_size=4864, num_hidden_layers=layers,
        num_attention_heads=14, num_key_value_heads=2,
    )  # fmt: skip
    model: Any = Qwen2Model(config)
    return model.to("cuda", dtype).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_rows__equal_those_of_the_cpu(family: str) -> None:
    on_cpu, on_gpu = make_engines(family)
    prompts = make_prompts(LENGTHS)
    expected, rows = on_cpu.run(prompts), on_gpu.run(prompts)
    scale = 1e-5 * float(expected.activations.max())
    np.testing.assert_allclose(rows.activations, expected.activations, 1e-4, scale)
    if family in SPARSE:
        np.testing.assert_array_equal(rows.routed, expected.routed)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows__are_the_same_bytes_again_and_do_not_depend_on_the_batch(family: str) -> None:
    engine = make_engines(family)[1]
    prompts = make_prompts(LENGTHS)
    together = engine.run(prompts).activations
    assert engine.run(prompts).activations.tobytes() == together.tobytes()
    alone = np.concatenate([engine.run([prompt]).activations for prompt in prompts])
    np.testing.assert_allclose(together, alone, 1e-4, 1e-5 * float(alone.max()))


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_oss", "mixtral"])
def test_rows__in_bfloat16_are_near_those_in_float32(family: str) -> None:
    exact = make_engines(family)[1].run(make_prompts(LENGTHS)).activations
    rows = Engine(tiny_model(family).to("cuda", torch.bfloat16)).run(make_prompts(LENGTHS))
    first = slice(0, exact.shape[1] // 2)  # the first layer: later ones may be routed elsewhere
    difference = np.linalg.norm(rows.activations[:, first] - exact[:, first])
    assert difference < 0.05 * np.linalg.norm(exact[:, first])


@pytest.mark.parametrize("family", FAMILIES)
def test_prefix__changes_no_row(family: str) -> None:
    engine = make_engines(family)[1]
    prompts = make_chats(11)
    plain = engine.run(prompts).activations
    engine.reuses_prefix = engine.check_prefix()
    assert engine.reuses_prefix == is_decoder(family)
    scale = 1e-5 * float(plain.max())
    np.testing.assert_allclose(engine.run(prompts).activations, plain, 1e-4, scale)


@pytest.mark.parametrize("family", DECODERS)
def test_attribution__equals_that_of_the_cpu(family: str) -> None:
    on_cpu, on_gpu = make_engines(family, statistic="attribution")
    prompts = make_prompts(LENGTHS)
    expected = on_cpu.run(prompts).activations
    scale = 1e-4 * float(expected.max())
    np.testing.assert_allclose(on_gpu.run(prompts).activations, expected, 1e-3, scale)


@pytest.mark.parametrize("family", DECODERS)
def test_ablation__costs_what_it_costs_on_the_cpu(family: str) -> None:
    on_cpu, on_gpu = (
        LossEngine(tiny_model(family, head=True).to(device)) for device in ("cpu", "cuda")
    )
    prompts = make_prompts([12, 31, 7])
    empty = Mask.empty(on_cpu.units)
    labels = np.random.default_rng(0).integers(0, 3, len(empty.ablated))
    for mask in (None, Mask.scaling(on_cpu.units, labels, {0: 0.0, 2: 1.5})):
        expected, losses = on_cpu.losses(prompts, mask), on_gpu.losses(prompts, mask)
        np.testing.assert_allclose(losses.total, expected.total, rtol=1e-4)
    plain = on_gpu.losses(prompts)
    kept = on_gpu.losses(prompts, Mask.scaling(on_cpu.units, labels, {1: 1.0}))
    assert kept.total.tobytes() == plain.total.tobytes()


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_complete__gives_the_tokens_of_the_cpu(family: str) -> None:
    prompt = make_prompts([9])[0]
    made = []
    for device in ("cpu", "cuda"):
        engine = SteeringEngine(tiny_model(family, head=True).to(device))
        labels = np.random.default_rng(0).integers(0, 2, len(Mask.empty(engine.units).ablated))
        mask = Mask.scaling(engine.units, labels, {0: 0.5})
        made.append([engine.complete(prompt, Sampling(12), each) for each in (None, mask)])
    assert made[0] == made[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory__of_a_batch_is_at_most_what_is_estimated(dtype: str) -> None:
    model = make_qwen(dtype=getattr(torch, dtype))
    engine = Engine(model)
    prompts = make_prompts([512] * 16)
    engine.run(prompts[:1])
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    engine.run(prompts)
    taken = torch.cuda.max_memory_allocated() - before
    estimate = 16 * 512 * estimate_token_bytes(model.config, dtype, longest=512)
    assert taken <= estimate <= 4 * taken


def test_memory__a_batch_that_does_not_fit_is_split() -> None:
    engine = Engine(make_qwen(2))
    prompts = make_prompts([400] * 64)
    expected, sizes = engine.run_within_memory(prompts)
    assert sizes == (64,)
    torch.cuda.empty_cache()
    share = (torch.cuda.memory_allocated() + 2**28) / get_device_memory("cuda").total
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        rows, sizes = engine.run_within_memory(prompts)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(sizes) > 1
    difference = np.linalg.norm(rows.activations - expected.activations)
    assert difference < 0.02 * np.linalg.norm(expected.activations)
