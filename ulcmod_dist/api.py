"""Runs for notebooks: ``um.open_run``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ulcmod_dist.config.job import Job
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.results.explanation import Explanation
from ulcmod_dist.results.serialize import from_json
from ulcmod_dist.runtime.notebook import render_table
from ulcmod_dist.runtime.rundir import REPORT, RunDir, evaluation_key, membership_key
from ulcmod_dist.store.modules import StoredModules, list_modules, read_metrics, read_modules
from ulcmod_dist.store.snapshot import Snapshot, open_snapshot
from ulcmod_dist.store.versions import containing_run, read_version

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class Run:
    """A run directory, opened without the model and without the corpus.

    Attributes:
        directory: Where it lies.
        version: Number of the view to read; None for the newest.
    """

    directory: RunDir
    version: int | None = None

    @cached_property
    def snapshot(self) -> Snapshot:
        """The samples and units of the run's store."""
        version = self.version
        if self.store != self.directory:
            version = read_version(self.directory).snapshot
        return open_snapshot(self.store, version)

    @cached_property
    def job(self) -> Job:
        """The job that the run was made by."""
        return Job.from_run(self.store)

    @property
    def store(self) -> RunDir:
        """The directory that holds the activations: that of the run, also for its past versions."""
        return containing_run(self.directory) or self.directory

    def snapshot_for(self, modules: StoredModules) -> Snapshot:
        """The samples and units among which modules were found."""
        return open_snapshot(self.store, modules.metrics["snapshot"])

    def activations(self, split: str | None = "train") -> Standardised:
        """Activations z [samples, units] of a split (None: all), lazily over Dask.

        Samples of every split are standardised by the statistics of the train samples.
        """
        return self.snapshot.activations(split)

    def sample_ids(self, split: str | None = "train") -> list[str]:
        """Ids of a split's samples, in the order of the rows of ``activations``."""
        return self.snapshot.sample_ids(split)

    def num_modules(self) -> list[int]:
        """The numbers of modules K for which modules have been found, ascending."""
        return list_modules(self.directory)

    def modules(self, num_modules: int) -> StoredModules:
        """Everything stored of the modules for one K."""
        return read_modules(self.directory, num_modules)

    def units(self, num_modules: int | None = None) -> pd.DataFrame:
        """One row a unit: unit, layer, index, expert; with K also module, margin, stability.

        Without K the columns ``K=005`` etc. hold the module of the unit for each K found.
        """
        return self._table("units", num_modules)

    def samples(self, num_modules: int | None = None, *, texts: bool = False) -> pd.DataFrame:
        """One row a sample: sample_id, category, split; with K also module and margin.

        Without K the columns ``K=005`` etc. hold the module of the sample for each K found. With
        ``texts`` the column ``text`` holds its prompt, read again from the corpus; None where the
        corpus no longer has the sample.

        Raises:
            InvalidInput: The job keeps the prompts' texts out of results, or there is no corpus.
        """
        frame = self._table("samples", num_modules)
        if texts:
            frame["text"] = self._read_texts(frame["sample_id"].tolist())
        return frame

    def history(self, num_modules: int) -> pd.DataFrame:
        """One row an iteration of each restart of the search for K modules."""
        return _frame(self.modules(num_modules).history)

    def metrics(self, num_modules: int) -> pd.DataFrame:
        """One row: objective L, xi, balance and what they were found with, for K modules."""
        # Like PyArrow's tables, imported where a table is made: pandas takes half a second.
        import pandas as pd

        return pd.DataFrame([dict(self.modules(num_modules).metrics)])

    def membership(
        self,
        num_modules: int,
        side: Literal["units", "samples"] = "units",
        *,
        shares: bool = False,
    ) -> pd.DataFrame:
        """One row a unit or sample: how strongly it belongs to each of K modules.

        The columns ``degree_000`` etc. hold its mean z over the samples (of a sample: the units) of
        each module. ``strength`` is the largest of them, ``strong_modules`` in how many modules it
        is strong, ``kind`` what follows from that (specific, shared, general or silent), and
        ``breadth`` the effective number of modules over which it spreads.

        Args:
            num_modules: K.
            side: ``units``, or ``samples`` of both splits.
            shares: Give the positive part of each degree as a share of their sum instead.

        Raises:
            InvalidInput: The modules have not been evaluated.
        """
        stored = self.modules(num_modules)
        try:
            table = self.directory.read_parquet(membership_key(side, num_modules))
        except FileNotFoundError:
            table = None
        if table is None or not table["module"].equals(getattr(stored, side)["module"]):
            raise InvalidInput(
                f"The modules for K = {num_modules} of {self.directory.url} have no degrees of "
                "membership.",
                f"Run `ulcmod evaluate {self.directory.url} --num-modules {num_modules}`.",
            )
        frame = _frame(table)
        if shares:
            # SciPy and scikit-learn are imported only where something is computed.
            from ulcmod_dist.evaluate.membership import share_degrees

            degrees = frame.filter(like="degree_")
            shared = share_degrees(degrees.to_numpy()).T
            frame = frame.assign(**dict(zip(map(str, degrees), shared, strict=True)))
        return frame

    def explanation(self, num_modules: int) -> Explanation:
        """What `ulcmod explain` found of the modules: tokens, units, completions, descriptions.

        Raises:
            InvalidInput: The run holds none for this K.
        """
        try:
            content = self.directory.read_json(evaluation_key("explanation-", num_modules))
        except FileNotFoundError as error:
            raise InvalidInput(
                f"{self.directory.url} holds no explanation for K = {num_modules}.",
                f"Run `ulcmod explain {self.directory.url} --num-modules {num_modules}` first.",
            ) from error
        return from_json(content, Explanation)

    def report(self) -> ReportPage:
        """The page of ``ulcmod report``, which a notebook shows in place.

        Raises:
            InvalidInput: The run has none.
        """
        try:
            return ReportPage(self.directory.read(REPORT).decode("utf-8"))
        except FileNotFoundError as error:
            raise InvalidInput(
                f"{self.directory.url} has no report.", f"Run `ulcmod report {self.directory.url}`."
            ) from error

    def _repr_html_(self) -> str:
        keys = {"objective": "L", "balance": "B", "xi": "xi"}
        keys |= {"unit_agreement": "Restarts agree on units", "sample_agreement": "on samples"}
        found = {k: read_metrics(self.directory, k) for k in self.num_modules()}
        rows = [[k, *(metrics.get(key) for key in keys)] for k, metrics in found.items()]
        title = f"{self.directory.url}: modules for K = {', '.join(map(str, found)) or 'none'}"
        return render_table(title, ["K", *keys.values()], rows, shaded=2)

    def _read_texts(self, sample_ids: Sequence[str]) -> list[str | None]:
        # A corpus is read, and its formats imported, only where somebody asks for texts.
        from ulcmod_dist.corpus.prompts import read_corpus

        if self.job.report.prompts == "none":
            raise InvalidInput("The job keeps the prompts' texts out: report.prompts is none.")
        if self.job.corpus is None:
            raise InvalidInput("The matrix was imported without its prompts.")
        table = read_corpus(self.job.corpus).table
        known = dict(zip(table["sample_id"].to_pylist(), table["text"].to_pylist(), strict=True))
        return [known.get(sample_id) for sample_id in sample_ids]

    def _table(self, side: str, num_modules: int | None) -> pd.DataFrame:
        if num_modules is not None:
            return _frame(getattr(self.modules(num_modules), side))
        frame = _frame(getattr(self.snapshot, side))
        for found in self.num_modules():
            table = getattr(self.modules(found), side)
            frame[f"K={found:03d}"] = table["module"].to_numpy()
        return frame


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame


@dataclass(frozen=True)
class ReportPage:
    """A report, as one HTML file."""

    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        # The page runs scripts of its own; in a frame they reach nothing of the notebook.
        frame = '<iframe sandbox="allow-scripts" style="width: 100%; height: 85vh" srcdoc="{}">'
        return frame.format(escape(self.html)) + "</iframe>"


def open_run(url: str | Path, version: int | None = None) -> Run:
    """Open a run directory (local path or URL); nothing is read until it is asked for.

    Args:
        url: The run directory, or ``versions/000003`` below it: an earlier version of its results.
        version: Number of an earlier version of its samples; None for the newest.

    Raises:
        InvalidInput: There is no such local folder.
    """
    directory = RunDir.at(url)
    if directory.local is not None and not directory.local.is_dir():
        raise InvalidInput(
            f"There is no run directory {directory.url}.",
            "Name a directory that `ulcmod run` has written.",
        )
    return Run(directory, version)
