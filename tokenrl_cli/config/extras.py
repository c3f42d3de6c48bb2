"""Optional dependencies: the error for a part whose packages are not installed."""

from __future__ import annotations

from importlib.util import find_spec

from tokenrl_cli.interfaces import SettingError


def require_extra(extra: str, where: str, *modules: str) -> None:
    """Raises SettingError where one of the top-level `modules` is not installed; imports none of them. `extra` is the
    name of the optional dependencies in pyproject.toml that installs them, `where` the setting that needs them,
    such as "path" or "/adapter=lora", see `SettingError`."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        remedy = f"pip install 'tokenrl[{extra}]'"
        raise SettingError(where, f"needs the package {missing[0]}, which is not installed", remedy)
