"""The registry of model families: where the units of each are, read from a configuration alone.

A unit is one entry of the input of a layer's MLP down-projection. What a forward pass captures is
checked against the registry. To support another family, add an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ulcmod_dist.errors import InvalidInput

if TYPE_CHECKING:
    # Importing any class of transformers imports torch, which planning does without.
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class LayerUnits:
    """Neighbouring units: the input of one down-projection, ``width`` many.

    ``path`` is that of the torch module below the base model; for an expert, of the module that
    holds all experts of the layer.
    """

    layer: int
    path: str
    width: int
    expert: int | None = None


@dataclass(frozen=True)
class Family:
    """A model family: the units of a layer from the text configuration and the layer's index."""

    list_layer_units: Callable[[Any, int], Iterator[LayerUnits]]
    base: str = "AutoModel"
    """Class of transformers that loads the model without its language-model head."""
    decoder: bool = True
    """Whether the family predicts the next token, so that a prompt has a loss."""
    gated: bool | None = True
    """Whether a unit is the product of a gate and a value, hence has three weight vectors and not
    two; None where the configuration's ``is_gated_act`` tells.
    """


def _dense(path: str, width: Callable[[Any], int], **options: Any) -> Family:
    """A family whose layers are alike; ``path`` has ``{}`` in place of the layer's index."""

    def list_layer_units(config: Any, index: int) -> Iterator[LayerUnits]:
        yield LayerUnits(index, path.format(index), width(config))

    return Family(list_layer_units, **options)


def _intermediate(config: Any) -> int:
    return int(config.intermediate_size)


def _experts(index: int, count: int, width: int) -> Iterator[LayerUnits]:
    for expert in range(count):
        yield LayerUnits(index, f"layers.{index}.mlp.experts", width, expert)


def _all_sparse(config: Any, index: int) -> Iterator[LayerUnits]:
    """Mixtral, OLMoE, gpt-oss: experts in every layer."""
    return _experts(index, config.num_local_experts, config.intermediate_size)


def _qwen_sparse(config: Any, index: int) -> Iterator[LayerUnits]:
    """Qwen2-MoE and Qwen3-MoE: some layers may be dense; the former has a shared expert."""
    dense = index in config.mlp_only_layers or (index + 1) % config.decoder_sparse_step
    if dense or config.num_experts == 0:
        yield from _GATED.list_layer_units(config, index)
        return
    yield from _experts(index, config.num_experts, config.moe_intermediate_size)
    if config.model_type == "qwen2_moe":
        shared = f"layers.{index}.mlp.shared_expert.down_proj"
        yield LayerUnits(index, shared, config.shared_expert_intermediate_size)


def _deepseek(config: Any, index: int) -> Iterator[LayerUnits]:
    """DeepSeek-V2 and V3: the first layers are dense, the others have shared experts as well."""
    if index < config.first_k_dense_replace:
        yield from _GATED.list_layer_units(config, index)
        return
    width = config.moe_intermediate_size
    yield from _experts(index, config.n_routed_experts, width)
    shared = f"layers.{index}.mlp.shared_experts.down_proj"
    yield LayerUnits(index, shared, width * config.n_shared_experts)


_GATED = _dense("layers.{}.mlp.down_proj", _intermediate)

FAMILIES: dict[str, Family] = {
    "bert": _dense("encoder.layer.{}.output.dense", _intermediate, decoder=False, gated=False),
    "bloom": _dense("h.{}.mlp.dense_4h_to_h", lambda config: 4 * config.hidden_size, gated=False),
    "deepseek_v2": Family(_deepseek),
    "deepseek_v3": Family(_deepseek),
    "falcon": _dense("h.{}.mlp.dense_4h_to_h", lambda config: config.ffn_hidden_size, gated=False),
    "gemma": _GATED,
    "gemma2": _GATED,
    "gemma3": _dense("language_model.layers.{}.mlp.down_proj", _intermediate),
    "gemma3_text": _GATED,
    "gpt2": _dense(
        "h.{}.mlp.c_proj", lambda config: config.n_inner or 4 * config.hidden_size, gated=False
    ),
    "gpt_neox": _dense("layers.{}.mlp.dense_4h_to_h", _intermediate, gated=False),
    "gpt_oss": Family(_all_sparse),
    "llama": _GATED,
    "mistral": _GATED,
    "mixtral": Family(_all_sparse),
    "olmoe": Family(_all_sparse),
    "opt": _dense("decoder.layers.{}.fc2", lambda config: config.ffn_dim, gated=False),
    "phi3": _GATED,
    "qwen2": _GATED,
    "qwen2_moe": Family(_qwen_sparse),
    "qwen3": _GATED,
    "qwen3_moe": Family(_qwen_sparse),
    "t5": _dense(
        "encoder.block.{}.layer.1.DenseReluDense.wo",
        lambda config: config.d_ff,
        base="T5EncoderModel",
        decoder=False,
        gated=None,
    ),
}


def get_family(config: PretrainedConfig) -> Family:
    """The registry's entry for a model type; InvalidInput names those that are known."""
    try:
        return FAMILIES[config.model_type]
    except KeyError:
        raise InvalidInput(
            f"The model type {config.model_type!r} is not known.",
            f"Known are: {', '.join(sorted(FAMILIES))}.",
        ) from None


def list_units(config: PretrainedConfig) -> tuple[LayerUnits, ...]:
    """All units of a model, layer by layer, in the order of the activations' columns."""
    family = get_family(config)
    text = config.get_text_config()
    return tuple(
        units
        for layer in range(text.num_hidden_layers)
        for units in family.list_layer_units(text, layer)
    )


def count_units(units: Sequence[LayerUnits]) -> int:
    """Total number of units: the columns of an activation matrix."""
    return sum(part.width for part in units)


def count_unit_parameters(config: PretrainedConfig) -> int:
    """Number of weights that belong to one unit alone and go when it is pruned, without biases."""
    gated = get_family(config).gated
    text = config.get_text_config()
    vectors = 3 if (text.is_gated_act if gated is None else gated) else 2
    return vectors * int(text.hidden_size)
