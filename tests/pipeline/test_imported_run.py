"""A matrix from elsewhere, from the command line to the page."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import adjusted_rand_score

import ulcmod_dist as um
from tests.pipeline.conftest import Answer, Planted, Ulcmod, call_ulcmod, copy_run, plant
from ulcmod_dist.pipeline import evaluate

QUICK = ("--set", "discover.modules=3", "--set", "discover.restarts=2", "--set", "evaluate.seeds=1")
FEW = (
    "--set", "evaluate.null_permutations=1", "--set", "evaluate.baselines=[k-means]",
    "--set", "report.formats=[png]",
)  # fmt: skip


class _Refusing(BaseHTTPRequestHandler):
    """An object store that answers 403 to everybody."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_PUT = do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "planted-secret-0123456789")
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("refusing")
def test_import__into_a_bucket_that_refuses_says_so_in_one_line(
    planted: Planted, ulcmod: Ulcmod
) -> None:
    answer = ulcmod("import", planted.path, "--out", "s3://bucket/run")
    assert answer.code == 1
    assert answer.err.startswith("Error: The object store failed:")
    assert "403" in answer.err
    assert answer.err.count("\n") == 1
    assert "planted-secret" not in answer.err


def import_planted(planted: Planted) -> Path:
    """Import the matrix with its samples and units, beside it, as ``run``."""
    folder = planted.path.parent
    samples = pa.table(
        {
            "sample_id": [f"s{row}" for row in range(60)],
            "split": ["train"] * 48 + ["test"] * 12,
            "category": [f"category {label}" for label in planted.sample_labels],
        }
    )
    pq.write_table(samples, folder / "samples.parquet")
    units = pa.table({"layer": np.arange(90) % 5, "index": np.arange(90) // 5})
    pq.write_table(units, folder / "units.parquet")
    answer = call_ulcmod(
        "import", planted.path, "--out", folder / "run", *QUICK, *FEW,
        "--samples", folder / "samples.parquet", "--units", folder / "units.parquet",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    return folder / "run"


@pytest.fixture
def imported(planted: Planted) -> Path:
    return import_planted(planted)


@dataclass(frozen=True)
class Finished:
    """A matrix, the run that was made of it, and what the command line answered."""

    planted: Planted
    run: Path
    answer: Answer


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    # Search, evaluation and drawing take most of a test's time, so the tests share them.
    planted = plant(tmp_path_factory.mktemp("finished"))
    run = import_planted(planted)
    return Finished(planted, run, call_ulcmod("run", run, "--json"))


@pytest.fixture
def finished(finished_once: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run, to be changed."""
    return copy_run(finished_once.run.parent, tmp_path / "finished")


def test_imported_run__goes_from_matrix_to_page(finished_once: Finished) -> None:
    planted, run, answer = finished_once.planted, finished_once.run, finished_once.answer
    assert answer.code == 0, answer.err
    (row,) = answer.json()["rows"]
    assert row["objective"] > 2 * row["null"]
    assert row["accuracy"] == 1.0
    found = um.open_run(run)
    units, samples = found.units(3), found.samples(3)
    assert adjusted_rand_score(units["module"], planted.unit_labels) == 1.0
    assert adjusted_rand_score(samples["module"], planted.sample_labels) == 1.0
    assert units["layer"].tolist() == (np.arange(90) % 5).tolist()
    assert samples["margin"].isna().tolist() == [False] * 48 + [True] * 12
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "The matrix was imported without its prompts." in page
    assert "The matrix was imported without its model, so no unit can be ablated." in page
    assert len(list((run / "figures").glob("*.png"))) > 5


def test_membership__of_planted_modules_is_specific_and_follows_their_means(
    finished_once: Finished,
) -> None:
    run = um.open_run(finished_once.run)
    units, samples = run.membership(3), run.membership(3, "samples")
    assert set(units["kind"]) == {"specific"}
    assert samples["split"].tolist() == run.samples(3)["split"].tolist()
    names = [f"degree_{module:03d}" for module in range(3)]
    assert (units[names].to_numpy().argmax(axis=1) == units["module"]).all()
    assert (samples[names].to_numpy().argmax(axis=1) == samples["module"]).all()
    z = run.activations()
    (column,) = np.flatnonzero(units["unit"] == 5)
    values = (np.asarray(z.raw[:, 5]) - z.mean[5]) / z.std[5]
    expected = values[run.modules(3).sample_labels("train") == 1].mean()
    assert units["degree_001"][column] == pytest.approx(expected, abs=1e-5)
    shares = run.membership(3, shares=True)[names].to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)


def test_membership__of_modules_that_were_not_evaluated_names_the_command(finished: Path) -> None:
    (finished / "evaluation/units-K=003.parquet").unlink()
    with pytest.raises(um.InvalidInput, match="have no degrees of membership"):
        um.open_run(finished).membership(3)


def test_report__json_holds_every_table(finished: Path, ulcmod: Ulcmod) -> None:
    tables = ulcmod("report", finished, "--json").json()["tables"]
    assert {f"{name}.parquet" for name in tables} == {
        path.name for path in (finished / "tables").iterdir()
    }
    for name, records in tables.items():
        assert pq.read_table(finished / f"tables/{name}.parquet").to_pylist() == records
    assert tables["methods-k003"][0]["method"] == "IterD"


def test_imported_run__metrics_equal_the_objective_of_its_labels(
    imported: Path, ulcmod: Ulcmod
) -> None:
    ulcmod("discover", imported)
    run = um.open_run(imported)
    samples = run.samples(3)
    train = samples["module"][samples["split"] == "train"].to_numpy()
    again = um.objective(run.activations(), train, run.units(3)["module"].to_numpy(), 3)
    assert run.metrics(3)["objective"][0] == pytest.approx(again.value, rel=1e-9)


def test_imported_run__repeats_nothing_that_is_done(imported: Path, ulcmod: Ulcmod) -> None:
    ulcmod("discover", imported)
    before = (imported / "modules/K=003/metrics.json").stat().st_mtime_ns
    again = ulcmod("discover", imported, "--json")
    assert [row["state"] for row in again.json()["rows"]] == ["as before"]
    assert (imported / "modules/K=003/metrics.json").stat().st_mtime_ns == before
    changed = ulcmod("discover", imported, "--set", "discover.seed=5", "--json")
    assert [row["state"] for row in changed.json()["rows"]] == ["found"]


def test_imported_run__draws_a_page_anew_only_where_something_has_changed_or_is_gone(
    imported: Path, ulcmod: Ulcmod
) -> None:
    assert ulcmod("run", imported).code == 0
    figure, *others = sorted((imported / "figures").iterdir())
    drawn = [file.stat().st_mtime_ns for file in others if file.stem != figure.stem]
    written = (imported / "report.html").stat().st_mtime_ns
    assert ulcmod("run", imported).code == 0
    assert (imported / "report.html").stat().st_mtime_ns == written
    content = figure.read_bytes()
    figure.unlink()
    assert ulcmod("run", imported).code == 0
    assert figure.read_bytes() == content
    assert ulcmod("run", imported, "--set", "report.typical=3").code == 0
    assert (imported / "report.html").stat().st_mtime_ns > written
    # No other figure shows anything that has changed.
    assert [file.stat().st_mtime_ns for file in others if file.stem != figure.stem] == drawn


def test_report__figures_have_the_formats_of_the_job(imported: Path, ulcmod: Ulcmod) -> None:
    def draw(formats: str) -> tuple[set[str], set[str]]:
        answer = ulcmod("run", imported, "--set", f"report.formats={formats}")
        assert answer.code == 0, answer.err
        files = list((imported / "figures").glob("*"))
        return {file.suffix for file in files}, {file.stem for file in files}

    _, names = draw("[svg]")
    assert draw("[pdf, svg]") == ({".pdf", ".svg"}, names)
    assert draw("[pdf]") == ({".pdf"}, names)
    assert draw("[]") == (set(), set())
    assert "no files" in ulcmod("report", imported).out
    assert "report.formats" in ulcmod("report", imported, "--set", "report.formats=[gif]").err


def test_imported_run__status_tells_what_is_missing(imported: Path, ulcmod: Ulcmod) -> None:
    before = ulcmod("status", imported, "--json").json()
    assert before["rows"][0]["modules"] == "missing"
    ulcmod("discover", imported)
    after = ulcmod("status", imported, "--json").json()
    assert after["rows"][0]["modules"] == "fresh"
    assert after["rows"][0]["evaluation"] == "missing"
    assert after["samples"] == 60


def test_imported_run__answers_are_equal_bytes_when_repeated(
    planted: Planted, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    for name in ("one", "two"):
        ulcmod("import", planted.path, "--out", tmp_path / name, *QUICK)
        assert ulcmod("discover", tmp_path / name).code == 0
    for file in ("units.parquet", "samples.parquet", "metrics.json"):
        one, two = (tmp_path / name / "modules/K=003" / file for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_import__names_the_sample_and_unit_that_are_not_finite(
    planted: Planted, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    values = planted.activations.copy()
    values[17, 4] = np.nan
    np.save(tmp_path / "broken.npy", values)
    answer = ulcmod("import", tmp_path / "broken.npy", "--out", tmp_path / "run")
    assert answer.code == 2
    assert "sample 17" in answer.err
    assert "unit 4" in answer.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "discover.modules=500"], "K = 500"),
        (["--set", "discover.restrats=2"], "nearest known one is discover.restarts"),
        (["--set", "discover.restarts"], "key=value"),
    ],
)
def test_discover__refuses_in_one_line_and_loses_nothing(
    words: list[str], message: str, imported: Path, ulcmod: Ulcmod
) -> None:
    kept = sorted(path for path in (imported / "activations.zarr").rglob("*"))
    job = (imported / "job.yaml").read_bytes()
    answer = ulcmod("discover", imported, *words)
    assert answer.code == 2
    assert message in answer.err
    assert answer.err.strip().count("\n") == 0
    assert sorted(path for path in (imported / "activations.zarr").rglob("*")) == kept
    assert (imported / "job.yaml").read_bytes() == job


def test_evaluate__says_what_memory_the_null_model_lacks_and_goes_on(
    imported: Path, ulcmod: Ulcmod, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ulcmod("discover", imported).code == 0
    monkeypatch.setattr(evaluate, "permutation_bytes", lambda *_, **__: 2**40)
    answer = ulcmod("evaluate", imported, "--json")
    assert (answer.code, answer.json()["rows"][0]["null"]) == (0, None)
    assert ulcmod("report", imported).code == 0
    page = (imported / "report.html").read_text(encoding="utf-8")
    assert "The null model holds" in page
    assert "TiB of chunks at a time" in page


def test_report__of_an_evaluation_with_other_settings_is_refused(
    finished: Path, ulcmod: Ulcmod
) -> None:
    page = (finished / "report.html").read_bytes()
    answer = ulcmod("report", finished, "--set", "report.prompts=none")
    assert answer.code == 2
    assert "have not been evaluated with these settings" in answer.err
    assert (finished / "report.html").read_bytes() == page
    words = ("--set", "report.prompts=none")
    assert ulcmod("evaluate", finished, *words).code == 0
    assert ulcmod("report", finished, *words).code == 0


def test_import__again_makes_a_damaged_run_whole(
    imported: Path, planted: Planted, ulcmod: Ulcmod
) -> None:
    (commit,) = (imported / "activations.zarr/commits").iterdir()
    commit.unlink()
    assert ulcmod("verify", imported).code == 1
    assert ulcmod("run", imported, *QUICK).code == 0
    assert ulcmod("verify", imported).code == 0


@pytest.mark.parametrize("command", ["run", "discover", "status", "report"])
def test_commands__refuse_what_is_no_job(command: str, tmp_path: Path, ulcmod: Ulcmod) -> None:
    answer = ulcmod(command, tmp_path / "nowhere")
    assert answer.code == 2
    assert "neither a job file nor a run directory" in answer.err


def test_evaluate__asks_for_modules_first(imported: Path, ulcmod: Ulcmod) -> None:
    answer = ulcmod("evaluate", imported)
    assert answer.code == 2
    assert "ulcmod discover" in answer.err


def test_usage__wrong_word_ends_with_two(ulcmod: Ulcmod) -> None:
    assert ulcmod("discovr", "x").code == 2


def test_json__is_all_that_standard_output_holds(imported: Path, ulcmod: Ulcmod) -> None:
    assert json.loads(ulcmod("discover", imported, "--json").out)["rows"]
