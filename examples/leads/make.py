"""Makes the files of this folder again, byte for byte: `python examples/leads/make.py`.

Each is what one source sends, one JSON object a line, as in `gavel source send sunform examples/leads/sunform.jsonl`.
"""

from __future__ import annotations

import json
from pathlib import Path

from services.cli.demo_leads import SHIPPED, first

if __name__ == "__main__":
    lines: dict[str, list[str]] = {}
    for source, submission in first(SHIPPED):
        lines.setdefault(source, []).append(json.dumps(submission, separators=(",", ":")) + "\n")
    for source, of_source in lines.items():
        Path(__file__).with_name(f"{source}.jsonl").write_text("".join(of_source))
