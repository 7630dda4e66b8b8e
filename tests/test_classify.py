"""A checkpoint names what is in a photograph, and goes out to other programs with equal answers."""

import json

import numpy as np
import pytest
import torch
from other_device import OtherDevice
from PIL import Image
from torch import nn

from cnnlib import create_model, data
from cnnlib.classify import classify, export, load_classifier, main
from cnnlib.train import Recipe, fit, load_checkpoint, save_checkpoint
from cnnlib.train.checkpoint import PARTS

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 230)}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Noisy photographs of three colours, in class folders."""
    root, draw = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for k in range(10):
            pixels = (colour + draw.normal(0, 25, (40, 50, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{k}.png")
    return root


@pytest.fixture(scope="module")
def run(photographs, tmp_path_factory):
    """A checkpoint of `fit`, trained on them."""
    checkpoint = tmp_path_factory.mktemp("runs") / "run.pt"
    recipe = Recipe(model="resnet20", model_args={"num_classes": 3}, data=f"folder:{photographs}", image_size=16,
                    epochs=6, batch_size=8,
                    lr=0.05, label_smoothing=0.3)  # so that no probability is near 1
    rows = list(fit(recipe, checkpoint=checkpoint))
    assert rows[-1]["test_accuracy"] == 100
    return checkpoint


class Undecided(nn.Module):
    """Its way depends on the values that it sees."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


def known(state, **changes):
    return {**{part: state[part] for part in (*PARTS, "classifier")}, **changes}


def test_photographs_get_their_names(run, photographs):
    files = [photographs / name / "0.png" for name in COLOURS]
    answers = classify(run, files)
    assert [answer[0][0] for answer in answers] == list(COLOURS)
    for answer in answers:
        assert len(answer) == 3 and sum(share for _, share in answer) == pytest.approx(1, abs=1e-5)
        assert [share for _, share in answer] == sorted((share for _, share in answer), reverse=True)
    [[(name, share)]] = classify(run, str(files[1]), top=1)
    assert (name, share) == (answers[1][0][0], pytest.approx(answers[1][0][1], rel=1e-4)) and classify(run, []) == []
    assert sorted(name for name, _ in answers[0]) == sorted(COLOURS)


def test_probabilities_are_those_of_the_test_in_training(run, photographs):
    """Every test image alone, from its file, has the loss that `fit` recorded for all of them together."""
    row = load_checkpoint(run)["rows"][-1]
    test = data.image_files(photographs)[1]
    logs = load_classifier(run).probabilities(test.files).log()
    assert nn.functional.nll_loss(logs, test.labels).item() == pytest.approx(row["test_loss"], rel=1e-3)


def test_the_middle_is_shown_where_training_showed_windows(photographs, tmp_path):
    recipe = Recipe(model="resnet20", model_args={"num_classes": 3}, data=f"folder:{photographs}", image_size=16,
                    epochs=1, batch_size=8,
                    windows=True, min_area=0.5)
    [row] = fit(recipe, checkpoint=tmp_path / "run.pt")
    test = data.image_files(photographs)[1]
    logs = load_classifier(tmp_path / "run.pt").probabilities(test.files).log()
    assert nn.functional.nll_loss(logs, test.labels).item() == pytest.approx(row["test_loss"], rel=1e-3)


def test_the_middle_of_photographs_of_files_is_shown(run, photographs, tmp_path):
    state = load_checkpoint(run)
    save_checkpoint(tmp_path / "files.pt", known(state, recipe={**state["recipe"], "data": "files:somewhere"}))
    whole, middle = (load_classifier(file).prepared(photographs / "red" / "0.png") for file in (run,
                                                                                                tmp_path / "files.pt"))
    mean, std = (torch.tensor(state["classifier"][name]).view(-1, 1, 1) for name in ("mean", "std"))
    with Image.open(photographs / "red" / "0.png") as image:
        assert torch.allclose(whole, (data.ImageFiles.square(16)(image) / 255 - mean) / std)
        assert torch.allclose(middle, (data.ImageFiles.centre(16)(image) / 255 - mean) / std)
    assert not torch.allclose(whole, middle)


def test_the_averaged_weights_are_what_answers(run, photographs, tmp_path):
    state = load_checkpoint(run)
    other = {key: value + 0.1 if value.is_floating_point() else value for key, value in state["model"].items()}
    save_checkpoint(tmp_path / "averaged.pt", known(state, average=state["model"], model=other))
    file = photographs / "red" / "0.png"
    assert classify(tmp_path / "averaged.pt", [file]) == classify(run, [file])


def test_what_a_checkpoint_does_not_say_is_asked_for(run, photographs, tmp_path):
    state = load_checkpoint(run)
    old = {part: state[part] for part in PARTS}
    save_checkpoint(tmp_path / "old.pt", old)
    file = photographs / "blue" / "3.png"
    with pytest.raises(ValueError, match=r"old.pt does not say classes, image_size, mean, std.*pass classes=\.\.\., "
                                         r"image_size="):
        classify(tmp_path / "old.pt", [file])
    told = {name: state["classifier"][name] for name in ("classes", "image_size", "mean", "std")}
    assert classify(tmp_path / "old.pt", [file], **told) == classify(run, [file])
    with pytest.raises(ValueError, match="old.pt does not say classes:|old.pt does not say classes"):
        classify(tmp_path / "old.pt", [file], **{**told, "classes": None})
    with pytest.raises(ValueError, match="run.pt holds other weights than 'resnet20' with 2 classes has"):
        classify(run, [file], classes=("a", "b"))
    with pytest.raises(ValueError, match=r"classes=\['a', 'a', 'b'\]: at least one, each once"):
        classify(run, [file], classes=("a", "a", "b"))
    with pytest.raises(ValueError, match=r"mean=\[0.5\]"):
        classify(run, [file], mean=(0.5,))
    with pytest.raises(ValueError, match="top=0"):
        classify(run, [file], top=0)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        classify(tmp_path / "none.pt", [file])


