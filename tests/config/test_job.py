from pathlib import Path

import pytest

from ulcmod_dist.config.job import Job
from ulcmod_dist.errors import InvalidInput

COMPLETE = """\
run: runs/mine
model: {id: model}
corpus: {train: [train.parquet, s3://bucket/more.parquet], category: category}
discover: {modules: [10, 5]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path


def parse(text: str, folder: Path, *overrides: str) -> Job:
    return Job.from_text(text, source="job.yaml", folder=folder, overrides=overrides)


def test_job__input_paths_are_relative_to_its_folder(folder: Path) -> None:
    job = parse(COMPLETE, folder)
    assert job.model is not None
    assert job.corpus is not None
    assert job.model.id == str(folder / "model")
    assert job.corpus.train == (str(folder / "train.parquet"), "s3://bucket/more.parquet")
    assert job.run == "runs/mine"


def test_job__a_gguf_file_is_beside_it_or_in_a_repository(folder: Path) -> None:
    (folder / "tiny.gguf").touch()
    local = parse(COMPLETE, folder, "model.id=tiny.gguf").model
    assert local is not None
    assert local.id == str(folder / "tiny.gguf")
    revision = "model.revision=" + "0123456789" * 4
    remote = parse(COMPLETE, folder, "model.id=owner/repository/tiny.gguf", revision).model
    assert remote is not None
    assert remote.id == "owner/repository/tiny.gguf"


def test_job__written_out_and_read_again_is_equal(folder: Path) -> None:
    job = parse(COMPLETE, folder, "prompt.system=null")
    again = parse(job.to_yaml(), Path("/"))
    assert again == job
    assert again.prompt.system is None


def test_job__one_number_stands_for_a_list(folder: Path) -> None:
    assert parse(COMPLETE, folder, "discover.modules=7").discover.modules == (7,)
    assert parse(COMPLETE, folder).discover.modules == (5, 10)


def test_job__messages_column_replaces_text_column(folder: Path) -> None:
    job = parse(COMPLETE, folder, "corpus.messages=conversation")
    assert job.corpus is not None
    assert job.corpus.text is None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["discover.restrats=3"], ["unknown key discover.restrats", "discover.restarts"]),
        (["disocver.seed=3"], ["unknown key disocver", "discover"]),
        (["discover.modules=0"], ["discover.modules", "positive"]),
        (["discover.modules=[5, 5]"], ["distinct"]),
        (["discover.restarts=many"], ["discover.restarts", "many"]),
        (["discover.max_iterations=0"], ["discover.max_iterations", "greater than 0 (it is 0)"]),
        (
            ["evaluate.baselines=[k-means]", "ablate.baselines=[k-means, spectral]"],
            ["ablate.baselines", "evaluate.baselines does not name spectral"],
        ),
        (
            ["discover.memory=8 bananas"],
            ["discover.memory", "'8 bananas' is no size such as 8 GiB"],
        ),
        (["discover.memory=8.5.1 GiB"], ["is no size such as 8 GiB"]),
        (["model.revision=main"], ["model.revision", "main", "40 hexadecimal"]),
        (["model.id=someone/something"], ["someone/something", "revision"]),
        (["prompt.template_arguments={tokenize: true}"], ["'tokenize' is set by the program"]),
        (
            ["prompt.template=none", "prompt.template_arguments={x: 1}"],
            ["template_arguments", "there is no template to read them"],
        ),
        (["prompt.control_tokens=literal"], ["prompt.control_tokens", "text", "tokens"]),
        (["model.dtype=float16"], ["model.dtype", "float32", "bfloat16"]),
        (["corpus=null"], ["model and corpus, or matrix"]),
        (["matrix.path=a.npy"], ["model and corpus, or matrix"]),
        (["run"], ["key=value"]),
        (["run.deep=1"], ["run", "runs/mine"]),
    ],
)
def test_job__what_is_wrong_is_named(overrides: list[str], words: list[str], folder: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(COMPLETE, folder, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("8 GiB", 8 * 2**30),
        ("500 MB", 500_000_000),
        ("1.5gb", 1_500_000_000),
        ("8Gi", 8 * 2**30),
        ("2e9", 2_000_000_000),
        ("4096", 4096),
    ],
)
def test_job__memory_may_be_a_size(size: str, expected: int, folder: Path) -> None:
    assert parse(COMPLETE, folder, f"discover.memory={size}").discover.memory == expected


def test_job__missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.yaml"):
        Job.from_yaml(tmp_path / "nowhere.yaml")


def test_job__broken_yaml_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("run: [1,\nmodel")
    with pytest.raises(InvalidInput, match="not valid YAML") as caught:
        Job.from_yaml(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("run=s3://AKIAPLANTED:planted-secret@bucket/runs", "run"),
        ("corpus.train=https://host/x.parquet?X-Amz-Signature=planted-secret", "corpus.train"),
        ("corpus.test=[/data/x.parquet, https://planted-secret@host/x.parquet]", "corpus.test"),
        ('run="S3:\\x2f/AKIAPLANTED:planted@bucket"', "run"),
        ("extract.address=ray://planted:planted@host", "extract.address"),
        ("prompt.system=See https://planted:planted@host .", "prompt.system"),
        # Also where the value is not one that the key may hold.
        ("matrix=s3://AKIA:PLANTED@bucket", "matrix"),
        ("discover.modules=[{a: 's3://AKIA:PLANTED@bucket'}]", "discover.modules.a"),
        ("discover={'s3://AKIA:PLANTED@bucket': 1}", "discover"),
        ("s3://AKIA:PLANTED@bucket", "--set"),
        ("s3://AKIA:PLANTED@bucket=1", "--set"),
    ],
)
def test_job__refuses_a_planted_secret_and_does_not_repeat_it(
    override: str, key: str, folder: Path
) -> None:
    with pytest.raises(InvalidInput, match=f"^{key} is a URL that carries credentials") as caught:
        parse(COMPLETE, folder, override)
    assert "planted" not in str(caught.value).lower()


@pytest.mark.parametrize("override", ["run.x=1", "run.x.y=1", "discover.restrats=1", "run"])
def test_job__refuses_a_secret_in_its_file_before_it_looks_at_the_rest(
    override: str, folder: Path
) -> None:
    text = COMPLETE.replace("runs/mine", "s3://AKIA:PLANTED@bucket")
    with pytest.raises(InvalidInput, match=r"^run is a URL that carries credentials") as caught:
        parse(text, folder, override)
    assert "planted" not in str(caught.value).lower()


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (COMPLETE + "report: [s3://AKIA:PLANTED@bucket\n", []),
        ("run: !s3://AKIA:PLANTED@bucket x\n", []),
        ("run: *s3://AKIA:PLANTED@bucket\n", []),
        (COMPLETE, ["report=[s3://AKIA:PLANTED@bucket"]),
    ],
)
def test_job__that_is_no_yaml_shows_no_secret(
    text: str, overrides: list[str], folder: Path
) -> None:
    with pytest.raises(InvalidInput, match="not valid YAML") as caught:
        parse(text, folder, *overrides)
    assert "PLANTED" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_job__running_text_may_name_an_url_and_an_address(folder: Path) -> None:
    text = "Ask me@example.org, or see http://example.org:80/x and a@b."
    assert parse(COMPLETE, folder, f"prompt.system={text}").prompt.system == text


def test_job__broken_yaml_names_line_and_column(folder: Path) -> None:
    with pytest.raises(InvalidInput, match=r"in line 2, column 6"):
        parse("run: [1,\nmodel", folder)


def test_job__switches_of_the_matrix_are_no_paths(tmp_path: Path) -> None:
    text = "run: r\nmatrix: {path: a.zarr, allow_missing_chunks: true}\ndiscover: {modules: [2]}\n"
    job = Job.from_text(text, source="job.yaml", folder=tmp_path)
    assert job.matrix is not None
    assert job.matrix.allow_missing_chunks
    assert job.matrix.locations() == {"path": str(tmp_path / "a.zarr")}
