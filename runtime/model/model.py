"""A loaded model: tokenises texts, runs the graph, and decodes the logits."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from tokenizers import Tokenizer

from ...schemas.manifest import HIDDEN, POOLED, ModelManifest, TaskSpec, Thresholds
from ...schemas.serving_event import RejectReason
from ..errors import ModelFailed, ModelRefused
from .batch_rows import Logits, Tokenised, flatten_rows, group_rows_by_task, has_windows, select_rows, split_passes
from .decoding import Output
from .feeds import padded_feeds, ragged_feeds
from .folders.folder import check_decoder_files, read_manifest
from .generated import Generated
from .input_encoder import InputEncoder
from .inputs import Input, choose_input, find_pair_tasks
from .kinds.forms import Reads
from .kinds.generation import make_output
from .kinds.registry import kind_of
from .onnx_session import Array, Device, Runner
from .open_files import entry_of, open_checked_graph, read_role
from .pass_time import PassTime
from .reference_sample import check_reference, missing_sample_error, read_reference
from .replies.offline import MAX_ROWS, decode_rows, generate_replies, remember_texts, reply_to_rows
from .replies.reply_decoder import ReplyDecoder, make_decoders
from .replies.slot_table import Memory
from .texts.long_texts import Windows
from .texts.tokenizing import Encoded, read_tokenizer
from .vectors import Vectors, first_vectors, unit_vectors

__all__ = ["Encoded", "Logits", "Model"]

NOT_FINITE: Final = "not finite"
_OFFLINE_TOKENS: Final = 1024
_OFFLINE_ROWS: Final = 64
_PLAIN: Final = "a"
NO_DECODERS: Final[Mapping[str, ReplyDecoder]] = {}


class Model:
    """A manifest, its tokenizer and a runner. `encode`, `run` and `decode` block and may be called from any thread."""

    def __init__(
        self,
        manifest: ModelManifest,
        tokenizer: Tokenizer,
        runner: Runner,
        *,
        graph: str = "ragged",
        decoders: Mapping[str, ReplyDecoder] = NO_DECODERS,
    ) -> None:
        """Configures the tokenizer with the manifest's limits: no padding, truncation to `limits.max_tokens`.

        `decoders` are those of all tasks that generate, see `make_decoders`.
        """
        self.manifest = manifest
        self.tasks: dict[str, TaskSpec] = {task.name: task for task in manifest.tasks}
        self.runner, self.decoders = runner, decoders
        self._kinds = {task.name: kind_of(task) for task in manifest.tasks}
        self.pair_tasks = find_pair_tasks(manifest.tasks)
        """Tasks that read two texts."""
        self._encoder = InputEncoder(
            tokenizer,
            manifest,
            offsets=any(kind.reads is Reads.TOKENS for kind in self._kinds.values()),
            reads_pairs=bool(self.pair_tasks),
            reads_turns=all(self._kinds[name].generates for name in self.pair_tasks),
        )
        self._feeds = ragged_feeds if graph == "ragged" else padded_feeds
        self._padded = graph == "padded"
        self._generates = any(kind.generates for kind in self._kinds.values())
        self._beside = ([HIDDEN] if self._generates else []) + ([POOLED] if manifest.pooled else [])
        """Outputs of the graph that no task is named by."""
        self._reference: dict[str, Any] | None = None
        self.pass_time: PassTime | None = None
        """Set by who warms the model up; None when it was not measured."""
        self._decoders = {
            name: kind.make_decoder(self.tasks[name]) for name, kind in self._kinds.items() if not kind.generates
        }

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
        tokenizer = read_tokenizer(manifest, read_role(folder, manifest, "tokenizer", verify))
        open_graph = partial(open_checked_graph, folder, device=device, threads=threads, verify=verify)
        session = open_graph(entry_of(folder, manifest, f"graph:{graph}"))
        needed = [HIDDEN if kind_of(task).generates else task.name for task in manifest.tasks]
        needed += [POOLED] if manifest.pooled else []
        if missing := [name for name in needed if name not in session.outputs]:
            lacks = {HIDDEN: "has no states for decoders", POOLED: "has no pooled output"}
            what = lacks.get(missing[0], f"answers no task {missing[0]!r}")
            raise ModelRefused(f"{folder}: the graph {what}; export the model again", RejectReason.WRONG_SHAPE)
        entries = {entry.path: entry for entry in manifest.files}
        check_decoder_files(manifest, str(folder))
        decoders = make_decoders(manifest, lambda path: open_graph(entries[path]))
        return cls(manifest, tokenizer, session, graph=graph, decoders=decoders)

    def reproduce(self, folder: Path, *, required: bool = False) -> None:
        """Run the folder's reference sample. Raises ModelRefused if it is not reproduced, or missing while `required`."""
        has_sample = self.manifest.path_of("reference") is not None
        reference = read_reference(read_role(folder, self.manifest, "reference", True)) if has_sample else {"texts": []}
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
        for runner in self.runners:
            runner.terminate(thread)

    @property
    def runners(self) -> list[Runner]:
        """What runs its graphs."""
        return [self.runner, *chain.from_iterable(decoder.runners for decoder in self.decoders.values())]

    @property
    def device(self) -> str:
        """`cuda` or `cpu`: the device that the session uses."""
        return self.runner.device

    def encode(self, texts: Sequence[Input]) -> Sequence[Tokenised]:
        """Tokenise a chunk; the GIL is released meanwhile. Raises ValueError with the index of a text with a surrogate.

        Two texts become one row; read by other tasks `alone`, the first is one more. Where only tasks that generate read two
        texts, lines of the second one, the turns, are dropped before one is cut, the oldest first.
        """
        return self._encoder.encode(texts)

    def encode_windows(self, texts: Sequence[Input], windows: Sequence[Windows | None]) -> Sequence[Tokenised]:
        """Tokenise a chunk; a text above the limit with `windows` is split into them, two texts are not."""
        return self._encoder.encode(texts, windows)

    def run(self, texts: Sequence[Tokenised]) -> Logits:
        """Run a batch in one pass, or several for many windows. Raises ModelFailed on failure or a value that is not finite."""
        batch, bounds = flatten_rows(texts)
        if bounds is None:
            return self._run_pass(batch)
        passes = [self._run_pass(part) for part in (split_passes(batch) if has_windows(texts) else [batch])]
        values = {name: np.concatenate([logits.values[name] for logits in passes]) for name in self._decoders}
        starts = np.concatenate([[0], np.cumsum([row.tokens for row in batch])])
        states = [logits.hidden for logits in passes if logits.hidden is not None]
        vectors = [logits.vectors for logits in passes if logits.vectors is not None]
        hidden = np.concatenate(states) if states else None
        return Logits(values, starts, bounds, hidden, np.concatenate(vectors) if vectors else None)

    def _run_pass(self, batch: Sequence[Encoded]) -> Logits:
        lengths = np.fromiter((e.tokens for e in batch), np.int64, len(batch))
        starts = np.zeros(len(batch) + 1, np.int64)
        np.cumsum(lengths, out=starts[1:])
        ids = np.fromiter(chain.from_iterable(e.ids for e in batch), np.int64, int(starts[-1]))
        outputs = self.runner.run(self._feeds(ids, lengths, starts))
        values = {name: outputs[name] for name in (*self._decoders, *self._beside)}
        for name, value in values.items():
            if not np.isfinite(value).all():
                what = "the encoder" if name not in self.tasks else f"task {name}"
                raise ModelFailed(f"{what} gave values that are {NOT_FINITE}")
        if self._padded:
            mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
            values = {name: v[mask] if v.ndim == 3 else v for name, v in values.items()}
        hidden = values.pop(HIDDEN) if self._generates else None
        return Logits(
            values, starts, hidden=hidden, vectors=unit_vectors(values.pop(POOLED)) if self.manifest.pooled else None
        )

    def split_rows(self, task: str, logits: Logits) -> Sequence[Array]:
        """Return a task's logits for each row of a batch. Of a task that generates: (piece, log-probability) of its reply."""
        if task in self.decoders:
            return decode_rows(self.decoders[task], logits)
        return self._kinds[task].split_rows(logits.values[task], logits.starts)

    def decode(
        self,
        logits: Logits,
        batch: Sequence[Tokenised],
        texts: Sequence[Input],
        wanted: Sequence[tuple[str, ...]],
        thresholds: Mapping[str, Thresholds] | None = None,
    ) -> list[dict[str, Output]]:
        """Return for each text the outputs of its `wanted` tasks; `thresholds` override the manifest's by task.

        Tasks that generate are left out: `remember` begins their replies. Where the model has the pooled output, it may be
        asked like a task, `pooled`: its output is `{"vector": [H]}`.
        """
        answers: list[dict[str, Output]] = [{} for _ in batch]
        for name, rows in group_rows_by_task(wanted).items():
            if name in self.decoders:
                continue
            if name == POOLED and self.manifest.pooled:
                for row, vector in zip(rows, first_vectors(logits, rows), strict=True):
                    answers[row][name] = {"vector": vector}
                continue
            limits = (thresholds or {}).get(name, self.tasks[name].thresholds)
            chosen = select_rows(self._kinds[name], logits.values[name], logits, batch, texts, rows)
            decoder = self._decoders[name]
            outputs = decoder(chosen, limits) if chosen.merged is None else decoder.decode_windows(chosen, limits)
            for row, output in zip(rows, outputs, strict=True):
                answers[row][name] = output
        return answers

    def remember(self, logits: Logits, wanted: Sequence[tuple[str, ...]]) -> dict[int, dict[str, Memory]]:
        """Return what the replies of a batch are decoded from: by text, and by its `wanted` tasks that generate."""
        memories: dict[int, dict[str, Memory]] = {}
        for name, rows in group_rows_by_task(wanted).items():
            if name in self.decoders:
                for row, memory in zip(rows, remember_texts(self.decoders[name], logits, rows), strict=True):
                    memories.setdefault(row, {})[name] = memory
        return memories

    def predict(self, texts: Sequence[Input], tasks: Sequence[str] | None = None) -> list[dict[str, Output]]:
        """Encode, run and decode in batches of about 1,000 tokens, in order, on `tasks`. For offline use.

        Without `tasks` a text alone is answered on all tasks that read one, a pair on all. Raises ValueError for a task that
        reads two texts and gets one.
        """
        wanted = [self._wanted(each, tasks) for each in texts]
        inputs = [
            each if isinstance(each, str) else choose_input(each.text, each.second, names, self.pair_tasks)
            for each, names in zip(texts, wanted, strict=True)
        ]
        answers: list[dict[str, Output]] = []
        for batch, part in self.batches(inputs):
            names = wanted[len(answers) : len(answers) + len(batch)]
            logits = self.run(batch)
            answers += self.decode(logits, batch, part, names)
            for name, rows in group_rows_by_task(names).items():
                if name in self.decoders:
                    for row, reply in zip(rows, reply_to_rows(self.decoders[name], logits, rows), strict=True):
                        answers[row - len(names)][name] = make_output(reply)
        return answers

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return a unit vector for each text, [n, H], in order; of a text above the limit that of its beginning. For offline use.

        Raises ValueError for a model without the pooled output.
        """
        if not self.manifest.pooled:
            raise ValueError(f"model {self.manifest.name} has no pooled output: train or export it with `pooled: true`")
        parts = [first_vectors(self.run(batch), range(len(batch))) for batch, _ in self.batches(texts)]
        return np.concatenate(parts) if parts else np.zeros((0, self.manifest.encoder.hidden_size), np.float32)

    def generate(
        self,
        pairs: Sequence[Input],
        slots: Sequence[Collection[str] | None] | None = None,
        *,
        task: str | None = None,
        is_forbidden: Callable[[str], bool] | None = None,
        max_rows: int = MAX_ROWS,
    ) -> list[Generated]:
        """Return the replies to pairs of texts, as `format_input` makes them, in order. For offline use.

        `slots` are for each pair the slots that its reply may name; None allows all. `is_forbidden` says of any other piece
        whether no reply may have it. `task` may be left out where one task generates. Raises ValueError for a model without such a task, a text alone and slots that the task does not have,
        ModelFailed when a reply failed.
        """
        decoder = self.decoders[self._choose_decoder(task)]
        return generate_replies(self, decoder, pairs, slots, max_rows, is_forbidden)

    def _choose_decoder(self, task: str | None) -> str:
        if (task is None and len(self.decoders) == 1) or task in self.decoders:
            return task or next(iter(self.decoders))
        found = ", ".join(self.decoders) or "none"
        raise ValueError(
            f"expected the name of a task of model {self.manifest.name} that generates: {found}; got {task}"
        )

    def _wanted(self, given: Input, tasks: Sequence[str] | None) -> tuple[str, ...]:
        if not isinstance(given, str) and not self.pair_tasks:
            raise ValueError(
                f"no task of model {self.manifest.name} reads two texts; expected a text, found a TextPair"
            )
        if not isinstance(given, str) or not self.pair_tasks:
            return tuple(self.tasks if tasks is None else tasks)
        if tasks is not None and (pair := self.pair_tasks.intersection(tasks)):
            raise ValueError(f"task {min(pair)} reads two texts; expected a TextPair, found one text")
        return tuple(name for name in (tasks or self.tasks) if name not in self.pair_tasks)

    def batches(self, texts: Sequence[Input]) -> Iterator[tuple[Sequence[Tokenised], Sequence[Input]]]:
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
