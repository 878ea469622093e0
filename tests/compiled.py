"""The text of each statement is made once for all the databases that tests open, not for each of them again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy.engine import Engine
from sqlalchemy.engine.default import DefaultDialect

from scrm.db import dumps


class Texts(dict[Any, Any]):
    """SQLAlchemy's cache of one kind of database. Its keys begin with the engine's own dialect; those of one kind are alike."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(key[1:], default)

    def __setitem__(self, key: Any, text: Any) -> None:
        super().__setitem__(key[1:], text)


@contextmanager
def compiled_once() -> Iterator[None]:
    """Let every `scrm.db.Database` that is opened in the block find what others have compiled."""
    texts: dict[str, Texts] = {}

    def share(_dialect: type, engine: Engine) -> None:
        if getattr(engine.dialect, "_json_serializer", None) is dumps:  # as a Database's is: its columns are read alike
            engine._compiled_cache = texts.setdefault(engine.dialect.name, Texts())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DefaultDialect, "engine_created", classmethod(share))
        yield
