"""The changes of a database in Redis: its keys, their contents, and the scripts that keep them right.

| key | contents |
|---|---|
| `{ns}:state` | a hash, where the stream ends: epoch, version, position, schema_fingerprint, top, claimed |
| `{ns}:log` | a stream of entries with the id `<version>-0`: prev, epoch, schema_fingerprint, and changes or parts |
| `{ns}:times` | a list of pairs: when an entry came, and its version |
| `{ns}:reports` | a short stream: epoch, version, schema_fingerprint, top (of the log), answered, prev, changes |
| `{ns}:questions` | a list of questions that wait for a relay |
| `{ns}:lookups` | a sorted set: the virtual columns that workers want, each with the time until when |
| `{ns:<n>}:part` | if there are shards: a stream of contents, each named by an entry of `{ns}:log` |

docs/internals/redis.md says why a reader misses nothing unnoticed, whoever writes and whatever Redis loses.
"""

from __future__ import annotations

import secrets
import time
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ResponseError

from reactive_rpc.backends.redis.connection import REDIS_FAULTS, connect_redis
from reactive_rpc.dependencies.change import Change, Image, Unknown
from reactive_rpc.dependencies.codec import decode_changes, decode_lookup, encode_changes, encode_lookup
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.protocol.cursors import Cursor

__all__ = ["FAULTS", "AppendRequest", "RedisStream", "Refusal", "RelayReport", "StreamEntry"]

FAULTS: Final = REDIS_FAULTS
"""The errors of the driver if Redis does not do as it is told."""

RETRIES: Final = 2
"""Of a command, also of one that may have been run: none here does harm when it is run twice."""
PART_SPARE_MILLISECONDS: Final = 60_000
PAGE_ENTRIES: Final = 200
MAX_REPORTS: Final = 100
MAX_CARRIED_BYTES: Final = 16 * 1024
"""A smaller entry comes with the report of it, too, which spares each reader a question."""
MAX_FORGOTTEN: Final = 20
"""So many entries at most are forgotten for their age with each report: more than come, so none stays for long."""
MAX_LOOKUPS: Final = 500
"""So many virtual columns at most are wanted; those wanted last are kept."""
MAX_QUESTIONS: Final = 10_000
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
local prev = top
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
clear(KEYS[4], 'list')
if ARGV[7] == 'entry' then
    local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[11], ARGV[4] .. '-0',
        'prev', prev, 'epoch', ARGV[3], 'schema_fingerprint', ARGV[6], ARGV[8], ARGV[9])
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
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'version', ARGV[4], 'position', ARGV[5],
    'schema_fingerprint', ARGV[6], 'top', top)
local report = {{'epoch', ARGV[3], 'version', ARGV[4], 'schema_fingerprint', ARGV[6], 'top', top, 'answered', ARGV[10]}}
if ARGV[7] == 'entry' and not is_new and ARGV[8] == 'changes' and #ARGV[9] <= {MAX_CARRIED_BYTES} then
    for _, part in ipairs({{'prev', prev, 'changes', ARGV[9]}}) do
        table.insert(report, part)
    end
