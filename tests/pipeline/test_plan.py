"""A run follows one plan: a job that would need another one is refused, field by field."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.forward.tiny import save_tiny, tiny_tokenizer
from tests.pipeline.conftest import Ulcmod
from tests.pipeline.demo_corpus import DEMO, write_demo_corpus
from tests.pipeline.test_devices import JOB, make_context
from ulcmod_dist.config.job import Job
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.pipeline.artifacts import Record, record_key
from ulcmod_dist.pipeline.context import Context, writing
from ulcmod_dist.pipeline.extract import extract
from ulcmod_dist.pipeline.ledger import Ledger
from ulcmod_dist.pipeline.plan import plan, prepare_extraction
from ulcmod_dist.runtime.rundir import PLAN, RunDir

CHANGES = {
    "model.dtype": "model.dtype=bfloat16",
    "model.attention": "model.attention=eager",
    "prompt.template": "prompt.template=none",
    "prompt.tokens": "prompt.tokens=last",
    "prompt.control_tokens": "prompt.control_tokens=tokens",
    "extract.shard_samples": "extract.shard_samples=5",
    "extract.batch_tokens": "extract.batch_tokens=65",
    "corpus": "corpus.train=other.csv",
    "statistic": "extract.statistic=attribution",
}

DEMO_JOB = f"""\
run: {{run}}
model: {{{{id: {DEMO / "model"}}}}}
corpus: {{{{train: train.parquet, test: test.parquet, id: id, category: category}}}}
discover: {{{{modules: 3}}}}
"""


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """Folder of a job whose plan is kept in its run; its model has a head."""
    context = make_context(tmp_path)
    save_tiny(tmp_path / "model", head=True)
    with writing(context, "plan") as held:
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


def extracting(folder: Path, *changes: str) -> Context:
    job = Job.from_yaml(folder / "job.yaml", changes)
    return Context(job, RunDir.at(job.run))


def planned_figures(context: Context) -> Mapping[str, Any]:
    figures = plan(context, measure=False).data
    assert figures is not None
    return figures


def test_plan__says_what_it_would_write_and_writes_nothing(tmp_path: Path, ulcmod: Ulcmod) -> None:
    write_demo_corpus(tmp_path)
    job, run = tmp_path / "job.yaml", tmp_path / "run"
    job.write_text(DEMO_JOB.format(run=run))
    found = ulcmod("plan", job, "--no-probe", "--json").json()
    assert (found["samples"], found["units"]) == (75, 3072)
    assert found["search"]["matrix"] == 60 * 3072 * 4
    assert not (run / "plan.json").exists()
    refused = ulcmod("plan", job, "--no-probe", "--set", "discover.memory=1000")
    assert refused.code == 2
    assert "at least" in refused.err


def test_plan__of_a_model_that_does_not_load_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(tmp_path)

    def fail(*_: object, **__: object) -> None:
        assert context.run.exists(PLAN)
        raise UlcmodError("The model cannot be loaded.")

    monkeypatch.setattr("ulcmod_dist.pipeline.extract.run_extraction", fail)
    with pytest.raises(UlcmodError, match="cannot be loaded"):
        extract(context)
    assert not context.run.exists(PLAN)
    # The corrected job is not another job.
    assert prepare_extraction(extracting(tmp_path, "model.dtype=bfloat16"), save=False).plan.inputs


def test_plan__a_model_that_cannot_load_leaves_nothing_behind(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    config = tmp_path / "model/config.json"
    text = config.read_text()
    config.write_text(text.replace('"num_hidden_layers": 2', '"num_hidden_layers": 1'))
    for command in (partial(plan, measure=False), extract):
        with pytest.raises(InvalidInput, match=r"no place, such as layers\.1\."):
            command(context)
    assert not context.run.exists(PLAN)
    config.write_text(text)
    assert planned_figures(context)["units"] == 48


@pytest.mark.parametrize("modules", [7, 49])
def test_plan__refuses_more_modules_than_samples_or_units(tmp_path: Path, modules: int) -> None:
    make_context(tmp_path)
    context = extracting(tmp_path, f"discover.modules={modules}")
    for command in (partial(plan, measure=False), extract):
        with pytest.raises(InvalidInput, match=r"do not fit 6 samples and 48 units.*from 1 to 6"):
            command(context)
    assert not context.run.exists(PLAN)


def test_plan__refuses_an_ablation_without_a_head(tmp_path: Path) -> None:
    make_context(tmp_path)
    with pytest.raises(InvalidInput, match=r"lacks 1 .* lm_head\.weight"):
        plan(extracting(tmp_path, "ablate.with_run=true"), measure=False)


@pytest.mark.parametrize("name", ["figures", "activations.zarr", "report.html"])
def test_plan__refuses_a_run_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    context = make_context(tmp_path)
    path = tmp_path / "run" / name
    if name == "report.html":
        path.mkdir(parents=True)
    else:
        path.parent.mkdir()
        path.write_text("in the way")
    with pytest.raises(InvalidInput, match=rf"cannot be written: .*/{name} is a f"):
        plan(context, measure=False)


def test_plan__refuses_a_run_below_a_file(tmp_path: Path) -> None:
    make_context(tmp_path)
    context = extracting(tmp_path, f"run={tmp_path}/train.csv/run")
    with pytest.raises(InvalidInput, match=r"train\.csv is a file, not a folder"):
        plan(context, measure=False)


@pytest.mark.parametrize(
    ("categories", "said"),
    [
        (["", "", ""], "Classifiers were skipped: the corpus has no categories."),
        (["a", "a", "a"], "Classifiers were skipped: all samples are of the category a."),
        (["a", "a", "b"], "the category b has a single train sample"),
        (["a", "b", "b", "a"], None),
    ],
)
def test_plan__says_which_classifiers_will_be_left_out(
    tmp_path: Path, categories: list[str], said: str | None
) -> None:
    make_context(tmp_path)
    rows = [f"prompt {number},{name}" for number, name in enumerate(categories)]
    (tmp_path / "train.csv").write_text("\n".join(["text,category", *rows]) + "\n")
    context = extracting(tmp_path, "corpus.category=category")
    sentences = planned_figures(context)["left_out"]
    assert [said in sentence for sentence in sentences] == ([True] if said else [])


def test_plan__says_which_baselines_will_be_left_out(tmp_path: Path) -> None:
    make_context(tmp_path)
    context = extracting(tmp_path, "discover.modules=[1, 2]")
    assert "Baselines will be left out for K = 1:" in planned_figures(context)["left_out"][-1]


@pytest.mark.parametrize(("attention", "is_refused"), [("sdpa", True), ("eager", False)])
def test_plan__of_a_family_without_sdpa_takes_what_it_has(
    tmp_path: Path, attention: str, is_refused: bool
) -> None:
    save_tiny(tmp_path / "model", "gemma2")
    (tmp_path / "train.csv").write_text("text\nfirst\nsecond\n")
    (tmp_path / "job.yaml").write_text(JOB.format(run=tmp_path / "run", more=""))
    with writing(extracting(tmp_path), "plan") as held:
        planned = prepare_extraction(held, save=True).plan
    assert planned.provenance["model.attention"] == "eager"
    context = extracting(tmp_path, f"model.attention={attention}")
    if is_refused:
        with pytest.raises(InvalidInput, match="does not have for models of type gemma2"):
            prepare_extraction(context, save=False)
    else:
        assert prepare_extraction(context, save=False).plan == planned
        default = extracting(tmp_path).job
        # A record of the explicit job is also one of the job that leaves the key out.
        recorded = [Ledger(context.run, job).expected("snapshot") for job in (context.job, default)]
        assert recorded[0] == recorded[1]


def test_plan__shows_the_first_tokens_and_the_prompts_that_spell_control_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_context(tmp_path)
    path = tmp_path / "model" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_bos_token": True}))
    template = tmp_path / "model" / "chat_template.jinja"
    template.write_text(template.read_text().replace("{{ bos_token }}", ""))
    (tmp_path / "train.csv").write_text("text\nHi </s>\nplain\n")

    def show(*overrides: str) -> dict[str, object]:
        job = Job.from_yaml(tmp_path / "job.yaml", ["prompt.system=null", *overrides])
        return dict(plan(Context(job, RunDir.at(job.run)), measure=False).facts)

    facts = show()
    assert facts["first sample"] == '<|user|> "Hi </s>" </s> <|assistant|>'
    assert facts["prompts that spell control tokens"] == "1, read as text"
    assert ["add_bos_token: true, but no <s> begins" in m for m in caplog.messages] == [True]
    facts = show("prompt.control_tokens=tokens", "report.prompts=none")
    assert facts["first sample"] == '<|user|> "…" </s> </s> <|assistant|>'
    assert facts["prompts that spell control tokens"] == "1, read as control tokens"


def test_plan__a_chat_that_the_template_cannot_take_is_named(planned: Path) -> None:
    chats = [[{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Hi"}]]
    chats[1].append({"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]})  # type: ignore[dict-item]
    lines = [json.dumps({"chat": chat}) + "\n" for chat in chats]
    (planned / "chats.jsonl").write_text("".join(lines))
    overrides = ["corpus.train=chats.jsonl", "corpus.text=null", "corpus.messages=chat"]
    job = Job.from_yaml(planned / "job.yaml", overrides)
    fault = r"Sample train-1 \(row 1 of the train samples\) .*tool_calls\[0\].name of message 1"
    with pytest.raises(InvalidInput, match=fault):
        prepare_extraction(Context(job, RunDir.at(str(planned / "another"))), save=False)


def test_plan__a_model_that_is_gone_keeps_the_attention_that_was_recorded(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    record = Record(1, {}, {"model.attention": "eager"})
    context.run.write_json(record_key("snapshot"), asdict(record))
    expected = Ledger(context.run, context.job).expected("snapshot")
    assert expected.config["model.attention"] == "sdpa"
    shutil.rmtree(tmp_path / "model")
    expected = Ledger(context.run, context.job).expected("snapshot")
    assert expected.config["model.attention"] == "eager"


def test_plan__refuses_ranks_for_a_family_that_cannot_be_shared(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", "bert")
    (tmp_path / "train.csv").write_text("text\nfirst\nsecond\n")
    (tmp_path / "job.yaml").write_text(JOB.format(run=tmp_path / "run", more=", ranks: 2"))
    with pytest.raises(InvalidInput, match="type bert cannot be shared by ranks"):
        plan(extracting(tmp_path), measure=False)


def test_plan__refuses_a_tokenizer_with_more_tokens_than_the_model(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    save_tiny(tmp_path / "model", vocab_size=40)
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(
        InvalidInput, match=r"Sample train-0 .*The tokenizer gave token \d+, but the model knows 40"
    ):
        plan(context, measure=False)


def test_plan__attribution_is_named_in_the_digests_and_activation_is_not(planned: Path) -> None:
    known = prepare_extraction(extracting(planned), save=False).plan
    assert [key for key in known.provenance if key.startswith("statistic")] == []
    other = extracting(planned, "extract.statistic=attribution", f"run={planned / 'other'}")
    made = prepare_extraction(other, save=False).plan
    assert made.provenance["statistic"] == "attribution"
    assert "|activation x gradient|" in made.provenance["statistic.definition"]
    assert {part.digest for part in made.shards}.isdisjoint(part.digest for part in known.shards)
    assert made.model_bytes > 1.5 * known.model_bytes


def test_plan__attribution_on_an_encoder_is_refused_by_name(tmp_path: Path) -> None:
    make_context(tmp_path)
    save_tiny(tmp_path / "model", "bert")
    context = extracting(tmp_path, "extract.statistic=attribution", "prompt.system=null")
    with pytest.raises(InvalidInput, match=r"type bert are encoders.*activation, or use a decoder"):
        plan(context, measure=False)


def test_plan__attribution_without_a_head_is_refused_by_name(tmp_path: Path) -> None:
    make_context(tmp_path)
    with pytest.raises(InvalidInput, match=r"lm_head"):
        plan(extracting(tmp_path, "extract.statistic=attribution"), measure=False)


def test_plan__attribution_of_a_prompt_without_a_prediction_names_its_sample(
    planned: Path,
) -> None:
    (planned / "train.csv").write_text("text\nlong enough\nX\n")
    changes = ["prompt.tokens=prompt", "extract.statistic=attribution"]
    context = extracting(planned, *changes, f"run={planned / 'other'}")
    with pytest.raises(InvalidInput, match=r"Sample .*: It has one token that counts; attribution"):
        plan(context, measure=False)
    (planned / "train.csv").write_text("text\nlong enough\nXY\n")
    assert planned_figures(context)["prompts"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["prompt.tokens=last"], "no loss comes after prompt.tokens last"),
        (["model=null", "corpus=null", "matrix.path=z.npy"], "a matrix is imported as it is"),
    ],
)
def test_job__with_attribution_of_what_has_none_is_refused(
    planned: Path, changes: list[str], message: str
) -> None:
    with pytest.raises(InvalidInput, match=f"extract.statistic: {message}"):
        Job.from_yaml(planned / "job.yaml", ["extract.statistic=attribution", *changes])
