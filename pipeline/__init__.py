"""Stack Overflow posts in, a published tag classifier out: the six stages, their runner, store and registry.

`from pipeline import Runs` reads the runs of a store into pandas frames.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.report.frames import Runs

__all__ = ["Runs"]


def __getattr__(name: str) -> Any:
    """Import Runs when it is asked for: pandas takes half a second, and no stage needs it."""
    if name != "Runs":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.report.frames import Runs

    return Runs
