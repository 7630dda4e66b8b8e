"""Deep compression of trained weights, and back: prune, share values, code with as few bits as their frequency allows.

    weight = weight * prune_mask(weight, keep=0.1)          # most weights become zero
    weight = share_values(weight, bits=5)                   # the others take one of 32 values
    data = pack(weight)                                     # bytes: Huffman codes of values and of gaps between them
    assert torch.equal(unpack(data), weight)                # nothing is lost in the last step

- Han, Mao, Dally. Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and Huffman
  Coding. ICLR 2016, arXiv:1510.00149.

**Differs from the paper:** a gap too long for its symbol is written as a symbol that stands for zeros alone, where
the paper stores a zero weight; tables of codes are canonical, one byte for each symbol, and counted.
"""

import heapq
import struct
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

GAP_BITS = 5  # of a distance between two weights that are kept, before Huffman coding
LONG_GAP = 2**GAP_BITS - 1  # the symbol for so many zeros with no weight behind them


def prune_mask(weight: Tensor, keep: float) -> Tensor:
    """True at the fraction `keep` of the weights that are largest in absolute value; of the shape of `weight`.

    Raises `ValueError` for a fraction that is not above 0 and at most 1.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep={keep!r} must be above 0 and at most 1")
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[weight.detach().abs().flatten().topk(max(1, round(keep * weight.numel()))).indices] = True
    return mask.view_as(weight)


def cluster(values: Tensor, count: int, *, rounds: int = 50) -> tuple[Tensor, Tensor]:
    """k-means of numbers (N,): `count` or fewer centres in rising order, and the index of each number's own (N,).

    Starts from centres at even distances over the range, which keeps the few large values apart (the paper's section
    3.2). Computed on the CPU in double precision. Raises `ValueError` where there are no numbers, or no clusters are
    asked for.
    """
    if not len(values) or count < 1:
        raise ValueError(f"{len(values)} numbers cannot be put into {count} clusters")
    device, values = values.device, values.detach().cpu().double()
    centres = torch.linspace(values.min().item(), values.max().item(), count, dtype=torch.float64)
    for _ in range(rounds):
        index = torch.bucketize(values, (centres[1:] + centres[:-1]) / 2)
        sizes = torch.bincount(index, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, index, values)
        moved = (sums / sizes)[sizes > 0]
        if len(moved) == len(centres) and torch.equal(moved, centres):
            break
        centres = moved
    centres = centres.float().unique()
    return centres.to(device), torch.bucketize(values.float(), (centres[1:] + centres[:-1]) / 2).to(device)


def share_values(weight: Tensor, bits: int) -> Tensor:
    """`weight` with every value that is not zero replaced by the nearest of at most 2**bits shared ones."""
    shared = weight.detach().clone()
    centres, index = cluster(shared[shared != 0], 2**bits)
    shared[shared != 0] = centres[index]
    return shared


# --- Huffman codes ----------------------------------------------------------------------------------------------------


def code_lengths(counts: Sequence[int]) -> list[int]:
    """Bits of each symbol in a Huffman code for symbols that occur `counts` times; 0 for those that never do."""
    heap = [(count, symbol, (symbol,)) for symbol, count in enumerate(counts) if count]
    lengths = [0] * len(counts)
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:  # join the two rarest: all symbols below them get one bit more
        (first, name, symbols), (second, _, others) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in symbols + others:
            lengths[symbol] += 1
        heapq.heappush(heap, (first + second, name, symbols + others))
    return lengths


def canonical_codes(lengths: list[int]) -> dict[int, str]:
    """The code words as text of 0 and 1, which follow from their lengths alone: no one begins another."""
    codes, word, last = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        word <<= length - last
        codes[symbol], last = f"{word:0{length}b}", length
        word += 1
    return codes


def encode(symbols: np.ndarray, alphabet: int) -> bytes:
    """Symbols below `alphabet` in Huffman code: a table of one byte a symbol, then the code words."""
    lengths = code_lengths(np.bincount(symbols, minlength=alphabet).tolist())
    codes = canonical_codes(lengths)
    bits = "".join([codes[symbol] for symbol in symbols.tolist()])
    stream = np.packbits(np.frombuffer(bits.encode(), dtype=np.uint8) - ord("0"))
    return bytes(lengths) + stream.tobytes()


def decode(data: bytes, alphabet: int, count: int) -> np.ndarray:
    """The first `count` symbols of what `encode` made."""
    symbol_of = {code: symbol for symbol, code in canonical_codes(list(data[:alphabet])).items()}
    bits = (np.unpackbits(np.frombuffer(data[alphabet:], dtype=np.uint8)) + ord("0")).tobytes().decode()
    symbols, word, place = [], "", 0
    while len(symbols) < count:
        word, place = word + bits[place], place + 1
        if word in symbol_of:
            symbols.append(symbol_of[word])
            word = ""
    return np.array(symbols, dtype=np.int64)


# --- a tensor as bytes ------------------------------------------------------------------------------------------------


def gaps_of(mask: Tensor) -> np.ndarray:
    """Where the mask is true, as the numbers of zeros between; a run of LONG_GAP zeros is a symbol by itself."""
    places = mask.flatten().nonzero().flatten().cpu().numpy()
    zeros = np.diff(places, prepend=-1) - 1
    symbols = np.full(len(zeros) + int((zeros // LONG_GAP).sum()), LONG_GAP, dtype=np.int64)
    symbols[np.cumsum(zeros // LONG_GAP) + np.arange(len(zeros))] = zeros % LONG_GAP
    return symbols


def mask_of(gaps: np.ndarray, size: int) -> Tensor:
    """The mask (size,) of which `gaps` tells; the inverse of `gaps_of`."""
    kept = gaps < LONG_GAP
    places = np.cumsum(gaps + kept) - 1
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.from_numpy(places[kept])] = True
    return mask


def pack(weight: Tensor) -> bytes:
    """All of a tensor that has few different values and many zeros, as bytes. Raises `ValueError` above 256 values.

    Shape, the shared values as 32-bit floats, then Huffman codes of each value's number and of the gaps between them.
    """
    values, index = weight.detach().float().cpu()[weight.detach().cpu() != 0].unique(return_inverse=True)
    if not 0 < len(values) <= 256:
        raise ValueError(f"{len(values)} different values; pack() takes 1 to 256 beside zero")
    gaps, shape = gaps_of(weight != 0), weight.shape
    numbers = encode(index.numpy(), len(values))
    head = struct.pack(f"<B{len(shape)}I4I", len(shape), *shape, len(values), len(index), len(gaps), len(numbers))
    return head + values.numpy().tobytes() + numbers + encode(gaps, 2**GAP_BITS)


def unpack(data: bytes) -> Tensor:
    """The tensor that `pack` made bytes of, equal to the last bit."""
    shape = struct.unpack_from(f"<{data[0]}I", data, 1)
    start = 1 + 4 * data[0]
    colours, kept, gap_count, length = struct.unpack_from("<4I", data, start)
    start += 16
    values = torch.from_numpy(np.frombuffer(data, dtype=np.float32, count=colours, offset=start).copy())
    start += 4 * colours
    index = decode(data[start : start + length], colours, kept)
    gaps = decode(data[start + length :], 2**GAP_BITS, gap_count)
    weight = torch.zeros(int(np.prod(shape)))
    weight[mask_of(gaps, len(weight))] = values[torch.from_numpy(index)]
    return weight.view(shape)


def sizes(weight: Tensor, bits: int) -> dict[str, int]:
    """Bytes of a pruned tensor: dense; sparse (its weights and GAP_BITS a gap); with 2**bits shared values; coded.

    `weight` need not have shared values yet; it is given them for the last two.
    """
    kept, gaps = int((weight != 0).sum()), len(gaps_of(weight != 0))
    positions = -(-GAP_BITS * gaps // 8)
    return {"dense": 4 * weight.numel(), "sparse": 4 * kept + positions,
            "shared": -(-bits * kept // 8) + 4 * 2**bits + positions, "coded": len(pack(share_values(weight, bits)))}


# --- training what is left --------------------------------------------------------------------------------------------


class Masked(nn.Module):
    """A parametrization: weights outside of `mask` are zero, whatever training does."""

    def __init__(self, mask: Tensor):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


class Shared(nn.Module):
    """A parametrization: the weight is made of the values (K,), which are what is trained.

    The gradient of a value is the sum over all weights that share it, as in the paper's figure 3.
    """

    def __init__(self, weight: Tensor, bits: int):
        super().__init__()
        self.shape, places = weight.shape, weight.detach().flatten().nonzero().flatten()
        self.values, index = cluster(weight.detach().flatten()[places], 2**bits)
        self.register_buffer("places", places)
        self.register_buffer("index", index)

    def forward(self, values: Tensor) -> Tensor:
        flat = values.new_zeros(self.shape.numel())
        return flat.index_copy(0, self.places, values.index_select(0, self.index)).view(self.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return self.values


def compressible(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose weights are worth compressing, by name: convolutions and fully connected layers."""
    return {name: module for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}


