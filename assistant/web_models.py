"""The tab Models: which one answers, what is known of it, and switching to another. Staff only."""

from typing import Any

import gradio as gr

from assistant.card import Card
from assistant.locate import installed_models
from assistant.model import LanguageModel
from assistant.stats import percent_with_interval
from assistant.web_look import notice, quiet, table, text, tiles
from assistant.web_parts import QUICKLY
from assistant.web_service import Service, shown
from ingest.errors import UserError

_SCORINGS = {"letter": "Reads the letters of the options", "cloze": "Compares how likely each option's text is"}


def names() -> list[tuple[str, str]]:
    """Return (what to call it, name) of the models that are here."""
    return [(folder.name if "/" in name else name, name) for name, folder, _ in installed_models()]


def model_html(lm: LanguageModel, pace: float | None) -> str:
    """Return what is known of the loaded model: its size, its speed and its card."""
    number = str(lm.dtype).removeprefix("torch.") + ("" if lm.quantization == "none" else f", {lm.quantization}")
    figures = [
        (f"{lm.parameters / 1e6:,.0f} M", "parameters"),
        (f"{lm.bytes / 1e6:,.0f} MB", "in memory"),
        (f"{pace:.1f} s" if pace else "–", "for a question, lately"),
        (f"{lm.seconds:.0f} s", "to load"),
    ]
    title = f'<h2 class="part">{text(lm.name)}</h2>'
    return title + tiles(figures) + quiet(f"Computes in {number} on {lm.device.type}.") + _card_html(lm.card)


def _card_html(card: Card) -> str:
    rows = [
        ["How it answers", _SCORINGS[card.scoring]],
        ["Passages it reads", str(card.passages)],
        ["Temperature", f"{card.temperature:g}"],
        ["Weighs the course itself", "yes" if card.evidence_weights else "no"],
    ]
    rows += [["Trained from", card.base]] if card.base else []
    rows += [["Trained on", card.training_data]] if card.training_data else []
    rows += [[f"Accuracy on {one.on}", percent_with_interval(one.right, one.n)] for one in card.accuracy]
    return table(["Its card", "Says"], rows, label="The model's card")


def models_tab(app: gr.Blocks, service: Service) -> None:
    """Build the tab."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            choice = gr.Dropdown(label="Installed models", choices=[], elem_id="model-choice")
            switch = gr.Button("Use this model for everyone", variant="primary", elem_id="model-switch")
            gr.HTML(quiet("All visitors share one model. Switching takes a moment; questions wait meanwhile."))
        with gr.Column(scale=7, min_width=320):
            card = gr.HTML(elem_id="model-card", min_height=80)

    def look() -> tuple[Any, str]:
        lm = service.loaded
        known = names()
        chosen = lm.name if lm and lm.name in [name for _, name in known] else None
        return gr.Dropdown(choices=known, value=chosen), model_html(lm, service.pace) if lm else quiet(
            "No model is loaded yet."
        )

    def load(request: gr.Request) -> tuple[Any, Any]:
        return look() if service.is_staff(request) else (gr.skip(), gr.skip())

    def change(name: str | None, request: gr.Request, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        service.require_staff(request)
        # Only what is installed: a name from outside must not make the server read any folder, or fetch a model.
        if name not in [known for _, known in names()]:
            raise UserError("choose one of the installed models")
        progress(0.1, desc=text(f"Loading {name}"))
        lm = service.switch(str(name))
        return notice(f"{lm.name} answers from now on.", "good") + model_html(lm, service.pace)

    app.load(load, outputs=[choice, card], **QUICKLY)
    choice.focus(load, outputs=[choice, card], **QUICKLY)
    switch.click(
        shown(change), choice, card, concurrency_limit=1, concurrency_id="switch", show_progress_on=[card], api_name="switch"
    )
