"""A loaded model: tokenises texts, runs the graph, and decodes the logits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, Self, cast

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ...schemas.manifest import FileEntry, ModelManifest, TaskSpec, Thresholds
from ...schemas.serving_event import RejectReason
from ..errors import ModelFailed, ModelRefused
from .decoding import MergedRows, Output, Rows
from .folder import open_checked, opened_path, read_checked, read_manifest, refuse_changed
from .kinds.forms import Reads
from .kinds.kind import Kind
from .kinds.registry import kind_of
from .long_texts import Windows
from .onnx_bytes import refuse_external_data
from .onnx_session import Array, Device, Runner, open_session
from .reference_sample import check_reference, missing_sample_error, read_reference
from .tokenizing import Encoded, TextEncoder, read_tokenizer
from .windows import WindowedText, WindowEncoder

__all__ = ["Encoded", "Logits", "Model"]

NOT_FINITE: Final = "not finite"
_OFFLINE_TOKENS: Final = 1024
_OFFLINE_ROWS: Final = 64
_PASS_TOKENS: Final = 4096
"""Maximum tokens of a pass with windows: the attention of 64 windows of 512 tokens would need gigabytes at once."""
_PLAIN: Final = "a"


@dataclass(frozen=True, slots=True)
class Logits:
    """The result of a run. `values[task]` is [B, C], or [T, C] by token: row b is `[starts[b] : starts[b + 1]]`."""

    values: dict[str, Array]
    starts: npt.NDArray[np.int64]
    """[B + 1], the last one T."""
    windows: npt.NDArray[np.int64] | None = None
    """For a batch with windows: each row is a window, and text b has the rows `[windows[b] : windows[b + 1]]`."""


class Model:
    """A manifest, its tokenizer and a runner. `encode`, `run` and `decode` block and may be called from any thread."""

    def __init__(self, manifest: ModelManifest, tokenizer: Tokenizer, runner: Runner, *, graph: str = "ragged") -> None:
        """Configures the tokenizer with the manifest's limits: no padding, truncation to `limits.max_tokens`."""
        self.manifest = manifest
        self.tasks: dict[str, TaskSpec] = {task.name: task for task in manifest.tasks}
        self.runner = runner
        self._kinds = {task.name: kind_of(task) for task in manifest.tasks}
        offsets = any(kind.reads is Reads.TOKENS for kind in self._kinds.values())
        self._encode = TextEncoder(tokenizer, manifest.limits.max_tokens, offsets=offsets)
        self._encode_windows = WindowEncoder(tokenizer, manifest.limits.max_tokens)
        self._feeds = ragged_feeds if graph == "ragged" else padded_feeds
        self._padded = graph == "padded"
        self._reference: dict[str, Any] | None = None
        self.token_s: float | None = None
        """Seconds per token of a warm batch. Set by who warms the model up; None when that was not measured."""
        self._decoders = {task.name: self._kinds[task.name].make_decoder(task) for task in manifest.tasks}

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: Device = "auto",
        graph: str = "ragged",
        verify: bool = True,
        threads: int = 1,
    ) -> Self:
        """Load a model folder (for a delta: the folder that `assembled.resolve` returns).

        With `verify` the digests of all files are checked, and the reference sample must be reproduced. Raises ModelRefused
        or SetupError in one line.
        """
        model = cls.open(folder, device=device, graph=graph, verify=verify, threads=threads)
        if verify:
            model.reproduce(folder)
        return model

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        device: Device = "auto",
        graph: str = "ragged",
        verify: bool = True,
        threads: int = 1,
    ) -> Self:
        """Load a model folder like `load`, without running the reference sample."""
        manifest = read_manifest(folder)
        tokenizer = read_tokenizer(manifest, _read(folder, manifest, "tokenizer", verify))
        with open_checked(folder, _entry(folder, manifest, f"graph:{graph}"), digest=verify) as file:
            refuse_external_data(file)
            session = open_session(opened_path(file), device, threads)
            if verify:
                # onnxruntime has read the file again: its content is the checked one only if it has not changed since.
                refuse_changed(folder, _entry(folder, manifest, f"graph:{graph}"), file)
        missing = [task.name for task in manifest.tasks if task.name not in session.outputs]
        if missing:
            message = f"{folder}: the graph answers no task {missing[0]!r}; export the model again"
            raise ModelRefused(message, RejectReason.WRONG_SHAPE)
        return cls(manifest, tokenizer, session, graph=graph)

    def reproduce(self, folder: Path, *, required: bool = False) -> None:
        """Run the folder's reference sample. Raises ModelRefused if it is not reproduced, or missing while `required`."""
        has_sample = self.manifest.path_of("reference") is not None
        reference = read_reference(_read(folder, self.manifest, "reference", True)) if has_sample else {"texts": []}
        self._reference = reference if has_sample else None
        if required and not reference["texts"]:
            raise missing_sample_error(str(folder))
        if not has_sample:
            return
        try:
            check_reference(self, reference)
        except ModelFailed as error:
            raise sample_error(error, str(folder)) from error

    def check_device(self) -> None:
        """Run the reference sample of `reproduce` again, and answer a single letter on every task. Raises any failure.

        For a model that has answered before: a failure is then caused by the device or the process.
        """
        if self._reference is not None:
            check_reference(self, self._reference)
        self.predict([_PLAIN])

    def terminate(self, thread: int) -> None:
        """Terminate the run of a thread; see `Session.terminate`."""
        self.runner.terminate(thread)

    @property
    def device(self) -> str:
        """`cuda` or `cpu`: the device that the session uses."""
        return self.runner.device

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise a chunk; the GIL is released meanwhile. Raises ValueError with the index of a text with a surrogate."""
        return self._encode(texts)

    def encode_windows(self, texts: Sequence[str], windows: Sequence[Windows | None]) -> list[Encoded | WindowedText]:
        """Tokenise a chunk; a text above the limit with `windows` is split into them."""
        return [
            self._encode_windows(text, how) if how is not None and encoded.truncated else encoded
            for text, encoded, how in zip(texts, self._encode(texts), windows, strict=True)
        ]

    def run(self, texts: Sequence[Encoded | WindowedText]) -> Logits:
        """Run a batch in one pass, or several for many windows. Raises ModelFailed on failure or a value that is not finite."""
        batch, windows = _flatten_windows(texts)
        if windows is None:
            return self._run_pass(batch)
        passes = [self._run_pass(part) for part in _split_passes(batch)]
        values = {name: np.concatenate([logits.values[name] for logits in passes]) for name in self.tasks}
        starts = np.concatenate([[0], np.cumsum([row.tokens for row in batch])])
        return Logits(values, starts, windows)

    def _run_pass(self, batch: Sequence[Encoded]) -> Logits:
        lengths = np.fromiter((e.tokens for e in batch), np.int64, len(batch))
        starts = np.zeros(len(batch) + 1, np.int64)
        np.cumsum(lengths, out=starts[1:])
        ids = np.fromiter(chain.from_iterable(e.ids for e in batch), np.int64, int(starts[-1]))
        outputs = self.runner.run(self._feeds(ids, lengths, starts))
        values = {name: outputs[name] for name in self.tasks}
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise ModelFailed(f"task {name} gave values that are {NOT_FINITE}")
        if self._padded:
            mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
            values = {name: v[mask] if v.ndim == 3 else v for name, v in values.items()}
        return Logits(values, starts)

    def decode(
        self,
        logits: Logits,
        batch: Sequence[Encoded | WindowedText],
        texts: Sequence[str],
        wanted: Sequence[tuple[str, ...]],
        thresholds: Mapping[str, Thresholds] | None = None,
    ) -> list[dict[str, Output]]:
        """Return for each text the outputs of its `wanted` tasks; `thresholds` override the manifest's by task."""
        answers: list[dict[str, Output]] = [{} for _ in batch]
        for name, rows in _group_rows_by_task(wanted).items():
            limits = (thresholds or {}).get(name, self.tasks[name].thresholds)
            chosen = _select_rows(self._kinds[name], logits.values[name], logits, batch, texts, rows)
            decoder = self._decoders[name]
            outputs = decoder(chosen, limits) if chosen.merged is None else decoder.decode_windows(chosen, limits)
            for row, output in zip(rows, outputs, strict=True):
                answers[row][name] = output
        return answers

    def predict(self, texts: Sequence[str], tasks: Sequence[str] | None = None) -> list[dict[str, Output]]:
        """Encode, run and decode in batches of about 1,000 tokens, in order, on `tasks` (None: all). For offline use."""
        wanted = tuple(self.tasks if tasks is None else tasks)
        answers: list[dict[str, Output]] = []
        for batch, part in self.batches(texts):
            answers += self.decode(self.run(batch), batch, part, [wanted] * len(batch))
        return answers

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[Encoded], Sequence[str]]]:
        """Yield tokenised batches and their texts, in order."""
        encoded = self.encode(texts)
        begin = tokens = 0
        for end, item in enumerate(encoded):
            if end > begin and (tokens + item.tokens > _OFFLINE_TOKENS or end - begin == _OFFLINE_ROWS):
                yield encoded[begin:end], texts[begin:end]
                begin, tokens = end, 0
            tokens += item.tokens
        if begin < len(encoded):
            yield encoded[begin:], texts[begin:]


