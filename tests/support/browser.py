"""A real Chromium: tabs that a test drives by the DevTools protocol, and programs that drive one by Playwright.

Tabs are driven by the protocol itself, as Playwright makes every tab count as visible.
`tests/typescript/browser/relay.ts` starts Chromium and passes messages on.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TimedOut
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import IO, Any, Self

from reactive_rpc.testing.guard import ProcessGuard
from tests.support.node import TYPESCRIPT, node_command, node_environment, run_node
from tests.support.waiting import wait_until

__all__ = ["Chromium", "Context", "Tab", "run_in_browser"]

PATIENCE_SECONDS = 300.0
"""The first program of all unpacks Chromium, and eight pages load slowly on a machine that does other work too."""

ANSWER_SECONDS = 120.0
"""How long Chromium may take for one command."""

LOOK_SECONDS = 0.02
"""How often a tab is looked at: each look takes time from the page's own thread."""

REMEMBERED = 400
"""How many lines are remembered of what has happened in all tabs, if a test fails."""

LEFT = ("Cannot find context", "context was destroyed", "Inspected target navigated", "Cannot find default execution")
"""What Chromium says of a page that is just being left for another one."""


def run_in_browser(
    name: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    within_seconds: float = PATIENCE_SECONDS,
) -> Any:
    """Return the JSON value that a program prints in its last line.

    Args:
        name: of the program, without its folder and `.ts`.
        arguments: its own.
        environment: variables beside this process's own.
        within_seconds: how long it may take.

    Raises:
        AssertionError: it fails, or has not ended in time; it says what the program printed.
    """
    program = TYPESCRIPT / "browser" / f"{name}.ts"
    printed = run_node(program, *arguments, environment=environment, within_seconds=within_seconds)
    return json.loads(printed.splitlines()[-1])


class Refused(AssertionError):
    """Chromium refuses a command: the tab is gone, or shows another page by now."""


class Chromium:
    """One Chromium; as a context manager it runs for as long as the block does.

    Args:
        folder: for its profile and for what it says itself.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began_at = time.monotonic()
        self._ids = count(1)
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._listeners: dict[str, Callable[[str, dict[str, Any]], None]] = {}
        self._lines: deque[str] = deque(maxlen=REMEMBERED)

    def __enter__(self) -> Self:
        with (self._folder / "chromium.log").open("ab") as log:
            self._process = subprocess.Popen(
                node_command(TYPESCRIPT / "browser/relay.ts", str(self._folder / "profile")),
                cwd=TYPESCRIPT, env=node_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._guard = ProcessGuard(self._process.pid)
        self._reader = Thread(target=self._read, args=[_given(self._process.stdout)], daemon=True)
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # The relay ends Chromium at the end of its input.
        _given(self._process.stdin).close()
        try:
            self._process.wait(ANSWER_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._guard.dismiss()
        self._reader.join()
        _given(self._process.stdout).close()

    def new_context(self) -> Context:
        """Return what is like another browser: with storage, cookies and channels of its own."""
        return Context(self, self.call("Target.createBrowserContext")["browserContextId"])

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, session: str | None = None,
        within_seconds: float = ANSWER_SECONDS,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the result of a command of the protocol.

        Raises:
            Refused: Chromium says no.
            TimeoutError: it says nothing: the page is frozen, or its thread is busy.
        """
        number = next(self._ids)
        answer = self._waiting[number] = Future()
        command = {
            "id": number,
            "method": method,
            "params": params or {},
            **({"sessionId": session} if session else {}),
        }
        stdin = _given(self._process.stdin)
        stdin.write(json.dumps(command).encode() + b"\n")
        stdin.flush()
        try:
            return answer.result(within_seconds)
        except TimedOut:
            raise TimeoutError(
                f"Chromium has not answered {method} within {within_seconds:g} s\n{self.timeline()}"
            ) from None
        finally:
            self._waiting.pop(number, None)

    def listen(self, session: str, listener: Callable[[str, dict[str, Any]], None]) -> None:
        """Call `listener(method, params)`, on the thread that reads, with each event of a session."""
        self._listeners[session] = listener

    def note(self, line: str) -> None:
        """Add a line to what shows beside a test that fails."""
        self._lines.append(f"{time.monotonic() - self._began_at:8.3f}  {line}")

    def forget(self) -> None:
        """Forget what has happened until now: another test begins."""
        self._lines.clear()

    def timeline(self) -> str:
        """Return what has happened in all tabs, and what Chromium said itself."""
        said = (self._folder / "chromium.log").read_text(errors="replace")
        own = [line for line in said.splitlines() if "InitializeSandbox" not in line][-10:]
        return "\n".join([*self._lines, *own])

    def _read(self, lines: IO[bytes]) -> None:
        for line in lines:
            message = json.loads(line)
            if (number := message.get("id")) is None:
                listener = self._listeners.get(message.get("sessionId", ""))
                if listener is not None:
                    listener(message["method"], message["params"])
            elif (answer := self._waiting.get(number)) is not None:
                if "error" in message:
                    answer.set_exception(Refused(message["error"]["message"]))
                else:
                    answer.set_result(message["result"])
        for answer in [*self._waiting.values()]:
            answer.set_exception(Refused("Chromium has ended"))


