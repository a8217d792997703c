"""Discovery of cross-layer neuron modules in large language models, at corpus scale.

The public names below are loaded when they are first used, so that importing the package costs
neither torch nor Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ulcmod_dist.errors import InvalidInput, UlcmodError
    from ulcmod_dist.iterd.driver import discover
    from ulcmod_dist.iterd.objective import Objective, objective
    from ulcmod_dist.iterd.values import Modules
    from ulcmod_dist.job import Job
    from ulcmod_dist.passes.standardised import Standardised
    from ulcmod_dist.stages.masking import mask_modules
    from ulcmod_dist.stages.open_run import Run, open_run
    from ulcmod_dist.stages.run import run

_HOMES = {
    "InvalidInput": "errors",
    "Job": "job",
    "Modules": "iterd.values",
    "Objective": "iterd.objective",
    "Run": "stages.open_run",
    "Standardised": "passes.standardised",
    "UlcmodError": "errors",
    "discover": "iterd.driver",
    "mask_modules": "stages.masking",
    "objective": "iterd.objective",
    "open_run": "stages.open_run",
    "run": "stages.run",
}

__all__ = [
    "InvalidInput",
    "Job",
    "Modules",
    "Objective",
    "Run",
    "Standardised",
    "UlcmodError",
    "discover",
    "mask_modules",
    "objective",
    "open_run",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
