"""`.ci/glossary.py`, on small projects of which each occurrence is known."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

import glossary
from glossary import Project, Word, check_exceptions, check_types, check_words, read_words

TABLE = """
Some words.

| old word | say | held in |
|---|---|---|
| `gizmo` | device | names, prose |
| `wept` | cried | names |
| `yawn` | on_done | names of `cache/` |

And others.
"""

GIZMO = Word("gizmo", "device", in_prose=True, folder="")
WEPT = Word("wept", "cried", in_prose=False, folder="")


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small projects have no exceptions."""
    monkeypatch.setattr(glossary, "ALLOWED", {})
    monkeypatch.setattr(glossary, "TWICE", {})


def make_project(folder: Path, **files: str) -> Project:
    """Write files of the package, `a__b` for `a/b.py`, and read them; `page` is a page of the docs."""
    page = files.pop("page", "")
    for name, text in {"docs/page.md": page, "docs/glossary.md": TABLE}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return Project(folder)


def test_the_table_is_read() -> None:
    """A row says where a word is held."""
    assert read_words(TABLE) == [GIZMO, WEPT, Word("yawn", "on_done", in_prose=False, folder="cache")]


def test_a_page_without_the_table_is_refused() -> None:
    """Nothing would be held then."""
    with pytest.raises(ValueError, match="no table"):
        read_words("# Glossary\n")


def test_a_row_that_cannot_be_understood_is_refused() -> None:
    """It would hold less than it seems to."""
    with pytest.raises(ValueError, match='"prose" is neither'):
        read_words(TABLE.replace("names, prose", "prose"))


@pytest.mark.parametrize("name", ["gizmo", "_gizmo", "Gizmos", "StreamGizmo", "gizmo_url", "GIZMO_SECONDS", "gizmoing"])
def test_a_word_is_found_as_a_part_of_a_name(name: str) -> None:
    """However it is spelt, and inflected."""
    assert GIZMO.is_in(name)


@pytest.mark.parametrize("name", ["pregizmo", "gizmology", "giz", "agizmo", "gizmoid"])
def test_a_part_of_another_word_is_none(name: str) -> None:
    """Only whole parts count."""
    assert not GIZMO.is_in(name)


def test_an_entry_of_several_words_is_found_in_their_order() -> None:
    """As parts of a longer name, too."""
    word = Word("came_by_connection", "is_server_request", in_prose=False, folder="")
    assert word.is_in("_came_by_connection")
    assert word.is_in("cameByConnection")
    assert not word.is_in("connection_by_came")


def test_an_entry_with_a_capital_is_one_whole_name() -> None:
    """`KnownKeys` is a class; that keys are known is no sin."""
    word = Word("KnownKeys", "CapturedKeys", in_prose=False, folder="")
    assert word.is_in("KnownKeys")
    assert not word.is_in("known_keys")


def test_a_term_of_the_field_is_no_old_word() -> None:
    """What is in flight is in flight."""
    word = Word("flight", "in-flight computation", in_prose=True, folder="")
    assert not word.is_in("in_flight")
    assert not word.is_in("requestsInFlight")
    assert word.is_in("flight_at")
    assert word.count("Single flight: what is in flight, or in-flight, is joined by a flight.") == 1


def test_names_count_once_and_prose_each_time(tmp_path: Path) -> None:
    """Definitions, uses, attributes, arguments, imports and files; docstrings, comments, pages and names of tests."""
    project = make_project(
        tmp_path,
        reactive_rpc__gizmo='''
            """A gizmo; no Gizmo of old."""
            import x as gizmo_url
            class A:
                size = 1
                """Of the gizmo."""
            def f(*, wept): return wept.gizmo(gizmos=f"{wept}")  # the gizmo
            "gizmo"[0] + "a gizmo"
        ''',
        tests__test_a="def test_a_gizmo(gizmo): gizmo.wept\n",
        page="Gizmos and\n`gizmo_url`\n",
    )
    kinds = [found.kind for found in project.find(GIZMO)]
    assert [kinds.count(kind) for kind in range(3)] == [3, 1, 7]  # gizmo, gizmos, gizmo_url; gizmo; the rest
    assert [(found.kind, found.text) for found in project.find(WEPT)] == [(0, "wept"), (1, "wept")]


def test_a_word_of_one_folder_is_held_there(tmp_path: Path) -> None:
    """Elsewhere it may mean something else."""
    project = make_project(tmp_path, reactive_rpc__cache__a="yawned = 1\n", reactive_rpc__b="yawned = yawn = 1\n")
    (found,) = project.find(Word("yawn", "on_done", in_prose=False, folder="cache"))
    assert (found.where, found.text) == ("reactive_rpc/cache/a.py:1", "yawned")


def test_one_more_than_is_allowed_fails_by_name_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind has a number of its own."""
    project = make_project(tmp_path, reactive_rpc__a="wept = 1\nx = wept_at = 2\n", page="gizmo\n")
    monkeypatch.setattr(glossary, "ALLOWED", {"wept": (2, 0, 0), "gizmo": (0, 0, 1)})
    assert check_words(project, [GIZMO, WEPT]) == []
    monkeypatch.setattr(glossary, "ALLOWED", {"wept": (1, 9, 9), "gizmo": (9, 9, 0)})
    in_prose, in_names = check_words(project, [GIZMO, WEPT])
    assert in_prose.startswith('"gizmo": 1 in prose, 0 allowed; say "device"')
    assert "docs/page.md:1  gizmo" in in_prose
    assert '"wept": 2 in names of the package, 1 allowed' in in_names
    assert "reactive_rpc/a.py:1  wept\n" in in_names


def test_a_type_has_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes, and aliases at the top of a module; not constants, not what is private or imported."""
    project = make_project(
        tmp_path,
        reactive_rpc__a="class Key: ...\nclass _Own: ...\nLIMIT = 1\ndef f():\n    Local = 1\n",
        reactive_rpc__b="Key = tuple[str, int]\nclass _Own: ...\nLIMIT = 1\nLocal = 1\n",
        reactive_rpc__c="from reactive_rpc.a import Key\nclass Other:\n    class Key: ...\n",
        tests__d="class Other: ...\n",
    )
    (failure,) = check_types(project)
    assert failure == (
        "Key is defined in 3 modules, 1 allowed: reactive_rpc/a.py:1, reactive_rpc/b.py:1, reactive_rpc/c.py:3"
    )
    monkeypatch.setattr(glossary, "TWICE", {"Key": 3})
    assert check_types(project) == []


def test_an_exception_that_excepts_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who makes it so takes it away."""
    project = make_project(tmp_path, reactive_rpc__a="class Key: ...\n")
    monkeypatch.setattr(glossary, "ALLOWED", {"wept": (1, 0, 0), "boat": (1, 0, 0)})
    monkeypatch.setattr(glossary, "TWICE", {"Key": 2, "Gone": 2})
    assert check_exceptions(project, [WEPT]) == [
        'ALLOWED has "boat", which is not in the glossary',
        "TWICE has Gone, which one module at most defines",
        "TWICE has Key, which one module at most defines",
    ]
