"""Airflow's trigger form: its fields, and the settings that are sent by it."""

from collections.abc import Mapping
from typing import Any

from pipeline.settings.deployment import Deployment
from pipeline.settings.run import PARAMETERS, Settings
from pipeline.settings.tuning import Tuning
from pipeline.source_policy import SAMPLE


def trigger_form(settings: Settings, deployment: Deployment) -> dict[str, dict[str, Any]]:
    """The trigger form's fields: for each setting of a run, its default and its JSON Schema, as for Airflow's Param."""
    properties = Settings.model_json_schema()["properties"]
    properties["source"]["description"] = _accepted(deployment.allowed)
    return {name: {"default": getattr(settings, name), **_flat(properties[name])} for name in Settings.model_fields}


def tuning_form(options: Tuning) -> dict[str, dict[str, Any]]:
    """The fields of a tuning's form that a run's has not."""
    properties = Tuning.model_json_schema()["properties"]
    return {
        name: {"default": getattr(options, name), **_flat(properties[name]), "section": PARAMETERS}
        for name in Tuning.model_fields
    }


def from_form(settings: Settings, params: Mapping[str, Any]) -> tuple[Settings, bool]:
    """Make a run's settings from the trigger form, and say whether its source is restricted to allowed_sources.

    `settings` are the installation's; their source is the default and is not restricted. Any other source is, because
    not everybody who may start runs may read every file and host. Fields of the deployment's settings are ignored.
    """
    sent = {name: value for name, value in params.items() if name not in Deployment.model_fields}
    chosen = Settings.of({"source": settings.source, **sent})
    return chosen, is_restricted(chosen, settings)


def is_restricted(chosen: Settings, settings: Settings) -> bool:
    """Whether a run with the `chosen` settings may read only what allowed_sources names.

    Ask this of the settings that the run really has, after those of a tuning's winner were put in.
    """
    return chosen.source != settings.source


def _accepted(allowed: tuple[str, ...]) -> str:
    """The trigger form's description of its field `source`: what the installation accepts there."""
    files = [place for place in allowed if not place.startswith(SAMPLE)]
    kinds = ["the source that this form starts with"]
    kinds += ["sample://posts?rows=N&seed=N for synthetic posts"] if len(files) < len(allowed) else []
    kinds += [f"a CSV, JSON Lines or Parquet file, or a folder, at or below {' or '.join(files)}"] if files else []
    return f"Where the posts are: {'; '.join(kinds)}. The operator can allow more (TAGGER_ALLOWED_SOURCES)."


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """Rewrite `anyOf: [number, null]` as `type: [number, null]`, the only form that Airflow's trigger form supports."""
    schema = {k: v for k, v in schema.items() if k not in {"default", "title"}}
    for branch in schema.pop("anyOf", []):
        kinds = [*schema.get("type", []), branch["type"]]
        schema |= branch | {"type": kinds}
    return schema
