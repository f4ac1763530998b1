"""docker/compose.yaml as the tests read it."""

import re
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker"
SERVICES: dict[str, dict[str, Any]] = YAML(typ="safe").load(FOLDER / "compose.yaml")["services"]
SECRET = re.compile(r"\$\{(\w+):\?[^}]*\}")


def secrets_of(env: Path) -> dict[str, str]:
    """Every secret that compose.yaml asks for, as docker/make-env writes them to `env`."""
    subprocess.run([FOLDER / "make-env", env], check=True)
    return dict(line.split("=", 1) for line in env.read_text().splitlines())


def filled(text: str, secrets: dict[str, str]) -> str:
    """What compose makes of a text: secrets in their places, and `$$` as `$`; KeyError for a secret not made."""
    return SECRET.sub(lambda found: secrets[found[1]], text).replace("$$", "$")


def writable(service: str) -> list[str]:
    """The folders that may be written in the service's container, whose file system is read-only: volumes and tmpfs."""
    mounted = [volume for volume in SERVICES[service].get("volumes", []) if isinstance(volume, str)]
    volumes = [volume.split(":")[-1] for volume in mounted if not volume.endswith(":ro")]
    return [*volumes, *SERVICES[service].get("tmpfs", [])]
