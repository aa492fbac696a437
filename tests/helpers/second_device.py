"""A device that stands in for a GPU: its tensors lie in memory, but no operator takes them with those of the CPU.

What torch refuses on a GPU is refused here as well: tensors of two devices in one operator, and NumPy's view of a
tensor that is not in memory. A device is there for as long as a process lasts, hence :func:`run_beside_cpu`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from helpers.processes import SERVER, run_to_end

NAME = "twin"
ATEN = torch.ops.aten
COPIES = (ATEN.copy_.default, ATEN._to_copy.default)
# Indices may lie on the CPU.
INDEXING = (ATEN.index.Tensor, ATEN.index_put_.default, ATEN.index_put.default, ATEN._index_put_impl_.default)
# Made on the CPU, then moved.
FACTORIES = (torch.tensor, torch.as_tensor, torch.arange, torch.linspace, torch.randperm, torch.rand, torch.randn)


class TwinTensor(Tensor):
    """A tensor of the device, around one of the CPU, ``held``."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> TwinTensor:
        tensor = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=f"{NAME}:0",
        )  # fmt: skip
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return _operate(operator, args, kwargs or {})

    def __reduce_ex__(self, protocol):
        """Files of weights hold tensors, whatever device they are read to."""
        return self.detach().held.clone().__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        copied = TwinTensor(self.detach().held.clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied._is_param = True
        return copied


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class _Calls(TorchFunctionMode):
    """What torch does beneath its operators, where a wrapped tensor cannot follow."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is Tensor.tolist and isinstance(args[0], TwinTensor):
            return args[0].detach().held.tolist()
        if function is Tensor.new_tensor and isinstance(args[0], TwinTensor):
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to(NAME)
        if function in FACTORIES and _is_twin(kwargs.get("device")):
            return function(*args, **{**kwargs, "device": "cpu"}).to(NAME)
        if function in (Tensor.__getitem__, Tensor.__setitem__):
            args = (args[0], _with_tensors(args[1]), *args[2:])
        return function(*args, **kwargs)


def _is_twin(device: torch.device | str | None) -> bool:
    return device is not None and torch.device(device).type == NAME


def _with_tensors(key):
    """The key of an indexed tensor, lists of numbers as tensors."""
    if isinstance(key, tuple):
        return tuple(_with_tensors(part) for part in key)
    return torch.tensor(key) if isinstance(key, list) else key


def _operate(operator, args: tuple, kwargs: dict):
    """Do an operator's work on the CPU, if its tensors are all of one device."""
    tensors: list[Tensor] = []

    def plain(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor.held if isinstance(tensor, TwinTensor) else tensor

    plain_args = _mapped(args, plain)
    plain_kwargs = {name: _mapped(value, plain) for name, value in kwargs.items()}
    ours = [tensor for tensor in tensors if isinstance(tensor, TwinTensor)]
    if operator in INDEXING and isinstance(args[0], TwinTensor):
        compared = [args[0], *args[2:3]]
    else:
        compared = () if operator in COPIES else tensors
    if ours and any(tensor.dim() and not isinstance(tensor, TwinTensor) for tensor in compared):
        shapes = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
        raise RuntimeError(f"{operator}: tensors of two devices: {shapes}")
    target = kwargs.get("device")
    stays = isinstance(args[0], TwinTensor) if operator is ATEN.copy_.default else bool(ours)
    stays = stays if target is None else _is_twin(target)
    if target is not None:
        plain_kwargs |= {"device": torch.device("cpu"), "pin_memory": False}
    if operator is ATEN.convolution_overrideable.default:
        operator = ATEN.convolution.default
    elif operator is ATEN.convolution_backward_overrideable.default:
        operator = ATEN.convolution_backward.default
        plain_args = (*plain_args[:3], [plain_args[2].shape[0]], *plain_args[3:])
    elif operator is ATEN._copy_from.default:
        plain_args[1].copy_(plain_args[0])
        return args[1]
    result = operator(*plain_args, **plain_kwargs)
    if not stays:
        return result
    return return_and_correct_aliasing(operator, args, kwargs, _mapped(result, TwinTensor))


def _mapped(value, change: Callable[[Tensor], Tensor]):
    """What an operator takes or gives, its tensors changed."""
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(part, change) for part in value)
    return change(value) if isinstance(value, Tensor) else value


def run_beside_cpu(work: Callable, *args) -> None:
    """Run a function in a process that has the device, and fail as it fails."""
    process = SERVER.Process(target=_with_device, args=(work, *args))
    run_to_end(process)
    assert process.exitcode == 0


def _with_device(work: Callable, *args) -> None:
    _setup_privateuseone_for_python_backend(NAME, _Module())
    library = torch.library.Library("_", "IMPL")
    library.fallback(
        lambda operator, *args, **kwargs: _operate(operator, args, kwargs), dispatch_key="PrivateUse1"
    )
    with _Calls():
        work(*args)
