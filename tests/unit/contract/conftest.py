"""How properties are tried: an example may take as long as a busy machine makes it."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("gavel", deadline=None)
settings.load_profile("gavel")
