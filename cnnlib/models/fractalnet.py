"""FractalNet: as deep as a residual network, without residuals.

One rule, applied again and again: f_1 is a convolution, and f_{C+1} puts two f_C in a row beside one more convolution,
then joins the two paths by their mean. Drawn out, a block has C columns of 1, 2, 4, ... convolutions, which meet at
joins. It is an ensemble that shares layers, and drop-path trains its members: local drop-path drops single inputs of
joins, global drop-path all columns but one. After that a column works alone: cut out, it is a plain network.

- Larsson, Maire, Shakhnarovich. FractalNet: Ultra-Deep Neural Networks without Residuals. ICLR 2017. arXiv:1605.07648.

**Differs from the paper:**

- All: the paper leaves open where dropout stands; here it follows each convolution, before the normalization. Paths are
  drawn once for a mini-batch, and what is dropped is not computed. Averages the last map, which for 32x32 images
  is one pixel, so that larger images pass.
- `fractalnet20`: the paper's Table 1 prints 38.6M parameters; the layers that it describes have 33.7M.
- `fractalnet40`: the four columns of the paper's study of depth (Table 3), which has a quarter of the widths.
- `fractalnet_cifar`: three columns from the same study, without dropout; `fractalnet_cifar_plain` is its deepest
  column.
"""

from collections.abc import Sequence

import torch
from torch import nn

from cnnlib.layers import pooled_classifier
from cnnlib.registry import Variant, register


class FractalConv(nn.Sequential):
    """3x3 convolution, dropout, normalization, ReLU: (N, in_channels, H, W) -> (N, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float = 0.0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU()


def make_column(in_channels: int, out_channels: int, depth: int, *, dropout: float = 0.0) -> nn.Sequential:
    """`depth` convolutions in a row; the first changes the channels."""
    layers = [FractalConv(in_channels, out_channels, dropout=dropout)]
    layers += [FractalConv(out_channels, out_channels, dropout=dropout) for _ in range(depth - 1)]
    return nn.Sequential(*layers)


def join(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of maps of equal shape."""
    return inputs[0] if len(inputs) == 1 else torch.stack(inputs).mean(0)


def draw_survivors(inputs: int, drop_probability: float) -> list[int]:
    """Which inputs of a join survive: each is dropped by chance, but if all were, one at random stays."""
    if not drop_probability:
        return list(range(inputs))
    drops = torch.rand(inputs, device="cpu") < drop_probability
    if drops.all():
        return [int(torch.randint(inputs, (), device="cpu"))]
    return [index for index, dropped in enumerate(drops.tolist()) if not dropped]


class FractalBlock(nn.Module):
    """f_C, where f_1 = conv and f_{C+1}(x) = join(conv(x), f_C(f_C(x))).

    (N, in_channels, H, W) -> (N, out_channels, H, W). Drawn out, there are C columns; the k-th, counted from
    1, has 2^(k-1) convolutions, each as long as 2^(C-k) of the deepest column. Convolutions that end at the
    same step are joined, and the mean goes on in all of their columns.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        columns: int,  # C
        dropout: float = 0.0,
        local_drop_path: float = 0.0,
    ):
        super().__init__()
        self.columns = nn.ModuleList(
            make_column(in_channels, out_channels, 2**k, dropout=dropout) for k in range(columns)
        )
        self.local_drop_path = local_drop_path

    def forward(self, x: torch.Tensor, column: int | None = None) -> torch.Tensor:
        """All columns and their joins, or, given its number, one column alone."""
        if column is not None:
            return self.columns[column - 1](x)
        depth = len(self.columns[-1])
        spans = [depth // len(layers) for layers in self.columns]  # steps beside one convolution: 4, 2, 1
        reads = [x] * len(self.columns)  # what the next convolution of each column reads
        for step in range(1, depth + 1):
            ending = [k for k, span in enumerate(spans) if step % span == 0]
            survivors = ending
            if self.training and self.local_drop_path and len(ending) > 1:
                survivors = [ending[index] for index in draw_survivors(len(ending), self.local_drop_path)]
            joined = join([self.columns[k][step // spans[k] - 1](reads[k]) for k in survivors])
            for k in ending:
                reads[k] = joined
        return joined


class FractalStage(nn.Sequential):
    """A fractal block and the pooling behind it, which halves the map."""

    def __init__(self, *args, **kwargs):
        super().__init__(FractalBlock(*args, **kwargs), nn.MaxPool2d(2))

    def forward(self, x: torch.Tensor, column: int | None = None) -> torch.Tensor:
        block, pool = self
        return pool(block(x, column))


class PlainColumn(nn.Module):
    """One column of a FractalNet as a network of its own: (N, in_channels, H, W) -> (N, num_classes) logits.

    `depth` convolutions at each of `widths`, and pooling after each width. `dropout` names a probability per width.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        depth: int = 4,
        dropout: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4),
    ):
        super().__init__()
        check_dropout(dropout, widths)
        self.stem = nn.Identity()
        # 16x16, 8x8, 4x4, 2x2, 1x1 for 32x32 images
        self.stages = nn.Sequential()
        for before, width, probability in zip((in_channels, *widths), widths, dropout):
            self.stages.append(make_column(before, width, depth, dropout=probability).append(nn.MaxPool2d(2)))
        self.head = pooled_classifier(widths[-1], num_classes)
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


class FractalNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits; len(widths) * 2^(columns-1) convolutions deep.

    A mini-batch in training takes one column through the whole network with probability `global_drop_path`, else all
    columns, and then each join drops each input with probability `local_drop_path`. `dropout` names a probability per
    width. Raises `ValueError` for a probability out of range.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        widths: Sequence[int] = (64, 128, 256, 512, 512),  # one per block, B in all
        columns: int = 3,  # C
        dropout: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4),
        local_drop_path: float = 0.15,
        global_drop_path: float = 0.5,
    ):
        super().__init__()
        check_dropout(dropout, widths)
        if columns < 1:
            raise ValueError(f"columns={columns}: a fractal block has at least 1")
        if not 0 <= local_drop_path < 1:
            raise ValueError(f"local_drop_path={local_drop_path!r} is not in [0, 1)")
        if not 0 <= global_drop_path <= 1:
            raise ValueError(f"global_drop_path={global_drop_path!r} is not in [0, 1]")
        self.columns = columns
        self.global_drop_path = global_drop_path
        self.plain_form = {"in_channels": in_channels, "num_classes": num_classes, "widths": widths, "dropout": dropout}
        self.stem = nn.Identity()
        # 16x16, 8x8, 4x4, 2x2, 1x1 for 32x32 images
        self.stages = nn.Sequential(*(
            FractalStage(before, width, columns=columns, dropout=probability, local_drop_path=local_drop_path)
            for before, width, probability in zip((in_channels, *widths), widths, dropout)
        ))
        self.head = pooled_classifier(widths[-1], num_classes)
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, column = self.stem(x), self._draw_column()
        for stage in self.stages:
            x = stage(x, column)
        return self.head(x)

    def _draw_column(self) -> int | None:
        """For this mini-batch: the one column of global drop-path, or None for all."""
        if self.training and self.global_drop_path and torch.rand((), device="cpu") < self.global_drop_path:
            return int(torch.randint(self.columns, (), device="cpu")) + 1
        return None

    def column(self, k: int) -> PlainColumn:
        """A copy of the k-th column, weights included: a plain network of 2^(k-1) convolutions per block.

        The deepest is k = columns. Its batch-norm statistics were gathered from whole and single columns alike.
        Raises `ValueError` for another k.
        """
        if not 1 <= k <= self.columns:
            raise ValueError(f"column {k!r} does not exist; choose 1 to {self.columns}")
        plain = PlainColumn(**self.plain_form, depth=2 ** (k - 1)).to(self.head[-1].weight).train(self.training)
        for ours, stage in zip(plain.stages, self.stages):
            ours[:-1].load_state_dict(stage[0].columns[k - 1].state_dict())
        plain.head.load_state_dict(self.head.state_dict())
        return plain


def check_dropout(dropout: Sequence[float], widths: Sequence[int]) -> None:
    if len(dropout) != len(widths):
        raise ValueError(f"dropout={tuple(dropout)!r} must name one probability for each of widths={tuple(widths)!r}")


def initialize(model: nn.Module) -> None:
    """Weights by the rule of Glorot and Bengio, as the paper has it; biases 0."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


QUARTER_WIDTHS = (16, 32, 64, 128, 128)
WITHOUT_DROPOUT = (0.0, 0.0, 0.0, 0.0, 0.0)

VARIANTS = (
    Variant(
        "fractalnet20",
        "the paper's network for CIFAR: five blocks of three columns",
        {"num_classes": 10},
        input_size=(3, 32, 32),
    ),
    Variant(
        "fractalnet40",
        "four columns, at a quarter of the widths",
        {"num_classes": 10, "widths": QUARTER_WIDTHS, "columns": 4},
        input_size=(3, 32, 32),
    ),
    Variant(
        "fractalnet_cifar",
        "small-image form: three columns at a quarter of the widths",
        {"num_classes": 10, "widths": QUARTER_WIDTHS, "dropout": WITHOUT_DROPOUT},
        input_size=(3, 32, 32),
    ),
    Variant(
        "fractalnet_cifar_plain",
        "small-image form: the deepest column of fractalnet_cifar, built as a plain network",
        {"num_classes": 10, "widths": QUARTER_WIDTHS, "dropout": WITHOUT_DROPOUT},
        input_size=(3, 32, 32),
        network=PlainColumn,
    ),
)

register(FractalNet, VARIANTS, cite="larsson2017fractalnet", year=2016)
