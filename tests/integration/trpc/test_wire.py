"""tRPC's wire, byte for byte: queries, mutations, batches, streams of batches, subscriptions, and every refusal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from reactive_rpc import DefinitionError

from .conftest import serving
from .desk import PROCEDURES, rpc_on

JSON = {"content-type": "application/json"}
LINES = {"trpc-accept": "application/jsonl"}

pytestmark = pytest.mark.anyio


def input_of(value: object) -> str:
    return quote(json.dumps(value, separators=(",", ":")))


def without_ids(text: str) -> str:
    """Return an answer whose request ids, each of which is another, are called R."""
    return re.sub(r'"request_id":"[^"]+"', '"request_id":"R"', text)


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return the one bare error of an answer."""
    assert list(response.json()) == ["error"]
    error = response.json()["error"]
    assert set(error) == {"message", "code", "data"}
    assert error["data"]["httpStatus"] == response.status_code
    assert isinstance(error["code"], int)
    assert isinstance(error["message"], str)
    assert response.headers["content-type"] == "application/json"
    return error  # type: ignore[no-any-return]  # of JSON


async def test_a_query_and_a_mutation(desk: httpx.AsyncClient) -> None:
    """Inputs stand in the URL or in the body; one that is left out, or null, is none."""
    added = await desk.post("/trpc/desk.add", json={"desk": "a", "text": "x"})
    assert added.text == '{"result":{"data":{"id":1,"desk":"a","text":"x","author":"ada"}}}'
    assert added.headers["cache-control"] == "no-store"
    found = await desk.get(f"/trpc/desk.memos?input={input_of({'desk': 'a'})}")
    assert found.text == '{"result":{"data":[{"id":1,"desk":"a","text":"x","author":"ada"}]}}'
    assert found.headers["vary"].startswith("trpc-accept, accept")
    for url in ("/trpc/desk.ping", "/trpc/desk.ping?input=null", "/trpc/desk.ping?input="):
        assert (await desk.get(url)).text == '{"result":{"data":"pong"}}'
    for body in (b"", b"null"):
        done = await desk.post("/trpc/desk.touch", content=body, headers=JSON)
        assert done.text == '{"result":{"data":null}}'


