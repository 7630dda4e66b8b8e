"""Random networks with branches, and what their units really see: the pixels with a gradient."""

import random
import types

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def cropped(outs):
    """Maps cropped to the shape of the smallest, from the upper left corner."""
    height, width = (min(out.shape[axis] for out in outs) for axis in (2, 3))
    return [out[:, :, :height, :width] for out in outs]


class Sum(nn.Module):
    """Branches, cropped to one shape and added."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        total, *outs = cropped([branch(x) for branch in self.branches])
        for out in outs:
            total = total + out
        return total


class Concat(nn.Module):
    """Branches one behind the other along the channels."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat(cropped([branch(x) for branch in self.branches]), 1)


class Halves(nn.Module):
    """Half the channels go through a branch, as in ShuffleNet v2; the halves are then shuffled or simply joined."""

    def __init__(self, branch, shuffle):
        super().__init__()
        self.branch = branch
        self.shuffle = shuffle

    def forward(self, x):
        kept, changed = x.chunk(2, dim=1)
        x = torch.cat([kept, self.branch(changed)], dim=1)
        if not self.shuffle:
            return x
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Upper(nn.Module):
    """Keeps the second half of the channels."""

    def forward(self, x):
        return x[:, x.shape[1] // 2:]


class SpaceToDepth(nn.Module):
    def forward(self, x):
        return F.pixel_unshuffle(x[:, :, :x.shape[2] // 2 * 2, :x.shape[3] // 2 * 2], 2)


class Upsample(nn.Module):
    def forward(self, x):
        return F.interpolate(x, scale_factor=2)


def random_network(seed: int, blocks: int = 5) -> nn.Sequential:
    """A network of 4 input channels made of random blocks, some of them with branches that are not aligned."""
    rng = random.Random(seed)
    channels = 4
    layers = []

    def conv(c, out=None, same=False, stride=None):
        out = out or c
        kernel = [rng.choice((1, 2, 3, 5)) for _ in range(2)]
        dilation = [rng.choice((1, 1, 2)) for _ in range(2)]
        if same:
            kernel = [k | 1 for k in kernel]
            padding = [d * (k - 1) // 2 for k, d in zip(kernel, dilation)]
            stride = 1
        else:
            padding = [rng.randint(0, d * (k - 1)) for k, d in zip(kernel, dilation)]
            stride = stride or [rng.choice((1, 1, 2)) for _ in range(2)]
        groups = rng.choice([g for g in (1, 2, c) if c % g == 0 and out % g == 0])
        return nn.Conv2d(c, out, kernel, stride, padding, dilation, groups, bias=False)

    def block(c):
        kind = rng.choice((
            "conv", "conv", "pool", "residual", "concat", "crooked", "halves", "dense", "upper", "up", "fold"))
        if kind == "conv":
            out = rng.choice((4, 6, 8))
            return out, nn.Sequential(conv(c, out), nn.BatchNorm2d(out), nn.ReLU())
        if kind == "pool":
            kernel = rng.choice((2, 3))
            kinds = (nn.MaxPool2d, nn.AvgPool2d)
            return c, rng.choice(kinds)(kernel, rng.choice((1, 2)), rng.choice((0, 1)), ceil_mode=rng.random() < 0.5)
        if kind == "residual":
            return c, Sum(nn.Identity(), nn.Sequential(conv(c, same=True), nn.ReLU(), conv(c, same=True)))
        if kind == "crooked":  # strides or paddings that do not agree
            return c, Sum(conv(c), conv(c))
        if kind == "halves" and c % 2 == 0:
            return c, Halves(conv(c // 2, same=True), rng.random() < 0.5)
        if kind == "upper" and c % 2 == 0 and c > 2:
            return c // 2, Upper()
        if kind == "up":
            up = Upsample() if rng.random() < 0.5 else nn.ConvTranspose2d(c, c, 3, 2, 1, bias=False)
            return c, nn.Sequential(up, conv(c))
        if kind == "fold" and c <= 4:
            return 8, nn.Sequential(SpaceToDepth(), nn.Conv2d(4 * c, 8, 1, bias=False))
        out = rng.choice((2, 4))
        if kind == "dense":
            return c + out, Concat(nn.Identity(), conv(c, out, same=True) if c % 2 == 0 else nn.Conv2d(c, out, 3, 1, 1))
        return c + out, Concat(nn.Sequential(conv(c), nn.ReLU()), nn.Conv2d(c, out, rng.choice((1, 3)), 1, bias=False))

    for _ in range(blocks):
        channels, layer = block(channels)
        layers.append(layer)
    return nn.Sequential(*layers)


class _EveryPath(TorchFunctionMode):
    """Max pooling lets one pixel of a window through; here all of them pass, and no path through global pooling
    does."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.max_pool2d or func is F.max_pool2d_with_indices:
            sums = _window_sums(*args, **kwargs)
            return (sums, func(args[0].detach(), *args[1:], **kwargs)[1]) if func is not F.max_pool2d else sums
        if func is F.max_unpool2d:
            x, c = args[0], args[0].shape[1]
            return F.conv_transpose2d(x, torch.ones(c, 1, args[2], args[2], dtype=x.dtype), stride=args[2], groups=c)
        if func in (F.instance_norm, F.group_norm):  # the path that is not through statistics
            return args[0]
        if func in (F.relu6, F.hardtanh):  # flat above their bound
            return args[0]
        if func is F.layer_norm:  # of a pixel's channels: its gradients cancel where all channels are equal
            return args[0]
        result = func(*args, **kwargs)
        if func in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d) and result.shape[-1] == 1:
            return result.detach()
        if func is F.scaled_dot_product_attention:
            return result.detach()
        if func is torch.linalg.vector_norm and result.shape[1:3] == (1, 1):  # of whole maps, channels last
            return result.detach()
        if func in (Tensor.mean, torch.mean, Tensor.amax) and result.dim() and args[0].dim() == 4:
            if result.shape[-1] in (1, args[0].shape[1]):
                return result.detach()
        return result


def _window_sums(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    shape = F.max_pool2d(x.detach(), kernel_size, stride, padding, dilation, ceil_mode).shape
    kernel, stride, padding, dilation = (
        (v, v) if isinstance(v, int) else tuple(v) for v in (kernel_size, stride or kernel_size, padding, dilation))
    sides = []
    for i in (1, 0):
        need = (shape[2 + i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1
        sides += [padding[i], max(need - x.shape[2 + i] - padding[i], 0)]
    c = x.shape[1]
    out = F.conv2d(F.pad(x, sides), torch.ones(c, 1, *kernel, dtype=x.dtype), None, stride, 0, dilation, c)
    return out[:, :, :shape[2], :shape[3]] / (kernel[0] * kernel[1])


@torch.no_grad()
def make_positive(model: nn.Module) -> nn.Module:
    """Weights and inputs above zero, so that no gradient cancels and no ReLU stops one; batch norm is the identity."""
    model = model.double().eval().requires_grad_(False)
    for module in model.modules():
        if type(module).__name__ in ("StandardizedConv2d", "ScaledConv2d"):  # of equal weights they would make zeros
            module.forward = types.MethodType(nn.Conv2d.forward, module)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        if tensor.dim() > 1:
            tensor.fill_(1 / tensor[0].numel())
        else:
            tensor.fill_(0.0 if name.endswith(("bias", "running_mean", "beta")) else 1.0)
    return model


class _Enough(Exception):
    pass


def real_extents(model: nn.Module, size: tuple[int, ...], wanted: dict[str, list[tuple[int, int]]], least: float = 0) -> dict:
    """(name, unit) -> ((first row, last row), (first column, last column)) with any gradient, or None.

    What is below `least` of the largest counts as rounding: the ends of an antialiasing filter."""
    images = torch.rand(1, *size, dtype=torch.float64).requires_grad_()
    outputs = {}
    modules = dict(model.named_modules())
    last = list(wanted)[-1]

    def keep(name):
        def hook(module, args, output):
            outputs[name] = output if isinstance(output, Tensor) else output[0]  # NASNet hands on pairs, newest first
            if name == last:
                raise _Enough
        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in wanted]
    try:
        with _EveryPath():
            model(images)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    extents = {}
    for name, units in wanted.items():
        for unit in units:
            value = outputs[name][(0, slice(None), *unit)].sum()
            (gradient,) = torch.autograd.grad(value, images, retain_graph=True, allow_unused=True)
            strength = torch.zeros(size) if gradient is None else gradient[0].abs()
            seen = (strength > least * strength.max()).any(0)
            rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
            spans = tuple((int(line[0]), int(line[-1])) for line in (rows, columns)) if len(rows) else None
            extents[name, unit] = spans
    return extents


# Networks of operations that rearrange: shuffles, windows, repeats, indexing, interpolation, instance norm, vmap


class Wrapped(nn.Module):
    """A function as a module; `text` says what it does."""

    def __init__(self, function, text=""):
        super().__init__()
        self.function = function
        self.text = text

    def forward(self, *inputs):
        return self.function(*inputs)

    def extra_repr(self):
        return self.text


def _windows(x, kernel, stride, dilation, padding):
    columns = F.unfold(x, kernel, dilation, padding, stride)
    out = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in zip(x.shape[2:], kernel, dilation, padding, stride)]
    return columns.view(*x.shape[:2], kernel[0] * kernel[1], *out).sum(2)


def _fold(x, kernel, stride, dilation, padding):
    settings = kernel, dilation, padding, stride
    return F.fold(F.unfold(x, *settings), x.shape[2:], *settings)


def rearrangement(rng: random.Random, c: int, h: int, w: int, modes: tuple[str, ...]) -> nn.Module:
    """A random operation on maps (c, h, w)."""
    pair = lambda *choices: (rng.choice(choices), rng.choice(choices))
    kind = rng.choice(("shuffle", "unshuffle", "channels", "unfold", "windows", "fold", "repeat", "interleave", "expand", "index",
                       "select", "grid", "permute", "interpolate", "interpolate", "interpolate", "instance", "vmap", "vmap over channels",
                       "flip", "unpool"))
    if kind == "shuffle":
        r = rng.choice((2, 3))
        return nn.Sequential(nn.Conv2d(c, 2 * r * r, 1, bias=False), nn.PixelShuffle(r))
    if kind == "unshuffle":
        return SpaceToDepth()
    if kind == "channels":
        return nn.ChannelShuffle(2) if c % 2 == 0 else nn.Identity()
    if kind == "unfold":
        dim, size, step = rng.choice((2, 3)), rng.choice((2, 3)), rng.choice((1, 2, 3))
        if rng.random() < 0.5:
            return Wrapped(lambda x: x.unfold(dim, size, step).sum(-1), f"{kind} {dim, size, step}")
        merged = lambda x: x.unfold(2, size, step).transpose(3, 4).flatten(2, 3)  # the windows one below the other
        return Wrapped(merged, f"{kind} merged {size, step}")
    if kind in ("windows", "fold"):
        kernel, stride, dilation, padding = pair(1, 2, 3), pair(1, 2), pair(1, 2), pair(0, 1)
        function = _windows if kind == "windows" else _fold
        return Wrapped(lambda x: function(x, kernel, stride, dilation, padding), f"{kind} {kernel, stride, dilation, padding}")
    if kind == "repeat":
        times = pair(1, 2, 3)
        return Wrapped(lambda x: x.repeat(1, 1, *times), f"repeat {times}")
    if kind == "interleave":
        dim, times = rng.choice((2, 3)), rng.choice((2, 3))
        return Wrapped(lambda x: x.repeat_interleave(times, dim), f"interleave {dim, times}")
    if kind == "expand":
        return Wrapped(lambda x: x.unsqueeze(3).expand(-1, -1, -1, 2, -1).flatten(2, 3), kind)
    if kind == "index":
        rows = [rng.randrange(-h, h) for _ in range(rng.randint(2, h + 3))]
        return Wrapped(lambda x: x[:, :, rows], f"index {rows}")
    if kind == "select":
        columns = [rng.randrange(w) for _ in range(rng.randint(2, w + 3))]
        return Wrapped(lambda x: x.index_select(3, torch.tensor(columns)), f"select {columns}")
    if kind == "grid":
        rows, columns = [rng.randrange(h) for _ in range(h)], [rng.randrange(w) for _ in range(w)]
        function = lambda x: x[:, :, torch.tensor(rows)[:, None], torch.tensor(columns)]
        return Wrapped(function, f"grid {rows, columns}")
    if kind == "permute":
        order = rng.sample(range(c), c)
        return Wrapped(lambda x: x[:, order], f"channels {order}")
    if kind == "interpolate":
        mode = rng.choice(modes)
        options = {"size": (rng.randint(max(h // 2, 2), 2 * h), rng.randint(max(w // 2, 2), 2 * w))}
        if rng.random() < 0.3:
            options = {"scale_factor": rng.choice((0.5, 0.7, 1.5, 2.0, 2.3))}
        if mode.startswith("bi"):
            options["antialias"] = rng.random() < 0.5
            options["align_corners"] = rng.random() < 0.3 and not options["antialias"]
        return Wrapped(lambda x: F.interpolate(x, mode=mode, **options), f"{mode} {options}")
    if kind == "instance":
        return nn.InstanceNorm2d(c, affine=rng.random() < 0.5)
    if kind == "vmap":
        conv = nn.Conv2d(c, c, rng.choice((1, 3)), rng.choice((1, 2)), bias=False)
        module = Wrapped(lambda x: torch.vmap(lambda one: conv(one[None])[0])(x), "vmap")
        module.conv = conv
        return module
    if kind == "vmap over channels":
        stride = rng.choice((1, 2))
        one = lambda maps: F.avg_pool2d(maps[:, None], 3, stride)[:, 0]
        return Wrapped(torch.vmap(one, in_dims=1, out_dims=1), f"vmap over channels {stride}")
    if kind == "unpool":
        even = lambda x: x[:, :, :x.shape[2] // 2 * 2, :x.shape[3] // 2 * 2]
        return Wrapped(lambda x: F.max_unpool2d(*F.max_pool2d(even(x), 2, return_indices=True), 2), kind)
    dim = rng.choice((2, 3))
    return Wrapped(lambda x: x.flip(dim).roll(2, dim), f"flip {dim}")


def rearranging_network(seed: int, size: tuple[int, int, int], most: int = 48) -> nn.Sequential:
    """Convolutions with random rearrangements between them, as many as keep maps within `most` pixels a side."""
    rng = random.Random(seed)
    layers, x = [], torch.rand(1, *size)
    for _ in range(6):
        c, h, w = x.shape[1:]
        if rng.random() < 0.4:
            k = rng.choice((1, 2, 3))
            layer = nn.Conv2d(c, 4, k, rng.choice((1, 1, 2)), rng.choice((0, k // 2)), bias=False)
        else:
            plain = all(isinstance(layer, (nn.Conv2d, nn.InstanceNorm2d, nn.ChannelShuffle)) for layer in layers)
            modes = ("nearest", "nearest-exact", "bilinear", "area", *["bicubic"] * plain)  # of equal pixels its weights can cancel
            layer = rearrangement(rng, c, h, w, modes)
        with torch.no_grad():
            try:
                y = layer(x)
            except (RuntimeError, ValueError):  # the maps are smaller than a window
                continue
        if y.dim() == 4 and 4 <= min(y.shape[2:]) and max(y.shape[2:]) <= most and y.shape[1] <= 36:
            layers.append(layer)
            x = y
    return nn.Sequential(*layers)
