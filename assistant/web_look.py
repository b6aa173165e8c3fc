"""How the page looks: theme, styles, keys, and small pieces of HTML in which every text from outside is escaped."""

import html
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any

import gradio as gr

from ingest.pageimage import PageImage

CSS = """
body { background: var(--body-background-fill) !important; }
.gradio-container { max-width: 1240px !important; width: 100% !important; margin: 0 auto !important; }
.gradio-container main { width: 100% !important; max-width: none !important; }
.html-container { padding: 0 !important; }
.gradio-container .prose, .gradio-container { font-size: 16px; line-height: 1.55; }
footer { display: none !important; }
#top { display: flex; align-items: center; gap: .8rem; padding: .4rem 0 .2rem; }
#top h1 { font-size: 1.35rem; font-weight: 650; margin: 0; letter-spacing: -.01em; }
#top p { margin: 0; color: var(--body-text-color-subdued); font-size: .95rem; flex: 1; }
#top button { border: 1px solid var(--border-color-primary); border-radius: 999px; padding: .3rem .8rem; font-size: .85rem;
  background: var(--block-background-fill); color: var(--body-text-color); cursor: pointer; min-height: 32px; }
#top button:hover { border-color: var(--color-accent); }
h2.part { font-size: 1.05rem; font-weight: 650; margin: .8rem 0 .4rem; }
.quiet { color: var(--body-text-color-subdued); font-size: .92rem; margin: .3rem 0; }
.empty { border: 1px dashed var(--border-color-primary); border-radius: .8rem; padding: 2.2rem 1.5rem; text-align: center;
  color: var(--body-text-color-subdued); }
.empty strong { display: block; color: var(--body-text-color); font-weight: 600; margin-bottom: .3rem; }
.panel { border: 1px solid var(--border-color-primary); border-radius: .8rem; padding: 1.1rem 1.3rem;
  background: var(--block-background-fill); }
.notice { border-left: 4px solid var(--neutral-400); background: var(--background-fill-secondary); border-radius: .4rem;
  padding: .6rem .9rem; margin: .6rem 0; overflow-wrap: anywhere; }
.notice.warn { border-color: #d97706; }
.notice.bad { border-color: #dc2626; }
.notice.good { border-color: #059669; }
.gap { gap: var(--layout-gap); }
#understood { min-height: 0; }
.understood { margin: 0; font-size: .92rem; color: var(--body-text-color-subdued); min-height: 1.5em; }
.understood.problem { color: #9a3412; }
.dark .understood.problem { color: #fdba74; }

.answer { display: flex; gap: 1.4rem; align-items: flex-start; flex-wrap: wrap; }
.answer .asked { flex-basis: 100%; font-weight: 550; white-space: pre-wrap; overflow-wrap: anywhere; }
.verdict { text-align: center; min-width: 5.2rem; }
.verdict .letter { font-size: 4.6rem; line-height: 1; font-weight: 700; color: var(--accent-text); }
.verdict .sure { font-size: .92rem; color: var(--body-text-color-subdued); margin-top: .25rem; }
.options { flex: 1; min-width: min(16rem, 100%); }
.option { display: grid; grid-template-columns: 1.5rem 1fr 3.2rem; gap: .15rem .5rem; padding: .35rem 0; }
.option > span { overflow-wrap: anywhere; }
.option.chosen { font-weight: 650; }
.option.right .name::after { content: " ✓"; color: #047857; }
.dark .option.right .name::after { color: #6ee7b7; }
.option .share { text-align: right; font-variant-numeric: tabular-nums; }
.bar { grid-column: 2 / 4; height: .5rem; border-radius: .25rem; background: var(--bar-track); overflow: hidden; }
.bar i { display: block; height: 100%; border-radius: .25rem; background: var(--neutral-400); }
.option.chosen .bar.with i { background: var(--color-accent); }
.bar.without { height: .3rem; }
.bar.without i { background: repeating-linear-gradient(135deg, #d97706 0 4px, #fbbf24 4px 8px); }
.legend { display: flex; gap: 1.2rem; flex-wrap: wrap; font-size: .9rem; margin: .5rem 0 0;
  color: var(--body-text-color-subdued); }
.legend i { display: inline-block; width: 1.4rem; height: .5rem; border-radius: .25rem; margin-right: .4rem;
  vertical-align: middle; }
.legend .with i { background: var(--color-accent); }
.legend .without i { background: repeating-linear-gradient(135deg, #d97706 0 4px, #fbbf24 4px 8px); }

.source { border: 1px solid var(--border-color-primary); border-radius: .8rem; padding: .8rem 1rem; margin: 0 0 .8rem;
  background: var(--block-background-fill); }
.source.open { border-color: var(--color-accent); box-shadow: 0 0 0 1px var(--color-accent); }
.source .place { font-weight: 600; overflow-wrap: anywhere; }
.source .heading, .source .moved { font-size: .9rem; color: var(--body-text-color-subdued); }
.source .passage { white-space: pre-wrap; overflow-wrap: anywhere; margin: .45rem 0; font-size: .95rem; }
.source mark, .sheet mark { background: #fde68a; color: #1c1917; border-radius: .2rem; padding: 0 .1rem; }
.source button.show { font-size: .9rem; padding: .35rem .8rem;
  border-radius: .5rem; border: 1px solid var(--border-color-primary);
  background: transparent; color: var(--accent-text); cursor: pointer; min-height: 34px; }
.source button.show:hover { border-color: var(--color-accent); }
.source button.show:focus-visible, #top button:focus-visible { outline: 3px solid var(--color-accent); outline-offset: 2px; }
.sheet { border: 1px solid var(--border-color-primary); border-radius: .6rem; overflow: hidden; background: #fff; }
.sheet img { display: block; width: 100%; height: auto; }
.sheet.text { background: var(--block-background-fill); padding: 1rem; white-space: pre-wrap; overflow-wrap: anywhere;
  max-height: 40rem; overflow: auto; font-size: .95rem; }
.dark .sheet img { filter: brightness(.9); }
.page-name { text-align: center; font-weight: 600; margin: 0; overflow-wrap: anywhere; }

.tiles { display: flex; gap: .8rem; flex-wrap: wrap; margin: .4rem 0 .8rem; }
.tile { flex: 1 1 8rem; border: 1px solid var(--border-color-primary); border-radius: .8rem; padding: .7rem 1rem;
  background: var(--block-background-fill); }
.tile b { display: block; font-size: 1.45rem; font-weight: 650; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tile span { font-size: .9rem; color: var(--body-text-color-subdued); }
.table { overflow-x: auto; max-height: 34rem; overflow-y: auto;
  border: 1px solid var(--border-color-primary); border-radius: .6rem; }
.table table { width: 100%; border-collapse: collapse; font-size: .93rem; margin: 0 !important; border: 0 !important; }
.table tr { border: 0 !important; }
.table th { text-align: left; white-space: nowrap; font-weight: 600; position: sticky; top: 0;
  background: var(--background-fill-secondary); }
.table th, .table td { padding: .5rem .8rem; border-bottom: 1px solid var(--border-color-primary); vertical-align: top;
  border-top: 0; border-left: 0; border-right: 0; }
.table td { overflow-wrap: anywhere; }
.table td { min-width: 4.5rem; }
.table td.number, .table th.number { text-align: right; font-variant-numeric: tabular-nums; min-width: 3rem; }
.table tr:last-child td { border-bottom: 0; }
.chart { display: flex; gap: .8rem; align-items: flex-end; height: 11rem; padding: .6rem 0 0; }
.chart .column { flex: 1; display: flex; flex-direction: column; justify-content: flex-end; height: 100%; text-align: center;
  font-size: .85rem; min-width: 0; }
.chart .column i { display: block; background: var(--color-accent); border-radius: .3rem .3rem 0 0; min-height: 2px; }
.chart .column b { font-weight: 600; }
.chart .column span { color: var(--body-text-color-subdued); border-top: 1px solid var(--border-color-primary);
  padding-top: .2rem; }

.place-row { align-items: center !important; }
.choice label { align-items: flex-start; }
.choice .wrap { flex-direction: column; }
.choice .wrap label { width: 100%; }
#answer:focus { outline: none; }
:root { --accent-text: #0f6674; --bar-track: #e7e5e4; }
.dark { --accent-text: #67d3e0; --bar-track: #44403c; }
.dark button[role="tab"][aria-selected="true"] { color: var(--accent-text) !important; }
.dark .option.chosen .bar.with i, .dark .legend .with i { background: #22a5bd; }
/* Two columns in which each part stands right below the last: the page below the answer, the passages below the question. */
@media (min-width: 721px) {
  #ask-parts { display: flow-root; }
  #ask-parts > * { float: right; clear: right; width: calc(58% - .5rem); min-width: 0 !important; margin-bottom: 1rem; }
  #ask-parts > #ask-question, #ask-parts > #ask-sources { float: left; clear: left; width: calc(42% - .5rem); }
}
@media (max-width: 720px) {
  #ask-parts { flex-direction: column; }
  #ask-sources { order: 1; }
  #ask-page { order: 2; }
}
@media (max-width: 640px) {
  .gradio-container { padding: .4rem !important; }
  #top p { display: none; }
  #top h1 { flex: 1; }
  .answer { gap: .8rem; }
  .verdict { display: flex; align-items: baseline; gap: .8rem; flex-basis: 100%; text-align: left; }
  .verdict .letter { font-size: 3.4rem; }
  .table th, .table td { padding: .4rem .5rem; }
  .table td:first-child:not(.number) { min-width: 9rem; }
}
@media (prefers-reduced-motion: reduce) { * { transition: none !important; animation-duration: .01ms !important; } }
"""

