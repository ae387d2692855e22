"""prefopt trains language models from preferences, offline."""

__version__ = "0.1.0"
