"""The command `settings`."""

import json
import os
import textwrap
from itertools import groupby
from typing import Any

from pydantic import BaseModel

from pipeline.cli.app import JsonOption, out, print_json, say
from pipeline.settings import PREFIX, Deployment, Settings, Tuning, read_all

KINDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "null": "none",
    "object": "JSON",
}
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def settings(as_json: JsonOption = False) -> None:
    """List all settings: values, ranges and meanings."""
    listed = _listed()
    if as_json:
        print_json(listed)
        return
    say("Change a setting by TAGGER_NAME in the environment, or for one run by `tagger run --set name=value`.")
    for section, members in groupby(listed, lambda setting: setting["section"]):
        say()
        say(section)
        for one in members:
            origin = (
                "the default" if one["from"] == "default" else f"from {one['from']}; default {_text(one['default'])}"
            )
            _print(f"{one['name']} = {_text(one['value'])}  ({one['accepts']}; {origin})", first="  ")
            _print(one["meaning"], first=" " * 6)


def _listed() -> list[dict[str, Any]]:
    here: dict[type[BaseModel], BaseModel] = dict(
        zip((Settings, Deployment, Tuning), read_all(os.environ), strict=True)
    )
    variables = {key[len(PREFIX) :].lower(): key for key in os.environ if key.startswith(PREFIX)}
    return [
        {
            "name": name,
            "section": schema["section"],
            "accepts": ", or ".join(map(_accepts, schema.get("anyOf", [schema]))),
            "default": kind.model_fields[name].get_default(call_default_factory=True),
            "value": getattr(values, name),
            "from": variables.get(name, "default"),
            "meaning": schema["description"],
        }
        for kind, values in here.items()
        for name, schema in kind.model_json_schema()["properties"].items()
    ]


def _accepts(schema: dict[str, Any]) -> str:
    """Describe a JSON Schema's type and range in words, such as `whole number, 1 to 1,000`."""
    if choices := schema.get("enum"):
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    bounds = {key: schema[key] for key in BOUNDS if key in schema}
    if set(bounds) == {"minimum", "maximum"}:
        return f"{KINDS[schema['type']]}, {schema['minimum']:,} to {schema['maximum']:,}"
    limits = " and ".join(f"{BOUNDS[key]} {limit:,}" for key, limit in bounds.items())
    return ", ".join(filter(None, (KINDS[schema["type"]], limits)))


def _text(value: Any) -> str:
    """Write the value as in a variable or after --set."""
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _print(text: str, first: str) -> None:
    """Print the text wrapped to at most 120 columns, the first line indented as given and the others by six."""
    lines = textwrap.wrap(
        text,
        min(out.width, 120),
        initial_indent=first,
        subsequent_indent=" " * 6,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        say(line)
