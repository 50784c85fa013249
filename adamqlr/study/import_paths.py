"""Classes named in the configuration as ``module:Name`` or ``file.py:Name``, looked at without importing them.

The workflow's head process checks names and options this way: importing PyTorch for it would take seconds.
"""

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import adamqlr
from adamqlr.extras import extra_with

# Folders of what is installed, in the standard library or beside it.
_INSTALLED = {"site-packages", "dist-packages", Path(ast.__file__).parent.name}
# How often a class is followed to where it is imported from.
_DEPTH = 4
# Options that are none: what an optimizer, or a scheduler, is made for.
_SUBJECTS = {"self", "params", "model", "loss", "named_params", "direction", "optimizer"}


@cache
def keywords_of(path: str) -> frozenset[str] | None:
    """Return the keyword arguments of a class, or None where its source does not say.

    Args:
        path: ``module:Name``; or ``file.py:Name``, relative to where the program runs.

    Raises:
        ValueError: It is of another form, or there is no such module, file or class.
    """
    module, separator, name = path.rpartition(":")
    if not separator or not name.isidentifier():
        raise ValueError(f"'{path}': expected module:Name, such as torch.optim:NAdam, or file.py:Name")
    if module == adamqlr.__name__:
        # Its names are imported when they are used, of which the source of the package says nothing.
        module = adamqlr.EXPORTS.get(name, module)
    if (file := source_file(module)) is None:
        return None
    try:
        return _find_keywords(file, name)
    except LookupError as error:
        raise ValueError(f"'{path}': {module} has no {name}") from error


def source_file(module: str) -> Path | None:
    """Return the file that holds a module; None where it has none in Python.

    Raises:
        ValueError: There is no such module or file.
    """
    if module.endswith(".py"):
        if not Path(module).is_file():
            raise ValueError(f"'{module}': no such file; paths are relative to where the program runs")
        return Path(module)
    first, *rest = module.split(".")
    try:
        package = find_spec(first)
    except ValueError:
        package = None
    if package is None:
        cure = f"pip install 'adamqlr[{extra}]'" if (extra := extra_with(first)) else "is it installed?"
        raise ValueError(f"no module '{first}': {cure}")
    if not rest:
        return Path(package.origin) if package.origin and package.origin.endswith(".py") else None
    for folder in package.submodule_search_locations or ():
        stem = Path(folder, *rest)
        for candidate in (stem / "__init__.py", stem.with_suffix(".py")):
            if candidate.is_file():
                return candidate
        if any(stem.parent.glob(f"{stem.name}.*")):
            return None
    raise ValueError(f"no module '{module}' in the package '{first}'")


def contents_hash(path: str) -> str:
    """Return a hash of the source where a class is in a file or module of one's own; nothing where it is installed."""
    module = path.rpartition(":")[0]
    file = source_file(module) if module else None
    if file is None or _INSTALLED.intersection(file.parts) or file.is_relative_to(Path(adamqlr.__file__).parent):
        return ""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _find_keywords(file: Path, name: str, depth: int = 0) -> frozenset[str] | None:
    """Return a class's keyword arguments, or None where the source does not say.

    Raises:
        LookupError: The file has no such class.
        ValueError: It is no Python, or cannot be read.
    """
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"'{file}': not Python: {error}") from error
    is_dynamic = False
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _arguments(node)
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            is_dynamic = True
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*":
                    is_dynamic = True
                elif (alias.asname or alias.name) == name:
                    return _follow(file, node, alias.name, depth)
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            is_dynamic = True
    if is_dynamic and file != Path(adamqlr.__file__):
        return None
    raise LookupError(name)


def _follow(file: Path, node: ast.ImportFrom, name: str, depth: int) -> frozenset[str] | None:
    """Look for a class where it is imported from, as far as that has a source."""
    module = node.module or ""
    if node.level:
        folder = file.parents[node.level - 1]
        stems = [folder.joinpath(*module.split("."))] if module else [folder]
        found = [p for stem in stems for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()]
        target = found[0] if found else None
    else:
        try:
            target = source_file(module)
        except ValueError:
            target = None
    if target is None or depth > _DEPTH:
        return None
    try:
        return _find_keywords(target, name, depth + 1)
    except LookupError:
        return None


def _arguments(node: ast.ClassDef) -> frozenset[str] | None:
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            arguments = part.args
            if arguments.kwarg is not None:
                return None
            names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            return frozenset(names) - _SUBJECTS
    return None
