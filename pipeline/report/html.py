"""Renders the templates of the pages; all text in them is escaped, and control characters are made visible."""

from datetime import datetime
from functools import cache
from pathlib import Path

import jinja2

from pipeline.errors import escape_control

TEMPLATES = Path(__file__).with_name("templates")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["visible"] = lambda text: escape_control(str(text))
    environment.filters["time"] = lambda text: f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
    return environment


def render(template: str, **values: object) -> str:
    """A page from a template of this package and the values that it names."""
    return _environment().get_template(f"{template}.html.j2").render(values)
