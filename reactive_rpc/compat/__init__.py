"""Every private name of another library that this package uses, each behind a function that says why.

A library may move such a name in any release. Each has a test under `tests/unit/compat` that fails when it does.
"""
