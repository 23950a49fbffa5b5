"""The changes of a database in Redis: which keys there are, what stands in them, and the scripts that keep them right.

| key | what it holds |
|---|---|
| `{ns}:state` | a hash, where the stream ends: epoch, version, position, mark, top (of the last entry), claimed |
| `{ns}:log` | a stream of entries with the id `<version>-0`: prev, epoch, mark, and changes or parts |
| `{ns}:beat` | a short stream of reports: epoch, version, mark, top, and whose questions are answered |
| `{ns}:asks` | a list of questions: who wants to be told how far the database is, now |
| `{ns:<n>}:part` | where there are shards: a stream of contents, each named by an entry of `{ns}:log` |

**An entry** tells every captured change between two snapshots of the database: after version `prev`, up to its own.
`prev` is the version of the entry before it, so a reader that stands at version R may apply an entry exactly if
`prev <= R`: it tells all that R does not know, and perhaps a little that it does, which does no harm. A reader whose
next entry has a higher `prev`, or that finds none although `top` is higher than R, has missed something, whatever the
cause: the stream was trimmed, a key was deleted, Redis came back empty, or a fail-over lost the newest entries.

**Compare and append.** An entry is written, and the state moved, by one script, and only if the stream ends where its
writer believes. So it does not matter how many write, or how long one of them was stopped between reading the database
and writing here: what it found is a function of two snapshots, of which the first is where the stream still ends. An
election saves work; nothing rests on it. A writer that is refused learns where the stream ends and goes on from there.

**Begun anew**, the stream is empty and `top` is the version it begins at: whoever stands there or past it goes on, and
everybody else has missed something. That is also what a flush is: there is no entry for it. If an entry cannot be added
(somebody else wrote into the stream, or there is no memory left), the script begins anew at its version. A key of
another type, and a state that no script of ours wrote, count as none.

**What a lost write of Redis can do.** State and log lie in one hash slot, a script is replicated and logged as a whole,
and a copy that lags has lost a suffix of the scripts. So in every copy the two agree, and all of the above holds in it.
Contents in shards are elsewhere: they are written first, under a label that is never used again, and count only once an
entry names them. A part that is not there, or bears another label, is something missed.

**Questions** are random names, not numbers: a counter could go back with a fail-over, and a report that was written
before it would then pass for an answer. They may be lost, by anything; whoever asks asks again.
"""

from __future__ import annotations

import secrets
import time
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ResponseError

from reactive_rpc.backends.redis.connection import REDIS_FAULTS, connect_redis
from reactive_rpc.dependencies.change import Change, Image, Unknown
from reactive_rpc.dependencies.codec import decode_changes, encode_changes
from reactive_rpc.protocol.cursors import Cursor

__all__ = ["FAULTS", "AppendRequest", "RedisStream", "Refusal", "RelayReport", "StreamEntry"]

FAULTS: Final = REDIS_FAULTS
"""What the driver raises where Redis does not do as it is told."""

RETRIES: Final = 2
"""Of a command, also of one that may have been run: none here does harm when it is run twice."""
PART_SPARE_MILLISECONDS: Final = 60_000
PAGE_ENTRIES: Final = 200
MAX_BEATS: Final = 100
MAX_FORGOTTEN: Final = 20
"""So many entries at most are forgotten for their age with each report: more than come, so none stays for long."""
MAX_ASKS: Final = 10_000
"""So many questions may wait for a relay; older ones are dropped, and asked again."""

