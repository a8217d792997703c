"""Facts about model families that transformers does not tell by itself, and where units lie."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ulcmod_dist.errors import InvalidInput

if TYPE_CHECKING:
    # Importing any class of transformers imports torch, which a few commands do without.
    from transformers import PretrainedConfig

    from ulcmod_dist.forward.batches import TokenizedPrompt

_ENCODER_CLASSES = {
    "longt5": "LongT5EncoderModel",
    "mt5": "MT5EncoderModel",
    "t5": "T5EncoderModel",
    "t5gemma": "T5GemmaEncoderModel",
    "umt5": "UMT5EncoderModel",
}
"""Classes of transformers that load an encoder-decoder without its decoder."""


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
        InvalidInput: Rows depend on the batch that they are computed in, or might: the embedding
            is of a type that is not known.
    """
    text: Any = config.get_text_config()
    if getattr(text, "attention_type", None) == "block_sparse":
        # BigBird changes to full attention at the first short batch, and keeps to it.
        raise InvalidInput(
            "The model's attention_type is block_sparse, with which rows depend on the lengths of "
            "their batch and of those before.",
            "Set attention_type to original_full in its config.json.",
        )
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


def get_model_class(config: PretrainedConfig, *, head: bool = False) -> str:
    """Name of the class of transformers that loads a model without its language-model ``head``.

    Raises:
        InvalidInput: transformers has none for the model type.
    """
    model_type = config.model_type
    if head:
        return get_head_class(model_type) or "AutoModelForCausalLM"
    if model_type in _ENCODER_CLASSES:
        return _ENCODER_CLASSES[model_type]
    if config.is_encoder_decoder:
        raise InvalidInput(
            f"Models of type {model_type!r} are encoder-decoders, whose encoder transformers "
            "cannot load alone.",
            f"Encoder-decoders that it can are: {', '.join(sorted(_ENCODER_CLASSES))}.",
        )
    return "AutoModel"


def is_decoder(model_type: str) -> bool:
    """Whether models of a type predict the next token, so that a prompt has a loss."""
    # The auto classes take seconds to import.
    from transformers.models.auto import modeling_auto as auto

    encoders = {*auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, *_ENCODER_CLASSES}
    return get_head_class(model_type) is not None and model_type not in encoders


def get_head_class(model_type: str) -> str | None:
    """Name of the class of transformers that loads a model with its language-model head."""
    from transformers.models.auto import modeling_auto as auto

    if model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "AutoModelForCausalLM"
    is_multimodal = model_type in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return "AutoModelForImageTextToText" if is_multimodal else None
