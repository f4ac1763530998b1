"""The gate's verdict on a model, and what is done because of it; the gate itself imports SciPy, which few need."""

from collections.abc import Mapping
from typing import Any, Literal

Verdict = Literal["passed", "failed", "cannot tell"]

Action = Literal["publish", "keep", "ask"]
"""Publish the model, keep the live one, or ask a person."""


def action_of(decided: Mapping[str, Any]) -> Action:
    """The action of a stored decision or evaluation; those of earlier releases have only a verdict."""
    action: Action = decided.get("action") or ("publish" if decided["verdict"] == "passed" else "keep")
    return action
