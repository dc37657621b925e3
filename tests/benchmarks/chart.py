"""A table and a chart of the figures of `tests.benchmarks.comparison`."""

from collections.abc import Mapping
from typing import NamedTuple
from xml.sax.saxutils import escape

__all__ = ["Row", "markdown", "svg"]

_WIDTH, _BAR, _GAP, _NAMES = 760, 22, 12, 270
_TOP = 66


class Row(NamedTuple):
    """One application: microseconds of CPU a request, requests a second, milliseconds, replays."""

    cpu: float
    rate: float
    p50: float
    p99: float
    remembers: bool


def markdown(rows: Mapping[str, Row], *, caption: str) -> str:
    """Return a Markdown table of `rows`."""
    lines = [
        f"{caption}\n",
        "| application | CPU a request | requests a second | p50 | p99 | remembers proofs |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row.cpu:.0f} µs | {row.rate:,.0f} | {row.p50:.2f} ms | {row.p99:.2f} ms | "
            f"{'yes' if row.remembers else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def svg(rows: Mapping[str, Row], *, caption: str) -> str:
    """Return a bar chart of the requests a second of `rows`, on a white ground."""
    height = _TOP + len(rows) * (_BAR + _GAP) + 8
    most = max(row.rate for row in rows.values())
    font = 'font-family="system-ui, sans-serif" fill="#1b1f24"'
    small = f'font-size="13" {font}'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>Requests a second. {escape(caption)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="17" font-weight="600" {font}>Requests a second, one worker</text>',
        f'<text x="16" y="48" font-size="12" {font}>{escape(caption)}</text>',
    ]
    for number, (name, row) in enumerate(rows.items()):
        y = _TOP + number * (_BAR + _GAP)
        length = row.rate / most * (_WIDTH - _NAMES - 90)
        color = "#1a7f5a" if number == 0 else "#8c959f"
        parts += [
            f'<text x="{_NAMES - 10}" y="{y + 16}" text-anchor="end" {small}>{escape(name)}</text>',
            f'<rect x="{_NAMES}" y="{y}" width="{length:.0f}" height="{_BAR}" rx="3" fill="{color}"/>',
            f'<text x="{_NAMES + length + 8:.0f}" y="{y + 16}" {small}>{row.rate:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])
