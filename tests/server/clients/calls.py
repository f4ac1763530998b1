"""What the scripts of this folder have in common. Each runs in the environment of the client that it calls."""

import json
import sys
from collections.abc import Callable
from typing import Any

MODEL = "stackoverflow_tagger"
TEXTS = ["how do i center a div with css", "naïve 🙂 list in python"]
HTTP, GRPC, VERSION = sys.argv[1:4]

outcomes: dict[str, Any] = {}


def call(name: str, ask: Callable[[], Any]) -> None:
    """Note what a call returns, or the sentence of its error."""
    try:
        outcomes[name] = ask()
    except Exception as error:
        outcomes[name] = {"error": str(error)}


def tell() -> None:
    """Print the outcomes of all calls."""
    print(json.dumps(outcomes))  # noqa: T201 - read by the test


def plain(values: Any) -> Any:
    """An array's values as JSON has them, with bytes as text."""
    if isinstance(values, bytes):
        return values.decode()
    if isinstance(values, str):
        return values
    return [plain(each) for each in values] if hasattr(values, "__len__") else float(values)
