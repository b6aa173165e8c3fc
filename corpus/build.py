"""Typeset the sample courses: every `corpus/*/*.typ` becomes a PDF beside it.

Run through `make corpus`. Typst's own fonts and a fixed date make the result the same on every machine, so a
rebuilt PDF differs from the committed one only where its source differs. `--check` writes nothing and fails if one does.
"""

import datetime
import sys
from pathlib import Path

import typst

CORPUS = Path(__file__).resolve().parent
DATE = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)  # the PDFs' creation date, fixed on purpose


def main() -> int:
    """Typeset what is stale; returns the exit status."""
    check = "--check" in sys.argv[1:]
    stale = []
    for source in sorted(CORPUS.glob("*/*.typ")):
        pdf = source.with_suffix(".pdf")
        made = typst.compile(source, root=CORPUS, ignore_system_fonts=True, format="pdf", timestamp=DATE)
        if pdf.is_file() and pdf.read_bytes() == made:
            continue
        stale.append(pdf)
        if not check:
            pdf.write_bytes(made)
        print(f"{'stale' if check else 'wrote'} {pdf.relative_to(CORPUS)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
