"""The demo's bidders: what each makes of a ping, and how long it thinks about it.

The prices are drawn from the lead's id, so that every run has the same ones. One of them bids by HTTP: it takes the
gateway's webhooks, and its reply to a ping is its bid.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from services.contract.ids import draw
from services.contract.times import decimal_amount

FAST, SLOW, SILENT, BY_HTTP = "swiftloan", "slowbank", "quietcredit", "lendfast"
SLOW_FROM_MS, SLOW_UP_TO_MS = 500, 3_500
"""How long the slow one thinks; its auctions close after two seconds."""

NO_BIDS_OF_100 = 15
_EXCLUSIVE_FROM, _EXCLUSIVE_SPREAD = 45_00, 60_00
_SHARED_FROM, _SHARED_SPREAD = 15_00, 22_00


@dataclass(frozen=True, slots=True)
class Thought:
    """An answer, and after how long it is given."""

    answer: dict[str, Any]
    after_s: float


def thought_about(buyer_id: str, ping: Mapping[str, Any]) -> Thought | None:
    """Say what a buyer that reads its pings from Kafka answers; None: nothing."""
    if buyer_id not in (FAST, SLOW):
        return None
    about = {"lead_id": ping["lead_id"], "auction_number": ping["auction_number"]}
    prices = prices_for(buyer_id, ping)
    answer = (
        {"type": "bid", **about, **prices} if prices else {"type": "no_bid", **about, "reason": "capacity"}
    )
    thinks_ms = draw(ping["lead_id"], buyer_id, "thinks") % (SLOW_UP_TO_MS - SLOW_FROM_MS) + SLOW_FROM_MS
    return Thought(answer, thinks_ms / 1_000 if buyer_id == SLOW else 0.0)


def prices_for(buyer_id: str, ping: Mapping[str, Any]) -> dict[str, str]:
    """Draw a price for each mode that a ping asks for, some of them under the floor; nothing is no bid."""
    drawn = draw(ping["lead_id"], buyer_id)
    if drawn % 100 < NO_BIDS_OF_100:
        return {}
    ranges = {"exclusive": (_EXCLUSIVE_FROM, _EXCLUSIVE_SPREAD), "shared": (_SHARED_FROM, _SHARED_SPREAD)}
    return {
        mode: decimal_amount(ranges[mode][0] + draw(ping["lead_id"], buyer_id, mode) % ranges[mode][1])
        for mode in ping["modes"]
    }


@dataclass(slots=True)
class Posted:
    """What the receiver of webhooks was posted."""

    pings: int = 0
    leads: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def receiver() -> Iterator[tuple[int, Posted]]:
    """Serve the HTTP bidder on a free port of this machine alone; give the port, and what it was posted."""
    posted = Posted()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(posted))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="demo-webhooks", daemon=True)
    thread.start()
    try:
        yield server.server_address[1], posted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(posted: Posted) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Replies to a ping with a bid, and takes everything else."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Take one record."""
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = b""
            with posted.lock:
                posted.pings += body["type"] == "ping"
                posted.leads += body["type"] == "lead"
            if body["type"] == "ping" and (prices := prices_for(BY_HTTP, body)):
                reply = json.dumps(prices).encode()
            self.send_response(200 if reply else 204)
            if reply:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing: the demo's progress is on the terminal."""

    return Handler