class Context:
    """What is like a browser of its own: its tabs share storage, cookies, locks and channels, with nobody else."""

    def __init__(self, chromium: Chromium, id: str) -> None:
        self.chromium = chromium
        self._id = id
        self._tabs: list[Tab] = []

    def tab(self, url: str | None = None) -> Tab:
        """Return a new tab, which has loaded a page."""
        target = self.chromium.call("Target.createTarget", {"url": "about:blank", "browserContextId": self._id})
        tab = Tab(self.chromium, target["targetId"], f"tab {len(self._tabs) + 1}")
        self._tabs.append(tab)
        if url is not None:
            tab.open(url)
        return tab

    @property
    def faults(self) -> list[str]:
        """What the pages of all its tabs have thrown, and what their Content-Security-Policy has refused."""
        return [f"{tab.name}: {fault}" for tab in self._tabs for fault in tab.faults]

    def close(self) -> None:
        """Close all tabs, and forget everything."""
        self.chromium.call("Target.disposeBrowserContext", {"browserContextId": self._id})


class Tab:
    """A tab, driven by the protocol.

    Attributes:
        faults: what the page has thrown, and what its Content-Security-Policy has refused.
    """

    def __init__(self, chromium: Chromium, target: str, name: str) -> None:
        self.chromium = chromium
        self.name = name
        self.faults: list[str] = []
        self._target = target
        self._requests: dict[str, str] = {}
        attached = chromium.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        self._session: str = attached["sessionId"]
        chromium.listen(self._session, self._hear)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, within_seconds: float = ANSWER_SECONDS, **params: Any) -> dict[str, Any]:
        """Return the result of a command of the protocol to this tab."""
        return self.chromium.call(method, params, session=self._session, within_seconds=within_seconds)

    def open(self, url: str) -> None:
        """Load a page, and wait until its scripts have run."""
        if self.evaluate("location.href.split('#')[0]") == url.split("#", maxsplit=1)[0]:
            # The page would stay: nothing but the fragment of its address is another one.
            self.open("about:blank")
        self._leave(lambda: self.call("Page.navigate", url=url))

    def reload(self) -> None:
        """Load the page again, and wait until its scripts have run."""
        self._leave(lambda: self.call("Page.reload"))

    def back(self) -> None:
        """Go back to the page before."""
        history = self.call("Page.getNavigationHistory")
        entry = history["entries"][history["currentIndex"] - 1]
        self.call("Page.navigateToHistoryEntry", entryId=entry["id"])
        self.until(f"location.href === {json.dumps(entry['url'])} && document.readyState === 'complete'")

    def evaluate(self, expression: str, *, within_seconds: float = ANSWER_SECONDS) -> Any:
        """Return the JSON value of an expression; a promise is awaited.

        Raises:
            AssertionError: it throws.
            TimeoutError: the page is frozen, or its thread is busy.
        """
        result = self.call(
            "Runtime.evaluate", within_seconds, expression=expression, awaitPromise=True, returnByValue=True
        )
        thrown = result.get("exceptionDetails")
        if thrown is not None:
            said = thrown.get("exception", {}).get("description") or thrown["text"]
            raise AssertionError(f"{self.name}: {expression} threw {said}")
        return result["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until an expression is true, and return its value; one that throws is not true yet.

        Raises:
            AssertionError: it never was; what has happened in all tabs is in the error.
        """
        value: Any = None

        def holds() -> bool:
            nonlocal value
            value = self._value_or_none(expression)
            return bool(value)

        wait_until(
            holds,
            lambda: f"{self.name}: never was {expression}\n{self.chromium.timeline()}",
            every_seconds=LOOK_SECONDS,
        )
        return value

    def hide(self) -> None:
        """Let nobody see it any more, as if another tab were before it."""
        self._become_window("minimized", "hidden")

    def show(self) -> None:
        """End `hide`."""
        self._become_window("normal", "visible")

    def before_each_page(self, script: str) -> None:
        """Run a script in each page that the tab will load, before the page's own."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def freeze(self) -> None:
        """Stop its timers, its tasks and its requests, as a browser does with tabs that are hidden: hide it before."""
        self.call("Page.setWebLifecycleState", state="frozen")

    def resume(self) -> None:
        """End `freeze`."""
        self.call("Page.setWebLifecycleState", state="active")

    def go_offline(self) -> None:
        """Take the network away; the page hears of it."""
        self._become(offline=True)

    def go_online(self) -> None:
        """Give it back."""
        self._become(offline=False)

    def crash(self) -> None:
        """End the process of the page."""
        self.chromium.note(f"{self.name} is crashed")
        # It has no answer: who would give it is gone.
        with suppress(Refused, TimeoutError):
            self.call("Page.crash", 0.5)

    def close(self) -> None:
        """Close it, as somebody who is done with it."""
        self.chromium.call("Target.closeTarget", {"targetId": self._target})

    def _become(self, *, offline: bool) -> None:
        self.chromium.note(f"{self.name} is {'offline' if offline else 'online'}")
        whole = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.call("Network.emulateNetworkConditions", offline=offline, **whole)

    def _become_window(self, window: str, visibility: str) -> None:
        # Each tab has a window of its own here, which is not drawn.
        found = self.chromium.call("Browser.getWindowForTarget", {"targetId": self._target})
        bounds = {"windowId": found["windowId"], "bounds": {"windowState": window}}
        self.chromium.call("Browser.setWindowBounds", bounds)
        self.until(f"document.visibilityState === {json.dumps(visibility)}")

    def _leave(self, navigate: Callable[[], dict[str, Any]]) -> None:
        self.evaluate("globalThis.isLeft = true")
        error = navigate().get("errorText")
        assert error is None, f"{self.name}: {error}"
        self.until("!globalThis.isLeft && document.readyState === 'complete'")

    def _value_or_none(self, expression: str) -> Any:
        try:
            return self.evaluate(f"(() => {{ try {{ return {expression}; }} catch {{ return null; }} }})()")
        except Refused as refused:
            if any(said in str(refused) for said in LEFT):
                return None
            raise

    # -- what shows beside a test that fails

    def _hear(self, method: str, params: dict[str, Any]) -> None:
        line = self._line(method, params)
        if line is not None:
            self.chromium.note(f"{self.name}  {line}")

    def _line(self, method: str, params: dict[str, Any]) -> str | None:
        """Return how an event is spelled."""
        match method:
            case "Runtime.consoleAPICalled":
                return f"console.{params['type']} {' '.join(_spelled(each) for each in params['args'])}"
            case "Runtime.exceptionThrown":
                about = params["exceptionDetails"]
                return self._fault(about.get("exception", {}).get("description") or about["text"])
            case "Log.entryAdded" if params["entry"]["source"] == "security":
                return self._fault(params["entry"]["text"])
            case "Network.requestWillBeSent":
                request = params["request"]
                self._requests[params["requestId"]] = f"{request['method']} {request['url']}"
                return f"> {self._requests[params['requestId']]} {request.get('postData', '')[:200]}"
            case "Network.responseReceived":
                return f"< {params['response']['status']} {self._requests.get(params['requestId'])}"
            case "Network.loadingFailed":
                return f"! {params['errorText']} {self._requests.get(params['requestId'])}"
            case "Page.frameNavigated":
                return f"shows {params['frame']['url'][:200]} ({params.get('type', '')})"
            case "Page.backForwardCacheNotUsed":
                reasons = [each["reason"] for each in params["notRestoredExplanations"]]
                return f"does not come from the back and forward cache: {', '.join(reasons)}"
            case "Inspector.targetCrashed" | "Page.lifecycleEvent":
                return method
        return None

    def _fault(self, said: str) -> str:
        self.faults.append(said)
        return f"FAULT {said}"


def _spelled(argument: dict[str, Any]) -> str:
    value = argument.get("value", argument.get("description", argument["type"]))
    return value if isinstance(value, str) else json.dumps(value)


def _given(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
