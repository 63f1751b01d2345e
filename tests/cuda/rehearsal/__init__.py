"""CUDA rehearsal: the device rules of CUDA without a GPU.

Inside ``with Gpu() as gpu:`` torch behaves as if CUDA devices were present. Tensors created there are
:class:`CudaTensor`: they report ``cuda:N`` and hold a CPU tensor that all operations are computed on. They have CUDA's
dispatch keys, so everything that C++ decides by device (autocast lists, ``Module.to``, indexing, GradScaler) is decided
as on a GPU. In addition:

* An operation on tensors of several devices raises the error that CUDA raises (``strict=False`` only records it).
* Each point at which the host waits for the device is counted with its call site in ``gpu.syncs``, by kind: ``item``
  (also ``bool()``, ``int()``, ``float()``), ``d2h`` (copies to the host), ``h2d`` (blocking copies to the device, also
  ``torch.tensor(list, device=...)`` and ``x.new_tensor(list)``), ``shape`` (nonzero, boolean masks, unique, ...),
  ``nms``, ``call`` (``torch.cuda.synchronize``).
* ``non_blocking`` copies from memory that is not pinned are counted separately, as ``unpinned``: they do not block the
  host until the device has finished its earlier work.
* Kernel launches are counted in ``gpu.ops``: one per aten operation on the device, except views.
* Calls of ``torch.cuda`` functions are recorded in ``gpu.api``.

A rehearsal cannot show missing kernels for a dtype, memory use, time, races, cuDNN, NCCL, CUDA graphs, compiled code,
or numerical differences. It computes on one device at a time and does not check the effect of ``set_device``.

:func:`planted.failures` is the self-check: planted faults must be reported, and correct code must pass. The tool relies
on internals of torch and is verified with torch 2.15.
"""

from .gpu import Gpu
from .tensors import CudaTensor, DeviceMixError

__all__ = ["VERIFIED", "CudaTensor", "DeviceMixError", "Gpu"]

VERIFIED = "2.15"  # version of torch that the self-check passes on
