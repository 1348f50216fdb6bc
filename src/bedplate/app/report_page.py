"""A page that is one file: it needs no other, runs no script, and is light or dark as its reader has it."""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1a1d21; --quiet: #667085; --line: #e2e5ea; --one: #1d5fd1;
  --two: #b4540a; --good: #13723f; --bad: #b3261e; --open: #8a5a00; --soft: #eef3fc }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --text: #e8eaed; --quiet: #9aa4b2; --line: #2c323a;
  --one: #7fb0ff; --two: #f0a35e; --good: #5fd39a; --bad: #ff8a80; --open: #e6b65c; --soft: #1c2532 } }
body { background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 60rem; padding: 0 1.25rem }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem } p { margin: .25rem 0 }
.quiet, figcaption { color: var(--quiet) } .met { color: var(--good) } .missed { color: var(--bad) }
.open { color: var(--open) } .verdict { font-size: 1.15rem; font-weight: 600; margin-top: 1rem }
table { border-collapse: collapse; width: 100% } td, th { border-bottom: 1px solid var(--line); padding: .3rem .6rem;
  text-align: right; font-variant-numeric: tabular-nums }
td:first-child, th:first-child { text-align: left; padding-left: 0 }
table.words td, table.words th { text-align: left; vertical-align: top } table.words .num { text-align: right }
th { color: var(--quiet); font-weight: 500 } figure, .scroll { margin: 0; overflow-x: auto }
svg { max-width: 100%; height: auto } figure svg { min-width: 34rem }
svg text { fill: var(--quiet); font: 12px system-ui, sans-serif } .grid { stroke: var(--line) }
.one { stroke: var(--one) } .two { stroke: var(--two) } .limit { stroke: var(--bad); stroke-dasharray: 5 4 }
.curve { fill: none; stroke-width: 2 } text.one { fill: var(--one); stroke: none }
text.two { fill: var(--two); stroke: none }
text.limit { fill: var(--bad); stroke: none }
.dot { fill: var(--one); stroke: none } .dot.faint { fill: var(--quiet); opacity: .45 } .dot.best { fill: var(--two) }
.bar { fill: var(--one) } .bar.faint { fill: var(--line) } .frame { fill: var(--soft); stroke: var(--line) }
svg text.label { fill: var(--text) }
table.words td.num { white-space: nowrap; overflow-wrap: normal }
@media (max-width: 40rem) { body { margin: 1rem auto } td, th { padding: .3rem } td { overflow-wrap: anywhere } }
"""


def document(title: str, body: Iterable[str]) -> str:
    """A whole page; ``title`` is plain text, ``body`` is HTML."""
    return "\n".join(
        (
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style></head><body>",
            *body,
            "</body></html>",
            "",
        )
    )


def words_table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of plain text; the columns in ``numbers`` are set flush right."""

    def cell(tag: str, index: int, text: str) -> str:
        mark = ' class="num"' if index in numbers else ""
        return f"<{tag}{mark}>{escape(text)}</{tag}>"

    lines = ["".join(cell("td", i, text) for i, text in enumerate(row)) for row in rows]
    top = "".join(cell("th", i, text) for i, text in enumerate(head))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table class="words"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
