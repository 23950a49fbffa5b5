"""Reports: the findings of the commands, as data; printed as text for people or as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from reactive_rpc.cli.shared import out

__all__ = [
    "CaptureReport",
    "CheckReport",
    "Diagnosis",
    "Format",
    "PerCallLine",
    "PrintedReport",
    "ProcedureLine",
    "TableLine",
    "table_of",
    "write",
]

Format = Literal["text", "json"]


class PrintedReport(Protocol):
    """A dataclass of JSON's own types: `--format json` prints its fields."""

    @property
    def ok(self) -> bool:
        """Whether the command exits with 0."""
        ...

    def lines(self) -> Iterator[RenderableType]:
        """Yield the parts that people read."""
        ...


def write(report: PrintedReport, format: Format) -> None:
    """Print a report, and exit with 1 where not all is well.

    Raises:
        typer.Exit: not all is well.
    """
    if format == "json":
        fields: dict[str, Any] = asdict(report)  # type: ignore[call-overload]  # a protocol cannot ask for a dataclass
        typer.echo(json.dumps({"ok": report.ok, **fields}, indent=2, ensure_ascii=False))
    else:
        for line in report.lines():
            out.print(line, soft_wrap=not isinstance(line, Table), highlight=False)
    if not report.ok:
        raise typer.Exit(1)


@dataclass(frozen=True, kw_only=True)
class TableLine:
    """A table: whether its writes are seen, why not, and the columns by which queries are told apart.

    Attributes:
        copied: the columns whose short values are copied (`Diagnosis.copies`) while somebody reads the table.
        withheld: those that never are, because they are excluded or say secret.
        read: whether somebody reads it now; where nobody does, no value of it is copied.
    """

    name: str
    captured: bool
    reason: str | None
    compared_exactly: Sequence[str]
    copied: Sequence[str]
    withheld: Sequence[str]
    read: bool


@dataclass(frozen=True, kw_only=True)
class ProcedureLine:
    """A procedure: what a query rests on, who shares its results, and whether they are cached.

    Attributes:
        dependencies: the tables declared; None if they are observed.
        cached: None if it could not be told; `why` says the rest.
    """

    path: str
    kind: str
    dependencies: Sequence[str] | None = None
    shared_by: str = ""
    cached: bool | None = False
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class PerCallLine:
    """A dependency that takes the whole request, so it is solved on every call.

    Attributes:
        dependency: the way to it: `current_user -> session_of`.
        finds_context: whether it is solved to find out who calls; else for the handler.
        procedures: the paths of those whose calls it is solved for.
    """

    dependency: str
    finds_context: bool
    procedures: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What `doctor` found."""

    database: str
    epoch: str
    capture: str
    copies: Mapping[str, float]
    tables: Sequence[TableLine]
    procedures: Sequence[ProcedureLine]
    solved_per_call: Sequence[PerCallLine] = ()

    @property
    def ok(self) -> bool:
        """Whether the writes of every table are seen."""
        return all(table.captured for table in self.tables)

    def lines(self) -> Iterator[RenderableType]:
        """Yield the state in a line or two, and two tables."""
        yield Text(f"database  {self.database}\nepoch     {self.epoch}\ncapture   {self.capture}")
        yield table_of(
            "Tables",
            ("table", "captured", "compared exactly"),
            (
                (each.name, "yes" if each.captured else f"no: {each.reason}", ", ".join(each.compared_exactly) or "-")
                for each in self.tables
            ),
        )
        places = ", ".join(f"{place} for {seconds:.0f} s" for place, seconds in self.copies.items())
        yield table_of(
            f"Values copied to {places}" if places else "Values copied: none",
            ("table", "short values of", "never", "now"),
            (
                (
                    each.name,
                    ", ".join(each.copied) or "-",
                    ", ".join(each.withheld) or "-",
                    "values" if each.read and each.copied else "nothing: nobody reads it" if each.copied else "nothing",
                )
                for each in self.tables
            ),
        )
        yield table_of(
            "Procedures",
            ("procedure", "kind", "dependencies", "shared by", "cached"),
            ((each.path, each.kind, _declared(each), each.shared_by, _cached(each)) for each in self.procedures),
        )
        if self.solved_per_call:
            yield table_of(
                "Solved on every call, as they take the whole Request: declare the headers and cookies that they read",
                ("dependency", "finds", "of"),
                (
                    (each.dependency, "who calls" if each.finds_context else "an argument", ", ".join(each.procedures))
                    for each in self.solved_per_call
                ),
            )


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `check` found.

    Attributes:
        tried: how many queries were run.
        drifts: the declarations that do not hold, one sentence each.
        errors: `{path: the error that answered a call}`.
        untried: `{path: its needs, before it can be tried}`.
        allow_untried: whether those are no failure.
    """

    tried: int
    drifts: Sequence[str]
    errors: dict[str, str]
    untried: dict[str, str]
    allow_untried: bool

    @property
    def ok(self) -> bool:
        """Whether everything that was to be tried holds."""
        return not (self.drifts or self.errors or (self.untried and not self.allow_untried))

    def lines(self) -> Iterator[RenderableType]:
        """Yield a line for each finding, and the sum."""
        for drift in self.drifts:
            yield f"[bold red]drift[/] {escape(drift)}"
        for path, error in self.errors.items():
            yield f"[bold red]error[/] {escape(f'{path}: {error}')}"
        for path, wanting in self.untried.items():
            yield Text(f"not tried {path}: it needs {wanting}")
        if self.ok:
            yield f"{self.tried} queries were tried; every declaration holds"
        elif self.untried and not (self.drifts or self.errors):
            yield (
                f"{self.tried} queries were tried and {len(self.untried)} were not, of which nothing can be said; "
                "--allow-untried lets that pass"
            )


@dataclass(frozen=True, kw_only=True)
class CaptureReport:
    """What `db verify` and `db install` found.

    Attributes:
        tables: how many there are; 0 where capture is not in place.
        captured: of how many every write is seen.
        findings: each part that is missing or not seen, one line each.
    """

    database: str
    tables: int
    captured: int
    findings: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return not self.findings

    def lines(self) -> Iterator[RenderableType]:
        """Yield a summary and the findings."""
        if self.tables:
            yield Text(f"{self.database}: {self.captured} of {self.tables} tables are captured")
        elif self.ok:
            yield Text(f"{self.database}: capture is in place, and there is no table yet")
        for finding in self.findings:
            yield Text(f"  {finding}" if self.tables else finding)


def _declared(line: ProcedureLine) -> str:
    if line.kind != "query":
        return ""
    return "observed" if line.dependencies is None else ", ".join(line.dependencies) or "none"


def _cached(line: ProcedureLine) -> str:
    if line.kind != "query":
        return "never"
    if line.cached is None:
        return line.why
    return "yes" if line.cached else f"no: {line.why}"


def table_of(title: str, headers: Sequence[str], rows: Iterator[Sequence[str]]) -> Table:
    """Return a table that folds in a narrow terminal what it cannot show in one line, and loses nothing."""
    table = Table(*(Column(header, overflow="fold") for header in headers), title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
