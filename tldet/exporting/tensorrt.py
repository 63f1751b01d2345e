"""Building of TensorRT engines, and a check of ONNX models against the operators that TensorRT supports."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from tldet.errors import ConfigError
from tldet.runtime.session import need

PARSER = "TensorRT 10.15"
# Operators with support "Y" in docs/operators.md of github.com/onnx/onnx-tensorrt, for TensorRT 10.15
_SUPPORTED = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BlackmanWindow
    Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DeformConv
    DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If ImageScaler
    InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop
    LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression
    NonZero Not OneHot Or PRelu Pad ParametricSoftplus Pow QuantizeLinear RMSNormalization RNN RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign
    RotaryEmbedding Round STFT ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh
    Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh TensorScatter ThresholdedRelu
    Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
OPERATORS = frozenset(_SUPPORTED.split())
_LARGEST_TOP_K = 3839  # "K input must be less than 3840"


def missing_requirement() -> str:
    """Return the missing requirement for building an engine; empty if there is none."""
    if find_spec("tensorrt") is None:
        return "package tensorrt is not installed"
    return "" if torch.cuda.is_available() else "no CUDA GPU"


def unsupported_operators(model: Any) -> list[str]:
    """Return the operators of an ONNX model that TensorRT's ONNX parser does not support, sorted.

    They include ``TopK`` with a constant K above 3839.
    """
    constants = {one.name: one for one in model.graph.initializer}
    found = {node.op_type for node in model.graph.node if node.domain or node.op_type not in OPERATORS}
    for node in model.graph.node:
        if node.op_type == "TopK" and node.input[1] in constants and _number(constants[node.input[1]]) > _LARGEST_TOP_K:
            found.add(f"TopK with K above {_LARGEST_TOP_K}")
    return sorted(found)


def _number(tensor: Any) -> int:
    from onnx.numpy_helper import to_array

    return int(to_array(tensor).max())


def build_engine(content: bytes) -> bytes:
    """Build an engine from an ONNX file with fixed shapes; layers compute in the precision of the file.

    Raises:
        ConfigError: the package is missing, or TensorRT rejects the file.
    """
    trt: Any = need("tensorrt", "tensorrt")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        reasons = "; ".join(str(parser.get_error(number).desc()) for number in range(parser.num_errors))
        raise ConfigError(f"TensorRT {trt.__version__} cannot read the ONNX file: {reasons}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 as in the checkpoint
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ConfigError(f"TensorRT {trt.__version__} cannot build an engine; its log names the layer")
    return bytes(engine)
