"""The rehearsal reports planted faults, passes correct code, and leaves torch as it was."""

import os

import pytest
import torch
from rehearsal import Gpu
from rehearsal.planted import failures

from tldet.system.device import pick_device


@pytest.mark.skipif(os.environ.get("TLDET_TEST_DEVICE", "cpu") != "cpu", reason="TLDET_TEST_DEVICE selects a GPU")
def test_the_suite_sees_no_gpu() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert pick_device().type == "cpu"


def test_planted_faults_are_reported_and_correct_code_passes() -> None:
    assert failures() == []


def test_torch_is_left_as_it_was() -> None:
    before = torch.cuda.is_available, torch.cuda.device_count(), torch.backends.cudnn.enabled
    with Gpu(3):
        assert torch.cuda.is_available()
        assert torch.cuda.device_count() == 3
        weight = torch.ones(2, device="cuda:2", requires_grad=True)
        weight.sum().backward()
        assert str(weight.grad.device) == "cuda:2"
    assert before == (torch.cuda.is_available, torch.cuda.device_count(), torch.backends.cudnn.enabled)
    assert not torch.ones(2).is_cuda
