"""Which artifacts of a run are fresh, and making those that are not."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib import import_module
from itertools import groupby
from typing import Any, Literal

from ulcmod_dist.config.job import Job
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.forward.provenance import choose_attention
from ulcmod_dist.pipeline.artifacts import (
    FOLDERS,
    GRAPH,
    METHOD_ABLATIONS,
    MODULES_RECORD,
    Artifact,
    Record,
    describe_label,
    differences,
    flatten,
    record_key,
)
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.runtime.rundir import ARTIFACTS, RunDir, fingerprint
from ulcmod_dist.store.schema import MANIFESTS

logger = logging.getLogger(__name__)

State = Literal["fresh", "stale", "missing"]


@dataclass(frozen=True)
class Status:
    """The state of one artifact of a run, and why it is stale."""

    artifact: Artifact
    num_modules: int | None  # None for an artifact of the whole run
    state: State
    reasons: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The artifact in words."""
        return describe_label(self.artifact.label(self.num_modules))

    def as_json(self) -> dict[str, Any]:
        """The status as JSON values."""
        values = {"artifact": self.artifact.name, "num_modules": self.num_modules}
        return {**values, "state": self.state, "reasons": list(self.reasons)}


class Ledger:
    """The records of a run at one moment, held against its job.

    Args:
        observed: Name of an artifact -> those of its inputs that had to be read, such as the
            corpus. Without them, such inputs are taken to be as recorded.
        shown: The numbers of modules that the page is to show; None for all that it can.
    """

    def __init__(
        self,
        run: RunDir,
        job: Job,
        *,
        observed: Mapping[str, Mapping[str, Any]] | None = None,
        shown: Sequence[int] | None = None,
    ) -> None:
        self.run, self.job = run, job
        self._observed, self._shown = observed or {}, shown
        self._config = flatten(job.model_dump(mode="json"))
        # Records are read when they are asked for: in a bucket each costs a request.
        self._records: dict[str, Record | None] = {key: None for key, _ in run.keys(ARTIFACTS)}
        if job.model is not None:
            # A job that names what it would get by default is the same job. A model that is gone
            # keeps what it had.
            attention = choose_attention(job.model)
            if attention is None and (snapshot := self.record("snapshot")) is not None:
                attention = snapshot.config.get("model.attention")
            self._config["model.attention"] = attention

    @cached_property
    def _listed(self) -> set[str]:
        """Keys of the files that belong to artifacts."""
        return {key for folder in FOLDERS for key, _ in self.run.keys(folder)}

    @property
    def num_modules(self) -> list[int]:
        """Every K of the job and every K that modules were found for, ascending."""
        return sorted({*self.job.discover.modules, *self.found()})

    def found(self) -> list[int]:
        """The numbers of modules whose search has ended, ascending."""
        matches = (MODULES_RECORD.fullmatch(key) for key in self._records)
        return sorted(int(match[1]) for match in matches if match)

    def record(self, name: str, num_modules: int | None = None) -> Record | None:
        """The record of an artifact, or None where it is not stored."""
        key = record_key(name, num_modules)
        if key in self._records and self._records[key] is None:
            try:
                record = Record(**self.run.read_json(key))
                if name == "snapshot":
                    record.config.setdefault("extract.statistic", "activation")
                self._records[key] = record
            except FileNotFoundError:
                # Another process is replacing the artifact.
                del self._records[key]
        return self._records.get(key)

    def expected(self, name: str, num_modules: int | None = None) -> Record:
        """What the record of an artifact would say if it were made now."""
        artifact = GRAPH[name]
        identities = {
            upstream.label(k): record.identity
            for upstream, k in self._inputs(artifact, num_modules)
            if (record := self.record(upstream.name, k)) is not None
        }
        config = {k: value for k, value in self._config.items() if artifact.depends_on(k)}
        observed = dict(self._observed.get(name, {}))
        if name == "snapshot":
            # A manifest may have been written and its record not.
            manifests = (key for key, _ in self.run.keys(MANIFESTS))
            observed["manifests"] = sum(key.endswith(".json") for key in manifests)
        return Record(artifact.version, identities, config, observed)

    def changes(self, name: str, num_modules: int | None = None) -> list[str] | None:
        """How the inputs of an artifact differ from those recorded; None where it is not stored."""
        record = self.record(name, num_modules)
        if record is None:
            return None
        declared = (file.format(k=num_modules) for file in GRAPH[name].files)
        gone = [key for key in (*declared, *record.files) if not self._exists(key)]
        expected = self.expected(name, num_modules)
        clauses = [f"{gone[0]} is missing"] if gone else []
        if record.version != expected.version:
            forms = f"form {record.version}, now {expected.version}"
            clauses.append(f"made by another version of this program ({forms})")
        clauses += _changed_inputs(record.inputs, expected.inputs)
        clauses += differences(record.config, expected.config)
        known = {key: record.observed.get(key) for key in expected.observed}
        return [*clauses, *differences(known, expected.observed)]

    def is_current(self, name: str, num_modules: int | None = None) -> bool:
        """Whether an artifact is stored, and was made from its inputs as they are stored now."""
        return self.changes(name, num_modules) == []

    def status(self, name: str, num_modules: int | None = None) -> Status:
        """The state of an artifact; one that was made from something stale is stale itself."""
        artifact, reasons = GRAPH[name], self.changes(name, num_modules)
        if reasons is None:
            return Status(artifact, num_modules, "missing")
        named = (None, num_modules, *self.job.discover.modules)
        inputs = self._inputs(artifact, num_modules)
        upstream = [self.status(each.name, k) for each, k in inputs if k in named]
        reasons += [
            f"{each.label} {_be(each.label)} stale" for each in upstream if each.state == "stale"
        ]
        return Status(artifact, num_modules, "stale" if reasons else "fresh", tuple(reasons))

    def statuses(self) -> Iterator[Status]:
        """The state of every artifact that is stored or that `ulcmod run` would make."""
        optional = {
            "plan": self.job.matrix is None,
            "ablation": self.job.ablate.with_run,
            METHOD_ABLATIONS: self.job.ablate.with_run and bool(self.job.ablate.baselines),
            "explanation": self.job.explain.with_run,
            "drift": False,
            "version": False,
        }
        for artifact in GRAPH.values():
            for k in self.num_modules if artifact.each_k else [None]:
                status = self.status(artifact.name, k)
                named = k is None or k in self.job.discover.modules
                if status.state != "missing" or (named and optional.get(artifact.name, True)):
                    yield status

    def describe_pending(self) -> str:
        """What `ulcmod run` would make, such as ``snapshot; modules for K = 5, 7``."""
        pending: dict[str, list[str]] = {}
        for status in self.statuses():
            if status.state != "fresh" and status.num_modules in (None, *self.job.discover.modules):
                numbers = pending.setdefault(status.artifact.name, [])
                numbers += [] if status.num_modules is None else [str(status.num_modules)]
        return "; ".join(
            f"{name} for K = {', '.join(numbers)}" if numbers else name
            for name, numbers in pending.items()
        )

    def on_page(self) -> list[int]:
        """The numbers of modules that the page shows: those evaluated in the present snapshot.

        Modules for a K that the job does not name are made again by nothing, so they are shown as
        long as they are fresh.
        """
        if self._shown is None:
            named = self.job.discover.modules
            fresh = (k for k in self.found() if self.status("evaluation", k).state == "fresh")
            wanted: Sequence[int] = sorted({*named, *fresh})
        else:
            wanted = self._shown
        return [k for k in wanted if self.is_in_snapshot(k) and self.is_current("evaluation", k)]

    def is_in_snapshot(self, num_modules: int) -> bool:
        """Whether the modules for one K were found in the present snapshot."""
        record = self.record("modules", num_modules)
        return record is not None and record.inputs == self.expected("modules", num_modules).inputs

    def _inputs(
        self, artifact: Artifact, num_modules: int | None
    ) -> Iterator[tuple[Artifact, int | None]]:
        """The artifacts that one is made from; an artifact of the whole run gathers every K."""
        for upstream in (GRAPH[name] for name in artifact.inputs):
            if artifact.each_k or not upstream.each_k:
                yield upstream, num_modules if upstream.each_k else None
            elif upstream.name == "modules":
                yield from ((upstream, k) for k in self.found())
            else:
                current = (k for k in self.on_page() if self.is_current(upstream.name, k))
                yield from ((upstream, k) for k in current)

    def _exists(self, key: str) -> bool:
        return key in self._listed if key.startswith(FOLDERS) else self.run.exists(key)


