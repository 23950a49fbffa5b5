"""Rules: one expression tree over the record and the user, which databases decide and clients predict.

Users write `expressions.py` and `named_rules.py`; everybody else calls `policy.py`. `docs/internals/records.md` argues
why all readers agree.
"""

from reactive_rpc.records.errors import RuleError
from reactive_rpc.records.rules.expressions import Rule, anyone, nobody, record, user
from reactive_rpc.records.rules.named_rules import client_member, custom, owner, private, role, some
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
