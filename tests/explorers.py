"""One example of every explorer, for the tests with a browser and without one."""

import functools

from torch import nn

from cnnlib.widgets import (
    ArchitectureMap,
    BlockDesigner,
    BranchFusion,
    ConvolutionArithmetic,
    CostTableExplorer,
    FollowPhotograph,
    InceptionDesigner,
    NetworkExplorer,
    NormalizationAxes,
    Question,
    ReceptiveFieldExplorer,
    StackDesigner,
)

EXAMPLES = {
    "block": lambda: BlockDesigner(),
    "convolution": lambda: ConvolutionArithmetic(7, 3, 1),
    "pixels": lambda: ConvolutionArithmetic(10, 3, padding=1, row=2, column=4, mode="convolution"),
    "cost": lambda: CostTableExplorer("alexnet_227", "alexnet"),
    "field": lambda: ReceptiveFieldExplorer("alexnet_227"),
    "follow": lambda: FollowPhotograph("zfnet_cifar", "vgg11_animals", layer=3),
    "fusion": lambda: BranchFusion(step=1),
    "inception": lambda: InceptionDesigner(),
    "network": lambda: NetworkExplorer("resnet50"),
    "map": lambda: ArchitectureMap(),
    "normalization": lambda: NormalizationAxes("group"),
    "question": lambda: Question("How many parameters has AlexNet's first layer?", 34_944, hints=["A filter has 11 x 11 x 3 weights."],
                                 usual=[(34_848, "the biases are missing"), (4, "are there so few?")], because="96 x (11 x 11 x 3 + 1)"),
    "choice": lambda: Question("Which has more parameters?", "VGG-16", choices=["GoogLeNet", "VGG-16"]),
    "order": lambda: Question("From small to large", ["NiN", "AlexNet", "VGG-16"], kind="order"),
    "stack": lambda: StackDesigner("AlexNet's beginning"),
}


def long_table() -> CostTableExplorer:
    """Costs of 480 layers, which are counted in no time."""
    blocks = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(160)]
    return CostTableExplorer(nn.Sequential(*blocks), sizes=[(4, 8, 8)])


@functools.cache
def example(name: str):
    """An example that is made once, for tests that only look at it."""
    return EXAMPLES[name]()