_CLEAR: Final = """
local function clear(key, kind)
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then
        redis.call('DEL', key)
    end
end
"""
_ADVANCE: Final = f"""{_CLEAR}
clear(KEYS[1], 'hash')
clear(KEYS[3], 'stream')
local found = redis.call('HMGET', KEYS[1], 'epoch', 'version', 'position', 'top')
local epoch, version, top = found[1] or '', found[2] or '', found[4] or ''
if string.find(epoch, '[^!-~]') or string.find(version .. top, '[^0-9]') or top == '' then
    epoch, version, top = '', '', ''
end
if epoch ~= ARGV[1] or version ~= ARGV[2] then
    if ARGV[14] == 'claim' then
        redis.call('HSET', KEYS[1], 'claimed', table.concat(redis.call('TIME'), '.'))
    end
    return {{epoch, version, found[3] or ''}}
end
local is_new = ARGV[7] == 'restart'
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
clear(KEYS[4], 'list')
if ARGV[7] == 'entry' then
    local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[11], ARGV[4] .. '-0',
        'prev', top, 'epoch', ARGV[3], 'mark', ARGV[6], ARGV[8], ARGV[9])
    is_new = type(added) == 'table' and added.err ~= nil
    top = ARGV[4]
    redis.call('RPUSH', KEYS[4], string.format('%.0f', now), ARGV[4])
    redis.call('PEXPIRE', KEYS[2], ARGV[13])
    redis.call('PEXPIRE', KEYS[4], ARGV[13])
end
if is_new then
    redis.call('DEL', KEYS[2], KEYS[4])
    top = ARGV[4]
end
for _ = 1, {MAX_FORGOTTEN} do
    local oldest = tonumber(redis.call('LINDEX', KEYS[4], 0) or now)
    if oldest == nil or oldest > now - tonumber(ARGV[13]) then
        break
    end
    redis.pcall('XDEL', KEYS[2], (redis.call('LINDEX', KEYS[4], 1) or '0') .. '-0')
    redis.call('LTRIM', KEYS[4], 2, -1)
end
redis.call('LTRIM', KEYS[4], -2 * tonumber(ARGV[11]), -1)
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'version', ARGV[4], 'position', ARGV[5], 'mark', ARGV[6], 'top', top)
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[12], '*',
    'epoch', ARGV[3], 'version', ARGV[4], 'mark', ARGV[6], 'top', top, 'served', ARGV[10])
return redis.call('HGET', KEYS[1], 'claimed') or ''
"""
_ASK: Final = f"""{_CLEAR}
clear(KEYS[1], 'list')
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[2]), -1)
"""


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """What is to be appended.

    Attributes:
        to: where the stream then ends.
        mark: what the database said of its schema in the snapshot that shows `to`.
        changes: every captured change since the end of before, in commit order.
        restart: whether the stream begins anew at `to`, with nothing in it.
    """

    to: Cursor
    mark: str
    changes: Sequence[Change] = ()
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """The stream does not end where it was believed to.

    Attributes:
        end: where it does; None where there is no stream.
    """

    end: Cursor | None