end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[12], '*', unpack(report))
return redis.call('HGET', KEYS[1], 'claimed') or ''
"""
_ASK: Final = f"""{_CLEAR}
clear(KEYS[1], 'list')
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[2]), -1)
"""
_WANT: Final = f"""{_CLEAR}
clear(KEYS[1], 'zset')
clear(KEYS[2], 'list')
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
for place = 4, #ARGV do
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), ARGV[place])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('RPUSH', KEYS[2], '')
redis.call('LTRIM', KEYS[2], -tonumber(ARGV[3]), -1)
"""


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """An entry, or a new beginning, to be appended.

    Attributes:
        to: where the stream then ends.
        schema_fingerprint: of the schema in the snapshot that shows `to`.
        changes: every captured change since the end of before, in commit order.
        restart: whether the stream begins anew at `to`, with nothing in it.
    """

    to: Cursor
    schema_fingerprint: str
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
class StreamEntry:
    """One entry of the stream.

    Attributes:
        prev: it tells everything captured after this version.
        version: and up to this one.
        epoch: of the database.
        schema_fingerprint: of the schema by which the changes were decoded.
        changes: in commit order; None where they are gone, or nothing that can be read.
    """

    prev: int
    version: int
    epoch: str
    schema_fingerprint: str
    changes: tuple[Change, ...] | None


@dataclass(frozen=True, slots=True)
class RelayReport:
    """A report of the relay's: so far is the stream, and so far is the database as the relay has seen it.

    Attributes:
        id: of the report, to read after it.
        epoch: of the database.
        version: nothing that was captured lies between `top` and this.
        schema_fingerprint: of the schema at that version.
        top: the version of the last entry, or where the stream began.
        answered: the questions that were taken before the look at the database that showed `version`.
        entry: that was appended with the report, if it is small; else None.
    """

    id: bytes
    epoch: str
    version: int
    schema_fingerprint: str
    top: int
    answered: frozenset[str]
    entry: StreamEntry | None = None


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
        self._state, self._log, self._reports, self._questions, self._times, self._lookups = (
            f"{{{namespace}}}:{name}" for name in ("state", "log", "reports", "questions", "times", "lookups")
        )
        self._client: Any = connect_redis(url)  # whose types differ between a server and a cluster
        self._waiting: Any = connect_redis(url)
        for client in (self._client, self._waiting):
            client.set_retry(Retry(ConstantBackoff(0.05), RETRIES))
        self._advance = self._client.register_script(_ADVANCE)
        self._ask = self._client.register_script(_ASK)
        self._want = self._client.register_script(_WANT)
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
        self, end: Cursor | None, request: AppendRequest, answered: Iterable[str] = (), *, claim: bool = False
    ) -> Refusal | None:
        """Append and report, if the stream ends at `end` (None: if there is none); else return where it ends.

        Args:
            answered: the questions that were taken before the database was looked at for this request.
            claim: whether a refusal is noted in `claimed`, for whoever appends meanwhile to see.
        """
        mode, field, content = "", "", b""
        if request.changes and not request.restart:
            mode = "entry"
            field, content = await self._content(request.changes)
        elif request.restart:
            mode = "restart"
        answer = await self._advance(
            keys=[self._state, self._log, self._reports, self._times],
            args=[
                *(("", "") if end is None else (end.epoch, str(end.version))),
                *(request.to.epoch, str(request.to.version), request.to.position, request.schema_fingerprint),
                *(mode, field, content),
                *(orjson.dumps(list(answered)), self._max_entries, MAX_REPORTS, self._max_age_milliseconds),
                "claim" if claim else "",
            ],
        )
        if isinstance(answer, list):
            return Refusal(_cursor(*answer))
        self.claimed = answer
        return None

    async def ask(self, question: str) -> None:
        """Ask how far the database is: a report that names `question` is the answer."""
        await self._ask(keys=[self._questions], args=[question, MAX_QUESTIONS])

    async def want(self, lookups: Iterable[Lookup], seconds: float) -> None:
        """Have relays add these virtual columns to images, for a time; one that waits for questions hears it now."""
        args: list[int | bytes] = [int(seconds * 1000), MAX_LOOKUPS, MAX_QUESTIONS, *map(encode_lookup, lookups)]
        await self._want(keys=[self._lookups, self._questions], args=args)

    async def wanted(self) -> dict[str, tuple[Lookup, ...]]:
        """Return `{table: the virtual columns that somebody wants}`."""
        try:
            members = await self._client.zrange(self._lookups, 0, -1)
        except ResponseError as exc:
            if not str(exc).startswith("WRONGTYPE"):
                raise
            return {}  # somebody else's; `want` clears it away
        found: dict[str, tuple[Lookup, ...]] = {}
        for member in members:
            with suppress(ValueError):  # what a stranger wrote
                lookup = decode_lookup(member)
                found[lookup.table] = (*found.get(lookup.table, ()), lookup)
        return found

    async def take_questions(self, wait_seconds: float) -> list[str]:
        """Take the questions that wait, or wait for the first; none where the time is over."""
        first = await self._waiting.blpop([self._questions], timeout=wait_seconds)
        if first is None:
            return []
        more = await self._client.lpop(self._questions, MAX_QUESTIONS)
        return [question.decode(errors="replace") for question in (first[1], *(more or ()))]

    async def last_report(self) -> RelayReport | None:
        """Return the last report; None where there is none."""
        found = await self._client.xrevrange(self._reports, count=1)
        return _report(*found[0]) if found else None

    async def reports_after(self, report_id: bytes, wait_seconds: float) -> list[RelayReport]:
        """Return the reports after one, or wait for the first; none where the time is over."""
        found = await self._waiting.xread({self._reports: report_id}, block=max(1, int(wait_seconds * 1000)))
        return [_report(*record) for _, records in found or () for record in records]

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
            prev, epoch = int(fields[b"prev"]), fields[b"epoch"].decode()
            schema_fingerprint = fields[b"schema_fingerprint"].decode()
        except (ValueError, KeyError, TypeError, AttributeError):  # what a stranger wrote
            return StreamEntry(version, version, "", "", None)
        return StreamEntry(prev, version, epoch, schema_fingerprint, changes)

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


def _report(id_: bytes, fields: Mapping[bytes, bytes]) -> RelayReport:
    text = {name.decode(): value.decode(errors="replace") for name, value in fields.items() if name != b"changes"}
    answered = frozenset(map(str, orjson.loads(fields[b"answered"])))
    epoch, version, schema_fingerprint = text["epoch"], int(text["version"]), text["schema_fingerprint"]
    entry = None
    with suppress(ValueError, KeyError, TypeError, AttributeError):  # what a stranger wrote, or no small entry
        entry = StreamEntry(int(text["prev"]), version, epoch, schema_fingerprint, decode_changes(fields[b"changes"]))
    return RelayReport(id_, epoch, version, schema_fingerprint, int(text["top"]), answered, entry)


def _cursor(epoch: bytes, version: bytes, position: bytes) -> Cursor | None:
    """Return where the stream ends; None where there is none, or what nobody of ours wrote."""
    if not version.isdigit() or not epoch.isascii():
        return None
    return Cursor(epoch.decode(), int(version), position.decode(errors="replace"))
