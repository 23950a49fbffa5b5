"""What TeamHub takes from the environment."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings", "get_settings"]


class Settings(BaseSettings):
    """TeamHub's settings; each field may come from the environment as `TEAMHUB_<FIELD>`.

    Raises:
        pydantic.ValidationError: a value is of the wrong kind; it names the field.

    Attributes:
        database: a SQLite file, which is made where it is missing, or the URL of a PostgreSQL database:
            `postgresql+asyncpg://user@host/teamhub`.
        secret: signs tokens, at least 32 characters; left out, one is made and kept beside the file, or with PostgreSQL
            in the working folder. Servers on several machines must be given the same.
        token_lifetime_seconds: how long a login lasts.
        page: the folder of the page that Vite has built.
    """

    model_config = SettingsConfigDict(env_prefix="TEAMHUB_", frozen=True)

    database: str = "teamhub.db"
    secret: SecretStr | None = Field(default=None, min_length=32)
    token_lifetime_seconds: PositiveInt = 3600
    page: Path = Path(__file__).parent / "web/dist"

    @property
    def secret_file(self) -> Path:
        """Where the secret is kept that was made."""
        return Path("teamhub.secret" if "://" in self.database else self.database).with_suffix(".secret")


@cache
def get_settings() -> Settings:
    """Return the settings, read from the environment once."""
    return Settings()
