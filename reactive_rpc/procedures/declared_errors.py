"""Declared errors: exceptions with typed fields, which a procedure names in `raises=` and clients get as they are.

The fields are validated and carried as JSON by the codec of results. The class itself knows its model; the document
describes it, and the generated client has an exception of the same name. An error that a procedure raises and does not
name is no part of what its clients were generated from: `RaisedErrors` keeps it from them.
"""

from __future__ import annotations

import inspect
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import Field as DataclassField
from dataclasses import FrozenInstanceError
from string import Formatter
from typing import Any, ClassVar, Final, dataclass_transform, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic_core import PydanticSerializationError

from reactive_rpc.errors import DefinitionError, InternalServerError, RPCError, rpc_error
from reactive_rpc.procedures.handler import has_schema
from reactive_rpc.procedures.wire_codec import OutputCodec, UnsupportedTypeError
from reactive_rpc.protocol.codes import CODES
from reactive_rpc.protocol.faults import faults_of, places_of

__all__ = ["DeclaredError", "RaisedErrors"]

logger = logging.getLogger(__name__)


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=False, field_specifiers=(Field,))
class DeclaredError(RPCError):
    """Base of an application's own errors: typed fields, which clients get with their types.

    A subclass is a frozen dataclass, made by keywords. The first line of its docstring is the message; `{seat}` stands
    for a field. Name it in `raises=[...]` of the procedures that raise it, or in `raises=` of their definer: the
    generated client then has an exception of the same name, with the same fields.

    >>> class SeatTaken(DeclaredError, code="CONFLICT"):
    ...     '''seat {seat} is taken'''
    ...     seat: str
    ...     taken_by: str | None = None
    >>> error = SeatTaken(seat="4B")
    >>> print(error, error.seat, error.details)
    seat 4B is taken [CONFLICT] 4B {'seat': '4B', 'taken_by': None}

    Args:
        fields: the fields that the class declares, by name.

    Raises:
        DefinitionError: at the definition of a class: it cannot be such an error; the message says the way out.
        TypeError: a field is missing, unknown, or not of its type.
    """

    details_model: ClassVar[type[BaseModel]]
    """What the fields are validated and documented by."""
    details_codec: ClassVar[OutputCodec]
    said: ClassVar[str] = ""
    """Its message, with `{field}` for the fields."""

    def __init_subclass__(cls, *, code: str | None = None) -> None:
        """Make an error of a class.

        Args:
            code: of the error, a key of `protocol.codes.CODES`; that of the error that it extends if left out.

        Raises:
            DefinitionError: it cannot be one.
        """
        super().__init_subclass__()
        cls.type = cls.__name__
        cls.code = _code(cls, code)
        cls.details_model = _model(cls)
        try:
            cls.details_codec = OutputCodec(cls.details_model, what="the fields")
        except UnsupportedTypeError as exc:
            raise _refusal(cls, str(exc).replace("the fields.", "the field ")) from exc
        cls.said = _template(cls)

    def __init__(self, **fields: Any) -> None:
        if type(self) is DeclaredError:
            raise TypeError('extend DeclaredError: class SeatTaken(DeclaredError, code="CONFLICT"), and raise that')
        details = _validated(type(self), fields)
        values = {name: getattr(details, name) for name in self.details_model.model_fields}
        vars(self).update(values)
        super().__init__(self.said.format(**values), details=_json_of(type(self), details))

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.details_model.model_fields:
            raise FrozenInstanceError(f"cannot assign to field {name!r} of {type(self).__name__}")
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (type(self), self.args, vars(self))

    def detached(self, *, path: str | None = None) -> RPCError:
        """Return a copy without the traceback, whose frames would keep what they hold alive.

        Args:
            path: the procedure, where the error does not name one itself.
        """
        copy = super().detached(path=path)
        for name in self.details_model.model_fields:
            with suppress(Exception):  # what cannot be copied is shared
                vars(copy)[name] = deepcopy(vars(self)[name])
        return copy


