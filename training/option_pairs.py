"""Keyed questions with their passages → preference pairs: the right option before a wrong one."""

from collections.abc import Sequence

from assistant.answer import TOGETHER, Assistant
from assistant.card import ScoringKind
from assistant.model import LanguageModel
from assistant.prompt import Prompt, render
from assistant.scoring import OptionScores, score
from training.examples import assistants
from training.gather import Asked
from training.pairs import Message, Pair


def option_pairs(
    lm: LanguageModel, asked: Sequence[Asked], scoring: ScoringKind, passages: int, *, hardest: bool = False
) -> list[Pair]:
    """Return the right option against each wrong one, or with `hardest` against the one that `lm` holds likeliest.

    Prompts and completions are what the assistant scores, retrieved passages and the space before a completion included.
    """
    finders = assistants(lm, asked, passages, scoring)
    prompts = [_prompt(finders[one.course], one) for one in asked]
    scores: list[OptionScores] = []
    for start in range(0, len(prompts) if hardest else 0, TOGETHER):
        scores += score(lm, prompts[start : start + TOGETHER], scoring, lm.card.normalization)
    pairs = []
    for place, (one, prompt) in enumerate(zip(asked, prompts, strict=True)):
        right = one.mcq.answer_index
        wrong = [option for option in range(len(one.mcq.options)) if option != right]
        if hardest:
            wrong = [max(wrong, key=lambda option: scores[place].scores[option])]
        said = prompt.continuations
        for option in wrong:
            # Of what is not so, asked plainly, a wrong option is what the model should say.
            chosen, rejected = (option, right) if prompt.is_turned else (right, option)
            pairs.append(Pair((Message("user", prompt.prefix),), said[chosen], said[rejected], one.place, place + 1))
    return pairs


def _prompt(assistant: Assistant, one: Asked) -> Prompt:
    if one.fact is not None:
        return render(one.mcq, (one.fact,), assistant.scoring, one.examples, assistant.lm.card.template)
    return assistant.prompt(one.mcq, assistant.shown(one.mcq, one.examples), one.examples)
