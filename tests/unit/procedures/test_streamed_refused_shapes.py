"""Each shape that a handler which yields cannot have, and the message that it is refused with.

The messages stand in `streamed_refused_shapes.txt`; `REACTIVE_WRITE_GOLDEN=1` writes it anew, as for other handlers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, Response, UploadFile
from fastapi.responses import FileResponse
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import DefinitionError, Login, Tracked, define_reactive_function, tracked
from tests.support.golden import check_messages, message_of

GOLDEN = Path(__file__).with_name("streamed_refused_shapes.txt")

define: Any = define_reactive_function


async def one_result() -> int:
    return 1


async def returned_iterator() -> AsyncIterator[int]:
    raise NotImplementedError


def plain_generator() -> Iterator[int]:
    yield 1


async def yields_list() -> list[int]:  # type: ignore[misc]  # what is refused
    yield [1]


async def yields_anything() -> AsyncIterator:  # type: ignore[type-arg]  # what is refused
    yield 1


async def tracks_anything() -> AsyncIterator[Tracked]:  # type: ignore[type-arg]  # what is refused
    yield tracked("1", 1)


async def values() -> AsyncIterator[int]:
    yield 1


async def with_ids() -> AsyncIterator[Tracked[int]]:
    yield tracked("1", 1)


async def with_session(db: AsyncSession) -> AsyncIterator[int]:
    yield 1


async def required_id(last_event_id: str) -> AsyncIterator[Tracked[int]]:
    yield tracked("1", 1)


async def number_as_id(last_event_id: int | None = None) -> AsyncIterator[Tracked[int]]:
    yield tracked("1", 1)


async def default_id(last_event_id: str | None = "0") -> AsyncIterator[Tracked[int]]:
    yield tracked("1", 1)


async def named_ticket(ticket: str) -> AsyncIterator[int]:
    yield 1


def get_db() -> AsyncSession:
    raise NotImplementedError


def of_session(db: Annotated[AsyncSession, Depends(get_db)]) -> int:
    return 1


def of_background(tasks: BackgroundTasks) -> None: ...


def of_answer(response: Response) -> None: ...


async def by_session(found: Annotated[int, Depends(of_session)]) -> AsyncIterator[int]:
    yield 1


async def by_background(found: Annotated[None, Depends(of_background)]) -> AsyncIterator[int]:
    yield 1


async def takes_background(tasks: BackgroundTasks) -> AsyncIterator[int]:
    yield 1


async def by_answer(found: Annotated[None, Depends(of_answer)]) -> AsyncIterator[int]:
    yield 1


async def takes_answer(response: Response) -> AsyncIterator[int]:
    yield 1


async def yields_file() -> AsyncIterator[FileResponse]:
    yield FileResponse("a")


async def takes_file(file: UploadFile) -> AsyncIterator[int]:
    yield 1


subscription = define.subscription
query = define.query(cache=False)

SHAPES = {
    "subscription: one_result": lambda: subscription(one_result),
    "subscription: returned_iterator": lambda: subscription(returned_iterator),
    "subscription: plain_generator": lambda: subscription(plain_generator),
    "subscription: yields_list": lambda: subscription(yields_list),
    "subscription: yields_anything": lambda: subscription(yields_anything),
    "subscription: tracks_anything": lambda: subscription(tracks_anything),
    "subscription: with_session": lambda: subscription(with_session),
    "subscription: required_id": lambda: subscription(required_id),
    "subscription: number_as_id": lambda: subscription(number_as_id),
    "subscription: default_id": lambda: subscription(default_id),
    "subscription: named_ticket": lambda: subscription(named_ticket),
    "subscription: by_session": lambda: subscription(by_session),
    "subscription: by_background": lambda: subscription(by_background),
    "subscription: takes_background": lambda: subscription(takes_background),
    "subscription: by_answer": lambda: subscription(by_answer),
    "subscription: takes_answer": lambda: subscription(takes_answer),
    "subscription: yields_file": lambda: subscription(yields_file),
    "subscription: takes_file": lambda: subscription(takes_file),
    "query: yields_file": lambda: query(yields_file),
    "query: values": lambda: define.query(values),
    "query: with_ids": lambda: query(with_ids),
    "query: returned_iterator": lambda: query(returned_iterator),
    "query: by_answer": lambda: query(by_answer),
    "query: takes_answer": lambda: query(takes_answer),
    "query: by_background": lambda: query(by_background),
    "query: takes_background": lambda: query(takes_background),
    "mutation: values": lambda: define.mutation(values),
    "mutation: with_ids": lambda: define.mutation(with_ids),
    "option: a subscription that is cached": lambda: define.subscription(cache=False)(values),
    "option: a subscription with an isolation": lambda: define.subscription(isolation="serializable")(values),
}  # fmt: skip


def test_each_shape_is_refused_with_its_message() -> None:
    """And no message has changed without somebody reading it."""
    check_messages(GOLDEN, {name: message_of(make, __name__) for name, make in SHAPES.items()})


@pytest.mark.parametrize("name", SHAPES)
def test_each_message_names_what_is_wrong(name: str) -> None:
    """The function, or the option."""
    what = name.partition(": ")[2]
    assert name.startswith("option") or what in message_of(SHAPES[name], __name__)


@pytest.mark.parametrize("id", ["", " 1", "1 ", "a\nb", "é", "a\0b", 7])
def test_id_that_would_not_come_back_is_refused(id: Any) -> None:
    """As it would be another one in a header, or end the event."""
    with pytest.raises(DefinitionError, match="printable ASCII"):
        tracked(id, 1)


def test_shapes_that_are_right() -> None:
    """Each way of writing what is yielded."""

    async def generator(last_event_id: str | None = None) -> AsyncGenerator[Tracked[int], None]:
        yield tracked("a b", 1)

    async def iterable(ctx: Login) -> AsyncIterable[int]:
        yield 1

    assert define.subscription(generator).is_streamed
    assert query(iterable).handler.output is int
