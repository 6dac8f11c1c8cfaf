"""Draws a result file as an SVG for the docs: `python -m bench.chart RESULT.json [--to docs/images/performance.svg]`.

Two panels: leads a second of everything that sells leads (a logarithmic scale, as they are far apart), and latency at
shares of the highest rate. It computes nothing: what it shows stands in the file's summary.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from bench.report import read_document

TO = Path("docs/images/performance.svg")
_WIDTH = 760
_LEFT, _RIGHT = 210, 90
_ROW, _BAR = 26, 16
_HEAD, _GAP = 34, 24
_OURS, _THEIRS = "#2f6f4f", "#9a9a9a"

_RATES: Mapping[str, tuple[str, str]] = {
    "per_event_faust_leads_per_s": ("per-event Faust", _THEIRS),
    "row_lock_router_leads_per_s": ("row-lock router alone", _THEIRS),
    "pipeline_leads_per_s": ("Gavel, one worker a step", _OURS),
    "two_routers_leads_per_s": ("Gavel, two routers", _OURS),
    "three_routers_leads_per_s": ("Gavel, three routers", _OURS),
    "auctions_leads_per_s": ("Gavel, auctions of five", _OURS),
    "raw_forward_records_per_s": ("raw forward: the limit", _THEIRS),
}
_SHARES: Mapping[str, str] = {
    "quarter_rate": "25 %",
    "half_rate": "50 %",
    "three_quarters_rate": "75 %",
}
_PERCENTILES: Mapping[str, str] = {"p50": "#2f6f4f", "p99": "#7fb08f", "p99.9": "#c3ddc9"}


class Bar(NamedTuple):
    """One bar: what stands before it, its value, and its colour."""

    label: str
    value: float
    colour: str


def svg(summary: Mapping[str, float | None]) -> str:
    """Draw a summary; raise `ValueError` where it has nothing that can be drawn."""
    panels = [
        ("Leads a second (logarithmic scale)", rate_bars(summary), "{:,.0f}"),
        ("Milliseconds from submission to delivery, at shares of the highest rate (logarithmic scale)",
         latency_bars(summary), "{:,.0f} ms"),
    ]  # fmt: skip
    drawn = [(title, bars, unit) for title, bars, unit in panels if bars]
    if not drawn:
        raise ValueError("the summary has neither rates nor latencies")
    parts, top = [], 0
    for title, bars, unit in drawn:
        parts.append(_panel(title, bars, unit, top))
        top += _HEAD + _ROW * len(bars) + _GAP
    style = (
        "text{font:13px system-ui,sans-serif;fill:#333}.title{font-weight:600}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" role="img" '
        f'aria-label="Gavel beside its controls">\n<style>{style}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def rate_bars(summary: Mapping[str, float | None]) -> list[Bar]:
    """Give a bar for each rate that was measured."""
    return [
        Bar(label, value, colour) for key, (label, colour) in _RATES.items() if (value := summary.get(key))
    ]


def latency_bars(summary: Mapping[str, float | None]) -> list[Bar]:
    """Give a bar for each percentile at each share of the rate; one without end has none."""
    return [
        Bar(f"{share}, {percent}", value, colour)
        for key, share in _SHARES.items()
        for percent, colour in _PERCENTILES.items()
        if (value := summary.get(f"latency_{percent}_ms_at_{key}"))
    ]


def length(value: float, bars: Sequence[Bar]) -> float:
    """Say how long a bar is, in pixels: a decade below the least value is nothing, the greatest is all there is."""
    low = math.log10(min(bar.value for bar in bars)) - 1
    high = math.log10(max(bar.value for bar in bars))
    return (_WIDTH - _LEFT - _RIGHT) * (math.log10(value) - low) / (high - low)


def _panel(title: str, bars: Sequence[Bar], unit: str, top: int) -> str:
    lines = [f'<text class="title" x="0" y="{top + 18}">{escape(title)}</text>']
    for number, bar in enumerate(bars):
        y, wide = top + _HEAD + _ROW * number, length(bar.value, bars)
        text = y + _BAR - 3
        lines += [
            f'<text x="{_LEFT - 8}" y="{text}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{wide:.1f}" height="{_BAR}" rx="2" fill="{bar.colour}"/>',
            f'<text x="{_LEFT + wide + 6:.1f}" y="{text}">{escape(unit.format(bar.value))}</text>',
        ]
    return "\n".join(lines)


def main() -> None:
    """Read a result file and write the picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.chart", description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path, help="a file of bench/results")
    parser.add_argument("--to", type=Path, default=TO, help=f"the picture (default {TO})")
    given = parser.parse_args()
    try:
        picture = svg(read_document(given.result)["summary"])
        given.to.parent.mkdir(parents=True, exist_ok=True)
        given.to.write_text(picture)
    except (OSError, ValueError) as error:
        sys.exit(f"{given.result}: {error}")
    print(f"Written to {given.to}")


if __name__ == "__main__":
    main()