async def test_a_single_query_is_answered_304_to_whoever_has_it(desk: httpx.AsyncClient) -> None:
    """A browser's own cache asks so; a batch is never answered so, whatever its request says."""
    url = f"/trpc/desk.memos?input={input_of({'desk': 'a'})}"
    etag = (await desk.get(url)).headers["etag"]
    again = await desk.get(url, headers={"if-none-match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    batch = f"/trpc/desk.memos?batch=1&input={input_of({'0': {'desk': 'a'}})}"
    assert (await desk.get(batch, headers={"if-none-match": etag})).text == '[{"result":{"data":[]}}]'


async def test_results_are_shared_with_the_other_wire(desk: httpx.AsyncClient) -> None:
    """What was computed for one is served to the other, and neither is stale after a write by either."""
    await desk.post("/rpc/desk.add", json={"desk": "a", "text": "x"})
    assert (await desk.get("/rpc/desk.memos?desk=a")).json()[0]["text"] == "x"
    url = f"/trpc/desk.memos?input={input_of({'desk': 'a'})}"
    one = await desk.get(url)
    assert one.headers["reactive-version"] == (await desk.get("/rpc/desk.memos?desk=a")).headers["reactive-version"]
    await desk.post("/trpc/desk.add", json={"desk": "a", "text": "y"})
    assert [memo["text"] for memo in (await desk.get("/rpc/desk.memos?desk=a")).json()] == ["x", "y"]
    assert (await desk.get(url)).json()["result"]["data"] == (await desk.get("/rpc/desk.memos?desk=a")).json()


async def test_a_batch(desk: httpx.AsyncClient) -> None:
    """One status if all have it, 207 otherwise; inputs by index, those without are left out."""
    await desk.post("/trpc/desk.add,desk.add?batch=1", json={"1": {"desk": "b", "text": "2"}})
    fine = await desk.get(f"/trpc/desk.ping,desk.memos?batch=1&input={input_of({'1': {'desk': 'a'}})}")
    assert (fine.status_code, fine.text) == (200, '[{"result":{"data":"pong"}},{"result":{"data":[]}}]')
    mixed = await desk.get(f"/trpc/desk.ping,desk.one,nope?batch=1&input={input_of({'1': {'id': 7}})}")
    assert mixed.status_code == 207
    assert without_ids(mixed.text) == (
        '[{"result":{"data":"pong"}},'
        '{"error":{"message":"no memo 7","code":-32004,"data":{"code":"NOT_FOUND","httpStatus":404,'
        '"path":"desk.one","request_id":"R"}}},'
        '{"error":{"message":"No procedure found on path \\"nope\\"","code":-32004,"data":{"code":"NOT_FOUND",'
        '"httpStatus":404,"request_id":"R"}}}]'
    )
    missing = await desk.get(f"/trpc/desk.one,desk.one?batch=1&input={input_of({'0': {'id': 7}, '1': {'id': 8}})}")
    assert missing.status_code == 404
    assert len(missing.json()) == 2


async def test_a_bad_input_fails_only_the_calls_that_take_one(desk: httpx.AsyncClient) -> None:
    """JSON that is none, or no object, or nested too deeply; the reference server reads inputs lazily, too."""
    for text in ("{", "[]", '"x"', '{"0":', "[" * 3000):
        answer = await desk.get(f"/trpc/desk.ping,desk.one?batch=1&input={quote(text)}")
        pong, refused = answer.json()
        assert pong == {"result": {"data": "pong"}}
        assert refused["error"]["data"]["code"] == "BAD_REQUEST"
    for text in ("{", "[" * 3000, "1", '{"id":1}x'):
        error = error_of(await desk.get(f"/trpc/desk.one?input={quote(text)}"))
        assert (error["code"], error["data"]["code"]) == (-32600, "BAD_REQUEST")


async def test_declared_errors_tell_their_fields(desk: httpx.AsyncClient) -> None:
    """Type and details stand in the error's data, for clients that know them."""
    refused = await desk.post("/trpc/desk.add", json={"desk": "full", "text": "x"})
    assert without_ids(refused.text) == (
        '{"error":{"message":"desk full is full","code":-32009,"data":{"code":"CONFLICT","httpStatus":409,'
        '"path":"desk.add","type":"DeskFull","details":{"desk":"full"},"request_id":"R"}}}'
    )


async def test_an_accident_tells_nothing(desk: httpx.AsyncClient) -> None:
    """The message of an exception never leaves the server."""
    broken = await desk.get("/trpc/desk.broken")
    assert broken.status_code == 500
    assert error_of(broken)["code"] == -32603
    assert "hunter2" not in broken.text


@pytest.mark.parametrize(
    ("method", "url", "headers", "status", "code"),
    [
        ("POST", "desk.add", {}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "desk.add", {"content-type": "text/plain"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "desk.add", {"content-type": "application/x-www-form-urlencoded"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("PUT", "desk.add", {}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("PUT", "desk.add", JSON, 405, "METHOD_NOT_SUPPORTED"),
        ("DELETE", "desk.ping", JSON, 405, "METHOD_NOT_SUPPORTED"),
        ("GET", "desk.add", {}, 405, "METHOD_NOT_SUPPORTED"),
        ("POST", "desk.ping", JSON, 405, "METHOD_NOT_SUPPORTED"),
        ("GET", "desk.attach", {"content-type": "multipart/form-data"}, 405, "METHOD_NOT_SUPPORTED"),
        ("POST", "desk.attach", JSON, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "desk.touch", {"content-type": "multipart/form-data; boundary=b"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("GET", "desk.ping,desk.add?batch=1", {}, 400, "BAD_REQUEST"),
        ("GET", "desk.ping", LINES, 400, "BAD_REQUEST"),
        ("GET", "desk.ping", {"accept": "text/html, application/jsonl"}, 400, "BAD_REQUEST"),
        ("GET", "desk.count", {}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("GET", "%zz", {}, 400, "BAD_REQUEST"),
        ("GET", "nope", {}, 404, "NOT_FOUND"),
        ("GET", "", {}, 404, "NOT_FOUND"),
        ("GET", ",".join(["desk.ping"] * 101) + "?batch=1", {}, 400, "BAD_REQUEST"),
        ("GET", f"desk.ping?input={'x' * 20_000}", {}, 414, "PAYLOAD_TOO_LARGE"),
        ("POST", "desk.add,desk.add?batch=1", {**JSON, "idempotency-key": "k"}, 400, "BAD_REQUEST"),
    ],
)
async def test_a_request_that_is_none_is_refused_by_one_bare_error(
    desk: httpx.AsyncClient, *, method: str, url: str, headers: dict[str, str], status: int, code: str
) -> None:
    """With its code and status; also a batch is refused as a whole."""
    answer = await desk.request(method, f"/trpc/{url}", headers=headers)
    assert answer.status_code == status, answer.text
    assert error_of(answer)["data"]["code"] == code


async def test_a_wrong_method_is_told_the_right_ones(desk: httpx.AsyncClient) -> None:
    """405 names them (RFC 9110, 15.5.6)."""
    assert (await desk.get("/trpc/desk.add")).headers["allow"] == "POST"
    assert (await desk.post("/trpc/desk.ping", json={})).headers["allow"] == "GET"
    assert (await desk.put("/posted/desk.ping", json={})).headers["allow"] == "GET, POST"
    assert (await desk.get("/posted/desk.add")).status_code == 405


async def test_head_says_nothing(desk: httpx.AsyncClient) -> None:
    """204, whatever it asks for."""
    for path in ("desk.ping", "desk.add", "nope"):
        answer = await desk.head(f"/trpc/{path}")
        assert (answer.status_code, answer.content) == (204, b"")


async def test_a_body_that_is_too_large_is_refused(desk: httpx.AsyncClient) -> None:
    """413, as it is declared, and before it is read."""
    answer = await desk.post("/trpc/desk.add", content=b'"' + b"x" * 10_000_000 + b'"', headers=JSON)
    assert (answer.status_code, error_of(answer)["data"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_mounts_have_options_of_their_own(desk: httpx.AsyncClient) -> None:
    """One takes queries by POST and two calls at most, one takes no batches, and each serves the same procedures."""
    assert (await desk.post("/posted/desk.method", headers=JSON)).json() == {"result": {"data": "POST"}}
    assert (await desk.get("/posted/desk.ping,desk.ping,desk.ping?batch=1")).status_code == 400
    refused = await desk.get("/single/desk.ping?batch=1")
    assert error_of(refused)["message"] == "Batching is not enabled on the server"
    assert (await desk.get("/single/desk.ping")).json() == {"result": {"data": "pong"}}


async def test_a_stranger_is_refused_where_somebody_is_asked_for(desk: httpx.AsyncClient) -> None:
    """In a batch, only the calls that ask who calls."""
    answer = await desk.get("/trpc/desk.ping,desk.whoami?batch=1", headers={"authorization": ""})
    pong, refused = answer.json()
    assert pong == {"result": {"data": "pong"}}
    assert refused["error"]["data"]["code"] == "UNAUTHORIZED"


async def test_a_batch_is_streamed_line_by_line(desk: httpx.AsyncClient) -> None:
    """The head first, then each call as it ends, each line ended; refusals are lines, too."""
    answer = await desk.get(f"/trpc/desk.ping,desk.one,nope?batch=1&input={input_of({'1': {'id': 7}})}", headers=LINES)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.endswith("\n")
    head, *lines = without_ids(answer.text).splitlines()
    assert head == '{"0":[[0],[null,0,0]],"1":[[0],[null,0,1]],"2":[[0],[null,0,2]]}'
    assert sorted(lines) == [
        '[0,0,[[{"result":{"data":"pong"}}]]]',
        '[1,0,[[{"error":{"message":"no memo 7","code":-32004,"data":{"code":"NOT_FOUND","httpStatus":404,'
        '"path":"desk.one","request_id":"R"}}}]]]',
        '[2,0,[[{"error":{"message":"No procedure found on path \\"nope\\"","code":-32004,"data":{"code":"NOT_FOUND",'
        '"httpStatus":404,"request_id":"R"}}}]]]',
    ]


async def test_a_streamed_query_is_an_iterable(desk: httpx.AsyncClient) -> None:
    """Its values are chunks, then its return; an error after the first is a chunk of its own."""
    url = f"/trpc/desk.count?batch=1&input={input_of({'0': {'upto': 2}})}"
    assert (await desk.get(url, headers=LINES)).text == (
        '{"0":[[0],[null,0,0]]}\n[0,0,[[{"result":0}],["result",0,1]]]\n[1,0,[[{"data":0}],["data",1,2]]]\n'
        "[2,1,[[0]]]\n[2,1,[[1]]]\n[2,0,[[]]]\n"
    )
    failing = f"/trpc/desk.count?batch=1&input={input_of({'0': {'upto': 9, 'fail_at': 1}})}"
    assert without_ids((await desk.get(failing, headers=LINES)).text).splitlines()[3:] == [
        "[2,1,[[0]]]",
        '[2,2,{"message":"no number 1","code":-32004,"data":{"code":"NOT_FOUND","httpStatus":404,'
        '"path":"desk.count","request_id":"R"}}]',
    ]


async def test_a_subscription_is_a_stream_of_events(desk: httpx.AsyncClient) -> None:
    """`connected`, the values, and `return`; its retry is below the time after which the client gives it up."""
    answer = await desk.get(f"/trpc/desk.ticks?input={input_of({'upto': 2})}")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    connected, *events = answer.text.split("\n\n")
    found = re.fullmatch(r'event: connected\nretry: (\d+)\ndata: {"reconnectAfterInactivityMs":(\d+)}', connected)
    assert found is not None
    assert int(found[1]) < int(found[2])
    assert events == ["data: 0", "data: 1", "event: return\ndata: ", ""]


async def test_a_subscription_that_fails_says_why_in_its_stream(desk: httpx.AsyncClient) -> None:
    """With the status 200, as clients end at any other: refused, unfit, by a wrong method, or in its midst."""
    unfit = await desk.get(f"/trpc/desk.ticks?input={input_of({'upto': 'x'})}")
    stranger = await desk.get(f"/trpc/desk.added?input={input_of({'desk': 'a'})}", headers={"authorization": ""})
    posted = await desk.post("/trpc/desk.ticks", json={"upto": 1})
    failing = await desk.get(f"/trpc/desk.ticks?input={input_of({'upto': 0, 'fail': True})}")
    for answer, code in (
        (unfit, "BAD_REQUEST"), (stranger, "UNAUTHORIZED"), (posted, "METHOD_NOT_SUPPORTED"), (failing, "NOT_FOUND"),
    ):  # fmt: skip
        assert answer.status_code == 200
        first, error, rest = answer.text.split("\n\n")
        assert first.startswith("event: connected\n")
        name, data = error.split("\n")
        assert (name, rest) == ("event: serialized-error", "")
        shape = json.loads(data.removeprefix("data: "))
        assert set(shape) == {"message", "code", "data"}
        assert shape["data"]["code"] == code
    batched = await desk.get(f"/trpc/desk.ticks?batch=1&input={input_of({'0': {'upto': 1}})}")
    assert batched.json()[0]["error"]["message"] == "Cannot batch subscription calls"


async def test_connection_params_are_the_headers_that_a_mount_names(desk: httpx.AsyncClient) -> None:
    """`authorization` and no other; one that the request has itself is not overruled."""
    del desk.headers["authorization"]

    async def said(params: str, headers: dict[str, str] | None = None) -> str:
        return (await desk.get(f"/trpc/desk.me?connectionParams={quote(params)}", headers=headers)).text

    assert 'data: "ada"' in await said('{"authorization":"Bearer ada"}')
    assert 'data: "ada"' in await said('{"Authorization":"Bearer ada","cookie":"a=b"}')
    for params in ('{"cookie":"a=b","x-user":"ada"}', "{}", "null"):
        assert '"UNAUTHORIZED"' in await said(params)
    assert 'data: "eve"' in await said('{"authorization":"Bearer ada"}', {"authorization": "Bearer eve"})
    for params in ("{", "[]", '{"authorization":1}', '{"authorization":"a\\nb"}', '{"authorization":"€"}', "[" * 3000):
        assert '"PARSE_ERROR"' in await said(params)


def test_the_path_of_the_invalidations_is_taken(tmp_path: Path) -> None:
    """No procedure of an application's own may have it."""
    with pytest.raises(DefinitionError, match="stream of invalidations"):
        rpc_on(tmp_path / "desk.db", functions={"reactive": {"events": PROCEDURES["desk"]["ping"]}})


async def test_an_application_may_do_without(tmp_path: Path) -> None:
    """With `trpc_prefix=None` nothing is served there."""
    async with serving(tmp_path / "off.db", trpc_prefix=None) as client:
        assert (await client.get("/trpc/desk.ping")).json() == {"detail": "Not Found"}
        assert (await client.get("/single/desk.ping")).status_code == 200