# Ctrl+Enter asks (or checks); the arrow keys move between questions, unless they are at work in a field or among tabs.
HEAD = """
<meta name="viewport" content="width=device-width, initial-scale=1">
<script>
(() => {
  const seen = (id) => {
    const found = document.getElementById(id);
    return found && found.offsetParent !== null && !found.disabled ? found : null;
  };
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      const button = seen('ask') || seen('check') || seen('next-question');
      if (button) { event.preventDefault(); button.click(); }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.key !== 'ArrowLeft' && event.key !== 'ArrowRight') return;
    if (event.target.closest('input, textarea, select, [contenteditable], [role=tab], [role=radio], [role=slider]')) return;
    const button = seen(event.key === 'ArrowLeft' ? 'older' : 'newer');
    if (button) { event.preventDefault(); button.click(); }
  });
  document.addEventListener('click', (event) => {
    if (!event.target.closest('#shade')) return;
    const dark = !document.body.classList.contains('dark');
    document.body.classList.toggle('dark', dark);
    localStorage.setItem('mcqa-shade', dark ? 'dark' : 'light');
  });
})();
</script>
"""
# Runs when the page has been built: the shade that this visitor chose, else the system's. Gradio names its upload button
# otherwise than the text on it reads, which speech input stumbles over.
ON_LOAD = """
() => {
  document.documentElement.lang = 'en';
  const shade = localStorage.getItem('mcqa-shade');
  if (shade) document.body.classList.toggle('dark', shade === 'dark');
  const rename = () => document.querySelectorAll('button.upload-container[aria-label]').forEach((button) => {
    button.removeAttribute('aria-label');
  });
  new MutationObserver(rename).observe(document.body, { childList: true, subtree: true });
  rename();
}
"""
# After asking, the focus goes to the answer: it is read out, and the arrow keys move between questions.
FOCUS_ANSWER = """
(...values) => {
  const answer = document.getElementById('answer');
  if (answer) { answer.tabIndex = -1; answer.focus({ preventScroll: window.innerWidth > 640 }); }
  return values;
}
"""