def sample_error(error: ModelFailed, origin: str) -> ModelRefused:
    """Return the error for a model that fails on its sample or on plain texts."""
    reason = RejectReason.NOT_FINITE if NOT_FINITE in str(error) else RejectReason.WRONG_SHAPE
    return ModelRefused(f"{origin}: {error}", reason)


def ragged_feeds(
    ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]
) -> dict[str, Array]:
    """Return the inputs of the ragged graph for texts concatenated in `ids` [T]."""
    columns = np.arange(max(int(lengths.max(initial=1)), 1))
    mask = columns < lengths[:, None]
    return {
        "input_ids": ids,
        "position_ids": np.arange(len(ids)) - np.repeat(starts[:-1], lengths),
        "seq_index": np.flatnonzero(mask),
        "pad_index": np.where(mask, starts[:-1, None] + columns, len(ids)),
        "attention_mask": mask.astype(np.float32),
    }


def padded_feeds(
    ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]
) -> dict[str, Array]:
    """Return the inputs of the padded graph; padding is token 0, which the mask excludes."""
    del starts
    mask = np.arange(max(int(lengths.max(initial=1)), 1)) < lengths[:, None]
    padded = np.zeros(mask.shape, np.int64)
    padded[mask] = ids
    return {"input_ids": padded, "attention_mask": mask.astype(np.float32)}


