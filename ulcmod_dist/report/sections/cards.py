"""What the page tells about one module when it is picked."""

import numpy as np

from ulcmod_dist.report.blocks import ModuleCard, Share
from ulcmod_dist.report.figures.layers import layer_shares, mean_layers
from ulcmod_dist.results.discovery import Categories, Discovery, Layers, Module
from ulcmod_dist.results.types import Absent
from ulcmod_dist.runtime.text import count, number, percent, strip_control_chars


def cards(found: Discovery) -> tuple[ModuleCard, ...]:
    """Return one card a module."""
    return tuple(_card(found, module) for module in found.modules)


def _card(found: Discovery, module: Module) -> ModuleCard:
    return ModuleCard(
        number=module.number,
        name=strip_control_chars(module.name),
        summary=_summary(found, module),
        keywords=module.keywords,
        prompts=module.prompts,
        categories=_categories(found.categories, module.number),
        layers=_layers(found.layers, module.number),
        effects=_effects(found, module.number),
    )


def _summary(found: Discovery, module: Module) -> str:
    units = sum(other.num_units for other in found.modules)
    samples = sum(other.num_samples for other in found.modules)
    parts = [
        f"{count(module.num_units, 'unit')} ({percent(module.num_units / max(1, units))}) and "
        f"{count(module.num_samples, 'sample')} ({percent(module.num_samples / max(1, samples))})."
    ]
    parts.append(
        f"Mean activation {number(found.activation[module.number, module.number])} "
        "on its own samples."
    )
    if isinstance(found.layers, Layers):
        depth = mean_layers(found.layers.units)[module.number]
        last = len(found.layers.names) - 1
        parts.append(f"Mean layer {number(float(depth), 2)} (layers 0 to {last}).")
    if module.length is not None:
        parts.append(f"Half of its samples have at most {module.length[2]:,.0f} tokens.")
    if module.stability is not None:
        parts.append(f"Other restarts put {percent(module.stability)} of its units together.")
    return " ".join(parts)


def _categories(categories: Categories | Absent, module: int) -> tuple[Share, ...] | Absent:
    if isinstance(categories, Absent):
        return categories
    row = categories.counts[module]
    total = max(1, int(row.sum()))
    order = [i for i in np.argsort(-row, kind="stable") if row[i] > 0][:8]
    return tuple(
        Share(
            categories.names[i],
            float(row[i] / total),
            f"{percent(row[i] / total)} · {count(int(row[i]), 'sample')}",
        )
        for i in order
    )


def _layers(layers: Layers | Absent, module: int) -> tuple[Share, ...] | Absent:
    if isinstance(layers, Absent):
        return layers
    shares = layer_shares(layers.units)[module]
    largest = float(shares.max()) or 1.0
    return tuple(
        Share(
            name,
            float(share) / largest,
            f"Layer {name}: {percent(share)} of the layer, {count(int(units), 'unit')}",
        )
        for name, share, units in zip(layers.names, shares, layers.units[module], strict=True)
    )


def _effects(found: Discovery, module: int) -> tuple[Share, ...] | Absent:
    if isinstance(found.ablation, Absent):
        return found.ablation
    row = next((a for a in found.ablation.modules if a.module == module), None)
    if row is None:
        return Absent("This module was not silenced.")
    values = (
        ("Own samples", row.real.own.mean),
        ("Other samples", row.real.other.mean),
        ("Random units, own", row.random.own.mean),
        ("Random units, other", row.random.other.mean),
    )
    largest = max(abs(value) for _, value in values) or 1.0
    return tuple(Share(name, max(0.0, value) / largest, number(value)) for name, value in values)
