"""Which published network weights belong to, told from names and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_Shapes = Mapping[str, tuple[int, ...]]
_LITE_MONO = {
    "lite-mono": ((48, 80, 128), True),
    "lite-mono-tiny": ((32, 64, 128), False),
    "lite-mono-small": ((48, 80, 128), False),
    "lite-mono-8m": ((64, 128, 224), True),
}
_PAIR_ENCODERS = ("dares-pose-encoder", "dares-transform-encoder", "dares-position-encoder")


def identify(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the published architectures that weights fit, from their names and shapes; empty if none.

    ``leve`` and ``leve-no-skips`` have the same weights and cannot be told apart, nor can the three encoders of two
    images.

    Example:
        >>> from endolux.models import create
        >>> identify(create("leve-3x3").state_dict()), identify(create("leve").state_dict())
        (('leve-3x3',), ('leve', 'leve-no-skips'))
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if "up_1.reduce.weight" in shapes:
        return ("guidedepth-s",) if shapes["up_1.reduce.weight"][:2] == (8, 32) else ("guidedepth",)
    if "encoder.stem2.0.conv.weight" in shapes:
        return _lite_mono(shapes)
    family = _of_the_video_family(shapes)
    if family:
        return family
    block = "decoder.upsampling_block"
    first, second = (shapes.get(f"{block}1.dual_conv.conv{index}.weight", ()) for index in (1, 2))
    if len(first) != 4:
        return ()
    if any(name.startswith("encoder.backbone.features.") for name in shapes):
        return ("leve-mobilenetv3",)
    if not second:
        return ("leve-3x3",)
    if first[2] == 5:
        return ("leve-5x5-5x5",)
    if first[1] == 1:
        return ("leve-3x3-dw",)
    if len(second) == 4 and second[2] == 1:
        return ("leve-3x3-1x1",)
    if shapes.get(f"{block}3.connection_conv.weight", ())[1:2] == (64,):
        return ("leve-alt-skips",)
    return ("leve", "leve-no-skips")


def _lite_mono(shapes: _Shapes) -> tuple[str, ...]:
    widths = tuple(shapes.get(f"encoder.stages.{stage}.0.gamma", (0,))[0] for stage in range(3))
    deep = "encoder.stages.2.9.gamma" in shapes
    return tuple(name for name, (wide, many) in _LITE_MONO.items() if wide == widths and many == deep)


def _of_the_video_family(shapes: _Shapes) -> tuple[str, ...]:
    # DARES, EndoDAC and AF-SfMLearner, each of them one file a network.
    if "encoder.fc.weight" in shapes and "encoder.conv1.weight" in shapes:
        channels = _size(shapes, "encoder.conv1.weight", 1)
        return ("af-sfmlearner-encoder",) if channels == 3 else _PAIR_ENCODERS if channels == 6 else ()
    if "net.3.weight" in shapes and "net.0.weight" in shapes:
        return ("dares-pose-decoder",)
    if "encoder.encoder.conv1.weight" in shapes and {"decoder.10.conv.weight", "decoder.decoder.10.conv.weight"} & set(
        shapes
    ):
        return ("af-sfmlearner",)
    if "decoder.9.conv.conv.weight" in shapes:
        if "decoder.10.weight" in shapes:
            return ("dares-position-decoder",)
        outputs = _size(shapes, "decoder.10.conv.weight", 0)
        return ("af-sfmlearner-decoder",) if outputs == 1 else ("dares-transform-decoder",) if outputs == 3 else ()
    if "focal_length_conv.weight" in shapes:
        return ("endodac-intrinsics-head",)
    if "encoder.blocks.0.mlp.fc1.lora_A" in shapes:
        return ("endodac",)
    if any(name.startswith("backbone.encoder.layer.0.attention.") and ".linear_a." in name for name in shapes):
        return ("dares",)
    return ()


def _size(shapes: _Shapes, name: str, axis: int) -> int:
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) > axis else 0
