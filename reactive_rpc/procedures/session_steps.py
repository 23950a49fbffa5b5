"""A step with a session, as something that the executor runs: a query of its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.context import Context, can_change
from reactive_rpc.procedures.internal_query import InternalQuery
from reactive_rpc.procedures.steps import Step
from reactive_rpc.procedures.wire_codec import OutputCodec, UnsupportedTypeError
from reactive_rpc.statements.sessions import AnyAsyncSession, AnySession

__all__ = ["KeptContext", "SessionStep", "SessionSteps"]


@dataclass(frozen=True, slots=True)
class StepHandler:
    """How the function of a step wants to be called."""

    step: Step

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine function."""
        return self.step.is_async

    def arguments(self, session: object, ctx: object, input: Any) -> dict[str, Any]:
        """Return its arguments; its input is the call."""
        return self.step.arguments(session, ctx, input)


class KeptContext(InternalQuery):
    """A function with a session that makes a context, of which results are kept: for the executor, a query.

    Args:
        path: names it in keys; no other has it.
        gives: the class of the context that it makes; None if it makes none.

    Attributes:
        output: writes and reads that context.
        gives_same: whether one such context may be given to several calls: nobody can change it.

    Raises:
        DefinitionError: JSON cannot carry the context: results are kept as JSON.
    """

    def __init__(self, name: str, path: str, gives: type[Context] | None) -> None:
        self.name = name
        self.path = path
        self.gives_same = gives is None or not can_change(gives)
        try:
            self.output = OutputCodec(gives or type(None))
        except UnsupportedTypeError as exc:
            raise self.fault(f"the context that it returns is kept as JSON: {exc}") from exc

    def fault(self, message: str) -> DefinitionError:
        """Return an error with `message` that names it."""
        return DefinitionError(f"{self.name}: {message}")


class SessionStep(KeptContext):
    """A step with a session."""

    def __init__(self, step: Step, path: str) -> None:
        super().__init__(f"step {step.name}", path, step.gives)
        self.step = step
        self.handler = StepHandler(step)

    @property
    def session_class(self) -> AnyAsyncSession | AnySession | None:
        """The class of the session that it takes."""
        return self.step.session

    @property
    def takes_call(self) -> bool:
        """Whether path and input of the call decide its outcome too."""
        return bool(self.step.call_name)

    @property
    def function(self) -> Callable[..., Any]:
        """The step, which returns the context that it makes, or None."""
        return self._run if self.step.is_async else self._run_sync

    async def _run(self, **arguments: Any) -> object:
        return self._made(await self.step.function(**arguments))

    def _run_sync(self, **arguments: Any) -> object:
        return self._made(self.step.function(**arguments))

    def _made(self, made: object) -> object:
        self.step.require_as_said(made)
        return made


class SessionSteps:
    """The steps with a session of an application, each under a path of its own.

    Two functions may have one name: those that a factory makes. They are told apart by the order in which procedures
    use them, which is the same in every worker.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self._steps: dict[int, SessionStep] = {}
        names: dict[str, int] = {}
        for step in steps:
            if step.session is None or id(step.function) in self._steps:
                continue
            number = names[step.name] = names.get(step.name, 0) + 1
            path = f"step:{step.name}" if number == 1 else f"step:{step.name}#{number}"
            self._steps[id(step.function)] = SessionStep(step, path)

    def of(self, step: Step) -> SessionStep:
        """Return the session step of a step, also of one that overrides put in the place of another."""
        found = self._steps.get(id(step.function))
        if found is None:
            # INVARIANT (no other step, of any process, has this path): what it makes is given to calls with it alone.
            # It is kept with its function, so that no other one gets its id.
            found = self._steps[id(step.function)] = SessionStep(step, f"step:{step.name}#{secrets.token_hex(12)}")
        return found
