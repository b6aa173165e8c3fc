"""Models of real architectures, tiny and with random weights, and a little data in every layout that recipes name."""

import csv
import json
from pathlib import Path
from typing import Any

_SUBJECTS = ["a stack", "a queue", "a tree", "a heap", "a graph", "a list", "a set", "a map", "a trie", "a ring"]


def tiny_model(architecture: str, folder: Path, tokenizer: Any, seed: int = 0) -> Path:
    """Save a model of the architecture with two layers, and the tokenizer, into `folder`; returns it."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, PhiConfig

    from assistant.openelm import OpenELMConfig

    torch.manual_seed(seed)
    words = len(tokenizer)
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape["max_position_embeddings"] = 2048
    configs = {
        "gpt2": lambda: GPT2Config(vocab_size=words, n_embd=64, n_layer=2, n_head=4, n_positions=2048, **ends),
        "llama": lambda: LlamaConfig(vocab_size=words, **shape, **ends),
        "mistral": lambda: MistralConfig(vocab_size=words, num_key_value_heads=2, **shape, **ends),
        "phi": lambda: PhiConfig(vocab_size=words, **shape, **ends),
        "openelm": lambda: OpenELMConfig(
            vocab_size=words, model_dim=64, num_transformer_layers=2, head_dim=16, num_gqa_groups=2, ffn_dim_divisor=16,
            qkv_multipliers=[0.5, 1.0], ffn_multipliers=[0.5, 2.0], normalize_qk_projections=True,
            share_input_output_layers=True, **ends,
        ),
    }  # fmt: skip
    model = AutoModelForCausalLM.from_config(configs[architecture]())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_data(folder: Path) -> Path:
    """Write a small file for each name that the packaged recipes list; returns the folder."""
    folder.mkdir(exist_ok=True)
    asked = [f"What is {name}, in a few words?" for name in _SUBJECTS] + [f"When would one use {name}?" for name in _SUBJECTS]
    good = [f"It is {name}, which keeps its entries in an order of its own." for name in _SUBJECTS * 2]
    bad = [f"I do not know what {name} is, and would rather not say." for name in _SUBJECTS * 2]
    rows = list(zip(asked, good, bad, strict=True))

    labels = [
        {
            "course_id": 1, "question_id": number, "question_complete": q,
            "preference": [{"A": a, "B": b, "overall": "A", "criteria": {"overall": "A", "correctness": "A", "clarity": "AB"}}],
        }
        for number, (q, a, b) in enumerate(rows)
    ]  # fmt: skip
    (folder / "course-preferences.json").write_text(json.dumps(labels), encoding="utf-8")
    for number in range(1, 5):
        part = [{"prompt": f"{q} ({number})", "chosen": a, "rejected": b} for q, a, b in rows]
        _lines(folder / f"preferences-{number}.jsonl", part)
    _lines(
        folder / "orca_rlhf.jsonl",
        [{"system": "You are a teacher.", "question": q, "chosen": a, "rejected": b} for q, a, b in rows],
    )
    dialogues = [
        {"chosen": f"\n\nHuman: {q}\n\nAssistant: {a}", "rejected": f"\n\nHuman: {q}\n\nAssistant: {b}"} for q, a, b in rows
    ]
    _lines(folder / "hh-rlhf.jsonl", dialogues)
    _lines(
        folder / "ultrachat_200k.jsonl",
        [{"prompt": q, "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a, _ in rows],
    )
    _lines(
        folder / "ultrafeedback.jsonl",
        [
            {"instruction": q, "completions": [{"response": a, "overall_score": 9.0}, {"response": b, "overall_score": 2.0}]}
            for q, a, b in rows
        ],
    )
    for part, count in (("test", 10), ("dev", 5)):
        (folder / "mmlu" / part).mkdir(parents=True, exist_ok=True)
        cells = [
            [f"Which one is {name}, in the {part}?", name, "a door", "a house", "a car", "A"] for name in _SUBJECTS[:count]
        ]
        _csv(folder / "mmlu" / part / f"anatomy_{part}.csv", cells)
    header = ["Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]
    _csv(folder / "gpqa_main.csv", [header, *([f"Which is {name}?", name, "a cat", "a dog", "a cow"] for name in _SUBJECTS)])
    header = ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source"]
    _csv(folder / "TruthfulQA.csv", [header, *(["x", "y", q, a, a, b, "-"] for q, a, b in rows[:4])])
    _lines(
        folder / "questions.jsonl",
        [{"question": f"What is {name}?", "choices": ["a thing", name], "answer": "B"} for name in _SUBJECTS],
    )
    return folder


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _csv(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
