"""A plan of dependencies does what FastAPI's solver does: on generated trees and requests, and with bugs put in.

Each request is made three times, by the solver, by the plan, and by the plan with what is stored by then. The answers
must have equal status, headers and bytes, and every dependency must have been called as often, in the same order, with
equal arguments, in a thread or on the event loop alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Literal

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import ASGIApp, Receive, Scope, Send

from reactive_rpc import Login, ReactiveRPC
from reactive_rpc import define_reactive_function as define
from reactive_rpc.compat.fastapi import way_of_call
from reactive_rpc.web.routing import dependency_plan
from reactive_rpc.web.routing.dependency_plan import DependencyPlan, DependencyPlans

from .dependency_trees import GeneratedTree, Trees, random_request
from .rooms import Note, serving

pytestmark = pytest.mark.anyio

PROCEDURES = 12
REQUESTS = 8
SEEDS = range(6)


class Passing:
    """A middleware of the application's own, which lets everything be: calls are then not begun outside of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        await self.app(scope, receive, send)


def procedure_of(tree: GeneratedTree) -> Any:
    """Return a query that begins with a tree's context, and answers what that is."""

    async def whoami(db: AsyncSession, ctx: Login) -> str:
        await db.exec(select(Note))
        return str(ctx.identity)

    return define.context(tree.context).query(whoami)


def seen_of(answer: httpx.Response) -> tuple[int, list[tuple[bytes, bytes]], Any]:
    """Return all that an answer is, but for the random id of an error."""
    body: Any = answer.content
    if answer.status_code >= 400:
        body = json.loads(body)
        del body["error"]["request_id"]
    return answer.status_code, answer.headers.raw, body


async def differences(file: Path, seed: int) -> tuple[list[str], int]:
    """Return how a plan differs from the solver, and how many procedures have one."""
    random = Random(seed)
    trees = Trees(random)
    made = {f"t{number}": trees.tree() for number in range(PROCEDURES)}
    beside = [trees.function() for _ in range(seed % 3)]

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = FastAPI(lifespan=rpc.lifespan)
        app.include_router(rpc.router, dependencies=[Depends(each) for each in beside])
        if seed % 2:
            app.add_middleware(Passing)
        return app

    found: list[str] = []
    planned = set()
    of = DependencyPlans.of

    def noted(self: DependencyPlans, dependencies: Any) -> DependencyPlan | None:
        plan = of(self, dependencies)
        if plan is not None:
            planned.add(name)
        return plan

    functions = {"n": {name: procedure_of(tree) for name, tree in made.items()}}
    async with serving(file, functions, make_app=make_app, context=nobody) as server:
        for name, tree in made.items():
            for _ in range(REQUESTS):
                request: dict[str, Any] = random_request(random)
                method: Literal["GET", "POST"] = "POST" if random.random() < 0.2 else "GET"
                if method == "POST":
                    request["content"] = b"{}"
                    request["headers"].append((b"content-type", b"application/json"))
                part = random.choice([tree.context, *tree.parts])
                server.app.dependency_overrides = {}
                if random.random() < 0.2 and part is not tree.context:
                    server.app.dependency_overrides = {part: trees.override(getattr(part, "__name__", "scheme"))}
                seen = []
                for by in (lambda self, dependencies: None, noted, noted):
                    DependencyPlans.of = by  # type: ignore[method-assign]  # the solver alone, or the plan
                    trees.called.clear()
                    answer = await server.client.request(method, f"/rpc/n.{name}", **request)
                    seen.append((seen_of(answer), [*trees.called]))
                    DependencyPlans.of = of  # type: ignore[method-assign]
                solver = seen[0]
                if tree_is_query(tree):  # it runs once for its values, whoever has solved those
                    for each in seen:
                        each[1][:] = [call for call in each[1] if not call[0].startswith("context")]
                found += [f"{name} {request}: {each} by the plan, {solver} by the solver" for each in seen[1:]
                          if each != solver]  # fmt: skip
    return found, len(planned)


