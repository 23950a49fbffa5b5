"""What a client that asks for it is told of each call, beside its result; and that nobody else is."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest

pytestmark = pytest.mark.anyio

ASKED = {"reactive": "1"}
LINES = {"trpc-accept": "application/jsonl"}
KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
OTHER_KEY = "1a0f1f0c-1f0e-4d6e-8b60-0f3a3a1d2c55"
VALUES = {"at": "2027-01-15T08:00:00Z", "big": 2**60 + 1, "raw": "AP8=", "tags": ["a"], "by_day": {}}
NONE = {"values": VALUES, "times": 0}


def batch(*paths: str, **inputs: object) -> str:
    """Return the URL of a batch; `_1` is the input of its second call."""
    named = {name.removeprefix("_"): value for name, value in inputs.items()}
    return f"/trpc/{','.join(paths)}?batch=1&input={quote(json.dumps(named))}"


async def add(desk: httpx.AsyncClient, text: str, **headers: str) -> httpx.Response:
    return await desk.post("/trpc/desk.add", json={"desk": "a", "text": text}, headers=headers)


async def texts(desk: httpx.AsyncClient) -> list[str]:
    memos = (await desk.get(batch("desk.memos", _0={"desk": "a"}))).json()[0]["result"]["data"]
    return [memo["text"] for memo in memos]


async def test_results_come_with_etag_version_and_scope(desk: httpx.AsyncClient) -> None:
    """Also those of a batch; of one that the client has, no data."""
    await add(desk, "x")
    plain = await desk.get(f"/trpc/desk.memos?input={quote(json.dumps({'desk': 'a'}))}")
    etag, version, scope = (plain.headers[name] for name in ("etag", "reactive-version", "reactive-scope"))
    url = batch("desk.memos", "desk.one", _0={"desk": "a"}, _1={"id": 1})
    one, other = (await desk.get(url, headers=ASKED)).json()
    marks = {"etag": etag, "version": version, "scope": scope}
    assert one["result"]["data"] == {"d": plain.json()["result"]["data"], **marks}
    assert other["result"]["data"]["d"]["text"] == "x"
    asked = {**ASKED, "reactive-etags": json.dumps({"0": etag, "1": '"other"'})}
    same, sent = (await desk.get(url, headers=asked)).json()
    assert same == {"result": {"data": {**marks, "same": True}}}
    assert sent == other
    [line] = [line for line in (await desk.get(url, headers={**asked, **LINES})).text.splitlines() if '"same"' in line]
    assert json.loads(line) == [0, 0, [[{"result": {"data": {**marks, "same": True}}}]]]


async def test_a_mutation_comes_with_the_version_that_shows_it(desk: httpx.AsyncClient) -> None:
    """Which is the cursor of its answer."""
    added = await add(desk, "y", **ASKED)
    marked = added.json()["result"]["data"]
    assert (marked["d"]["text"], marked["version"]) == ("y", added.headers["reactive-cursor"])
    assert marked["scope"] == added.headers["reactive-scope"]
    assert "etag" not in marked


async def test_an_error_that_lasts_has_its_etag_and_version(desk: httpx.AsyncClient) -> None:
    """It is an outcome until the data changes, and no cache may keep its answer; any other error is none."""
    answer = await desk.get(batch("desk.one", "desk.broken", _0={"id": 7}), headers=ASKED)
    missing, broken = (each["error"]["data"] for each in answer.json())
    assert missing["code"] == "NOT_FOUND"
    assert set(missing["reactive"]) == {"etag", "version", "scope"}
    assert "etag" not in broken.get("reactive", {})
    assert "etag" not in answer.headers
    unmarked = (await desk.get(batch("desk.one", _0={"id": 7}))).json()[0]["error"]["data"]
    assert "reactive" not in unmarked


async def test_who_knows_of_the_marks_may_send_queries_by_post(desk: httpx.AsyncClient) -> None:
    """So no input is too long, and none stands in a log; without the header the mount's own rule holds."""
    url = "/trpc/desk.memos?batch=1"
    body = {"0": {"desk": "a"}}
    assert (await desk.post(url, json=body, headers=ASKED)).json()[0]["result"]["data"]["d"] == []
    assert (await desk.post(url, json=body)).json()[0]["error"]["data"]["code"] == "METHOD_NOT_SUPPORTED"
    by_get = await desk.get(batch("desk.touch"), headers=ASKED)
    assert by_get.json()[0]["error"]["data"]["code"] == "METHOD_NOT_SUPPORTED"


