"""What an admin decides."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from scrm.api import BusinessRules, Wiring


class EverythingRules(BusinessRules):
    """What handlers compute with."""

    per_order: int = Field(default=1, ge=0, description="Weight of the mark for a paid order.")


class EverythingWiring(Wiring):
    """Where greetings go, and what the hook's callers sign with."""

    book: Path = Path("greetings.txt")
    secret: SecretStr = SecretStr("")