def tree_is_query(tree: GeneratedTree) -> bool:
    """Tell whether the context of a tree is one."""
    return "db" in tree.context.__annotations__


async def nobody() -> Login:
    """The application's own context, which no procedure here begins with."""
    return Login()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_plan_does_what_the_solver_does(file: Path, seed: int) -> None:
    """Whatever the tree, the request and what is overridden."""
    found, _ = await differences(file, seed)
    assert found == []


async def test_most_trees_have_a_plan(file: Path) -> None:
    """Or the comparison would compare the solver with itself."""
    planned = [(await differences(file.with_name(f"{seed}.db"), seed))[1] for seed in SEEDS]
    assert sum(planned) > PROCEDURES * len(SEEDS) / 3, planned


Bug = Callable[[pytest.MonkeyPatch], None]


def what_is_not_shared_is_called_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`use_cache=False` means nothing."""
    place = dependency_plan._Planner._place

    def placed(self: Any, dependant: Any) -> int:
        return place(self, replace(dependant, use_cache=True))

    monkeypatch.setattr(dependency_plan._Planner, "_place", placed)


def scopes_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was called with some scopes serves others."""
    monkeypatch.setattr(dependency_plan, "cache_key_of", lambda dependant: id(dependant.call))


def the_last_of_two_headers_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does for cookies and the URL."""
    read = DependencyPlan.read

    def reversed_read(self: DependencyPlan, scope: Any) -> Any:
        return read(self, {**scope, "headers": scope["headers"][::-1]})

    monkeypatch.setattr(DependencyPlan, "read", reversed_read)


def calls_are_made_the_other_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what nothing depends on."""
    place_all = dependency_plan._Planner.place_all

    def placed(self: Any, dependant: Any) -> Any:
        return place_all(self, replace(dependant, dependencies=dependant.dependencies[::-1]))

    monkeypatch.setattr(dependency_plan._Planner, "place_all", placed)


def plain_functions_run_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would block it."""

    async def at_once(function: Any, **given: Any) -> Any:
        return function(**given)

    monkeypatch.setattr(dependency_plan, "run_in_threadpool", at_once)


def generators_are_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they yield is all there is to them."""
    way = way_of_call

    def called(dependant: Any) -> str:
        return "threaded" if way(dependant) == "generator" else way(dependant)

    monkeypatch.setattr(dependency_plan, "way_of_call", called)


def responses_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that takes a response, or a request, is planned without it."""
    fits = dependency_plan._fits

    def fitted(dependant: Any) -> bool:
        return fits(replace(dependant, response_param_name=None, background_tasks_param_name=None))

    monkeypatch.setattr(dependency_plan, "_fits", fitted)


def faults_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that does not fit is None."""
    kinds = dependency_plan._parameter

    def lenient(source: Any, field: Any) -> Any:
        found = kinds(source, field)
        if found.validate is None:
            return found
        return dependency_plan._Parameter(
            found.source, found.key, found.is_required, found.default, lambda text, *_, **__: (text, None)
        )

    monkeypatch.setattr(dependency_plan, "_parameter", lenient)


def dependencies_without_a_name_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a router guard nothing."""
    plan_of = dependency_plan.plan_of
    monkeypatch.setattr(
        dependency_plan, "plan_of", lambda given, *, context: plan_of([d for d in given if d.name], context=context)
    )


BUGS: list[Bug] = [
    what_is_not_shared_is_called_once,
    scopes_do_not_count,
    the_last_of_two_headers_counts,
    calls_are_made_the_other_way_round,
    plain_functions_run_on_the_loop,
    generators_are_functions,
    responses_are_not_missed,
    faults_are_none,
    dependencies_without_a_name_are_left_out,
]


@pytest.mark.seeded_bug
@pytest.mark.parametrize("bug", BUGS, ids=lambda each: each.__name__)
async def test_a_seeded_bug_is_found(file: Path, bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one seed or another."""
    bug(monkeypatch)
    for seed in SEEDS:
        if (await differences(file.with_name(f"{seed}.db"), seed))[0]:
            return
    pytest.fail("the comparison has not found it")
