"""Where the units of a model are, found from its configuration alone.

A unit is one entry of the input of a layer's MLP down-projection. The projections are found by
tracing the model without its weights (`forward.trace`), or are those that the job names.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
import transformers
from torch.nn.modules.conv import _ConvNd
from transformers import PretrainedConfig, PreTrainedModel

from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput, one_line
from ulcmod_dist.forward.architectures import LayerUnits, count_units, get_model_class
from ulcmod_dist.forward.checkpoints import silence_transformers
from ulcmod_dist.forward.trace import NO_ACTIVATION, TOKENS, Projection, trace_projections

# The first number in a module's path is the index of its layer.
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
_MLP = re.compile("mlp|ffn|feed_forward|feedforward|experts|moe")
_MAX_CANDIDATES = 8


@dataclass(frozen=True)
class UnitLayout:
    """The units of a model, layer by layer, in the order of the activations' columns."""

    units: tuple[LayerUnits, ...]
    vectors: dict[str, int]
    """Weight vectors that belong to one unit alone, by the path of its projection."""
    layers_without_mlp: tuple[int, ...]
    attention: str
    """The default attention implementation: ``sdpa``, or ``eager`` where there is no other."""
    hidden_size: int


@dataclass(frozen=True)
class _Source:
    """A configuration as a key of the cache: equal if all of its values are."""

    text: str
    config: PretrainedConfig = field(compare=False)


def find_units(config: PretrainedConfig, patterns: Sequence[str] = ()) -> UnitLayout:
    """Find the units of a model from its configuration.

    Args:
        config: Configuration of a model that transformers can build.
        patterns: Paths of the down-projections below the base model, with ``{}`` for each number,
            of which the first is the layer's; empty to find them by the model's structure.

    Raises:
        InvalidInput: None are found, a pattern names none, or hooks on them would not see every
            token once in a forward pass. The candidates are named.
    """
    return _find(_Source(config.to_json_string(use_diff=False), config), tuple(patterns))


def list_units(config: PretrainedConfig, patterns: Sequence[str] = ()) -> tuple[LayerUnits, ...]:
    """The units alone; arguments and errors are those of `find_units`."""
    return find_units(config, patterns).units


def get_layout(config: PretrainedConfig, units: Sequence[LayerUnits]) -> UnitLayout:
    """The layout of a model that has these units: those of its structure, or others by their paths.

    Raises:
        InvalidInput: The model has other units.
    """
    patterns = dict.fromkeys(_NUMBER.sub("{}", part.path) for part in units)
    for chosen in ((), tuple(patterns)):
        try:
            layout = find_units(config, chosen)
        except InvalidInput:
            continue
        if layout.units == tuple(units):
            return layout
    raise InvalidInput(
        f"The mask is of a model with {count_units(units)} units in {len(units)} parts, which "
        "differ from those of this model.",
        "Name the model that the run was made with.",
    )


def get_attention(model: ModelConfig, config: PretrainedConfig) -> str:
    """Attention implementation of the job, or where it names none that of the model."""
    return model.attention or find_units(config, model.units).attention


def build_without_weights(config: PretrainedConfig) -> PreTrainedModel:
    """Build the base model of a configuration on the meta device: shapes without storage."""
    name = get_model_class(config)
    base: Any = getattr(transformers, name)
    config = copy.deepcopy(config)
    config.use_cache = config.get_text_config().use_cache = False
    try:
        with torch.device("meta"):
            model = base.from_config(config) if name == "AutoModel" else base(config)
    except Exception as error:  # whatever the model's own code makes of the configuration
        raise InvalidInput(
            f"transformers cannot build a model of type {config.model_type!r} from its "
            f"configuration: {one_line(error)}.",
            "Complete the configuration (config.json), or install what the message names.",
        ) from error
    assert isinstance(model, PreTrainedModel)
    model.eval()
    return model


@lru_cache(maxsize=32)
def _find(source: _Source, patterns: tuple[str, ...]) -> UnitLayout:
    config = source.config
    text: Any = config.get_text_config()
    with silence_transformers():
        model = build_without_weights(config)
        search = _Search(config.model_type, int(text.hidden_size), model)
    chosen = search.match(patterns) if patterns else search.choose()
    parts = [part for projection in chosen for part in _split(projection)]
    parts.sort(key=lambda part: part.layer)
    without = set(range(int(text.num_hidden_layers))) - {part.layer for part in parts}
    return UnitLayout(
        units=tuple(parts),
        vectors={projection.path: projection.vectors for projection in chosen},
        layers_without_mlp=tuple(sorted(without)),
        attention="sdpa" if _has_sdpa(model) else "eager",
        hidden_size=int(text.hidden_size),
    )


def _has_sdpa(model: PreTrainedModel) -> bool:
    """Whether transformers has the attention of PyTorch for a model, which it says privately."""
    parts = (part for part in model.modules() if isinstance(part, PreTrainedModel))
    return all(part._supports_sdpa for part in parts)


