"""Prompts through a real model to the page: one run of the demo's decoder on part of its corpus."""

import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

import ulcmod_dist as um
from tests.pipeline.conftest import Ulcmod
from tests.pipeline.demo_corpus import DEMO, write_demo_corpus
from ulcmod_dist import cli
from ulcmod_dist.config.schema import ModelConfig, TokenizationConfig
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.intervene.engine import mask_units
from ulcmod_dist.intervene.masks import Mask
from ulcmod_dist.pipeline.compare import name_runs
from ulcmod_dist.results.types import Absent

HOSTILE = "<script>window.pwned = 1</script> Write a story about a lighthouse and a storm."
SENTINEL = "xylographist"  # in every confidential prompt
JOB = f"""\
run: RUN
model: {{id: {DEMO / "model"}}}
corpus: {{train: train.parquet, test: test.parquet, id: id, category: category}}
extract: {{shard_samples: 32, workers: 1}}
discover: {{modules: [3, 4], restarts: 2}}
evaluate: {{seeds: 1, null_permutations: 1, baselines: [k-means]}}
ablate: {{samples: 4, random_sets: 1}}
report: {{typical: 60}}
"""


@pytest.fixture(scope="module")
def folder(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of three categories, a job for it, and the run that the command line made."""
    folder = tmp_path_factory.mktemp("job")
    write_demo_corpus(folder)
    table = pq.read_table(folder / "train.parquet")
    texts = pa.array([HOSTILE, *table["text"].to_pylist()[1:]])
    place = table.schema.get_field_index("text")
    pq.write_table(table.set_column(place, "text", texts), folder / "train.parquet")
    (folder / "job.yaml").write_text(JOB.replace("RUN", str(folder / "run")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ulcmod", "run", str(folder / "job.yaml")])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert not end.value.code
    return folder


def test_run__keeps_every_sample_and_unit(folder: Path) -> None:
    run = um.open_run(folder / "run")
    assert len(run.sample_ids("train")) == 60
    assert len(run.sample_ids("test")) == 15
    units = run.units(3)
    assert len(units) == 6 * 512
    assert units["path"][512] == "layers.1.mlp.down_proj"
    assert set(units["module"]) == {0, 1, 2}


def test_run__page_shows_prompts_as_text(folder: Path) -> None:
    page = (folder / "run/report.html").read_text(encoding="utf-8")
    assert "lighthouse" in page
    assert "<script>window.pwned" not in page


def test_run__again_computes_nothing(folder: Path, ulcmod: Ulcmod) -> None:
    again = ulcmod("run", folder / "job.yaml", "--json").json()
    assert (again["computed"], again["reused"]) == (0, 75)
    assert ulcmod("evaluate", folder / "run", "--json").json()["rows"][0]["state"] == "as before"


def test_run__of_another_precision_or_shard_size_is_refused_by_name(
    folder: Path, ulcmod: Ulcmod
) -> None:
    answer = ulcmod("extract", folder / "job.yaml", "--set", "model.dtype=bfloat16")
    assert answer.code == 2
    assert "dtype" in answer.err
    answer = ulcmod("run", folder / "job.yaml", "--set", "extract.shard_samples=5")
    assert answer.code == 2
    assert "extract.shard_samples is 5, was" in " ".join(answer.err.split())


def test_run__of_attribution_says_so_wherever_it_is_shown(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    run = tmp_path / "run"
    words = ("--set", "extract.statistic=attribution", "--set", "ablate.with_run=true")
    answer = ulcmod(
        "run", folder / "job.yaml", *words, "--set", f"run={run}", "--set", "discover.modules=[3]"
    )
    assert answer.code == 0, answer.err
    assert um.open_run(run).snapshot.statistic == "attribution"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "|activation x gradient| of the loss" in page
    assert ulcmod("status", run, "--json").json()["statistic"] == "attribution"
    assert ulcmod("status", folder / "run", "--json").json()["statistic"] == "activation"
    ablated = ulcmod("ablate", run, "--json").json()
    assert (ablated["statistic"], ablated["rows"][0]["num_modules"]) == ("attribution", 3)
    assert "found in the units&#39; attribution" in page
    assert ulcmod("verify", run).code == 0
    out = tmp_path / "compared.html"
    compared = ulcmod("compare", folder / "run", run, "--num-modules", 3, "--out", out, "--json")
    assert [each["statistic"] for each in compared.json()["runs"]] == ["activation", "attribution"]
    assert "K = 3 (attribution)" in out.read_text(encoding="utf-8")


def test_run__fresh_one_gives_the_same_bytes(folder: Path, tmp_path: Path, ulcmod: Ulcmod) -> None:
    answer = ulcmod("extract", folder / "job.yaml", "--set", f"run={tmp_path / 'again'}")
    assert answer.code == 0, answer.err
    assert ulcmod("discover", tmp_path / "again").code == 0
    for name in ("units.parquet", "samples.parquet", "metrics.json"):
        one = (folder / "run/modules/K=003" / name).read_bytes()
        assert (tmp_path / "again/modules/K=003" / name).read_bytes() == one


def test_run__confidential_prompts_are_nowhere_but_in_the_corpus(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    job = (folder / "job.yaml").read_text().replace(str(folder / "run"), str(tmp_path / "run"))
    for split in ("train", "test"):
        table = pq.read_table(folder / f"{split}.parquet")
        texts = [f"{SENTINEL} {text}" for text in table["text"].to_pylist()]
        place = table.schema.get_field_index("text")
        pq.write_table(table.set_column(place, "text", [texts]), tmp_path / f"{split}.parquet")
    (tmp_path / "job.yaml").write_text(job)
    parts = ("--set", "ablate.with_run=true", "--set", "explain.with_run=true")
    words = ("--set", "report.prompts=none", *parts, "--json")
    answer = ulcmod("run", tmp_path / "job.yaml", "--set", "discover.modules=[3]", *words)
    assert answer.code == 0, answer.err
    shown = [answer.out, answer.err, *map(content, (tmp_path / "run").rglob("*"))]
    assert len(shown) > 60
    assert [text[:200] for text in shown if SENTINEL in text.lower()] == []
    assert content(tmp_path / "train.parquet").count(SENTINEL) == 60
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "report.prompts is none" in page
    assert "Selective modules" in page


def content(path: Path) -> str:
    """What a file says: the rows of a table, the characters of any other."""
    if path.suffix == ".parquet":
        return str(pq.read_table(path).to_pylist())
    return path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""


def test_ablate__fills_its_part_of_the_page(folder: Path, ulcmod: Ulcmod) -> None:
    answer = ulcmod("ablate", folder / "run", "--json")
    assert answer.code == 0, answer.err
    assert [row["num_modules"] for row in answer.json()["rows"]] == [3, 4]
    assert all(np.isfinite(row["selectivity"]) for row in answer.json()["rows"])
    assert ulcmod("evaluate", folder / "run").code == 0
    assert ulcmod("report", folder / "run").code == 0
    assert "ulcmod ablate" not in (folder / "run/report.html").read_text(encoding="utf-8")
    again = ulcmod("ablate", folder / "run", "--json").json()
    assert {row["state"] for row in again["rows"]} == {"as before"}


def test_ablate__measures_answers_and_notices_changed_ones(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    table, corpus = pq.read_table(folder / "train.parquet"), tmp_path / "train.parquet"
    for answer in ("Yes, of course.", "No."):
        answers = pa.array([answer, *[None] * 9] * (len(table) // 10), pa.string())
        place = table.schema.get_field_index("answer")
        pq.write_table(table.set_column(place, "answer", answers), corpus)
        settings = ("corpus.answer=answer", f"corpus.train={corpus}", "ablate.samples=20")
        words = [word for setting in settings for word in ("--set", setting)]
        found = ulcmod("ablate", run, "--num-modules", 3, "--json", *words)
        assert found.code == 0, found.err
        [row] = found.json()["rows"]
        assert (row["state"], row["answer_samples"]) == ("measured", 6)
    assert ulcmod("evaluate", run, "--num-modules", 3, "--json").json()["rows"][0]["state"] == (
        "as before"
    )
    assert ulcmod("report", run).code == 0
    assert "Median selectivity on the answers" in (run / "report.html").read_text(encoding="utf-8")


def test_ablate__without_room_for_an_actor_says_what_is_short(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    settings = ("extract.cpus=1000", "extract.patience=1", "ablate.seed=5")
    words = [word for setting in settings for word in ("--set", setting)]
    answer = ulcmod("ablate", tmp_path / "run", *words)
    assert answer.code == 1
    assert "An actor needs 1000 CPU, of which the largest node has" in answer.err


def test_export__masks_ablate_just_their_units(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    words = ("--num-modules", 3, "--module", 1, "--module", 1, "--out", tmp_path, "--json")
    (row,) = ulcmod("export", folder / "run", *words).json()["rows"]
    assert (row["name"], row["modules"]) == ("K003-module-01", [1])
    assert row["share"] == pytest.approx(row["removed"] / row["parameters"])
    model = AutoModel.from_pretrained(DEMO / "model").eval()
    engine = Engine(model)
    tensors = load_file(tmp_path / "masks.safetensors")
    labels = um.open_run(folder / "run").units(3)["module"].to_numpy()
    assert {key.split("/")[0] for key in tensors} == {"K003-module-01"}
    stored = [tensors[f"K003-module-01/{part.path}"] for part in engine.units]
    mask = Mask.empty(engine.units).select(np.concatenate(stored))
    assert mask.ablated.tolist() == (labels == 1).tolist()
    rows = pq.read_table(tmp_path / "masks.parquet").to_pandas()
    assert rows["unit"].tolist() == np.flatnonzero(labels == 1).tolist()
    assert set(rows["mask"]) == {"K003-module-01"}
    assert not rows["value"].any()
    encoded = PromptTokenizer.load(
        ModelConfig(id=str(DEMO / "model")), TokenizationConfig()
    ).encode(["Add 2 and 3."])
    with mask_units(model, mask):
        ablated = engine.run(encoded).activations[0]
    assert ablated[labels == 1].max() == 0
    assert (ablated[labels != 1] > 0).mean() > 0.9


def test_export__its_readme_ablates_a_module_without_this_package(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ulcmod("export", folder / "run", "--num-modules", 3, "--out", tmp_path).code == 0
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(code.splitlines()) <= 10
    units = (um.open_run(folder / "run").units(3)["module"] == 0).sum()
    assert f"| 0 | {units:,} |" in readme
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEMO.name).mkdir()
    (tmp_path / DEMO.name / "model").symlink_to(DEMO / "model")
    names: dict[str, Any] = {}
    exec(code, names)
    ids = torch.arange(5, 25)[None]
    model = AutoModelForCausalLM.from_pretrained(DEMO / "model")
    with torch.no_grad():
        intact = model(ids).logits
        with um.mask_modules(model, um.open_run(folder / "run"), [0], num_modules=3):
            expected = model(ids).logits
        ablated = names["model"](ids).logits
    assert torch.equal(ablated, expected)
    assert not torch.equal(ablated, intact)


def test_export__its_readme_quotes_only_an_ablation_of_the_same_modules(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    run, readme = shutil.copytree(folder / "run", tmp_path / "run"), tmp_path / "out/README.md"
    words = ("export", run, "--num-modules", 3, "--out", tmp_path / "out")
    assert ulcmod("ablate", run, "--num-modules", 3).code == 0
    assert ulcmod(*words).code == 0
    assert "When ablated" in readme.read_text(encoding="utf-8")
    seed = ("--num-modules", 3, "--set", "discover.seed=1")
    assert ulcmod("discover", run, *seed).code == ulcmod("evaluate", run, *seed).code == 0
    assert ulcmod(*words).code == 0
    text = readme.read_text(encoding="utf-8")
    assert ("seed 1" in text, "| Mean z |" in text, "When ablated" in text) == (True, True, False)


def test_export__lists_hold_every_unit_with_its_score(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    assert ulcmod("export", folder / "run", "--num-modules", 3, "--out", tmp_path).code == 0
    run = um.open_run(folder / "run")
    degrees = run.membership(3)
    rows = pd.read_csv(tmp_path / "modules.csv")
    assert rows.columns.tolist() == ["layer", "index", "path", "module", "score"]
    columns = degrees.filter(like="degree_").to_numpy()
    degrees["expected"] = columns[np.arange(len(degrees)), degrees["module"]]
    both = rows.merge(degrees, on=["layer", "index", "module"])
    assert len(both) == len(rows) == len(degrees)
    np.testing.assert_allclose(both["score"], both["expected"], atol=1e-6)
    listed = json.loads((tmp_path / "modules.json").read_text(encoding="utf-8"))["modules"]
    assert [len(module["index"]) for module in listed] == rows.value_counts(
        "module", sort=False
    ).tolist()
    assert listed[1]["score"] == rows["score"][rows["module"] == 1].tolist()


def test_export__without_prompts_holds_no_text_id_or_place(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    out = tmp_path / "out"
    words = ("export", tmp_path / "run", "--num-modules", 3, "--out", out)
    assert ulcmod(*words).code == 0
    assert "lighthouse" in (out / "report.html").read_text(encoding="utf-8")
    job = tmp_path / "run/job.yaml"
    job.write_text(job.read_text().replace("prompts: all", "prompts: none"))
    stale = ulcmod(*words)
    assert "Without page: " in stale.out
    assert not (out / "report.html").exists()
    for command in ("evaluate", "report"):
        assert ulcmod(command, tmp_path / "run").code == 0
    assert "Without" not in ulcmod(*words).out
    kinds = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert kinds == {
        ".csv", ".html", ".json", ".md", ".parquet", ".pdf", ".png", ".safetensors", ".svg",
    }  # fmt: skip
    ids = um.open_run(folder / "run").sample_ids(None)
    private = ["lighthouse", "pwned", str(folder), str(tmp_path), str(DEMO), *map(repr, ids)]
    for path in out.rglob("*.*"):
        text = path.read_bytes().decode("utf-8", errors="ignore")
        assert [secret for secret in private if secret in text] == [], path


def test_evaluate__without_the_corpus_warns_and_shows_no_prompts(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    job = tmp_path / "run/job.yaml"
    job.write_text(job.read_text().replace(str(folder / "train.parquet"), str(tmp_path / "gone")))
    words = ("--set", "report.typical=3")
    answer = ulcmod("evaluate", tmp_path / "run", *words)
    assert answer.code == 0, answer.err
    assert "Warning: The corpus could not be read again" in " ".join(answer.err.split())
    assert ulcmod("report", tmp_path / "run", *words).code == 0
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "The corpus could not be read again" in page
    assert "lighthouse" not in page


def test_export__needs_no_model(folder: Path, tmp_path: Path, ulcmod: Ulcmod) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    job = tmp_path / "run/job.yaml"
    job.write_text(job.read_text().replace(str(DEMO / "model"), str(tmp_path / "gone")))
    outs = {"with": folder / "run", "without": tmp_path / "run"}
    said = {
        name: ulcmod("export", run, "--num-modules", 3, "--out", tmp_path / name)
        for name, run in outs.items()
    }
    assert (said["with"].code, said["without"].code) == (0, 0)
    for file in ("masks.safetensors", "masks.parquet"):
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()
    unknown = "How much the masks would cut is not known. The model "
    assert unknown in " ".join(said["without"].out.split())
    assert "not known" not in said["with"].out
    assert ulcmod("report", tmp_path / "run").code == 0
    refused = ulcmod("ablate", tmp_path / "run", "--set", "ablate.seed=9")
    assert (refused.code, "gone is not here." in refused.err) == (2, True)


def test_report__without_prompts_names_earlier_versions_that_hold_them(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    words = ("--set", "report.prompts=none")
    first = ulcmod("rerun", tmp_path / "run", *words)
    assert first.code == 0, first.err
    said = " ".join(first.err.split())
    assert f"Remove them if these must go: {tmp_path / 'run'}/versions/000001" in said
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "lighthouse" not in page


def test_mask_modules__changes_a_live_model_and_leaves_it_as_it_was(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(DEMO / "model").eval()
    tokens = AutoTokenizer.from_pretrained(DEMO / "model")("Add 2 and 3.", return_tensors="pt")
    with torch.inference_mode():
        before = model(**tokens).logits
        with um.mask_modules(model, um.open_run(folder / "run"), modules=[0], num_modules=3):
            within = model(**tokens).logits
        after = model(**tokens).logits
    assert not torch.equal(before, within)
    assert torch.equal(before, after)


def test_mask_modules__takes_one_module_and_sets_it_to_its_mean(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(DEMO / "model").eval()
    tokens = AutoTokenizer.from_pretrained(DEMO / "model")("Add 2 and 3.", return_tensors="pt")
    run = um.open_run(folder / "run")

    def logits(factors: dict[int, float], **options: Any) -> torch.Tensor:
        with torch.inference_mode(), um.scale_modules(model, run, factors, 3, **options):
            found: torch.Tensor = model(**tokens).logits
            return found

    for method in ("zero", "mean"):
        with torch.inference_mode(), um.mask_modules(model, run, 0, 3, method=method):
            masked = model(**tokens).logits
        assert torch.equal(masked, logits({0: 0.0}, method=method))
        plain = logits({0: 1.0}, method=method)
        assert torch.equal(plain, logits({}))
        assert not torch.equal(masked, plain)
    assert not torch.equal(logits({0: 0.0}), logits({0: 0.0}, method="mean"))


def test_scale_modules__refuses_what_is_not_the_run_s(folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(DEMO / "model")
    run = um.open_run(folder / "run")
    for factors, message in (({3: 0.0}, "no module 3"), ({0: math.inf}, "not a finite number")):
        with (
            pytest.raises(um.InvalidInput, match=message),
            um.scale_modules(model, run, factors, 3),
        ):
            pass
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] += 1
    model.save_pretrained(tmp_path)
    other = AutoModelForCausalLM.from_pretrained(tmp_path)
    with (
        pytest.raises(um.InvalidInput, match="not that of the run") as refused,
        um.scale_modules(other, run, {0: 0.0}, 3),
    ):
        pass
    assert "\n" not in str(refused.value)
    with um.scale_modules(other, run, {0: 0.0}, 3, same_model=False):
        pass


def test_generate__is_what_the_model_says_untouched_and_scaled(
    folder: Path, ulcmod: Ulcmod
) -> None:
    words = ("--num-modules", 3, "--prompt", "Add 2 and 3.", "--tokens", 6)
    answer = ulcmod(
        "generate", folder / "run", *words, "--scale", "0=0", "--scale", "1=1", "--json"
    )
    assert answer.code == 0, answer.err
    (row,) = answer.json()["rows"]
    assert answer.json()["scale"] == {"0": 0.0, "1": 1.0}
    model = AutoModelForCausalLM.from_pretrained(DEMO / "model").eval()
    tokenizer = PromptTokenizer.load(ModelConfig(id=str(DEMO / "model")), TokenizationConfig())
    ids = torch.tensor([tokenizer.encode(["Add 2 and 3."])[0].ids])

    def complete() -> str:
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6)
        ended = [token for token in made[0, ids.shape[1] :].tolist() if token != tokenizer_end]
        return tokenizer.decode(ended)

    tokenizer_end = model.generation_config.eos_token_id
    assert row["untouched"] == complete()
    with um.mask_modules(model, um.open_run(folder / "run"), 0, 3):
        assert row["changed"] == complete()
    lines = ulcmod("generate", folder / "run", *words, "--scale", "0=0.5").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].strip() == "Add 2 and 3."


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt", "A", "--scale", "9=0"], "There is no module 9; there are 0 to 2."),
        (["--prompt", "A", "--scale", "1=nan"], "The factor of module 1 is nan, not a finite"),
        (["--prompt", "A", "--scale", "1=much"], "--scale '1=much' is not of the form"),
        (["--prompt", "A", "--scale", "1=0", "--scale", "1=2"], "names module 1 twice"),
        (["--prompt", "A"], "No module is scaled."),
        (["--prompt", "A", "--scale", "1=0", "--temperature", "0.001"], "The temperature is 0.001"),
        (["--scale", "1=0"], "There is no prompt to complete."),
        (["--scale", "1=0", "--prompts", "gone.csv"], "gone.csv"),
    ],
)
def test_generate__refuses_bad_words_in_one_line(
    folder: Path, ulcmod: Ulcmod, words: list[str], message: str
) -> None:
    answer = ulcmod("generate", folder / "run", "--num-modules", 3, *words)
    assert answer.code == 2
    assert message in " ".join(answer.err.split())


@pytest.mark.parametrize("command", ["generate", "explain"])
def test_commands_that_load_the_model__refuse_one_whose_files_have_changed(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod, command: str
) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    shutil.copytree(DEMO / "model", tmp_path / "model")
    config = tmp_path / "model/config.json"
    config.write_text(config.read_text() + " ")
    job = run / "job.yaml"
    job.write_text(job.read_text().replace(str(DEMO / "model"), str(tmp_path / "model")))
    words = {"generate": ("--prompt", "Add 2 and 3.", "--scale", "1=0"), "explain": ()}[command]
    answer = ulcmod(command, run, "--num-modules", 3, *words)
    assert answer.code == 2
    said = " ".join(answer.err.split())
    assert f"The model is not that of the run: {tmp_path / 'model'} has the digest" in said


def test_explain__names_a_describing_model_that_is_not_there(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    describe = "explain.describe={model: /gone}"
    answer = ulcmod("explain", run, "--num-modules", 3, "--set", describe)
    assert answer.code == 2
    assert "explain.describe.model: The model /gone is not here." in " ".join(answer.err.split())


def test_explain__shows_tokens_units_completions_and_a_description(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    describe = f"explain.describe={{model: {DEMO / 'model'}}}"
    words = ("--set", "explain.completions=1", "--set", "explain.tokens=4", "--set", describe)
    answer = ulcmod("explain", run, "--num-modules", 3, *words, "--json")
    assert answer.code == 0, answer.err
    assert [row["state"] for row in answer.json()["rows"]] == ["explained"] * 3
    again = ulcmod("explain", run, "--num-modules", 3, "--json").json()["rows"]
    assert [row["state"] for row in again] == ["as before"] * 3
    found = um.open_run(run).explanation(3)
    texts = pq.read_table(folder / "train.parquet").to_pandas().set_index("id")["text"]
    modules = um.open_run(run).modules(3)
    for each in found.modules:
        assert not isinstance(each.prompts, Absent)
        for prompt in each.prompts:
            assert "".join(prompt.tokens).strip() == texts[prompt.sample_id].strip()
        assert not isinstance(each.completions, Absent)
        assert len(each.completions) == 1
        assert not isinstance(each.description, Absent)
        assert each.description.auc is not None
        assert min(each.description.num_own, each.description.num_other) > 0
        assert [modules.unit_labels[unit.unit] for unit in each.units] == [each.module] * 5
    assert ulcmod("report", run).code == 0
    with pytest.raises(um.InvalidInput, match="holds no explanation for K = 4"):
        um.open_run(run).explanation(4)


def test_compare__a_run_with_itself_agrees_wholly(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    run, page = folder / "run", tmp_path / "page.html"
    answer = ulcmod("compare", run, run, "--num-modules", 3, "--out", page, "--json")
    assert answer.json()["adjusted_rand_of_units"] == 1.0
    assert answer.json()["units_moved"] == 0
    assert "Matched modules" in page.read_text(encoding="utf-8")
    other = ulcmod("compare", run, run, "--num-modules", 3, "--other-num-modules", 4, "--json")
    assert len(other.json()["rows"]) == 3
    smaller, larger = other.json()["runs"]
    assert (smaller["run"], larger["run"]) == (str(run), str(run))
    assert (smaller["num_modules"], larger["num_modules"]) == (3, 4)
    kept = um.open_run(run)
    for side in (smaller, larger):
        assert side["objective"] == kept.metrics(side["num_modules"])["objective"][0]
    partners = {row["other"] for row in other.json()["rows"]}
    assert smaller["unmatched"] == []
    assert {*larger["unmatched"]} == {*range(4)} - partners
    for what in ("units", "samples"):
        moved = sum(move[what] for move in other.json()["moves"])
        assert moved == other.json()[f"{what}_moved"] > 0


def test_compare__three_runs_are_followed_on_one_page(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    run, page = folder / "run", tmp_path / "page.html"
    words = ("--num-modules", 3, "--other-num-modules", 4, "--out", page)
    answer = ulcmod("compare", run, run, run, *words, "--json").json()
    assert [pair["units_adjusted_rand"] == 1.0 for pair in answer["pairs"]] == [False, False, True]
    assert {row["run_0"] for row in answer["rows"]} >= {"0", "1", "2"}
    assert "What happened" in page.read_text(encoding="utf-8")
    alone = ulcmod("compare", run, run, "--num-modules", 3, "--samples-only", "--json").json()
    assert (alone["shared_units"], alone["adjusted_rand_of_samples"]) == (0, 1.0)
    nowhere = tmp_path / "nowhere"
    for arguments, message in [
        ((run,), f"There is nothing to compare {run} with."),
        ((run, nowhere, "--num-modules", 3), f"{nowhere} holds no modules."),
        ((run, run), f"{run} holds modules for K = 3, 4. Name one of these by --num-modules."),
        ((run, run, "--num-modules", 3, "--other-num-modules", 7), "K = 3, 4, not for 7. Name"),
        ((run, run, "--out", nowhere / "page.html"), f"there is no folder {nowhere}."),
    ]:
        refused = ulcmod("compare", *arguments)
        assert (refused.code, message in " ".join(refused.err.split())) == (2, True), refused.err
    assert not nowhere.exists()


def test_compare__runs_of_the_same_folder_name_are_told_apart(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    copy, page = tmp_path / "copy" / "run", tmp_path / "page.html"
    shutil.copytree(folder / "run", copy)
    words = ("--num-modules", 3, "--out", page)
    assert ulcmod("compare", folder / "run", copy, *words).code == 0
    text = page.read_text(encoding="utf-8")
    assert f"<title>{folder.name}/run, K = 3 and copy/run, K = 3" in text
    assert "Modules that units and samples moved between" not in text


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ("runs/a", "runs/b/", ("a", "b")),
        ("s3://x/run", "s3://y/run", ("x/run", "y/run")),
        ("run", "old/run", ("run", "old/run")),
        ("a/run", "a/run/", ("run", "run")),
    ],
)
def test_name_runs__have_as_many_parents_as_tell_them_apart(
    one: str, other: str, names: tuple[str, str]
) -> None:
    assert name_runs(one, other) == names


def test_notebook__runs_from_top_to_bottom(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/demo").symlink_to(folder / "run")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((DEMO.parents[1] / "docs/notebook.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec("".join(cell["source"]), names)
    assert len(names["losses"]) == 1 + names["K"]
    assert repr(names["found"]).startswith("Modules(K = 3, L = ")
    assert "<table>" in names["run"]._repr_html_()
    texts = names["samples"]["text"]
    assert (texts.iloc[0], texts.isna().sum()) == (HOSTILE, 0)
    page = names["run"].report()._repr_html_()
    assert page.startswith('<iframe sandbox="allow-scripts"')
    assert "<script" not in page


def test_samples__texts_obey_the_job_that_leaves_them_out(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    job = tmp_path / "run/job.yaml"
    job.write_text(job.read_text().replace("prompts: all", "prompts: none"))
    with pytest.raises(um.InvalidInput, match=r"report\.prompts is none"):
        um.open_run(tmp_path / "run").samples(3, texts=True)
    (tmp_path / "run/report.html").unlink()
    with pytest.raises(um.InvalidInput, match="has no report"):
        um.open_run(tmp_path / "run").report()


def test_verify__finds_the_flipped_bit(folder: Path, ulcmod: Ulcmod) -> None:
    assert ulcmod("verify", folder / "run").code == 0
    chunk = max((folder / "run/activations.zarr/shards").rglob("c/0/*"), key=lambda p: p.name)
    whole = chunk.read_bytes()
    chunk.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    answer = ulcmod("verify", folder / "run", "--json")
    chunk.write_bytes(whole)
    assert answer.code == 1
    assert len(answer.json()["rows"]) == 1


def test_gc__never_touches_what_is_committed(folder: Path, ulcmod: Ulcmod) -> None:
    stray = folder / "run/activations.zarr/shards/aa/1-dead/zarr.json"
    stray.parent.mkdir(parents=True)
    stray.write_text("{}")
    listed = ulcmod("gc", folder / "run", "--dry-run", "--json").json()
    assert listed["objects"] == 1
    assert stray.exists()
    assert ulcmod("gc", folder / "run").code == 0
    assert not stray.exists()
    assert ulcmod("verify", folder / "run").code == 0


def test_plan__says_what_it_would_write_and_writes_nothing(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    run = tmp_path / "planned"
    words = ("--no-probe", "--set", f"run={run}", "--json")
    answer = ulcmod("plan", folder / "job.yaml", *words)
    assert answer.json()["samples"] == 75
    assert answer.json()["units"] == 3072
    assert answer.json()["search"]["matrix"] == 60 * 3072 * 4
    assert not (run / "plan.json").exists()
    refused = ulcmod("plan", folder / "job.yaml", *words, "--set", "discover.memory=1000")
    assert refused.code == 2
    assert "at least" in refused.err
