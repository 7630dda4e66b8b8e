"""A label for every pixel: feature pyramids out of any network, and decoders on them.

`features(model, images)` gives the last map of each resolution. FPN makes all of them speak one language; U-Net goes
back up, with what the way down has left behind; a dilated network never goes down so far. All take any network of
this package, since each is `stem` and `stages`.

- Long, Shelhamer, Darrell. Fully Convolutional Networks for Semantic Segmentation. CVPR 2015, arXiv:1411.4038.
- Ronneberger, Fischer, Brox. U-Net: Convolutional Networks for Biomedical Image Segmentation. MICCAI 2015,
  arXiv:1505.04597.
- Yu, Koltun. Multi-Scale Context Aggregation by Dilated Convolutions. ICLR 2016, arXiv:1511.07122.
- Lin, Dollár, Girshick, He, Hariharan, Belongie. Feature Pyramid Networks for Object Detection. CVPR 2017,
  arXiv:1612.03144.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlib.arguments import check_classes
from cnnlib.layers import ConvNormAct
from cnnlib.running import shapes_alone

SIZES = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)  # modules that have a stride
PADDINGS = (nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)
LARGE = 1024  # side of the images on which strides are found: without values, so that it costs nothing


class Encoder(nn.Module):
    """Images (N, C, H, W) -> the last map of each resolution, by stride: {4: (N, C4, H/4, W/4), 8: ...}.

    Shares `stem` and `stages` of a network, and leaves its head. A stride is how many pixels of the image lie between
    neighbours of the map. It belongs to the network: from 33x33 pixels strides of 8 and 16 make maps of 5x5 and 3x3.
    `channels` says of each stride how many channels its map has. Raises `ValueError` for a model without stem and
    stages.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        if not (hasattr(model, "stem") and hasattr(model, "stages")):
            raise ValueError(f"{type(model).__name__} has no stem and stages; give a network of create_model")
        self.stem, self.stages = model.stem, model.stages
        self.step_strides: list[list[int]] = []
        self.channels: dict[int, int] = {}
        # found on images so large that rounding and padding do not count
        images = torch.empty(1, _in_channels(self), LARGE, LARGE, device="meta")
        with torch.no_grad():
            for tops in shapes_alone(self)._tops(images):
                self.step_strides.append([stride_of(images, top) for top in tops])
                self.channels.update(zip(self.step_strides[-1], (top.shape[1] for top in tops)))

    def steps(self) -> Iterator[nn.Module]:
        """The parts of the stem, then block after block; auxiliary heads in a stage are left out."""
        yield from self.stem if type(self.stem) is nn.Sequential else (self.stem,)
        for stage in self.stages:
            if isinstance(stage, nn.Sequential):
                yield from (block for name, block in stage.named_children() if name != "auxiliary")
            else:
                yield stage

    def _tops(self, images: Tensor) -> Iterator[Sequence[Tensor]]:
        """The maps behind each step: HRNet keeps all resolutions; a cell of NASNet hands on its neighbour's map too.

        A padding makes none: its border belongs to the pooling behind it.
        """
        x = images
        for step in self.steps():
            x = step(x)
            if not isinstance(step, PADDINGS):
                yield x if isinstance(x, list) else x[:1] if isinstance(x, tuple) else [x]

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        maps = {}
        for tops, strides in zip(self._tops(images), self.step_strides):
            maps.update(zip(strides, tops))
        return maps


def stride_of(images: Tensor, maps: Tensor) -> int:
    """How many pixels of the image lie between neighbours of the map, to the nearest power of two."""
    return 2 ** round(math.log2(max(images.shape[2:]) / max(maps.shape[2:])))


def features(model: nn.Module, images: Tensor) -> dict[int, Tensor]:
    """The pyramid of a network: for each stride its last map, as `{4: ..., 8: ..., 16: ..., 32: ...}`; see `Encoder`.

    The network is taken in the mode in which it is. Each call finds its strides anew: for batch after batch make one
    `Encoder` and call that. Raises `ValueError` for a model without stem and stages, and for images that it cannot
    take.
    """
    encoder = Encoder(model)
    try:
        return encoder(images)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        taken = f"{type(model).__name__} cannot take images of shape {tuple(images.shape)}"
        raise ValueError(f"{taken}: {error}") from error


def chosen(channels: Mapping[int, int], strides: Sequence[int]) -> list[int]:
    """The channels at `strides`. Raises `ValueError` for a stride that the network does not have."""
    if missing := [stride for stride in strides if stride not in channels]:
        wanted, known = (", ".join(map(str, strides)) for strides in (missing, channels))
        raise ValueError(f"no map of stride {wanted}; this network has {known}")
    return [channels[stride] for stride in strides]