def _split(projection: Projection) -> Iterator[LayerUnits]:
    layer = int(_NUMBER.findall(projection.path)[0])
    if not projection.experts:
        yield LayerUnits(layer, projection.path, projection.width)
    for expert in range(projection.experts):
        yield LayerUnits(layer, projection.path, projection.width, expert)


class _Search:
    """The search for down-projections in one model on the meta device."""

    def __init__(self, model_type: str, hidden_size: int, model: PreTrainedModel) -> None:
        self._type = model_type
        self._hidden_size = hidden_size
        self._model = model
        self._trace = trace_projections(model)

    def choose(self) -> list[Projection]:
        """The projections that the trace shows to be down-projections."""
        if self._trace.error:
            raise self._refusal(f"a forward pass without weights fails ({self._trace.error})")
        found = [projection for projection in self._in_layers() if projection.is_down]
        if not found:
            raise self._refusal("no layer has a projection that an activation function feeds")
        for projection in found:
            self._check_called_once(projection)
        self._check_others(found)
        self._check_other_experts(found)
        return found

    def match(self, patterns: Sequence[str]) -> list[Projection]:
        """The projections that patterns name, as they are registered."""
        found: dict[str, Projection] = {}
        for pattern in patterns:
            path = re.compile(re.escape(pattern).replace(r"\{\}", r"\d+"))
            matches = {
                projection.path: projection
                for projection in self._trace.projections
                if path.fullmatch(projection.path) and _NUMBER.search(projection.path)
            }
            if not matches:
                raise self._refusal(f"model.units names {pattern!r}, which is no projection")
            found |= matches
        chosen = [part for part in self._trace.projections if part.path in found]
        if not self._trace.error:
            for projection in chosen:
                self._check_called_once(projection)
        return chosen

    def _in_layers(self) -> Iterator[Projection]:
        """Projections within a layer, to the width that the layers hand on.

        Some models compute the scale of a normalisation by a small MLP, which is none of a layer.
        """
        for projection in self._trace.projections:
            is_inside = _NUMBER.search(projection.path) and "norm" not in projection.path
            if is_inside and projection.size == self._hidden_size:
                yield projection

    def _check_called_once(self, projection: Projection) -> None:
        if projection.calls != 1:
            raise self._refusal(
                f"{projection.path} is called {projection.calls} times in a forward pass, not once"
            )
        if projection.rows != TOKENS:
            raise self._refusal(
                f"{projection.path} gets {projection.rows} tokens of a prompt of {TOKENS}"
            )

    def _check_others(self, found: Sequence[Projection]) -> None:
        """Refuse to leave out what has the place or the name of a down-projection.

        A layer would otherwise count as one without an MLP for an operation that is not known.
        """
        templates = {_NUMBER.sub("{}", projection.path) for projection in found}
        for projection in self._in_layers():
            is_alike = _NUMBER.sub("{}", projection.path) in templates
            is_named = _MLP.search(projection.path) and projection.width != self._hidden_size
            is_unknown = projection.obstacle not in (NO_ACTIVATION, "Embedding")
            if projection.calls and projection.obstacle and (is_alike or (is_named and is_unknown)):
                raise self._refusal(
                    f"{projection.path} has the place of a down-projection, but its input comes "
                    f"through {projection.obstacle}"
                )

    def _check_other_experts(self, found: Sequence[Projection]) -> None:
        """Refuse stacks of matrices in the layers that no hook can look into."""
        roots = tuple({_NUMBER.split(projection.path)[0] for projection in found})
        seen = {projection.path for projection in self._trace.projections}
        for path, module in self._model.named_modules():
            is_other = path not in seen and not isinstance(module, _ConvNd)
            if not (is_other and path.startswith(roots) and _NUMBER.search(path)):
                continue
            for name, parameter in module.named_parameters(recurse=False):
                is_stack = parameter.ndim > 2 and min(parameter.shape) > 1
                if is_stack and self._hidden_size in parameter.shape[1:]:
                    raise self._refusal(
                        f"{path}.{name} stacks matrices {tuple(parameter.shape)}, as experts do, "
                        "in a way that hooks cannot look into"
                    )

    def _refusal(self, reason: str) -> InvalidInput:
        called = [part for part in self._in_layers() if part.calls or self._trace.error]
        paths = dict.fromkeys(f"{_NUMBER.sub('{}', part.path)} ({part.width})" for part in called)
        candidates = ", ".join(list(paths)[:_MAX_CANDIDATES])
        return InvalidInput(
            f"The units of a model of type {self._type!r} cannot be found: {reason}.",
            "Name the down-projections of its layers in model.units, such as "
            f"layers.{{}}.mlp.down_proj. Projections to the hidden size: {candidates or 'none'}.",
        )
