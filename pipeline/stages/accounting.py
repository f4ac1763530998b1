"""Says what became of the rows that a stage did not pass on."""

from collections.abc import Mapping
from typing import Any

DUPLICATE = "copy of an earlier post"
"""The reason for which a copy is rejected, which is no fault of the row."""


def sentence(summary: Mapping[str, Any]) -> str:
    """What became of a stage's rows, by its summary; empty if all were passed on, or if the summary gives no reasons.

    For example: "of 1,010 rows 996 were kept, 8 rejected (6 empty post, 2 bad UTF-8), 6 left out by keep_tags".
    """
    reasons = dict(summary.get("rejected_by_reason", {}))
    copies, left_out = reasons.pop(DUPLICATE, 0), summary.get("left_out", 0)
    faults = sum(reasons.values())
    by_reason = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    parts = {
        f"rejected ({by_reason})": faults,
        "left out by keep_tags": left_out,
        "dropped as copies of an earlier post": copies,
    }
    stated = [f"{count:,} {what}" for what, count in parts.items() if count]
    if not stated:
        return ""
    kept = summary.get("posts", summary["rows"])
    return ", ".join([f"of {kept + faults + left_out + copies:,} rows {kept:,} were kept", *stated])
