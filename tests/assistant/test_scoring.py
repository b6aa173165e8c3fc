"""Scoring against straightforward computations, on small random models of several architectures and the real one."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from assistant import attention
from assistant.card import Card
from assistant.mcq import MCQ
from assistant.model import LanguageModel
from assistant.openelm import OpenELMConfig
from assistant.packing import rows
from assistant.prompt import Prompt, render
from assistant.scoring import OptionScores, encode, score, token_logprobs

SMALL: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**SMALL),
    "mistral": lambda: MistralConfig(**SMALL, sliding_window=16),
    "phi": lambda: PhiConfig(**{**SMALL, "num_key_value_heads": 4}),
    "qwen2": lambda: Qwen2Config(**SMALL),
    "gemma2": lambda: Gemma2Config(**SMALL, head_dim=8, sliding_window=16),
    "gpt2": lambda: GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=256),
    "openelm": lambda: OpenELMConfig.of_size(
        "270M", vocab_size=400, model_dim=64, head_dim=8, num_transformer_layers=2, ffn_dim_divisor=16, max_context_length=256
    ),
}
TEXT = ["Question: Which planet is largest? Answer: Jupiter A B C D E", "Options: A. Mars B. Venus C. Earth"] * 3


def byte_level(*, prefix_space: bool = False) -> PreTrainedTokenizerFast:
    """Like GPT-2's: a space belongs to the word after it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=390, initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def metaspace_with_bos() -> PreTrainedTokenizerFast:
    """Like Llama 2's: "▁" marks a word's beginning, and a BOS token leads."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=390, special_tokens=["<unk>", "<s>"], show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


def split_space() -> PreTrainedTokenizerFast:
    """A space is always a token of its own, so every letter has two tokens of which the first is shared."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    trainer = trainers.BpeTrainer(vocab_size=390, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte level": byte_level,
    "byte level, prefix space": lambda: byte_level(prefix_space=True),
    "metaspace, BOS": metaspace_with_bos,
    "split space": split_space,
}


def small_model(architecture: str = "llama", tokenizer: str = "byte level") -> LanguageModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[architecture]()).eval()
    # Random weights of the usual size make all tokens nearly alike; larger ones make a wrong mask show.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return LanguageModel("small", model, TOKENIZERS[tokenizer](), Card())


MCQ_ = MCQ("Which planet is largest?", ("Mars", "Jupiter, the gas giant", "Venus Earth", "Jupiter"))
PROMPT = render(MCQ_, ["Jupiter is a planet.", "Options: Mars, Venus."], "cloze")


def alone(lm: LanguageModel, prompt: Prompt, index: int) -> torch.Tensor:
    """Log-probabilities of one option's tokens, read by itself in the plainest way."""
    encoded = encode(lm, prompt)
    ids = encoded.prefix + encoded.continuations[index]
    with torch.inference_mode():
        logs = lm.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return torch.stack([logs[i - 1, ids[i]] for i in range(len(encoded.prefix), len(ids))])


@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_options_read_together_score_as_if_read_alone(architecture: str) -> None:
    lm = small_model(architecture)
    with torch.inference_mode():
        together = token_logprobs(lm, encode(lm, PROMPT))
    assert len(together) == 4
    for index, of_option in enumerate(together):
        torch.testing.assert_close(of_option, alone(lm, PROMPT, index), atol=1e-3, rtol=0)


EXAMPLES = [MCQ("Which is a star?", ("Mars", "The sun"), "B"), MCQ("Which is a moon?", ("Europa", "Earth", "Venus"), "A")]
QUESTIONS = [
    MCQ_,
    MCQ("Which planet is red?", ("Mars", "Venus")),
    MCQ("Which of these planets has rings that are easily seen?", ("Earth", "Saturn and its moons", "Mars", "Venus", "None")),
    MCQ("Which?", ("A", "B", "C")),
]


