"""``um.scale_modules`` and ``um.mask_modules``: modules of a run scaled in a live model."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from ulcmod_dist.api import Run
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.pipeline.inputs import read_run_corpus
from ulcmod_dist.results.types import Floats

# Means of the units of live models, by the URL of the run: computing them takes many passes.
_MEANS: WeakKeyDictionary[Any, dict[tuple[str, int], Floats]] = WeakKeyDictionary()


@contextmanager
def scale_modules(
    model: Any,
    run: Run,
    factors: Mapping[int, float],
    num_modules: int | None = None,
    *,
    method: Literal["zero", "mean"] = "zero",
    same_model: bool = True,
) -> Iterator[None]:
    """Scale the units of modules in a live Hugging Face model within the block.

    A unit a becomes f a with ``zero``, and m + f (a - m) with ``mean``, where f is the factor of
    its module and m the unit's mean. Factor 0 ablates a module, 1 leaves it as it is, and 2 doubles
    it. It holds for any number of forward passes and for ``generate``, with padding on either side
    and with a cache; afterwards the model is as before. Models may be split over devices or by
    tensor parallelism.

    Args:
        model: A model of transformers, with or without a head: that of the run.
        run: The run, as ``open_run`` gives it.
        factors: Factor of each module that is scaled.
        num_modules: K; may be left out where modules were found for a single K.
        method: What factor 0 sets a unit to: zero, or its mean over tokens of the prompts that
            `ablate.samples` draws. The means take a pass over these and are kept for the model.
        same_model: Whether to refuse a model whose files are known to differ from the run's.

    Raises:
        InvalidInput: There is no such module, a factor is not a finite number, or the model has
            other units or other weights than the run's.
    """
    # torch and transformers are imported only where a model is changed.
    from ulcmod_dist.intervene.engine import mask_units
    from ulcmod_dist.intervene.masks import Mask, read_layer_units

    found = run.num_modules()
    if num_modules is None:
        if len(found) != 1:
            raise InvalidInput(f"The run holds modules for K = {found}.", "Give num_modules.")
        num_modules = found[0]
    stored = run.modules(num_modules)
    if method not in ("zero", "mean"):
        raise InvalidInput(f"The method is {method!r}, neither zero nor mean.")
    mask = Mask.scaling(read_layer_units(run.snapshot.units), stored.unit_labels, factors)
    if same_model:
        check_model(
            str(getattr(model, "name_or_path", "")),
            getattr(model.config, "_commit_hash", None),
            run.snapshot.provenance,
            "Load the run's model, or allow another one with same_model=False.",
        )
    if method == "mean":
        mask = mask.with_means(_compute_means(model, run, num_modules))
    with mask_units(model, mask, getattr(model, "tp_size", None) or 1):
        yield


@contextmanager
def mask_modules(
    model: Any,
    run: Run,
    modules: int | Collection[int],
    num_modules: int | None = None,
    *,
    method: Literal["zero", "mean"] = "zero",
    same_model: bool = True,
) -> Iterator[None]:
    """Ablate a module or several in a live model within the block: `scale_modules` by 0."""
    chosen = modules if isinstance(modules, Collection) else [modules]
    factors = dict.fromkeys(chosen, 0.0)
    with scale_modules(model, run, factors, num_modules, method=method, same_model=same_model):
        yield


def check_model(
    name: str, revision: str | None, provenance: Mapping[str, str], remedy: str
) -> None:
    """Refuse a model if a run's activations are known to come from another, by its provenance.

    ``name`` is where it was loaded from, and ``revision`` its commit on the hub, if known.

    Raises:
        InvalidInput: Its files have another digest, or its commit is another.
    """
    from ulcmod_dist.forward.loading import digest_weights

    expected, actual = provenance.get("model.revision"), revision
    if expected is None and name:
        places = Path(name), Path(name, provenance.get("model.id", ""))
        expected = provenance.get("model.weights")
        actual = digest_weights(next(filter(Path.is_file, places), places[0]))
    if None not in (expected, actual) and expected != actual:
        raise InvalidInput(
            f"The model is not that of the run: {name} has the digest {str(actual)[:12]}, "
            f"{provenance['model.id']} of the run {str(expected)[:12]}.",
            remedy,
        )


def _compute_means(model: Any, run: Run, num_modules: int) -> Floats:
    """Mean of each unit over the counted tokens of the ablation's samples, signs kept [units]."""
    from ulcmod_dist.intervene.ablation import compute_unit_means
    from ulcmod_dist.intervene.engine import LossEngine
    from ulcmod_dist.intervene.masks import read_layer_units
    from ulcmod_dist.pipeline.ablate import draw_samples

    means = _MEANS.setdefault(model, {})
    key = run.directory.url, num_modules
    if key not in means:
        job, stored = run.job, run.modules(num_modules)
        samples = draw_samples(
            job,
            stored.samples.filter(stored.samples["split"].to_numpy() == "train"),
            stored.sample_labels("train").astype(np.int64),
            len(stored.unit_labels),
            read_run_corpus(job, run),
            np.random.default_rng([job.ablate.seed, num_modules]),
        )
        ranks = getattr(model, "tp_size", None) or 1
        engine = LossEngine(model, read_layer_units(run.snapshot.units), ranks)
        means[key] = compute_unit_means(engine, samples.prompts, samples.batches)
    return means[key]