async def test_each_mutation_of_a_batch_may_have_a_key(desk: httpx.AsyncClient) -> None:
    """Under which it is made once."""
    calls = [{"desk": "a", "text": "x"}, {"desk": "a", "text": "y"}, {"desk": "a", "text": "z"}]
    keys = {**ASKED, "reactive-keys": json.dumps({"0": KEY, "2": OTHER_KEY})}
    url = "/trpc/desk.add,desk.add,desk.add?batch=1"
    body = {str(index): call for index, call in enumerate(calls)}
    first = (await desk.post(url, json=body, headers=keys)).json()
    again = (await desk.post(url, json=body, headers=keys)).json()
    ids = [[each["result"]["data"]["d"]["id"] for each in answers] for answers in (first, again)]
    assert (ids[0][0], ids[0][2]) == (ids[1][0], ids[1][2])
    assert ids[0][1] != ids[1][1]
    assert sorted(await texts(desk)) == ["x", "y", "y", "z"]
    alone = await add(desk, "x", **{**ASKED, "reactive-keys": json.dumps({"0": KEY})})
    assert alone.json()["result"]["data"]["d"]["id"] == ids[0][0]
    both = await add(desk, "x", **{**ASKED, "reactive-keys": json.dumps({"0": KEY}), "idempotency-key": KEY})
    assert both.json()["error"]["data"]["code"] == "BAD_REQUEST"


async def test_a_mutation_that_another_caller_has_made_is_refused(desk: httpx.AsyncClient) -> None:
    """It may have waited in the storage of a browser into which somebody else has logged in meanwhile."""
    mine = (await add(desk, "x")).headers["reactive-scope"]
    assert (await add(desk, "y", **{"reactive-scope": mine})).status_code == 200
    refused = await add(desk, "z", **{"reactive-scope": mine, "authorization": "Bearer eve"})
    error = refused.json()["error"]["data"]
    assert (error["code"], error["details"]) == ("PRECONDITION_FAILED", {"caller": "another"})
    assert await texts(desk) == ["x", "y"]


async def test_results_with_long_numbers_come_as_text_where_it_is_asked(desk: httpx.AsyncClient) -> None:
    """By any link, as each parses JSON by itself, and JavaScript rounds."""
    url = batch("desk.echo", "desk.echo", "desk.echo", _0={"values": VALUES}, _1={"values": VALUES}, _2=NONE)
    asked = {**ASKED, "reactive-exact": "1,2"}
    plain, exact = [
        [each["result"]["data"] for each in (await desk.get(url, headers=headers)).json()] for headers in (ASKED, asked)
    ]
    assert [each["d"] for each in plain] == [plain[0]["d"], plain[0]["d"], []]
    assert plain[0]["d"][0]["big"] == VALUES["big"]
    assert (exact[0], exact[2]) == (plain[0], plain[2])
    assert {**exact[1], "d": json.loads(exact[1]["d"])} == {**plain[1], "text": True}
    [line] = [line for line in (await desk.get(url, headers={**asked, **LINES})).text.splitlines() if '"text"' in line]
    assert json.loads(line)[2][0][0]["result"]["data"] == exact[1]


async def test_a_transformer_makes_values_of_what_is_marked(desk: httpx.AsyncClient) -> None:
    """The marks say so; the annotations are those of the data, one step deeper."""
    body = {"0": {"json": {"values": VALUES}}}
    for more in ({}, LINES):
        text = (await desk.post("/super/desk.echo?batch=1", json=body, headers={**ASKED, **more})).text
        last: Any = json.loads(text.splitlines()[-1])
        data = last["json"][2][0][0]["result"]["data"] if more else last[0]["result"]["data"]["json"]
        values = (last if more else last[0]["result"]["data"])["meta"]["values"]
        assert data["transformed"] is True
        assert data["d"][0]["big"] == str(VALUES["big"])
        at = "2.0.0.result.data.d.0.at" if more else "d.0.at"
        assert values[at] == ["Date"]


async def test_what_is_spelled_wrongly_is_told(desk: httpx.AsyncClient) -> None:
    """And who does not ask is not held to it."""
    url = batch("desk.memos", _0={"desk": "a"})
    for spelled in ("{", "[]", '{"0":1}', "[" * 9000):
        for name in ("reactive-etags", "reactive-keys"):
            refused = await desk.get(url, headers={**ASKED, name: spelled})
            assert refused.json()["error"]["data"]["code"] == "BAD_REQUEST"
            assert (await desk.get(url, headers={name: spelled})).status_code == 200
