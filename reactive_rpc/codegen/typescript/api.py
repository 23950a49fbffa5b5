"""The module `api.ts`: all types of a document, of which nothing is left at run time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from reactive_rpc.codegen.document import Document, JSONSchema, Operation
from reactive_rpc.codegen.names import TakenNames
from reactive_rpc.codegen.typescript.models import JSON, NamedTypes
from reactive_rpc.codegen.typescript.procedure_types import (
    INPUT,
    JSON_INPUT,
    JSON_OUTPUT,
    OUTPUT,
    ProcedureTypes,
    has_input,
    may_be_empty,
    tree,
)
from reactive_rpc.codegen.typescript.text import comment, indented, key, literal

__all__ = ["Api"]

_PROCEDURE_KINDS: Final = {
    "query": ("Query", "TRPCQueryProcedure"),
    "mutation": ("Mutation", "TRPCMutationProcedure"),
    "subscription": ("Subscription", "TRPCSubscriptionProcedure"),
}
"""Our name of each kind, and tRPC's."""

_IMPORTED: Final = ("TRPCBuiltRouter", "TRPCDefaultErrorData", "TRPCErrorShape")
_OWN: Final = (
    JSON, "AffectedQueries", "Api", "AppRouter", "Decimal", "Definition", "ErrorData", "Failed", "Invalidations",
    "Mutation", "Named", "OtherError", "Procedures", "Query", "Root", "Routes", "StreamedQuery", "Subscription",
    "SuperjsonRouter", "SuperjsonRoutes", "Tracked",
    *(f"{ours}Procedure" for ours, _ in _PROCEDURE_KINDS.values()),
)  # fmt: skip
_GLOBAL: Final = ("AsyncIterable", "Blob", "Date", "FormData", "Map", "Set", "Uint8Array")
_PROCEDURES: Final = """
/** A number with all its digits, as text: `'1.10'`. */
export type Decimal = `${number}`;

/** A query: what it takes, answers and fails with. */
export interface Query<Input, Output, Failure> {
  kind: 'query';
  input: Input;
  output: Output;
  error: Failure;
}

/** A query that answers one value after another. */
export interface StreamedQuery<Input, Item, Failure> {
  kind: 'streamed-query';
  input: Input;
  output: Item;
  error: Failure;
}

/** A mutation: what it takes, answers and fails with. */
export interface Mutation<Input, Output, Failure> {
  kind: 'mutation';
  input: Input;
  output: Output;
  error: Failure;
}

/** A subscription, and one of the values that it tells. */
export interface Subscription<Input, Item, Failure> {
  kind: 'subscription';
  input: Input;
  output: Item;
  error: Failure;
}

/** A value of a subscription, with the id after which another one goes on. */
export interface Tracked<Item> {
  id: string;
  data: Item;
}

/** Names a procedure as its path does: `api.agents.get_one` for 'agents.get_one'. */
export interface Named<Path extends string> {
  [Symbol.toPrimitive](hint: string): Path;
}

/** An error that the procedure does not declare. */
export interface OtherError {
  type: null;
  code: string;
  message: string;
  details: unknown;
}
""".strip()

_INVALIDATIONS: Final = """
/** What `reactive.events` tells: the queries to fetch again, whatever has happened. */
export interface AffectedQueries {
  type: 'connected' | 'gap' | 'invalidation' | 'result';
  affected: { path: string; input?: unknown; key: string }[];
}

/** The stream of invalidations, which every server has beside its procedures. */
export type Invalidations = {
  reactive: {
    events: SubscriptionProcedure<
      { queries: readonly { path: string; input?: unknown; etag?: string | null }[]; cursor?: string | null },
      AsyncIterable<Tracked<AffectedQueries>, void, unknown>,
      OtherError
    >;
  };
};
""".strip()
_ROUTER: Final = """
type Failed = { type: string | null; details: unknown };

/** The `data` of an error as tRPC's clients have it: `data.type` tells which of the declared ones it is. */
export type ErrorData<Failure extends Failed> = Failure extends { type: string }
  ? TRPCDefaultErrorData & { type: Failure['type']; details: Failure['details']; request_id?: string }
  : TRPCDefaultErrorData & { type?: undefined; details?: unknown; request_id?: string };

interface Definition<Input, Output, Failure extends Failed> {
  input: Input;
  output: Output;
  meta: object;
  errorShape: TRPCErrorShape<ErrorData<Failure>>;
}
""".strip()


