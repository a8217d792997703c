import shutil
import zoneinfo
from pathlib import Path

import pytest
import yaml

from tests.submit.job_files import CLUSTER, HUB_JOB, MATRIX_JOB, REVISION, job_file
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.submit import bundle as bundles
from ulcmod_dist.submit.bundle import ClusterKind, create_bundle

LOCAL_JOB = """\
run: /shared/runs/mine
model: {id: model}
corpus: {train: "prompts/*.parquet", test: /data/test.parquet}
discover: {modules: [5]}
"""


@pytest.fixture
def local_job(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / ".gitignore").write_text("*")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "one.parquet").write_bytes(b"one")
    (tmp_path / "prompts" / "notes.txt").write_text("no input")
    (tmp_path / "elsewhere.bin").write_bytes(b"x")
    return job_file(tmp_path, LOCAL_JOB)


def test_bundle__contains_the_inputs_of_the_job_and_nothing_else(local_job: Path) -> None:
    bundle = create_bundle(local_job, [], "ray")
    assert [name for name, _ in bundle.files] == ["model/config.json", "prompts/one.parquet"]


def test_bundle__written_out_is_a_job_with_its_inputs(local_job: Path, tmp_path: Path) -> None:
    place = tmp_path / "there"
    place.mkdir()
    create_bundle(local_job, ["discover.modules=7"], "ray").write_to(place)
    job = yaml.safe_load((place / "job.yaml").read_text())
    assert job["discover"]["modules"] == [7]
    assert job["corpus"] == {
        "train": ["prompts/*.parquet"],
        "test": ["/data/test.parquet"],
        "text": "text",
        "messages": None,
        "category": None,
        "answer": None,
        "id": None,
    }
    assert (place / "prompts" / "one.parquet").read_bytes() == b"one"


def test_bundle__a_system_message_switched_off_stays_off(tmp_path: Path) -> None:
    path = job_file(tmp_path, HUB_JOB + "prompt: {system: null}\n")
    assert yaml.safe_load(create_bundle(path, [], "ray").text)["prompt"]["system"] is None


