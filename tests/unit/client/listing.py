"""What can happen to a list in pages, as `tests/vectors/pages.json` spells it."""

from __future__ import annotations

import random
from typing import Any, Final

from reactive_rpc.client.page_list import PageList
from reactive_rpc.client.versions import parse_version
from reactive_rpc.protocol.pages import Page

__all__ = ["act", "play_game", "seen_of"]

PLACES: Final = "abc"


def act(pages: PageList[int], do: dict[str, Any]) -> None:
    """Let a list do what a step says."""
    match do["t"]:
        case "answered" | "told":
            one = pages.intervals[do["at"]]
            page = one.page if do["t"] == "told" else Page(items=do["items"], next=do["next"])
            assert page is not None, "only what has a page can be told to hold"
            version, up_to = parse_version(do["version"]), parse_version(do["upTo"])
            one.take(page, version, up_to=up_to, is_current=do["isCurrent"])
        case "settle":
            pages.settle()
        case "join":
            pages.join()
        case "loadMore":
            pages.load_more()
        case "restart":
            pages.restart()
        case other:
            raise AssertionError(f"no list does {other!r}")


def seen_of(pages: PageList[int]) -> dict[str, Any]:
    """Return all that can be seen of a list."""
    latest = pages.latest()
    return {
        "intervals": [[one.after, one.until] for one in pages.intervals],
        "rows": pages.rows(),
        "hurried": pages.rows(is_hurried=True),
        "behind": [pages.intervals.index(one) for one in pages.behind()],
        "latest": None if latest is None else f"{latest.epoch}:{latest.number}",
        "hasMore": pages.has_more,
        "isLoadingMore": pages.is_loading_more,
    }


def play_game(draw: random.Random, *, limit: int, steps: int) -> list[dict[str, Any]]:
    """Return the steps of a game, and what is seen after each; the answers need not be those of any database."""
    pages: PageList[int] = PageList(limit)
    played = []
    for _ in range(steps):
        do = _any_step(draw, pages)
        act(pages, do)
        played.append({"do": do, "then": seen_of(pages)})
    return played


def _any_step(draw: random.Random, pages: PageList[int]) -> dict[str, Any]:
    kind = draw.choice(["answered"] * 6 + ["told"] * 4 + ["settle"] * 5 + ["join"] * 2 + ["loadMore"] * 3)
    if draw.random() < 0.01:
        kind = "restart"
    at = draw.randrange(len(pages.intervals))
    one = pages.intervals[at]
    if kind not in {"answered", "told"} or (kind == "told" and one.page is None):
        return {"t": "settle" if kind == "told" else kind}
    number = draw.randrange(3)
    epoch = "f" if draw.random() < 0.03 else "e"
    about = {
        "at": at,
        "version": None if draw.random() < 0.03 else f"{epoch}:{number}",
        "upTo": None if draw.random() < 0.03 else f"{epoch}:{number + draw.choice([0, 1, 2, 2])}",
        "isCurrent": draw.random() < 0.85,
    }
    if kind == "told":
        return {"t": kind, **about}
    items = [draw.randrange(100) for _ in range(draw.choice([0, 1, 1, 2, pages.limit, 2 * pages.limit]))]
    return {"t": kind, "items": items, "next": draw.choice([one.until] * 3 + [None, *PLACES]), **about}
