"""tRPC's wire below one prefix: reads a request, makes its calls, and answers in the words of the reference server.

Source: tRPC v11, `packages/server/src/unstable-core-do-not-import/http/resolveResponse.ts`. A fault of the request as a
whole (its type of media, a mix of kinds, too many calls) is answered by one bare error, also to a batch; a fault of one
call stands in its place. `docs/decisions/` says where this wire differs from the reference, and why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Final

from fastapi.dependencies.models import Dependant
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from reactive_rpc.cache.result import CachedResult
from reactive_rpc.clock import IdSource
from reactive_rpc.errors import BadRequestError, RPCError
from reactive_rpc.procedures.call import decode_json_input
from reactive_rpc.procedures.options import ProcedureKind
from reactive_rpc.protocol.headers import CURSOR, IDEMPOTENCY_KEY, SCOPE, STALE, STALE_SECONDS, VERSION
from reactive_rpc.tasks import Tasks
from reactive_rpc.web.routing.body import BodyLimits, read_json_body
from reactive_rpc.web.routing.conditions import is_server_request
from reactive_rpc.web.routing.dispatcher import CallRequest
from reactive_rpc.web.routing.responses import Answer, Headers, error_of
from reactive_rpc.web.routing.table_router import MountPlace
from reactive_rpc.web.routing.telemetry import name_route
from reactive_rpc.web.routing.uploads import Upload
from reactive_rpc.web.streams.events import EventsEndpoint
from reactive_rpc.web.streams.streamed_calls import StreamedQueryEndpoint, SubscriptionEndpoint
from reactive_rpc.web.trpc.batch_streams import BatchStream
from reactive_rpc.web.trpc.calls import (
    METHODS,
    OVERRIDDEN_METHODS,
    Callee,
    Ended,
    TRPCCall,
    end_of,
    ended_by,
)
from reactive_rpc.web.trpc.envelopes import JSON, UNSTORED
from reactive_rpc.web.trpc.event_words import EventWords
from reactive_rpc.web.trpc.marks import REACTIVE, marks_in, with_key
from reactive_rpc.web.trpc.options import TRPCOptions
from reactive_rpc.web.trpc.requests import TRPCRequest, header_of, read_request
from reactive_rpc.web.trpc.seen_requests import ReadRequest, SeenRequests, found_by_input, inputs_of
from reactive_rpc.web.trpc.stored_calls import StoredCall
from reactive_rpc.web.trpc.subscriptions import (
    EVENT_HEADERS,
    TranslatedStream,
    input_and_last_id,
    with_connection_params,
)
from reactive_rpc.web.trpc.transformers import Transformer
from reactive_rpc.web.trpc.watching import WatchWords, read_watch

__all__ = ["TRPCMount"]


class TRPCMount:
    """Serves procedures to tRPC's clients.

    Args:
        callees: the procedures, by their paths.
        options: of this mount.
        ids: makes request ids.
        body: how much a client may send.
        transformer: spells values as the clients of this mount read them.
        tasks: those of the answers.
        heartbeat_seconds: how long a stream may be silent; 0 is for ever.
        require_open: raises where nothing can be served.
    """

    def __init__(
        self,
        callees: Mapping[str, Callee],
        options: TRPCOptions,
        *,
        ids: IdSource,
        body: BodyLimits,
        transformer: Transformer,
        tasks: Tasks,
        heartbeat_seconds: float,
        require_open: Callable[[], None],
    ) -> None:
        self._callees = callees
        self._options = options
        self._ids = ids
        self._body = body
        self._transformer = transformer
        self._tasks = tasks
        self._heartbeat_seconds = heartbeat_seconds
        self._require_open = require_open
        self._methods = OVERRIDDEN_METHODS if options.allow_method_override else METHODS
        self._requests = SeenRequests(self._read)

    @property
    def prefix(self) -> str:
        """Of its paths."""
        return self._options.prefix

    @property
    def names(self) -> Collection[str]:
        """The paths of the procedures."""
        return self._callees.keys()

    def knows(self, name: str) -> bool:
        """Tell whether a path below names a procedure, first of all."""
        return name in self._callees or name.partition(",")[0] in self._callees

    async def serve(self, scope: Scope, receive: Receive, send: Send, *, place: MountPlace) -> None:
        """Answer a request."""
        if scope["method"] == "HEAD":
            await Answer(HTTPStatus.NO_CONTENT, b"", [])(scope, receive, send)
            return
        uploads: list[Upload] = []
        try:
            try:
                answer = await self._answer(scope, receive, place=place, opened=uploads.append)
            except ClientDisconnect:
                return
            except Exception as exc:
                answer = self._answer_of(ended_by(exc, "", self._ids))
            await answer(scope, receive, send)
            for work in answer.background:
                await work()
        finally:
            for upload in uploads:
                upload.close()

    async def _answer(
        self, scope: Scope, receive: Receive, *, place: MountPlace, opened: Callable[[Upload], object]
    ) -> Answer:
        self._require_open()
        asked = self._requests.of(scope, place.name_of(scope))
        _name(scope, place, asked)
        if asked.stored is not None and not place.dependencies:
            results = await asked.stored.results(scope)
            # INVARIANT (no await between here and the answer): what is said of the results holds for it.
            return asked.stored.answer(results, scope) or await self._answer_some(asked, results, scope=scope)
        if asked.refusal is not None:
            raise asked.refusal
        if asked.request.is_upload:
            [call] = self._calls(asked, scope=scope, dependencies=place.dependencies)
            return self._answer_of(await end_of(call, self._ids, by=partial(call.answer_with_files, receive, opened)))
        if scope["method"] != "GET":
            body = await read_json_body(scope, receive, limits=self._body)
            asked = replace(asked, inputs=inputs_of(asked.request, body))
        return await self._answer_calls(asked, [], scope=scope, dependencies=place.dependencies)

    def _read(self, scope: Scope, name: str) -> ReadRequest:
        """Return a request whose head has been read.

        Raises:
            RPCError: nothing can be told of it.
        """
        request = read_request(scope, name, max_batch_size=self._options.max_batch_size)
        callees = [self._callees.get(path) for path in request.paths]
        inputs = inputs_of(request, request.parameters.get("input", "").encode())
        asked = ReadRequest(request, callees, inputs)
        try:
            _require_one_kind(callees)
            self._require_shape(request, scope)
        except BadRequestError as refusal:
            return replace(asked, refusal=refusal)
        is_marked = header_of(scope, REACTIVE) is not None
        if request.is_upload or request.is_streamed or is_marked or scope["method"] != "GET":
            return asked
        return replace(asked, stored=found_by_input(asked, self._transformer))

    async def _answer_some(self, asked: ReadRequest, results: Sequence[CachedResult | None], *, scope: Scope) -> Answer:
        """Return the answer to calls of which some are stored, in the step that found those; some may be errors."""
        calls = () if asked.stored is None else asked.stored.calls
        ends = [
            None if result is None else self._stored_end(call, result, asked, scope=scope)
            for call, result in zip(calls, results, strict=False)
        ]
        return await self._answer_calls(asked, ends, scope=scope, dependencies=[])

    def _stored_end(self, call: StoredCall, result: CachedResult, asked: ReadRequest, *, scope: Scope) -> Ended:
        endpoint = call.endpoint
        try:
            if asked.request.is_batch:  # whose headers speak of no result
                return Ended(result.answer(), b"", b"", endpoint.path, HTTPStatus.OK, ())
            answer = endpoint.answer_with(result, CallRequest(scope, call.text, True, True, False), None)
        except RPCError as error:
            return ended_by(error, endpoint.path, self._ids)
        return Ended(answer.body, b"", b"", endpoint.path, answer.status, answer.headers)

    def _require_shape(self, request: TRPCRequest, scope: Scope) -> None:
        """Refuse batches that are not wanted here, and those that cannot be answered.

        Raises:
            BadRequestError: it is such a one.
        """
        if request.is_batch and not self._options.allow_batching:
            raise BadRequestError("Batching is not enabled on the server")
        if request.is_streamed and not request.is_batch:
            raise BadRequestError("Streaming requests must be batched (you can do a batch of 1)")
        if len(request.paths) > 1 and header_of(scope, IDEMPOTENCY_KEY.encode()) is not None:
            raise BadRequestError(
                f"{IDEMPOTENCY_KEY} names one mutation, and this batch holds {len(request.paths)} calls: send the "
                "mutation by itself (splitLink and httpLink)"
            )

    async def _answer_calls(
        self, asked: ReadRequest, stored: list[Ended | None], *, scope: Scope, dependencies: list[Dependant]
    ) -> Answer:
        """Return the answer to a request, some of whose calls may have ended by what is stored."""
        request = asked.request
        ends = [end for end in stored if end is not None]
        if len(ends) == len(request.paths):
            return self._answer_of_batch(ends) if request.is_batch else self._answer_of(ends[0])
        calls = self._calls(asked, scope=scope, dependencies=dependencies)
        if request.is_streamed:
            seconds = self._heartbeat_seconds
            return BatchStream(
                calls, self._open, tasks=self._tasks, transformer=self._transformer, heartbeat_seconds=seconds
            )
        if not request.is_batch:
            # A client takes any status but 200 for the end of a subscription, so its refusals are streams of their own.
            kind = None if asked.callees[0] is None else asked.callees[0].kind
            if kind == "subscription":
                return await self._subscription(calls[0], request)
            return self._answer_of(await self._end(calls[0]))
        # One call needs no task: most batches of a page's later life are of one.
        if len(calls) == 1:
            return self._answer_of_batch([await self._end(calls[0])])
        missing = [number for number in range(len(calls)) if not stored or stored[number] is None]
        made = await asyncio.gather(*(self._end(calls[number]) for number in missing))
        found = dict(zip(missing, made, strict=True))
        return self._answer_of_batch([found.get(number) or ends.pop(0) for number in range(len(calls))])

    def _calls(self, asked: ReadRequest, *, scope: Scope, dependencies: list[Dependant]) -> list[TRPCCall]:
        request, callees, inputs = asked.request, asked.callees, asked.inputs
        marks = marks_in(scope)
        # INVARIANT (asked here, in the task of the request): the tasks of a batch's calls are made by us, and look like
        # calls of this process; but their request had come in over a connection before any of them could run.
        is_from_server = is_server_request()
        keyed = {index: with_key(scope, key) for index, key in marks.keys_of(len(callees))}
        return [
            TRPCCall(
                path=path,
                callee=callee,
                text=inputs.texts.get(index, b""),
                transformer=self._transformer,
                fault=inputs.fault,
                # FastAPI leaves in the scope the stacks that close `yield` dependencies: each call has its own.
                scope=keyed.get(index) or (scope if len(callees) == 1 else dict(scope)),
                dependencies=dependencies if callee is None else [*dependencies, *callee.context],
                is_alone=not request.is_batch,
                is_from_server=is_from_server,
                marks=marks.of(index),
            )
            for index, (path, callee) in enumerate(zip(request.paths, callees, strict=True))
        ]

    async def _open(self, call: TRPCCall) -> Ended | Answer:
        """Make a call of a batch that is streamed; of a streamed query, return the answer that is its lines."""
        callee = call.callee
        if callee is None or not isinstance(callee.endpoint, StreamedQueryEndpoint):
            return await self._end(call)
        try:
            callee.require_method(call.scope["method"], self._methods_for(call))
            text = call.input_text()
            input = decode_json_input(call.path, callee.endpoint.procedure, text)
            return await callee.endpoint.call(call.scope, input, body=text, dependencies=call.dependencies)
        except Exception as exc:
            return ended_by(exc, call.path, self._ids)

    async def _subscription(self, call: TRPCCall, request: TRPCRequest) -> Answer:
        """Make the call of a subscription, and return the stream of its events, or of why there are none."""
        callee, scope = call.found(), call.scope
        words = EventWords(call.path, heartbeat_seconds=self._heartbeat_seconds, transformer=self._transformer)
        try:
            callee.require_method(scope["method"], self._methods_for(call))
            params = request.parameters.get("connectionParams")
            with_connection_params(scope, params, names=self._options.connection_headers)
            if isinstance(callee.endpoint, EventsEndpoint):
                return await self._watch(callee.endpoint, call, request)
            if not isinstance(callee.endpoint, SubscriptionEndpoint) or callee.procedure is None:
                raise TypeError(f"{call.path} is a subscription")
            text, parameters = call.input_text(), request.parameters
            input = input_and_last_id(call.path, callee.procedure, text, scope=scope, parameters=parameters)
            answer = await callee.endpoint.call(scope, input, body=call.text, dependencies=call.dependencies)
        except ClientDisconnect:
            raise
        except Exception as exc:
            return Answer(HTTPStatus.OK, words.failed(error_of(exc, call.path, self._ids)), EVENT_HEADERS)
        return TranslatedStream(answer, words.translated)

    async def _watch(self, endpoint: EventsEndpoint, call: TRPCCall, request: TRPCRequest) -> Answer:
        wanted = read_watch(call.input_text(), scope=call.scope, parameters=request.parameters)
        words = WatchWords(wanted, heartbeat_seconds=self._heartbeat_seconds, transformer=self._transformer)
        answer = await endpoint.watch(wanted, scope=call.scope, body=call.text, dependencies=call.dependencies)
        return TranslatedStream(answer, words.translated)

    async def _end(self, call: TRPCCall) -> Ended:
        """Make a call of a request, by whatever method that came."""
        if call.callee is not None:
            try:
                call.callee.require_method(call.scope["method"], self._methods_for(call))
            except Exception as exc:
                return ended_by(exc, call.path, self._ids)
        return await end_of(call, self._ids)

    def _methods_for(self, call: TRPCCall) -> Mapping[ProcedureKind, tuple[str, ...]]:
        """Return the methods that a call may come by: who knows of `reactive: 1` may send any query by POST."""
        return OVERRIDDEN_METHODS if call.marks.is_asked_for else self._methods

    def _answer_of(self, ended: Ended) -> Answer:
        """Return the answer to a request that is one call."""
        kept = [header for header in ended.headers if header[0] != b"content-type"]
        has_cache_control = any(name == b"cache-control" for name, _ in kept)
        envelope = ended.envelope(self._transformer)
        answer = Answer(ended.status, envelope, [*(JSON if has_cache_control else UNSTORED), *kept])
        answer.background.extend(ended.background)
        return answer

    def _answer_of_batch(self, ends: list[Ended]) -> Answer:
        """Return the answer to a batch: its status is that of all calls, or else 207."""
        statuses = {ended.status for ended in ends}
        status = statuses.pop() if len(statuses) == 1 else HTTPStatus.MULTI_STATUS
        body = b"[%b]" % b",".join(ended.envelope(self._transformer) for ended in ends)
        answer = Answer(status, body, [*UNSTORED, *_common(ends)])
        for ended in ends:
            answer.background.extend(ended.background)
        return answer


_OF_ONE_CALL: Final = frozenset(
    [b"cache-control", b"content-type", b"etag", *(name.encode() for name in (CURSOR, STALE, STALE_SECONDS, VERSION))]
)
"""Headers that speak of one result, and say nothing true of several."""


def _common(ends: list[Ended]) -> Headers:
    """Return the headers that go with a batch: those that its calls have set, each once; the scope if all say it."""
    if not any(ended.headers for ended in ends):
        return ()
    found = dict.fromkeys(header for ended in ends for header in ended.headers if header[0] not in _OF_ONE_CALL)
    scope = SCOPE.encode()
    scopes = {dict(ended.headers).get(scope) for ended in ends}
    return [header for header in found if header[0] != scope or len(scopes) == 1]


def _require_one_kind(callees: list[Callee | None]) -> None:
    kinds = dict.fromkeys(callee.kind for callee in callees if callee is not None)
    if len(kinds) > 1:
        raise BadRequestError(f"Cannot mix procedure types in call: {', '.join(kinds)}")


def _name(scope: Scope, place: MountPlace, asked: ReadRequest) -> None:
    """Tell whoever watches the application which route a request took: of a batch, that it is one."""
    is_known = len(asked.callees) == 1 and asked.callees[0] is not None
    name_route(scope, place.path + asked.request.paths[0] if is_known else place.path, place.route, place.function)
