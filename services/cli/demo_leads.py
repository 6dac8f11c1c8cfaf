"""The people of the demo: fictional leads, the same for the same seed, most of them valid.

Every name is invented, every phone number is one of those that are kept for fiction (555-0100 to 555-0199 of each area
code), and every email address is in a domain that belongs to nobody. Nothing here reads or writes a file;
`examples/leads` has what it makes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

SEED = 20_261_122
SHIPPED = 2_200
"""So many submissions are in the files of `examples/leads`."""

Submission: TypeAlias = dict[str, Any]

_INVALID_EACH = 40
_DUPLICATE_EACH = 25
_REPEAT_EACH = 60
_REMEMBERED = 200
_FICTION_FROM, _FICTION_LINES = 100, 100

_STREAMS: tuple[tuple[int, str, str], ...] = (
    (30, "sunform", "solar"),
    (14, "sunform", "roofing"),
    (8, "sunform", "windows"),
    (22, "quotehub", "insurance"),
    (14, "quotehub", "mortgage"),
    (12, "partnerweb", "solar"),
)
"""How many of a hundred leads come from which source, of which type."""

_STATES: Mapping[str, tuple[int, str, tuple[str, ...]]] = {
    "AZ": (14, "850", ("480", "520", "602", "623", "928")),
    "NV": (8, "891", ("702", "725", "775")),
    "NM": (6, "871", ("505", "575")),
    "CA": (18, "900", ("209", "213", "310", "323", "408", "415", "510", "530", "559", "562", "619", "626", "650",
                       "661", "707", "714", "760", "805", "818", "831", "858", "909", "916", "925", "949")),
    "TX": (12, "750", ("210", "214", "254", "281", "361", "409", "469", "512", "713", "806", "817", "830", "832",
                       "903", "915", "936", "940", "956", "972", "979")),
    "NY": (12, "100", ("212", "315", "516", "518", "585", "607", "631", "646", "716", "718", "845", "914", "917")),
    "NJ": (8, "070", ("201", "609", "732", "856", "908", "973")),
    "PA": (7, "190", ("215", "412", "484", "570", "610", "717", "724", "814")),
    "FL": (9, "331", ("239", "305", "321", "352", "386", "407", "561", "727", "772", "813", "850", "863", "904",
                      "941", "954")),
    "CT": (3, "061", ("203", "860")),
    "MA": (3, "021", ("413", "508", "617", "781", "978")),
}  # fmt: skip
"""State: its weight, how its zip codes begin, and its area codes."""

_FIRST = (
    "Ada Alma Amos Anna Bea Ben Cal Carla Celia Cyrus Dana Della Dora Earl Edna Eli Elsa Emil Etta Faye Finn Flora "
    "Gil Greta Gus Hana Hugo Ida Inez Ira Iris Ivan Jada Jonas June Kai Lars Lena Leo Lila Lorna Luca Mabel Mara "
    "Milo Mona Nadia Ned Nell Nico Noor Ola Omar Opal Otis Otto Pia Quinn Raul Rhea Rosa Ruben Saul Sela Tess Theo "
    "Uma Vera Viggo Wanda Willa Xenia Yara Zane Zelda"
)
_LAST = (
    "Abbot Alder Ames Archer Barlow Bell Birch Bloom Brand Brook Burns Cole Crane Cross Dale Drake Dunn Ellis Farrow "
    "Finch Flint Ford Frost Gale Grove Hale Hart Hayes Heath Holt Hyde Ivory Judd Keane Lake Lane Linden Lowe Marsh "
    "Mercer Moss Nash North Oakes Orr Pace Page Pike Quill Rand Reed Ridge Rowe Sage Shaw Snow Stone Swift Tate Thorne "
    "Vale Vance Voss Wade Webb West Wilder Wren York Zeller"
)
_STREETS = (
    "Acacia Birch Cedar Dogwood Elm Fir Hickory Juniper Laurel Maple Oak Pine Spruce Sumac Walnut Willow"
)
_FIRST_NAMES, _LAST_NAMES, _STREET_NAMES = _FIRST.split(), _LAST.split(), _STREETS.split()
_DOMAINS = ("example.com", "example.org", "example.net")

CONSENT_TEXT = "I agree to be called and emailed about my request by up to three companies."


def submissions(seed: int = SEED) -> Iterator[tuple[str, Submission]]:
    """Make one submission after the other, with its source; the first of more are the same as those of fewer."""
    return _Crowd(random.Random(seed)).submissions()


def first(count: int, seed: int = SEED) -> list[tuple[str, Submission]]:
    """Make the first so many."""
    return list(islice(submissions(seed), count))


@dataclass(slots=True)
class _Crowd:
    """The prospects, and what must be remembered of them so that no two share a phone number by accident."""

    chance: random.Random
    lines_used: dict[str, int] = field(default_factory=dict)
    lately: list[tuple[str, Submission]] = field(default_factory=list)

    def submissions(self) -> Iterator[tuple[str, Submission]]:
        number = 0
        while True:
            number += 1
            yield self._submission(number)

    def _submission(self, number: int) -> tuple[str, Submission]:
        if number % _REPEAT_EACH == 0:
            return self.chance.choice(self.lately)
        source, lead_type = self._stream()
        if number % _DUPLICATE_EACH == 0:
            return self._duplicate(number, source)
        lead = self._lead(number, source, lead_type)
        if number % _INVALID_EACH == 0:
            return source, self._spoilt(lead)
        self.lately = [*self.lately[-_REMEMBERED:], (source, lead)]
        return source, lead

    def _stream(self) -> tuple[str, str]:
        weights = [weight for weight, _, _ in _STREAMS]
        _, source, lead_type = self.chance.choices(_STREAMS, weights)[0]
        return source, lead_type

    def _duplicate(self, number: int, source: str) -> tuple[str, Submission]:
        """Send a person again that came in lately, under another reference, from whichever source has the type."""
        known_from, known = self.chance.choice(self.lately)
        again = dict(known)
        if source == "partnerweb" and known["lead_type"] == "solar":
            known_from = source
        again["reference"] = _reference(known_from, number)
        return known_from, again

    def _lead(self, number: int, source: str, lead_type: str) -> Submission:
        state = self._state()
        first_name, last_name = self.chance.choice(_FIRST_NAMES), self.chance.choice(_LAST_NAMES)
        contact = {
            "first_name": first_name,
            "last_name": last_name,
            "email": f"{first_name}.{last_name}.{number}@{self.chance.choice(_DOMAINS)}".lower(),
            "phone": self._phone(state),
        }
        if lead_type in ("solar", "roofing"):
            contact["street"] = f"{self.chance.randint(1, 980)} {self.chance.choice(_STREET_NAMES)} Street"
        lead: Submission = {
            "lead_type": lead_type,
            "reference": _reference(source, number),
            "contact": contact,
            "details": self._details(lead_type, state),
        }
        return self._with_conditions(lead)

    def _with_conditions(self, lead: Submission) -> Submission:
        """Add what only some sources say: a consent, fewer buyers, a buyer that is left out."""
        drawn = self.chance.random()
        if drawn < 0.10:
            lead["consent"] = {
                "text": CONSENT_TEXT,
                "at": "2025-11-03T16:20:00Z",
                "url": "https://example.com/quote",
            }
        elif drawn < 0.13:
            lead["sales_max"] = 2
        elif drawn < 0.15:
            lead["never_to"] = ["rooftop-coop"]
        return lead

    def _state(self) -> str:
        weights = [weight for weight, _, _ in _STATES.values()]
        return self.chance.choices(list(_STATES), weights)[0]

    def _phone(self, state: str) -> str:
        """Give the next number that is kept for fiction; the same one comes again only after all of the state's."""
        used = self.lines_used.get(state, 0)
        self.lines_used[state] = used + 1
        area_codes = _STATES[state][2]
        line = _FICTION_FROM + used // len(area_codes) % _FICTION_LINES
        return f"{area_codes[used % len(area_codes)]}-555-0{line}"

    def _details(self, lead_type: str, state: str) -> dict[str, Any]:
        zip_code = f"{_STATES[state][1]}{self.chance.randint(1, 99):02d}"
        match lead_type:
            case "solar":
                return {
                    "state": state,
                    "zip": zip_code,
                    "monthly_bill": f"{self.chance.randint(60, 420)}.00",
                    "owns_home": self._yes(0.7),
                    "roof_age_years": self.chance.randint(0, 35),
                }
            case "roofing":
                return {"state": state, "zip": zip_code, "storm_damage": self._yes(0.75)}
            case "mortgage":
                return {
                    "state": state,
                    "loan_amount": f"{self.chance.randint(60, 950)}000",
                    "credit": self.chance.choice(("poor", "fair", "good", "good", "excellent")),
                }
            case "insurance":
                return {"state": state, "cars": self.chance.randint(1, 4), "insured_now": self._yes(0.6)}
            case _:
                return {"state": state, "window_count": self.chance.randint(1, 18)}

    def _yes(self, chance: float) -> str:
        return "yes" if self.chance.random() < chance else "no"

    def _spoilt(self, lead: Submission) -> Submission:
        """Make one of the mistakes that forms let through."""
        contact, details = dict(lead["contact"]), dict(lead["details"])
        match self.chance.randrange(5):
            case 0:
                contact["phone"] = "555-0100"
            case 1:
                contact["email"] = "not an address"
            case 2:
                del details["state"]
            case 3:
                details["state"] = "Atlantis"
            case _:
                return {**lead, "lead_type": "timeshare"}
        return {**lead, "contact": contact, "details": details}


def _reference(source: str, number: int) -> str:
    return f"{source[:2].upper()}-{number:06d}"
