"""The version of this core; pyproject.toml says the same, and a test holds them equal."""

__version__ = "0.1.0"
