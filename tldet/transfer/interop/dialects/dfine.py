"""Translation of state dicts of D-FINE, DEIM and RT-DETRv2 to tldet's key names.

Three naming schemes are supported: that of the authors' repositories (Peterande/D-FINE, DEIM, lyuwenyu/RT-DETR), and
the older and the newer one of transformers (``encoder.encoder`` and ``fc1`` until 4.57, ``aifi`` and ``mlp`` in 5.x).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_BACKBONE = (
    (r"^backbone\.model\.embedder\.stem(\w+)\.", r"backbone.body.stem.stem\1."),
    (r"^backbone\.(stem|stages)\.", r"backbone.body.\1."),
    (r"^backbone\.model\.encoder\.stages\.(\d+)\.(blocks|downsample)\.", r"backbone.body.stages.\1.\2."),
)
_NECK = (
    (r"^encoder(?:\.|_)input_proj\.(\d+)\.(?:conv|0)\.", r"neck.input_proj.\1.conv."),
    (r"^encoder(?:\.|_)input_proj\.(\d+)\.(?:norm|1)\.", r"neck.input_proj.\1.norm."),
    (r"^encoder\.(?:encoder|aifi)\.\d+\.layers\.(\d+)\.", r"neck.layers.\1."),
    (r"^encoder\.lateral_convs\.", "neck.lateral."),
    (r"^encoder\.fpn_blocks\.", "neck.top_down."),
    (r"^encoder\.pan_blocks\.", "neck.bottom_up."),
    (r"^encoder\.downsample_convs\.(\d+)\.(?:0\.)?(?:cv|conv)1\.", r"neck.downsample.\1.0."),
    (r"^encoder\.downsample_convs\.(\d+)\.(?:0\.)?(?:cv|conv)2\.", r"neck.downsample.\1.1."),
    (r"^encoder\.downsample_convs\.", "neck.downsample."),
)
_BLOCKS = (  # parts of a RepNCSPELAN4
    (r"\.cv1\.", ".conv1."),
    (r"\.cv2\.0\.", ".csp1."),
    (r"\.cv2\.1\.", ".conv2."),
    (r"\.cv3\.0\.", ".csp2."),
    (r"\.cv3\.1\.", ".conv3."),
    (r"\.cv4\.", ".conv4."),
    (r"\.csp_rep([12])\.", r".csp\1."),
)
_HEAD = (
    (r"^decoder(?:\.|_)input_proj\.(\d+)\.(?:conv|0)\.", r"head.input_proj.\1.0."),
    (r"^decoder(?:\.|_)input_proj\.(\d+)\.(?:norm|1)\.", r"head.input_proj.\1.1."),
    (r"^(?:decoder\.)?enc_output\.(?:proj|0)\.", "head.proposal.output."),
    (r"^(?:decoder\.)?enc_output\.(?:norm|1)\.", "head.proposal.norm."),
    (r"^(?:decoder\.)?enc_score_head\.", "head.proposal.cls_score."),
    (r"^(?:decoder\.)?enc_bbox_head\.", "head.proposal.bbox_head."),
    (r"^(?:decoder\.)?denoising_class_embed\.", "head.denoising_embed."),
    (r"^decoder\.(?:decoder\.)?(up|reg_scale)$", r"head.decoder.\1"),
    (r"^decoder\.query_pos_head\.", "head.decoder.query_pos."),
    (r"^decoder\.pre_bbox_head\.", "head.decoder.pre_bbox_head."),
    (r"^(?:decoder\.)?(?:dec_score_head|class_embed)\.(\d+)\.", r"head.decoder.layers.\1.cls_score."),
    (r"^(?:decoder\.)?(?:dec_bbox_head|bbox_embed)\.(\d+)\.", r"head.decoder.layers.\1.bbox_head."),
    (r"^decoder\.(?:decoder\.)?lqe_layers\.(\d+)\.reg_conf\.", r"head.decoder.layers.\1.quality."),
    (r"^decoder\.(?:decoder\.)?layers\.(\d+)\.gateway\.gate\.", r"head.decoder.layers.\1.gate.gate."),
    (r"^decoder\.(?:decoder\.)?layers\.(\d+)\.gateway\.norm\.", r"head.decoder.layers.\1.gate.norm."),
    (
        r"^decoder\.(?:decoder\.)?layers\.(\d+)\.(?:cross|encoder)_attn\.(value|output)_proj\.",
        r"head.decoder.layers.\1.\2_proj.",
    ),
    (r"^decoder\.(?:decoder\.)?layers\.(\d+)\.encoder_attn_layer_norm\.", r"head.decoder.layers.\1.norm2."),
    (r"^decoder\.(?:decoder\.)?layers\.(\d+)\.(?:cross|encoder)_attn\.", r"head.decoder.layers.\1.cross_attn."),
    (r"^decoder\.(?:decoder\.)?layers\.(\d+)\.", r"head.decoder.layers.\1."),
)
_TRANSFORMER = (  # parts of a transformer layer
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.self_attn\.o_proj\.", ".self_attn.out_proj."),
    (r"\.(?:mlp\.)?fc([12])\.", r".linear\1."),
    (r"\.mlp\.layers\.0\.", ".linear1."),
    (r"\.mlp\.layers\.1\.", ".linear2."),
)
_CONSTANTS = re.compile(r"(^|\.)(anchors|valid_mask|num_points_scale|n_points_scale|integral\.project|project)$")
DFINE_OUTPUTS = ("class_embed.", "bbox_embed.")  # prefixes that transformers also stores outside of ``model.``
_JOINED = re.compile(r"\.self_attn\.in_proj_(weight|bias)$")
_SEPARATE = re.compile(r"\.self_attn\.([qkv])_proj\.(weight|bias)$")
_STEM = {"0": ("0", "1"), "1": ("3", "4")}  # convolution and norm of ResNet-D's stem in timm

_CLASSIFIERS = ("decoder.enc_score_head.bias", "enc_score_head.bias")  # of the authors and of transformers
_DECODER_LAYER = re.compile(r"^decoder\.(?:decoder\.)?layers\.(\d+)\.")
_THIRD_STAGE = re.compile(r"^backbone\.(?:res_layers\.2\.blocks|model\.encoder\.stages\.2\.layers)\.(\d+)\.")
_LATERAL = re.compile(r"^encoder\.lateral_convs\.0\.conv\.weight$")
_SAMPLING = re.compile(r"^decoder\.(?:decoder\.)?layers\.0\.(?:cross|encoder)_attn\.sampling_offsets\.weight$")
# D-FINE's sizes by the channels of encoder and decoder and the number of decoder layers.
_DFINE_SIZES = {(128, 128, 3): "n", (256, 256, 3): "s", (256, 256, 4): "m", (256, 256, 6): "l", (384, 256, 6): "x"}
_BACKBONES = {
    **dict.fromkeys(("dfine_n", "dfine_s"), "hgnetv2_b0"),
    **dict.fromkeys(("rtdetrv2_r50_m", "rtdetrv2_r50"), "resnet50d"),
    "dfine_m": "hgnetv2_b2",
    "dfine_l": "hgnetv2_b4",
    "dfine_x": "hgnetv2_b5",
    "rtdetrv2_r18": "resnet18d",
    "rtdetrv2_r34": "resnet34d",
    "rtdetrv2_r101": "resnet101d",
}
# RT-DETR's sizes by the number of blocks in the third stage, bottleneck blocks, and hidden width of the encoder blocks.
_RTDETR_SIZES = {
    (2, False, 128): "r18",
    (6, False, 128): "r34",
    (6, True, 128): "r50_m",
    (6, True, 256): "r50",
    (23, True, 384): "r101",
}


def from_dfine(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of a state dict, and join the query and key weights of self-attention."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if not _CONSTANTS.search(key):
            renamed.setdefault(_rename(key), value)
    return _attention(renamed)


def _rename(key: str) -> str:
    if key.startswith("backbone."):
        return _resnet(_backbone(key))
    if key.startswith("encoder"):
        key = _first(key, _NECK)
        key = _each(key, _BLOCKS) if key.startswith(("neck.top_down.", "neck.bottom_up.")) else key
        norms = (*_TRANSFORMER, (r"\.final_layer_norm\.", ".norm2."))
        return _each(key, norms) if key.startswith("neck.layers.") else key
    key = _first(key, _HEAD)
    norms = (*_TRANSFORMER, (r"\.final_layer_norm\.", ".norm3."))
    return _each(key, norms) if key.startswith("head.decoder.layers.") else key


def _backbone(key: str) -> str:
    """Rename a tensor of HGNetV2."""
    key = _first(key, _BACKBONE)
    if key.startswith("backbone.body."):
        key = key.replace(".convolution.", ".conv.").replace(".normalization.", ".bn.")
    return key


def _resnet(key: str) -> str:
    """Rename a tensor of ResNet-D from any of the naming schemes to timm's."""
    key = key.replace(".convolution.", ".conv.").replace(".normalization.", ".norm.")
    stem = re.match(r"^backbone\.(?:conv1\.conv1_(\d)|model\.embedder\.embedder\.(\d))\.(conv|norm)\.(\w+)$", key)
    if stem:
        number, kind, rest = int(stem[1] or int(stem[2]) + 1) - 1, stem[3], stem[4]
        if number == 2:
            return f"backbone.body.{'conv1.6' if kind == 'conv' else 'bn1'}.{rest}"
        return f"backbone.body.conv1.{_STEM[str(number)][kind == 'norm']}.{rest}"
    block = re.match(r"^backbone\.(?:res_layers\.(\d)\.blocks|model\.encoder\.stages\.(\d)\.layers)\.(\d+)\.(.+)$", key)
    if not block:
        return key
    start, part = f"backbone.body.layer{int(block[1] or block[2]) + 1}.{block[3]}.", block[4]
    if branch := re.match(r"^(?:branch2([abc])|layer\.(\d))\.(conv|norm)\.(\w+)$", part):
        number = int(branch[2]) + 1 if branch[2] else "abc".index(branch[1]) + 1
        return f"{start}{'conv' if branch[3] == 'conv' else 'bn'}{number}.{branch[4]}"
    if short := re.match(r"^(?:short\.conv|shortcut\.1|short|shortcut)\.(conv|norm)\.(\w+)$", part):
        return f"{start}downsample.{1 if short[1] == 'conv' else 2}.{short[2]}"
    return key


