"""Waking sleeping logs on PostgreSQL: the writers' side and the logs' side, which belong together.

NOTIFY makes commits queue up for one lock, so a writer notifies only while a log sleeps, which two advisory locks tell:

- a log holds `SLEEPERS`, shared, while it sleeps;
- a transaction holds `WRITERS`, shared, from its first row of the outbox until it has ended.

docs/internals/postgresql.md argues why no commit is slept through ("Waking a log").
"""

from __future__ import annotations

from typing import Final

__all__ = ["ARM", "CAN_NOTIFY", "CHANNEL", "DISARM", "SLEEPERS", "WAKE", "WRITERS"]

CHANNEL: Final = "reactive_rpc"
SLEEPERS: Final = 0x7265616374736C70  # "reactslp"
WRITERS: Final = 0x7265616374777274  # "reactwrt"

CAN_NOTIFY: Final = "current_setting('max_prepared_transactions') = '0'"
"""SQL: whether writers notify. After NOTIFY a PREPARE TRANSACTION fails, so none may where there could be one."""

# INVARIANT (each session lock that is only tried is given back within the expression that takes it): nothing can
# interrupt that, so it is never left behind in a session of somebody else's pool.
_NOBODY_SLEEPS: Final = f"CASE WHEN pg_try_advisory_lock({SLEEPERS}) THEN pg_advisory_unlock({SLEEPERS}) ELSE false END"
_NOBODY_WRITES: Final = f"CASE WHEN pg_try_advisory_lock({WRITERS}) THEN pg_advisory_unlock({WRITERS}) ELSE false END"

# INVARIANT (the transaction holds WRITERS before it looks for sleepers): a log that it does not see comes later, and
# meets WRITERS, or the commit. If somebody tries WRITERS just now, it counts as a sleeper.
# INVARIANT (no error leaves the block, and it writes nothing): as in `triggers.py`. A queue of notifications that is
# full would fail the commit, which nothing here could catch; it is others' that fill it so far.
WAKE: Final = f"""
  IF {CAN_NOTIFY} THEN
    BEGIN
      IF (NOT CASE WHEN pg_try_advisory_xact_lock_shared({WRITERS}) THEN {_NOBODY_SLEEPS} ELSE false END)
         AND pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('{CHANNEL}', '');
      END IF;
    EXCEPTION WHEN OTHERS THEN
      NULL;
    END;
  END IF;
"""
"""plpgsql that follows every INSERT into the outbox, in the same transaction."""

# INVARIANT (SLEEPERS is held before WRITERS is tried): a transaction that has missed it holds WRITERS since before.
ARM: Final = f"""
SELECT CASE WHEN NOT pg_try_advisory_lock_shared({SLEEPERS}) THEN false
  WHEN {_NOBODY_WRITES} THEN true
  ELSE NOT pg_advisory_unlock_shared({SLEEPERS}) END
"""
"""SQL: whether this session may sleep, and is known as a sleeper from now on."""

DISARM: Final = f"SELECT pg_advisory_unlock_shared({SLEEPERS})"