class Api:
    """All types of a document.

    Attributes:
        models: the named types of its schemas.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        # The stream of invalidations is a subscription, whatever else there is.
        kinds = {one.kind for one in document.operations} | {"subscription"}
        self._kinds = {kind: _PROCEDURE_KINDS[kind] for kind in sorted(kinds)}
        self._imported = sorted([*_IMPORTED, *(name for _, name in self._kinds.values())])
        names = TakenNames([*self._imported, *_OWN, *_GLOBAL])
        errors = [error.details for error in document.errors]
        self.models = NamedTypes(
            document.components,
            taken=[operation.input for operation in document.operations if operation.input is not None],
            returned=[*(operation.output for operation in document.operations), *errors],
            names=names,
        )
        self._types = ProcedureTypes(document, self.models, names)

    def render(self) -> str:
        """Return the module's source, without a header."""
        return "\n\n".join("\n".join(lines) for lines in self._blocks()) + "\n"

    def _blocks(self) -> Iterator[list[str]]:
        title = " ".join(self._document.title.split()) or "the service"
        yield comment(f"What the procedures of {title} take and answer: types, of which nothing is left at run time.")
        yield ["import type {", *indented(f"{name}," for name in self._imported), "} from '@trpc/server';"]
        yield [_PROCEDURES]
        yield from self.models.declarations("value")
        yield from self._types.error_declarations()
        yield from self._types.declarations()
        carried = [indented(lines) for lines in self.models.declarations("json")]
        if carried:
            doc = comment("The JSON that carries values which JSON has not, for clients that have no codec.")
            yield [*doc, f"export declare namespace {JSON} {{", *(line for lines in carried for line in lines), "}"]
        yield ["/** All procedures by their paths. */", "export interface Procedures {", *self._procedures(), "}"]
        operations = self._document.operations
        yield [
            "/** Their names as a tree: the type of `api`. */",
            "export interface Api {",
            *indented(tree(operations, self._in_api)),
            "}",
        ]
        yield [_ROUTER]
        for ours, theirs in self._kinds.values():
            yield [
                f"type {ours}Procedure<Input, Output, Failure extends Failed> = {theirs}<",
                "  Definition<Input, Output, Failure>",
                ">;",
            ]
        yield from self._routers()

    def _routers(self) -> Iterator[list[str]]:
        """Yield the blocks of the procedures as tRPC's clients call them."""
        # A type and no interface: tRPC wants a record, and an interface has no index signature (TS2344).
        yield [
            "/** The procedures as tRPC's clients call them. */",
            "export type Routes = {",
            *self._routes(False),
            "};",
        ]
        said = "/** The same for clients whose links have superjson: values are those of `Procedures`. */"
        differ = self._routes(True) != self._routes(False)
        same = ["export type SuperjsonRoutes = Routes;"]
        yield [said, *(["export type SuperjsonRoutes = {", *self._routes(True), "};"] if differ else same)]
        yield [_INVALIDATIONS]
        yield [
            "interface Root<HasTransformer extends boolean> {",
            *indented(
                [
                    "ctx: object;",
                    "meta: object;",
                    f"errorShape: TRPCErrorShape<ErrorData<{self._types.any_error()}>>;",
                    "transformer: HasTransformer;",
                ]
            ),
            "}",
        ]
        yield [
            "/** What `createTRPCClient<AppRouter>` of `@trpc/client` takes. */",
            "export type AppRouter = TRPCBuiltRouter<Root<false>, Routes & Invalidations>;",
        ]
        yield [
            "/** What it takes for a mount with superjson. */",
            "export type SuperjsonRouter = TRPCBuiltRouter<Root<true>, SuperjsonRoutes & Invalidations>;",
        ]

    def _procedures(self) -> list[str]:
        return indented(f"{key(one.path)}: {self._procedure(one)};" for one in self._document.operations)

    def _procedure(self, operation: Operation) -> str:
        kind = "StreamedQuery" if operation.streams and operation.kind == "query" else self._kinds[operation.kind][0]
        names = self._types.of[operation.path]
        return f"{kind}<{names.input}, {names.output}, {names.error}>"

    def _in_api(self, operation: Operation) -> list[str]:
        name = operation.path.rpartition(".")[2]
        return [*_documented(operation), f"{key(name)}: Named<{literal(operation.path)}>;"]

    def _routes(self, has_superjson: bool) -> list[str]:
        """Return the procedures but for those that answer bytes, for which tRPC has no form."""
        called = tuple(operation for operation in self._document.operations if not operation.is_binary)
        return indented(tree(called, partial(self._route, has_superjson)))

    def _route(self, has_superjson: bool, operation: Operation) -> list[str]:
        name = operation.path.rpartition(".")[2]
        kind = f"{self._kinds[operation.kind][0]}Procedure"
        named = self._types.of[operation.path].output
        output = named if has_superjson else self._carried(operation.output, "output", named)
        # The stock client wraps a value that comes with an id, and gives any other as it is.
        output = f"Tracked<{output}>" if operation.is_tracked else output
        output = f"AsyncIterable<{output}, void, unknown>" if operation.streams else output
        error = self._types.of[operation.path].error
        return [
            *_documented(operation),
            f"{key(name)}: {kind}<{self._route_input(has_superjson, operation)}, {output}, {error}>;",
        ]

    def _route_input(self, has_superjson: bool, operation: Operation) -> str:
        if operation.files:
            return "FormData"
        if operation.input is None or not has_input(operation):
            return "void"
        named = self._types.of[operation.path].input
        spelled = named if has_superjson else self._carried(operation.input, "input", named)
        return f"{spelled} | undefined" if may_be_empty(operation, self._document.components) else spelled

    def _carried(self, schema: JSONSchema, side: str, named: str) -> str:
        """Return a schema as JSON carries it: by the name that it has as values if the two are alike."""
        values, carried = (OUTPUT, JSON_OUTPUT) if side == "output" else (INPUT, JSON_INPUT)
        spelled = self.models.speller(carried).spell(schema)
        return named if spelled == self.models.speller(values).spell(schema) else spelled


def _documented(operation: Operation) -> list[str]:
    tags = {"deprecated": ""} if operation.is_deprecated else {}
    return comment(
        operation.description, {**tags, **({"see": f"/docs#{operation.anchor}"} if operation.anchor else {})}
    )
