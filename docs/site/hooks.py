"""Put generated parts into pages, and fences around examples: what MkDocs calls while it builds."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from pages.codes import codes_table
from pages.doctests import DoctestExtension
from pages.settings import settings_list
from pages.troubleshooting import messages_list

GENERATED: Final[dict[str, Callable[[], str]]] = {
    "codes": codes_table,
    "messages": messages_list,
    "settings": settings_list,
}

_MARK: Final = re.compile(r"<!-- generated: (\w+) -->")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the extension that shows examples as code, here and in the docstrings that mkdocstrings renders."""
    config.markdown_extensions.append(DoctestExtension())
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page with each `<!-- generated: name -->` replaced.

    Raises:
        KeyError: nothing of that name is generated.
    """
    return _MARK.sub(lambda mark: GENERATED[mark[1]](), markdown)
