"""The named types of a document: one of each schema, or several if inputs, outputs and their JSON differ.

FastAPI splits some schemas into `X-Input` and `X-Output`, and not for the reasons that count here. So each schema is
spelled in all the views in which it is reached, and those that read alike become one type again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from reactive_rpc.codegen.document import JSONSchema
from reactive_rpc.codegen.names import TakenNames, camel_case
from reactive_rpc.codegen.schemas import reachable
from reactive_rpc.codegen.typescript.text import comment, indented
from reactive_rpc.codegen.typescript.type_speller import VIEWS, TypeSpeller, TypeView

__all__ = ["JSON", "NamedTypes"]

JSON: Final = "Json"
"""The namespace of types that are of JSON, and not of values."""


@dataclass(frozen=True, slots=True)
class _Variant:
    """One view of a schema; `base` is the name that both halves have in common if FastAPI has split it."""

    base: str
    view: TypeView


class NamedTypes:
    """The types of a document's schemas.

    Args:
        components: `{name: schema}`.
        taken: the schemas of inputs.
        returned: those of outputs.
        names: which are taken already; those of the types are added.
    """

    def __init__(
        self,
        components: Mapping[str, JSONSchema],
        *,
        taken: Iterable[JSONSchema],
        returned: Iterable[JSONSchema],
        names: TakenNames,
    ) -> None:
        self._components = components
        reached = {"input": set(reachable(components, taken)), "output": set(reachable(components, returned))}
        self._bases = _bases(reached["input"], reached["output"])
        self._components_of = {
            _Variant(self._bases[name], view): name for view in VIEWS for name in sorted(reached[view.side])
        }
        self._groups = self._alike()
        self._names = self._named(names)

    def speller(self, view: TypeView) -> TypeSpeller:
        """Return the speller of one view."""
        return TypeSpeller(self._components, view, lambda component: self._name_of(component, view))

    def declarations(self, form: str) -> list[list[str]]:
        """Return the lines of each type of values, or of JSON, sorted by name."""
        found = {}
        for variant, group in self._groups.items():
            if variant == group and variant.view.form == form:
                name = self._names[group].rpartition(".")[2]
                found[name] = self._declared(name, variant)
        return [found[name] for name in sorted(found)]

    def _declared(self, name: str, variant: _Variant) -> list[str]:
        schema = self._components[self._components_of[variant]]
        doc = comment(schema.get("description", ""), {"deprecated": ""} if schema.get("deprecated") else {})
        speller = self.speller(variant.view)
        if "properties" in schema and schema.get("type") == "object":
            fields = speller.fields(schema, documented=True)
            return [*doc, f"export interface {name} {{", *indented(fields), "}"]
        return [*doc, f"export type {name} = {speller.spell(schema)};"]

    def _name_of(self, component: str, view: TypeView) -> str:
        return self._names[self._groups[_Variant(self._bases[component], view)]]

    def _alike(self) -> dict[_Variant, _Variant]:
        """Return `{variant: the first of those that read like it}`.

        INVARIANT (coarse first): all variants of a base begin as one, and are split for as long as any two of one
        group read differently, with all that they refer to called by their groups. So types that refer to
        themselves, and to one another, are alike unless something tells them apart.
        """
        first: dict[str, _Variant] = {}
        groups = {variant: first.setdefault(variant.base, variant) for variant in self._components_of}
        while True:
            seen: dict[tuple[_Variant, str], _Variant] = {}
            split = {
                variant: seen.setdefault((group, self._reading(variant, groups)), variant)
                for variant, group in groups.items()
            }
            if split == groups:
                return groups
            groups = split

    def _reading(self, variant: _Variant, groups: Mapping[_Variant, _Variant]) -> str:
        """Return how a variant reads, with all types called by their groups."""

        def called(component: str) -> str:
            group = groups[_Variant(self._bases[component], variant.view)]
            return f"{group.base}:{group.view.side}:{group.view.form}"

        schema = self._components[self._components_of[variant]]
        speller = TypeSpeller(self._components, variant.view, called)
        return (
            speller.spell(schema) if "properties" not in schema else "\n".join(speller.fields(schema, documented=False))
        )

    def _named(self, names: TakenNames) -> dict[_Variant, str]:
        """Return the name of each group; outputs have theirs first, so that a caller gets an `X`."""
        own: dict[tuple[str, str], str] = {}
        found: dict[_Variant, str] = {}
        for side in ("output", "input"):
            for group in sorted(set(self._groups.values()), key=lambda one: (one.base, one.view.form)):
                if group.view.side != side:
                    continue
                has_output = _Variant(group.base, TypeView("output", "value")) in self._groups
                # The same name as in the Python client, whatever FastAPI has called the halves.
                wish = camel_case(group.base, fallback="Model") + ("Input" if side == "input" and has_output else "")
                name = own.get((group.base, side)) or own.setdefault((group.base, side), names.take(wish))
                found[group] = name if group.view.form == "value" else f"{JSON}.{name}"
        return found


def _bases(taken: set[str], returned: set[str]) -> dict[str, str]:
    """Return the name that each component has in common with its other half, or its own."""
    bases = {name: name for name in taken | returned}
    for name in taken:
        base = name.removesuffix("-Input")
        twin = f"{base}-Output"
        # Whoever calls a model of his own `X-Input`, or takes what FastAPI calls an output, gets no twin.
        if base != name and base not in bases and twin in returned and twin not in taken and name not in returned:
            bases[name] = bases[twin] = base
    return bases
