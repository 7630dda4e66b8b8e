"""What people reported about tools that count operations and fields: each case rebuilt in a few lines, with the right value.

A row names the repository and number of the report, says what went wrong there, and holds what must be true here.
"""

import pytest
import torch
import torch.nn.functional as F
from analysis_graphs import Wrapped
from torch import nn

from cnnlib.analysis import Input, cost_table, ops, outputs_of, receptive_field, training_memory
from libraries import torchvision


def macs(model, size, **options):
    return cost_table(model, size, **options).total.macs


def params(model, size, **options):
    return cost_table(model, size, **options).total.params


def other(model, size, **options):
    return cost_table(model, size, **options).total.other


def field(model, size, name=None):
    fields = receptive_field(model, size)
    return (fields.output if name is None else fields[name]).size


class Scaled(nn.Sequential):
    """A Sequential with a parameter of its own."""

    def __init__(self, *blocks):
        super().__init__(*blocks)
        self.weights = nn.Parameter(torch.zeros(len(blocks)))

    def forward(self, x):
        for weight, block in zip(self.weights, self):
            x = x + weight * block(x)
        return x


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Parameter(torch.zeros(16, 64))

    def forward(self, x):
        return self.layer


class LeNet(nn.Module):
    def __init__(self, functional=True):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.max_pool2d(F.relu(self.conv1(x)), 2))), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


LENET = 24 * 24 * 20 * 25 + 8 * 8 * 50 * 20 * 25 + 800 * 500 + 5000


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.own = nn.Linear(9, 1), nn.Linear(4, 1)

    def forward(self, a, b):
        return self.shared(a) + self.shared(b) + self.own(a[:, :4])


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        for _ in range(5):
            x = self.conv(x)
        return x


class Blocks(nn.Module):
    """One activation in every block."""

    def __init__(self):
        super().__init__()
        shared = nn.ReLU()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), shared, nn.Linear(4, 4), shared) for _ in range(3)])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.embedding(tokens))


class Attention(nn.Module):
    """Written out with @, on maps (C, H, W) as tokens, in `area` groups."""

    def __init__(self, dim, area=1):
        super().__init__()
        self.qkv, self.area = nn.Conv2d(dim, 3 * dim, 1), area

    def forward(self, x):
        q, k, v = self.qkv(x).flatten(2).unflatten(2, (self.area, -1)).permute(0, 2, 3, 1).chunk(3, -1)
        return (q @ k.transpose(-2, -1)).softmax(-1) @ v


class Dictionary(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 10, 5)

    def forward(self, batch):
        return self.conv(batch["image"]) * batch["scale"]


class Inferring(nn.Sequential):
    @torch.inference_mode()
    def forward(self, x):
        return super().forward(x)


def squeeze_and_excite(x, w):
    return x * torch.sigmoid(F.conv2d(F.adaptive_avg_pool2d(x, 1), w))


class Excited(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.rand(4, 4, 1, 1))

    def forward(self, x):
        return squeeze_and_excite(x, self.w)


def dilated(n):
    return nn.Sequential(*[nn.Conv1d(1, 1, 3, dilation=d) for d in range(1, n + 1)])


