"""The whole way from market files to a market that can keep its promises, or to every reason why it can't.

Pure; applying the market is for `store`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.contract.market import Market
from services.market import cautions, checks, succession
from services.market.documents import MarketFile
from services.market.errors import Breach, MarketError, MarketRefused, MarketWarning
from services.market.parsing import Draft, parse
from services.market.reading import read


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A market that is right in itself (its version is still 0), and what its author should look at again."""

    draft: Draft
    warnings: tuple[MarketWarning, ...]

    @property
    def market(self) -> Market:
        """The market that the files say."""
        return self.draft.market

    def after(self, old: Market | None) -> Reviewed:
        """Look at it as the version that follows another. Raises MarketRefused: it changes what must stay."""
        if old is None:
            return self
        broken = [_error(self.draft, breach) for breach in succession.errors(old, self.market)]
        if broken:
            raise MarketRefused(broken)
        changed = (_warning(self.draft, breach) for breach in succession.warnings(old, self.market))
        return Reviewed(self.draft, (*self.warnings, *changed))


def review(files: Sequence[MarketFile]) -> Reviewed:
    """Read files as one market. Raises MarketRefused with all that is wrong."""
    tree = read(files)
    if tree.root is None:
        raise MarketRefused(tree.errors)
    draft = parse(tree.root)
    misread = (*tree.errors, *draft.errors)
    broken = [_error(draft, breach) for breach in _founded(checks.errors(draft.market), misread)]
    if misread or broken:
        raise MarketRefused((*misread, *broken))
    return Reviewed(draft, tuple(_warning(draft, breach) for breach in cautions.warnings(draft.market)))


def _founded(breaches: Iterable[Breach], misread: Sequence[MarketError]) -> list[Breach]:
    # Where an entry was misread, stand-ins are in its place, and a rule that they break would only confuse.
    entries = {_entry(error.path) for error in misread}
    return [breach for breach in breaches if not {_entry(breach.path), breach.needs} & entries]


def _entry(path: str) -> str:
    return ".".join(path.split(".")[:2])


def _error(draft: Draft, breach: Breach) -> MarketError:
    place = draft.place_of(breach.path)
    return MarketError(place.file, place.line, breach.path, breach.value, breach.reason)


def _warning(draft: Draft, breach: Breach) -> MarketWarning:
    place = draft.place_of(breach.path)
    return MarketWarning(place.file, place.line, breach.path, breach.value, breach.reason)
