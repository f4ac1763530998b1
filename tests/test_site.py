"""The documentation as a site: what is wrong in it is an error, and a page asks no other host for anything."""

import re
import shutil
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium")
FLAGS = "--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --no-proxy-server".split()


@pytest.fixture(autouse=True)
def no_advertisement(monkeypatch):
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")


def built(site: Path, docs: Path = ROOT / "docs") -> Path:
    """The site, built as `make lint` does."""
    build(load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(docs), site_dir=str(site), strict=True))
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("site"))


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("how-to/operate.md", "[dead](../nowhere.md)"),
        ("how-to/operate.md", "[outside](../../Makefile.md)"),
        ("how-to/operate.md", "[anchor](../reference/store.md#nowhere)"),
        ("how-to/operate.md", "![picture](../images/nowhere.png)"),
        ("orphan.md", "# In no menu"),
    ],
)
def test_what_leads_nowhere_is_an_error(tmp_path, page, text):
    docs = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", docs)
    with (docs / page).open("a") as file:
        file.write(f"\n{text}\n")
    with pytest.raises(Abort):
        built(tmp_path / "site", docs)


def test_lint_builds_it_with_every_warning_an_error():
    """With --quiet, --strict sees none."""
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^lint:.*\n(?:\t.*\n)*?\t\$\(MKDOCS\) build --strict\n", makefile, flags=re.M)


def test_no_page_names_a_file_of_another_host(site):
    loaded = r"""<(?:script|img|link(?! rel="canonical"))\b[^>]*\b(?:src|href)=["']?((?:https?:)?//[^"'> ]+)"""
    assert {page.name: re.findall(loaded, page.read_text()) for page in site.rglob("*.html")} == {
        page.name: [] for page in site.rglob("*.html")
    }


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("name", ["index.html", "explanation/architecture.html"])
def test_a_diagram_is_drawn_without_another_host(site, name):
    playwright = pytest.importorskip("playwright.sync_api")
    asked = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / name).as_uri())
        diagram = page.locator("div.mermaid")
        diagram.wait_for()
        page.wait_for_timeout(500)
        height = diagram.bounding_box()["height"]
        browser.close()
    assert height > 150
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
