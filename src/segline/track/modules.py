"""Import a package from source text in memory, so that the imported code is the code that was checked."""

import sys
from collections.abc import Mapping, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_loader
from types import CodeType, ModuleType

from segline.track.identity import text_of


class SourcePackage(MetaPathFinder, InspectLoader):
    """Importer that compiles a package's modules from `sources` (path in the package -> file content).

    sys.path and bytecode are not used. Modules stay importable until the process exits, because the package imports
    some modules only when it needs them.
    """

    def __init__(self, name: str, sources: Mapping[str, bytes]) -> None:
        self.name, self.sources = name, dict(sources)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return the import spec of a module; None if the module is not in the package."""
        file = self._file(fullname)
        return spec_from_loader(fullname, self, origin=self._origin(file)) if file else None

    def is_package(self, fullname: str) -> bool:
        """Return whether `fullname` names a package, not a plain module."""
        return (self._file(fullname) or "").endswith("__init__.py")

    def get_source(self, fullname: str) -> str:
        """Return the source text of a module; Python uses this text for the import and for tracebacks."""
        file = self._file(fullname)
        if file is None:
            raise ImportError(f"the package {self.name} has no module {fullname}", name=fullname)
        return text_of(self.sources[file])

    def get_code(self, fullname: str) -> CodeType:
        """Compile a module from its source text."""
        return self.source_to_code(self.get_source(fullname), self._origin(self._file(fullname) or ""))

    def _file(self, fullname: str) -> str | None:
        first, *inner = fullname.split(".")
        if first != self.name:
            return None
        files = ("/".join([*inner, "__init__.py"]), f"{'/'.join(inner)}.py")
        return next((file for file in files if file in self.sources), None)

    def _origin(self, file: str) -> str:
        return f"<{self.name}>/{file}"


def load(name: str, sources: Mapping[str, bytes], module: str) -> ModuleType:
    """Import `module` of the package `name`; a second call with the same sources returns the same module.

    Raises
    ------
    ImportError
        The process has already imported a package with this name but other sources.
    """
    finders = (finder for finder in sys.meta_path if isinstance(finder, SourcePackage))
    package = next((finder for finder in finders if finder.name == name), None)
    if package is None:
        # Drop modules of this package from sys.modules: MLflow may have imported them from the files on disk.
        for imported in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
            del sys.modules[imported]
        package = SourcePackage(name, sources)
        sys.meta_path.insert(0, package)
    elif package.sources != dict(sources):
        raise ImportError(
            f"this process already imported another package with the name {name}; start a new Python process", name=name
        )
    _imported(package, name)
    return _imported(package, f"{name}.{module}")


def _imported(package: SourcePackage, fullname: str) -> ModuleType:
    """Return a module of the package; import the module at the first call."""
    if fullname in sys.modules:
        return sys.modules[fullname]
    spec = package.find_spec(fullname)
    if spec is None:
        raise ModuleNotFoundError(f"the package {package.name} has no module {fullname}", name=fullname)
    module = sys.modules[fullname] = module_from_spec(spec)
    try:
        package.exec_module(module)
    except BaseException:
        sys.modules.pop(fullname, None)
        raise
    return module
