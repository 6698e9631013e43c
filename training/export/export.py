"""A run folder becomes a model folder: the graph is built by the runtime from the checkpoint's arrays, and proven.

An export succeeds only when torch, the ragged graph and (where asked for) the padded one agree on texts of every length:
logits within 1e-4 and the same decisions.
"""

import json
import logging
import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from ...runtime.errors import SetupError
from ...runtime.model.batch_rows import Logits
from ...runtime.model.deltas.delta import (
    ADDED,
    CHECKPOINT_NAME,
    DELTA_NAME,
    VECTORS,
    apply_delta,
    write_delta,
)
from ...runtime.model.folders.folder import write_manifest
from ...runtime.model.folders.weights import weight_shapes
from ...runtime.model.graph.build import Form, build_graph, describe_model
from ...runtime.model.graph.decoder import build_decoders
from ...runtime.model.inputs import Input, TextPair, find_pair_tasks
from ...runtime.model.model import Model
from ...runtime.model.onnx_session import open_session
from ...runtime.model.reference_sample import Reference, make_reference
from ...runtime.model.replies.reply_decoder import make_decoders
from ...schemas.manifest import MANIFEST_NAME, POOLED, Base, Limits, ModelManifest, TaskSpec
from ..kinds.registry import kind_of
from ..kinds.replies.decoder import Decoded
from ..model import encoders
from ..model.encoder_files import plain_tokenizer
from ..run_folders.os_errors import as_os_error, save_tokenizer, write_bytes, write_text
from ..run_folders.overlaps import find_base_overlaps, find_foreign_files, find_overlaps, find_working_folder
from ..run_folders.run_folder import RECIPE, RunFolder, RunRecord, count_steps
from ..run_folders.trained_model import base_weights
from .parity import torch_logits, worst_difference
from .reply_parity import prove_replies, torch_replies

log = logging.getLogger(__name__)
PARITY: Final = 1e-4
DIFFERENCE: Final = "difference/"
REFERENCE_WORDS: Final = 16
NO_PAIRS: Final[Mapping[str, Sequence[TextPair]]] = {}
Weights = dict[str, NDArray[Any]]


