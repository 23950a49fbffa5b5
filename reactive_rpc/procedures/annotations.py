"""What an annotation says beside metadata: `Annotated[AsyncSession, Depends(get_db)]` is an `AsyncSession`."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

__all__ = ["plain"]


def plain(annotation: Any) -> Any:
    """Return an annotation without its metadata, and without the name of an alias (`type SessionDep = ...`).

    >>> plain(Annotated[Annotated[int, "at least"], "one"])
    <class 'int'>
    """
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif type(annotation).__name__ == "TypeAliasType":  # of typing, from 3.12, and of typing_extensions
            annotation = annotation.__value__
        else:
            return annotation