def _first(key: str, renames: Iterable[tuple[str, str]]) -> str:
    """Apply the first pattern that matches."""
    for pattern, ours in renames:
        key, done = re.subn(pattern, ours, key)
        if done:
            break
    return key


def _each(key: str, renames: Iterable[tuple[str, str]]) -> str:
    """Apply all patterns."""
    for pattern, ours in renames:
        key = re.sub(pattern, ours, key)
    return key


def _attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the query and key weights of self-attention in one layer, and keep the value weights in another."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if joined := _JOINED.search(key):
            start, third = key[: joined.start()] + ".self_attn.", len(value) // 3
            found[f"{start}qk_proj.{joined[1]}"] = value[: 2 * third]
            found[f"{start}v_proj.{joined[1]}"] = value[2 * third :]
        elif separate := _SEPARATE.search(key):
            start = key[: separate.start()] + ".self_attn."
            if separate[1] == "q":
                found[f"{start}qk_proj.{separate[2]}"] = torch.cat([value, state[f"{start}k_proj.{separate[2]}"]])
            elif separate[1] == "v":
                found[key] = value
        else:
            found[key] = value
    return found


def dfine_case(state: Mapping[str, Tensor]) -> str | None:
    """Return the model name of a D-FINE or RT-DETRv2, such as ``dfine_s``, by widths and depths; None if unknown."""
    layers = {found[1] for key in state if (found := _DECODER_LAYER.match(key))}
    encoder, decoder = (_columns(state, name) for name in (_LATERAL, _SAMPLING))
    if any("reg_scale" in key or "lqe_layers" in key for key in state):
        size = _DFINE_SIZES.get((encoder, decoder, len(layers)))
        return f"dfine_{size}" if size else None
    blocks = {found[1] for key in state if (found := _THIRD_STAGE.match(key))}
    deep = any("branch2c" in key or re.search(r"\.layer\.2\.convolution", key) for key in state)
    hidden = _columns(state, re.compile(r"^encoder\.fpn_blocks\.0\.bottlenecks\.0\.conv1\.conv\.weight$"))
    size = _RTDETR_SIZES.get((len(blocks), deep, hidden))
    return f"rtdetrv2_{size}" if size else None


def _columns(state: Mapping[str, Tensor], name: re.Pattern[str]) -> int:
    """Return the input channels of the first weight whose name matches; 0 if there is none."""
    found = next((value for key, value in state.items() if name.match(key)), None)
    return 0 if found is None or found.ndim < 2 else int(found.shape[1])


def dfine_backbone(case: str | None) -> str | None:
    """Return timm's name of the backbone of a model; None if unknown."""
    return _BACKBONES.get(case or "")


def dfine_classes(state: Mapping[str, Tensor]) -> int:
    """Return the number of classes; 0 if there is no classifier."""
    return next((len(state[name]) for name in _CLASSIFIERS if name in state), 0)
