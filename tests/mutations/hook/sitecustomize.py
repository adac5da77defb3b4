"""Takes one guard away from the product as it is imported. Python runs this file when it starts and its folder stands
on the path, with the project's: so it is in the processes of a system that is to be found wanting, and nowhere else.

Which guard is said by a variable that nothing else reads. A guard that is not where it should be ends the process.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from tests.mutations import removals


class Removing(importlib.abc.Loader):
    """Loads a module as it is, and then takes the guard out of it."""

    def __init__(self, loader: importlib.abc.Loader, wanted: Sequence[removals.Removal]) -> None:
        self._loader = loader
        self._wanted = wanted

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for removal in self._wanted:
            owner, _, name = removal.name.rpartition(".")
            holder = getattr(module, owner) if owner else module
            setattr(holder, name, removal.make(module, getattr(holder, name)))


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that something is taken out of."""

    def __init__(self, wanted: Sequence[removals.Removal]) -> None:
        self._wanted = wanted

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        wanted = [removal for removal in self._wanted if removal.module == fullname]
        if not wanted:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(fullname, path, target) if finder is not self else None
            if spec is not None and spec.loader is not None:
                spec.loader = Removing(spec.loader, wanted)
                return spec
        return None


if guard := os.environ.get(removals.VARIABLE):
    sys.meta_path.insert(0, Finder(removals.REMOVALS[guard]))
