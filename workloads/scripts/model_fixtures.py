"""Writes src/model/zoo/fixtures.json: what torchvision's models say of a picture, with weights that
both sides compute from the parameters' names. Equal scores so mean equal names, shapes and
computation.

    python3 workloads/scripts/model_fixtures.py     # needs torch and torchvision
"""

import json
import math
import pathlib

import numpy
import torch
import torchvision

CLASSES = 5
SIDES = {"inception": 75, "alexnet": 64}


def noise(name: str, count: int) -> numpy.ndarray:
    """Numbers from -1 to 1: FNV-1a of the name, then a mix of 32 bits for each index."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x01000193) & 0xFFFFFFFF
    x = numpy.arange(count, dtype=numpy.uint32) * numpy.uint32(0x9E3779B9) + numpy.uint32(seed)
    for shift, factor in [(16, 0x7FEB352D), (15, 0x846CA68B)]:
        x ^= x >> numpy.uint32(shift)
        x *= numpy.uint32(factor)
    x ^= x >> numpy.uint32(16)
    return x.astype(numpy.float64) / 2**31 - 1.0


def value(name: str, shape) -> torch.Tensor:
    count = math.prod(shape)
    drawn = noise(name, count)
    if name.endswith("running_var"):
        drawn = 1.0 + 0.5 * drawn
    elif len(shape) > 1:
        drawn = drawn * math.sqrt(6.0 / math.prod(shape[1:]))
    elif name.endswith("weight"):
        drawn = 1.0 + 0.1 * drawn
    else:
        drawn = 0.1 * drawn
    return torch.from_numpy(drawn.astype(numpy.float32)).reshape(shape)


models = {
    "alexnet": torchvision.models.alexnet,
    "densenet": torchvision.models.densenet121,
    "inception": lambda num_classes: torchvision.models.inception_v3(
        num_classes=num_classes, aux_logits=False, init_weights=False),
    "resnet18": torchvision.models.resnet18,
    "resnet34": torchvision.models.resnet34,
    "resnet50": torchvision.models.resnet50,
    "squeezenet": torchvision.models.squeezenet1_0,
    "vgg": torchvision.models.vgg11_bn,
}
cases = []
for name, make in models.items():
    model = make(num_classes=CLASSES).eval()
    state = model.state_dict()
    for key, tensor in state.items():
        if tensor.is_floating_point():
            state[key] = value(key, tensor.shape)
    model.load_state_dict(state)
    side = SIDES.get(name, 64)
    picture = torch.from_numpy(noise("picture", 3 * side * side).astype(numpy.float32))
    with torch.no_grad():
        scores = model(picture.reshape(1, 3, side, side))[0]
    cases.append({"model": name, "side": side, "scores": scores.double().tolist()})
path = pathlib.Path(__file__).parent.parent / "src/model/zoo/fixtures.json"
path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
