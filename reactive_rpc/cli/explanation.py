"""`reactive-rpc explain`: which reads of each query are narrow and by what, and what would narrow the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from reactive_rpc.app import ReactiveRPC
from reactive_rpc.cli.diagnosis import Contexts, contexts_of
from reactive_rpc.cli.reports import write
from reactive_rpc.cli.shared import FormatOption, Rpc, failure, load
from reactive_rpc.explaining import ExplainedQuery, ExplainedStatement, explain_queries
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.statements.explanation import ExplainedRead

__all__ = ["Explanation", "explain"]

QueryPath = Annotated[str, typer.Argument(help="Of one query, or of a group: notes.get_all, notes. All if left out.")]
Input = Annotated[
    str, typer.Argument(help='The input of that query, as JSON: {"agent_id": "a1"}. Its examples if left out.')
]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The reads of some queries.

    Attributes:
        queries: each run.
        is_asked: whether a single query was asked for: it must run then.
    """

    queries: Sequence[ExplainedQuery]
    is_asked: bool

    @property
    def ok(self) -> bool:
        """Whether each query that was run answered somebody, and the one that was asked for was run."""
        answered = {each.path for each in self.queries if each.error is None and each.needs is None}
        needing = set() if self.is_asked else {each.path for each in self.queries if each.needs is not None}
        return all(each.path in answered | needing for each in self.queries)

    def lines(self) -> Iterator[RenderableType]:
        """Yield of each query a line, of each statement its text, and of each read a few lines."""
        for query in self.queries:
            given = "" if query.input is None else f" {json.dumps(query.input, ensure_ascii=False, default=str)}"
            yield Text(f"{query.path}{given}{f' as {query.context}' if query.context else ''}")
            if query.needs is not None:
                yield Text(f"  not run: it needs {query.needs}")
            if query.error is not None:
                yield Text(f"  answered {query.error}")
            if query.opaque is not None:
                yield Text(f"  not cached: it {query.opaque}")
            for statement in query.statements:
                yield from _of_statement(statement)


def explain(
    rpc: Rpc, path: QueryPath = "", *, input: Input = "", context: Contexts = None, format: FormatOption = "text"
) -> None:
    """Run queries and print of each table's rows which they read: narrow by what, or wide, and what would narrow it.

    Exits with 0 if each query that was run has answered some caller, with 1 if one answers nobody but with an error, if
    the one that is named cannot be run, or if there is none, and with 2 if the arguments are wrong. Queries that need
    an input or a context are named and left out. Mutations are never run.
    """
    found: ReactiveRPC = load(rpc, ReactiveRPC)
    chosen = _chosen(found, rpc, path)
    is_asked = path in chosen
    given = [_input(input)] if input else []
    if given and not is_asked:
        raise failure(f"{path!r} is no query: an input belongs to one")
    queries = asyncio.run(_explained(found, chosen, inputs=given, contexts=contexts_of(context or ())))
    write(Explanation(queries=queries, is_asked=is_asked), format)


def _chosen(rpc: ReactiveRPC, reference: str, path: str) -> dict[str, AnyProcedure]:
    queries = {name: each for name, each in rpc.functions.items() if each.kind == "query" and not each.is_streamed}
    chosen = {name: each for name, each in queries.items() if not path or name == path or name.startswith(f"{path}.")}
    if not chosen:
        raise failure(f"{reference} has no query and no group {path!r}: it has {', '.join(queries) or 'none'}")
    return chosen


def _input(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise failure(f"{text!r} is no JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise failure(f'{text!r} is no object: write {{"field": "value"}}')
    return found


async def _explained(
    rpc: ReactiveRPC,
    queries: Mapping[str, AnyProcedure],
    *,
    inputs: Sequence[Mapping[str, Any]],
    contexts: Mapping[str, object],
) -> list[ExplainedQuery]:
    await rpc.admin.open()
    try:
        return [each async for each in explain_queries(rpc, queries, inputs=inputs, contexts=contexts)]
    finally:
        await rpc.admin.aclose()


def _of_statement(statement: ExplainedStatement) -> Iterator[Text]:
    times = f"  ({statement.times} times)" if statement.times > 1 else ""
    yield Text(f"  {' '.join(statement.text.split())}{times}")
    if statement.opaque is not None:
        yield Text(f"    cannot be told: it {statement.opaque}")
    for read in statement.reads:
        yield from _of_read(read)


def _of_read(read: ExplainedRead) -> Iterator[Text]:
    seen = "all columns" if read.columns is None else ", ".join(read.columns) or "no column"
    rows = f"narrow: {' AND '.join(read.conditions)}" if read.conditions else "wide: every row"
    yield Text(f"    {read.table} ({seen})  {rows}")
    if read.aggregated:
        yield Text(f"      inside of aggregates an update counts if it changes {' or '.join(read.aggregated)}")
    for each in read.unused:
        remedy = "" if each.remedy is None else f"; what would: {each.remedy}"
        yield Text(f"      not by {each.condition}: {each.reason}{remedy}")
    if not read.conditions and not read.unused:
        yield Text(
            "      no condition on its rows; what would: a WHERE on its columns, or on those of a row that it joins"
        )