ENCODER = 4 * 10 * 16 * 16 + 2 * 10 * 10 * 16 + 2 * 10 * 16 * 32  # a layer of width 16 and 32 on 10 tokens
OWN = 3 * 64 * 64
ROWS = [
    ("facebookresearch/fvcore#143", "elementwise functions count nothing", lambda: other(Wrapped(lambda x: 1 - (x * 2 + 1).sigmoid()), (4,)), 16),
    ("facebookresearch/fvcore#42", "skipped operations inside a gate", lambda: macs(Excited(), (4, 6, 6)), 16),
    ("facebookresearch/fvcore#45", "groups", lambda: macs(nn.Conv2d(8, 8, 3, groups=4), (8, 6, 6)), 16 * 8 * 2 * 9),
    ("facebookresearch/NeuralCompression#5", "broadcast shapes count by the output", lambda: other(
        Wrapped(lambda x, y: x + y), [(3, 1, 5), (3, 4, 1)]), 60),
    ("pytorch/pytorch#95751", "the backward pass", lambda: cost_table(nn.Linear(4, 5), (4,), backward=True).total.backward, 20),
    ("MrYxJ/calculate-flops.pytorch#35", "only modules count, + @ * in a forward do not", lambda: macs(
        Wrapped(lambda x: (x @ x.transpose(1, 2)) * 2 + 1), (3, 4)), 36),
    ("MrYxJ/calculate-flops.pytorch#26", "attention written with @", lambda: macs(Attention(8), (8, 4, 4)), 16 * 8 * 24 + 2 * 16 * 16 * 8),
    ("sophgo/tpu-mlir#49", "an LSTM and a sigmoid count nothing", lambda: (macs(nn.LSTM(3, 4), (2, 3)), other(nn.Sigmoid(), (5,))),
     (2 * 4 * 4 * 7, 5)),
    ("TylerYep/torchinfo#72", "multiply-adds of one convolution", lambda: macs(nn.Conv2d(3, 16, 3, padding=1), (3, 32, 32)), 1024 * 16 * 27),
    ("TylerYep/torchinfo#137", "a parameter of a container", lambda: params(Scaled(nn.Linear(2, 2), nn.Linear(2, 2)), (2,)), 14),
    ("TylerYep/torchinfo#54", "a bare parameter", lambda: params(Bare(), (1,)), 1024),
    ("TylerYep/torchinfo#82", "parameters with functional pooling", lambda: params(LeNet(), (1, 28, 28)), 431_080),
    ("TylerYep/torchinfo#39", "containers are summed as well as their layers", lambda: macs(
        nn.Sequential(nn.Sequential(*[nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)])), (16, 8, 8)), 3 * 64 * 16 * 144),
    ("TylerYep/torchinfo#226", "transformers are far too small", lambda: macs(
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (10, 16)), ENCODER),
    ("TylerYep/torchinfo#60", "nested blocks", lambda: [part.macs for part in cost_table(nn.Sequential(nn.Sequential(nn.Sequential(
        nn.Linear(2, 3), nn.Linear(3, 4)))), (2,)).tree()], [18, 18, 18, 6, 12]),
    ("TylerYep/torchinfo#77", "a linear layer on more dimensions", lambda: macs(nn.Linear(3, 8), (100, 100, 3), batch_size=5), 1_200_000),
    ("TylerYep/torchinfo#32", "the length of a sequence", lambda: [macs(nn.LSTM(3, 4, batch_first=True), (n, 3)) for n in (10, 100)],
     [1120, 11200]),
    ("TylerYep/torchinfo#52", "the depth shown changes the parameters", lambda: {
        cost_table(torchvision.models.resnet18(), (3, 64, 64)).tree(depth)[0].params for depth in (0, 1, 2, 3, 4)}, {11_689_512}),
    ("TylerYep/torchinfo#157", "rows twice and out of order", lambda: [row.name for row in cost_table(Blocks(), (4,))],
     [f"blocks.{i}.{j}" if j % 2 == 0 else "blocks.0.1" for i in range(3) for j in range(4)]),
    ("TylerYep/torchinfo#194", "a shared activation moves to the depth of its first use", lambda: len(cost_table(Blocks(), (4,)).tree(1)), 2),
    ("TylerYep/torchinfo#262", "a shared activation splits a block", lambda: [
        part.name for part in cost_table(Blocks(), (4,)).tree(2)], ["", "blocks", "blocks.0", "blocks.1", "blocks.2"]),
    ("TylerYep/torchinfo#396", "parameters around a shared module", lambda: params(Blocks(), (4,)), 120),
    ("TylerYep/torchinfo#377", "tied weights", lambda: params(Tied(), Input((7,), torch.int64)), 400),
    ("TylerYep/torchinfo#65", "a loop calls one layer", lambda: (len(cost_table(Loop(), (2, 4, 4))), params(Loop(), (2, 4, 4))), (5, 38)),
    ("TylerYep/torchinfo#143", "rows of layers that are not called", lambda: [
        row.called for row in cost_table(Siamese(), [(9,), (9,)]) if row.kind == "Linear"], [True] * 3),
    ("Lyken17/pytorch-OpCounter#34", "groups once more", lambda: macs(nn.Conv2d(8, 16, 3, groups=8), (8, 5, 5)), 9 * 16 * 9),
    ("Lyken17/pytorch-OpCounter#119", "a convolution counts zero", lambda: macs(nn.Conv2d(128, 128, 1), (128, 16, 16)), 4_194_304),
    ("Lyken17/pytorch-OpCounter#217", "parameters of a single layer", lambda: (
        params(nn.Linear(10, 11), (10,)), macs(nn.Linear(10, 11), (10,))), (121, 110)),
    ("Lyken17/pytorch-OpCounter#231", "biases", lambda: (macs(nn.Conv2d(3, 5, 3), (3, 6, 6)), other(nn.Conv2d(3, 5, 3), (3, 6, 6))),
     (2160, 80)),
    ("Lyken17/pytorch-OpCounter#41", "depthwise convolution", lambda: macs(nn.Conv2d(6, 6, 3, groups=6), (6, 7, 7)), 25 * 6 * 9),
    ("Lyken17/pytorch-OpCounter#8", "a stride counted twice, height and width exchanged", lambda: macs(
        nn.Conv2d(1, 1, 3, stride=2, padding=1), (1, 8, 20)), 4 * 10 * 9),
    ("Lyken17/pytorch-OpCounter#114", "a model that is one leaf", lambda: macs(nn.Conv2d(1, 2, 1), (1, 3, 3)), 18),
    ("1adrianb/pytorch-estimate-flops#6", "functional LeNet", lambda: macs(LeNet(), (1, 28, 28)), LENET),
    ("autoliuweijie/FastBERT#14", "the products of attention", lambda: macs(Wrapped(
        lambda q: F.softmax(torch.matmul(q, q.transpose(-2, -1)), -1).matmul(q)), (2, 7, 4)), 2 * 2 * 49 * 4),
    ("pytorch/torchtitan#4366", "both of them", lambda: macs(Wrapped(F.scaled_dot_product_attention), [(2, 7, 4)] * 3), 2 * 2 * 49 * 4),
    ("pytorch/pytorch#134804", "each of them once", lambda: macs(Wrapped(F.scaled_dot_product_attention), [(5, 9, 4)] * 3, batch_size=2),
     2 * 5 * 2 * 81 * 4),
    ("allenai/olmoearth_pretrain#605", "an encoder layer on its fast path", lambda: macs(
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval(), (10, 16)), ENCODER),
    ("ultralytics/thop#166", "attention on maps: height and width are no width", lambda: macs(
        Attention(64), (64, 8, 8)), 64 * 64 * 192 + 2 * 64 * 64 * 64),
    ("ultralytics/ultralytics#25545", "attention within areas", lambda: macs(
        Attention(64, area=4), (64, 8, 8)), 64 * 64 * 192 + 4 * 2 * 16 * 16 * 64),
    ("Meituan-AutoML/Twins#11", "attention with fewer keys", lambda: macs(Wrapped(lambda q, kv: F.scaled_dot_product_attention(q, kv, kv)),
                                                                        [(2, 49, 8), (2, 7, 8)]), 2 * 49 * 7 * 16),
    ("pytorch/pytorch#105613", "the weight's shape knows the groups already", lambda: macs(nn.Conv2d(8, 8, 3, groups=2), (8, 5, 5)),
     9 * 8 * 4 * 9),
    ("pytorch/pytorch#119806", "the backward pass of a transposed convolution", lambda: (
        cost_table(nn.ConvTranspose2d(192, 384, 2, 2), (192, 30, 96), batch_size=6, backward=True).total.backward), 6 * 30 * 96 * 192 * 384 * 4),
    ("pytorch/pytorch#183405", "the backward pass with groups", lambda: cost_table(
        nn.Conv2d(8, 8, 3, groups=2), (8, 5, 5), backward=True).total.backward, 9 * 8 * 4 * 9),
    ("pytorch/pytorch#126268", "inference mode counts zero", lambda: macs(Inferring(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)),
                                                                        (3, 8, 8)), 36 * 108 + 288),
    ("pytorch/pytorch#131041", "unknown operators pass in silence", lambda: len(
        cost_table(Wrapped(torch.special.i0), (3,)).unknown), 1),
    ("frgfm/torch-scan#27", "dilation, counted from the input", lambda: field(dilated(3), (1, 100)), (13,)),
    ("frgfm/torch-scan#33", "VGG-16", lambda: field(torchvision.models.vgg16().features, (3, 224, 224)), (212, 212)),
    ("frgfm/torch-scan#31", "fields from the input", lambda: [field(nn.Sequential(
        nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 16, 3)), (3, 32, 32), name)[0] for name in "012"], [5, 5, 7]),
    ("frgfm/torch-scan#12", "branches", lambda: field(torchvision.models.resnet18().eval(), (3, 224, 224), "layer4"), (435, 435)),
    ("frgfm/torch-scan#21", "a network with a classifier", lambda: receptive_field(
        torchvision.models.vgg11().eval(), (3, 224, 224)).output.global_axes, (True, True)),
    ("amarczew/pytorch_model_summary#3", "a siamese network", lambda: params(Siamese(), [(9,), (9,)]), 15),
    ("sksq96/pytorch-summary#201", "one layer called twice", lambda: params(Wrapped_twice(), [(1, 16, 16), (1, 28, 28)]), 10),
    ("sksq96/pytorch-summary#79", "its operations do count twice", lambda: macs(Siamese(), [(9,), (9,)]), 22),
    ("sksq96/pytorch-summary#127", "a loop in forward", lambda: macs(Loop(), (2, 4, 4)), 5 * 16 * 2 * 18),
    ("sksq96/pytorch-summary#71", "the size of several inputs", lambda: training_memory(
        Wrapped(lambda a, b: (a * a).sum() + (b * b).sum()), [(3, 64), (3, 32)]).saved, 0),
    ("graspnet/graspnet-baseline#70", "a dictionary as input", lambda: macs(
        Dictionary(), [{"image": (1, 28, 28), "scale": torch.rand(1)}]), 24 * 24 * 250),
    ("Fangyh09/pytorch-receptive-field#9", "transposed convolution", lambda: field(nn.ConvTranspose2d(1, 1, 4, 2, 1), (1, 8, 8)), (2, 2)),
    ("Fangyh09/pytorch-receptive-field#6", "where a dilated field begins", lambda: receptive_field(
        nn.Conv2d(1, 1, 3, padding=2, dilation=2), (1, 9, 9)).output.start, (-2, -2)),
    ("pytorch/pytorch#14099", "the output of a dilated transposed convolution", lambda: cost_table(
        nn.ConvTranspose2d(1, 1, 3, dilation=2), (1, 10, 10))[0].output_shape, (1, 14, 14)),
    ("pytorch/pytorch#1565", "a dilated transposed convolution leaves holes", lambda: [receptive_field(nn.ConvTranspose1d(
        1, 1, 3, 2, dilation=2), (1, 6)).output.pixels((i,))[0] for i in range(4)], [(0, 0), (0, -1), (0, 1), (0, -1)]),
    ("sovrasov/flops-counter.pytorch#69", "group norm", lambda: other(nn.GroupNorm(2, 4), (4, 3, 3)), 7 * 36),
    ("clovaai/EXTD_Pytorch#5", "batch norm beside multiply-adds, not among them", lambda: (
        macs(nn.BatchNorm2d(4).eval(), (4, 5, 5)), other(nn.BatchNorm2d(4).eval(), (4, 5, 5))), (0, 200)),
]