def export(
    run: Path, out: Path, *, graphs: Sequence[Form] = ("ragged",), delta: bool = False, pooled: bool = False
) -> ModelManifest:
    """Make a model folder from the run's best checkpoint, or with `delta` a delta folder. With `pooled` it gets the pooled
    output, whatever the recipe says.

    `out` is replaced when it is a model folder already. Raises SetupError when a graph disagrees with torch.
    """
    folder = RunFolder(run)
    record = folder.record()
    record = record.model_copy(update={"pooled": record.pooled or pooled})
    overlaps = find_overlaps(out, "--out", record.teacher_folders, "a teacher")
    is_smaller = record.smaller is not None
    source = record.encoder_folder or record.encoder.source
    problems = find_problems(out, source, graphs, delta=delta, is_smaller=is_smaller)
    for problem in (*overlaps, *problems):
        raise SetupError(problem)
    draft = begin(out)
    try:
        written = _write_delta(draft, folder, record) if delta else _write_model(draft, folder, record, graphs)
        finish(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return written


def _write_model(draft: Path, run: RunFolder, record: RunRecord, graphs: Sequence[Form]) -> ModelManifest:
    checkpoint = run.weights()
    weights = dict(apply_delta(base_weights(record), checkpoint)) if record.low_rank else checkpoint
    with as_os_error(draft / CHECKPOINT_NAME):
        save_file(weights, draft / CHECKPOINT_NAME)
    (draft / CHECKPOINT_NAME).chmod(0o644)  # safetensors writes for the owner alone
    manifest = manifest_of(record)
    if record.encoder.source == "scratch":
        own = {"sha256": encoders.digest(draft / CHECKPOINT_NAME)}
        manifest = manifest.model_copy(update={"encoder": record.encoder.model_copy(update=own)})
    built = build_proven(manifest, weights, run.tokenizer(), graphs, run.pairs())
    roles = {CHECKPOINT_NAME: "training"}
    for form, data in built.graphs.items():
        write_bytes(draft / f"model.{form}.onnx", data)
        roles[f"model.{form}.onnx"] = f"graph:{form}"
    for path, data in built.decoders.items():
        write_bytes(draft / path, data)
    roles |= {path: role for task in manifest.tasks for role, path in task.decoder_files.items()}
    roles |= write_rest(draft, run, record, built.reference)
    with as_os_error(draft / MANIFEST_NAME):
        return write_manifest(draft, manifest, roles)


def _write_delta(draft: Path, run: RunFolder, record: RunRecord) -> ModelManifest:
    """Write the difference first and prove what is assembled from it: rounding to fp16 comes before merging."""
    base, checkpoint = base_weights(record), run.weights()
    heads = {name: array for name, array in checkpoint.items() if name.startswith("heads.")}
    changed = {
        name: array - base[name]
        for name, array in checkpoint.items()
        if name in base and not np.array_equal(array, base[name])
    }
    changed |= {name.removeprefix(DIFFERENCE): checkpoint[name] for name in checkpoint if name.startswith(DIFFERENCE)}
    low_rank, derived = (_find_factors(checkpoint, kind) for kind in ("low_rank/", "derived/"))
    vectors = {name: array for name, array in checkpoint.items() if name.partition("/")[0] in VECTORS}
    with as_os_error(draft / DELTA_NAME):
        write_delta(
            draft / DELTA_NAME,
            low_rank=low_rank,
            difference=changed,
            heads=heads,
            derived=derived,
            vectors=vectors,
            added={name.removeprefix(ADDED): array for name, array in checkpoint.items() if name.startswith(ADDED)}
            | {
                name: checkpoint[name]
                for name in weight_shapes(record.encoder, ())
                if name in checkpoint and name not in base
            },
        )
    weights = apply_delta(base, load_file(draft / DELTA_NAME))
    source = Base(source=record.encoder.source, sha256=record.encoder.sha256)
    manifest = manifest_of(record).model_copy(update={"base": source})
    built = build_proven(manifest, weights, run.tokenizer(), ("ragged",), run.pairs())
    roles = {DELTA_NAME: "delta"} | write_rest(draft, run, record, built.reference)
    with as_os_error(draft / MANIFEST_NAME):
        return write_manifest(draft, manifest, roles)


def _find_factors(checkpoint: Weights, kind: str) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    return {
        name.removeprefix(kind).removesuffix("/a"): (array, checkpoint[name.removesuffix("a") + "b"])
        for name, array in checkpoint.items()
        if name.startswith(kind) and name.endswith("/a")
    }


def manifest_of(record: RunRecord) -> ModelManifest:
    """Return the manifest without its files."""
    return ModelManifest(
        name=record.name,
        encoder=record.encoder,
        tasks=record.tasks,
        limits=Limits(max_tokens=record.max_tokens),
        pooled=record.pooled,
        pooled_layers=record.pooled_layers,
        recipe=record.recipe_sha256,
        data={name: report.model_dump(mode="json", exclude_defaults=True) for name, report in record.data.items()},
        files=[],
    )


def find_problems(
    out: Path, source: str, graphs: Sequence[str], *, delta: bool, is_smaller: bool = False
) -> Iterator[str]:
    """Yield why it cannot be exported, before hours are spent on training it. `is_smaller`: by the stage `smaller`."""
    if out.exists() and not (out / MANIFEST_NAME).is_file() and (not out.is_dir() or any(out.iterdir())):
        yield f"{out}: exists and is not a model folder; choose another --out or remove it"
    elif out.exists():
        yield from (*find_working_folder(out), *find_foreign_files(out))
    if delta and source != "scratch":
        yield from find_base_overlaps(out, source)
    if delta and tuple(graphs) != ("ragged",):
        yield "a delta folder holds no graphs: --graphs and --delta cannot be combined"
    if delta and source == "scratch":
        yield "an encoder from scratch has no base to differ from: export it without --delta"
    if delta and is_smaller:
        yield "a model by `smaller` begins as layers that only its run folder has, no base: export it without --delta"


def begin(out: Path) -> Path:
    """Return an empty folder beside `out` to write into. Puts back what an export that was killed had moved aside."""
    draft, replaced = _beside(out)
    shutil.rmtree(draft, ignore_errors=True)
    if replaced.exists() and not out.exists():
        replaced.rename(out)
    shutil.rmtree(replaced, ignore_errors=True)
    draft.mkdir(parents=True)
    return draft


def finish(draft: Path, out: Path) -> None:
    """Put the finished folder in its place by renaming, so that nobody reads half of it.

    Between two renames there is none; a failure of the second puts the old folder back, after a kill the next export does.
    """
    _, replaced = _beside(out)
    if not out.exists():
        draft.rename(out)
        return
    out.rename(replaced)
    try:
        draft.rename(out)
    except OSError:
        replaced.rename(out)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _beside(out: Path) -> tuple[Path, Path]:
    """Return where a folder is drafted, and where the one that it replaces lies meanwhile."""
    return out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.replaced")


@dataclass(frozen=True)
class Built:
    """Graphs that compute what torch computes, and the reference sample that they gave."""

    graphs: dict[Form, bytes]
    reference: Reference
    decoders: dict[str, bytes]
    """Of tasks that generate, by path."""


def build_proven(
    manifest: ModelManifest,
    weights: Weights,
    tokenizer: Tokenizer,
    graphs: Sequence[Form],
    pairs: Mapping[str, Sequence[TextPair]] = NO_PAIRS,
) -> Built:
    """Build the graphs and hold each against torch; `pairs` are validation rows of tasks that generate, by task."""
    texts: list[Input] = [*sample_texts(tokenizer, manifest.limits.max_tokens)]
    if find_pair_tasks(manifest.tasks):
        texts += [TextPair(str(one), str(other)) for one, other in zip(texts[::2], texts[1::2], strict=True)]
    built: dict[Form, bytes] = {}
    reference: Reference = {}
    truth: dict[str, list[Decoded]] = {}
    decoders = build_decoders(manifest, weights, describe_model(manifest))
    for form in graphs:
        about = describe_model(manifest)
        pooled, layers = manifest.pooled, manifest.pooled_layers
        built[form] = build_graph(
            manifest.encoder, manifest.tasks, weights, form, about, pooled=pooled, pooled_layers=layers
        )
        fresh = Tokenizer.from_str(tokenizer.to_str())
        opened = make_decoders(manifest, lambda path: open_session(decoders[path], "cpu"))
        model = Model(manifest, fresh, open_session(built[form], "cpu"), graph=form, decoders=opened)
        prove(model, weights, texts, form)
        drawn = [each for each in texts if isinstance(each, TextPair)]
        for name in opened:
            rows = [*drawn, *pairs.get(name, ())]
            if name not in truth:
                truth[name] = torch_replies(model, weights, name, rows)
            prove_replies(model, truth[name], name, rows)
        reference = reference or make_reference(model, [*_short(texts, str)[:8], *_short(texts, TextPair)[:4]])
    for spec in manifest.tasks:
        if fault := kind_of(spec).serving.find_fault([np.array(row) for row in reference["outputs"][spec.name]]):
            raise SetupError(f"export failed: task {spec.name}: {fault}")
    return Built(built, reference, decoders)


def _short(texts: Sequence[Input], form: type) -> list[Input]:
    """Return the inputs of a form that are short enough for the reference sample."""
    parts = [(each, [each] if isinstance(each, str) else each[:2]) for each in texts if isinstance(each, form)]
    return [each for each, words in parts if sum(text.count(" ") for text in words) < REFERENCE_WORDS]


def prove(model: Model, weights: Weights, texts: Sequence[Input], form: str) -> None:
    """Raise SetupError unless the graph's logits are torch's, within PARITY, and so are its decisions."""
    truth = torch_logits(model.manifest, weights, [row.ids for encoded in model.encode(texts) for row in encoded.rows])
    passes = [model.run(batch) for batch, _ in model.batches(texts)]
    for spec in (spec for spec in model.manifest.tasks if spec.name in truth):
        found = _split_rows(passes, spec)
        gap, decided_alike = worst_difference(truth[spec.name], found, spec)
        log.info("parity %s %s: %.2g", form, spec.name, gap)
        if not gap <= PARITY or not decided_alike:
            reason = "other decisions" if gap <= PARITY else f"logits differ by {gap:.2g}, allowed {PARITY:g}"
            raise SetupError(f"export failed: the {form} graph and torch disagree on task {spec.name}: {reason}")
    if model.manifest.pooled:
        served = np.concatenate([logits.vectors for logits in passes])
        gap = float(np.abs(served - np.stack(truth[POOLED])).max())
        log.info("parity %s %s: %.2g", form, POOLED, gap)
        if not gap <= PARITY:
            raise SetupError(
                f"export failed: vectors of the {form} graph and of torch differ by {gap:.2g}, allowed {PARITY:g}"
            )


def served_logits(model: Model, spec: TaskSpec, texts: Sequence[Input]) -> list[NDArray[Any]]:
    """Return the graph's logits for each text: [C], for tagging [S, C]."""
    return _split_rows((model.run(batch) for batch, _ in model.batches(texts)), spec)


def _split_rows(passes: Iterable[Logits], spec: TaskSpec) -> list[NDArray[Any]]:
    split = kind_of(spec).serving.split_rows
    return [row for logits in passes for row in split(logits.values[spec.name], logits.starts)]


def sample_texts(tokenizer: Tokenizer, max_tokens: int, *, count: int = 32) -> list[str]:
    """Return texts of every length made of the vocabulary's words: no line of anybody's data ends up in a model folder."""
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha()) or ["text"]
    draw = random.Random(0)
    lengths = [round(1 + (max_tokens + 2) * (i / (count - 1)) ** 2) for i in range(count)]
    draw.shuffle(lengths)
    return [" ".join(draw.choices(words, k=length)) for length in lengths]


