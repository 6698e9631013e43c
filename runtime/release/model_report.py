"""Says which model serves: in the log, in health and in a metric."""

from typing import Any

from ..batching.engine import Engine
from ..experiments.unit_assignment import Assignment
from ..model.model import Model
from ..observe.health import HealthState
from ..observe.logs import get_logger
from ..observe.metrics import Metrics
from .start_models import StartedModel

log = get_logger(__name__)


def report_model(health: HealthState, metrics: Metrics, started: StartedModel, model: Model) -> None:
    """Report the serving version of a model, at start and after each swap."""
    manifest, engine, name = model.manifest, started.engine, started.name
    health.model_loaded = True
    facts = {"name": manifest.name, "version": manifest.version, "device": model.device}
    _find_facts(health, name).update(facts)
    graph = started.settings.model.graph
    metrics.model(manifest.name, manifest.version, model.device, graph, run_slots=engine.run_slots, place=name)
    log.info(
        "model loaded",
        model=manifest.name,
        version=manifest.version,
        device=model.device,
        tasks=[task.name for task in manifest.tasks],
        token_budget=engine.token_budget,
        **_describe_decoders(model, engine),
    )


def report_candidate(
    health: HealthState, metrics: Metrics, started: StartedModel, model: Model | None, assignment: Assignment | None
) -> None:
    """Report the candidate that is loaded beside the serving version now; None: there is none."""
    facts = _find_facts(health, started.name)
    facts.pop("candidate", None)
    if model is None:
        metrics.candidate(None, place=started.name)
        return
    manifest = model.manifest
    divides = {} if assignment is None else {"experiment": assignment.experiment, "share": assignment.share}
    facts["candidate"] = {"version": manifest.version, **divides}
    labels = manifest.name, str(manifest.version), model.device, started.settings.model.graph
    metrics.candidate(labels, place=started.name)


def _find_facts(health: HealthState, name: str) -> dict[str, Any]:
    """Return what `/readyz` shows of a model."""
    details = health.details.setdefault("models", {}) if name else health.details
    facts: dict[str, Any] = details.setdefault(name or "model", {})
    return facts


def _describe_decoders(model: Model, engine: Engine) -> dict[str, Any]:
    """Return what the decoders of a model may take, for the log; nothing for a model that words no replies."""
    if not model.decoders:
        return {}
    most = sum(engine.most_replies * decoder.sizes.row_bytes() for decoder in model.decoders.values())
    return {"reply_rows": engine.reply_rows, "decoder_mb_at_most": round(most / 1e6, 1)}
