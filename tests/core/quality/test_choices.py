"""The most likely letter is the answer, and batches, adapters and spellings do not change likelihoods."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from core.data.benchmarks import LETTERS, Question, read
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.lm.prompts import render
from core.quality import choices as module
from core.quality.choices import letter_scores, score_multiple_choice, spellings
from core.schemas.data import Message
from core.schemas.training import LoraSpec
from core.stats import wilson
from tests.core.helpers import ProgressLog, ignore, tiny_base
from tests.core.quality.fakes import always, saying
from tests.core.thinkers import load_thinker, make_thinker

QUESTIONS = (
    Question("What is 2 + 3?", ("4", "5", "6"), 1),
    Question("Is a lantern a lamp?", ("yes", "no"), 0),
    Question("Where is the gate, and what is it made of? Think before you answer.", ("here", "there", "a", "b"), 3),
    Question("Which?", ("one", "two"), 1),
)


@torch.inference_mode()
def alone(
    base: BaseModel, model: nn.Module, question: Question, ways: Sequence[tuple[tuple[int, ...], ...]]
) -> list[float]:
    """Log-likelihood of each letter, with one forward pass per spelling and without batches."""
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, question.choices, strict=False))
    text = f"{question.question}\n\n{lines}\n\nAnswer with the letter of the right choice."
    prompt = render(base.tokenizer, [Message(role="user", content=text)])
    found = []
    for spelled in ways[: len(question.choices)]:
        each = []
        for tokens in spelled:
            logits = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
            each.append(sum(logits[len(prompt) - 1 + place, token] for place, token in enumerate(tokens)))
        found.append(float(torch.logsumexp(torch.stack([torch.as_tensor(score) for score in each]), 0)))
    return found


def test_the_testbed_has_single_letter_tokens_with_and_without_a_space(base: BaseModel) -> None:
    ways = spellings(base.tokenizer, 4)
    texts = [[base.tokenizer.decode(list(tokens)) for tokens in way] for way in ways]
    assert texts == [["A", " A"], ["B", " B"], ["C", " C"], ["D", " D"]]


@pytest.mark.parametrize("family", [None, "gpt2", "gemma2"])
def test_batched_scores_equal_those_of_each_spelling_alone(base: BaseModel, family: str | None) -> None:
    if family:
        base = tiny_base(family, base)
        questions = (QUESTIONS[1], QUESTIONS[3], Question("A?", ("x", "y", "z"), 0))
    else:
        questions = QUESTIONS
    ways = spellings(base.tokenizer, 4)
    found = letter_scores(base, base.model, questions, on_progress=ignore)
    for question, scores in zip(questions, found, strict=True):
        assert list(scores) == pytest.approx(alone(base, base.model, question, ways), abs=1e-4)


def test_letters_of_several_tokens_are_scored_completely(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first two share their first token, the third stands alone, the fourth has two ways.
    ways = [((60, 61),), ((60, 62),), ((63,),), ((64, 65, 66), (67,))]
    monkeypatch.setattr(module, "spellings", always(ways))
    found = letter_scores(base, base.model, QUESTIONS, on_progress=ignore)
    for question, scores in zip(QUESTIONS, found, strict=True):
        assert list(scores) == pytest.approx(alone(base, base.model, question, ways), abs=1e-4)


def fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def test_spellings_of_other_tokenizers() -> None:
    # Bytes without merges: a letter is one token, a space and a letter two.
    alphabet = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    plain = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    assert spellings(fast(plain), 2) == [((alphabet["A"],),), ((alphabet["B"],),)]

    # As SentencePiece does it: a space is put before the text, and here no letter has a token with it.
    vocabulary = {"\u2581": 0, "A": 1, "B": 2}
    pieces = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    pieces.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    assert spellings(fast(pieces), 2) == [((0, 1),), ((0, 2),)]

    # The same with such tokens: only the letter alone is one token.
    merged = Tokenizer(
        models.BPE(vocab=vocabulary | {"\u2581A": 3, "\u2581B": 4}, merges=[("\u2581", "A"), ("\u2581", "B")])
    )
    merged.normalizer = pieces.normalizer
    assert spellings(fast(merged), 2) == [((3,),), ((4,),)]


def test_the_figure_counts_correct_choices(base: BaseModel) -> None:
    scores = letter_scores(base, base.model, QUESTIONS, on_progress=ignore)
    (figure,), answers = score_multiple_choice(
        base, base.model, QUESTIONS, suite="quiz", run="mine", on_progress=ignore
    )
    assert (figure.run, figure.suite, figure.metric, figure.judge) == ("mine", "quiz", "accuracy", "none")
    best = [LETTERS[each.index(max(each))] for each in scores]
    assert [answer.answer for answer in answers] == best
    assert [answer.reference for answer in answers] == ["B", "A", "D", "B"]
    right = sum(letter == wanted for letter, wanted in zip(best, "BADB", strict=True))
    assert (figure.value, figure.low, figure.high) == wilson(right, 4)
    assert (figure.n, figure.undecided) == (4, 0)
    assert [answer.row for answer in answers] == [0, 1, 2, 3]
    assert sum(answer.value for answer in answers) == right


def test_a_model_that_always_answers_c(base: BaseModel) -> None:
    questions = (QUESTIONS[0], QUESTIONS[2], Question("Which?", ("one", "two", "three"), 2))
    with saying(base, [token for tokens in spellings(base.tokenizer, 3)[2] for token in tokens]):
        (figure,), answers = score_multiple_choice(
            base, base.model, questions, suite="quiz", run="mine", on_progress=ignore
        )
    assert [answer.answer for answer in answers] == ["C", "C", "C"]
    assert figure.value == pytest.approx(1 / 3)


def test_a_zero_adapter_chooses_the_same(base: BaseModel, modules: tuple[Module, ...]) -> None:
    plain = letter_scores(base, base.model, QUESTIONS, on_progress=ignore)
    with attached(base.model, modules, LoraSpec(rank=2), seed=0) as tuned:
        found = letter_scores(base, tuned, QUESTIONS, on_progress=ignore)
        assert found == [pytest.approx(scores, abs=1e-4) for scores in plain]
        for name, parameter in tuned.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(parameter.data, generator=torch.Generator().manual_seed(0))
        assert letter_scores(base, tuned, QUESTIONS, on_progress=ignore) != [
            pytest.approx(scores, abs=1e-2) for scores in plain
        ]


def test_the_system_prompt_precedes_the_question(base: BaseModel) -> None:
    plain = letter_scores(base, base.model, QUESTIONS[:1], on_progress=ignore)
    told = letter_scores(base, base.model, QUESTIONS[:1], on_progress=ignore, system_prompt="Be brief.")
    assert plain != told


def test_questions_that_exceed_the_context_are_undecided(base: BaseModel) -> None:
    questions = (QUESTIONS[0], Question("word " * base.context, ("x", "y"), 0), QUESTIONS[1])
    told = ProgressLog()
    (figure,), answers = score_multiple_choice(base, base.model, questions, suite="quiz", run="mine", on_progress=told)
    assert (figure.n, figure.undecided) == (2, 1)
    assert [answer.row for answer in answers] == [0, 2]
    assert told == [(0, 3), (3, 3)]


def test_an_empty_benchmark_has_an_unknown_rate(base: BaseModel) -> None:
    told = ProgressLog()
    (figure,), answers = score_multiple_choice(base, base.model, (), suite="quiz", run="mine", on_progress=told)
    assert (figure.value, figure.low, figure.high, figure.n, answers) == (0, 0, 1, 0, ())
    assert told == [(0, 0)]


def test_progress_is_reported_and_may_stop(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "max_batch_tokens", always(1))
    told = ProgressLog()
    letter_scores(base, base.model, QUESTIONS, on_progress=told)
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        letter_scores(base, base.model, QUESTIONS, on_progress=stop)


def test_the_testbed_answers_mmlu_at_chance_level(base: BaseModel, public_data: Path) -> None:
    questions = read(public_data / "mmlu_subset" / "clinical_knowledge_test.jsonl", most=40)
    (figure,), answers = score_multiple_choice(
        base, base.model, questions, suite="clinical", run="base", on_progress=ignore
    )
    assert (figure.n, len(answers)) == (40, 40)
    assert figure.low < 0.25 < figure.high


def test_a_model_that_thinks_is_asked_for_the_letter_after_its_thinking(tmp_path: Path) -> None:
    thinker = load_thinker(make_thinker(tmp_path, "<think>The harm is this</think>\nB"))
    questions = [Question("Which?", ("one", "two", "three"), 1), Question("Which?", ("one", "two", "three"), 0)]
    (figure,), _ = score_multiple_choice(thinker, thinker.model, questions, suite="s", run="r", on_progress=ignore)
    assert (figure.value, figure.n) == (0.5, 2)