def describe_interruption(record: RunRecord) -> str:
    """Return a sentence on how far an interrupted run got."""
    return (
        f"The training was interrupted after {record.steps} of {count_steps(record.planned_steps or 0)}; "
        f"these are the weights of step {record.best_step}."
    )


def describe_lost_base(record: RunRecord, out: Path) -> str:
    """Return a line where the model at `out` has replaced the encoder that its run holds only changes of."""
    if not record.low_rank or not record.encoder_folder or Path(record.encoder_folder) != out.resolve():
        return ""
    return f"note: {out} was the encoder that the run changes, and is replaced: the run cannot be exported again"


def write_rest(draft: Path, run: RunFolder, record: RunRecord, reference: Reference) -> dict[str, str]:
    """Write tokenizer, reference sample, recipe and attributions; returns their roles."""
    save_tokenizer(plain_tokenizer(run.tokenizer()), draft / "tokenizer.json")
    write_text(draft / "reference.json", json.dumps(reference, ensure_ascii=False) + "\n")
    shutil.copyfile(run.path / RECIPE, draft / "recipe.yaml")
    origin = f"Encoder: `{record.encoder.source}`, SHA-256 `{record.encoder.sha256}`"
    origin = "Encoder: trained from scratch" if record.encoder.source == "scratch" else origin
    if record.interrupted:
        origin += f"\n\n{describe_interruption(record)}"
    attribution = record.attribution.strip() or "The recipe names no attributions for its data."
    write_text(draft / "ATTRIBUTION.md", f"# {record.name}\n\n{origin}\n\n{attribution}\n")
    return {
        "tokenizer.json": "tokenizer",
        "reference.json": "reference",
        "recipe.yaml": "recipe",
        "ATTRIBUTION.md": "attribution",
    }
