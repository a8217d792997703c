from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.forward.tiny import FAMILIES, make_prompts, tiny_config, tiny_model
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.forward.batches import PooledActivations
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.memory import (
    DeviceMemory,
    count_loading_bytes,
    count_parameter_bytes,
    estimate_token_bytes,
    fit_batch_tokens,
    get_device_memory,
)


class SmallDevice(Engine):
    """An engine whose device holds only so many tokens, padding included."""

    def __init__(self, model: Any, tokens: int) -> None:
        super().__init__(model)
        self.tokens = tokens
        self.attempts: list[int] = []

    def run(self, encoded: Any) -> PooledActivations:
        padded = len(encoded) * max(len(prompt.ids) for prompt in encoded)
        self.attempts.append(padded)
        if padded > self.tokens:
            raise torch.OutOfMemoryError("no memory left")
        return super().run(encoded)


def test_run_within_memory__a_batch_that_fits_is_run_whole() -> None:
    engine = SmallDevice(tiny_model("llama"), 40)
    rows, sizes = engine.run_within_memory(make_prompts([10, 9, 8, 7]))
    assert sizes == (4,)
    assert (
        rows.activations.tobytes()
        == Engine.run(engine, make_prompts([10, 9, 8, 7])).activations.tobytes()
    )


def test_run_within_memory__splits_and_says_which_batches_were_run() -> None:
    prompts = make_prompts([20, 9, 8, 7, 6])
    model = tiny_model("mixtral")
    rows, sizes = SmallDevice(model, 20).run_within_memory(prompts)
    assert sizes == (1, 1, 1, 2)
    expected = Engine(model).run(prompts)
    np.testing.assert_allclose(rows.activations, expected.activations, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(rows.routed, expected.routed)


def test_run_within_memory__a_prompt_that_never_fits_is_an_error() -> None:
    engine = SmallDevice(tiny_model("llama"), 20)
    with pytest.raises(UlcmodError, match="1 prompts of up to 21 tokens does not fit"):
        engine.run_within_memory(make_prompts([5, 21]))


@pytest.mark.parametrize("family", FAMILIES)
def test_parameter_bytes__equal_those_of_the_loaded_model(family: str) -> None:
    model = tiny_model(family)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert count_parameter_bytes(model.config, "float32") == 4 * counted
    assert count_parameter_bytes(model.config, "bfloat16") == 2 * counted
    largest = max(parameter.numel() for parameter in model.parameters())
    assert count_loading_bytes(model.config) == 8 * largest


@pytest.mark.parametrize("family", FAMILIES)
def test_token_bytes__shrink_with_precision_and_grow_with_length(family: str) -> None:
    config = tiny_config(family)
    each = estimate_token_bytes(config, "float32")
    assert estimate_token_bytes(config, "bfloat16") < each
    assert estimate_token_bytes(config, "float32", attention="eager") > each
    assert estimate_token_bytes(config, "float32", longest=10**6) > each


def tokens_within(total: int, free: int | None = None, **options: Any) -> int:
    memory = DeviceMemory(total, total if free is None else free)
    options = {"kind": "cuda", "weights": 0, **options}
    return fit_batch_tokens(memory, tiny_config("llama"), "float32", **options)


def test_batch_tokens__grow_with_memory_and_fit_into_it() -> None:
    each = estimate_token_bytes(tiny_config("llama"), "float32", longest=64)
    found = [tokens_within(2**power, longest=64) for power in range(18, 32)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (512, 65_536)
    assert len(set(found)) == 8
    for power, tokens in zip(range(18, 32), found, strict=True):
        assert tokens == 512 or tokens * each <= 0.8 * 2**power
    assert tokens_within(2**31, kind="cpu") == 4096
    assert tokens_within(2**25, weights=2**24) < tokens_within(2**25)
    assert tokens_within(2**25, longest=None, attention="eager") < tokens_within(2**25, longest=64)


@settings(deadline=None)
@given(st.integers(2**18, 2**32), st.floats(0.0, 0.2))
def test_batch_tokens__what_little_is_taken_does_not_change_them(total: int, taken: float) -> None:
    assert tokens_within(total, total - int(taken * total)) == tokens_within(total)


def test_batch_tokens__a_crowded_device_gets_fewer() -> None:
    assert tokens_within(2**25, 2**22) < tokens_within(2**25)


def test_device_memory__of_this_machine() -> None:
    memory = get_device_memory("cpu")
    assert 0 < memory.free <= memory.total
    assert memory.part(0.5) == DeviceMemory(memory.total // 2, memory.free // 2)
