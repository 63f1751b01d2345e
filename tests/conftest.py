"""Fixtures every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slow_tests import is_slow

if os.environ.get("TLDET_TEST_DEVICE", "cpu") == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a GPU would change what "auto" chooses, in commands of the tests too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_slow(item.nodeid):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing a person's earlier runs have left decides a test, and no test leaves anything to them."""
    before = os.environ.get("TLDET_CACHE")
    os.environ["TLDET_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["TLDET_CACHE"]
    if before is not None:
        os.environ["TLDET_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def _equal_times() -> Iterator[None]:
    """Which precision is faster on a busy machine decides no test: without a measurement, the choice is fp32."""
    from tldet.engine import precision

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "measure_precisions", lambda *_: {"fp32": 1.0, "bf16": 1.0})
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and reference outputs, where the checkout has them beside it."""
    folder = Path(os.environ.get("TLDET_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs real data in {folder} (set TLDET_SHARED)")
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generated data set: train, valid and test folders of 96 x 128 images."""
    from tldet.data.digits import generate

    return generate(tmp_path_factory.mktemp("digits"), train=16, valid=6, test=6, size=(96, 128))


@pytest.fixture(scope="session")
def run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short fine-tuning of the small RetinaNet on them."""
    from tldet.workflows.training.finetune import finetune

    out = tmp_path_factory.mktemp("run") / "out"
    options = ["data.loader.batch_size=2", "training.log_every=2", "training.precision=fp32"]
    options.append("model.head.settings.score_thr=0.001")  # after six steps no score is high
    finetune(digits, out=out, model="retinanet_lite0", steps=6, cfg_options=options, report=False)
    return out
