import ast
import importlib
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from typer.main import get_command

import ulcmod_dist as um
from ulcmod_dist.cli import app
from ulcmod_dist.config.job import Job
from ulcmod_dist.pipeline.artifacts import GRAPH

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GAP = "…"

# A message at the head of a bullet, or in the first column of a table, as a user meets it.
QUOTED = re.compile(r"^(?:- |\| )`([^`]+)`(?:\\$| \|)", re.MULTILINE)


def texts_of_the_code() -> Iterator[str]:
    """Every text in the code but docstrings, with a gap where a value is put in; and templates."""
    for path in (ROOT / "cluster").rglob("*.j2"):
        yield path.read_text(encoding="utf-8")
    for path in (ROOT / "ulcmod_dist").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else GAP for p in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and id(node) not in docstrings:
                yield str(node.value)


def quoted(page: str, heading: str = "") -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    _, _, explained = text.partition(f"\n## {heading}")
    return [message.replace("...", GAP) for message in QUOTED.findall(explained)]


def is_said(message: str, texts: list[str]) -> bool:
    pattern = re.compile(".+?".join(map(re.escape, message.split(GAP))))
    return any(pattern.search(text) for text in texts)


def test_job_reference__equals_what_the_models_say() -> None:
    written = (DOCS / "job.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(DOCS / "job_reference.py"))["reference"]() == written


def test_troubleshooting__every_message_is_one_of_the_code() -> None:
    texts = list(texts_of_the_code())
    messages = quoted("troubleshooting.md")
    assert len(messages) > 70
    assert [message for message in messages if not is_said(message, texts)] == []
    assert not is_said("The job file … is too old.", texts)


def test_cluster_guide__common_errors_are_messages_of_the_code() -> None:
    texts = list(texts_of_the_code())
    messages = quoted("cluster.md", "Common errors")
    assert len(messages) >= 10
    assert [message for message in messages if not is_said(message, texts)] == []


def test_python_reference__holds_every_public_name() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    described = re.findall(r":: ulcmod_dist\.(\w+)", page)
    assert sorted(described) == sorted(um.__all__)


def find_object(name: str) -> Any:
    """The object of a dotted name below the package; an attribute that is a field is its name."""
    module, *attributes = name.split(".")
    found: Any = importlib.import_module(f"ulcmod_dist.{module}")
    for attribute in attributes:
        if isinstance(found, ModuleType) and not hasattr(found, attribute):
            found = importlib.import_module(f"{found.__name__}.{attribute}")
        elif attribute in getattr(found, "model_fields", {}):
            found = attribute
        else:
            found = getattr(found, attribute)
    return found


def is_job_key(name: str) -> bool:
    section, key = name.split(".", 1)
    if section not in Job.model_fields:
        return False
    annotation = Job.model_fields[section].annotation
    kinds = (annotation, *get_args(annotation))
    return any(key in getattr(kind, "model_fields", {}) for kind in kinds)


def test_design__names_what_is_in_the_code() -> None:
    page = (DOCS / "design.md").read_text(encoding="utf-8")
    packages = "|".join(path.name for path in (ROOT / "ulcmod_dist").iterdir() if path.is_dir())
    found = re.findall(rf"`((?:{packages})(?:\.\w+)+)`", page)
    names = [name for name in found if not is_job_key(name)]
    assert len(names) > 20
    for name in names:
        find_object(name)


def test_design__lists_the_artifact_graph() -> None:
    page = (DOCS / "design.md").read_text(encoding="utf-8")
    for artifact in GRAPH.values():
        name = f"{artifact.name} (per K)" if artifact.each_k else artifact.name
        keys = ", ".join(f"`{key}`" for key in artifact.config)
        if len(artifact.config) == len(Job.model_fields):
            keys = "all"
        cells = [name, ", ".join(artifact.inputs), keys, f"`ulcmod {artifact.command}`"]
        row = " ".join(f"| {cell}".rstrip() for cell in cells)
        assert f"\n{row} |\n" in page


def options_of(program: Any, words: str = "ulcmod") -> Iterator[tuple[str, str]]:
    """Each command of a program with each of its options, the hidden ones left aside."""
    for name, command in program.commands.items():
        if hasattr(command, "commands"):
            yield from options_of(command, f"{words} {name}")
            continue
        yield f"{words} {name}", ""
        for option in command.params:
            if option.param_type_name == "option":
                yield f"{words} {name}", max(option.secondary_opts or option.opts, key=len)


def test_commands__page_names_every_command_and_each_of_its_options() -> None:
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    program = list(options_of(get_command(app)))
    assert len(program) > 60
    missing = [
        (command, option)
        for command, option in program
        if not (re.search(rf"`{command}\b", page) and re.search(rf"{option}\b", page))
    ]
    assert missing == []


def test_readme__names_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in DOCS.glob("*.md")} - {"index.md"}
    assert set(re.findall(r"\(docs/([\w-]+\.md)\)", readme)) == pages


def test_site__a_page_that_loads_from_another_host_is_found(tmp_path: Path) -> None:
    find = runpy.run_path(str(DOCS / "conf.py"))["find_remote_resources"]
    (tmp_path / "page.html").write_text('<a href="https://a.org/x"><img src="//b.org/i.png">')
    (tmp_path / "local.html").write_text('<link rel="icon" href="icon.svg">')
    (tmp_path / "style.css").write_text("@font-face { src: url(https://c.org/font.woff) }")
    assert find(tmp_path) == {"//b.org/i.png", "https://c.org/font.woff"}
