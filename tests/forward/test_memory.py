from typing import Any

import numpy as np
import pytest
import torch

from tests.forward.tiny import prompts_of, tiny_config, tiny_model
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.forward.architectures import FAMILIES
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.memory import budget, parameter_bytes, token_bytes
from ulcmod_dist.forward.values import Rows


class SmallDevice(Engine):
    """An engine whose device holds only so many tokens, padding included."""

    def __init__(self, model: Any, tokens: int) -> None:
        super().__init__(model)
        self.tokens = tokens
        self.attempts: list[int] = []

    def rows(self, encoded: Any) -> Rows:
        padded = len(encoded) * max(len(prompt.ids) for prompt in encoded)
        self.attempts.append(padded)
        if padded > self.tokens:
            raise torch.OutOfMemoryError("no memory left")
        return super().rows(encoded)


def test_rows_within_memory__a_batch_that_fits_is_run_whole() -> None:
    engine = SmallDevice(tiny_model("llama"), 40)
    rows, sizes = engine.rows_within_memory(prompts_of([10, 9, 8, 7]))
    assert sizes == (4,)
    assert (
        rows.activations.tobytes()
        == Engine.rows(engine, prompts_of([10, 9, 8, 7])).activations.tobytes()
    )


def test_rows_within_memory__splits_and_says_which_batches_were_run() -> None:
    prompts = prompts_of([20, 9, 8, 7, 6])
    model = tiny_model("mixtral")
    rows, sizes = SmallDevice(model, 20).rows_within_memory(prompts)
    assert sizes == (1, 1, 1, 2)
    expected = Engine(model).rows(prompts)
    np.testing.assert_allclose(rows.activations, expected.activations, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(rows.routed, expected.routed)


def test_rows_within_memory__a_prompt_that_never_fits_is_an_error() -> None:
    engine = SmallDevice(tiny_model("llama"), 20)
    with pytest.raises(UlcmodError, match="1 prompts of up to 21 tokens does not fit"):
        engine.rows_within_memory(prompts_of([5, 21]))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_parameter_bytes__equal_those_of_the_loaded_model(family: str) -> None:
    model = tiny_model(family)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert parameter_bytes(model.config, "float32") == 4 * counted
    assert parameter_bytes(model.config, "bfloat16") == 2 * counted


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_budget__grows_with_memory_and_shrinks_with_precision_and_length(family: str) -> None:
    config = tiny_config(family)
    assert budget(config, 0, "float32") == 1
    tokens = budget(config, 10**8, "float32")
    assert 1 < tokens < budget(config, 10**8, "bfloat16")
    assert tokens * token_bytes(config, "float32") <= 10**8
    assert budget(config, 10**9, "float32") >= 9 * tokens
    assert budget(config, 10**8, "float32", attention="eager") < tokens
    assert budget(config, 10**8, "float32", longest=10**6) < tokens
