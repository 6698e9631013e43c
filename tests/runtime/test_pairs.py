"""Tasks that read two texts: what they are given, alone and in every batch, and what happens where one text is missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from installed_package import PAIRS, installed_example
from tiny_model import ENTITIES, INTENT, TASKS, tiny_tokenizer, write_tiny_model
from tokenizers import processors

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import agent
from murmura.runtime.batching.engine import Engine
from murmura.runtime.errors import ModelRefused, RecordError
from murmura.runtime.model.batch_rows import TextAndPair
from murmura.runtime.model.inputs import TextPair, choose_input
from murmura.runtime.model.model import Model
from murmura.runtime.model.texts.long_texts import Windows
from murmura.runtime.model.texts.tokenizing import TextEncoder
from murmura.runtime.output.bounds import estimated_cost
from murmura.runtime.testing.fakes import FakeModel, classified
from murmura.runtime.testing.rehearsal import rehearse
from murmura.schemas.deadletter import DeadLetterReason as Reason
from murmura.schemas.manifest import TaskSpec

FOLLOWS = TaskSpec(name="follows", kind="entailment", labels=["yes", "no", "perhaps"])
TEXTS = ["my card was lost in london on monday", "hello", "please cancel order 12, thanks!", "why " * 50]
SECONDS = ["i want a new card", "hello", "the payment failed", "where is it " * 20]
WORDS = TextEncoder(tiny_tokenizer(), 32)


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory):
    with installed_example(tmp_path_factory.mktemp("package"), PAIRS):
        yield


@pytest.fixture(scope="module")
def folder(package, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("pairs") / "model"
    return write_tiny_model(place, [FOLLOWS, *TASKS], graphs=("ragged", "padded"))


@pytest.fixture(scope="module", params=["ragged", "padded"])
def model(request, folder):
    return Model.load(folder, device="cpu", graph=request.param)


def alike(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == (pytest.approx(other, abs=1e-5) if isinstance(other, float) else other)


def answer(model, given, wanted, windows=None):
    """Answer a batch as the engine does: one list of inputs, each with the tasks that are asked of it."""
    inputs = [
        choose_input(text, second, names, {"follows"}) for (text, second), names in zip(given, wanted, strict=True)
    ]
    batch = model.encode(inputs) if windows is None else model.encode_windows(inputs, windows)
    return model.decode(model.run(batch), batch, inputs, wanted)


class TestEncoding:
    def test_two_texts_are_one_row_by_the_tokenizers_template(self, model):
        (row,) = model.encode([TextPair("my card", "was lost")])
        assert row.encoding.tokens == ["[CLS]", "my", "card", "[SEP]", "was", "lost", "[SEP]"]
        assert not row.truncated

    def test_the_longer_text_is_cut_first(self, model):
        (row,) = model.encode([TextPair("my card was lost", "why " * 50)])
        assert row.tokens == 32
        assert row.encoding.tokens[:6] == ["[CLS]", "my", "card", "was", "lost", "[SEP]"]
        assert row.truncated

    @pytest.mark.parametrize("long", ["why " * 200_000, "why" * 200_000, " " * 400_000 + "why"])
    def test_a_huge_text_is_cut_as_if_it_were_shorter(self, long):
        (row,) = WORDS.encode_pairs([("my card", long)])
        (other,) = WORDS.encode_pairs([("my card", long[:3_000])])
        assert row.ids == other.ids
        assert row.truncated

    def test_a_lone_surrogate_in_either_text_is_an_error(self):
        for pair in (("a\ud800", "b"), ("a", "b\ud800")):
            with pytest.raises(ValueError, match="lone surrogate"):
                WORDS.encode_pairs([pair])

    def test_a_text_that_other_tasks_read_alone_is_one_row_more(self, model):
        (both,) = model.encode([TextPair("my card", "was lost", alone=True)])
        assert isinstance(both, TextAndPair)
        assert [row.tokens for row in both.rows] == [4, 7]
        assert both.tokens == 11


class TestAnswers:
    def test_a_pair_is_answered_alike_alone_and_in_every_batch(self, model):
        pairs = [*zip(TEXTS, SECONDS, strict=True), *zip(SECONDS, TEXTS, strict=True)]
        names = tuple(model.tasks)
        alone = [answer(model, [pair], [names])[0] for pair in pairs]
        assert alike(answer(model, pairs, [names] * len(pairs)), alone)
        wanted = [("follows",), names, ("intent", "follows"), ("entities",)] * 2
        mixed = answer(model, pairs, wanted)
        assert alike(mixed, [{name: each[name] for name in asked} for each, asked in zip(alone, wanted, strict=True)])

    def test_the_tasks_of_a_text_answer_as_without_a_second_one(self, model):
        names = tuple(task.name for task in TASKS)
        together = answer(model, [*zip(TEXTS, SECONDS, strict=True)], [("follows", *names)] * len(TEXTS))
        without = model.predict(TEXTS, names)
        assert alike([{name: each[name] for name in names} for each in together], without)

    def test_the_second_text_and_the_order_of_both_matter(self, model):
        given = [TextPair("my card", "was lost"), TextPair("my card", "hello"), TextPair("was lost", "my card")]
        scores = [each["follows"]["score"] for each in model.predict(given, ["follows"])]
        assert len(set(scores)) == 3

    def test_long_texts_are_read_in_windows_and_pairs_are_cut(self, model):
        windows, names = [Windows()] * len(TEXTS), tuple(model.tasks)
        pairs = [*zip(TEXTS, SECONDS, strict=True)]
        found = answer(model, pairs, [names] * len(pairs), windows)
        texts = model.encode_windows(TEXTS, windows)
        alone = model.decode(model.run(texts), texts, TEXTS, [tuple(t.name for t in TASKS)] * len(TEXTS))
        assert alike([{**each, "follows": None} for each in found], [{**each, "follows": None} for each in alone])
        cut = model.predict([TextPair(*pair) for pair in pairs], ["follows"])
        assert alike([each["follows"] for each in found], [each["follows"] for each in cut])

    def test_one_forward_pass_answers_a_text_and_its_pair(self, folder, monkeypatch):
        model, passes = Model.load(folder, device="cpu"), []
        run = model.runner.run
        monkeypatch.setattr(model.runner, "run", lambda feeds: passes.append(feeds) or run(feeds))
        answer(model, [*zip(TEXTS, SECONDS, strict=True)] * 100, [tuple(model.tasks)] * 400)
        assert len(passes) == 1

    def test_texts_alone_are_answered_on_the_tasks_that_read_one(self, model):
        (found,) = model.predict(["hello"])
        assert set(found) == {task.name for task in TASKS}
        with pytest.raises(ValueError, match="task follows reads two texts"):
            model.predict(["hello"], ["intent", "follows"])

    def test_a_pair_for_a_model_that_reads_none_is_an_error(self, tiny_model):
        with pytest.raises(ValueError, match="no task of model tiny reads two texts"):
            Model.load(tiny_model, device="cpu").predict([TextPair("a", "b")])


class TestFolders:
    def test_a_sample_with_pairs_is_reproduced_and_one_of_another_template_is_not(self, folder, tmp_path):
        model = Model.load(folder, device="cpu")
        sample = json.loads((folder / "reference.json").read_text())
        assert [each for each in sample["texts"] if isinstance(each, list)]
        changed = tiny_tokenizer()
        swapped = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $B [SEP] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        changed.post_processor = swapped
        other = Model(model.manifest, changed, model.runner)
        other._reference = sample
        with pytest.raises(ModelRefused, match="task follows does not reproduce reference text"):
            other.check_device()

    def test_a_tokenizer_without_a_template_for_pairs_is_refused(self, folder):
        model, plain = Model.load(folder, device="cpu"), tiny_tokenizer()
        plain.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        with pytest.raises(ModelRefused, match="model tiny: the tokenizer has no template for two texts"):
            Model(model.manifest, plain, model.runner)


class TestEngine:
    async def test_callers_get_what_the_model_answers(self, folder):
        engine = Engine(Model.load(folder, device="cpu"), max_in_flight=2, token_budget=60)
        await engine.start()
        try:
            prediction = await engine.predict(TEXTS[0], text_pair=SECONDS[0])
            expected = engine.model.predict([TextPair(TEXTS[0], SECONDS[0])])
            assert alike([prediction.outputs], expected)
            assert set(prediction.outputs) == set(engine.model.tasks)
            assert set((await engine.predict("hello")).outputs) == {task.name for task in TASKS}
            assert (await engine.predict("hello", text_pair="why " * 50)).truncated
            for problem, arguments in {
                "task follows reads two texts, and `text_pair` is missing": {"tasks": ["follows"]},
                "no task that is asked reads two texts": {"tasks": ["intent"], "text_pair": "b"},
                "the second text is empty": {"text_pair": ""},
                "the second text holds a lone surrogate": {"text_pair": "b\ud800"},
            }.items():
                with pytest.raises(RecordError, match=problem) as refused:
                    await engine.predict("hello", **arguments)
                assert refused.value.reason is Reason.INVALID
        finally:
            await engine.stop(5)


FAKE = FakeModel(
    [FOLLOWS, INTENT, ENTITIES],
    {
        TEXTS[0]: {"intent": classified("refund", 0.9)},
        TextPair(TEXTS[0], SECONDS[0]): {"follows": classified("no", 0.8)},
    },
)


@agent(topics=["checks"], tasks=["follows", "intent"], output="checked")
def check(request, prediction):
    return prediction.outputs


def problem(answers) -> tuple[str, str]:
    (letter,) = answers.dead_letters
    headers = dict(letter.headers)
    return headers["murmura_dl_reason"].decode(), headers["murmura_dl_message"].decode()


class TestRecords:
    """A real model gives no other answers than these: what it does with them is tested above."""

    async def test_a_record_with_two_texts_is_answered_on_both_sorts_of_tasks(self):
        request = {"text": TEXTS[0], "text_pair": SECONDS[0]}
        (result,) = (await rehearse([check], request, model=FAKE)).results
        assert [result["outputs"][name]["label"] for name in ("follows", "intent")] == ["no", "refund"]

    async def test_without_a_second_text_an_agent_that_names_no_tasks_is_asked_the_others(self):
        (result,) = (await rehearse([classification], {"text": TEXTS[0]}, model=FAKE)).results
        assert {name: each["label"] for name, each in result["outputs"].items()} == {"intent": "refund"}

    @pytest.mark.parametrize(
        ("agent", "request_fields", "expected"),
        [
            (check, {}, "task follows reads two texts, and `text_pair` is missing"),
            (classification, {"tasks": ["follows"]}, "task follows reads two texts, and `text_pair` is missing"),
            (check, {"text_pair": " "}, "`text_pair` is empty"),
            (check, {"text_pair": 3}, "Expected `str | null`, got `int` - at `$.text_pair`"),
        ],
    )
    async def test_a_record_whose_second_text_is_missing_is_a_dead_letter(self, agent, request_fields, expected):
        reason, said = problem(await rehearse([agent], {"text": TEXTS[0], **request_fields}, model=FAKE))
        assert (reason, expected in said) == ("invalid", True), said

    async def test_a_model_that_reads_no_pairs_refuses_one(self):
        plain = FakeModel([INTENT])
        reason, said = problem(await rehearse([classification], {"text": "a", "text_pair": "b"}, model=plain))
        assert (reason, "no task of the model reads two texts" in said) == ("invalid", True)

    async def test_a_pair_that_only_tasks_of_a_text_are_asked_about_is_one_row(self):
        model = FakeModel([FOLLOWS, INTENT])
        await rehearse([check], {"text": "a", "text_pair": "b", "tasks": ["intent"]}, model=model)
        assert model.batches == [["a"]]


def test_the_cost_of_a_record_counts_what_is_read():
    text, second = "w " * 40, "w " * 60
    alone, both = estimated_cost(text, 512, None), estimated_cost(TextPair(text, second), 512, None)
    assert estimated_cost(TextPair(text, second, alone=True), 512, None) == alone + both
    assert alone < both <= alone + estimated_cost(second, 512, None)
    assert estimated_cost(TextPair(text * 99, second * 99), 128, None) == 128
    assert np.isfinite(both)
