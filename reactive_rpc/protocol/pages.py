"""A page of a list, as it is answered, and the inputs by which it is asked for. Servers and clients share it.

A page is an interval of keys, `(after, until]`, and no number of rows: what is inserted or deleted beside it does not
move it. `docs/how-to/pages.md` says how lists are made of pages.
"""

from __future__ import annotations

from typing import Annotated, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from reactive_rpc.protocol.marks import PAGE, TYPE

__all__ = ["MAX_CURSOR_CHARACTERS", "MAX_LIMIT", "Page", "PageCursor", "PageLimit"]

T = TypeVar("T")

MAX_CURSOR_CHARACTERS: Final = 2_000
"""Two of them fit into the URL of a GET, whatever stands in between."""

MAX_LIMIT: Final = 1_000
"""No procedure may let its callers ask for pages of more rows."""

PageCursor = Annotated[
    Annotated[str, Field(max_length=MAX_CURSOR_CHARACTERS)] | None,
    Field(description="A place in the list, `next` of one of its pages; null: its begin, or its end."),
]
"""A place between two rows of a list: opaque, and right also if the row that it was made of is deleted.

A parameter of a handler, `after: PageCursor = None`.
"""

PageLimit = Annotated[
    int,
    Field(ge=1, le=200, description="How many rows; up to twice as many between `after` and `until`."),
]
"""How many rows a page should have, from 1 to 200."""


class Page(BaseModel, Generic[T]):
    """A page of a list.

    >>> Page[int](items=[1, 2], next=None).model_dump_json()
    '{"items":[1,2],"next":null}'

    Attributes:
        items: the rows, in the list's order.
        next: the cursor after which the list goes on; null if nothing follows.
    """

    model_config = ConfigDict(json_schema_extra={TYPE: PAGE})

    items: list[T]
    next: str | None = Field(description="The cursor after which the list goes on; null if nothing follows.")
