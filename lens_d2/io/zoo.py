"""Configs and weights that come with the package, and their addresses: ``lens_d2://phantom/lens_multi``."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler

from .errors import DataError, did_you_mean

PREFIX = "lens_d2://"
FOLDER = Path(__file__).resolve().parents[1] / "model_zoo"
CONFIGS, WEIGHTS, CARDS = FOLDER / "configs", FOLDER / "weights", FOLDER / "cards"


def weights_file(name: str) -> Path:
    """Path of weights by name, such as ``phantom/lens_multi``; an ending ``.pth`` may be given or not.

    Raises:
        DataError: no weights of that name come with the package.
    """
    path = WEIGHTS / f"{name.removesuffix('.pth')}.pth"
    if path.resolve().is_relative_to(WEIGHTS) and path.is_file():
        return path
    raise DataError(f"{PREFIX}{name}", f"no such weights in the model zoo{did_you_mean(name, weights_names())}")


def weights_names() -> list[str]:
    """Names of all weights that come with the package."""
    return sorted(path.relative_to(WEIGHTS).as_posix().removesuffix(".pth") for path in WEIGHTS.rglob("*.pth"))


class ZooPathHandler(PathHandler):
    """Lets Detectron2's PathManager open ``lens_d2://`` addresses."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs) -> str:
        return str(weights_file(path.removeprefix(PREFIX)))

    def _isfile(self, path: str, **kwargs) -> bool:
        return Path(self._get_local_path(path)).is_file()

    def _exists(self, path: str, **kwargs) -> bool:
        return self._isfile(path)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs):
        return open(self._get_local_path(path), mode, buffering)


PathManager.register_handler(ZooPathHandler(), allow_override=True)


def local_path(path: str) -> str:
    """Path on this disk of a file or of an address that PathManager knows.

    Raises:
        DataError: the model zoo has no such weights, or the address cannot be reached.
    """
    if "://" not in str(path):
        return str(path)
    try:
        return PathManager.get_local_path(str(path))
    except (OSError, HTTPException) as error:
        raise DataError(path, f"cannot be fetched ({error})") from None
