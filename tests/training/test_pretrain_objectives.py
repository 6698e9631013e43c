"""What each objective asks has known answers."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import BertConfig

from murmura.training.model.encoders import train_tokenizer
from murmura.training.model.special_tokens import read_special_tokens
from murmura.training.pretrain.encoded import NO_WORD, encode_texts
from murmura.training.pretrain.objectives.labelled_texts import LabelledTexts, contrast_labels
from murmura.training.pretrain.objectives.masked_words import MaskedWords, choose_words, hide, make_masked_head
from murmura.training.pretrain.objectives.next_text import NextText
from murmura.training.pretrain.objectives.sentence_embedding import contrast, equal_texts
from murmura.training.pretrain.texts import Text
from murmura.training.recipe.keys import pretraining

TEXTS = ["the payment of my mortgage was declined twice", "transfer everything into my savings account please"]
MASK = 4


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """So few pieces that words are split."""
    return train_tokenizer(TEXTS, 60, lowercase=True)


def test_the_pieces_of_a_word_are_masked_together_and_special_tokens_never(tokenizer: Tokenizer) -> None:
    draw = np.random.default_rng(0)
    for text in encode_texts(TEXTS, tokenizer, read_special_tokens(tokenizer)) * 100:
        chosen = choose_words(text.words, 0.3, draw)
        assert not chosen[[0, -1]].any()
        assert chosen.any()
        whole = {number: set(chosen[text.words == number]) for number in text.words if number != NO_WORD}
        assert all(len(each) == 1 for each in whole.values())


def test_fifteen_percent_of_the_tokens_are_chosen_of_which_a_tenth_stays_and_a_tenth_is_replaced() -> None:
    draw, words = np.random.default_rng(0), np.arange(200, dtype=np.int32)
    ids, others = np.full(200, 9, np.int32), np.array([7], np.int32)
    chosen = [choose_words(words, 0.15, draw) for _ in range(500)]
    assert {int(each.sum()) for each in chosen} == {30}
    shown = np.concatenate([hide(ids, each, MASK, others, draw)[each] for each in chosen])
    shares = [(shown == token).mean() for token in (MASK, 7, 9)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    assert (hide(ids, ~chosen[0] & False, MASK, others, draw) == ids).all()


def test_a_word_of_more_pieces_than_are_to_be_chosen_is_chosen_where_there_is_no_other() -> None:
    words = np.array([NO_WORD, 0, 0, 0, NO_WORD], np.int32)
    assert choose_words(words, 0.15, np.random.default_rng(0)).tolist() == [False, True, True, True, False]
    assert not choose_words(np.full(3, NO_WORD, np.int32), 0.15, np.random.default_rng(0)).any()


def test_the_head_of_masked_words_is_tied_to_the_words_of_the_encoder() -> None:
    table = torch.nn.Parameter(torch.randn(10, 8))
    head = make_masked_head(BertConfig(vocab_size=10, hidden_size=8), table)
    assert head.decoder.weight is table
    assert head.decoder.bias is head.bias
    head(torch.randn(2, 8)).sum().backward()
    assert table.grad is not None
    assert table.grad.abs().sum() > 0


def test_the_loss_of_masked_words_is_that_of_guessing_while_the_states_say_nothing(tokenizer: Tokenizer) -> None:
    size = tokenizer.get_vocab_size()
    texts = encode_texts(TEXTS, tokenizer, read_special_tokens(tokenizer))
    objective = MaskedWords(
        pretraining.MaskedWords(),
        texts,
        ["a", "b"],
        config=BertConfig(vocab_size=size, hidden_size=8),
        table=torch.nn.Parameter(torch.zeros(size, 8)),
        mask_id=MASK,
        words=np.arange(5, size, dtype=np.int32),
    )
    seen = []

    def encode(ids):  # type: ignore[no-untyped-def]
        seen.append([each.tolist() for each in ids])
        width = max(map(len, ids))
        return torch.zeros(len(ids), width, 8), torch.ones(len(ids), width)

    for epoch in range(2):
        loss = objective.loss(encode, [0, 1], np.random.default_rng(epoch))
        assert float(loss.detach()) == pytest.approx(math.log(size))
    assert seen[0] != seen[1], "each time a text is read, other words are masked"


def test_simcse_is_near_zero_where_views_agree_and_high_where_they_are_shuffled() -> None:
    vectors = torch.eye(6)
    assert float(contrast(vectors, vectors, 0.05)) < 1e-6
    assert float(contrast(vectors, vectors.roll(1, 0), 0.05)) == pytest.approx(20, abs=1e-3)
    alike = torch.ones(6, 6)
    assert float(contrast(alike, alike, 0.05)) == pytest.approx(math.log(6))
    hard = torch.cat([vectors, vectors])  # a hard negative like each text: two candidates are as near
    assert float(contrast(vectors, hard, 0.05)) == pytest.approx(math.log(2), abs=1e-6)


def test_the_same_text_twice_in_a_batch_is_no_negative() -> None:
    ids = [np.array(each, np.int32) for each in ([1, 2], [1, 2], [3, 4])]
    same = equal_texts(ids, ids)
    assert same.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    vectors = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    assert float(contrast(vectors, vectors, 0.05, same)) < 1e-6
    assert float(contrast(vectors, vectors, 0.05)) > 0.4


@pytest.mark.parametrize("hard", [0.0, 1.0])
def test_a_negative_of_the_next_turn_is_never_what_follows(tokenizer: Tokenizer, hard: float) -> None:
    turns = [["hello", "hi", "my card", "hi", "bye"], ["money", "how much", "ten", "hello"], ["alone"]]
    documents = [[Text(text, "") for text in each] for each in turns]
    objective = NextText(pretraining.NextText(hard_negatives=hard), documents, tokenizer, 8)
    assert objective.describe() == "7 texts that another one follows"
    draw, sources = np.random.default_rng(0), set()
    for row in range(7):
        text, follower = objective.true_pair(row)
        own = turns[0] if row < 4 else turns[1]
        following = {b for each in turns for a, b in pairwise(each) if a == text}
        assert follower in following
        for _ in range(50):
            first, other = objective.false_pair(row, draw)
            assert first == text
            assert other not in following | {text}
            sources.add(other in own)
    assert sources == ({True} if hard else {False, True})  # "hello" stands in both


def test_half_of_the_pairs_follow_and_an_untrained_head_guesses(tokenizer: Tokenizer) -> None:
    documents = [[Text(str(number), "") for number in range(start, start + 50)] for start in (0, 50)]
    objective = NextText(pretraining.NextText(), documents, tokenizer, 8)
    with torch.no_grad():
        objective.head.weight.zero_()
        objective.head.bias.zero_()

    def encode(ids):  # type: ignore[no-untyped-def]
        return torch.zeros(len(ids), 3, 8), torch.ones(len(ids), 3)

    loss = objective.loss(encode, list(range(98)), np.random.default_rng(0))
    assert float(loss.detach()) == pytest.approx(math.log(2))


def test_texts_of_a_label_are_compared_with_all_others_of_their_task_and_no_other_task() -> None:
    vectors = torch.tensor([[1.0, 0], [0.6, 0.8], [0, 1.0], [-1.0, 0]])
    labels, compared = torch.tensor([0, 0, 1, 1]), torch.ones(4, 4, dtype=torch.bool)
    cosine = (vectors @ vectors.T / 0.5).numpy()

    def alone(row: int, same: int, others: list[int]) -> float:
        return float(np.log(np.exp(cosine[row, others]).sum()) - cosine[row, same])

    pairs = ((0, 1), (1, 0), (2, 3), (3, 2))
    expected = np.mean([alone(row, same, [at for at in range(4) if at != row]) for row, same in pairs])
    assert contrast_labels(vectors, labels, 0.5, compared).item() == pytest.approx(expected, rel=1e-5)
    apart = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).bool()
    assert contrast_labels(vectors, labels, 0.5, apart).item() == pytest.approx(0, abs=1e-6)
    assert contrast_labels(vectors, torch.arange(4), 0.5, compared).item() == 0


def test_a_text_brings_another_of_its_label_and_a_step_draws_them_together_again() -> None:
    torch.manual_seed(0)
    texts = [np.array([1, 10 + at, 2] + [3] * (at % 4), np.int32) for at in range(8)]
    places = [str(at) for at in range(8)]
    found = LabelledTexts(pretraining.LabelledTexts(), texts, [0] * 8, [at // 2 for at in range(8)], places)
    assert [found._partner(row, np.random.default_rng(0)) for row in range(8)] == [1, 0, 3, 2, 5, 4, 7, 6]
    table = torch.nn.Embedding(20, 8)

    def encode(ids: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(map(len, ids))
        padded = torch.tensor([[*each, *[0] * (width - len(each))] for each in ids])
        return table(padded), (padded > 0).long()

    together = found._encode(encode, [7, 0, 3])
    assert torch.allclose(together[1], table(torch.tensor([1, 10, 2])).mean(0))
    optimiser, losses = torch.optim.Adam(table.parameters(), 0.05), []
    for step in range(60):
        loss = found.loss(encode, [*range(8)], np.random.default_rng(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    # Each text stands there twice and so does its partner: three others of its label share the probability.
    assert losses[-1] == pytest.approx(math.log(3), abs=0.01)
    assert losses[0] > 1.5
