"""Compression: what the last step writes is read back bit for bit, codes are as short as theory allows, training
keeps its promises.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from other_device import OtherDevice
from torch import nn

from cnnlib.compression import (
    GAP_BITS, LONG_GAP, canonical_codes, cluster, code_lengths, compressible, decode, encode, gaps_of, mask_of, pack,
    prune, prune_mask, share, share_values, sizes, unpack,
)

COUNTS = st.lists(st.integers(0, 1000), min_size=1, max_size=60).filter(any)


@given(COUNTS)
@settings(max_examples=60, deadline=None)
def test_huffman_codes_are_prefix_free_and_within_a_bit_of_the_entropy(counts):
    lengths = code_lengths(counts)
    words = list(canonical_codes(lengths).values())
    assert [bool(length) for length in lengths] == [bool(count) for count in counts]
    assert not any(a != b and b.startswith(a) for a in words for b in words)
    if len(words) > 1:
        assert sum(2.0 ** -len(word) for word in words) == 1  # no shorter complete code of these lengths
        total = sum(counts)
        entropy = -sum(n / total * math.log2(n / total) for n in counts if n)
        mean = sum(n * length for n, length in zip(counts, lengths)) / total
        assert entropy - 1e-9 <= mean < entropy + 1


def test_a_known_code():
    assert code_lengths([8, 4, 2, 1, 1]) == [1, 2, 3, 4, 4]
    assert canonical_codes([1, 2, 3, 4, 4]) == {0: "0", 1: "10", 2: "110", 3: "1110", 4: "1111"}


@given(st.lists(st.integers(0, 30), min_size=1, max_size=300))
@settings(max_examples=40, deadline=None)
def test_symbols_come_back(symbols):
    symbols = np.array(symbols)
    assert (decode(encode(symbols, 31), 31, len(symbols)) == symbols).all()


@given(st.lists(st.booleans(), min_size=1, max_size=400))
@settings(max_examples=40, deadline=None)
def test_masks_come_back(bits):
    mask = torch.tensor(bits)
    assert torch.equal(mask_of(gaps_of(mask), len(mask)), mask)


@pytest.mark.parametrize("zeros", [0, LONG_GAP - 1, LONG_GAP, LONG_GAP + 1, 5 * LONG_GAP])
def test_long_gaps(zeros):
    mask = torch.zeros(zeros + 2, dtype=torch.bool)
    mask[zeros] = True
    assert torch.equal(mask_of(gaps_of(mask), len(mask)), mask)


@pytest.mark.parametrize("shape, keep, bits", [((8, 4, 3, 3), 0.3, 5), ((64, 40), 0.02, 2), ((7,), 1.0, 8), ((5, 5),
                                                                                                             0.01, 1)])
def test_tensors_come_back_bit_for_bit(shape, keep, bits):
    torch.manual_seed(0)
    weight = torch.randn(shape)
    shared = share_values(weight * prune_mask(weight, keep), bits)
    data = pack(shared)
    assert torch.equal(unpack(data), shared)
    assert sizes(weight * prune_mask(weight, keep), bits)["coded"] == len(data)


def test_sizes_by_hand():
    weight = torch.zeros(40)
    weight[[0, 3, 39]] = torch.tensor([1.0, -2.0, 1.0])
    # gaps of 0, 2 and 35 zeros, each in GAP_BITS bits; the last is too long for one, and takes a second
    gaps = 4
    assert len(gaps_of(weight != 0)) == gaps
    positions = math.ceil(GAP_BITS * gaps / 8)
    found = sizes(weight, bits=2)
    assert found["dense"] == 4 * 40 and found["sparse"] == 4 * 3 + positions
    assert found["shared"] == 1 + 4 * 4 + positions  # three numbers of two bits, four shared values


def test_pruning_keeps_the_largest_and_exactly_as_many():
    weight = torch.tensor([[0.1, -3.0], [2.0, -0.2]])
    assert prune_mask(weight, 0.5).tolist() == [[False, True], [True, False]]
    assert prune_mask(torch.zeros(10), 0.3).sum() == 3  # ties as well
    with pytest.raises(ValueError, match="keep=0"):
        prune_mask(weight, 0)


def test_clusters_are_a_fixed_point_of_k_means():
    torch.manual_seed(0)
    values = torch.cat([torch.randn(500) - 3, torch.randn(500) + 3])
    centres, index = cluster(values, 2)
    assert torch.allclose(centres, torch.stack([values[index == k].mean() for k in (0, 1)]), atol=1e-5)
    assert ((values[:, None] - centres).abs().argmin(1) == index).all()


def test_too_many_values_are_refused():
    with pytest.raises(ValueError, match="different values"):
        pack(torch.randn(1000))


def test_training_keeps_zeros_and_shared_values():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    names = list(compressible(model))
    assert names == ["0", "3"]

    def step():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(16, 3, 8, 8)), torch.randint(4, (16,))).backward()
        optimizer.step()

    prune(model, dict.fromkeys(names, 0.25))
    step()
    assert (model[0].weight != 0).sum() == 54 and (model[3].weight != 0).sum() == 288
    share(model, dict.fromkeys(names, 3))
    before = model[3].weight.detach().clone()
    step()
    after = model[3].weight.detach()
    assert not torch.equal(before, after) and torch.equal(before != 0, after != 0)
    assert len(after[after != 0].unique()) <= 8
    for value in before[before != 0].unique():  # what shared a value still does
        assert len(after[before == value].unique()) == 1
    assert torch.equal(unpack(pack(after)), after)


def test_networks_on_another_device_are_compressed_there():
    torch.manual_seed(0)
    model, reference = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
                        for _ in range(2))
    reference.load_state_dict(model.state_dict())
    for network in (model, reference):
        with OtherDevice() as other:
            there = network is model
            network.to(other.device if there else "cpu")
            prune(network, {"0": 0.5, "3": 0.25})
            share(network, {"0": 3, "3": 2})
            images = torch.ones(2, 3, 8, 8).to(other.device if there else "cpu")
            network(images).sum().backward()
            weight = share_values(network[3].weight, 2)
            assert other.has(weight) == other.has(network[0].weight) == there
            packed = unpack(pack(weight))
        network.result = packed
    assert torch.equal(model.result, reference.result)


def test_what_cannot_be_compressed_is_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="keep must name the layers 0, 2; these are missing or too many: 2, 9"):
        prune(model, {"0": 0.5, "9": 0.5})
    with pytest.raises(ValueError, match=r"prune\(\) first: the weights of 0, 2 have not been pruned"):
        share(model, {"0": 2, "2": 2})
    with pytest.raises(ValueError, match="0 numbers cannot be put into 4 clusters"):
        share_values(torch.zeros(5), 2)
