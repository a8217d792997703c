"""The modules that a search found, as files of a run: ``modules/K=010/``.

``metrics.json`` is written last: where it exists, the tables beside it are complete.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.notebook import render_table
from ulcmod_dist.runtime.rundir import RunDir, modules_key

_METRICS = re.compile(r"modules/K=(\d+)/metrics\.json")


@dataclass(frozen=True)
class StoredModules:
    """Modules for one K, with their objective and what they were found with as ``metrics``.

    Attributes:
        units: Columns unit, layer, index, expert, module, margin, stability; in unit order.
        samples: Columns sample_id, category, split, module, margin; train first, in view order.
        history: Columns restart, iteration, objective, xi, balance, units_moved, samples_moved,
            seconds; one row an iteration.
    """

    units: pa.Table
    samples: pa.Table
    history: pa.Table
    metrics: Mapping[str, Any]

    def __repr__(self) -> str:
        return (
            f"StoredModules(K = {self.metrics['num_modules']}, "
            f"L = {self.metrics['objective']:,.6g}, {self.units.num_rows:,} units, "
            f"{self.samples.num_rows:,} samples)"
        )

    def _repr_html_(self) -> str:
        """The modules with the share of their samples in each of the largest categories."""
        samples = self.samples.to_pandas()
        names = samples["category"].value_counts().index[:12].tolist()
        columns = ["Module", "Units", "Samples", *names]
        rows: list[list[object]] = []
        for k in range(self.metrics["num_modules"]):
            mine = samples["category"][samples["module"] == k]
            shares = [float((mine == name).mean()) for name in names]
            rows.append([k, int((self.unit_labels == k).sum()), len(mine), *shares])
        return render_table(repr(self), columns, rows, len(names))

    @property
    def unit_labels(self) -> NDArray[np.int32]:
        """Module of each unit."""
        return np.asarray(self.units["module"].to_numpy(), np.int32)

    def sample_labels(self, split: str) -> NDArray[np.int32]:
        """Module of each sample of a split."""
        chosen = self.samples["split"].to_numpy() == split
        return np.asarray(self.samples["module"].to_numpy()[chosen], np.int32)


def write_modules(run: RunDir, num_modules: int, modules: StoredModules) -> None:
    """Write the files of one K, the metrics last."""
    # With an older metrics.json, half-written tables would look complete.
    run.delete(modules_key(num_modules, "metrics.json"))
    for name in ("units", "samples", "history"):
        run.write_parquet(modules_key(num_modules, f"{name}.parquet"), getattr(modules, name))
    run.write_json(modules_key(num_modules, "metrics.json"), dict(modules.metrics))


def read_modules(run: RunDir, num_modules: int) -> StoredModules:
    """Read the files of one K.

    Raises:
        InvalidInput: The run holds no modules for this K.
    """
    if num_modules not in (found := list_modules(run)):
        raise InvalidInput(
            f"{run.url} holds no modules for K = {num_modules}, only for {found or 'none'}.",
            f"Run `ulcmod discover {run.url} --set discover.modules={num_modules}`.",
        )
    tables = {
        name: run.read_parquet(modules_key(num_modules, f"{name}.parquet"))
        for name in ("units", "samples", "history")
    }
    return StoredModules(**tables, metrics=read_metrics(run, num_modules))


def read_metrics(run: RunDir, num_modules: int) -> dict[str, Any]:
    """The metrics of one K (FileNotFoundError where there are none)."""
    return dict(run.read_json(modules_key(num_modules, "metrics.json")))


def list_modules(run: RunDir) -> list[int]:
    """The numbers of modules whose search has ended, ascending."""
    matches = (_METRICS.fullmatch(key) for key, _ in run.keys("modules"))
    return sorted(int(match[1]) for match in matches if match)