@pytest.mark.parametrize("kind", ["letter", "cloze"])
@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_many_prompts_score_as_each_does_alone_whatever_their_order(architecture: str, kind: Any) -> None:
    lm = small_model(architecture)
    for examples in ((), EXAMPLES):
        prompts = [render(mcq, ["Jupiter is a planet."][: number % 2], kind, examples) for number, mcq in enumerate(QUESTIONS)]
        together = score(lm, prompts, kind)
        backward = score(lm, prompts[::-1], kind)[::-1]
        for prompt, one, other in zip(prompts, together, backward, strict=True):
            lm._kept = None
            (single,) = score(lm, [prompt], kind)
            assert one.scores == pytest.approx(single.scores, abs=1e-4)
            assert other.scores == pytest.approx(single.scores, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["llama", "phi", "qwen2", "gpt2", "openelm"])
def test_a_question_read_in_chunks_scores_as_read_whole(
    architecture: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = small_model(architecture)
    lm.model.to(dtype)
    prompts = [render(mcq, ["Jupiter is a planet."], "cloze", EXAMPLES) for mcq in QUESTIONS]
    with torch.inference_mode():
        whole = [[alone(lm, prompt, index).tolist() for index in range(len(prompt.continuations))] for prompt in prompts]
    monkeypatch.setattr(attention, "_CHUNK", 5)
    with torch.inference_mode():
        for prompt, expected in zip(prompts, whole, strict=True):
            found = [of_option.tolist() for of_option in token_logprobs(lm, encode(lm, prompt))]
            for one, other in zip(found, expected, strict=True):
                assert one == pytest.approx(other, abs=1e-3 if dtype == torch.float32 else 0.1)
    assert lm.model.config._attn_implementation == "mcqa_packed"


@pytest.mark.parametrize("architecture", ["llama", "phi", "qwen2", "gpt2", "openelm"])
def test_what_prompts_share_is_read_once(architecture: str) -> None:
    lm = small_model(architecture)
    prompts = [render(mcq, [], "letter", EXAMPLES) for mcq in QUESTIONS]
    score(lm, prompts, "letter")
    assert lm._packs
    assert lm.keeps
    kept = lm._kept
    before = lm.tokens_read
    score(lm, prompts, "letter")
    assert lm._kept is kept
    own = sum(len(lm.encode(prompt.prefix)) - len(kept.ids) for prompt in prompts)
    assert lm.tokens_read - before == own


@pytest.mark.parametrize("lanes", [1, 2, 8])
def test_rows_hold_everything_once_and_keep_the_budget(lanes: int) -> None:
    lengths = [5, 900, 3, 400, 300, 68, 700, 250, 80]
    packed = rows(lengths, 512, lanes)
    assert sorted(index for row in packed for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) - lengths[row[-1]] <= 512 for row in packed)
    assert len(packed) == 8 if lanes == 8 else len(packed) % lanes == 0  # nine entries


