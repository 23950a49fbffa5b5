"""What the tests of generated packages share."""

from __future__ import annotations

import pytest

from .generated import TypeCheckers


@pytest.fixture(scope="session")
def type_checkers(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> TypeCheckers:
    cache = pytestconfig.cache
    return TypeCheckers(cache.mkdir("mypy_typing") if cache else tmp_path_factory.mktemp("mypy_typing"))
