"""Properties of operations on CUDA, by the name of the aten operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch


def names(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


# Operations whose output shape depends on values: CUDA copies the count to the host.
SHAPES = names(
    "nonzero nonzero_numpy masked_select unique_dim _unique _unique2 unique_consecutive bincount equal is_nonzero "
    "argwhere unique_dim_consecutive"
)
INDEXING = names("index index_put index_put_ _index_put_impl_ _unsafe_index _unsafe_index_put")
# Operations that accept 0-dim CPU tensors although they are not pointwise.
SCALAR_FRIENDLY = names(
    "index_put index_put_ _index_put_impl_ copy_ fill_ where masked_fill masked_fill_ lerp lerp_ _unsafe_index_put"
)
# Operations that raise under torch.use_deterministic_algorithms on CUDA (documentation of torch 2).
UNDETERMINISTIC = names(
    "upsample_bilinear2d_backward upsample_bicubic2d_backward upsample_linear1d_backward upsample_trilinear3d_backward "
    "_upsample_bilinear2d_aa_backward _upsample_bicubic2d_aa_backward reflection_pad1d_backward "
    "reflection_pad3d_backward adaptive_avg_pool2d_backward _adaptive_avg_pool2d_backward "
    "_adaptive_avg_pool3d_backward adaptive_max_pool2d_backward avg_pool3d_backward max_pool3d_with_indices_backward "
    "fractional_max_pool2d_backward grid_sampler_2d_backward grid_sampler_3d_backward nll_loss2d_forward "
    "nll_loss2d_backward _ctc_loss_backward _embedding_bag_dense_backward max_unpool2d max_unpool3d put_ put histc "
    "bincount kthvalue median _roi_align_backward _roi_pool_backward scatter_reduce"
)
NO_LAUNCH = names("detach alias lift_fresh _unsafe_view set_ empty_strided empty")
FIXED = {"_fused_sdp_choice": 0, "record_stream": None, "_has_compatible_shallow_copy_type": True}


def is_cuda(device: Any) -> bool:
    """Return True for a CUDA device."""
    return device is not None and torch.device(device).type == "cuda"


def leaves(values: Iterable[Any]) -> Iterator[Any]:
    """Return the values in nested lists and tuples (torch's pytree is several times slower)."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from leaves(value)
        else:
            yield value


def mapped(call: Callable[[Any], Any], value: Any) -> Any:
    """Return nested lists and tuples with ``call`` applied to the values in them."""
    return type(value)(mapped(call, one) for one in value) if isinstance(value, (list, tuple)) else call(value)
