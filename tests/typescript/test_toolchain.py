"""Node, both compilers and a browser, as `make setup` has installed them: none is the machine's own."""

from __future__ import annotations

from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

from app.seed import seed
from app.server_process import serving
from tests.support.browser import run_in_browser
from tests.support.node import NODE, NodeServer, package_script, run_node
from tests.support.processes import ROOT
from tests.support.waiting import wait_until

NO_PROGRAMS = {"PATH": "/nonexistent"}

SERVER = """
import { createServer } from 'node:http';
createServer((_, response) => response.end(process.pid.toString())).listen(Number(process.env.PORT), '127.0.0.1');
"""
ENDLESS = """
import { spawn } from 'node:child_process';
const child = spawn(process.execPath, ['--eval', 'setInterval(() => {}, 1000)'], { detached: true });
console.log('child', child.pid);
setInterval(() => {}, 1000);
"""
COMPILERS = {"typescript": "Version 7.0.", "typescript-5": "Version 5.9."}
OF_PACKAGES = """
import { QueryClient } from '@tanstack/query-core';
import { httpBatchStreamLink } from '@trpc/client';
import { observable } from '@trpc/server/observable';
import { type ReactNode, useSyncExternalStore } from 'react';
import { hydrateRoot } from 'react-dom/client';
import { createSubscriber } from 'svelte/reactivity';
export const used = [httpBatchStreamLink, observable, useSyncExternalStore, hydrateRoot, createSubscriber];
export const node: ReactNode = <p />;
export const wrong: number = new QueryClient();
"""


def test_node_is_the_one_of_the_package_index() -> None:
    """Found without PATH, and no shim of it: the process that is started is Node."""
    printed = run_node("console.log(process.execPath, process.version)", environment=NO_PROGRAMS)
    path, version = printed.split()
    assert Path(path) == NODE
    assert version.startswith("v24.")


def test_a_typescript_program_finds_packages_wherever_it_stands(tmp_path: Path) -> None:
    """Those of `tests/typescript`; files beside it are its own."""
    (tmp_path / "greeting.ts").write_text("export const greeting: string = 'hello';", encoding="utf-8")
    program = tmp_path / "program.ts"
    text = "import superjson from 'superjson';\nimport { greeting } from './greeting.ts';\n"
    program.write_text(f"{text}console.log(superjson.stringify({{ greeting }}), ...process.argv.slice(2));")
    assert run_node(program, "a", "b", folder=tmp_path) == '{"json":{"greeting":"hello"}} a b\n'


def test_a_program_that_fails_is_an_error_with_what_it_printed() -> None:
    """Both its output and its errors."""
    with pytest.raises(AssertionError, match=r"(?s)ended with 1: .*printed.*Error: refused"):
        run_node("console.log('printed'); throw new Error('refused')")


def test_a_program_that_does_not_end_is_ended_with_all_that_it_has_started() -> None:
    """Also what leads a process group of its own, as a browser does."""
    printed, patience_seconds = "", 1
    while "child" not in printed:  # a slow machine has not yet come so far
        with pytest.raises(AssertionError, match=rf"has not ended after {patience_seconds} s") as raised:
            run_node(ENDLESS, within_seconds=patience_seconds)
        printed = str(raised.value).splitlines()[-1]
        patience_seconds *= 2
    child = int(printed.split()[1])
    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_a_server_keeps_its_port_and_ends_by_its_pid() -> None:
    """Its pid is that of Node itself."""
    with NodeServer(SERVER, environment=NO_PROGRAMS) as server:
        assert httpx.get(server.url).text == str(server.pid)
        server.end()
        server.start()
        assert httpx.get(server.url).text == str(server.pid)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_both_compilers_find_every_package_and_a_wrong_line(compiler: str, tmp_path: Path) -> None:
    """From any folder, by the configuration of the whole project."""
    tsc = Path(package_script(f"{compiler}/bin/tsc"))
    assert run_node(tsc, "--version").startswith(COMPILERS[compiler])
    (tmp_path / "client.tsx").write_text(OF_PACKAGES.strip(), encoding="utf-8")
    (tmp_path / "tsconfig.json").write_text(f'{{"extends": "{ROOT}/tsconfig.json", "include": ["client.tsx"]}}')
    with pytest.raises(AssertionError) as raised:
        run_node(tsc, "--project", str(tmp_path), "--pretty", "false")
    (error,) = [line for line in str(raised.value).splitlines() if "error" in line]
    assert error.endswith("client.tsx(9,14): error TS2322: Type 'QueryClient' is not assignable to type 'number'.")


def test_chromium_loads_a_page_of_teamhub(tmp_path: Path) -> None:
    """The browser that npm has, found without PATH: its page of the procedures."""
    seed(tmp_path / "teamhub.db")
    with serving(tmp_path / "teamhub.db") as url:
        page = run_in_browser("title", f"{url}/docs", environment=NO_PROGRAMS)
    assert page["title"].startswith("TeamHub")
    assert page["version"].startswith("153.")


def test_chromium_has_fonts_for_the_fields_of_a_form() -> None:
    """Without any it crashes, on a machine that has none itself."""
    page = run_in_browser("title", "data:text/html,<title>form</title><input name=text><script>1</script>")
    assert page["title"] == "form"


def test_a_browser_that_is_installed_may_be_named() -> None:
    """What CHROMIUM_PATH names is what starts."""
    with pytest.raises(AssertionError, match=r"/nonexistent/chromium"):
        run_in_browser("title", environment={"CHROMIUM_PATH": "/nonexistent/chromium"})
