"""MkDocs hooks that add pages from outside docs/ to the site, adapt their links, and include Mermaid's script."""

import posixpath
import re
from pathlib import Path
from typing import Any

import mermaidx
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.superfences import fence_code_format

ROOT = Path(__file__).parents[1]
MERMAID = "assets/mermaid.js"

ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CHANGELOG.md": "project/changelog.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "benchmarks/flat.json": "project/flat.json",
    "benchmarks/flat.png": "project/flat.png",
    "docker/README.md": "project/containers.md",
}
"""Files outside docs/ that are on the site, and their paths there."""

LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")


def on_config(config: MkDocsConfig) -> None:
    """Make Markdown output `mermaid` code blocks in the form that the theme draws as diagrams."""
    fence = {"name": "mermaid", "class": "mermaid", "format": fence_code_format}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the files of ELSEWHERE, and Mermaid's script from the package mermaidx."""
    script = Path(mermaidx.__file__).with_name("assets") / "mermaid.js"
    for there, here in {**ELSEWHERE, str(script): MERMAID}.items():
        files.append(File.generated(config, here, abs_src_path=str(ROOT / there)))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Change the page's links, which are paths in the repository, to paths on the site."""
    here = page.file.src_uri
    if here == "index.md":
        page.meta["hide"] = ["navigation"]  # it would have one line, and the tables need the space
    own = {there: repository for repository, there in ELSEWHERE.items()}.get(here, f"docs/{here}")
    return LINK.sub(lambda link: moved(link[1], own, here), markdown)


def moved(link: str, own: str, here: str) -> str:
    """Translate a link in the repository's file `own` to one from the site's page `here`; both are paths from the root.

    A link to no existing file, such as an example in code, is returned unchanged.
    """
    target = posixpath.normpath(posixpath.join(posixpath.dirname(own), link))
    if not (ROOT / target).exists():
        return link
    on_site = ELSEWHERE.get(target, target.removeprefix("docs/"))
    return posixpath.relpath(on_site, posixpath.dirname(here) or ".")


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Add Mermaid's script to a page with a diagram; otherwise the theme would load it from another host."""
    if 'class="mermaid"' not in output:
        return output
    script = posixpath.relpath(MERMAID, posixpath.dirname(page.file.dest_uri) or ".")
    return output.replace("</head>", f'<script src="{script}"></script></head>')
