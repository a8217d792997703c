"""Attribution: mean over the counted tokens of |activation x gradient| of the prompt's own loss."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from tests.forward.test_engine import LENGTHS
from tests.forward.tiny import FAMILIES, SPARSE, make_prompts, save_tiny, tiny_model
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.forward.architectures import is_decoder
from ulcmod_dist.forward.batches import TokenizedPrompt
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.hooks import get_base_model
from ulcmod_dist.forward.memory import estimate_token_bytes

DECODERS = [family for family in FAMILIES if is_decoder(family)]
# Gemma 2 caps its logits, GPT-2 and Gemma share their embedding with the head, Gemma 3 is wrapped
# in a model of images, and OLMoE and Mixtral route tokens to experts.
PLAIN = ["llama", "qwen3", "gpt2", "gemma2", "gemma3", "falcon", "mixtral", "olmoe"]


def make_engine(family: str) -> Engine:
    return Engine(tiny_model(family, head=True), statistic="attribution")


@contextmanager
def tapped(model: Any, engine: Engine) -> Iterator[dict[int, torch.Tensor]]:
    """Collect what each down-projection gets in a pass of the library's own code.

    By the first column; experts are linear functions of a part of a tensor, known by its address.
    """
    taps: dict[int, torch.Tensor] = {}
    experts: dict[int, int] = {}
    linear = nn.functional.linear

    def tap(start: int, units: torch.Tensor) -> torch.Tensor:
        taps[start] = units if units.requires_grad else units.detach().requires_grad_()
        return taps[start]

    def watch(units: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        start = experts.get(weight.data_ptr())
        return linear(units if start is None else tap(start, units), weight, *rest)

    removers = []
    for point in engine._points:
        module: Any = get_base_model(model).get_submodule(point.path)
        if not point.experts:
            start = point.start
            hook = lambda _, args, start=start: (tap(start, args[0]),)  # noqa: E731
            removers.append(module.register_forward_pre_hook(hook))
        for expert in range(point.experts):
            address = module.down_proj[expert].data_ptr()
            experts[address] = point.start + expert * point.width
    model.set_experts_implementation("eager")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "linear", watch)
        yield taps
    for remover in removers:
        remover.remove()


def compute_plainly(engine: Engine, ids: tuple[int, ...]) -> NDArray[np.float32]:
    """The row of a prompt whose tokens all count, from its loss and autograd's own gradient."""
    model: Any = engine._model
    tokens = torch.tensor([ids])
    with tapped(model, engine) as taps:
        logits = model(input_ids=tokens).logits[0]
    loss = cross_entropy(logits[:-1], tokens[0, 1:], reduction="sum")
    gradients = torch.autograd.grad(loss, list(taps.values()))
    row = np.zeros(engine._points[-1].stop, np.float32)
    for (start, units), gradient in zip(taps.items(), gradients, strict=True):
        product = (units * gradient).abs().detach().reshape(-1, units.shape[-1])
        row[start : start + units.shape[-1]] = product.sum(0) / len(ids)
    return row


@pytest.mark.parametrize("family", PLAIN)
def test_attribution__is_that_of_a_plain_autograd_loop(family: str) -> None:
    engine = make_engine(family)
    for prompt in make_prompts([2, 37, 12]):
        row = engine.run([prompt]).activations[0]
        expected = compute_plainly(engine, prompt.ids)
        assert np.count_nonzero(row) == np.count_nonzero(expected) > 20
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


@pytest.mark.parametrize("family", DECODERS)
def test_attribution__batched_rows_equal_rows_alone(family: str) -> None:
    engine = make_engine(family)
    prompts = make_prompts(LENGTHS)
    together = engine.run(prompts)
    expected = np.concatenate([engine.run([prompt]).activations for prompt in prompts])
    scale = 1e-5 * float(expected.max())
    np.testing.assert_allclose(together.activations, expected, rtol=1e-5, atol=scale)
    assert engine.run(prompts).activations.tobytes() == together.activations.tobytes()
    assert (together.routed is not None) == (family in SPARSE)


