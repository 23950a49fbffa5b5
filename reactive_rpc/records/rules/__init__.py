"""Rules: one expression tree over the record and the user, which databases decide and clients predict.

`expressions.py` has what users write, `policy.py` what everybody else uses of it; `docs/internals/records.md` argues
why all readers agree.
"""

from reactive_rpc.records.errors import RuleError
from reactive_rpc.records.rules.expressions import (
    Rule,
    anyone,
    client_member,
    custom,
    nobody,
    owner,
    private,
    record,
    role,
    some,
    user,
)
from reactive_rpc.records.rules.policy import Policy, Residual, attributes_of, bind

__all__ = [
    "Policy",
    "Residual",
    "Rule",
    "RuleError",
    "anyone",
    "attributes_of",
    "bind",
    "client_member",
    "custom",
    "nobody",
    "owner",
    "private",
    "record",
    "role",
    "some",
    "user",
]
