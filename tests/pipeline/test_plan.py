"""A run follows one plan: a job that would need another one is refused, field by field."""

from pathlib import Path

import pytest

from tests.pipeline.test_devices import make_context
from ulcmod_dist.config.job import Job
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.pipeline.context import Context, writing
from ulcmod_dist.pipeline.plan import prepare_extraction
from ulcmod_dist.runtime.rundir import RunDir

CHANGES = {
    "model.dtype": "model.dtype=bfloat16",
    "model.attention": "model.attention=eager",
    "prompt.template": "prompt.template=none",
    "prompt.tokens": "prompt.tokens=last",
    "extract.shard_samples": "extract.shard_samples=5",
    "extract.batch_tokens": "extract.batch_tokens=65",
    "corpus": "corpus.train=other.csv",
}


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """Folder of a job whose plan is kept in its run."""
    with writing(make_context(tmp_path), "plan") as held:
        prepare_extraction(held, save=True)
    (tmp_path / "other.csv").write_text("text\nanother prompt\n")
    return tmp_path


@pytest.mark.parametrize("field", CHANGES)
def test_plan__of_another_configuration_is_refused_unless_it_is_an_update(
    planned: Path, field: str
) -> None:
    job = Job.from_yaml(planned / "job.yaml", [CHANGES[field]])
    context = Context(job, RunDir.at(job.run))
    with pytest.raises(InvalidInput, match=rf"different configuration: .*\b{field} is .*, was "):
        prepare_extraction(context, save=False)
    with writing(context, "rerun") as held:
        assert prepare_extraction(held, save=True, update=True).plan.inputs
    assert prepare_extraction(context, save=False).plan.inputs
