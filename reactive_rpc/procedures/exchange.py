"""The exchange of HTTP that a call is part of, as far as handlers and dependencies may see it and add to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from reactive_rpc.compat.fastapi import BackgroundTasks, Request, Response

__all__ = ["Exchange"]


@dataclass(slots=True)
class Exchange:
    """A request, and the parts of its answer that dependencies and handlers make beside the result.

    Attributes:
        request: None for a call in this process.
        response: its headers, its cookies and its status go with the answer.
        background: the work for after the answer.
        returned: the response that the handler has returned, as the whole answer; None if it returns none.
    """

    request: Request | None = None
    response: Response = field(init=False)
    background: BackgroundTasks = field(init=False)
    returned: Response | None = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget all that was added: a handler that runs again begins anew."""
        self.response = Response()
        del self.response.headers["content-length"]
        self.response.status_code = None  # type: ignore[assignment]  # as FastAPI gives it: nobody has set it
        self.background = BackgroundTasks()
        self.returned = None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Those that were set on the response."""
        return self.response.headers.raw

    def take_background(self) -> list[Callable[[], object]]:
        """Return the work for after the answer, once."""
        tasks, self.background = list(self.background.tasks), BackgroundTasks()
        return list(tasks)
