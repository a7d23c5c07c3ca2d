"""The task of LiteNet: what the terms add up to, when they come in, what is refused, and what a resumed run keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pupils import Brightness
from runs import SMALL as TINY
from shards import write_shard

from endolux.errors import ModelError, UsageError
from endolux.losses import canonical_pair, full_size, gradient, spatial, spectral
from endolux.losses.canonical import canonical
from endolux.losses.smoothness import disparity_smoothness
from endolux.losses.spectral import BAND_WEIGHTS, band_schedule
from endolux.models import create
from endolux.train.balance import TERMS, Balance, gradient_norm, last_convolution
from endolux.train.checkpoints import read_weights
from endolux.train.engine import fit
from endolux.train.recipe import Recipe, load_recipe
from endolux.train.task import Batch, Progress, Start
from endolux.train.tasks import build_task
from endolux.train.tasks.trinity import TrinityTask, positive_ratio
from endolux.types import DepthKind

STUDENT = f"model={{name: repdepth, config: {TINY}}}"
LITENET = "model={name: litenet-t}"
SMALL = [STUDENT, "data.size=96x64", "batch=4", "precision=fp32", "device=cpu", "threads=1"]
FEW = ["distillation.semantic.dimensions=3", "distillation.semantic.prototypes=6", "distillation.semantic.frames=4"]
NOW = ["distillation.trinity.release.unit=none"]


class Metric(Brightness):
    """Depth from brightness, so that no shift is unknown; ``bias`` makes it say other things of mirrored pictures."""

    def __init__(self, sha256: str = "0" * 64, bias: float = 0.0, kind: DepthKind = DepthKind.METRIC) -> None:
        super().__init__(sha256, kind)
        self.bias = bias

    def predict(self, image, *, size, features=()):
        answer = super().predict(image, size=size, features=features)
        ramp = 1 + self.bias * np.linspace(0, 1, size[0], dtype=np.float32) ** 2
        answer.map = (answer.map if self.kind is DepthKind.RELATIVE_DISPARITY else 3000 / answer.map) * ramp
        return answer


def recipe(*changes: str, name: str = "litenet") -> Recipe:
    return load_recipe(name, ["teacher.model=x", "log_every=1", "epochs=null", "steps=4", *SMALL, *FEW, *changes])


def task(*changes: str, name: str = "litenet", teacher=None, second=None) -> TrinityTask:
    chosen = recipe(*changes, name=name)
    torch.manual_seed(0)
    assert chosen.distillation is not None
    return TrinityTask(
        create(chosen.model.name, **chosen.model.config),
        teacher or Metric(),
        loss=chosen.loss,
        distillation=chosen.distillation,
        source=chosen.teacher,
        second=second,
    )


def pictures(count: int = 6, seed: int = 0, size: tuple[int, int] = (96, 64)) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    waves = [np.sin(x / generator.uniform(4, 20) + y / generator.uniform(4, 20)) for _ in range(count * 3)]
    return [(110 + 60 * np.stack(waves[3 * i : 3 * i + 3], -1)).astype(np.uint8) for i in range(count)]


def start(output: Path, images: list[np.ndarray], told: list | None = None) -> Start:
    return Start(
        output=output, count=len(images), image=images.__getitem__, size=(96, 64), wanted=1000, part=(0, 1),
        tell=(told if told is not None else []).append,
    )  # fmt: skip


def tensors(made: TrinityTask, folder: Path, count: int = 2, depth: float = 20.0) -> dict[str, torch.Tensor]:
    images = pictures(6)
    made.begin(start(folder / "run", images))
    extras = [made.extras(image, "") for image in images[:count]]
    batch = Batch(
        images=np.stack(images[:count]),
        depths=np.full((count, 64, 96), depth, np.float32) * (1 + np.arange(96, dtype=np.float32) / 96),
        extras={name: np.stack([each[name] for each in extras]) for name in extras[0]},
    )
    return made.prepare(batch, torch.device("cpu"))


@pytest.mark.parametrize(("name", "form"), [("litenet", "energy"), ("litenet-labels", "wavelet")])
def test_the_total_is_that_of_the_formula(tmp_path: Path, name: str, form: str) -> None:
    made = task(
        f"distillation.trinity.spectral_form={form}", "distillation.trinity.weight=0.7", LITENET, *NOW, name=name
    )
    network = made.networks["network"].eval()
    given = tensors(made, tmp_path)
    given["teacher"][0, :, :20] = float("nan")
    given["mask"] = torch.isfinite(given["teacher"])
    made.advance(Progress(step=0, steps=4, steps_per_epoch=2))
    with torch.no_grad():
        parts = made.updates()[0].loss(given)
        outputs = full_size(network.disparities(given["image"]))
        assert len(outputs) == 3
    student, taught, valid = canonical_pair(outputs[0], given["teacher"], given["mask"])
    sides = [canonical(output, valid) for output in outputs[1:]]
    torch.testing.assert_close(parts["spatial"], spatial([student, *sides], taught, valid))
    torch.testing.assert_close(parts["gradient"], gradient(student, taught, valid))
    transform = "haar" if form == "wavelet" else "fourier"
    torch.testing.assert_close(parts["spectral"], spectral(student, taught, valid, transform=transform))
    smooth = disparity_smoothness(outputs[0], given["image"])
    output_terms = parts["spatial"] + 0.5 * parts["gradient"] + 0.1 * parts["spectral"]
    expected = 0.7 * output_terms + 0.1 * parts["semantic"] + 0.001 * smooth
    if name == "litenet-labels":
        expected = expected + parts["silog"] + 0.1 * parts["anchor"]
        assert float(parts["labelled"]) == 1.0
    torch.testing.assert_close(parts["total"], expected)
    assert float(parts["semantic"]) > 0.1
    assert float(parts["valid"]) == pytest.approx(float(given["mask"].float().mean()))


def test_a_student_that_agrees_up_to_a_factor_has_nothing_to_learn(tmp_path: Path) -> None:
    made = task("distillation.semantic.weight=0", "distillation.smooth=0", *NOW)
    made.networks["network"].eval()
    given = tensors(made, tmp_path)
    with torch.no_grad():
        given["teacher"] = 7.0 * made.networks["network"].disparities(given["image"])[0]
        outputs = [given["teacher"] / 7.0]
    made.networks["network"].with_disparities = lambda *_: (tuple(outputs), {})
    made.advance(Progress(step=0, steps=4, steps_per_epoch=2))
    assert float(made.updates()[0].loss(given)["total"]) < 1e-5


def test_terms_come_in_coarse_to_fine(tmp_path: Path) -> None:
    made = task("distillation.trinity.release={unit: step, period: 10}", "distillation.semantic.weight=0")
    made.networks["network"].eval()
    given = tensors(made, tmp_path)
    seen = {}
    for step in (0, 9, 10, 15, 34, 35):
        made.advance(Progress(step=step, steps=100, steps_per_epoch=7))
        with torch.no_grad():
            seen[step] = {name: float(value) for name, value in made.updates()[0].loss(given).items()}
        assert seen[step]["spatial"] > 0
        outputs = full_size(made.networks["network"].disparities(given["image"]))
        student, taught, valid = canonical_pair(outputs[0], given["teacher"], given["mask"])
        expected = float(spectral(student.detach(), taught, valid, weights=band_schedule(step / 10)))
        assert seen[step]["spectral"] == pytest.approx(expected, rel=1e-5)
    assert seen[0]["gradient"] == seen[9]["gradient"] == seen[9]["spectral"] == 0.0
    assert seen[10]["gradient"] > 0
    assert 0 < seen[10]["spectral"] < seen[15]["spectral"] < seen[35]["spectral"]
    assert sum(band_schedule(3.5)) == sum(BAND_WEIGHTS)


def test_balance_gives_the_stated_norms_once(tmp_path: Path) -> None:
    made = task("distillation.trinity.balance_step=3", LITENET)
    network = made.networks["network"].eval()
    given = tensors(made, tmp_path)
    balance = made.networks["balance"]
    before = balance.weights()
    for step in (0, 2):
        made.advance(Progress(step=step, steps=9, steps_per_epoch=100))
        made.updates()[0].loss(given)["total"].backward()
    assert balance.weights() == before
    made.advance(Progress(step=3, steps=9, steps_per_epoch=100))
    made.updates()[0].loss(given)["total"].backward()
    weights = balance.weights()
    assert balance.done
    assert weights["spatial"] == 1.0
    disparities, maps = network.with_disparities(given["image"], ["stage3"])
    place = last_convolution(disparities[0])
    assert any(place is parameter for parameter in network.parameters())
    # Terms that the schedule has not released are balanced as they will be.
    terms = made._terms(disparities, given["teacher"], given["mask"], everything=True)
    norms = {name: weights[name] * gradient_norm(term, place) for name, term in terms.items()}
    assert norms["gradient"] / norms["spatial"] == pytest.approx(0.5, rel=1e-3)
    assert norms["spectral"] / norms["spatial"] == pytest.approx(0.25, rel=1e-3)
    semantic = made.networks["alignment"](maps["stage3"], given["semantic"], given["mask"])
    ratio = gradient_norm(semantic, maps["stage3"]) / gradient_norm(terms["spatial"], maps["stage3"])
    assert weights["semantic"] * ratio == pytest.approx(0.25, rel=1e-3)
    made.advance(Progress(step=4, steps=9, steps_per_epoch=100))
    made.updates()[0].loss({**given, "image": given["image"].flip(-1)})
    assert balance.weights() == weights


def test_balance_leaves_terms_without_a_gradient_alone() -> None:
    weights = {"spatial": 2.0, "gradient": 0.5, "spectral": 0.0, "semantic": 0.1}
    balance = Balance(weights)
    balance.settle({"gradient": (4.0, 1.0), "spectral": (4.0, 1.0)}, (1.0, 0.5, 0.25, 0.25))
    assert balance.weights() == pytest.approx({"spatial": 2.0, "gradient": 0.25, "spectral": 0.0, "semantic": 0.1})
    assert set(weights) == set(TERMS)
    rank = torch.nn.Linear(3, 1)
    output = rank(torch.ones(2, 3))
    assert last_convolution(output) is output


@pytest.mark.parametrize("kind", ["prototypes", "cwd", "affinity", "moments", "image"])
def test_every_alignment_reaches_the_stem_and_the_projector(tmp_path: Path, kind: str) -> None:
    made = task(f"distillation.semantic.kind={kind}", "distillation.trinity.weight=0", "distillation.smooth=0")
    given = tensors(made, tmp_path)
    (update,) = made.updates()
    assert update.networks == ("network", "alignment")
    assert given["semantic"].shape[1] == (6 if kind in ("prototypes", "image") else 3)
    parts = update.loss(given)
    parts["total"].backward()
    stem = next(iter(made.networks["network"].parameters()))
    assert stem.grad is not None
    assert float(stem.grad.abs().sum()) > 0
    assert all(float(p.grad.abs().sum()) > 0 for p in made.networks["alignment"].projector.parameters())


@pytest.mark.parametrize("student", ["leve-mobilenetv3", "litenet-t"])
def test_any_network_is_a_student(tmp_path: Path, student: str) -> None:
    loss = "loss={kind: leve}" if student.startswith("leve") else "loss={kind: log-depth}"
    made = task(f"model={{name: {student}}}", loss, *NOW, name="litenet-labels")
    given = tensors(made, tmp_path)
    made.advance(Progress(step=0, steps=1, steps_per_epoch=1))
    parts = made.updates()[0].loss(given)
    parts["total"].backward()
    grads = [p.grad for p in made.networks["network"].parameters() if p.grad is not None]
    assert grads
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert float(parts["spatial"].detach()) > 0


def test_a_ratio_below_one_still_has_a_gradient() -> None:
    ratio = torch.tensor([-50.0, -1.0, 0.99, 1.0, 1.01, 30.0], requires_grad=True)
    value = positive_ratio(ratio)
    value.sum().backward()
    assert bool((value > 0).all())
    assert bool((value.diff() > 0).all())
    assert bool((ratio.grad[1:] > 0.1).all())


def test_empty_pictures_are_counted_and_a_training_of_them_refused(tmp_path: Path) -> None:
    made = task(*NOW)
    given = tensors(made, tmp_path, count=3)
    made.advance(Progress(step=0, steps=1, steps_per_epoch=1))
    given["mask"][1] = False
    parts = made.updates()[0].loss(given)
    assert float(parts["empty"]) == 1.0
    assert float(made._usable(given)) == 2.0
    two = {name: value[[0, 2]] for name, value in given.items()}
    made.networks["network"].eval()
    with torch.no_grad():
        together, apart = made.updates()[0].loss(given), made.updates()[0].loss(two)
    for name in ("spatial", "gradient", "spectral", "semantic"):
        torch.testing.assert_close(together[name], apart[name])
    given["mask"][:] = False
    for _ in range(19):
        parts = made.updates()[0].loss(given)
        parts["total"].backward()
        assert float(parts["spatial"]) == float(parts["semantic"]) == 0.0
    assert all(torch.isfinite(p.grad).all() for p in made.networks["network"].parameters() if p.grad is not None)
    with pytest.raises(UsageError) as caught:
        made.updates()[0].loss(given)
    assert caught.value.error_id == "distillation.mask"


def test_a_mask_of_specks_leaves_only_what_looks_at_pixels(tmp_path: Path) -> None:
    made = task(*NOW)
    given = tensors(made, tmp_path)
    given["mask"][:] = False
    given["mask"][..., ::4, ::4] = True
    made.advance(Progress(step=0, steps=1, steps_per_epoch=1))
    parts = made.updates()[0].loss(given)
    parts["total"].backward()
    assert float(parts["spatial"].detach()) > 0
    assert float(parts["gradient"]) == float(parts["spectral"]) == float(parts["semantic"]) == 0.0


def test_refusals() -> None:
    disparity = Metric(kind=DepthKind.RELATIVE_DISPARITY)
    mode, layer = "distillation.trinity.mode=", "distillation.semantic."
    for changes, teacher, words, error_id in (
        ([], disparity, "scale and shift", "recipe.mode"),
        ([mode + "scale"], disparity, "scale", "recipe.mode"),
        ([mode + "affine"], disparity, "base is none", "recipe.anchor"),
        ([mode + "affine"], Metric(), "base is none", "recipe.anchor"),
        ([layer + "teacher_layer=colors"], Metric(), "colors", "teacher.feature"),
        ([layer + "student_layer=stage33"], Metric(), "stage33", "model.feature"),
        (["distillation.trinity.weight=0", layer + "weight=0"], Metric(), "Nothing to learn", "recipe.distillation"),
        (["loss.kind=leve"], Metric(), "leve", "recipe.loss"),
    ):
        with pytest.raises(UsageError) as caught:
            task(*changes, teacher=teacher)
        assert caught.value.error_id == error_id
        assert words in caught.value.what
    assert task(mode + "affine", teacher=disparity, name="litenet-labels").mode == "affine"
    for changes, error_id in (
        (["teacher=null"], "recipe.teacher"),
        (["distillation.relation.weight=1"], "recipe.distillation"),
        (["distillation.feature.weight=1"], "recipe.distillation"),
    ):
        with pytest.raises(UsageError) as caught:
            build_task(recipe(*changes))
        assert caught.value.error_id == error_id
    for change in ("teacher.agreement={share: 0.5, limit: 0.1}", "teacher.agreement={}"):
        with pytest.raises(UsageError, match="either share or limit"):
            recipe(change)


def test_labels_alone_need_no_teacher() -> None:
    made = build_task(recipe("teacher=null", *(f"distillation.{n}.weight=0" for n in ("trinity", "semantic")),
                             name="litenet-labels"))  # fmt: skip
    assert set(made.networks) == {"network"}
    given = made.prepare(
        Batch(images=np.stack(pictures(2)), depths=np.zeros((2, 64, 96), np.float32)), torch.device("cpu")
    )
    for _ in range(19):
        made.updates()[0].loss(given)
    with pytest.raises(UsageError) as caught:
        made.updates()[0].loss(given)
    assert caught.value.error_id == "distillation.labels"


def test_video_is_a_base_and_an_anchor(tmp_path: Path) -> None:
    from clips import write_clip

    from endolux.train.tasks.video_losses import VideoLosses

    write_clip(tmp_path / "data" / "clip-0", shots=(6,), width=96, height=64)
    chosen = recipe(
        *VIDEO, "steps=2", "distillation.trinity.mode=affine", "distillation.trinity.release.unit=none",
        name="litenet-video",
    )  # fmt: skip
    torch.manual_seed(0)
    network = create(chosen.model.name, **chosen.model.config)
    made = TrinityTask(
        network,
        Metric(kind=DepthKind.RELATIVE_DISPARITY),
        loss=chosen.loss,
        distillation=chosen.distillation,
        source=chosen.teacher,
        video=VideoLosses.from_settings(chosen.video, depth_range=network.depth_range()),
    )
    last = fit(made, chosen, [tmp_path / "data"], tmp_path / "run")
    assert {path.stem for path in last.glob("*.safetensors")} >= {"network", "pose", "alignment", "balance"}
    lines = [json.loads(text) for text in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    parts = lines[0]
    weighed = 0.1 * (parts["spatial"] + 0.5 * parts["gradient"] + 0.1 * parts["spectral"]) + 0.1 * parts["semantic"]
    base = parts["reprojection"] + 1e-4 * parts["disparity_smoothness"]
    assert parts["total"] == pytest.approx(base + weighed + 0.001 * parts["smooth"], rel=1e-3)
    with pytest.raises(UsageError) as caught:
        build_task(recipe("video=null", "data.augmentation.kind=none", name="litenet-video"))
    assert caught.value.error_id == "recipe.video"


VIDEO = ("video.flow=false", "video.appearance=false", "video.pose.kind=convolutions")


def test_the_student_is_jittered_and_the_teacher_is_not(data: Path, tmp_path: Path) -> None:
    teacher = Metric()
    made = task("teacher.fill=lazy", "distillation.semantic.weight=0", "distillation.mask.reliable=1", teacher=teacher)
    fit(made, recipe("teacher.fill=lazy", "distillation.semantic.weight=0", "distillation.mask.reliable=1"),
        [data], tmp_path / "run")  # fmt: skip
    # Once a picture, although every step shows other views of it.
    assert teacher.asked <= 11


def trained(data: Path, output: Path, *changes: str, teacher=None, **options: object) -> Path:
    return fit(task(*changes, teacher=teacher or Metric(bias=0.3)), recipe(*changes), [data], output, **options)


def test_a_full_cache_asks_nobody_and_changes_nothing(data: Path, tmp_path: Path) -> None:
    first, second = Metric(bias=0.3), Metric(bias=0.3)
    a = trained(data, tmp_path / "a", teacher=first)
    # Four pictures for the prototypes, and every picture with its mirror image.
    assert first.asked == 4 + 2 * 11
    b = trained(data, tmp_path / "b", teacher=second)
    assert second.asked == 0
    assert (a / "network.safetensors").read_bytes() == (b / "network.safetensors").read_bytes()
    record = json.loads((tmp_path / "b" / "run.json").read_text())["sessions"][0]["task"]
    assert record["teacher_layer"] == "colours"
    assert record["student_layer"] == "stage3"
    assert len(record["prototypes_sha256"]) == 64


def test_an_interrupted_run_goes_on_to_the_byte(data: Path, tmp_path: Path) -> None:
    changes = ["steps=4", "checkpoint_every=1", "distillation.trinity.balance_step=1",
               "distillation.trinity.release={unit: share, period: 0.2}"]  # fmt: skip
    whole = trained(data, tmp_path / "whole", *changes)

    for at in (1, 2, 3):

        def stop(line: dict[str, object], at: int = at) -> None:
            if line.get("step") == at + 1:
                raise OSError("as if killed")

        with pytest.raises(OSError, match="as if killed"):
            trained(data, tmp_path / f"parts{at}", *changes, on_log=stop)
        if at == 3:
            # More pictures than when the prototypes were fitted: the run keeps its own.
            for path in (tmp_path / "knowledge" / "prototypes").iterdir():
                path.unlink()
        parts = trained(data, tmp_path / f"parts{at}", *changes, resume=True)
        for name in ("network", "alignment", "balance", "average", "state"):
            files = [folder / f"{name}.safetensors" for folder in (whole, parts)]
            assert files[0].read_bytes() == files[1].read_bytes(), (at, name)
    kept = read_weights(whole, "balance")
    assert int(kept["settled"]) == 1
    assert kept["values"].tolist()[1:] != [0.5, 0.1, 0.1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_run_goes_on_to_the_byte(data: Path, tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from endolux.train import checkpoints\n"
        "import test_trinity_task as t\n"
        "data, output = map(Path, sys.argv[1:])\n"
        "def child(die):\n"
        "    pid = os.fork()\n"
        "    if pid: return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        "    def kill(line):\n"
        "        if line.get('step') == die: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    try:\n"
        "        t.trained(data, output, *t.KILLED, resume=True, on_log=kill)\n"
        "        os._exit(0)\n"
        "    finally:\n"
        "        os._exit(1)\n"
        "print(child(2), child(-1))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(data), str(tmp_path / "killed")],
        capture_output=True, text=True, timeout=200, check=False, env={**os.environ, "PYTHONPATH": here},
    )  # fmt: skip
    assert done.stdout.split() == [str(-signal.SIGKILL), "0"], done.stderr
    whole = trained(data, tmp_path / "whole", *KILLED)
    last = tmp_path / "killed" / whole.name
    for path in sorted(whole.glob("*.safetensors")):
        assert path.read_bytes() == (last / path.name).read_bytes(), path.name


KILLED = ("steps=3", "checkpoint_every=1", "distillation.trinity.balance_step=1", *NOW)


def test_prototypes_of_another_teacher_are_refused(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path / "run", "steps=1")
    (kept,) = (tmp_path / "knowledge" / "prototypes").glob("*.safetensors")
    fitted = f"distillation.semantic.fitted={kept}"
    reused = trained(data, tmp_path / "reused", "steps=1", fitted)
    assert read_weights(reused, "alignment")["centres"].equal(
        read_weights(tmp_path / "run" / reused.name, "alignment")["centres"]
    )
    other = Metric("1" * 64)
    with pytest.raises(ModelError) as caught:
        trained(data, tmp_path / "other", "steps=1", fitted, teacher=other)
    assert caught.value.error_id == "loss.prototypes"
    assert other.asked == 0
    # A run goes on with its own prototypes, or not at all.
    made = task("steps=2", teacher=other)
    made.networks["alignment"].load_state_dict(read_weights(reused, "alignment"))
    with pytest.raises(ModelError) as changed:
        made.begin(start(tmp_path / "third" / "run", pictures()))
    assert changed.value.error_id == "loss.prototypes"
    with pytest.raises(UsageError) as numbers:
        trained(data, tmp_path / "numbers", "steps=1", fitted, "distillation.semantic.prototypes=5")
    assert numbers.value.error_id == "loss.setting"
    kept.write_bytes(b"no tensors")
    for path in (kept, tmp_path / "absent"):
        with pytest.raises(ModelError) as caught:
            trained(data, tmp_path / "damaged", "steps=1", f"distillation.semantic.fitted={path}")
        assert caught.value.error_id == "loss.prototypes"


def test_pictures_too_few_for_the_prototypes_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "shard-0", count=2)
    with pytest.raises(UsageError) as caught:
        trained(tmp_path / "data", tmp_path / "run", "distillation.semantic.dimensions=4")
    assert caught.value.error_id == "loss.setting"


@pytest.mark.parametrize("name", ["litenet", "litenet-labels", "litenet-video"])
def test_the_recipes_have_the_weights_of_the_specification(name: str) -> None:
    chosen = load_recipe(name)
    assert chosen.distillation is not None
    trinity, semantic = chosen.distillation.trinity, chosen.distillation.semantic
    assert (trinity.spatial, trinity.gradient, trinity.spectral, semantic.weight) == (1.0, 0.5, 0.1, 0.1)
    assert chosen.distillation.smooth == 0.001
    assert trinity.weight == (0.1 if name.endswith("video") else 1.0)
    assert (trinity.balance, trinity.balance_step) == ((1.0, 0.5, 0.25, 0.25), 500)
    assert load_recipe(name, ["teacher={model: a, second: {model: b}}"]).teacher.agreement.share == 0.9
    assert chosen.model.name == "litenet-m"


def test_the_exported_graph_knows_of_no_loss(tmp_path: Path) -> None:
    from endolux.export import inference_network, onnx_bytes

    weights, files = task().networks["network"].state_dict(), []
    off = ["distillation.trinity.weight=0", "distillation.semantic.weight=0"]
    for number, changes in enumerate((off, ["distillation.trinity.balance_step=0"])):
        made = task(*changes, *NOW, name="litenet-labels")
        if changes is not off:
            given = tensors(made, tmp_path / str(number))
            made.advance(Progress(step=0, steps=1, steps_per_epoch=1))
            made.updates()[0].loss(given)["total"].backward()
        exported = made.networks[made.exported]
        # Nothing that a loss brought is in the student: its weights fit, all of them.
        exported.load_state_dict(weights)
        files.append(onnx_bytes(inference_network(exported)))
    assert len(set(files)) == 1


def test_the_command_from_end_to_end(data: Path, tmp_path: Path) -> None:
    off = ["distillation.trinity.weight=0", "distillation.semantic.weight=0", "teacher=null", "steps=1"]
    fit(None, recipe(*off, name="litenet-labels"), [data], tmp_path / "teacher")
    changes = [*SMALL, *FEW, *NOW, "epochs=null", "steps=2", f"teacher.model={tmp_path / 'teacher'}"]
    arguments = ["train", "litenet", "--data", str(data), *changes, "-o", str(tmp_path / "student"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "endolux", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["checkpoint"]).is_dir()
    assert "Prototypes of 'teacher', layer stage3" in done.stderr
    lines = [json.loads(text) for text in (tmp_path / "student" / "log.jsonl").read_text().splitlines()]
    assert {"spatial", "gradient", "spectral", "semantic", "smooth", "valid", "empty"} <= lines[0].keys()


def test_the_command_refuses_in_three_lines(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from endolux.cli.root import run

    arguments = ["train", "litenet", "--data", str(data), *SMALL, "-o", str(tmp_path / "run")]
    for changes, code, error_id in (
        ([], 2, "recipe.teacher"),
        (["teacher.model=no-such"], 4, "teacher.unknown"),
        (["teacher.model=repdepth-colon"], 2, "teacher.feature"),
        (["distillation.trinity.spektral=1"], 2, "recipe.key"),
    ):
        assert run([*arguments, *changes]) == code
        lines = capfd.readouterr().err.splitlines()
        assert lines[0].startswith(f"error[{error_id}]"), lines
        assert len(lines) == 3