@dataclass(frozen=True, slots=True)
class RelayReport:
    """A report of the relay's: so far is the stream, and so far is the database as the relay has seen it.

    Attributes:
        id: of the report, to read after it.
        epoch: of the database.
        version: nothing that was captured lies between `top` and this.
        mark: of the schema at that version.
        top: the version of the last entry, or where the stream began.
        served: the questions that were taken before the look at the database that showed `version`.
    """

    id: bytes
    epoch: str
    version: int
    mark: str
    top: int
    served: frozenset[str]


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry of the stream.

    Attributes:
        prev: it tells everything captured after this version.
        version: and up to this one.
        epoch: of the database.
        mark: of the schema by which the changes were decoded.
        changes: in commit order; None where they are gone, or nothing that can be read.
    """

    prev: int
    version: int
    epoch: str
    mark: str
    changes: tuple[Change, ...] | None


class RedisStream:
    """The stream of one database. Used on one event loop; every call but `aclose` may raise one of `FAULTS`.

    Calls that wait have connections of their own, so none waits for another's.

    Args:
        url: of Redis, see `connect_redis`.
        namespace: begins every key.
        shards: over so many streams contents are spread; 1 keeps them in the entries.
        scope_column: rows that have it go to the shard of its value, others to that of their table.
        max_entries: about so many entries are kept.
        max_age_seconds: how long they are kept at most. While reports come they go one by one, without any with all.
    """

    def __init__(
        self,
        url: str,
        namespace: str,
        *,
        shards: int = 1,
        scope_column: str = "",
        max_entries: int = 100_000,
        max_age_seconds: float = 3600.0,
    ) -> None:
        self._shards = shards
        self._scope_column = scope_column
        self._max_entries = max_entries
        self._max_age_milliseconds = int(max_age_seconds * 1000)
        self._namespace = namespace
        self._state, self._log, self._beat, self._asks, self._times = (
            f"{{{namespace}}}:{name}" for name in ("state", "log", "beat", "asks", "times")
        )
        self._client: Any = connect_redis(url)  # whose types differ between a server and a cluster
        self._waiting: Any = connect_redis(url)
        for client in (self._client, self._waiting):
            client.set_retry(Retry(ConstantBackoff(0.05), RETRIES))
        self._advance = self._client.register_script(_ADVANCE)
        self._ask = self._client.register_script(_ASK)
        self.claimed = b""
        """When a claim was refused last, as it stood when this appended last."""

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        for client in (self._client, self._waiting):
            await client.aclose()

    async def end(self) -> Cursor | None:
        """Return where the stream ends; None where there is no stream."""
        try:
            epoch, version, position = await self._client.hmget(self._state, ["epoch", "version", "position"])
        except ResponseError as exc:
            if not str(exc).startswith("WRONGTYPE"):
                raise
            return None  # somebody else's; `advance` clears it away
        return _cursor(epoch or b"", version or b"", position or b"")

    async def advance(
        self, end: Cursor | None, step: AppendRequest, served: Iterable[str] = (), *, claim: bool = False
    ) -> Refusal | None:
        """Append a step and report it, if the stream ends at `end` (None: if there is none); else say where it ends.

        Args:
            served: the questions that were taken before the database was looked at for this step.
            claim: whether a refusal is noted in `claimed`, for whoever appends meanwhile to see.
        """
        mode, field, content = "", "", b""
        if step.changes and not step.restart:
            mode = "entry"
            field, content = await self._content(step.changes)
        elif step.restart:
            mode = "restart"
        answer = await self._advance(
            keys=[self._state, self._log, self._beat, self._times],
            args=[
                *(("", "") if end is None else (end.epoch, str(end.version))),
                *(step.to.epoch, str(step.to.version), step.to.position, step.mark, mode, field, content),
                *(orjson.dumps(list(served)), self._max_entries, MAX_BEATS, self._max_age_milliseconds),
                "claim" if claim else "",
            ],
        )
        if isinstance(answer, list):
            return Refusal(_cursor(*answer))
        self.claimed = answer
        return None

    async def ask(self, question: str) -> None:
        """Ask how far the database is: a report that names `question` is the answer."""
        await self._ask(keys=[self._asks], args=[question, MAX_ASKS])

    async def asked(self, wait_seconds: float) -> list[str]:
        """Take the questions that wait, or wait for the first; none where the time is over."""
        first = await self._waiting.blpop([self._asks], timeout=wait_seconds)
        if first is None:
            return []
        more = await self._client.lpop(self._asks, MAX_ASKS)
        return [question.decode(errors="replace") for question in (first[1], *(more or ()))]

    async def last_beat(self) -> RelayReport | None:
        """Return the last report; None where there is none."""
        found = await self._client.xrevrange(self._beat, count=1)
        return _beat(*found[0]) if found else None

    async def beats_after(self, beat_id: bytes, wait_seconds: float) -> list[RelayReport]:
        """Return the reports after one, or wait for the first; none where the time is over."""
        found = await self._waiting.xread({self._beat: beat_id}, block=max(1, int(wait_seconds * 1000)))
        return [_beat(*record) for _, records in found or () for record in records]

    async def entries(self, after: int, until: int) -> list[StreamEntry]:
        """Return the first entries after a version, up to another, in order: a page of them."""
        records = await self._client.xrange(self._log, f"{after + 1}-0", f"{until}-0", count=PAGE_ENTRIES)
        return [await self._entry(*record) for record in records]

    async def _content(self, changes: Sequence[Change]) -> tuple[str, bytes]:
        """Return the field that holds changes; contents of shards are written here, before anything names them."""
        if self._shards == 1:
            return "changes", encode_changes(changes)
        label = secrets.token_hex(8)
        shards: dict[int, list[int]] = {}
        for place, change in enumerate(changes):
            shards.setdefault(self._shard(change), []).append(place)
        pipeline = self._client.pipeline(transaction=False)
        for shard, places in shards.items():
            part = encode_changes(changes[place] for place in places)
            fields = {"label": label, "places": orjson.dumps(places), "changes": part}
            pipeline.xadd(self._part(shard), fields, maxlen=self._max_entries, approximate=True)
            # Their ids are the time; they outlive the entries that name them.
            kept = self._max_age_milliseconds + PART_SPARE_MILLISECONDS
            pipeline.xtrim(self._part(shard), minid=f"{int(time.time() * 1000) - kept}-0", approximate=False)
            pipeline.pexpire(self._part(shard), kept)
        ids = [id_.decode() for id_ in (await pipeline.execute())[::3]]
        return "parts", orjson.dumps({"label": label, "ids": dict(zip(map(str, shards), ids, strict=True))})

    async def _entry(self, id_: bytes, fields: Mapping[bytes, bytes]) -> StreamEntry:
        version = int(id_.split(b"-")[0])
        try:
            changes = await self._changes(fields)
            prev, epoch, mark = int(fields[b"prev"]), fields[b"epoch"].decode(), fields[b"mark"].decode()
        except (ValueError, KeyError, TypeError, AttributeError):  # what a stranger wrote
            return StreamEntry(version, version, "", "", None)
        return StreamEntry(prev, version, epoch, mark, changes)

    async def _changes(self, fields: Mapping[bytes, bytes]) -> tuple[Change, ...] | None:
        if b"changes" in fields:
            return decode_changes(fields[b"changes"])
        parts = orjson.loads(fields[b"parts"])
        label = parts["label"].encode()
        pipeline = self._client.pipeline(transaction=False)
        for shard, id_ in parts["ids"].items():
            pipeline.xrange(self._part(int(shard)), id_, id_)
        placed: dict[int, Change] = {}
        for records in await pipeline.execute():
            if not records or records[0][1].get(b"label") != label:
                return None
            part = records[0][1]
            placed.update(zip(orjson.loads(part[b"places"]), decode_changes(part[b"changes"]), strict=True))
        return tuple(placed[place] for place in sorted(placed))

    def _part(self, shard: int) -> str:
        return f"{{{self._namespace}:{shard}}}:part"

    def _shard(self, change: Change) -> int:
        scope = _scope(change, self._scope_column)
        return zlib.crc32(scope.encode(errors="replace")) % self._shards


def _scope(change: Change, column: str) -> str:
    """Return what decides about the shard: equal for all changes whose order matters to one scope."""
    images: Collection[Image] = [image for image in (change.after, change.before) if image is not None]
    for image in images:
        value = image.get(column)
        if value is not None and not isinstance(value, Unknown):
            return f"={value}"
    return change.table


def _beat(id_: bytes, fields: Mapping[bytes, bytes]) -> RelayReport:
    text = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
    served = frozenset(map(str, orjson.loads(fields[b"served"])))
    return RelayReport(id_, text["epoch"], int(text["version"]), text["mark"], int(text["top"]), served)


def _cursor(epoch: bytes, version: bytes, position: bytes) -> Cursor | None:
    """Return where the stream ends; None where there is none, or what nobody of ours wrote."""
    if not version.isdigit() or not epoch.isascii():
        return None
    return Cursor(epoch.decode(), int(version), position.decode(errors="replace"))