@dataclass(frozen=True)
class Updated:
    """What `update` did for some numbers of modules."""

    numbers: list[int]
    made: dict[str, list[int]]  # by name of the artifact
    answers: dict[str, Any]  # what each function returned, by the name of its module

    def state(self, name: str, num_modules: int, done: str) -> str:
        """``done`` where the artifact was made now, else ``as before``."""
        return done if num_modules in self.made.get(name, ()) else "as before"


def update(
    context: Context,
    names: Sequence[str],
    num_modules: Sequence[int] | None = None,
    **options: Mapping[str, Any],
) -> Updated:
    """Make those of some artifacts that are not current, in the order of the graph.

    One call makes all artifacts of a function and all K (by default those of the job), so that they
    share its passes. Why something is made again is logged. ``options`` are further arguments of a
    function, by the name of its module.
    """
    numbers = sorted(set(context.job.discover.modules if num_modules is None else num_modules))
    updated = Updated(numbers, {}, {})
    chosen = [artifact for artifact in GRAPH.values() if artifact.name in names]
    ablations = [name for name in ("ablation", METHOD_ABLATIONS) if name in names]
    observed = dict.fromkeys(ablations, _read_answers(context.job)) if ablations else {}
    for make, group in groupby(chosen, lambda artifact: artifact.make):
        ledger = Ledger(context.run, context.job, observed=observed)
        wanted: dict[str, list[int]] = {}
        for artifact in group:
            _add_outdated(ledger, artifact, numbers, wanted)
        if wanted:
            module, _, function = make.partition(":")
            maker = getattr(import_module(f"ulcmod_dist.pipeline.{module}"), function)
            updated.answers[module] = maker(context, wanted, **options.get(module, {}))
            updated.made.update(wanted)
    return updated


