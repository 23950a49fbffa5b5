"""A step with a session, as something that the executor runs: a query of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.cache_options import Cache
from reactive_rpc.procedures.steps import Step, Wrapper
from reactive_rpc.procedures.topics import KeyedTopic, Topic
from reactive_rpc.procedures.wire_codec import OutputCodec, UnsupportedTypeError
from reactive_rpc.statements.sessions import AnyAsyncSession, AnySession

__all__ = ["SessionStep", "SessionSteps"]


@dataclass(frozen=True, slots=True)
class StepHandler:
    """How the function of a step wants to be called."""

    step: Step

    @property
    def session(self) -> AnyAsyncSession | AnySession | None:
        """The class of the session that it takes."""
        return self.step.session

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine function."""
        return self.step.is_async

    def arguments(self, session: object, ctx: object, input: Any) -> dict[str, Any]:
        """Return its arguments; its input is the call."""
        return self.step.arguments(session, ctx, input)


class SessionStep:
    """A step with a session, of which results are kept.

    Args:
        path: names it in keys; no other step has it.

    Attributes:
        output: writes and reads the context that it makes.

    Raises:
        DefinitionError: JSON cannot carry that context: results are kept as JSON.
    """

    kind = "query"
    dependencies: frozenset[str] | None = None
    topics: tuple[Topic | KeyedTopic, ...] = ()
    topic_tables: frozenset[str] = frozenset()
    cache = Cache()
    is_cached = True
    around_computation: tuple[Wrapper, ...] = ()

    def __init__(self, step: Step, path: str) -> None:
        self.step = step
        self.path = path
        self.name = step.name
        self.handler = StepHandler(step)
        try:
            self.output = OutputCodec(step.gives or type(None))
        except UnsupportedTypeError as exc:
            raise self.fault(f"the context that it returns is kept as JSON: {exc}") from exc

    @property
    def takes_call(self) -> bool:
        """Whether path and input of the call decide its outcome too."""
        return bool(self.step.call_name)

    @property
    def function(self) -> Callable[..., Any]:
        """The step, which returns the context that it makes, or None."""
        return self._run if self.step.is_async else self._run_sync

    def fault(self, message: str) -> DefinitionError:
        """Return an error with `message` that names the step."""
        return DefinitionError(f"step {self.name}: {message}")

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
        """Return what stands for a step."""
        return self._steps[id(step.function)]
