"""Checks the packages of requirements.lock and the container images of docker/ for known security advisories.

It fails (status 1) on an advisory of a package that SECURITY.md does not list, on a yanked (withdrawn) release, and
on an image that is not in SECURITY.md's table, older than its row there, or without an exact version. Where no
advisory service can be reached, it prints what was not audited and succeeds, because that is no fault of the code.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tools import images

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
OSV = "https://api.osv.dev/v1/query"


class Accepted(NamedTuple):
    """A row of SECURITY.md's table: an advisory for a pinned release, and the reason for accepting it."""

    advisory: str
    package: str
    version: str
    reason: str


def accepted(security: str) -> list[Accepted]:
    """Read the accepted advisories from SECURITY.md's text: table rows that start with an advisory's id."""
    row = re.compile(r"^\| ((?:CVE|GHSA|PYSEC)-[\w-]+) \| ([\w.-]+) ([\w.]+) \| .+ \| (.+) \|$", re.MULTILINE)
    return [Accepted(*found) for found in row.findall(security)]


def pip_audit(requirements: Path, service: Sequence[str], ignored: Sequence[str] = ()) -> list[dict[str, Any]] | str:
    """Run pip-audit: its report on each package, or its error message where there is no report."""
    command = [BIN / "pip-audit", "--requirement", requirements, "--no-deps", "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off", *service, *(f"--ignore-vuln={name}" for name in ignored)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return (done.stderr.strip().splitlines() or ["pip-audit printed nothing"])[-1]
    return packages


def unreliable(service: Sequence[str], known: Sequence[Accepted]) -> str | None:
    """Check that the service knows one of the advisories in SECURITY.md, and return why not, or None.

    Otherwise a service without any advisories, such as a plain package index, would pass for a clean audit.
    """
    with TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text("".join(sorted({f"{row.package}=={row.version}\n" for row in known})))
        packages = pip_audit(requirements, service)
    if isinstance(packages, str):
        return packages.partition(": ")[0]
    found = {
        name for package in packages for each in package.get("vulns", ()) for name in [each["id"], *each["aliases"]]
    }
    return None if found & {row.advisory for row in known} else "it knows none of the advisories in SECURITY.md"


def advisories(lock: Path, services: dict[str, Sequence[str]], known: Sequence[Accepted]) -> list[str]:
    """Describe each advisory that applies and is not accepted, from the first service that is reliable."""
    reasons = []
    for name, service in services.items():
        if reason := unreliable(service, known):
            reasons.append(f"{name}: {reason}")
            continue
        packages = pip_audit(lock, service, [row.advisory for row in known])
        if isinstance(packages, str):
            return [f"pip-audit failed: {packages}"]
        skipped = [package["name"] for package in packages if "skip_reason" in package]
        print(f"audit: {len(packages) - len(skipped)} of {len(packages)} packages were audited ({name})")
        if skipped:
            print(f"audit: NOT AUDITED, because {name} does not know them: {', '.join(skipped)}")
        return [
            f"{package['name']} {package['version']}: {each['id']} ({', '.join(each['aliases'])}), "
            f"fixed in {', '.join(each['fix_versions']) or 'no release'}; upgrade, or list it in SECURITY.md"
            for package in packages
            for each in package.get("vulns", ())
        ]
    print(f"audit: NOTHING WAS AUDITED, because no advisory service could be asked ({'; '.join(reasons)})")
    return []


def yanked(lock: Path, uv: str) -> list[str]:
    """Describe each pinned release that has been yanked from its index."""
    command = [uv, "pip", "compile", "--no-deps", "--universal", "--python-version=3.11", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"audit: yanked releases were not checked ({done.stderr.strip().splitlines()[0]})")
    return re.findall(r"^warning: (.+ is yanked.*)$", done.stderr, re.MULTILINE)


def main() -> int:
    """Run the audit, and return the exit status: 1 where something was found, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    parser.add_argument("--compose", type=Path, default=ROOT / "docker" / "compose.yaml")
    parser.add_argument("--dockerfile", type=Path, default=ROOT / "docker" / "Dockerfile")
    parser.add_argument("--uv", required=True, help="path of uv, which checks for yanked releases")
    parser.add_argument("--osv-url", help="use only this service, which has the API of api.osv.dev/v1/query")
    given = parser.parse_args()
    services: dict[str, Sequence[str]] = {
        "PyPI": ["--vulnerability-service=pypi"],
        "OSV": ["--vulnerability-service=osv"],
    }
    if given.osv_url:
        services = {given.osv_url: [*services["OSV"], f"--osv-url={given.osv_url}"]}
    security = (ROOT / "SECURITY.md").read_text()
    known = accepted(security)
    names = {row.advisory for row in known}
    faults = [
        *advisories(given.lock, services, known),
        *yanked(given.lock, given.uv),
        *images.audited(given.compose, given.dockerfile, security, given.osv_url or OSV, names),
    ]
    for fault in faults:
        print(f"audit: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