def test_attribution__counted_tokens_are_predicted_and_averaged() -> None:
    engine = make_engine("llama")
    [prompt] = make_prompts([9])
    mask = (False, False, True, True, False, True, False, False, False)
    row = engine.run([TokenizedPrompt(prompt.ids, mask)]).activations[0]
    # What follows the last counted token is neither averaged nor predicted.
    short = TokenizedPrompt(prompt.ids[:6], mask[:6])
    np.testing.assert_allclose(row, engine.run([short]).activations[0], rtol=1e-5, atol=1e-8)
    # Of the first-order change of the loss by one token's units, that of the last one is none.
    last = TokenizedPrompt(prompt.ids[:6], (False,) * 5 + (True,))
    assert not engine.run([last]).activations.any()
    assert not engine.run(make_prompts([1])).activations.any()


def count_tensors() -> int:
    # Of some objects `isinstance` would ask for a class that warns.
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


def test_attribution__leaves_no_graph_and_no_hook_behind() -> None:
    engine = make_engine("mixtral")
    engine.run(make_prompts([8, 5]))
    gc.collect()
    gc.disable()
    try:
        before = count_tensors()
        engine.run(make_prompts([8, 5]))
        assert count_tensors() == before
    finally:
        gc.enable()
    assert not any(module._forward_pre_hooks for module in engine._model.modules())


def test_attribution__a_backward_pass_that_does_not_fit_is_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, prompts = make_engine("llama"), make_prompts([12, 11, 10, 9])
    expected = engine.run(prompts).activations
    backward: Any = torch.Tensor.backward

    def fail(logits: torch.Tensor, gradient: torch.Tensor) -> None:
        if len(logits) > 2:
            raise torch.OutOfMemoryError("no memory left")
        backward(logits, gradient)

    monkeypatch.setattr(torch.Tensor, "backward", fail)
    rows, sizes = engine.run_within_memory(prompts)
    assert sizes == (2, 2)
    scale = 1e-5 * float(expected.max())
    np.testing.assert_allclose(rows.activations, expected, rtol=1e-5, atol=scale)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attribution__of_a_checkpoint_needs_its_head(tmp_path: Path, dtype: str) -> None:
    folder = save_tiny(tmp_path / "model", "llama", head=True)
    before = torch.are_deterministic_algorithms_enabled()
    try:
        engine = Engine.load(ModelConfig(id=str(folder), dtype=dtype), statistic="attribution")
        rows = engine.run(make_prompts(LENGTHS)).activations
        assert torch.are_deterministic_algorithms_enabled()
        headless = ModelConfig(id=str(save_tiny(tmp_path / "base", "llama")))
        with pytest.raises(InvalidInput, match="lm_head"):
            Engine.load(headless, statistic="attribution")
    finally:
        torch.use_deterministic_algorithms(before)
    exact = make_engine("llama").run(make_prompts(LENGTHS)).activations
    assert np.linalg.norm(rows - exact) < (0.05 if dtype == "bfloat16" else 1e-5) * np.linalg.norm(
        exact
    )


def test_attribution__of_a_model_without_a_loss_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="models of type 'bert' tokens see those after them"):
        make_engine("bert").check_independence()


def test_attribution__units_without_a_gradient_are_named() -> None:
    engine = make_engine("llama")
    layer: Any = engine._model.get_submodule("model.layers.1.mlp")
    layer.forward = torch.no_grad()(layer.forward)
    with pytest.raises(UlcmodError, match=r"layer 1 .* was called 0 times in one backward pass"):
        engine.check_independence()


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "gemma2", "bloom"])
def test_attribution__memory_covers_what_the_gradient_keeps(family: str) -> None:
    engine = make_engine(family)
    weights = {each.untyped_storage().data_ptr() for each in engine._model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        engine.run(make_prompts([32, 32, 32, 32]))
    config = engine._model.config
    attention = str(config._attn_implementation)
    each = estimate_token_bytes(config, "float32", attention=attention, longest=32, gradients=True)
    # The logits and their gradient are not among what is kept for it.
    needed = sum(kept.values()) + 2 * 4 * 128 * config.vocab_size
    assert needed < 128 * each < 4 * needed
