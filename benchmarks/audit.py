"""Known vulnerabilities in the tested versions, by pip-audit: `make audit`.

pip-audit ends with "No known vulnerabilities found" and 0 where it could look up nothing. Here a version that was not
looked up is not taken for safe: the exit status is 1 for these, for vulnerable versions, and without a report.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "requirements.lock"


def judged(packages: list[dict[str, Any]]) -> tuple[bool, list[str]]:
    """Whether all packages were looked up and none is vulnerable, and what to say."""
    unknown = [package for package in packages if "vulns" not in package]
    lines = [
        f"{package['name']} {package['version']} has {each['id']}: {fixed(each)}"
        for package in packages
        for each in package.get("vulns", ())
    ]
    if unknown or not packages:
        names = ", ".join(package["name"] for package in unknown[:3]) + (", ..." if unknown[3:] else "")
        about = f" ({names}: {unknown[0].get('skip_reason')})" if unknown else ""
        looked_up = f"only {len(packages) - len(unknown)} of {len(packages)} versions were looked up{about}"
        lines.append(f"{looked_up}: nothing is known about the others; run this where PyPI can be reached")
    return not lines, lines or [f"no known vulnerability in {len(packages)} versions, all of which were looked up"]


def fixed(vulnerability: dict[str, Any]) -> str:
    versions = vulnerability.get("fix_versions")
    return f"fixed in {', '.join(versions)}" if versions else "no version fixes it yet"


def main() -> None:
    options = ["--format", "json", "--progress-spinner", "off", "--no-deps", "--disable-pip", "-r", str(LOCK)]
    done = subprocess.run([sys.executable, "-m", "pip_audit", *options], capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SystemExit(f"pip-audit gave no report, so nothing is known about any version: {last}") from None
    is_ok, lines = judged(packages)
    print("\n".join(lines))
    raise SystemExit(not is_ok)


if __name__ == "__main__":
    main()
