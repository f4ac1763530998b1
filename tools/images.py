"""Compares the container images of docker/ with SECURITY.md's table, and with the advisories of OSV where it answers.

No registry of images is asked: a row of the table says from which version on an image has no hole that is known.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from ruamel.yaml import YAML

ROW = re.compile(r"^\| `([\w./-]+)` \| ([\d.]+) \| (\w+) ([\w./-]+) \| (.+) \|$", re.MULTILINE)
VERSION = re.compile(r"v?(\d+(?:\.\d+)+)(?:-[\w.-]+)?")


class Minimum(NamedTuple):
    """A row of SECURITY.md's table: an image, its first version without known holes, its name at OSV, and the holes."""

    image: str
    version: str
    ecosystem: str
    package: str
    advisories: str


def minimums(security: str) -> dict[str, Minimum]:
    """Read the table of images from SECURITY.md's text."""
    return {fields[0]: Minimum(*fields) for fields in ROW.findall(security)}


def images(compose: Path, dockerfile: Path) -> Iterator[str]:
    """Every image that is pulled: those of services that are not built here, and those that the build uses."""
    services = YAML(typ="safe").load(compose)["services"]
    yield from sorted({service["image"] for service in services.values() if "build" not in service})

    stages = set[str]()
    for line in dockerfile.read_text().splitlines():
        if started := re.match(r"FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", line, re.IGNORECASE):
            if started[1] not in stages:
                yield started[1]
            stages.add(started[2])
        yield from (name for name in re.findall(r"^COPY .*--from=(\S+)", line) if name not in stages)


def version_of(image: str) -> str | None:
    """The version that the image's tag gives in full; None if it gives none, as `latest` or a digest alone."""
    tag = image.partition("@")[0].rpartition("/")[-1].partition(":")[2]
    found = VERSION.fullmatch(tag)
    return found[1] if found else None


def fault(image: str, known: dict[str, Minimum]) -> str | None:
    """What is wrong with the image by the table, or None.

    A row speaks of one series of releases, such as 7.4: another series has its holes mended in other versions.
    """
    version, row = version_of(image), known.get(_name(image))
    if row is None:
        return f"{image}: SECURITY.md has no row for {_name(image)}; see that it is maintained, and add one"
    if version is None or version.count(".") < row.version.count("."):
        return f"{image}: has no exact version; name one from {row.version} on"
    if version.rpartition(".")[0] != row.version.rpartition(".")[0]:
        return f"{image}: SECURITY.md's row is about {row.version} and later of its series; write the row anew"
    if _numbers(version) < _numbers(row.version):
        return f"{image}: older than {row.version}, which mends {row.advisories}; take a newer one"
    return None


def unlisted(image: str, row: Minimum, url: str, accepted: set[str]) -> list[str]:
    """Describe each advisory that OSV has for the image's version; httpx.HTTPError or ValueError if it does not answer.

    ValueError also if it knows none of the row's advisories: then its silence means nothing.
    """
    package = {"name": row.package, "ecosystem": row.ecosystem}
    listed = set(re.findall(r"CVE-[\d-]+", row.advisories))
    if not any(listed & _ids(advisory) for advisory in _query(url, {"package": package})):
        raise ValueError("it knows none of the advisories in SECURITY.md")
    answer = _query(url, {"package": package, "version": version_of(image)})
    return [
        f"{image}: {', '.join(sorted(_ids(advisory)))}; take a newer one"
        for advisory in answer
        if not _ids(advisory) & accepted
    ]


def audited(compose: Path, dockerfile: Path, security: str, url: str, accepted: set[str]) -> list[str]:
    """Describe every fault of the images, and print how they were audited."""
    rows = minimums(security)
    names = list(images(compose, dockerfile))
    faults = {name: found for name in names if (found := fault(name, rows))}
    print(f"audit: {len(names)} images were compared with the table in SECURITY.md")

    unlisted_by_image = list[str]()
    reasons = dict[str, list[str]]()
    for name in names:
        if name in faults:
            continue
        try:
            unlisted_by_image += unlisted(name, rows[_name(name)], url, accepted)
        except (httpx.HTTPError, ValueError) as error:
            reasons.setdefault(str(error), []).append(name)
    for reason, unasked in reasons.items():
        print(f"audit: NOT LOOKED UP at {url}, because {reason}: {', '.join(unasked)}")
    return [*faults.values(), *unlisted_by_image]


def _name(image: str) -> str:
    """The image without tag and digest; a registry's port is part of it."""
    path, _, last = image.partition("@")[0].rpartition("/")
    return "/".join(part for part in (path, last.partition(":")[0]) if part)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _query(url: str, question: dict[str, Any]) -> list[dict[str, Any]]:
    answer = httpx.post(url, json=question, timeout=20).raise_for_status().json()
    found: list[dict[str, Any]] = answer.get("vulns", [])
    return found


def _ids(advisory: dict[str, Any]) -> set[str]:
    return {advisory["id"], *advisory.get("aliases", ())}