def _group_rows_by_task(wanted: Sequence[tuple[str, ...]]) -> dict[str, list[int]]:
    """Return the rows for each task. Usually all rows of a batch have the same tasks."""
    if len(set(wanted)) == 1:
        every = list(range(len(wanted)))
        return dict.fromkeys(wanted[0], every)
    rows: dict[str, list[int]] = {}
    for row, names in enumerate(wanted):
        for name in names:
            rows.setdefault(name, []).append(row)
    return rows


def _flatten_windows(texts: Sequence[Encoded | WindowedText]) -> tuple[Sequence[Encoded], npt.NDArray[np.int64] | None]:
    """Return the rows of a pass, and the bounds of each text's rows (None without windows)."""
    if all(isinstance(text, Encoded) for text in texts):
        return cast(Sequence[Encoded], texts), None
    parts = [text.windows if isinstance(text, WindowedText) else (text,) for text in texts]
    bounds = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=bounds[1:])
    return [*chain.from_iterable(parts)], bounds


def _split_passes(rows: Sequence[Encoded]) -> Iterator[Sequence[Encoded]]:
    """Yield rows in parts of at most `_PASS_TOKENS`, or a single row."""
    begin = tokens = 0
    for end, row in enumerate(rows):
        if end > begin and tokens + row.tokens > _PASS_TOKENS:
            yield rows[begin:end]
            begin, tokens = end, 0
        tokens += row.tokens
    yield rows[begin:]


def _select_rows(
    kind: Kind,
    values: Array,
    logits: Logits,
    batch: Sequence[Encoded | WindowedText],
    texts: Sequence[str],
    rows: list[int],
) -> Rows:
    """Return the given texts' rows for a task, with all windows of a text."""
    starts, bounds = logits.starts, logits.windows
    parts, merged = cast(Sequence[Encoded], batch), None
    if bounds is not None:
        parts, _ = _flatten_windows(batch)
        merged = MergedRows(
            np.concatenate([[0], np.cumsum(np.diff(bounds)[rows])]),
            [text.merge if isinstance(text, WindowedText) else "max" for text in (batch[r] for r in rows)],
        )
        texts = [texts[b] for b, count in enumerate(np.diff(bounds)) for _ in range(count)]
        rows = [row for b in rows for row in range(bounds[b], bounds[b + 1])]
    if len(rows) < len(parts):
        values, starts = kind.select_rows(values, starts, rows)
    chosen = [parts[r] for r in rows]
    return Rows(values, starts, [part.encoding for part in chosen], [texts[r] for r in rows], merged)


def _read(folder: Path, manifest: ModelManifest, role: str, verify: bool) -> bytes:
    return read_checked(folder, _entry(folder, manifest, role), digest=verify)


def _entry(folder: Path, manifest: ModelManifest, role: str) -> FileEntry:
    entry = next((f for f in manifest.files if f.role == role), None)
    if entry is None:
        if manifest.is_delta:
            raise ModelRefused(f"{folder} is a delta folder: `murmura models assemble` makes a model folder from it")
        raise ModelRefused(f"{folder}: the manifest names no file with role {role}; export the model again")
    return entry
