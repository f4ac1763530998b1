"""`python -m benchmarks`: print every table, and write benchmarks/results.json."""

import json
import os
import platform
from pathlib import Path

from benchmarks.text import load, text_rows

RESULTS = Path(__file__).with_name("results.json")


def main() -> None:
    """Print the tables."""
    data, posts = load()
    print(f"{len(posts):,} posts ({data}), {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    rows = text_rows(posts)
    print(f"{'task':<24}{'threads':>8}{'posts/s':>12}   {'beside Keras':<18}{'posts/s':>10}{'ratio':>8}")
    for row in rows:
        print(
            f"{row['task']:<24}{row['threads']:>8}{row['posts_per_second']:>12,}   {row['keras']:<18}"
            f"{row['keras_posts_per_second']:>10,}{row['times_keras']:>7.1f}x"
        )
    RESULTS.write_text(json.dumps({"data": data, "machine": platform.machine(), "text": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
