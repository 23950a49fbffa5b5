"""The short way of a call by GET: its dependencies by a plan, one look at the log, and what is stored.

The context, the outcomes of steps with a session and the result are looked up one after another with nothing awaited
between. If all of it is stored, the answer is made here, of headers that were spelled before. If not, the call goes on
from where it has come to: nothing of the application's is called twice, and the log is not read again.
`docs/internals/procedures.md` argues why nobody is answered here who would not be on the long way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from fastapi.dependencies.models import Dependant
from starlette.types import Scope, Send

from reactive_rpc.cache.freshness import Freshness
from reactive_rpc.cache.result import CachedResult, ResultKey
from reactive_rpc.compat.uvicorn import Head, write_answer
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.procedures.call import EncodedInput, made_by, query_key, step_key
from reactive_rpc.procedures.calls import Calls
from reactive_rpc.procedures.canonical import canonical, distinct
from reactive_rpc.procedures.context import Context
from reactive_rpc.procedures.context_query import ContextQuery
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.running_call import current_call
from reactive_rpc.procedures.session_steps import SessionStep
from reactive_rpc.procedures.steps import Step
from reactive_rpc.web.routing.answer_headers import Marks, scope_mark
from reactive_rpc.web.routing.conditions import is_held, is_server_request
from reactive_rpc.web.routing.dependencies import Resolved
from reactive_rpc.web.routing.dependency_plan import DependencyPlan, DependencyPlans
from reactive_rpc.web.routing.responses import JSON, REVALIDATE, Headers

__all__ = ["BEGUN", "Begun", "ReadyAnswer", "StoredAnswers"]

BEGUN: Final = "reactive_rpc.begun"
"""Where the scope of a request holds how far its call has come, if something was begun for it: see `begin`."""

MAX_KNOWN: Final = 1024
"""How many answers one procedure remembers the headers of, and how many callers; all are forgotten past it."""

MAX_CONTEXT_BYTES: Final = 1024
"""The longest context that is remembered."""


class ReadyAnswer(NamedTuple):
    """An answer to GET that is ready to be sent."""

    head: Head
    body: bytes

    @property
    def messages(self) -> tuple[dict[str, object], dict[str, object]]:
        """The two messages of ASGI; the headers are a copy, as a middleware may change the list that it is sent."""
        start = {"type": "http.response.start", "status": self.head.status, "headers": [*self.head.headers]}
        return start, {"type": "http.response.body", "body": self.body}

    async def __call__(self, send: Send) -> None:
        """Send it."""
        if not write_answer(send, self.head, self.body):
            for message in self.messages:
                await send(message)


Begun = ReadyAnswer | Resolved | Exception | None
"""How far a call has come: its answer, what its dependencies made, the error that it ended by; None is nowhere."""


class _Caller(NamedTuple):
    """What a context is in keys and answers.

    Attributes:
        spelled: the canonical context; nothing if the handler gets none.
        mark: the header that names the caller's scope.
    """

    spelled: bytes
    mark: Headers


_NOBODY: Final = _Caller(b"", ())

NO_HEAD: Final = Head(500, ())
"""Of what was never answered."""


@dataclass(slots=True)
class _Known:
    """An answer that was given before: where its result is stored, and its headers as they were last.

    Attributes:
        etag: of the result that the headers speak of; compared as an object.
        token: the cursor that they name; compared as an object.
        tag: the ETag, as a client sends it.
        whole: the head of an answer with the result.
        held: the head of one to a client that holds it.
    """

    key: ResultKey
    etag: str = ""
    token: str = ""
    tag: bytes = b""
    whole: Head = NO_HEAD
    held: Head = NO_HEAD


class StoredAnswers:
    """Answers calls of one query by what is stored.

    Args:
        seen: `{(False, query string): its input}` of those decoded lately.
        marks: of the endpoint's answers.
        plans: of the endpoint's dependencies.

    Attributes:
        is_possible: whether calls of this procedure may go this way: nothing stands before its result but contexts and
            steps with a session, whose outcomes are kept by the context before them.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        path: str,
        procedure: AnyProcedure,
        seen: Mapping[tuple[bool, bytes], EncodedInput],
        marks: Marks,
        plans: DependencyPlans,
    ) -> None:
        self._path = path
        self._procedure = procedure
        self._calls = calls
        self._reader = calls.reader
        self._freshness: Freshness = calls.reader.freshness
        self._seen = seen
        self._marks = marks
        self._plans = plans
        self._takes_context = procedure.handler.context is not None
        self._has_steps = bool(procedure.calls)
        self._known: dict[tuple[bytes, _Caller], _Known] = {}
        self._callers: dict[tuple[object, ...], _Caller] = {}
        self._steps: Sequence[SessionStep] | None = None
        self.is_possible = (
            procedure.is_cached
            and procedure.plans is None
            and procedure.response_class is None
            and not procedure.is_wrapped
            and not procedure.asks_origin
            and all(isinstance(part, Step) and part.session is not None for part in procedure.calls)
        )

    async def begin(self, scope: Scope, dependencies: Sequence[Dependant]) -> Begun:
        """Return the answer, if it is stored; else how far the call has come, or the error that it has ended by.

        None if nothing has been done for it: it goes the long way from its beginning.
        """
        # Inside of another call all that is read counts for that one; and what is overridden is for the long way.
        if current_call() is not None or (self._procedure.calls and self._is_overridden(scope)):
            return None
        try:
            if not dependencies:
                return await self._find(scope, None)
            plan = self._plans.of(dependencies)
            values = None if plan is None or scope["app"].dependency_overrides else plan.read(scope)
            if plan is None or values is None:
                return None
            if plan.query is not None:
                return await self._find_by_query(scope, plan, query=plan.query, values=values)
            if plan.asks_queries:
                return None
            return await self._find(scope, await plan.solve(values))
        except Exception as exc:
            return exc

    def _is_overridden(self, scope: Scope) -> bool:
        return self._calls.is_overridden or bool(getattr(scope.get("app"), "dependency_overrides", None))

    async def _find(self, scope: Scope, ctx: Any) -> ReadyAnswer | Resolved:
        """Return the answer for a context; how far the call has come if not all of it is stored."""
        first = self._calls.admitted(self._procedure, ctx)
        caller = self._caller_of(first, ctx)
        if caller is None or (False, scope["query_string"]) not in self._seen:
            return Resolved(ctx)
        try:
            is_server = is_server_request()
            if not self._freshness.shares_look(is_server_request=is_server):
                await self._freshness.sync_to_head(is_server_request=is_server)
        except ServiceUnavailableError as outage:
            return Resolved(ctx, outage=outage)
        # INVARIANT (no await from here to the return): all that is found is right at one version of the log.
        return self._stored(scope, first, caller) or Resolved(ctx, is_log_read=True)

    async def _find_by_query(
        self, scope: Scope, plan: DependencyPlan, *, query: ContextQuery, values: list[object]
    ) -> ReadyAnswer | Resolved:
        """As `_find`, of a context that is a query: its outcome is looked up like the result, after the same look."""
        calls = self._calls
        asked = calls.context_call(query, await plan.before_query(values))
        # INVARIANT (what the application's code may have written meanwhile is seen): only where none has run for this
        # request, its look may be one that others have made since it was read from its connection.
        is_server = plan.is_bare and is_server_request()
        if not self._freshness.shares_look(is_server_request=is_server):
            await self._freshness.sync_to_head(is_server_request=is_server)
        # INVARIANT (no await from here to the answer): a right that was lost before is lost in the look-up too, and
        # what the result shows is no later than the right to see it.
        outcome = self._reader.peek(asked.key)
        if outcome is None:
            found = await calls.found_context(asked, is_log_read=True)
            return Resolved(found.made, asked=found)
        made = asked.outcome_of(outcome, outcome.with_bytes())
        first = calls.admitted(self._procedure, made)
        caller = self._caller_of(first, made)
        answer = None if caller is None else self._stored(scope, first, caller)
        self._reader.count_hit(outcome)
        if answer is not None:
            return answer
        return Resolved(made, asked=calls.kept_context(asked, outcome, made))

    def _stored(self, scope: Scope, first: Context, caller: _Caller) -> ReadyAnswer | None:
        """Return the answer, if every outcome before it and its result are stored; in the step that has read the log.

        Raises:
            RPCError: a step has refused.
        """
        passed: list[CachedResult] = []
        if self._has_steps:
            spelled = self._after_steps(caller.spelled, passed)
            if spelled is None:
                return None
            caller = _Caller(spelled if self._takes_context else b"", caller.mark)
        known = self._known.get((scope["query_string"], caller))
        if known is None:
            known = self._known_of(scope["query_string"], first, caller)
        result = None if known is None else self._reader.peek(known.key)
        if known is None or result is None or result.outcome is None or result.error is not None:
            return None
        for each in passed:
            self._reader.count_hit(each)
        self._reader.count_hit(result)
        return self._answer(scope, known, result=result, caller=caller, body=result.outcome.body)

    def _after_steps(self, spelled: bytes, passed: list[CachedResult]) -> bytes | None:
        """Return the canonical form of the context that the steps make; None if the outcome of one is not stored."""
        if self._steps is None:
            steps = [part for part in self._procedure.calls if isinstance(part, Step)]
            self._steps = [self._calls.registry.session_steps.of(step) for step in steps]
        for step in self._steps:
            outcome = self._reader.peek(step_key(step, spelled, None))
            if outcome is None or outcome.outcome is None or outcome.error is not None:
                return None
            passed.append(outcome)
            made = made_by(step, outcome, outcome.outcome)
            if made.ctx is None:
                continue
            if made.spelled is None:  # it will expire, which the long way sees to
                return None
            spelled = made.spelled
        return spelled

    def _answer(
        self, scope: Scope, known: _Known, *, result: CachedResult, caller: _Caller, body: bytes
    ) -> ReadyAnswer:
        token = self._freshness.token
        # INVARIANT (compared as objects, which are held here): a result that was computed anew has another object for
        # its ETag, and the token is the same object only while the log stands still. A result that is stored says of
        # itself the same until then.
        if result.etag is not known.etag or token is not known.token:
            known.tag = result.etag.encode()
            said = ((b"etag", known.tag), REVALIDATE, *self._marks.of(token, self._reader.version_of(result)))
            said += tuple(caller.mark)
            known.whole = Head(200, (JSON, *said, (b"content-length", b"%d" % len(body))))
            known.held = Head(304, said)
            known.etag, known.token = result.etag, token
        if is_held(scope, known.tag):
            return ReadyAnswer(known.held, b"")
        return ReadyAnswer(known.whole, body)

    def _known_of(self, text: bytes, ctx: Context, caller: _Caller) -> _Known | None:
        """Return where the result for an input and a caller is stored; None if its input was not decoded lately."""
        input = self._seen.get((False, text))
        if input is None:
            return None
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        key = query_key(self._path, self._procedure, input.canonical, ctx=ctx, spelled=caller.spelled)
        made = self._known[text, caller] = _Known(key)
        return made

    def _caller_of(self, first: Context, ctx: object) -> _Caller | None:
        """Return what a context is in keys and answers; None if it is long, or can be no part of a key.

        Args:
            first: as the steps and the handler get it.
            ctx: as the application has made it.
        """
        if not (self._takes_context or self._procedure.calls):
            return _NOBODY if ctx is None else _Caller(b"", tuple(scope_mark(ctx)))
        # INVARIANT (remembered by what tells apart all that a handler can): contexts that are merely equal may be
        # spelled otherwise, `1` and `True`. Of those for which that cannot be said by their fields, nothing is kept.
        fields = distinct(first)
        found = None if fields is None else self._callers.get(fields)
        if found is not None:
            return found
        try:
            spelled = canonical(first)
        except TypeError:
            return None  # which the long way says
        made = _Caller(spelled, tuple(scope_mark(ctx)))
        if fields is not None and len(spelled) <= MAX_CONTEXT_BYTES:
            if len(self._callers) >= MAX_KNOWN:
                self._callers.clear()
            self._callers[fields] = made
        return made
