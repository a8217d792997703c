"""Prompts through a real model to the page: one run of the demo's decoder on part of its corpus."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

import ulcmod_dist as um
from tests.pipeline.conftest import Ulcmod
from tests.pipeline.demo_corpus import DEMO, write_demo_corpus
from ulcmod_dist.results.types import Absent

HOSTILE = "<script>window.pwned = 1</script> Write a story about a lighthouse and a storm."
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
def folder(local_ray: None, tmp_path_factory: pytest.TempPathFactory, ulcmod: Ulcmod) -> Path:
    """A corpus of three categories, a job for it, and the run that the command line made."""
    folder = tmp_path_factory.mktemp("job")
    write_demo_corpus(folder)
    table = pq.read_table(folder / "train.parquet")
    texts = pa.array([HOSTILE, *table["text"].to_pylist()[1:]])
    place = table.schema.get_field_index("text")
    pq.write_table(table.set_column(place, "text", texts), folder / "train.parquet")
    (folder / "job.yaml").write_text(JOB.replace("RUN", str(folder / "run")))
    assert ulcmod("run", folder / "job.yaml").code == 0
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
        answers = pa.array([answer, None] * (len(table) // 2), pa.string())
        place = table.schema.get_field_index("answer")
        pq.write_table(table.set_column(place, "answer", answers), corpus)
        settings = ("corpus.answer=answer", f"corpus.train={corpus}")
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


@pytest.mark.parametrize("command", ["ablate", "generate", "explain"])
def test_commands_that_load_the_model__refuse_one_whose_files_have_changed(
    folder: Path, tmp_path: Path, ulcmod: Ulcmod, command: str
) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    shutil.copytree(DEMO / "model", tmp_path / "model")
    config = tmp_path / "model/config.json"
    config.write_text(config.read_text() + " ")
    job = run / "job.yaml"
    job.write_text(job.read_text().replace(str(DEMO / "model"), str(tmp_path / "model")))
    words = {
        "ablate": ("--set", "ablate.seed=9"),
        "generate": ("--prompt", "Add 2 and 3.", "--scale", "1=0"),
        "explain": (),
    }
    answer = ulcmod(command, run, "--num-modules", 3, *words[command])
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
    assert "/gone" not in (run / "job.yaml").read_text()


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
