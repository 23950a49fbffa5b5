"""Path operations of the application's own whose results are cached and watched: `@reactive`.

Why nobody is given another's rows, and who may watch a URL: docs/internals/endpoints.md.
"""
