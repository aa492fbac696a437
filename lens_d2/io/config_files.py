"""Config files and overrides, merged without running code; faults are one line."""

from __future__ import annotations

import os
import re
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from fvcore.common.config import BASE_KEY

from .errors import DataError, did_you_mean
from .zoo import CONFIGS


def find_config(path: str | os.PathLike) -> Path:
    """Path of a config: the file of that name, or else the project's own.

    Args:
        path: of a file, or below ``configs/``, with or without that folder.

    Raises:
        DataError: there is no such file.
    """
    if Path(path).is_file():
        return Path(path)
    own = CONFIGS / Path(*Path(path).parts[Path(path).parts[:1] == ("configs",) :])
    if own.resolve().is_relative_to(CONFIGS.resolve()) and own.is_file():
        return own
    known = [file.relative_to(CONFIGS).as_posix() for file in sorted(CONFIGS.rglob("*.yaml"))]
    raise DataError(path, f"no such config file{did_you_mean(Path(path).as_posix(), known)}")


def all_keys(node: CfgNode, prefix: str = "") -> list[str]:
    """Dotted names of a config's keys, nodes among them."""
    keys = []
    for key, value in node.items():
        keys += [prefix + key, *(all_keys(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else ())]
    return keys


def value_of(cfg: CfgNode, key: str) -> Any:
    """The value of a dotted key; KeyError without it."""
    return reduce(getitem, key.split("."), cfg)


def merge_file(cfg: CfgNode, path: Path) -> None:
    """Merge a file and its ``_BASE_`` into a config, in place.

    Raises:
        DataError: the file cannot be read, has a tag for Python objects, which would run code, or a key or value
            that cannot be used.
    """
    try:
        _refuse_doubled_keys(path)
        cfg.merge_from_file(str(path), allow_unsafe=False)
    except yaml.constructor.ConstructorError as error:
        name, line = (error.problem_mark.name, error.problem_mark.line + 1) if error.problem_mark else (path, 0)
        raise DataError(name, f"{error.problem} in line {line}; a config holds plain values alone") from None
    except yaml.YAMLError as error:
        raise DataError(path, f"not readable as YAML: {error}") from None
    except RecursionError:
        raise DataError(path, "its _BASE_ leads back to itself") from None
    except OSError as error:
        raise DataError(error.filename or path, f"cannot be read: {error.strerror}") from None
    except (KeyError, ValueError, AssertionError, TypeError, AttributeError) as error:
        raise DataError(path, _fault_of(error, cfg)) from None


def _refuse_doubled_keys(path: Path) -> None:
    """Refuse a file in which a key appears twice (YAML takes the last), or whose ``_BASE_`` is such a file.

    Raises:
        DataError: names the file and the key.
        RecursionError: ``_BASE_`` leads back to the file.
    """
    root = yaml.compose(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if not isinstance(node, yaml.MappingNode):
            continue
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise DataError(path, f"{twice} appears twice")
        nodes += [value for _, value in node.value]
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == BASE_KEY:
            for base in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(base, yaml.ScalarNode) and "://" not in base.value:
                    _refuse_doubled_keys(path.parent / Path(base.value).expanduser())


def refuse_other_types(cfg: CfgNode, defaults: CfgNode, prefix: str = "") -> None:
    """Refuse anything but numbers in keys that hold several numbers, which yacs does not check.

    Args:
        cfg: to be checked.
        defaults: what it was before anything was merged.
        prefix: of the keys' names.

    Raises:
        DataError: names the key and the value.
    """
    for key, default in defaults.items():
        value = cfg.get(key)
        if isinstance(default, CfgNode):
            refuse_other_types(value, default, f"{prefix}{key}.")
        elif isinstance(default, (tuple, list)) and default and all(map(_is_number, default)):
            for part in value:
                if not _is_number(part):
                    raise DataError(f"{prefix}{key}", f"{part!r} is no number")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def merge_opts(cfg: CfgNode, opts: list) -> None:
    """Merge overrides into a config, in place.

    Args:
        cfg: changed.
        opts: key, value, key, value ...

    Raises:
        DataError: a key or a value that cannot be used.
    """
    if len(opts) % 2:
        raise DataError(opts[-1], "a config key without a value: overrides are KEY VALUE pairs")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        try:
            cfg.merge_from_list([key, value])
        except (KeyError, ValueError, AssertionError, TypeError, AttributeError, SyntaxError) as error:
            raise DataError(key, _fault_of(error, cfg)) from None


def _fault_of(error: Exception, cfg: CfgNode) -> str:
    """The fault that yacs finds in a key or a value, in one line."""
    text = str(error.args[0]) if error.args else type(error).__name__
    unknown = re.match(r"Non-existent (?:config )?key: (\S+)", text)
    if unknown:
        return f"no config key {unknown[1]}{did_you_mean(unknown[1], all_keys(cfg))}"
    return f"the configuration cannot be used: {text}"
