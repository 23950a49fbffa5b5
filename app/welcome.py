"""What `make run` prints: where to look, and commands to paste."""

from __future__ import annotations

import sys

from app.seed import EMAIL, PASSWORD

__all__ = ["main", "welcome"]

READ_ANSWER = """python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])'"""
QUERIES = '{"queries": [{"path": "agents.get_all"}]}'


def welcome(url: str) -> str:
    """Return the text for a server at `url`; its indented lines are shell commands."""
    return f"""
TeamHub    {url}, in two windows to see one follow the other
Procedures {url}/docs, where Authorize logs in
Log in as  {EMAIL}, password {PASSWORD}

In another terminal, log in and call:

  TOKEN=$(curl -sS {url}/login -d username={EMAIL} -d password={PASSWORD} | {READ_ANSWER})
  curl -sS "{url}/rpc/agents.get_one?agent_id=agent-0001" -H "Authorization: Bearer $TOKEN"

Watch a query (the stream stays open, Ctrl-C ends it):

  curl -sSN {url}/rpc/events -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" -d '{QUERIES}'

Now change what it shows, in a third terminal (log in there too), and see the stream tell:

  curl -sS {url}/rpc/agents.update -H "Authorization: Bearer $TOKEN" \\
    -H "Content-Type: application/json" -d '{{"agent_id": "agent-0001", "name": "Renamed by curl"}}'

"""


def main() -> None:
    """Print the text for the URL given as the argument."""
    sys.stdout.write(welcome(sys.argv[1]))


if __name__ == "__main__":
    main()