def _check_names(model: nn.Module, argument: str, given: dict) -> None:
    if odd := sorted(set(given) ^ set(compressible(model))):
        raise ValueError(f"{argument} must name the layers {', '.join(compressible(model))}; these are missing or too "
                         f"many: {', '.join(odd)}")


def prune(model: nn.Module, keep: dict[str, float]) -> None:
    """Set all but the largest weights of every layer to zero, and hold them there while the rest is trained.

    Raises `ValueError` unless `keep` names each layer of `compressible` and nothing else.
    """
    _check_names(model, "keep", keep)
    for name, module in compressible(model).items():
        parametrize.register_parametrization(module, "weight", Masked(prune_mask(module.weight, keep[name])))


def share(model: nn.Module, bits: dict[str, int]) -> None:
    """Give the weights that `prune` left in each layer at most 2**bits values, which then train together.

    Raises `ValueError` unless `bits` names each layer of `compressible`, and each has been pruned.
    """
    _check_names(model, "bits", bits)
    layers = compressible(model)
    if whole := [name for name, module in layers.items() if not parametrize.is_parametrized(module, "weight")]:
        raise ValueError(f"prune() first: the weights of {', '.join(whole)} have not been pruned")
    for name, module in layers.items():
        parametrize.remove_parametrizations(module, "weight")
        module.weight.grad = None  # of the old shape
        parametrize.register_parametrization(module, "weight", Shared(module.weight, bits[name]), unsafe=True)
