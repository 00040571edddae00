"""Writes src/model/state_dict.pt: what PyTorch's `torch.save` makes of a state dict, for the test of
the reader. Its tensors are of several types; one is a view into a larger memory, one lies in it by
columns, one is a counter of batches.

    python3 workloads/scripts/weights_fixture.py     # needs torch
"""

import collections
import pathlib

import torch

numbers = torch.arange(12, dtype=torch.float32) / 8
state = collections.OrderedDict()
state["layer.weight"] = numbers.reshape(4, 3).t()
state["layer.bias"] = numbers[5:8]
state["norm.running_mean"] = torch.tensor([0.5, -1.5], dtype=torch.float16)
state["norm.num_batches_tracked"] = torch.tensor(7)
state["head.weight"] = torch.full((2, 3), 9.0, dtype=torch.bfloat16)
path = pathlib.Path(__file__).parent.parent / "src/model/state_dict.pt"
torch.save(state, path)
