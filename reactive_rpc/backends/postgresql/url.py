"""One connection URI for every PostgreSQL driver: what SQLAlchemy's URL says, in libpq's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

from sqlalchemy.engine import URL

__all__ = ["Place", "dsn_of", "libpq_url", "place_name"]

Place = URL | Callable[[], URL]
"""Where a database is; a function is asked before each connection, as a password may be good for a while only."""

# What libpq and asyncpg both understand. The rest belongs to one driver, or to SQLAlchemy.
_COMMON: Final = frozenset(
    {
        "application_name",
        "gsslib",
        "krbsrvname",
        "options",
        "passfile",
        "service",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "target_session_attrs",
    }
)


def libpq_url(url: URL) -> str:
    """Return the URI of the same database that asyncpg and psycopg both take, with its password.

    asyncpg's `ssl` becomes `sslmode`; options of one driver (`prepared_statement_cache_size`, `connect_timeout`) are
    dropped; both of SQLAlchemy's spellings of several hosts become libpq's.

    >>> from sqlalchemy import make_url
    >>> libpq_url(make_url("postgresql+asyncpg://a%40b:p%2Fw@db:5433/my%20team?ssl=require&async_fallback=true"))
    'postgresql://a%40b:p%2Fw@db:5433/my%20team?sslmode=require'
    >>> libpq_url(make_url("postgresql+psycopg:///team?host=/tmp&port=5433&connect_timeout=3"))
    'postgresql:///team?host=%2Ftmp&port=5433'
    >>> libpq_url(make_url("postgresql+asyncpg://u@/team?host=a:1&host=b:2"))
    'postgresql://u@/team?host=a%2Cb&port=1%2C2'
    >>> libpq_url(make_url("postgresql://[::1]/team"))
    'postgresql://[::1]/team'
    """
    options = _places(url.query) | _options(url.query)
    query = "&".join(f"{name}={_quoted(value)}" for name, value in options.items())
    name = "" if url.database is None else _quoted(url.database)
    return f"postgresql://{_login(url)}{_host(url)}/{name}" + (f"?{query}" if query else "")


def dsn_of(place: Place) -> str:
    """Return what a driver connects by, with a password that is good now."""
    return libpq_url(place() if callable(place) else place)


def place_name(place: Place) -> str:
    """Return what people call it, without a password."""
    return (place() if callable(place) else place).render_as_string()


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _login(url: URL) -> str:
    if url.username is None:
        return ""
    password = "" if url.password is None else f":{_quoted(str(url.password))}"
    return f"{_quoted(url.username)}{password}@"


def _host(url: URL) -> str:
    if url.host is None:
        return ""
    host = f"[{url.host}]" if ":" in url.host else _quoted(url.host)
    return host if url.port is None else f"{host}:{url.port}"


def _places(query: Mapping[str, str | Sequence[str]]) -> dict[str, str]:
    """Return `host` and `port` as libpq spells them, of `host=a,b&port=1,2`, or of `host=a:1&host=b:2`."""
    hosts, ports = _list(query.get("host", ())), _list(query.get("port", ()))
    if not ports and not any(host.startswith("/") for host in hosts):
        pairs = [host.partition(":") if host.count(":") == 1 else (host, "", "") for host in hosts]  # not of IPv6
        hosts = [host for host, _, _ in pairs]
        ports = [port for _, _, port in pairs] if any(port for _, _, port in pairs) else []
    places = {"host": ",".join(hosts), "port": ",".join(ports)}
    return {name: value for name, value in places.items() if value}


def _list(value: str | Sequence[str]) -> list[str]:
    return value.split(",") if isinstance(value, str) else list(value)


def _options(query: Mapping[str, str | Sequence[str]]) -> dict[str, str]:
    renamed = {"sslmode" if name == "ssl" else name: value for name, value in query.items()}
    return {name: value if isinstance(value, str) else value[-1] for name, value in renamed.items() if name in _COMMON}
