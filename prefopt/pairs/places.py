"""Where what a setting names lies on this machine."""

from __future__ import annotations

from prefopt.cache import cache_folder
from prefopt.demo import cache as demos
from prefopt.settings import DataSettings


def real(path: str, key: str = "policy") -> str:
    """A path of this machine for `demo://NAME/FILE`, made where it is not there; any other path as it is.

    key: the setting that names it, for messages. Raises: as `prefopt.demo.cache.make`.
    """
    return demos.make(key, path, cache_folder(DataSettings()), weights=True)