class FPN(nn.Module):
    """Maps of several strides -> maps of the same strides, all of `width` channels, each knowing what the coarser
    ones know.

    P_i = conv3x3(M_i), M_i = conv1x1(C_i) + upsampled M_{i+1}; the coarsest has nothing to add. `channels` says how
    many the incoming maps have, from fine to coarse.
    """

    def __init__(self, channels: Sequence[int], width: int = 256):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.output = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        initialize_uniform(self)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        merged: list[Tensor] = []
        for lateral, fine in zip(reversed(self.lateral), reversed(maps)):
            out = lateral(fine)
            if merged:
                out = out + F.interpolate(merged[0], size=out.shape[2:], mode="nearest")
            merged.insert(0, out)
        return [output(maps) for output, maps in zip(self.output, merged)]


def initialize_uniform(model: nn.Module) -> None:
    """Convolutions uniform with variance 1 / fan_in, biases 0: keeps the size of signals that no activation
    halves."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1)
            nn.init.zeros_(module.bias)


class FPNSegmenter(nn.Module):
    """(N, C, H, W) -> (N, num_classes, H, W): an FPN, its maps brought to the finest stride and added, and 1x1 to
    classes.

    A short form of the semantic branch of Panoptic FPN (Kirillov et al., 2019). `strides` are the maps used, from
    fine to coarse. Raises `ValueError` for strides that the network does not have.
    """

    def __init__(self, model: nn.Module, num_classes: int, *, strides: Sequence[int] = (4, 8, 16, 32),
                 width: int = 128):
        super().__init__()
        self.encoder, self.strides = Encoder(model), tuple(strides)
        self.decoder = FPN(chosen(self.encoder.channels, strides), width)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.encoder(x)
        finest, *others = self.decoder([maps[stride] for stride in self.strides])
        for coarse in others:
            finest = finest + F.interpolate(coarse, size=finest.shape[2:], mode="bilinear")
        return F.interpolate(self.head(finest), size=x.shape[2:], mode="bilinear")


class UpBlock(nn.Module):
    """Upsample the coarse map to the size of the fine one, [up, fine], then twice conv3x3, norm, ReLU.

    (N, coarse, h, w) and (N, fine, H, W) -> (N, width, H, W). Without `skip` the fine map lends its size alone.
    """

    def __init__(self, coarse: int, fine: int, width: int, *, skip: bool = True):
        super().__init__()
        self.skip = skip
        self.convs = nn.Sequential(ConvNormAct(coarse + fine * skip, width), ConvNormAct(width, width))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        up = F.interpolate(coarse, size=fine.shape[2:], mode="nearest")
        return self.convs(torch.cat([up, fine], 1) if self.skip else up)


class UNet(nn.Module):
    """(N, C, H, W) -> (N, num_classes, H, W): down through a network, and up again beside the maps of the way down.

    `strides` are the maps used, from fine to coarse; `widths` are the channels on the way up at all but the coarsest.
    `skips=False` leaves the maps of the way down out. Raises `ValueError` for strides that the network does not have,
    and unless there is one width for each but the last.

    **Differs from the paper:** any network for the way down; convolutions keep the size, and upsampling repeats
    pixels, where the paper crops and has transposed convolutions; batch normalization.
    """

    def __init__(self, model: nn.Module, num_classes: int, *, strides: Sequence[int] = (2, 4, 8, 16, 32),
                 widths: Sequence[int] = (32, 64, 128, 256), skips: bool = True):
        super().__init__()
        if len(widths) != len(strides) - 1:
            raise ValueError(f"widths={tuple(widths)} must name one width for each of strides={tuple(strides)} but the "
                             "last")
        self.encoder, self.strides = Encoder(model), tuple(strides)
        *fine, coarse = chosen(self.encoder.channels, strides)
        self.decoder = nn.ModuleList()
        for channels, width in zip(reversed(fine), reversed(widths)):
            self.decoder.append(UpBlock(coarse, channels, width, skip=skips))
            coarse = width
        self.head = nn.Conv2d(coarse, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.encoder(x)
        *fine, out = [maps[stride] for stride in self.strides]
        for block, skip in zip(self.decoder, reversed(fine)):
            out = block(out, skip)
        return F.interpolate(self.head(out), size=x.shape[2:], mode="bilinear")


class FCN(nn.Module):
    """(N, C, H, W) -> (N, num_classes, H, W): the coarsest map to classes by 3x3 and 1x1, and bilinear upsampling.

    Given a `dilated` network this is the FCN of today's libraries.
    """

    def __init__(self, model: nn.Module, num_classes: int, *, dropout: float = 0.1):
        super().__init__()
        self.encoder = Encoder(model)
        *_, channels = self.encoder.channels.values()
        width = channels // 4
        self.head = nn.Sequential(ConvNormAct(channels, width), nn.Dropout(dropout), nn.Conv2d(width, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        *_, coarsest = self.encoder(x).values()
        return F.interpolate(self.head(coarsest), size=x.shape[2:], mode="bilinear")


def dilated(model: nn.Module, stride: int, *, size: int = 256) -> nn.Module:
    """A copy of a network whose maps never become coarser than `stride`: dilation in the place of further strides.

    Weights stay as they are, and wherever the original computes a value, so does the copy, and it is the same;
    between them lie new ones. (Means over a whole map, in gates and group norms, are then over more places and differ
    a little.) A convolution or maximum pooling whose input had stride s and now has min(s, `stride`) is dilated by
    their quotient. `size` is the side of the images on which strides are found; a power of two is best. Raises
    `ValueError` for a stride that is no power of two, and names the first module that cannot be dilated: average
    pooling, a convolution with a forward of its own, or what changes sizes in another way.
    """
    if stride < 1 or stride & (stride - 1):
        raise ValueError(f"stride={stride!r} is not a power of two")
    copied = copy.deepcopy(model)
    before = strides_inside(copied, size)
    for name, module in copied.named_modules():
        if name not in before:
            continue
        seen, given = before[name]
        rate, step = max(seen // stride, 1), min(given, stride) // min(seen, stride)
        if rate == 1 and step == max(given // seen, 1):
            continue
        is_conv = type(module).forward is nn.Conv2d.forward and module.padding_mode == "zeros"
        if not is_conv and not isinstance(module, nn.MaxPool2d):
            raise ValueError(f"{name} ({type(module).__name__}) cannot be dilated")
        if module.kernel_size not in (1, (1, 1)):
            module.padding, module.dilation = _scaled(module.padding, rate), _scaled(module.dilation, rate)
        module.stride = (step, step) if is_conv else step
    after = strides_inside(copied, size)
    for name, (_, given) in before.items():
        if after[name][1] != min(given, stride):
            raise ValueError(f"{name} has stride {after[name][1]} instead of {min(given, stride)}: something before it "
                             "changes the size of its maps and cannot be dilated")
    return copied


def _scaled(value: int | tuple[int, ...], factor: int) -> int | tuple[int, ...]:
    return tuple(factor * entry for entry in value) if isinstance(value, tuple) else factor * value


def strides_inside(model: nn.Module, size: int) -> dict[str, tuple[int, int]]:
    """For each convolution and pooling on the way to the head: the strides of its input and its output."""
    encoder = Encoder(shapes_alone(model))
    images = torch.empty(1, _in_channels(encoder), size, size, device="meta")
    found, handles = {}, []
    for name, module in encoder.named_modules():
        if isinstance(module, SIZES):
            handles.append(module.register_forward_hook(
                lambda _, inputs, output, name=name: found.__setitem__(
                    name, (stride_of(images, inputs[0]), stride_of(images, output)))))
    with torch.no_grad():
        encoder(images)
    for handle in handles:
        handle.remove()
    # what works on single numbers, the gate of a squeeze-and-excitation, has no stride
    return {name: pair for name, pair in found.items() if pair[0] < size}


def _in_channels(model: nn.Module) -> int:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    raise ValueError(f"{type(model).__name__} has no convolution")


def intersection_over_union(answers: Tensor, masks: Tensor, num_classes: int) -> Tensor:
    """For each class: pixels that both say to be it over pixels that either says to be it; NaN where neither does.

    Two tensors of whole numbers, of one shape -> (num_classes). Over a set of images all pixels count together, as in
    the benchmarks; the mean over classes is the mean IoU. Raises `ValueError` for unequal shapes, for numbers that are
    not whole and for classes out of range.
    """
    if answers.shape != masks.shape:
        raise ValueError(f"answers of shape {tuple(answers.shape)} do not fit masks of shape {tuple(masks.shape)}")
    check_classes("answers", answers, num_classes)
    check_classes("masks", masks, num_classes)
    places = num_classes * masks.long() + answers.long()  # bytes would overflow
    counts = torch.bincount(places.flatten(), minlength=num_classes**2)
    pairs = counts.view(num_classes, num_classes).double()
    both = pairs.diagonal()
    return both / (pairs.sum(0) + pairs.sum(1) - both)
