"""The forward pass: a batch of tokenized prompts in, one row of activations a prompt out.

The mean over tokens is taken on the device while the pass runs: [batch, units] numbers leave it,
nothing is kept per token, and for activations no logits are computed.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from ulcmod_dist.config.schema import ModelConfig, Statistic
from ulcmod_dist.errors import InvalidInput, UlcmodError, one_line
from ulcmod_dist.forward.architectures import LayerUnits, count_units, get_length_classes
from ulcmod_dist.forward.attribution import choose_deterministic, pool_attribution
from ulcmod_dist.forward.batches import (
    NonFiniteActivation,
    PooledActivations,
    PromptTooLarge,
    TokenizedPrompt,
    explain_vocabulary,
)
from ulcmod_dist.forward.hooks import (
    HookPoint,
    Routing,
    check_called_once,
    find_hook_points,
    get_local_columns,
    hooked,
)
from ulcmod_dist.forward.loading import load_config, load_model
from ulcmod_dist.forward.units import list_units

Result = TypeVar("Result")

_CHECKED_TOKENS = 16
# Relative differences in the norm of a row; what rounding does is below a tenth of them.
_TOLERANCE, _HALF_TOLERANCE = 1e-3, 0.05


class Engine:
    """A base model on a device that turns batches into pooled activations of ``units``.

    The same batch yields the same bytes on the same hardware. With the statistic `attribution` the
    model has its head, and rows are as `forward.attribution` defines them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        units: Sequence[LayerUnits] | None = None,
        ranks: int = 1,
        statistic: Statistic = "activation",
    ) -> None:
        """Take a loaded model in evaluation mode; without ``units`` they are found."""
        self.units = list_units(model.config) if units is None else tuple(units)
        self._model = model
        self._points = find_hook_points(self.units)
        self._lengths = get_length_classes(model.config)
        self._vocabulary = model.config.get_text_config().vocab_size
        self._ranks = ranks
        self._statistic = statistic
        model.requires_grad_(False)

    @classmethod
    def load(
        cls,
        model: ModelConfig,
        units: Sequence[LayerUnits] | None = None,
        device: str = "cpu",
        threads: int = 1,
        ranks: int = 1,
        statistic: Statistic = "activation",
    ) -> Self:
        """Load a model as ``load_model`` does, and check that it has the planned ``units``.

        With several ranks each process holds a part of every layer's units and reduces these; all
        processes load the same model and run the same batches at the same time.
        """
        torch.set_num_threads(threads)
        transformers_logging.disable_progress_bar()
        if statistic == "attribution":
            choose_deterministic()
        config = load_config(model)
        expected = list_units(config, model.units)
        if units is not None and tuple(units) != expected:
            raise UlcmodError(
                f"The model {model.id} has {count_units(expected)} units in {len(expected)} parts; "
                f"the plan was made for {count_units(units)} in {len(units)}.",
                "Use another run directory for this model.",
            )
        loaded = load_model(model, config, device, ranks, head=statistic == "attribution")
        engine = cls(loaded, expected, ranks, statistic)
        engine.check_independence()
        return engine

    def check_independence(self) -> None:
        """Check on a few tokens that the row of a prompt is the same beside a longer one.

        It is not where a model mixes all positions, those of padding included, as with Fourier
        transforms, or sees the prompt as a prefix to be read in both directions. For attribution,
        also check that tokens do not see those after them, and that units have gradients.

        Raises:
            InvalidInput: It is not.
        """
        special = set(_list_special_tokens(self._model.config))
        middle = range(self._vocabulary // 4, self._vocabulary)
        ids = tuple(islice((token for token in middle if token not in special), _CHECKED_TOKENS))
        count = len(ids) // 2
        whole = TokenizedPrompt(ids, (True,) * len(ids))
        half = TokenizedPrompt(ids[:count], whole.token_mask[:count])
        kind = self._model.config.model_type
        if difference := self._compare_rows([half], [half, whole]):
            raise InvalidInput(
                f"A row of models of type {kind!r} depends on its batch: "
                f"beside a longer prompt, activations differ by {difference:.1%}.",
                "No batch gives such a model's activations for a prompt; use another model.",
            )
        if self._statistic == "activation":
            return
        remedy = "Set extract.statistic to activation for this model."
        mask = half.token_mask + (False,) * count
        other = TokenizedPrompt(half.ids * 2, mask)
        if self._compare_rows([TokenizedPrompt(ids[: 2 * count], mask)], [other]):
            raise InvalidInput(f"In models of type {kind!r} tokens see those after them.", remedy)
        try:
            self._run([whole], self._statistic)
        except RuntimeError as error:  # of torch
            fact = f"No gradient in models of type {kind!r}: {one_line(error)}."
            raise InvalidInput(fact, remedy) from error

    def _compare_rows(self, one: list[TokenizedPrompt], other: list[TokenizedPrompt]) -> float:
        """Relative difference of the first rows of two batches, or 0 if it is but rounding."""
        # In bfloat16 rounding may route a token to another expert, but hardly in the first layer.
        is_half = any(each.dtype == torch.bfloat16 for each in self._model.parameters())
        stop = self._points[0].stop if is_half else None
        rows = [self._run(batch, "activation").activations[0, :stop] for batch in (one, other)]
        size = float(np.linalg.norm(rows[0]))
        difference = float(np.linalg.norm(rows[0] - rows[1])) / size if size else 0.0
        # A NaN is not greater: activations that are not finite are reported with their prompt.
        return difference if difference > (_HALF_TOLERANCE if is_half else _TOLERANCE) else 0.0

    def run(self, prompts: Sequence[TokenizedPrompt]) -> PooledActivations:
        """Run one batch of at least one prompt; the result is the same on all ranks.

        A row does not depend on the other prompts: those that may not share a forward pass (see
        `LengthClasses`) are run one group after the other.

        Raises:
            NonFiniteActivation: A unit is NaN or infinite.
            UlcmodError: A hooked module was not called exactly once, or a token is not in the
                vocabulary.
        """
        pooled = self._run(prompts, self._statistic)
        self._check_finite(pooled.activations)
        return pooled

    def _run(self, prompts: Sequence[TokenizedPrompt], statistic: Statistic) -> PooledActivations:
        parts = [self._pool(part, statistic) for part in self._lengths.split(prompts)]
        return PooledActivations.concatenate(parts)

    def _pool(self, prompts: Sequence[TokenizedPrompt], statistic: Statistic) -> PooledActivations:
        device = self._model.device
        ids, mask = (array.to(device) for array in pad_batch(prompts, self._vocabulary))
        reset_rotary_embedding(self._model)
        pooler = ActivationPooler(prompts, self._points, device, self._ranks)
        if statistic == "attribution":
            inputs = ids, mask
            pool_attribution(self._model, self._points, prompts, inputs, pooler.add, self._ranks)
            return pooler.collect()
        with (
            torch.inference_mode(),
            hooked(self._model, self._points, pooler.add, self._ranks) as call_count,
        ):
            self._model(input_ids=ids, attention_mask=mask)
        check_called_once(call_count)
        return pooler.collect()

    def run_within_memory(
        self, prompts: Sequence[TokenizedPrompt]
    ) -> tuple[PooledActivations, tuple[int, ...]]:
        """Run one batch by ``split_on_oom``; returns the sizes of the parts that were run, too."""
        split = partial(split_on_oom, self.run, device=self._model.device, ranks=self._ranks)
        parts = [part for group in self._lengths.split(prompts) for part in split(group)]
        sizes = tuple(size for size, _ in parts)
        return PooledActivations.concatenate([pooled for _, pooled in parts]), sizes

    def _check_finite(self, activations: NDArray[np.float32]) -> None:
        if np.isfinite(activations).all():
            return
        position, column = map(int, np.argwhere(~np.isfinite(activations))[0])
        point = next(point for point in self._points if column < point.stop)
        raise NonFiniteActivation(
            position,
            f"The prompt at position {position} of the batch gives "
            f"{activations[position, column]} at unit {column - point.start} of {point}.",
            "Check the checkpoint's weights, or run the model in float32.",
        )


def _list_special_tokens(config: PretrainedConfig) -> Iterator[int]:
    """Ids that a configuration names, such as those that stand for an image."""
    for name, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            yield from _list_special_tokens(value)
        elif "token" in name:
            yield from value if isinstance(value, list) else [value]


class ActivationPooler:
    """Pools the units of one batch while its forward pass runs.

    Sums are accumulated in float32 in a fixed order, so that the same batch yields the same bytes.
    Each counted token is weighted by 1 / number of counted tokens; a token that is not routed to an
    expert adds nothing to it. Where ranks share a model, each fills in the columns that it holds
    and leaves zeros elsewhere, so that the ranks' matrices add up to the whole.
    """

    def __init__(
        self,
        prompts: Sequence[TokenizedPrompt],
        points: Sequence[HookPoint],
        device: torch.device,
        ranks: int = 1,
    ) -> None:
        """Allocate the activations of ``prompts`` on ``device``."""
        self._rank = torch.distributed.get_rank() if ranks > 1 else 0
        self._ranks = ranks
        weights = [
            torch.tensor(prompt.token_mask, dtype=torch.float32) / prompt.num_counted
            for prompt in prompts
        ]
        self._weights = pad_sequence(weights, batch_first=True).to(device)
        self._means = torch.zeros(len(prompts), points[-1].stop, device=device)
        slots = np.cumsum([0, *(point.experts for point in points)])
        self._slots = {point: slice(*slots[i : i + 2]) for i, point in enumerate(points)}
        self._routed = torch.empty(len(prompts), slots[-1], dtype=torch.int32, device=device)

    def add(self, point: HookPoint, units: torch.Tensor, routing: Routing | None) -> None:
        """Pool the units of one hook point into its columns."""
        width = units.shape[-1]
        if width == point.width and self._rank > 0:
            return  # tensor parallelism did not split this layer, so rank 0 reports it
        if routing is None:
            magnitude = units.reshape(*self._weights.shape, width).abs().float()
            means = torch.bmm(self._weights.to(units.device).unsqueeze(1), magnitude)
        else:
            means = self._pool_experts(point, units, routing)
        columns = self._means[:, point.start : point.stop].view(len(self._means), -1, point.width)
        columns[:, :, get_local_columns(width, point.width)] = means

    def _pool_experts(
        self, point: HookPoint, units: torch.Tensor, routing: Routing
    ) -> torch.Tensor:
        """Means [batch, experts, width]; also counts the routed tokens.

        Rows come sorted by expert, then by token, hence by expert and prompt: each (expert, prompt)
        is one segment.
        """
        batch, length = self._weights.shape
        weights = self._weights.to(units.device).flatten()[routing.token]
        segment = routing.expert * batch + routing.token // length
        lengths = torch.bincount(segment, minlength=point.experts * batch)
        magnitude = units.abs().float() * weights.unsqueeze(1)
        # Not index_add_ or scatter_add_: on CUDA they add atomically, in an order that varies
        # from run to run, and so do the low bits of the sums.
        sums = torch.segment_reduce(magnitude, "sum", lengths=lengths, initial=0)
        counts = torch.segment_reduce((weights > 0).float(), "sum", lengths=lengths, initial=0)
        self._routed[:, self._slots[point]] = counts.view(point.experts, batch).T.to(
            self._routed.device, torch.int32
        )
        return sums.view(point.experts, batch, -1).transpose(0, 1)

    def collect(self) -> PooledActivations:
        """Sum over the ranks and copy to the host, once a batch: each copy waits for the device."""
        if self._ranks > 1:
            torch.distributed.all_reduce(self._means)
        routed = self._routed.cpu().numpy() if self._routed.shape[1] else None
        return PooledActivations(self._means.cpu().numpy(), routed)


def reset_rotary_embedding(model: torch.nn.Module) -> None:
    """Undo what earlier batches have left in a model with dynamic NTK scaling.

    transformers keeps the frequencies of the longest input so far, and goes back to the original
    ones only for an input shorter than ``max_position_embeddings`` (``dynamic_rope_update``).
    """
    for module in model.modules():
        if "dynamic" not in str(getattr(module, "rope_type", "")):
            continue
        module.max_seq_len_cached = module.original_max_seq_len
        for name, buffer in list(module.named_buffers(recurse=False)):
            prefix = name.removesuffix("inv_freq")
            original = getattr(module, f"{prefix}original_inv_freq", None)
            if prefix != name and isinstance(original, torch.Tensor):
                module.register_buffer(name, original.to(buffer.device), persistent=False)
                setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def pad_batch(
    prompts: Sequence[TokenizedPrompt], vocabulary: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of a batch, int64 [batch, longest], padded on the right.

    Raises:
        UlcmodError: A token is not in the vocabulary. An embedding lookup out of range raises on
            the CPU, but on a GPU it is a device-side assertion, after which the process is lost.
    """
    rows = [torch.tensor(prompt.ids) for prompt in prompts]
    ids = pad_sequence(rows, batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    if int(ids.max()) >= vocabulary:
        raise UlcmodError(*explain_vocabulary(int(ids.max()), vocabulary))
    return ids, mask


def split_on_oom(
    run: Callable[[Sequence[TokenizedPrompt]], Result],
    prompts: Sequence[TokenizedPrompt],
    device: torch.device,
    ranks: int = 1,
) -> list[tuple[int, Result]]:
    """Run a batch of at least one prompt, halving it while the device runs out of memory.

    Returns size and result of each part, in the order of the batch.

    Raises:
        PromptTooLarge: A single prompt does not fit.
        UlcmodError: A batch does not fit and ranks share the model: they run out of memory at
            different times and could not agree on a split.
    """
    try:
        return [(len(prompts), run(prompts))]
    except torch.OutOfMemoryError as error:
        if len(prompts) == 1 or ranks > 1:
            longest = max(len(prompt.ids) for prompt in prompts)
            kind = PromptTooLarge if len(prompts) == 1 else UlcmodError
            raise kind(
                f"A batch of {len(prompts)} prompts of up to {longest} tokens does not fit "
                f"into the memory of {device}.",
                "Lower extract.batch_tokens or prompt.max_tokens, or use more devices.",
            ) from error
    # Outside the handler: while it runs, the exception's traceback keeps the frames of the failed
    # attempt alive, and with them its tensors.
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    middle = len(prompts) // 2
    halves = (prompts[:middle], prompts[middle:])
    return [part for half in halves for part in split_on_oom(run, half, device, ranks)]