def test_name__is_the_same_from_another_folder_and_changes_with_an_input(
    local_job: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first = create_bundle(local_job, [], "ray")
    copy = tmp_path_factory.mktemp("copy")
    first.write_to(copy)
    assert create_bundle(copy / "job.yaml", [], "ray").name == first.name
    (copy / "prompts" / "one.parquet").write_bytes(b"two")
    assert create_bundle(copy / "job.yaml", [], "ray").name != first.name
    assert create_bundle(local_job, ["discover.seed=1"], "ray").name != first.name


def test_bundle__contains_a_gguf_file_beside_the_job(local_job: Path) -> None:
    (local_job.parent / "tiny.gguf").write_bytes(b"GGUF")
    taken = [name for name, _ in create_bundle(local_job, ["model.id=tiny.gguf"], "ray").files]
    assert "tiny.gguf" in taken
    assert not any(name.startswith("model/") for name in taken)


@pytest.mark.parametrize("target", ["ray", "kuberay"])
def test_bundle__refuses_a_relative_run_directory(tmp_path: Path, target: ClusterKind) -> None:
    with pytest.raises(InvalidInput, match="--set run="):
        create_bundle(job_file(tmp_path), ["run=runs/mine"], target)


def test_bundle__for_slurm_makes_every_path_absolute(tmp_path: Path) -> None:
    (tmp_path / "matrix.npy").write_bytes(b"")
    path = job_file(tmp_path, MATRIX_JOB.format(run="runs/mine"))
    job = create_bundle(path, [], "slurm").job
    assert job.matrix is not None
    assert job.matrix.path == str(tmp_path / "matrix.npy")
    assert job.run == str(Path.cwd() / "runs" / "mine")


def test_bundle__for_kubernetes_refuses_inputs_beside_the_job(local_job: Path) -> None:
    with pytest.raises(InvalidInput, match=r"model/config\.json is an input beside the job file"):
        create_bundle(local_job, [], "kuberay")


def test_bundle__refuses_inputs_that_are_too_big(
    local_job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "MAX_BYTES", 4)
    with pytest.raises(InvalidInput, match="at most 4 can be uploaded"):
        create_bundle(local_job, [], "ray")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("corpus.train=../secret.parquet", "outside the folder"),
        ("corpus.train=prompts/*.csv", "no such file"),
        ("model.id=other", "lacks a fixed revision"),
    ],
)
def test_bundle__refuses_inputs_it_cannot_upload(
    local_job: Path, change: str, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        create_bundle(local_job, [change], "ray")


@pytest.mark.parametrize("link", ["file", "folder", "model"])
def test_bundle__refuses_links_that_lead_out_of_its_folder(
    local_job: Path, tmp_path_factory: pytest.TempPathFactory, link: str
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.parquet").write_bytes(b"secret")
    inputs = local_job.parent
    if link == "file":
        (inputs / "prompts" / "two.parquet").symlink_to(outside / "secret.parquet")
    elif link == "folder":
        shutil.rmtree(inputs / "prompts")
        (inputs / "prompts").symlink_to(outside)
    else:
        (inputs / "model" / "model.safetensors").symlink_to(outside / "secret.parquet")
    with pytest.raises(InvalidInput, match=r"(two|secret)\.parquet|model\.safetensors") as caught:
        create_bundle(local_job, [], "ray")
    assert "outside the folder of the job file" in str(caught.value)


def test_bundle__contains_links_within_its_folder(local_job: Path) -> None:
    folder = local_job.parent
    (folder / "blob").write_bytes(b"two")
    (folder / "prompts" / "two.parquet").symlink_to("../blob")
    assert ("prompts/two.parquet", folder / "prompts" / "two.parquet") in create_bundle(
        local_job, [], "ray"
    ).files


def test_bundle__contains_the_tables_of_a_matrix(tmp_path: Path) -> None:
    for name in ("matrix.npy", "samples.csv", "units.csv"):
        (tmp_path / name).write_bytes(b"")
    path = job_file(tmp_path, MATRIX_JOB.format(run="/shared/mine"))
    tables = ["matrix.samples=samples.csv", "matrix.units=units.csv"]
    taken = [name for name, _ in create_bundle(path, tables, "ray").files]
    assert taken == ["matrix.npy", "samples.csv", "units.csv"]
    with pytest.raises(InvalidInput, match=r"matrix\.units is '\.\./units\.csv', outside"):
        create_bundle(path, ["matrix.units=../units.csv"], "ray")


def test_bundle__trusts_absolute_paths_to_be_on_the_cluster(tmp_path: Path) -> None:
    path = job_file(tmp_path, HUB_JOB + CLUSTER)
    assert create_bundle(path, ["model.id=/models/only-there"], "ray").files == ()


@pytest.mark.parametrize("target", ["ray", "kuberay", "slurm"])
@pytest.mark.parametrize(
    "change",
    [
        "run=s3://AKIAPLANTED:planted-secret@bucket/runs",
        "corpus.train=https://host/x.parquet?X-Amz-Signature=planted-secret",
        "corpus.test=https://planted-secret@host/x.parquet",
    ],
)
def test_bundle__refuses_a_planted_secret_and_does_not_repeat_it(
    tmp_path: Path, target: ClusterKind, change: str
) -> None:
    with pytest.raises(InvalidInput, match="carries credentials") as caught:
        create_bundle(job_file(tmp_path), [change, f"model.revision={REVISION}"], target)
    assert "planted" not in str(caught.value).lower()


def test_cluster_section__is_valid_on_a_machine_without_time_zones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoneinfo, "ZoneInfo", _missing)
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    assert (
        create_bundle(job_file(tmp_path), ["cluster.time_zone=Europe/Zurich"], "kuberay").files
        == ()
    )


def _missing(name: str) -> None:
    raise zoneinfo.ZoneInfoNotFoundError(name)
