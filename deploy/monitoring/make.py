#!/usr/bin/env python3
"""Writes the dashboards and the alert rules. Run it after a change here or of a metric's name.

python deploy/monitoring/make.py
"""

from pathlib import Path

import yaml
from alerts import rules
from dashboards import DASHBOARDS, build
from grafana_foundation_sdk.cog.encoder import JSONEncoder

DEPLOY = Path(__file__).resolve().parents[1]
HEAD = "# Made by deploy/monitoring/make.py; docs/operations.md says what to do."


def make_files() -> dict[Path, str]:
    """Return the content of every file."""
    encode = JSONEncoder(indent=1, sort_keys=True).encode
    files = {DEPLOY / f"grafana/dashboards/{name}.json": encode(build(name).build()) + "\n" for name in DASHBOARDS}
    written = yaml.safe_dump(rules(), sort_keys=False, width=1000)
    files[DEPLOY / "prometheus/alerts.yaml"] = f"{HEAD}\n{written}"
    return files


if __name__ == "__main__":
    for path, text in make_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(DEPLOY.parent))
