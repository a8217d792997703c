import ast
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import ulcmod_dist as um
from ulcmod_dist.cli import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GAP = "…"

# A message at the head of a bullet, or in the first column of a table, as a user meets it.
QUOTED = re.compile(r"^(?:- |\| )`([^`]+)`(?:\\$| \|)", re.MULTILINE)


def texts_of_the_code() -> Iterator[str]:
    """Every text in the code but docstrings, with a gap where a value is put in."""
    for path in (ROOT / "ulcmod_dist").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else GAP for p in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and id(node) not in docstrings:
                yield str(node.value)


def quoted(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    _, _, explained = text.partition("\n## ")
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


def test_python_reference__holds_every_public_name() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    described = re.findall(r":: ulcmod_dist\.(\w+)", page)
    assert sorted(described) == sorted(um.__all__)


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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as `make docs` builds them; a link that leads nowhere is a warning."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet"]
    done = subprocess.run([*command, DOCS, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_site__fetches_nothing_from_other_hosts(site: Path) -> None:
    fetched = re.compile(r"""(?:src|<link[^>]*href|url\()\s*=?\s*["']?((?:https?:)?//[^"')\s>]+)""")
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 10
    assert {hit for page in pages for hit in fetched.findall(page.read_text("utf-8"))} == set()