def test_a_model_that_ignores_the_mask_is_read_in_rows() -> None:
    lm = small_model()
    forward = lm.model.forward

    def deaf(*args: Any, attention_mask: Any = None, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    lm.model.forward = deaf
    with torch.inference_mode():
        scores = token_logprobs(lm, encode(lm, PROMPT))
    assert lm._packs is False
    for index, of_option in enumerate(scores):
        torch.testing.assert_close(of_option, alone(lm, PROMPT, index), atol=1e-3, rtol=0)


@pytest.mark.parametrize("tokenizer", list(TOKENIZERS))
def test_an_option_keeps_all_its_tokens_and_nothing_else(tokenizer: str) -> None:
    lm = small_model(tokenizer=tokenizer)
    encoded = encode(lm, PROMPT)
    for continuation, ids in zip(PROMPT.continuations, encoded.continuations, strict=True):
        assert encoded.prefix + ids == lm.encode(PROMPT.prefix + continuation)
        assert ids
    assert encoded.prefix == lm.encode(PROMPT.prefix)[: len(encoded.prefix)]


@pytest.mark.parametrize("tokenizer", list(TOKENIZERS))
def test_a_letter_has_the_probability_of_all_its_tokens(tokenizer: str) -> None:
    lm = small_model(tokenizer=tokenizer)
    prompt = render(MCQ_, [], "letter")
    (result,) = score(lm, [prompt], "letter")
    # Straightforward: what follows the part that all four continued prompts share, over the whole vocabulary.
    wholes = [lm.encode(prompt.prefix + continuation) for continuation in prompt.continuations]
    shared = next(i for i, column in enumerate(zip(*wholes, strict=False)) if len(set(column)) > 1)
    with torch.inference_mode():
        probabilities = lm.model(input_ids=torch.tensor([wholes[0][:shared]])).logits[0, -1].softmax(-1)
    texts = [lm.tokenizer.decode([id_]).strip() for id_ in range(len(lm.tokenizer))]
    for letter, found in zip("ABCD", result.scores, strict=True):
        expected = sum(float(probabilities[id_]) for id_, text in enumerate(texts) if text == letter)
        assert torch.tensor(found).exp().item() == pytest.approx(expected, rel=1e-4)
    assert result.letter_mass == pytest.approx(sum(torch.tensor(result.scores).exp().tolist()), rel=1e-4)


def test_letters_of_several_tokens_are_scored_as_texts() -> None:
    lm = small_model()
    whole = lm.encode

    def spelled(text: str) -> list[int]:
        return [id_ for id_ in whole(text) for _ in range(2)]  # every token twice: no letter is one token

    lm.encode = spelled  # type: ignore[method-assign]
    (result,) = score(lm, [render(MCQ_, [], "letter")], "letter")
    assert result.letter_mass is None
    assert len(result.scores) == 4


def test_normalizations_divide_by_what_they_say() -> None:
    lm = small_model()
    total, token, byte = (score(lm, [PROMPT], "cloze", norm)[0].scores for norm in ("sum", "token", "byte"))
    lengths = [len(ids) for ids in encode(lm, PROMPT).continuations]
    for index, continuation in enumerate(PROMPT.continuations):
        assert token[index] == pytest.approx(total[index] / lengths[index], rel=1e-5)
        assert byte[index] == pytest.approx(total[index] / len(continuation.encode()), rel=1e-5)


def test_pmi_is_what_the_prompt_adds_to_its_last_words() -> None:
    lm = small_model()
    (pmi,) = score(lm, [PROMPT], "cloze", "pmi")
    (whole,) = score(lm, [PROMPT], "cloze", "sum")
    (bare,) = score(lm, [Prompt("Answer:", PROMPT.continuations)], "cloze", "sum")
    assert pmi.scores == pytest.approx([a - b for a, b in zip(whole.scores, bare.scores, strict=True)], abs=1e-4)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(min_size=1, max_size=12).filter(str.strip), min_size=2, max_size=10))
def test_any_options_get_finite_scores_that_do_not_depend_on_their_order(options: list[str]) -> None:
    lm = _SHARED
    prompts = [render(MCQ("Which?", tuple(order)), [], "cloze") for order in (options, options[::-1])]
    forward, backward = (score(lm, [prompt], "cloze")[0].scores for prompt in prompts)
    assert torch.tensor(forward).isfinite().all()
    torch.testing.assert_close(torch.tensor(forward), torch.tensor(backward[::-1]), atol=1e-3, rtol=1e-4)


_SHARED = small_model()


@given(st.lists(st.floats(-1000, 0), min_size=2, max_size=10), st.floats(0.05, 20))
def test_probabilities_sum_to_one_and_keep_the_order(scores: list[float], temperature: float) -> None:
    probabilities = OptionScores(tuple(scores)).probabilities(temperature)
    assert sum(probabilities) == pytest.approx(1)
    assert probabilities[scores.index(max(scores))] == max(probabilities)


def test_the_embedded_model_reads_texts_together_as_alone(lm: LanguageModel) -> None:
    prompt = render(MCQ("What do plants take in?", ("Oxygen", "Carbon dioxide", "Nitrogen")), ["Plants breathe."], "cloze")
    exact = LanguageModel(lm.name, copy.deepcopy(lm.model).float(), lm.tokenizer, lm.card)
    with torch.inference_mode():
        together = token_logprobs(exact, encode(exact, prompt))
    assert exact._packs
    for index, of_option in enumerate(together):
        torch.testing.assert_close(of_option, alone(exact, prompt, index), atol=1e-3, rtol=0)
