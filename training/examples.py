"""Keyed questions → what tuning reads and scores: the prompts that the tuned model will be asked with, as tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from assistant.answer import Assistant
from assistant.card import Card, ScoringKind
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from assistant.packing import Encoded, read
from assistant.prompt import Prompt, render
from assistant.scoring import divisors, encode, encode_letters, target_logprobs
from ingest.course import Course, Hit
from ingest.errors import ModelError
from training.gather import Asked
from training.recipe import MCQTuning

if TYPE_CHECKING:
    import torch


_SPARE = 4  # passages that may hold the text a question was made of


@dataclass(frozen=True, slots=True)
class Example:
    """A question ready to be scored, and which option is right, counted from 0. `place` is where it stands.

    `letters` are the tokens that read as each option's letter; where there are none, the options' texts are scored, each
    log-likelihood divided by its divisor, which is negative where the least likely is right (assistant.negation).
    """

    place: str
    encoded: Encoded
    right: int
    divisors: tuple[int, ...]
    letters: tuple[tuple[int, ...], ...] = ()


def tuned_card(stage: MCQTuning, card: Card) -> Card:
    """Return the card of the model that `stage` makes of one with `card`: how it will be asked is how it is tuned.

    What was learnt about the model before, as its temperature, no longer holds.
    """
    return Card(
        scoring=stage.objective,
        normalization=stage.normalization,
        template=card.template.model_copy(
            update={"lists_options": stage.lists_options, "turns_negation": stage.turns_negation}
        ),
        passages=stage.passages,
    )


def examples(
    lm: LanguageModel, stage: MCQTuning, asked: Sequence[Asked], on_status: Callable[[str], None] = lambda _: None
) -> list[Example]:
    """Return what `stage` trains on: each question with the passages that the assistant would show with it, or its own fact.

    Questions of more than the stage's `max_length` tokens lose their least relevant passages first; those that are too long
    without any are left out. `on_status` is told how many. `lm` is the model that is tuned, or any with its tokenizer.
    """
    lm = replace(lm, card=tuned_card(stage, lm.card))
    finders = assistants(lm, asked, stage.passages)
    found, shortened, left_out = [], 0, []
    for one in asked:
        texts = _passages(finders[one.course], one)
        prompt = None if texts is None else _fitting(lm, stage, one, texts)
        if texts is None or prompt is None:
            left_out.append(one.place)
            continue
        shortened += len(prompt[1]) < len(texts)
        found.append(_example(lm, stage, one, prompt[0]))
    if shortened:
        on_status(f"{shortened} of {len(asked)} questions lost passages to stay within {stage.fitting.max_length} tokens")
    if left_out:
        on_status(
            f"{len(left_out)} of {len(asked)} questions are left out: alone they exceed {stage.fitting.max_length} tokens "
            f"(the first, {left_out[0]})"
        )
    return found


def assistants(
    lm: LanguageModel, asked: Sequence[Asked], passages: int, scoring: ScoringKind | None = None
) -> dict[str | None, Assistant]:
    """Return an assistant for each course of the questions, which shows those that were made of its text other passages."""
    made_of = {one.mcq: one.made_of for one in asked if one.made_of is not None}
    return {
        name: _Hiding(lm, Course.open(name) if name else None, passages, scoring, made_of)
        for name in {one.course for one in asked}
    }


class _Hiding(Assistant):
    """Shows a question that was made of a course's text the passages that do not hold this text."""

    def __init__(
        self,
        lm: LanguageModel,
        course: Course | None,
        passages: int,
        scoring: ScoringKind | None,
        made_of: Mapping[MCQ, str],
    ) -> None:
        super().__init__(lm, course, passages=passages, scoring=scoring)
        self._made_of = made_of

    def _found(self, mcq: MCQ, limit: int) -> list[Hit]:
        text = self._made_of.get(mcq)
        hits = super()._found(mcq, limit + (_SPARE if text and limit else 0))
        return [hit for hit in hits if not text or text not in hit.passage.text][:limit]


def _passages(assistant: Assistant, one: Asked) -> list[str] | None:
    """Return the passages that a question is shown with, most relevant first; None where it is too long for the model."""
    if one.fact is not None:
        return [one.fact]
    try:
        return [hit.passage.text for hit in assistant.shown(one.mcq, one.examples)]
    except ModelError:
        return None


def _fitting(lm: LanguageModel, stage: MCQTuning, one: Asked, texts: Sequence[str]) -> tuple[Prompt, Sequence[str]] | None:
    """Return the prompt with as many of `texts` as fit, and these; None where it does not fit without any."""
    for count in range(len(texts), -1, -1):
        prompt = render(one.mcq, texts[:count], stage.objective, one.examples, lm.card.template)
        if encode(lm, prompt).longest <= min(stage.fitting.max_length, lm.window):
            return prompt, texts[:count]
    return None


def _example(lm: LanguageModel, stage: MCQTuning, one: Asked, prompt: Prompt) -> Example:
    right = one.mcq.answer_index
    if stage.objective == "letter":
        found = encode_letters(lm, prompt)
        if found is not None:
            return Example(one.place, found[0], right, (1,) * len(found[1]), tuple(map(tuple, found[1])))
    encoded = encode(lm, prompt)
    # Letters of several tokens are scored as texts by their sums, as assistant.scoring does.
    by = divisors(prompt, encoded, "sum" if stage.objective == "letter" else stage.normalization)
    return Example(one.place, encoded, right, by)


def scores(lm: LanguageModel, batch: Sequence[Example]) -> "list[torch.Tensor]":
    """Return the options' scores of each example, float32 of shape (options,), in nats: those of assistant.scoring.score.

    All examples are read together, packed. Gradients flow unless the caller switches them off.
    """
    import torch

    def take(index: int, logs: "list[torch.Tensor]") -> "torch.Tensor":
        example = batch[index]
        if example.letters:
            return torch.stack([logs[0][0, list(ids)].logsumexp(-1) for ids in example.letters])
        sums = torch.stack([of_option.sum() for of_option in target_logprobs(example.encoded, logs)])
        return sums / torch.tensor(example.divisors, device=sums.device)

    return read(lm, [example.encoded for example in batch], take)
