#!/usr/bin/env python3
"""Write the dashboards and the alert rules again after a change here or of a metric's name.

python deploy/monitoring/make.py
"""

from pathlib import Path

import yaml
from alerts import rules
from dashboards import DASHBOARDS, build
from grafana_foundation_sdk.cog.encoder import JSONEncoder

DEPLOY = Path(__file__).resolve().parents[1]
HEAD = "# Made by deploy/monitoring/make.py; docs/operations.md says what to do."


def made() -> dict[Path, str]:
    """Return every file with what belongs in it."""
    encode = JSONEncoder(indent=1, sort_keys=True).encode
    files = {DEPLOY / f"grafana/dashboards/{name}.json": encode(build(name).build()) + "\n" for name in DASHBOARDS}
    written = yaml.safe_dump(rules(), sort_keys=False, width=1000)
    files[DEPLOY / "prometheus/alerts.yaml"] = f"{HEAD}\n{written}"
    return files


if __name__ == "__main__":
    for path, text in made().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(DEPLOY.parent))
