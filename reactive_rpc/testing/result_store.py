"""The contract of a store of results, as tests that the author of one runs against it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final

from reactive_rpc.cache.result_store import FoundResult, ResultStore, StoredResult

__all__ = ["ResultStoreContract"]

DEADLINE_SECONDS: Final = 10.0
"""How long the end of a time is waited for."""
LONG_SECONDS: Final = 60.0
SHORT_SECONDS: Final = 0.1


class ResultStoreContract:
    """The tests of every `ResultStore`. Subclass it in a module of tests:

        class TestFileStore(ResultStoreContract):
            def new_store(self) -> FileStore:
                return FileStore("results.db")

    Each method `test_...` is a test of its own for pytest, and runs on an event loop of its own. Names are random, so
    tests may share a place.

    Attributes:
        has_leases: to be set to False for a store that has everybody compute.
    """

    has_leases: ClassVar[bool] = True

    def new_store(self) -> ResultStore:
        """Return a store that is not open yet: one more worker's, on the place that all stores of a test share."""
        raise NotImplementedError

    def test_what_one_worker_puts_another_finds(self) -> None:
        """Every byte of it, line ends, zeros and invalid UTF-8 among them; a few bytes, and a megabyte."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            for content in (b"7\n", bytes(range(256)), secrets.token_bytes(1024 * 1024)):
                name = _new_name()
                await _put(one, name, content=content)
                found = await _find(other, name)
                assert isinstance(found, bytes), f"find returns bytes, and this is a {type(found).__name__}"
                assert found == content, "find returns what was put, unchanged"

        self._run(check)

    def test_names_are_kept_apart(self) -> None:
        """A result that is put at one is not found at another, however alike they are."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            beginning = _new_name()[:-1]
            names = [beginning + end for end in "0123"]
            results = [StoredResult(name, 7, name.encode(), LONG_SECONDS) for name in names[:-1]]
            await one.put(results, released=())
            assert [await _find(other, name) for name in names[:-1]] == [result.content for result in results]
            assert await _find(other, names[-1]) == "compute", "nothing was put at this name"

        self._run(check)

    def test_a_result_takes_the_place_of_the_one_before(self) -> None:
        """In the order in which they are put."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            name = _new_name()
            for version in (7, 8):
                await _put(one, name, version=version)
            assert await _find(other, name) == b"8\n", "the result that was put last is found"

        self._run(check)

    def test_what_is_known_to_be_outdated_is_not_given(self) -> None:
        """A version that is not above `after`; versions are compared as numbers, to the last digit."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            for version in (0, 10, 2**53):
                name, content = _new_name(), b"%d\n" % version
                await _put(one, name, version=version)
                assert await _find(other, name, after=version - 1) == content, f"{version} is above {version - 1}"
                found = await _find(other, name, after=version)
                assert not isinstance(found, bytes), f"a result of version {version} is outdated after {version}"

        self._run(check)

    def test_what_is_kept_long_enough_is_not_given(self) -> None:
        """Past `ttl_seconds`; a result that is put anew is kept anew."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            name, kept = _new_name(), _new_name()
            await one.put([StoredResult(each, 7, b"7\n", SHORT_SECONDS) for each in (name, kept)], released=())
            await _put(one, kept, version=8)
            await _until(lambda: _is_gone(other, name), "a result is still found long after its ttl_seconds")
            assert await _find(other, kept) == b"8\n", "the ttl_seconds of the result before ended this one"

        self._run(check)

    def test_nobody_waits_for_nobody(self) -> None:
        """The first who asks for a name is to compute it."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            for store in (one, other):
                assert await _find(store, _new_name()) == "compute", "nobody else is computing this"

        self._run(check)

    def test_one_computes_while_others_wait(self) -> None:
        """Until the result is there; or until the one who computes has given the name back without one."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            with_result, without = _new_name(), _new_name()
            for name in (with_result, without):
                assert await _find(one, name) == "compute"
                assert await _find(other, name) == "wait", "somebody is computing this"
            await one.put([StoredResult(with_result, 8, b"8\n", LONG_SECONDS)], released=[with_result, without])
            assert await _find(other, with_result) == b"8\n"
            assert await _find(other, without) == "compute", "the name was released"

        self._run(check, is_of_leases=True)

    def test_whoever_waits_is_given_what_is_put_or_is_to_ask_again(self) -> None:
        """A store that hears of what is put answers with it; one that does not answers at once."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            name = _new_name()
            assert await _find(one, name) == "compute"
            put = one.put([StoredResult(name, 8, b"8\n", LONG_SECONDS)], released=())
            answer, _ = await asyncio.gather(_find(other, name, wait_seconds=DEADLINE_SECONDS), put)
            assert answer in ("wait", b"8\n"), "whoever waits is given the result, or is to ask again"
            assert await _find(other, name) == b"8\n"

        self._run(check, is_of_leases=True)

    def test_of_many_who_ask_at_once_one_computes(self) -> None:
        """Every question is answered, and one alone by "compute"."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            name = _new_name()
            answers = await asyncio.gather(*(_find(store, name) for store in (one, other) for _ in range(8)))
            assert sorted(map(str, answers)) == ["compute"] + ["wait"] * 15

        self._run(check, is_of_leases=True)

    def test_a_lease_ends_by_itself(self) -> None:
        """Whoever held it may have died."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            name = _new_name()
            assert await _find(one, name, lease_seconds=SHORT_SECONDS) == "compute"
            await _until(lambda: _is_free(other, name), "a lease still holds long after its lease_seconds")

        self._run(check, is_of_leases=True)

    def test_a_lease_that_is_outdated_is_taken_over(self) -> None:
        """Its holder began at a version that is not above the `after` of whoever asks; others wait for the new one."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            name = _new_name()
            assert await _find(one, name, after=-1, version=9) == "compute"
            assert await _find(other, name, after=8, version=10) == "wait", "a lease of version 9 is not outdated by 8"
            assert await _find(other, name, after=9, version=10) == "compute", "a lease of version 9 is outdated by 9"
            assert await _find(one, name, after=9, version=10) == "wait", "a lease of version 10 holds by now"

        self._run(check, is_of_leases=True)

    def test_what_nobody_holds_can_be_released(self) -> None:
        """A lease may have ended, and nothing may be there to put."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            await one.put([], released=[])
            await other.put([], released=[_new_name()])

        self._run(check)

    def test_it_opens_and_closes_again(self) -> None:
        """Twice is once; a result is there when the store is open again, as long as another worker has it open."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            name = _new_name()
            await _put(one, name)
            await one.open()
            assert await _find(one, name) == b"7\n"
            for _ in range(2):
                await one.aclose()
            await one.open()
            assert [await _find(store, name) for store in (one, other)] == [b"7\n"] * 2

        self._run(check)

    def test_many_results_come_at_once(self) -> None:
        """A hundred in one `put`, and questions meanwhile."""

        async def check(one: ResultStore, other: ResultStore) -> None:
            names = [_new_name() for _ in range(100)]
            await asyncio.gather(
                one.put([StoredResult(name, 7, name.encode(), LONG_SECONDS) for name in names], released=names),
                *(_find(other, _new_name()) for _ in range(15)),
            )
            assert [await _find(other, name) for name in names] == [name.encode() for name in names]

        self._run(check)

    def _run(
        self, check: Callable[[ResultStore, ResultStore], Coroutine[Any, Any, None]], *, is_of_leases: bool = False
    ) -> None:
        """Run a check with the stores of two workers."""

        async def run() -> None:
            async with _opened(self.new_store()) as one, _opened(self.new_store()) as other:
                await check(one, other)

        if self.has_leases or not is_of_leases:
            asyncio.run(run())


@asynccontextmanager
async def _opened(store: ResultStore) -> AsyncIterator[ResultStore]:
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


def _new_name() -> str:
    return secrets.token_hex(32)


async def _put(store: ResultStore, name: str, *, version: int = 7, content: bytes = b"") -> None:
    await store.put([StoredResult(name, version, content or b"%d\n" % version, LONG_SECONDS)], released=())


async def _find(
    store: ResultStore,
    name: str,
    *,
    after: int = -1,
    version: int = 7,
    lease_seconds: float = LONG_SECONDS,
    wait_seconds: float = 0.0,
) -> FoundResult:
    return await store.find(name, after=after, version=version, lease_seconds=lease_seconds, wait_seconds=wait_seconds)


async def _is_gone(store: ResultStore, name: str) -> bool:
    return not isinstance(await _find(store, name), bytes)


async def _is_free(store: ResultStore, name: str) -> bool:
    return await _find(store, name) == "compute"


async def _until(holds: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    give_up_at = time.monotonic() + DEADLINE_SECONDS
    while not await holds():
        assert time.monotonic() < give_up_at, otherwise
        await asyncio.sleep(SHORT_SECONDS / 10)