def _remade(cls: type[DeclaredError], args: tuple[Any, ...], state: dict[str, Any]) -> DeclaredError:
    """Return a copy of an error that was made already."""
    copy = cls.__new__(cls, *args)
    vars(copy).update(state)
    return copy


_RESERVED: Final = frozenset(dir(RPCError)) | {"message", "details", "path", "request_id", "headers"} | {
    "details_model", "details_codec", "said",
}  # fmt: skip
"""What an error has already."""

_OF_MODELS: Final = frozenset(name for name in dir(BaseModel) if name.startswith("model_"))


class RaisedErrors:
    """Holds the errors that procedures raise against those that they declare.

    Args:
        strict: whether one that is not declared is a fault of its own (development); if not, it is answered without its
            type, and logged once (production).
        spell: gives a field's name on the wire.
    """

    def __init__(self, *, strict: bool, spell: Callable[[str], str] = str) -> None:
        self._strict = strict
        self._spell = spell
        self._warned: set[tuple[str, type[DeclaredError]]] = set()

    @contextmanager
    def checked(self, path: str, raises: tuple[type[RPCError], ...] | None) -> Iterator[None]:
        """Let only declared errors pass that are in `raises`; all of them where it is None.

        Args:
            path: of the procedure.

        Raises:
            InternalServerError: there was another, in development.
            RPCError: its code, message and details, in production.
        """
        try:
            yield
        except DeclaredError as exc:
            self.require_declared(path, raises, exc)
            raise

    def require_declared(self, path: str, raises: tuple[type[RPCError], ...] | None, error: DeclaredError) -> None:
        """Do as `checked` with an error that was raised; on the way of a hit, where a block costs more than a `try`.

        Raises:
            RPCError: as `checked`.
        """
        self._spell_details(error)
        if raises is not None and type(error) not in raises:
            raise self._answer(path, error) from error

    def _spell_details(self, error: DeclaredError) -> None:
        """Give the details of an error their names on the wire; those that have them keep them."""
        fields = type(error).details_model.model_fields
        if isinstance(error.details, dict):
            error.details = {self._spell(name) if name in fields else name: it for name, it in error.details.items()}

    def _answer(self, path: str, error: DeclaredError) -> RPCError:
        cls = type(error)
        message = (
            f"{path} raises {cls.__name__}, which is not among the errors that it declares: add it to raises=[...] of "
            "the procedure, or of its definer where a step raises it"
        )
        if self._strict:
            return InternalServerError(message, path=path)
        if (path, cls) not in self._warned:
            self._warned.add((path, cls))
            logger.warning("%s; clients get it without its type", message)
        plain = rpc_error(error.code, error.message, details=error.details, path=error.path)
        plain.headers = dict(error.headers)
        return plain


def _refusal(cls: type, message: str) -> DefinitionError:
    return DefinitionError(f"{cls.__module__}.{cls.__qualname__}: {message}")


def _code(cls: type[DeclaredError], code: str | None) -> str:
    if code is None and cls.code == DeclaredError.code:
        raise _refusal(cls, f'it has no code: write class {cls.__name__}(DeclaredError, code="CONFLICT")')
    if code is None and "code" in vars(cls):
        raise _refusal(cls, f'its code is an argument: write class {cls.__name__}(DeclaredError, code="{cls.code}")')
    found = cls.code if code is None else code
    if found not in CODES:
        raise _refusal(cls, f"the code {found!r} is unknown: say one of {', '.join(CODES)}")
    return found


def _declaring(cls: type[DeclaredError]) -> list[type[DeclaredError]]:
    """Return the classes whose fields an error has, the outermost first."""
    bases = [base for base in reversed(cls.__mro__) if issubclass(base, DeclaredError) and base is not DeclaredError]
    return bases


