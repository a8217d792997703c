"""Discovery of cross-layer neuron modules in large language models, at corpus scale.

The public names below are loaded when they are first used, so that importing the package costs
neither torch nor Ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ulcmod_dist.api import Run, open_run
    from ulcmod_dist.config.job import Job
    from ulcmod_dist.errors import InvalidInput, UlcmodError
    from ulcmod_dist.iterd.driver import discover
    from ulcmod_dist.iterd.modules import Modules
    from ulcmod_dist.iterd.objective import objective
    from ulcmod_dist.passes.standardised import Standardised
    from ulcmod_dist.pipeline.run import run
    from ulcmod_dist.pipeline.steering import mask_modules, scale_modules
    from ulcmod_dist.results.types import Objective

_HOMES = {
    "InvalidInput": "errors",
    "Job": "config.job",
    "Modules": "iterd.modules",
    "Objective": "results.types",
    "Run": "api",
    "Standardised": "passes.standardised",
    "UlcmodError": "errors",
    "discover": "iterd.driver",
    "mask_modules": "pipeline.steering",
    "objective": "iterd.objective",
    "open_run": "api",
    "run": "pipeline.run",
    "scale_modules": "pipeline.steering",
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
    "scale_modules",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