def _read_answers(job: Job) -> dict[str, str]:
    """The answers that ablation depends on; of a corpus that is gone, they are as recorded."""
    if job.corpus is None or job.corpus.answer is None:
        return {}
    # Imported here: the ledger answers without what reads files.
    from ulcmod_dist.corpus.prompts import read_corpus
    from ulcmod_dist.pipeline.inputs import observe_answers

    with suppress(UlcmodError):
        return observe_answers(read_corpus(job.corpus))
    return {}


def _add_outdated(
    ledger: Ledger, artifact: Artifact, numbers: Sequence[int], wanted: dict[str, list[int]]
) -> None:
    """Add to ``wanted`` the K for which an artifact, or one that it is made from, is outdated."""

    def is_outdated(k: int | None) -> bool:
        above = any(k is None or k in wanted[name] for name in artifact.inputs if name in wanted)
        if not above and ledger.is_current(artifact.name, k):
            return False
        if reasons := ledger.changes(artifact.name, k):
            label = describe_label(artifact.label(k))
            logger.info("Updating %s: %s.", label, "; ".join(reasons))
        return True

    if artifact.each_k:
        if outdated := [k for k in numbers if is_outdated(k)]:
            wanted[artifact.name] = outdated
    elif is_outdated(None):
        wanted[artifact.name] = []


@dataclass
class Draft:
    """What the record of an artifact that is being replaced will say beside its inputs."""

    identity: str | None = None  # digest of the content; None where the inputs determine it
    salt: str | None = None  # what determines the content beside the recorded inputs
    files: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@contextmanager
def replacing(
    context: Context,
    name: str,
    num_modules: int | None = None,
    *,
    observed: Mapping[str, Any] | None = None,
    shown: Sequence[int] | None = None,
) -> Iterator[Draft]:
    """Replace an artifact within the block, under a lease; yields its record, to be filled in.

    The record is removed before the block and written after it, so that an artifact that is half
    written does not count. ``observed`` and ``shown`` are as in `Ledger`.
    """
    ledger = Ledger(context.run, context.job, observed={name: observed or {}}, shown=shown)
    record = ledger.expected(name, num_modules)
    key = record_key(name, num_modules)
    context.run.delete(key)
    draft = Draft()
    yield draft
    identity = draft.identity or fingerprint([asdict(record), num_modules, draft.salt])
    context.fence.check()
    value = replace(record, identity=identity, files=draft.files, facts=draft.facts)
    context.run.write_json(key, asdict(value))


def require_modules(context: Context, num_modules: Sequence[int] | None) -> list[int]:
    """The numbers of modules to work on; their modules are in the present snapshot.

    Modules that the job would search for differently are used as they are, with a warning.

    Raises:
        InvalidInput: There are no modules for a K, or they are those of an earlier snapshot.
    """
    ledger, url = Ledger(context.run, context.job), context.run.url
    numbers = sorted(set(context.job.discover.modules if num_modules is None else num_modules))
    for k in numbers:
        remedy = f"Run `ulcmod discover {url} --num-modules {k}` first."
        if ledger.record("modules", k) is None:
            found = ", ".join(map(str, ledger.found())) or "none"
            raise InvalidInput(f"{url} holds no modules for K = {k} (found: {found}).", remedy)
        if not ledger.is_in_snapshot(k):
            raise InvalidInput(
                f"The modules for K = {k} of {url} were found in an earlier snapshot.",
                remedy,
            )
        if changes := ledger.changes("modules", k):
            logger.warning(
                "The modules for K = %d are stale (%s); they are used as they are.", k, changes[0]
            )
    return numbers


def stale_sentences(context: Context) -> list[str]:
    """One sentence for each command that would bring something stale up to date."""
    sentences: dict[str, str] = {}
    for status in Ledger(context.run, context.job).statuses():
        if status.state == "stale" and status.artifact.name not in ("figures", "tables", "drift"):
            command = f"ulcmod {status.artifact.command} {context.run.url}"
            if status.num_modules not in (None, *context.job.discover.modules):
                command += f" --num-modules {status.num_modules}"
            what = status.label[0].upper() + status.label[1:]
            sentence = f"{what} {_be(what)} stale: {status.reasons[0]}. `{command}` updates it."
            sentences.setdefault(command, sentence)
    return [*sentences.values()]


def _be(label: str) -> str:
    """The verb after the label of an artifact."""
    return "are" if label.split()[0].endswith("s") else "is"


def _changed_inputs(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for label in sorted({*old, *new}):
        if old.get(label) != new.get(label):
            name, is_new = describe_label(label), label not in old
            change = "new" if is_new else "different" if label in new else "no longer fresh"
            yield f"{name} {_be(name)} {change}"
