"""Weights and checkpoints: written whole or not at all, read without running code."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import nn

from .errors import DataError
from .files import write_whole
from .pickles import read_pickle
from .zoo import local_path

LAST_CHECKPOINT = "last_checkpoint"  # fvcore's file with the name of the newest one


def load_weights(path: str) -> dict[str, Any]:
    """Read a file of weights: tensors, arrays and plain values only.

    Args:
        path: a ``.pth`` file of ``torch.save``, a ``.pkl`` of NumPy arrays, or an address in the model zoo.

    Raises:
        DataError: the file is absent, cut short, or holds anything that is not data.
    """
    path = local_path(path)
    if not os.path.isfile(path):
        raise DataError(path, "no such file")
    if str(path).endswith(".pkl"):
        loaded = read_pickle(path)
    else:
        try:
            _refuse_other_checksums(path)
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except DataError:
            raise
        except Exception as error:  # a damaged file can fail in any way at all
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(path, f"not a file of weights: {reason.partition('. ')[0][:160]}") from error
    if not isinstance(loaded, dict):
        raise DataError(path, "holds no state_dict")
    return loaded


def _refuse_other_checksums(path: str) -> None:
    """Compare the content of a ``.pth`` file with the checksums in it, which ``torch.load`` does not.

    Raises:
        DataError: they differ.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise DataError(path, "damaged: its content is not what its checksums say")


def _as_tensor(value: Any) -> torch.Tensor | None:
    """A value as a tensor; None if it holds anything but numbers."""
    if torch.is_tensor(value):
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return None
    return torch.as_tensor(array) if array.dtype.kind in "biuf" else None


def share_state(model: nn.Module) -> None:
    """Give all ranks the first rank's weights and buffers; running statistics differ from rank to rank."""
    if comm.get_world_size() > 1:
        for tensor in model.state_dict().values():
            torch.distributed.broadcast(tensor, 0)


class LENSCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, careful with files.

    It saves under a temporary name and renames, reads through :func:`load_weights`, and refuses weights of
    another architecture. Training may start from part of the model's weights.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", *, whole: bool = False, **kwargs: Any):
        """
        Args:
            model, save_dir, kwargs: as in Detectron2.
            whole: refuse a checkpoint that lacks part of the model, as for a network that will not be trained.
        """
        super().__init__(model, save_dir, **kwargs)
        self.whole = whole

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.pth`` with the model, the checkpointables and ``kwargs``."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **kwargs}
        data.update({key: obj.state_dict() for key, obj in self.checkpointables.items()})
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        content = io.BytesIO()  # so that a full disk raises Python's own error, which gives the reason
        torch.save(data, content)
        write_whole(path, content.getbuffer())
        self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Remember which checkpoint is the newest."""
        write_whole(os.path.join(self.save_dir, LAST_CHECKPOINT), last_filename_basename.encode())

    def begin_anew(self) -> None:
        """Forget which checkpoint is the newest: nothing resumes from an earlier run. All ranks call this."""
        if comm.is_main_process():
            Path(self.save_dir, LAST_CHECKPOINT).unlink(missing_ok=True)
        comm.synchronize()

    def get_checkpoint_file(self) -> str:
        """Path of the newest checkpoint; "" without one.

        Raises:
            DataError: the file that names it names nothing, or a checkpoint that is not there.
        """
        tag = Path(self.save_dir, LAST_CHECKPOINT)
        try:
            name = tag.read_text(errors="replace").strip()
        except OSError:  # as in fvcore: another process may just have removed it
            return ""
        path = os.path.join(self.save_dir, name)
        if not os.path.isfile(path):
            there = sorted(each.name for each in Path(self.save_dir).glob("*.pth"))
            advice = f"write one of {', '.join(there)} into it, or begin anew" if there else "begin anew"
            named = f"names {name}, which is not there" if name else "names no checkpoint"
            raise DataError(tag, f"{named}: {advice}")
        return path

    def load(self, path: str, *args, **kwargs) -> dict[str, Any]:
        """Load a checkpoint into the model and the checkpointables.

        Raises:
            DataError: the file is missing or damaged, or its weights are of another architecture or not finite, or
                its optimizer is another one, or that of other weights.
        """
        self._loading = path
        if path and not os.path.isfile(local_path(path)):
            raise DataError(path, "no such checkpoint")
        try:
            return super().load(path, *args, **kwargs)
        except DataError:
            raise
        except KeyError as error:  # of the optimizer or the trainer
            key = "SOLVER.AMP.ENABLED" if error.args[0] == "grad_scaler" else "SOLVER.OPTIMIZER"
            fault = f"its training had another {key}"
        except ValueError as error:  # of the optimizer or the trainer
            fault = f"its training had other settings than this one ({error})"
        raise DataError(path, f"{fault}: resume it with those, or begin anew with MODEL.WEIGHTS")

    def _load_file(self, filename: str) -> dict[str, Any]:
        loaded = load_weights(filename)
        state = loaded.get("model", loaded)
        belongs = "where a state_dict or {'model': state_dict} belongs"
        if not isinstance(state, dict):
            raise DataError(filename, f"has no tensors by name below 'model', {belongs}")
        if not state:
            raise DataError(filename, f"holds nothing, {belongs}")
        for key, value in state.items():
            if isinstance(value, dict):
                raise DataError(filename, f"has its tensors below {key!r}, {belongs}")
            numbers = _as_tensor(value)
            if numbers is None or not isinstance(key, str):
                raise DataError(filename, f"holds under {key!r} what is no tensor, {belongs}")
            if not numbers.isfinite().all():
                raise DataError(filename, f"{key} holds NaN or Inf: the training that wrote it had diverged")
        return loaded if "model" in loaded else {"model": loaded}

    def _load_model(self, checkpoint: dict[str, Any]):
        names = set(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        if incompatible.incorrect_shapes:
            key, found, wanted = incompatible.incorrect_shapes[0]
            raise DataError(
                self._loading,
                f"weights of another architecture: {key} is {found} there and {wanted} in this config"
                f" ({len(incompatible.incorrect_shapes)} such keys)",
            )
        if names and len(incompatible.unexpected_keys) >= len(names):
            raise DataError(self._loading, "weights of another architecture: no key is one of this model")
        beside = [key for key in incompatible.unexpected_keys if key.startswith("backbone.")]
        if self.whole and beside:
            raise DataError(
                self._loading,
                f"weights of another architecture: no place for {beside[0]} in this config"
                f" ({len(beside)} such keys)",
            )
        missing = [key for key in incompatible.missing_keys if not key.endswith("num_batches_tracked")]
        if self.whole and missing:
            raise DataError(
                self._loading,
                f"weights of another architecture: no {missing[0]} there ({len(missing)} such keys)",
            )
        return incompatible