def theme() -> gr.themes.Base:
    """Return the theme: fonts of the system, calm neutrals, one accent that is legible on light and dark."""
    made = gr.themes.Default(
        primary_hue=gr.themes.colors.cyan,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        text_size=gr.themes.sizes.text_md,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return made.set(
        body_background_fill="#faf9f7",
        body_background_fill_dark="#1a1816",
        body_text_color_subdued="#57534e",
        body_text_color_subdued_dark="#c4beb8",
        block_background_fill="#ffffff",
        block_background_fill_dark="#24211e",
        block_label_text_color="#44403c",
        block_label_text_color_dark="#d6d3d1",
        block_title_text_color="#292524",
        block_title_text_color_dark="#e7e5e4",
        block_info_text_color="#57534e",
        block_info_text_color_dark="#c4beb8",
        block_shadow="none",
        block_border_width="1px",
        border_color_primary="#e2ded9",
        border_color_primary_dark="#433e39",
        color_accent="#0e7490",
        button_primary_background_fill="#0e7490",
        button_primary_background_fill_hover="#155e75",
        button_primary_background_fill_dark="#0e7490",
        button_primary_background_fill_hover_dark="#0891b2",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#f1efec",
        button_secondary_background_fill_dark="#37332f",
        input_placeholder_color="#6b6560",
        input_placeholder_color_dark="#a8a29e",
        input_background_fill_dark="#1f1c1a",
        input_border_color="#c9c4be",
        input_border_color_dark="#57514b",
    )


def text(value: object) -> str:
    """Return a text from a file or a user such that HTML shows it and does nothing else with it."""
    return html.escape(str(value))


def quiet(words: str) -> str:
    """Return a remark in small letters."""
    return f'<p class="quiet">{text(words)}</p>'


def notice(words: str, kind: str = "") -> str:
    """Return a remark that stands out; `kind` is "", "warn", "bad" (read out at once) or "good"."""
    role = "alert" if kind == "bad" else "status"
    return f'<p class="notice {kind}" role="{role}">{text(words)}</p>'


def empty(title: str, words: str) -> str:
    """Return what stands where there is nothing yet."""
    return f'<div class="empty"><strong>{text(title)}</strong>{text(words)}</div>'


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Return figures, each with what it counts, side by side."""
    made = "".join(f'<div class="tile"><b>{text(figure)}</b><span>{text(of)}</span></div>' for figure, of in figures)
    return f'<div class="tiles">{made}</div>'


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, label: str) -> str:
    """Return a table; numbers stand at the right. `label` names it for those who cannot see it."""
    numeric = [bool(rows) and all(isinstance(row[at], int | float) for row in rows) for at in range(len(columns))]

    def cells(values: Sequence[object], tag: str) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        return "".join(
            f"<{tag}{scope}{' class=number' if right else ''}>{text(value)}</{tag}>"
            for value, right in zip(values, numeric, strict=True)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{text(label)}">'
        f"<table><thead><tr>{cells(columns, 'th')}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def columns(values: Sequence[tuple[str, float, str]], *, label: str) -> str:
    """Return a chart of upright bars, each (what stands below, its height from 0 to 1, what stands above)."""
    bars = "".join(
        f'<div class="column"><b>{text(above)}</b><i style="height: {85 * max(0.0, min(1.0, height)):.1f}%"></i>'
        f"<span>{text(below)}</span></div>"
        for below, height, above in values
    )
    said = "; ".join(f"{below}: {above}" for below, _, above in values)
    return f'<div class="chart" role="img" aria-label="{text(label)}: {text(said)}">{bars}</div>'


def bars(
    letters: str,
    options: Sequence[str],
    probabilities: Sequence[float],
    chosen: str,
    other: Sequence[float] | None = None,
    right: str | None = None,
) -> str:
    """Return a bar for each option, with a thin one below it where `other` gives a second probability."""
    rows = []
    for at, (letter, option, share) in enumerate(zip(letters, options, probabilities, strict=True)):
        kinds = "option" + (" chosen" if letter == chosen else "") + (" right" if letter == right else "")
        second = "" if other is None else f'<span class="bar without"><i style="width: {100 * other[at]:.1f}%"></i></span>'
        rows.append(
            f'<div class="{kinds}"><span>{letter}</span><span class="name">{text(option)}</span>'
            f'<span class="share">{share:.0%}</span>'
            f'<span class="bar with"><i style="width: {100 * share:.1f}%"></i></span>{second}</div>'
        )
    return f'<div class="options">{"".join(rows)}</div>'


def marked(passage: str, sentence: str) -> str:
    """Return a passage with one of its sentences marked."""
    at = passage.find(sentence) if sentence else -1
    if at < 0:
        return text(passage)
    end = at + len(sentence)
    return f"{text(passage[:at])}<mark>{text(passage[at:end])}</mark>{text(passage[end:])}"


def sheet(image: PageImage, name: str) -> str:
    """Return the picture of a page."""
    shown = " with the passage highlighted" if image.marked else ""
    return (
        f'<div class="sheet"><img src="data:image/png;base64,{b64encode(image.png).decode()}" alt="{text(name)}{shown}"></div>'
    )


def header() -> str:
    """Return what stands at the top of the page."""
    return (
        '<div id="top"><h1>Course questions</h1><p>Answers to multiple-choice questions, with the page they rest on.</p>'
        '<button id="shade" type="button">Light / dark</button></div>'
    )


def toast(error: Exception) -> Any:
    """Return the error that shows a message for a moment and ends an event."""
    return gr.Error(text(error), title="That did not work", print_exception=False)
