"""Conversations as text: every form says the same things, once, and every answer ends."""

from typing import Any

import pytest

from assistant.model import LanguageModel
from ingest.errors import UserError
from training.pairs import Message
from training.render import render, tokenize

ASKED = (Message("user", "Why is the sky blue?"),)
TALK = (Message("system", "Be brief."), Message("user", "Hi."), Message("assistant", "Hello!"), Message("user", "Why?"))

# As published: Mistral writes an answer after a space and closes it with the end token, and knows no system text; Llama 3
# closes turns with a token of its own; the last one closes none.
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% for m in messages %}<|start|>{{ m['role'] }}<|end|>\n\n{{ m['content'] | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
OPEN = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
THINKING = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: <think>\n{% endif %}"
)


@pytest.fixture
def tokenizer(lm: LanguageModel) -> Any:
    """The embedded model's tokenizer; what a test changes of it lasts for the test."""
    from copy import deepcopy

    return deepcopy(lm.tokenizer)


def test_the_models_own_template_ends_with_the_token_that_ends_a_turn(tokenizer: Any) -> None:
    found = render(ASKED, "Light scatters.", "chat", tokenizer)
    assert found.prompt.endswith("<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n")
    assert found.answer == "Light scatters.<|im_end|>"
    assert found.is_whole


@pytest.mark.parametrize(
    ("template", "prompt", "answer"),
    [
        (MISTRAL, "<|im_start|>[INST] Why is the sky blue? [/INST]", " Light scatters.<|im_end|>"),
        (LLAMA3, "<|start|>user<|end|>\n\nWhy is the sky blue?<|eot|><|start|>assistant<|end|>\n\n", "Light scatters.<|eot|>"),
        (OPEN, "user: Why is the sky blue?\nassistant: ", "Light scatters.<|im_end|>"),
        (THINKING, "user: Why is the sky blue?<|im_end|>\nassistant: <think>\n", "Light scatters.<|im_end|>"),
    ],
)
def test_other_templates_end_an_answer_once(tokenizer: Any, template: str, prompt: str, answer: str) -> None:
    tokenizer.chat_template = template
    found = render(ASKED, "Light scatters.", "chat", tokenizer)
    assert (found.prompt, found.answer) == (prompt, answer)


def test_a_template_without_system_texts_has_them_in_the_first_turn(tokenizer: Any) -> None:
    tokenizer.chat_template = MISTRAL
    found = render(TALK, "Because.", "chat", tokenizer)
    assert found.prompt == "<|im_start|>[INST] Be brief.\n\nHi. [/INST] Hello!<|im_end|>[INST] Why? [/INST]"
    assert found.answer == " Because.<|im_end|>"


def test_an_answer_that_repeats_its_prompt_is_found_behind_it(tokenizer: Any) -> None:
    found = render((Message("user", "Say yes"),), "Say yes", "chat", tokenizer)
    assert found.prompt.count("Say yes") == 1
    assert found.answer == "Say yes<|im_end|>"


def test_plain_forms(tokenizer: Any) -> None:
    assert render(ASKED, "So.", "plain", tokenizer).prompt == "Why is the sky blue?\n\n"
    assert render(ASKED, "So.", "plain", tokenizer).answer == "So.<|im_end|>"
    talk = render(TALK, "So.", "plain", tokenizer).prompt
    assert talk == "Human: Be brief.\n\nHi.\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant: "
    alpaca = render(ASKED, "So.", "alpaca", tokenizer)
    assert alpaca.prompt.endswith("### Instruction:\nWhy is the sky blue?\n\n### Response:\n")
    assert alpaca.answer == "So.<|im_end|>"
    middle = render((Message("user", "Answer:"),), " B", "verbatim", tokenizer)
    assert (middle.prompt, middle.answer) == ("Answer:", " B")


def test_a_tokenizer_without_a_template_is_refused_with_the_remedy(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template; set format: plain"):
        render(ASKED, "So.", "chat", tokenizer)


@pytest.mark.parametrize("form", ["chat", "plain", "alpaca", "verbatim"])
def test_tokens_are_those_of_the_whole_text(tokenizer: Any, form: Any) -> None:
    found = render(ASKED, "Light scatters.", form, tokenizer)
    prompt, answer = tokenize(found, tokenizer)
    assert tokenizer.decode(prompt + answer) == found.prompt + found.answer
    assert prompt + answer == tokenizer(found.prompt + found.answer, add_special_tokens=not found.is_whole).input_ids
    assert prompt
    assert answer


def test_a_joint_inside_a_token_belongs_to_the_answer(tokenizer: Any) -> None:
    joined = render((Message("user", "I am unhap"),), "py.", "verbatim", tokenizer)
    prompt, answer = tokenize(joined, tokenizer)
    alone = tokenizer(joined.prompt).input_ids
    assert prompt == alone[: len(prompt)] != alone
    assert tokenizer.decode(answer).strip().startswith("un")
    assert tokenizer.decode(prompt + answer) == "I am unhappy."


def test_a_tokenizer_that_begins_texts_with_a_mark_does_so_once(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    mark = tokenizer.bos_token_id
    begin = TemplateProcessing(single=f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, mark)])
    tokenizer._tokenizer.post_processor = begin
    tokenizer.chat_template = MISTRAL  # which writes the mark itself
    for form in ("chat", "plain"):
        prompt, answer = tokenize(render(ASKED, "Light scatters.", form, tokenizer), tokenizer)
        assert (prompt + answer).count(mark) == 1
        assert prompt[0] == mark
