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
        database: the SQLite file; it is made where it is missing.
        secret: signs tokens, at least 32 characters; left out, one is made and kept beside the database.
        token_lifetime_seconds: how long a login lasts.
    """

    model_config = SettingsConfigDict(env_prefix="TEAMHUB_", frozen=True)

    database: Path = Path("teamhub.db")
    secret: SecretStr | None = Field(default=None, min_length=32)
    token_lifetime_seconds: PositiveInt = 3600


@cache
def get_settings() -> Settings:
    """Return the settings, read from the environment once."""
    return Settings()
