"""Which code and packages make a run's results: what run.json names, and what cache keys are made of."""

import hashlib
import json
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pipeline.files import digest, files

PACKAGES = ("tensorflow", "apache-airflow", "pyarrow", "numpy", "pandas", "scikit-learn")


@cache
def package_version(name: str) -> str:
    """The installed version of a package; finding it takes milliseconds."""
    return version(name)


@cache
def code_digest() -> str:
    """The sha256 of this package's files, so that changed code, or changed data files, make another cache key."""
    return _tree_digest(Path(__file__).parents[1])


def _tree_digest(package: Path) -> str:
    """The sha256 of the folder's files, names and contents, leaving out bytecode and hidden files."""
    names = [name for name in files(package) if not any(re.match(r"\.|__pycache__$", part) for part in name.split("/"))]
    listing = {name: digest(package / name) for name in names}
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
