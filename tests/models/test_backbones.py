"""Every backbone with every head; and that levels, weights, norms and frozen stages are what they say they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from tldet.config import read_config
from tldet.config.files import shipped
from tldet.errors import ConfigError
from tldet.models.backbones import Backbone, TimmBackbone, TorchvisionBackbone, ViTBackbone, trainable, within
from tldet.models.backbones.torchvision_nets import trace
from tldet.models.detector import Detector, build_detector
from tldet.models.meta_tensors import without_storage
from tldet.models.necks.simple_pyramid import SimpleFeaturePyramid
from tldet.models.replace import fit_head, replace_backbone
from tldet.models.zoo import CURATED, find_backbone
from tldet.structures.batch import Batch
from tldet.structures.target import Target
from tldet.transfer.param_groups import build_optimizer
from tldet.transfer.weights import load_backbone_weights

WANTED = ("faster_rcnn_lite0", "retinanet_lite0", "fcos_lite0")
HEADS = [name for name in WANTED if f"recipes/{name}" in shipped()]
FAMILIES = [  # one of each, small
    *("alexnet", "vgg11_bn", "resnet18", "regnet_y_400mf", "densenet121", "mobilenet_v3_small", "efficientnet_b0"),
    *("convnext_tiny", "swin_t", "swin_v2_t", "tf_efficientnet_lite0", "convnext_atto", "efficientvit_m0"),
    *("swin_tiny_patch4_window7_224", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"),
]
MORE = [  # the rest of what is named anywhere, and timm's own versions of what torchvision has too
    *CURATED,
    *("timm:resnet50", "timm:vgg16", "timm:densenet121", "timm:efficientnet_b0", "timm:regnety_008", "hrnet_w18"),
    *("swinv2_tiny_window8_256", "mobilenetv3_large_100", "mobilenet_v2", "efficientvit_b0", "caformer_s18"),
]
QUICK = ["resnet18", "swin_t", "convnext_atto", "tf_efficientnet_lite0", "vit_small_patch14_dinov2"]  # of each library
CASES = [(name, HEADS[0]) for name in QUICK] + [("resnet18", head) for head in HEADS[1:]]
WHOLE = [(name, head) for name in dict.fromkeys([*FAMILIES, *MORE]) for head in HEADS]
SIZE = (64, 96)


def with_backbone(recipe: str, name: str) -> Detector:
    torch.manual_seed(0)
    model: dict[str, Any] = read_config(recipe).data["model"]
    model["head"]["num_classes"] = 3
    return build_detector(replace_backbone(model, name)[0], ["a", "b", "c"])


def one_image(size: tuple[int, int] = SIZE) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 255, (1, 3, *size), generator=generator).byte()
    target = Target(
        torch.tensor([[4.0, 4, 44, 50]]), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool)
    )
    return Batch(images, [size], [target], [size], seed=3)


def declared(backbone: Backbone, size: tuple[int, int]) -> list[tuple[int, int, int]]:
    sizes = zip(backbone.channels, backbone.strides, strict=True)
    return [(channels, -(-size[0] // stride), -(-size[1] // stride)) for channels, stride in sizes]


@pytest.mark.parametrize(
    ("name", "recipe"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in WHOLE if case not in CASES)],
)
def test_a_training_step_and_a_prediction(name: str, recipe: str) -> None:
    model = with_backbone(recipe, name)
    backbone: Any = model.backbone
    backbone.freeze()
    model.train()
    losses = model(one_image())
    assert torch.isfinite(sum(losses.values()))
    sum(losses.values()).backward()
    unused = {n.split(".")[2] for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert unused == ({"stage4", "incre_modules"} if name.startswith("hrnet") else set()), "HRNet's own stride 4 branch"
    first = {n: p.clone() for n, p in backbone.named_parameters()}
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3).step()
    moved = {n for n, p in backbone.named_parameters() if not torch.equal(p, first[n])}
    groups = backbone.layer_groups()
    assert not any(within(n, groups[0][1]) for n in moved), "the stem is frozen"
    assert any(within(n, groups[-1][1]) for n in moved), "the top learns"
    (found,) = model.eval()(one_image())
    assert torch.isfinite(found.boxes).all()
    with torch.no_grad():
        levels = backbone(torch.zeros(1, 3, *SIZE))
        pyramid = model.neck(levels)
    assert [tuple(level.shape[1:]) for level in levels] == declared(backbone, SIZE)
    neck: Any = model.neck
    sizes = [(-(-SIZE[0] // s), -(-SIZE[1] // s)) for s in neck.strides]
    assert [tuple(level.shape[2:]) for level in pyramid] == sizes


@pytest.mark.parametrize("name", FAMILIES)
def test_levels_round_up_on_any_size(name: str) -> None:
    found = find_backbone(name)
    backbone: Any = build_from(found.config(found.strides)).eval()
    for size in [(61, 93), (33, 1)]:
        with torch.no_grad():
            levels = backbone(torch.zeros(1, 3, *size))
        assert [tuple(level.shape[1:]) for level in levels] == declared(backbone, size)


@pytest.mark.parametrize("name", FAMILIES)
def test_layer_groups_hold_every_pretrained_parameter_once(name: str) -> None:
    found = find_backbone(name)
    backbone: Any = without_storage(lambda: build_from(found.config(found.strides)))
    groups = [prefixes for _, prefixes in backbone.layer_groups()]
    assert len(groups) > 2
    for parameter, _ in backbone.named_parameters():
        hits = sum(within(parameter, prefixes) for prefixes in groups)
        assert hits == (not parameter.startswith("out_norms.")), parameter


def build_from(section: dict[str, Any]) -> nn.Module:
    kinds: Any = {"TorchvisionBackbone": TorchvisionBackbone, "TimmBackbone": TimmBackbone, "ViTBackbone": ViTBackbone}
    return kinds[section["type"]](**{key: value for key, value in section.items() if key != "type"})


GOLDEN = {
    0: 0,
    1: 14_942_208,
    2: 22_020_096,
    3: 23_232_512,
    4: 23_445_504,
    5: 23_454_912,
}  # torchvision's, frozen norms


@pytest.mark.parametrize(("layers", "expected"), GOLDEN.items())
def test_trainable_parameters_of_resnet50_equal_torchvision(layers: int, expected: int) -> None:
    fpn = torchvision.models.detection.backbone_utils.resnet_fpn_backbone
    reference = without_storage(lambda: fpn(backbone_name="resnet50", weights=None, trainable_layers=layers))
    assert trainable(reference.body) == expected  # type: ignore[arg-type]
    ours = without_storage(lambda: TorchvisionBackbone("resnet50", frozen_stages=4 - layers, norm="frozen").freeze())
    assert trainable(ours) == expected


def shaken(module: nn.Module) -> dict[str, Tensor]:
    """Random weights, and statistics that are not those of a new BatchNorm but leave ReLUs something to pass on."""
    generator = torch.Generator().manual_seed(2)
    state = module.state_dict()
    for name in state:
        if name.endswith("running_mean"):
            state[name] = 0.1 * torch.randn(state[name].shape, generator=generator)
        elif name.endswith("running_var"):
            state[name] = 0.2 + 0.3 * torch.rand(state[name].shape, generator=generator)
    module.load_state_dict(state)
    return state


@pytest.mark.parametrize(
    "name",
    ["vgg11_bn", "resnet18", "regnet_y_400mf", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0",
     "convnext_tiny", "swin_t", "swin_v2_t"],
)  # fmt: skip
def test_torchvision_weights_give_equal_features(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = torchvision.models.get_model(name, weights=None).eval()
    torch.save(shaken(whole), tmp_path / "w.pth")
    ours = TorchvisionBackbone(name).eval()
    report = load_backbone_weights(ours, str(tmp_path / "w.pth"))
    assert report.new == []
    nodes = {ours.steps[number].path: str(number) for number in ours.outputs}
    x = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        theirs = list(create_feature_extractor(whole, nodes)(x).values())
        levels = ours(x)
    if ours.family.nhwc:
        theirs = [level.permute(0, 3, 1, 2) for level in theirs]
    for mine, reference in zip(levels, theirs, strict=True):
        assert reference.std() > 0, "so that equal means something"
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_alexnet_features_equal_torchvision_on_a_shifted_image(tmp_path: Path) -> None:
    """Its cells lie where ResNet's do: torchvision's, on an image moved right and down, are the same inside."""
    torch.manual_seed(0)
    whole = torchvision.models.alexnet(weights=None).eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    ours = TorchvisionBackbone("alexnet", out_strides=[4, 8, 16]).eval()
    assert load_backbone_weights(ours, str(tmp_path / "w.pth")).new == []
    x = torch.randn(1, 3, 384, 384)
    with torch.no_grad():
        for level, moved, rim in zip(ours(x), (3, 7, 15), (1, 3, 8), strict=True):
            path = {64: "features.1", 192: "features.4", 256: "features.11"}[level.shape[1]]
            extractor = create_feature_extractor(whole, {path: "level"})
            theirs = extractor(nn.functional.pad(x, (moved, 0, moved, 0)))["level"]
            inside = slice(rim, min(level.shape[-1], theirs.shape[-1]) - rim)
            torch.testing.assert_close(level[..., inside, inside], theirs[..., inside, inside], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "tf_efficientnet_lite0", "regnety_002",
             "densenet121", "vgg11", "mobilenetv3_small_050", "hrnet_w18_small"],
)  # fmt: skip
def test_timm_weights_give_equal_features(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = shaken(timm.create_model(name, pretrained=False).eval())
    torch.save(state, tmp_path / "w.pth")
    ours = TimmBackbone(name).eval()
    report = load_backbone_weights(ours, str(tmp_path / "w.pth"))
    assert report.new == []
    assert {f"body.{key}" for key in state} >= set(ours.state_dict())
    free = {"strict_img_size": False} if "swin" in name else {}
    reference = timm.create_model(name, features_only=True, pretrained=False, **free).eval()
    own, theirs = ours.body.state_dict(), reference.state_dict()
    flat = {key.replace(".", "_"): value for key, value in own.items()}  # timm renames what it flattens
    reference.load_state_dict({key: flat[key.replace(".", "_")] for key in theirs})
    x = torch.randn(1, 3, *SIZE)
    strides = reference.feature_info.reduction()
    with torch.no_grad():
        given = dict(zip(strides, reference(x), strict=True))
        levels = ours(x)
    for mine, stride in zip(levels, ours.strides, strict=True):
        other = given[stride]
        assert other.std() > 0
        other = other if other.shape == mine.shape else other.permute(0, 3, 1, 2)
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_vision_transformer_features_equal_timm_tokens(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = timm.create_model("vit_tiny_patch16_224", pretrained=False).eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    ours = ViTBackbone("vit_tiny_patch16_224").eval()
    assert load_backbone_weights(ours, str(tmp_path / "w.pth")).new == []
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        tokens = whole.forward_features(x)[:, 1:]
        (level,) = ours(x)
    torch.testing.assert_close(level, tokens.transpose(1, 2).reshape(1, -1, 14, 14), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(224, 320), (100, 67)])
def test_patches_of_14_pixels_give_stride_16(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that says where each patch's center lies must say where each cell's center lies afterwards."""
    backbone = ViTBackbone("vit_small_patch14_dinov2")

    def centers(x: Tensor, **_: object) -> list[Tensor]:
        assert list(x.shape[2:]) == [-(-(-(-side // 16) * 16) // 14) * 14 for side in size], "padded once, to the least"
        y, x = (14 * torch.arange(side // 14) + 7.0 for side in x.shape[2:])
        return [torch.stack(torch.meshgrid(y, x, indexing="ij"))[None]]

    monkeypatch.setattr(backbone.body, "forward_intermediates", centers)
    (level,) = backbone(torch.zeros(1, 3, *size))
    for axis in (0, 1):
        cells = -(-size[axis] // 16)
        expected = 16 * torch.arange(cells) + 8.0
        along = level[0, axis].amax(1 - axis)
        torch.testing.assert_close(along[:-1], expected[:-1])
        assert abs(float(along[-1] - expected[-1])) <= 1.0, "the last cell may touch the padding's end"


def test_simple_pyramid_resolutions() -> None:
    neck = SimpleFeaturePyramid([32], [16], out_channels=8, out_strides=[4, 8, 16, 32, 64]).eval()
    levels = neck([torch.randn(1, 32, 3, 5)])
    assert [tuple(level.shape) for level in levels] == [
        (1, 8, 12, 20),
        (1, 8, 6, 10),
        (1, 8, 3, 5),
        (1, 8, 2, 3),
        (1, 8, 1, 2),
    ]
    assert neck.strides == (4, 8, 16, 32, 64)
    deconvolutions = [m.weight.shape[:2] for m in neck.levels[0] if isinstance(m, nn.ConvTranspose2d)]
    assert [tuple(shape) for shape in deconvolutions] == [(32, 16), (16, 8)]
    with pytest.raises(ValueError, match="one level"):
        SimpleFeaturePyramid([32, 64], [16, 32])


@pytest.mark.parametrize(
    ("name", "weights", "mean", "std"),
    [
        ("resnet50", "torchvision:ResNet50_Weights.IMAGENET1K_V2", 123.675, 58.395),
        ("resnet50.IMAGENET1K_V1", "torchvision:ResNet50_Weights.IMAGENET1K_V1", 123.675, 58.395),
        ("vgg16.IMAGENET1K_FEATURES", "torchvision:VGG16_Weights.IMAGENET1K_FEATURES", 123.0, 1.0),
        ("alexnet", "torchvision:AlexNet_Weights.IMAGENET1K_V1", 123.675, 58.395),
        ("swin_t", "torchvision:Swin_T_Weights.IMAGENET1K_V1", 123.675, 58.395),
        ("timm:resnet50", "timm:resnet50.a1_in1k", 123.675, 58.395),
        ("convnext_tiny.in12k", "timm:convnext_tiny.in12k", 123.675, 58.395),
        ("tf_efficientnet_lite0", "package:efficientnet_lite0", 127.5, 127.5),
        ("timm:tf_efficientnet_lite0", "timm:tf_efficientnet_lite0.in1k", 127.5, 127.5),
        ("vit_base_patch16_224", "timm:vit_base_patch16_224.augreg2_in21k_ft_in1k", 127.5, 127.5),
        ("vit_small_patch14_dinov2", "timm:vit_small_patch14_dinov2.lvd142m", 123.675, 58.395),
        ("vit_small_patch16_dinov3", "timm:vit_small_patch16_dinov3.lvd1689m", 123.675, 58.395),
        ("dpn48b", None, 123.675, 58.395),
    ],
)
def test_normalization_is_that_of_the_weights(name: str, weights: str | None, mean: float, std: float) -> None:
    found = find_backbone(name)
    assert found.weights == weights
    assert found.mean[0] == pytest.approx(mean, abs=0.02)
    assert found.std[0] == pytest.approx(std, abs=0.02)
    model, _ = replace_backbone(read_config("faster_rcnn_lite0").data["model"], name)
    assert model["preprocess"] == {"mean": list(found.mean), "std": list(found.std)}
    assert (model["backbone"]["frozen_stages"], model["backbone"]["weights"]) == (0 if weights else -1, weights)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet9999", "neither torchvision nor timm has it; nearest: resnet"),
        ("convnext_tinny", "nearest: convnext_tiny"),
        ("resnet50.nothing", "nearest: resnet50."),
        ("torchvision:vit_b_16", "neither torchvision nor timm"),
        ("maxvit_tiny_tf_224", "does not support images of any size"),
        ("beit_base_patch16_224", "supports one image size only"),
    ],
)
def test_unsupported_backbone_names_are_errors(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        replace_backbone(read_config("retinanet_lite0").data["model"], name)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_gap_between_levels_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    gappy = dataclasses.replace(find_backbone("resnet18"), strides=(8, 32))
    monkeypatch.setattr("tldet.models.replace.find_backbone", lambda _: gappy)
    with pytest.raises(ConfigError, match=r"levels of stride \[8, 32\] but lacks \[16\] in between"):
        replace_backbone(read_config("retinanet_lite0").data["model"], "gappy")


def test_missing_levels_are_removed_from_the_head_settings() -> None:
    recipe = read_config("faster_rcnn_r50").data["model"]
    model, lines = replace_backbone(recipe, "efficientvit_m0")
    assert model["backbone"]["out_strides"] == [16, 32]
    assert model["head"]["rpn"]["sizes"] == [[128], [256], [512]]
    assert model["head"]["roi"]["levels"] == 2
    assert recipe["head"]["rpn"]["sizes"][0] == [32], "the recipe itself stays"
    said = "\n".join(lines)
    assert "pyramid of strides [16, 32, 64]; efficientvit_m0 has no level of stride 4, 8" in said
    assert "roi.levels 4 -> 2" in said


@pytest.mark.parametrize(
    ("new", "sizes", "borders", "levels"),
    [
        ((8, 16, 32, 64), [[1], [2], [3], [4]], [10, 20, 30], 3),
        ((16, 32, 64), [[2], [3], [4]], [20, 30], 2),
        ((8, 16, 32), [[1], [2], [3]], [10, 20], 3),
        ((32, 64), [[3], [4]], [30], 1),
    ],
)
def test_a_head_is_fitted_to_its_levels(
    new: tuple[int, ...], sizes: list[list[int]], borders: list[int], levels: int
) -> None:
    head = {
        "settings": {"sizes": [[1], [2], [3], [4]], "ratios": [0.5, 1, 2, 3]},
        "borders": [10, 20, 30],
        "roi": {"levels": 3},
    }
    fitted, changes = fit_head(head, (8, 16, 32, 64), new)
    assert fitted["settings"] == {"sizes": sizes, "ratios": [0.5, 1, 2, 3]}
    assert (fitted["borders"], fitted["roi"]["levels"]) == (borders, levels)
    assert bool(changes) == (len(new) < 4)


def test_freezing_the_vision_transformer_stem_includes_tokens_and_positions() -> None:
    backbone = ViTBackbone("vit_tiny_patch16_224", frozen_stages=1).freeze()
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert {
        "body.pos_embed",
        "body.cls_token",
        "body.patch_embed.proj.weight",
        "body.blocks.0.attn.qkv.weight",
    } <= frozen
    assert not any(name.startswith(("body.blocks.1.", "body.norm")) for name in frozen)


def test_layer_decay_includes_tokens_and_positions() -> None:
    model = nn.Module()
    model.backbone = ViTBackbone("vit_tiny_patch16_224")
    optimizer = build_optimizer(model, {"type": "AdamW", "lr": 1.0, "layer_decay": 0.5}, 4)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    body = model.backbone.body
    assert rates[id(body.norm.weight)] == rates[id(body.blocks[11].mlp.fc1.weight)] == 0.5
    assert rates[id(body.blocks[10].mlp.fc1.weight)] == 0.25
    assert rates[id(body.pos_embed)] == rates[id(body.patch_embed.proj.weight)] == pytest.approx(0.5**13)


def test_layer_norms_are_trained_with_frozen_batch_norm() -> None:
    backbone = TorchvisionBackbone("convnext_tiny", frozen_stages=0, norm="frozen", out_norm="layer").freeze()
    norms = [m for m in backbone.modules() if isinstance(m, nn.LayerNorm)]
    learning = [m for m in norms if m.weight.requires_grad]
    assert len(norms) - len(learning) == 1, "only the stem's"


def test_tracing_leaves_the_random_state() -> None:
    trace.cache_clear()
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    trace("resnet18")
    assert torch.equal(torch.rand(1), expected)
