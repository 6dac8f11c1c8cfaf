"""How much a key may ask for: a bucket of tokens that fills at a steady rate.

It reads no clock. Counts are requests, or lines of a stream; times are seconds of a clock that never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

WINDOW_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What is left of a key's bucket, and in how many seconds it is full again."""

    quota: int
    left: int
    full_in_s: int

    def headers(self) -> dict[str, str]:
        """Write the fields of draft-ietf-httpapi-ratelimit-headers."""
        return {
            "RateLimit-Policy": f'"default";q={self.quota};w={WINDOW_S}',
            "RateLimit": f'"default";r={self.left};t={self.full_in_s}',
        }


@dataclass(slots=True)
class Bucket:
    """Holds `quota` tokens at most, and gains as many each second."""

    quota: int
    tokens: float
    filled_at_s: float

    @classmethod
    def full(cls, quota: int, now_s: float) -> Bucket:
        """Begin with all that it can hold."""
        return cls(quota=quota, tokens=float(quota), filled_at_s=now_s)

    def take(self, now_s: float) -> bool:
        """Take one token, if there is one."""
        self._fill(now_s)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def borrow(self, count: int, now_s: float) -> float:
        """Take `count` tokens, which may not be there yet; return in how many seconds they will be."""
        self._fill(now_s)
        self.tokens -= count
        return max(0.0, -self.tokens / self.quota)

    def wait_s(self) -> int:
        """In how many whole seconds there is a token, 1 at least."""
        return max(1, ceil((1 - self.tokens) / self.quota))

    def allowance(self) -> Allowance:
        """Tell what is left."""
        missing = self.quota - self.tokens
        return Allowance(
            quota=self.quota, left=max(0, int(self.tokens)), full_in_s=ceil(missing / self.quota)
        )

    def _fill(self, now_s: float) -> None:
        gained = max(0.0, now_s - self.filled_at_s) * self.quota
        self.tokens = min(float(self.quota), self.tokens + gained)
        self.filled_at_s = max(self.filled_at_s, now_s)
