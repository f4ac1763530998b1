"""The settings of a run, a deployment and a tuning: their names, ranges, defaults and meanings."""

from collections.abc import Mapping
from typing import Any

from pipeline.settings.base import refuse_unknown
from pipeline.settings.deployment import Deployment
from pipeline.settings.form import from_form, is_restricted, trigger_form, tuning_form
from pipeline.settings.run import Settings
from pipeline.settings.tuning import Tuning
from pipeline.source_policy import refuse_secrets

__all__ = [
    "Deployment",
    "Settings",
    "Tuning",
    "from_form",
    "is_restricted",
    "read",
    "read_all",
    "trigger_form",
    "tuning_form",
]

PREFIX = "TAGGER_"


def read(environ: Mapping[str, str], **values: Any) -> tuple[Settings, Deployment]:
    """The settings of a run and of the deployment; see read_all."""
    return read_all(environ, **values)[:2]


def read_all(environ: Mapping[str, str], **values: Any) -> tuple[Settings, Deployment, Tuning]:
    """Combine the defaults, the environment's TAGGER_* variables and the values given; later ones win.

    Raises BadInput for a name that is unknown, a value out of range, and a secret in a source.
    """
    named = {k[len(PREFIX) :].lower(): v for k, v in environ.items() if k.startswith(PREFIX)} | values
    refuse_unknown(named, Settings, Deployment, Tuning)
    settings, deployment, tuning = (
        {name: value for name, value in named.items() if name in kind.model_fields}
        for kind in (Settings, Deployment, Tuning)
    )
    chosen = Settings.of(settings), Deployment.of(deployment), Tuning.of(tuning)
    for source in (chosen[0].source, *chosen[1].allowed_sources.split(",")):
        refuse_secrets(source)
    return chosen
