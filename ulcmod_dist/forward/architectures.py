"""The registry of model families: where the units of each are, read from a configuration alone.

A unit is one entry of the input of a layer's MLP down-projection. What a forward pass captures is
checked against the registry. To support another family, add an entry.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput

if TYPE_CHECKING:
    # Importing any class of transformers imports torch, which planning does without.
    from transformers import PretrainedConfig

    from ulcmod_dist.forward.batches import TokenizedPrompt


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
    attention: Literal["sdpa", "eager"] = "sdpa"
    """Attention implementation by default; ``eager`` where transformers has no other for it."""


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
    "bloom": _dense(
        "h.{}.mlp.dense_4h_to_h",
        lambda config: 4 * config.hidden_size,
        gated=False,
        attention="eager",
    ),
    "deepseek_v2": Family(_deepseek),
    "deepseek_v3": Family(_deepseek),
    "falcon": _dense("h.{}.mlp.dense_4h_to_h", lambda config: config.ffn_hidden_size, gated=False),
    "gemma": _GATED,
    "gemma2": replace(_GATED, attention="eager"),
    "gemma3": _dense("language_model.layers.{}.mlp.down_proj", _intermediate),
    "gemma3_text": _GATED,
    "gpt2": _dense(
        "h.{}.mlp.c_proj", lambda config: config.n_inner or 4 * config.hidden_size, gated=False
    ),
    "gpt_neox": _dense("layers.{}.mlp.dense_4h_to_h", _intermediate, gated=False),
    "gpt_oss": Family(_all_sparse, attention="eager"),
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


def get_attention(model: ModelConfig, config: PretrainedConfig) -> str:
    """Attention implementation of the job, or where it names none that of the family."""
    return model.attention or get_family(config).attention


def list_units(config: PretrainedConfig) -> tuple[LayerUnits, ...]:
    """All units of a model, layer by layer, in the order of the activations' columns."""
    family = get_family(config)
    text = config.get_text_config()
    return tuple(
        units
        for layer in range(text.num_hidden_layers)
        for units in family.list_layer_units(text, layer)
    )


@dataclass(frozen=True)
class LengthClasses:
    """The prompts that may share a batch with each other, by their lengths in tokens.

    A model whose position embedding depends on the length of its input (LongRoPE, dynamic NTK) sees
    the length of the padded batch. Within a class that makes no difference to any row.

    Attributes:
        thresholds: Ascending lengths, each the greatest that the model treats like shorter ones.
        exact_above: Prompts longer than this share batches with prompts of their own length alone;
            None where there is no such length.
    """

    thresholds: tuple[int, ...] = ()
    exact_above: int | None = None

    def classify(self, length: int) -> tuple[int, int]:
        """The class of a length: equal for prompts that may share a batch."""
        is_exact = self.exact_above is not None and length > self.exact_above
        return bisect_left(self.thresholds, length), length if is_exact else 0

    def split(self, prompts: Sequence[TokenizedPrompt]) -> Iterator[Sequence[TokenizedPrompt]]:
        """Cut a batch, in its order, wherever the class changes."""
        for _, part in groupby(prompts, key=lambda prompt: self.classify(len(prompt.ids))):
            yield tuple(part)


ANY_LENGTHS = LengthClasses()
"""The classes of a model that does not depend on the length of its input: there is one."""


_FIXED_ROPE = ("default", "linear", "yarn", "llama3", "proportional")
"""Types of rotary position embedding whose frequencies do not depend on the input's length."""


def get_length_classes(config: PretrainedConfig) -> LengthClasses:
    """Which prompts may share a batch, as the model's rotary position embedding demands.

    Raises:
        InvalidInput: The embedding is of a type that is not known, so that rows might depend on
            the batch that they are computed in.
    """
    text: Any = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    # Some families have parameters for each type of layer.
    nested = [part for part in rope.values() if isinstance(part, dict)]
    thresholds: set[int] = set()
    exact_above = None
    for part in nested or [rope]:
        kind = part.get("rope_type", "default")
        if kind == "longrope":
            thresholds.add(int(part["original_max_position_embeddings"]))
        elif kind == "dynamic":
            exact_above = int(text.max_position_embeddings)
        elif kind not in _FIXED_ROPE:
            raise InvalidInput(
                f"The model's position embedding (rope_parameters.rope_type) is {kind!r}. Whether "
                "it depends on the length of the batch is not known.",
                f"Known are: {', '.join(sorted((*_FIXED_ROPE, 'dynamic', 'longrope')))}.",
            )
    return LengthClasses(tuple(sorted(thresholds)), exact_above)


def count_units(units: Sequence[LayerUnits]) -> int:
    """Total number of units: the columns of an activation matrix."""
    return sum(part.width for part in units)


def count_unit_parameters(config: PretrainedConfig) -> int:
    """Number of weights that belong to one unit alone and go when it is pruned, without biases."""
    gated = get_family(config).gated
    text = config.get_text_config()
    vectors = 3 if (text.is_gated_act if gated is None else gated) else 2
    return vectors * int(text.hidden_size)
