"""What README and the pages of docs/ say of the code, and that a link from one file to another leads somewhere."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from pipeline.settings import Deployment, Settings, Tuning

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "docs" / "reference" / "settings.md"
TROUBLE = ROOT / "docs" / "how-to" / "troubleshoot.md"
COMMANDS = ROOT / "docs" / "reference" / "command-line.md"
PAGES = [page for glob in ("*.md", "docs/**/*.md", "*/README.md") for page in sorted(ROOT.glob(glob))]


def settings() -> Iterator[tuple[str, str, str]]:
    """Each setting's name, its default as the page writes it, and its description."""
    here = {"store": "./store", "search_space": json.dumps(Tuning.model_fields["search_space"].default)}
    for kind in (Settings, Deployment, Tuning):
        for name, field in kind.model_fields.items():
            yield name, here.get(name, str(field.default)), str(field.description)


def test_the_tables_of_settings_are_those_of_the_code():
    """After a change of settings, put the rows of this test's message into the page."""
    expected = [f"| `{name}` | `{default}` | {description} |" for name, default, description in settings()]
    rows = [line for line in SETTINGS.read_text().splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(expected), "\n".join(expected)


def test_the_page_of_the_command_line_has_every_command_and_no_other():
    from pipeline.cli import app

    commands = {(command.name or command.callback.__name__) for command in app.registered_commands}
    assert set(re.findall(r"^\| `tagger (\w+)` \|", COMMANDS.read_text(), flags=re.M)) == commands


def sentences() -> Iterator[str]:
    """Every string of the code; where it has a value filled in, it has three dots."""
    for path in (*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "dags").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_page_of_troubles_quotes_what_the_code_says():
    rows = [line.split("|")[1] for line in TROUBLE.read_text().splitlines() if line.startswith("| ")]
    quoted = [quote for row in rows for quote in re.findall('"([^"]+)"', row)]
    said = "\n".join(sentences())
    assert len(quoted) > 10
    assert [quote for quote in quoted if quote not in said] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_shows_a_command_or_an_option_that_tagger_lacks(page):
    """Of code blocks: a line is read from the word tagger on, to the end of the command."""
    from pipeline.cli import app

    known = {name: {o for p in each.params for o in p.opts} for name, each in get_command(app).commands.items()}
    blocks = re.findall(r"^(?: {4}|`{3})[^\n]*$", page.read_text(), flags=re.M)
    for command, rest in re.findall(r"(?:^|[ /])tagger ([a-z]+)([^#;&|]*)", "\n".join(blocks), flags=re.M):
        assert command in known
        assert set(re.findall(r"(?<= )--[a-z-]+", rest.split("\n")[0])) <= known[command]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_link_to_a_file_leads_to_one(page):
    """As GitHub shows the page; `mkdocs build --strict` checks the same of the site."""
    prose = re.sub(r"^(?: {4}|```.*?^```)[^\n]*$", "", page.read_text(), flags=re.M | re.S)
    targets = re.findall(r"\]\((?!\w+:|#)([^)\s#]+)", prose)
    assert [target for target in targets if not (page.parent / target).is_file()] == []
