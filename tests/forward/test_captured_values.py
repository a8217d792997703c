"""Captured rows against computations written out by hand from the weights."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, linear, silu

from tests.forward.tiny import make_prompts, tiny_model
from ulcmod_dist.forward.batches import TokenizedPrompt
from ulcmod_dist.forward.engine import Engine


def capture_inputs(model: Any, modules: Any, ids: torch.Tensor) -> list[torch.Tensor]:
    """What each module receives, [tokens, hidden size]."""
    seen = []
    handles = [
        module.register_forward_pre_hook(
            lambda _module, args: seen.append(args[0].detach().flatten(0, -2))
        )
        for module in modules
    ]
    with torch.no_grad():
        model(input_ids=ids)
    for handle in handles:
        handle.remove()
    return seen


def gated(layer: Any, x: torch.Tensor) -> Any:
    mlp = layer.mlp
    return silu(x @ mlp.gate_proj.weight.T) * (x @ mlp.up_proj.weight.T)


def test_rows__of_a_gated_model_by_hand() -> None:
    model = tiny_model("llama")
    [prompt] = make_prompts([13])
    inputs = capture_inputs(
        model, [layer.mlp for layer in model.layers], torch.tensor([prompt.ids])
    )
    units = [gated(layer, x) for layer, x in zip(model.layers, inputs, strict=True)]
    assert_row(model, prompt, torch.cat(units, dim=1).abs().mean(0))


def test_rows__of_an_encoder_by_hand() -> None:
    model = tiny_model("bert")
    [prompt] = make_prompts([13])
    layers = model.encoder.layer
    modules = [layer.intermediate for layer in layers]
    inputs = capture_inputs(model, modules, torch.tensor([prompt.ids]))
    units = [
        gelu(linear(x, layer.intermediate.dense.weight, layer.intermediate.dense.bias))
        for layer, x in zip(layers, inputs, strict=True)
    ]
    assert_row(model, prompt, torch.cat(units, dim=1).abs().mean(0))


def mixtral_units(experts: Any, expert: int, x: torch.Tensor) -> Any:
    gate, up = (x @ experts.gate_up_proj[expert].T).chunk(2, dim=-1)
    return silu(gate) * up


def gpt_oss_units(experts: Any, expert: int, x: torch.Tensor) -> Any:
    both = x @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert]
    gate, up = both[:, 0::2].clamp(max=7.0), both[:, 1::2].clamp(-7.0, 7.0)
    return (up + 1) * gate * torch.sigmoid(1.702 * gate)


@pytest.mark.parametrize(
    ("family", "router", "units_of_expert"),
    [("mixtral", "gate", mixtral_units), ("gpt_oss", "router", gpt_oss_units)],
)
def test_rows__of_experts_by_hand(family: str, router: str, units_of_expert: Any) -> None:
    model = tiny_model(family)
    [prompt] = make_prompts([13])
    inputs = capture_inputs(
        model, [layer.mlp for layer in model.layers], torch.tensor([prompt.ids])
    )
    means, counts = [], []
    for layer, x in zip(model.layers, inputs, strict=True):
        weights = getattr(layer.mlp, router)
        logits = linear(x, weights.weight, getattr(weights, "bias", None))
        chosen = logits.topk(2, dim=-1).indices
        for expert in range(4):
            routed = (chosen == expert).any(dim=1)
            units = units_of_expert(layer.mlp.experts, expert, x)
            means.append((units.abs() * routed.unsqueeze(1)).sum(0) / len(x))
            counts.append(int(routed.sum()))
    assert_row(model, prompt, torch.cat(means))
    np.testing.assert_array_equal(np.array(Engine(model).run([prompt]).routed), [counts])


def assert_row(model: Any, prompt: TokenizedPrompt, expected: Any) -> None:
    # Beside longer prompts, so that padding would show.
    rows = Engine(model).run([prompt, *make_prompts([31])])
    np.testing.assert_allclose(rows.activations[0], expected.detach().numpy(), rtol=1e-4, atol=1e-6)