class Wrapped_twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU())

    def forward(self, x, y):
        return self.features(x), self.features(y)


@pytest.mark.parametrize("source, what, found, right", ROWS, ids=[row[0] for row in ROWS])
def test_reported_case(source, what, found, right):
    assert found() == right, f"{source}: {what}"


def test_there_are_sixty_sources():
    assert len({source for source, *_ in ROWS}) >= 60


def test_counting_leaves_no_trace_and_can_be_repeated():
    """Lyken17/pytorch-OpCounter#82, #168, #121: keys added to the state; #35: a second profile of one model fails."""
    model = torchvision.models.resnet18()
    before = list(model.state_dict())
    first, second = (macs(model, (3, side, side)) for side in (64, 128))
    assert list(model.state_dict()) == before and second - 512_000 == 4 * (first - 512_000)
    outputs_of(model.eval(), ["layer1"], torch.rand(1, 3, 32, 32))
    assert list(model.state_dict()) == before


def test_a_rule_of_ones_own():
    """facebookresearch/fvcore#83: how to count an operation that is not known."""
    assert ops.of("special_i0") is ops.UNKNOWN
    model = Wrapped(torch.special.i0)
    (name, _), = cost_table(model, (3, 5)).unknown
    assert macs(model, (3, 5), formulas={name: lambda node: node.inputs[0].numel * 4}) == 60
