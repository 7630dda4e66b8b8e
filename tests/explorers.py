"""One example of every explorer, for the tests with a browser and without one."""

from cnnlib.widgets import (
    ArchitectureMap,
    BlockDesigner,
    ConvolutionArithmetic,
    CostTableExplorer,
    InceptionDesigner,
    NetworkExplorer,
    ReceptiveFieldExplorer,
    StackDesigner,
)

EXAMPLES = {
    "block": lambda: BlockDesigner(),
    "convolution": lambda: ConvolutionArithmetic(7, 3, 1),
    "cost": lambda: CostTableExplorer("alexnet_227", "alexnet"),
    "field": lambda: ReceptiveFieldExplorer("alexnet_227"),
    "inception": lambda: InceptionDesigner(),
    "network": lambda: NetworkExplorer("resnet50"),
    "map": lambda: ArchitectureMap(),
    "stack": lambda: StackDesigner("AlexNet's beginning"),
}
