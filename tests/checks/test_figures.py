"""`.ci/figures.py`, on small packages of which each figure is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

import figures
from figures import Figure, Measured, Package

CASES: list[tuple[Callable[[Package], Measured], float, list[str], str]] = [
    (
        figures.modules,
        3,
        [],
        """
        == a.py
        == b/__init__.py
    """,
    ),
    (
        figures.lines,
        4,
        ["pkg/a.py"],
        '''
        == a.py
        """Head."""

        # why
        x = 1
    ''',
    ),
    (
        figures.code_lines,
        3,
        ["pkg/a.py"],
        '''
        == a.py
        """Head."""

        # why
        x = (
            1,
        )
    ''',
    ),
    (
        figures.functions,
        3,
        [],
        """
        == a.py
        def f():
            def g(): ...
        class C:
            async def h(self): ...
    """,
    ),
    (
        figures.longest_function,
        2,
        ["pkg/a.py:1"],
        '''
        == a.py
        def f():
            """One.

            Two.
            """
            # why
            return 1
    ''',
    ),
    (
        figures.largest_class,
        3,
        ["pkg/a.py:1", "pkg/a.py:5"],
        """
        == a.py
        class C:
            x = 1

            y = 2
        class D: ...
    """,
    ),
    (
        figures.import_cycles,
        1,
        ["pkg/"],
        """
        == a.py
        from pkg import b
        == b.py
        from pkg.c import x
        == c.py
        import pkg.a
        x = 1
    """,
    ),
    (
        figures.import_cycles,
        0,
        [],
        """
        == a.py
        from pkg import b, c
        == b.py
        from .c import x
        == c.py
        import os
        x = 1
    """,
    ),
    (
        figures.import_cycles,
        1,
        ["pkg/"],
        """
        == a.py
        def f():
            from .b import x
        == b.py
        from . import a
        x = 1
    """,
    ),
    (
        figures.largest_fan_out,
        2,
        ["pkg/a.py"],
        """
        == a.py
        import os
        from pkg import b
        from pkg.c import x, y
        == b.py
        == c.py
        x = y = 1
    """,
    ),
    (
        figures.layers,
        2,
        ["pyproject.toml", "pyproject.toml"],
        """

    """,
    ),
    (
        figures.comment_share,
        50,
        [],
        """
        == a.py
        # why
        x = 1  # noqa: E501
        # noqa
        y = 2  # beside
    """,
    ),
    (
        figures.what_in_docstrings,
        333.3,
        ["pkg/a.py"],
        '''
        == a.py
        """What it holds of what, whatever."""
        # what
    ''',
    ),
    (
        figures.where_in_docstrings,
        333.3,
        ["pkg/a.py"],
        '''
        == a.py
        def f():
            """Where it is."""
            return "where"
    ''',
    ),
    (
        figures.long_heads,
        1,
        ["pkg/b.py"],
        '''
        == a.py
        """Head.
        x
        x
        x
        x
        x
        x
        x
        x
        x
        x
        x
        x
        x
        """
        == b.py
        """Head.
        x
        x
        x
        x
        x
        x
        x
        x
        x
        x
        x
        x
        x
        x
        """
    ''',
    ),
    (
        figures.duplicates,
        1,
        ["pkg/a.py:1"],
        """
        == a.py
        a = 1
        b = 2
        c = 3
        d = 4
        e = 5
        f = 6
        == b.py
        x = 0
        if x:
            a = 1
            b = 2
            c = 3
            d = 4
            e = 5
            f = 6
    """,
    ),
    (
        figures.duplicates,
        1,
        ["pkg/a.py:1"],
        """
        == a.py
        z = 0
        a = 1
        b = 2
        c = 3
        d = 4
        e = 5
        f = 6
        == b.py
        z = 0

        # why
        a = 1
        b = 2
        c = 3
        d = 4
        e = 5
        f = 6
    """,
    ),
    (
        figures.duplicates,
        0,
        [],
        """
        == a.py
        a = 1
        b = 2
        c = 3
        d = 4
        e = 5
        f = 6
        a = 1
        b = 2
        c = 3
        d = 4
        e = 5
        f = 6
    """,
    ),
    (
        figures.duplicates,
        0,
        [],
        """
        == a.py
        a = 1
        b = 2
        c = 3
        d = 4
        e = 5
        f = 6
        == b.py
        a = 1
        b = 2
        c = 0
        d = 4
        e = 5
        f = 6
    """,
    ),
    (
        figures.many_positional,
        1,
        ["pkg/a.py:1"],
        """
        == a.py
        def f(a, b, c, d): ...
        def g(a, b, c, *, d): ...
        class C:
            def h(self, a, b, c): ...
    """,
    ),
    (
        figures.foreign_private_names,
        2,
        ["pkg/a.py:1", "pkg/a.py:2"],
        """
        == a.py
        import _thread
        from asyncio.tasks import _enter_task as enter
    """,
    ),
    (
        figures.foreign_private_names,
        2,
        ["pkg/a.py:2", "pkg/a.py:3"],
        """
        == a.py
        def f(x):
            x._hidden
            getattr(x, '_hidden')
            x.__class__
            x._replace(a=1)
    """,
    ),
    (
        figures.foreign_private_names,
        0,
        [],
        """
        == a.py
        class C:
            def __init__(self, x):
                self._y = x._y
    """,
    ),
    (
        figures.foreign_private_names,
        1,
        ["pkg/b.py:3"],
        """
        == a.py
        class C:
            _y = 1
        == b.py
        class D:
            def f(self):
                self._y, self._z
    """,
    ),
    (
        figures.foreign_private_names,
        1,
        ["pkg/b.py:2"],
        """
        == a.py
        class C:
            _y = 1
        == b.py
        def f(c):
            return c._y
    """,
    ),
    (
        figures.foreign_private_names,
        1,
        ["pkg/a.py:3"],
        """
        == a.py
        import http.client as h
        class C(h.HTTPConnection):
            def _tunnel(self): ...
            def _own(self): ...
    """,
    ),
    (
        figures.foreign_private_names,
        1,
        ["pkg/b.py:4"],
        """
        == a.py
        from http.client import HTTPConnection
        class B(HTTPConnection): ...
        == b.py
        from pkg.a import B
        class C(B): ...
        class D(C):
            def _tunnel(self): ...
    """,
    ),
    (
        figures.foreign_private_names,
        1,
        ["pkg/a.py:2"],
        """
        == a.py
        from json import dumps
        dumps(1, _hidden=2)
    """,
    ),
    (
        figures.foreign_private_names,
        0,
        [],
        """
        == a.py
        class C:
            _own = 1
        C(_own=2)
    """,
    ),
    (
        figures.foreign_private_names,
        0,
        [],
        """
        == compat/a.py
        import _thread
    """,
    ),
]


def make_package(folder: Path, text: str) -> Package:
    """Write the files of `text`, each of which stands under a line `== name`."""
    for part in ["__init__.py\n", *dedent(text).lstrip("\n").split("== ")[1:]]:
        name, _, content = part.partition("\n")
        path = folder / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return Package(folder / "pkg", layers=["pkg.a", "pkg.b"])


@pytest.mark.parametrize(
    ("measure", "value", "places", "text"), CASES, ids=[f"{n}-{case[0].__name__}" for n, case in enumerate(CASES)]
)
def test_each_figure_is_that_of_a_small_package(
    measure: Callable[[Package], Measured], value: float, places: list[str], text: str, tmp_path: Path
) -> None:
    """Value and places are as counted by hand."""
    found = measure(make_package(tmp_path, text))
    assert found.value == value
    wheres = sorted(place.where for place in found.places if place.amount and "__init__" not in place.where)
    assert len(wheres) == len(places)
    assert all(where.startswith(expected) for where, expected in zip(wheres, places, strict=True))


def test_median_and_p90_are_of_the_functions_lines_of_code(tmp_path: Path) -> None:
    """Ten functions have 2 to 11 lines: half of them at most 6, nine of them at most 10."""
    text = "== a.py\n" + "".join(f"def f{n}():\n" + "    x = 1\n" * n for n in range(1, 11))
    package = make_package(tmp_path, text)
    assert figures.median_function(package).value == 6.5
    assert figures.p90_function(package).value == 10


def test_a_figure_beyond_its_bound_fails_by_name_and_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bound that is kept passes; one that is not yields the figure, both numbers, and the worst place first."""
    text = """
        == a.py
        def small(a, b, c, d): ...
        def large(a, b, c, d, e): ...
    """
    package = make_package(tmp_path, text)
    assert figures.check(package, [Figure(figures.many_positional, "at most", 2)]) == []
    assert figures.check(package, [Figure(figures.comment_share, "at least", 0)]) == []
    (failure,) = figures.check(package, [Figure(figures.many_positional, "at most", 1)])
    first, worst, other = failure.splitlines()
    assert first == "many positional: 2, and the bound is at most 1:"
    assert worst.split() == ["5", "pkg/a.py:2", "large"]
    assert other.split() == ["4", "pkg/a.py:1", "small"]
    assert figures.check(package, [Figure(figures.comment_share, "at least", 0.1)])
    assert "many positional" in capsys.readouterr().out


def test_the_package_and_its_layers_are_read_from_the_project() -> None:
    """`pyproject.toml` names both."""
    package = figures.read_package(figures.ROOT)
    assert "reactive_rpc.app" in package
    assert package.layers
