"""Audit the packages of this environment against the database of known vulnerabilities.

Fails where one is known. Where no database answers, as on a machine without a network, it says so
and by which name it was sought, and does not fail. Options are handed on to pip-audit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

import requests

DATABASE = "https://api.osv.dev/v1/query"
SECONDS = 10
QUESTION = '{"package": {"name": "ulcmod-dist", "ecosystem": "PyPI"}, "version": "0.1.0"}'


def main(words: Sequence[str]) -> int:
    """Return the exit code: 0 if nothing was found or no database answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", default=DATABASE, help="URL of an OSV API.")
    options, others = parser.parse_known_args(words)
    try:
        requests.post(options.database, data=QUESTION, timeout=SECONDS).raise_for_status()
    except requests.RequestException as error:
        reason = type(error).__name__
        print(f"Dependencies were NOT audited: {options.database} does not answer ({reason}).")
        return 0
    audit = [sys.executable, "-m", "pip_audit", "--vulnerability-service=osv", "--skip-editable"]
    source = [f"--osv-url={options.database}", "--progress-spinner=off"]
    return subprocess.run([*audit, *source, *others], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