def _model(cls: type[DeclaredError]) -> type[BaseModel]:
    if "__init__" in vars(cls):
        raise _refusal(cls, "it has an __init__ of its own: leave it out, the fields make one")
    hints = _hints(cls)
    names = {name: base for base in _declaring(cls) for name in inspect.get_annotations(base)}
    fields: dict[str, Any] = {
        name: (hints[name], _default(cls, base, name)) for name, base in names.items() if not _is_of_class(hints[name])
    }
    for name in fields:
        _require_free(cls, name)
    made = _made_model(cls, fields)
    for name, field in made.model_fields.items():
        if field.alias or field.validation_alias or field.serialization_alias or field.exclude:
            raise _refusal(cls, f"the field {name} is called and carried by its own name: leave alias and exclude out")
    return made


def _hints(cls: type[DeclaredError]) -> dict[str, Any]:
    try:
        return get_type_hints(cls, include_extras=True)
    except Exception as exc:  # an annotation may be any expression
        raise _refusal(
            cls, f"an annotation cannot be resolved: {exc}. Import or define what it names before the class"
        ) from exc


def _is_of_class(hint: Any) -> bool:
    return hint is ClassVar or get_origin(hint) is ClassVar


def _default(cls: type[DeclaredError], base: type[DeclaredError], name: str) -> Any:
    default = vars(base).get(name, ...)
    if isinstance(default, DataclassField):
        raise _refusal(cls, f"the field {name} has a field(...) of dataclasses: use pydantic's Field(...)")
    return default


def _require_free(cls: type[DeclaredError], name: str) -> None:
    if name in _RESERVED:
        raise _refusal(cls, f"each error has {name!r} already: give the field another name")
    if name.startswith("_") or name in _OF_MODELS:
        way = "pydantic's models have it" if name in _OF_MODELS else "it begins with _"
        raise _refusal(cls, f"{name!r} cannot be a field, as {way}: give it another name")


def _made_model(cls: type[DeclaredError], fields: dict[str, Any]) -> type[BaseModel]:
    config = ConfigDict(
        extra="forbid",
        protected_namespaces=(),
        validate_default=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
        json_schema_serialization_defaults_required=True,
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*shadows an attribute", category=UserWarning)
            model: type[BaseModel] = create_model(
                f"{cls.__name__}Details", __config__=config, __module__=cls.__module__, **fields
            )
    except (PydanticUserError, NameError, TypeError) as exc:
        place = next((f"the field {name}" for name, (kind, _) in fields.items() if not has_schema(kind)), "its fields")
        raise _refusal(cls, f"{place}: no schema can be made of it: {str(exc).strip().splitlines()[0]}") from exc
    return model


def _template(cls: type[DeclaredError]) -> str:
    """Return the message with places for the fields; python -OO leaves no docstring, and the code's words remain."""
    said = next((vars(base)["__doc__"] for base in reversed(_declaring(cls)) if vars(base).get("__doc__")), "")
    template = said.strip().partition("\n")[0].strip()
    try:
        places = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as exc:
        raise _refusal(cls, f"the first line of its docstring is no message: {exc}; write {{{{ for a brace") from exc
    for place in places:
        if place not in cls.details_model.model_fields:
            known = ", ".join(cls.details_model.model_fields) or "none"
            raise _refusal(cls, f"its message names {{{place}}}, which is no field (it has: {known})")
    return template


def _validated(cls: type[DeclaredError], fields: dict[str, Any]) -> BaseModel:
    """Return the model of the fields; what is wrong is said without the values, which may be anybody's."""
    try:
        return cls.details_model.model_validate(fields, from_attributes=True)
    except ValidationError as exc:
        faults = faults_of(exc.errors(include_url=False, include_input=False, include_context=False))
        raise TypeError(f"{cls.__name__}: {places_of(faults[:1], whole='a field')}: {faults[0]['message']}") from None


def _json_of(cls: type[DeclaredError], details: BaseModel) -> Any:
    codec = cls.details_codec
    try:
        body = codec.adapter.dump_json(details, by_alias=True, warnings="error")
    except PydanticSerializationError as exc:
        raise TypeError(f"{cls.__name__}: a field is no JSON: {str(exc).splitlines()[0]}") from None
    if unfit := codec.unfit(details, body):
        raise TypeError(f"{cls.__name__}: {unfit.where}: {unfit.message}")
    return json.loads(body)
