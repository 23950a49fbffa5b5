"""`Capture(...)`: how writes are seen, and what of them is copied beside the database's own tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from pydantic import SecretBytes, SecretStr
from sqlalchemy import Column, MetaData, Table
from sqlmodel import SQLModel

from reactive_rpc.changes.captured_schema import TableCapture
from reactive_rpc.changes.image_policy import ImagePolicy
from reactive_rpc.changes.secrets import says_secret
from reactive_rpc.errors import DefinitionError

__all__ = ["Capture", "CaptureMode", "refuse_missing_tables"]

CaptureMode = Literal["triggers", "installed", "session"]
"""`triggers` sees every write, whoever wrote it, and so does `installed`, by triggers that others have put in place.
`session` sees what this process writes through its mutations."""


@dataclass(frozen=True, kw_only=True)
class Capture:
    """How writes are seen, and what of them is copied.

        ReactiveRPC(url, functions=..., capture=Capture(exclude=[User.email, "audit"], images=[Model.token_count]))

    Attributes:
        mode: `triggers` in the database, which see every writer, and which the start puts in place; `installed`, the
            same triggers, put in place by `reactive-rpc db install` or a migration, which the start verifies, and runs
            no DDL; or, if the database may not have triggers, `session`: the writes of this process's mutations, and
            nothing else.
        exclude: whose values are never copied: columns (`User.email`, `"user.email"`) or tables (`User`, `"audit"`).
            What reads them stays right, and is forgotten more often.
        images: columns whose values are copied although their names say secret.

    Raises:
        DefinitionError: something in it is wrong; the message names it and the way out.
    """

    mode: CaptureMode = "triggers"
    exclude: Sequence[object] = ()
    images: Sequence[object] = ()

    def __post_init__(self) -> None:
        if self.mode not in get_args(CaptureMode):
            raise DefinitionError(f"Capture(mode={self.mode!r}): say 'triggers', 'installed' or 'session'")
        for option in ("exclude", "images"):
            if isinstance(getattr(self, option), str):
                raise DefinitionError(f"Capture({option}={getattr(self, option)!r}): give a list")
            for item in getattr(self, option):
                _name(option, item)

    def policy(self, metadata: MetaData | None) -> ImagePolicy:
        """Return it by the names of tables and columns, with the columns whose models say secret.

        Args:
            metadata: the application's tables; those of SQLModel's are looked at in any case.
        """
        images = frozenset(_name("images", item) for item in self.images)
        tables = [*SQLModel.metadata.tables.values(), *(metadata.tables.values() if metadata is not None else ())]
        secret = {*_secret_by_type(tables), *_secret_by_model(SQLModel)} - images
        return ImagePolicy(exclude=frozenset(_name("exclude", item) for item in self.exclude) | secret, images=images)

    @property
    def is_managed(self) -> bool:
        """Whether the server puts triggers and tables in place; else an administrator does."""
        return self.mode != "installed"

    def check(self, tables: Mapping[str, TableCapture], names: Mapping[str, str]) -> None:
        """Refuse what names nothing in the database.

        Args:
            tables: `{table: how it is captured}`.
            names: `{mapped name: table}`.

        Raises:
            DefinitionError: the message says what there is.
        """
        known = {*tables, *names}
        columns = {f"{name}.{column}" for name in known for column in tables[names.get(name, name)].columns}
        for option, there in (("exclude", known | columns), ("images", columns)):
            for name in (_name(option, item) for item in getattr(self, option)):
                if name not in there:
                    raise DefinitionError(
                        f"Capture({option}=[{name!r}]) names nothing in the database whose values could be copied: the"
                        f" tables are {', '.join(sorted(tables)) or 'none'}"
                    )


def refuse_missing_tables(metadata: MetaData, known: Collection[str]) -> None:
    """Refuse to start without tables of the application's, for a server that makes none.

    Args:
        known: the names of the tables that are there.

    Raises:
        DefinitionError: names them, and the way out.
    """
    missing = sorted(name for name in metadata.tables if name not in known)
    if missing:
        raise DefinitionError(
            f"these tables are missing, and a server with Capture(mode='installed') makes none: {', '.join(missing)}. "
            "Let an administrator create them, by a migration for example, and then run `reactive-rpc db install`"
        )


_WAY_OUT: Final = 'give a column (User.email, "user.email") or a table (User, "user")'


def _name(option: str, item: object) -> str:
    """Return the name of a table or column.

    Raises:
        DefinitionError: it is neither.
    """
    if isinstance(item, str):
        return item
    table = item if isinstance(item, Table) else getattr(item, "__table__", None)
    if isinstance(table, Table):
        return str(table.fullname)
    columns = getattr(getattr(item, "property", None), "columns", None)
    column = columns[0] if columns else item
    if isinstance(column, Column) and isinstance(column.table, Table):
        return _column_name(column)
    raise DefinitionError(f"Capture({option}=[{item!r}]): {_WAY_OUT}")


def _column_name(column: Column[Any]) -> str:
    return f"{column.table.fullname}.{column.name}"


def _secret_by_type(tables: Iterable[Table]) -> Iterator[str]:
    """Yield the columns whose type is called a secret: PasswordType, EncryptedString."""
    return (_column_name(column) for table in tables for column in table.columns if _is_secret(column.type))


def _is_secret(type_: object) -> bool:
    return any(says_secret(cls.__name__) for cls in type(type_).__mro__)


def _secret_by_model(model: type[SQLModel]) -> Iterator[str]:
    """Yield the columns whose field is a SecretStr or SecretBytes, of every model below `model`."""
    for below in model.__subclasses__():
        table = getattr(below, "__table__", None)
        if isinstance(table, Table):
            for name, field in below.model_fields.items():
                if any(secret.__name__ in repr(field.annotation) for secret in (SecretStr, SecretBytes)):
                    column = below.__mapper__.columns.get(name)  # type: ignore[attr-defined]  # a mapped class has one
                    yield f"{table.fullname}.{name if column is None else column.name}"
        yield from _secret_by_model(below)
