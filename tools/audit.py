"""Holds requirements.lock against known advisories and withdrawn releases, and says so where it could not.

Red (status 1) for an advisory that SECURITY.md does not list and for a release that its index calls yanked. Where no
advisory service can be asked that is no fault of the code: one line says that nothing was audited, and the status is 0.
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

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


class Accepted(NamedTuple):
    """A row of SECURITY.md's table: an advisory that is known of a pinned release, and why it is borne."""

    advisory: str
    package: str
    version: str
    reason: str


def accepted(security: str) -> list[Accepted]:
    """The rows whose first cell is an advisory's id and whose second is a package and its version."""
    row = re.compile(r"^\| ((?:CVE|GHSA|PYSEC)-[\w-]+) \| ([\w.-]+) ([\w.]+) \| .+ \| (.+) \|$", re.MULTILINE)
    return [Accepted(*found) for found in row.findall(security)]


def pip_audit(requirements: Path, service: Sequence[str], ignored: Sequence[str] = ()) -> list[dict[str, Any]] | str:
    """What pip-audit says of each package, or the reason why it says nothing."""
    command = [BIN / "pip-audit", "--requirement", requirements, "--no-deps", "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off", *service, *(f"--ignore-vuln={name}" for name in ignored)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
    return packages


def unknowing(service: Sequence[str], known: Sequence[Accepted]) -> str | None:
    """Why the service cannot be relied on, or None: it must know one of the advisories that SECURITY.md lists.

    Without this a service that knows no package at all, as a plain package index does not, is a clean audit.
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
    """A sentence for each advisory that applies and is not listed, by the first service that knows any."""
    reasons = []
    for name, service in services.items():
        if reason := unknowing(service, known):
            reasons.append(f"{name}: {reason}")
            continue
        packages = pip_audit(lock, service, [row.advisory for row in known])
        if isinstance(packages, str):
            return [f"pip-audit failed: {packages}"]
        skipped = [package["name"] for package in packages if "skip_reason" in package]
        print(f"audit: {len(packages) - len(skipped)} of {len(packages)} packages are audited ({name})")
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
    """A sentence for each pinned release that its index calls yanked."""
    command = [uv, "pip", "compile", "--no-deps", "--universal", "--python-version=3.11", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"audit: yanked releases were not looked for ({done.stderr.strip().splitlines()[0]})")
    return re.findall(r"^warning: (.+ is yanked.*)$", done.stderr, re.MULTILINE)


def main() -> int:
    """Exit status: 1 where something is found, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    parser.add_argument("--uv", required=True, help="the program uv, which asks the index for yanked releases")
    parser.add_argument("--osv-url", help="ask this service alone, which speaks as api.osv.dev/v1/query does")
    given = parser.parse_args()
    services: dict[str, Sequence[str]] = {
        "PyPI": ["--vulnerability-service=pypi"],
        "OSV": ["--vulnerability-service=osv"],
    }
    if given.osv_url:
        services = {given.osv_url: [*services["OSV"], f"--osv-url={given.osv_url}"]}
    known = accepted((ROOT / "SECURITY.md").read_text())
    faults = [*advisories(given.lock, services, known), *yanked(given.lock, given.uv)]
    for fault in faults:
        print(f"audit: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