def test_a_network_of_ones_own(run, photographs, tmp_path):
    torch.manual_seed(0)
    own = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    state = load_checkpoint(run)
    save_checkpoint(tmp_path / "own.pt", known(state, model=own.state_dict()))
    file = photographs / "green" / "0.png"
    with pytest.raises(ValueError, match="own.pt holds other weights .*pass model="):
        classify(tmp_path / "own.pt", [file])
    twin = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    classifier = load_classifier(tmp_path / "own.pt", model=twin)
    with torch.no_grad():
        expected = own(classifier.prepared(file)[None]).softmax(1)
    assert torch.allclose(classifier.probabilities([file]), expected)


def test_a_classifier_on_another_device(run, photographs):
    files = [photographs / name / "2.png" for name in COLOURS]
    here = load_classifier(run).probabilities(files)
    with OtherDevice() as other:
        classifier = load_classifier(run, device=other.device)
        assert other.has(classifier.model)
        found = classifier.probabilities(files)
        assert not other.has(found)
    torch.testing.assert_close(found, here)


def test_unreadable_photographs_are_named(run, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="broken.jpg cannot be read"):
        classify(run, [tmp_path / "broken.jpg"])
    with pytest.raises(FileNotFoundError, match="there is no file .*gone.jpg"):
        classify(run, [tmp_path / "gone.jpg"])


def test_command_line(run, photographs, tmp_path, capsys):
    main([str(run), str(photographs / "red" / "1.png"), str(photographs / "blue" / "1.png"), "--top", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and lines[0].endswith("1.png")
    assert lines[1].endswith("%  red") and lines[4].endswith("%  blue")
    main([str(run), "--export", str(tmp_path / "run.pt2")])
    assert (tmp_path / "run.pt2").exists() and "run.pt2" in capsys.readouterr().out
    for arguments in ([str(run)], [str(run), "nothing.jpg"], [str(tmp_path / "no.pt"), "x.jpg"], [str(run), "--export",
                                                                                                  "run.txt"]):
        with pytest.raises(SystemExit, match="^error: "):
            main(arguments)


@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
def test_exported_answers_are_equal_for_every_batch_size(run, tmp_path, ending):
    classifier, path = load_classifier(run), tmp_path / f"run{ending}"
    assert export(run, path) == path
    expected = {"classes": sorted(COLOURS), "image_size": 16, "mean": list(classifier.mean),
                "std": list(classifier.std),
                "library": classifier.library}
    if ending == ".onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(path)
        told = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()
                if name in expected}
        assert list(tmp_path.iterdir()) == [path]  # weights inside

        def answer(images):
            return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
    else:
        files = {"classifier.json": ""}
        answer = torch.export.load(path, extra_files=files).module()
        told = json.loads(files["classifier.json"])
    assert told == expected
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            torch.testing.assert_close(answer(images), classifier.model(images), atol=1e-4, rtol=1e-4)


def test_export_of_a_network_asks_for_what_it_cannot_know(tmp_path):
    model = create_model("squeezenet_cifar", num_classes=2).train()
    with pytest.raises(ValueError, match="does not say classes, mean, std"):
        export(model, tmp_path / "x.pt2", image_size=32)
    with pytest.raises(ValueError, match="x.pth must end in .onnx or .pt2"):
        export(model, tmp_path / "x.pth")
    path = export(model, tmp_path / "x.pt2", image_size=32, classes=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert model.training
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(path).module()(images), model.eval()(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("build, told, words", [
    (lambda: create_model("lenet5"), {}, r"LeNet5 does not take images of shape \(N, 3, 32, 32\): .*1 channels"),
    (lambda: create_model("squeezenet_cifar"), {}, r"SqueezeNet makes \(2, 10\) of 2 images .* each of 2 classes"),
    (lambda: create_model("vgg11_cifar", num_classes=2), {"image_size": 16}, r"VGG does not take images of shape "
                                                                            r"\(N, 3, 16, 16\): .*at least 32x32"),
    (lambda: nn.Sequential(Undecided(), nn.Flatten(), nn.Linear(3072, 2)), {}, r"Sequential cannot be exported from images of shape \(2, 3, 32, 32\): "),
])
@pytest.mark.parametrize("ending", [pytest.param(".onnx", marks=pytest.mark.slow), ".pt2"])
def test_what_cannot_be_exported_is_named_and_nothing_is_written(tmp_path, build, told, words, ending):
    known = {"image_size": 32, "classes": ("a", "b"), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    if ending == ".onnx":
        pytest.importorskip("onnxscript")
    with pytest.raises(ValueError, match=words):
        export(build(), tmp_path / f"x{ending}", **{**known, **told})
    assert not list(tmp_path.iterdir())
