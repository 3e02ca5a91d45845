"""What holds for every test: property tests have no clock, so a busy machine fails none of them."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("edgerm", deadline=None)
settings.load_profile("edgerm")
