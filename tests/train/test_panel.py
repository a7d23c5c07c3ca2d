"""What a panel of teachers says of a picture: map, doubt and meaning, and how much of it a cache keeps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pupils import Brightness

from endolux.errors import InputError, ModelError
from endolux.losses import assign, canonical, fit_prototypes, reliable, spatial, spectral, whiten
from endolux.models import create
from endolux.models.teachers import NetworkTeacher
from endolux.train.knowledge import KnowledgeCache
from endolux.train.knowledge_codec import Knowledge, encode
from endolux.train.panel import DOUBT, NO_LIMIT, SEMANTIC, Meaning, Panel, differing, identity, tokens
from endolux.train.prototype_files import fitted_on
from endolux.train.recipe_distillation import Agreement, Semantic, Trinity, Validity
from endolux.train.trinity_terms import TrinityTerms
from endolux.types import DepthKind

ALL = Validity(field=False, speculars=False, reliable=1.0)


class Slope(Brightness):
    """Depth that grows to the right in every picture, mirrored or not; ``middle`` is where it is 10."""

    def __init__(self, sha256: str = "0" * 64, kind: DepthKind = DepthKind.METRIC, power: float = 1.0) -> None:
        super().__init__(sha256, kind)
        self.power = power

    def predict(self, image, *, size, features=()):
        answer = super().predict(image, size=size, features=features)
        answer.map = np.tile((1 + np.arange(size[0], dtype=np.float32)) ** self.power, (size[1], 1))
        return answer


def picture(seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(60, 150, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(small, (96, 64), interpolation=cv2.INTER_CUBIC)


def test_the_map_is_the_first_teachers_without_border_and_highlights() -> None:
    image = picture()
    image[:, :24] = image[:, -24:] = 0
    image[30:34, 50:54] = 255
    teacher = Brightness()
    plain = Panel(teacher, mode="affine", mask=ALL).predict(image).map
    assert np.isfinite(plain).all()
    seen = Panel(teacher, mode="affine", mask=Validity(reliable=1.0)).predict(image).map
    known = np.isfinite(seen)
    assert (seen[known] == plain[known]).all()
    assert not known[:, :22].any()
    assert not known[:, -22:].any()
    # Four pixels and three around.
    assert not known[27:37, 47:57].any()
    assert known[24, 44]
    assert known[:, 26:70].mean() > 0.9
    assert teacher.asked == 2


def test_a_teacher_that_contradicts_itself_is_doubted_like_the_loss_says() -> None:
    image = picture()
    teacher = Slope()
    panel = Panel(teacher, mode="scale", mask=Validity(field=False, speculars=False, reliable=0.9))
    assert panel.feature_names() == {DOUBT: 1}
    answer = panel.predict(image, features=[DOUBT])
    assert teacher.asked == 2
    doubt = answer.features[DOUBT]
    assert doubt.shape == (1, 16, 24)
    # |log z(x) - log z(w - 1 - x)| is largest at both sides and 0 in the middle.
    assert doubt[0, 8, 0] > 1 > doubt[0, 8, 4]
    assert doubt[0, 8, -1] > 1 > doubt[0, 8, -5]
    inverse = torch.from_numpy(answer.knowledge())[None, None]
    believed = reliable(inverse, inverse)[0, 0].numpy()
    full = differing(answer.knowledge(), answer.knowledge()[:, ::-1], np.ones((64, 96), bool), mode="scale", share=0.9)
    # A quantile is between two pixels, and the loss takes the lower one: at most a column at either side.
    assert (believed & (full > 1)).sum() == 0
    assert (~believed & (full <= 1)).sum() <= 2 * 64
    # One that says the same is believed everywhere.
    even = Panel(Brightness(), mode="affine", mask=Validity(field=False, speculars=False))
    assert float(even.predict(image, features=[DOUBT]).features[DOUBT].max()) == 0.0


@pytest.mark.parametrize("rule", [Agreement(limit=0.3), Agreement(share=0.5)])
def test_two_teachers_agree_where_they_say_the_same_up_to_a_factor(rule: Agreement) -> None:
    image, first, second = picture(), Slope(), Slope("1" * 64, power=1.5)
    panel = Panel(first, mode="scale", mask=ALL, second=second, agreement=rule)
    answer = panel.predict(image, features=[DOUBT])
    assert (first.asked, second.asked) == (1, 1)
    x = np.log1p(np.arange(96))
    apart = np.abs(0.5 * (x - np.median(x)))
    accepted = 0.3 if rule.limit is not None else np.quantile(apart, 0.5)
    expected = np.minimum(apart / accepted, 2.0).reshape(24, 4).mean(axis=1)
    np.testing.assert_allclose(answer.features[DOUBT][0], np.tile(expected, (16, 1)), atol=0.06)
    assert panel.sha256 not in (first.sha256, second.sha256)
    same = Panel(first, mode="scale", mask=ALL, second=Slope("2" * 64), agreement=rule)
    assert float(same.predict(image, features=[DOUBT]).features[DOUBT].max()) == 0.0
    # A disparity with an unknown shift agrees with the depth that it is the inverse of.
    shifted = Slope("3" * 64, DepthKind.RELATIVE_DISPARITY, power=-1.0)
    mixed = Panel(first, mode="scale", mask=ALL, second=shifted, agreement=Agreement(limit=0.3))
    assert float(mixed.predict(image, features=[DOUBT]).features[DOUBT].max()) < 1e-3


def test_what_the_second_teacher_does_not_know_is_doubted() -> None:
    first, second = np.ones((4, 6), np.float32), np.ones((4, 6), np.float32)
    second[0], second[1] = np.nan, -1.0
    valid = np.ones((4, 6), bool)
    valid[:, 0] = False
    scale = differing(first, second, valid, mode="scale", share=0.9)
    assert (scale[:2, 1:] == 2).all()
    assert (scale[2:] == 0).all()
    assert (scale[:, 0] == 0).all()
    assert (differing(first, np.full_like(first, np.nan), valid, mode="affine", limit=1.0)[:, 1:] == 2).all()


def test_identities_differ_with_everything_that_decides(tmp_path: Path) -> None:
    first = Slope()
    panels = [
        Panel(first, mode="scale", mask=ALL),
        Panel(first, mode="affine", mask=ALL),
        Panel(first, mode="scale", mask=Validity()),
        Panel(first, mode="scale", mask=ALL, second=Slope("1" * 64), agreement=Agreement(share=0.9)),
        Panel(first, mode="scale", mask=ALL, second=Slope("1" * 64), agreement=Agreement(share=0.8)),
        Panel(first, mode="scale", mask=ALL, second=Slope("2" * 64), agreement=Agreement(share=0.8)),
        Panel(Slope("1" * 64), mode="scale", mask=ALL),
    ]
    hashes = [
        KnowledgeCache(tmp_path, panel, size=(96, 64), features=tuple(panel.feature_names())).sha256 for panel in panels
    ]
    assert len(set(hashes)) == len(panels)


def meaning(teacher: NetworkTeacher, images: list[np.ndarray], grid: tuple[int, int]) -> Meaning:
    rows = [
        tokens(teacher.predict(image, features=["stage3"]).features["stage3"], grid).flatten(1).T for image in images
    ]
    fitted = fit_prototypes(torch.cat(rows), identity(teacher, "stage3"), dimensions=16, count=64)
    return Meaning(layer="stage3", prototypes=fitted, grid=grid, temperature=0.1)


def test_meanings_of_a_network_and_their_size_on_disk(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = NetworkTeacher(create("litenet-t"), name="t")
    generator = np.random.default_rng(0)
    images = [
        cv2.resize(generator.integers(0, 255, (12, 15, 3)).astype(np.uint8), (320, 256), interpolation=cv2.INTER_CUBIC)
        for _ in range(2)
    ]
    meant = meaning(teacher, images[:1], (16, 20))
    panel = Panel(teacher, mode="scale", mask=Validity(), meaning=meant)
    cache = KnowledgeCache(tmp_path, panel, size=(320, 256), features=(DOUBT, SEMANTIC), feature_grid=NO_LIMIT)
    stored = cache.get(images[1])
    exact = teacher.predict(images[1], features=["stage3"]).features["stage3"]
    fitted = meant.prototypes
    expected = assign(whiten(torch.from_numpy(exact)[None], fitted, (16, 20), teacher=fitted.teacher), fitted)[0]
    assert stored.features[SEMANTIC].shape == (64, 16, 20)
    np.testing.assert_allclose(stored.features[SEMANTIC], expected.numpy(), atol=1 / 254 + 1e-3)
    map_alone = encode(Knowledge(map=stored.map, features={DOUBT: stored.features[DOUBT]}))
    # The specification allows 41 kB for the assignments of a frame.
    assert cache.size().bytes - len(map_alone) < 41_000
    assert stored.features[DOUBT].shape == (1, 64, 80)


def test_prototypes_are_fitted_once_and_belong_to_their_teacher(tmp_path: Path) -> None:
    images = [picture(seed) for seed in range(6)]
    settings = Semantic(dimensions=3, prototypes=5, frames=4, seed=3)
    asked = []

    def fit(teacher: Brightness, settings: Semantic):
        found = fitted_on(teacher, "colours", settings, folder=tmp_path, count=6, image=images.__getitem__, grid=(4, 6))
        asked.append(teacher.asked)
        return found

    (first, path), (again, same) = fit(Brightness(), settings), fit(Brightness(), settings)
    assert asked == [4, 0]
    assert path == same
    assert torch.equal(first.centres, again.centres)
    others = [
        fit(Brightness("1" * 64), settings)[1],
        fit(Brightness(), settings.model_copy(update={"seed": 4}))[1],
        fit(Brightness(), settings.model_copy(update={"prototypes": 6}))[1],
    ]
    assert len({path, *others}) == 4
    # Other prototypes of the same features ask the teacher no more than about the new pictures.
    assert asked[2] == 4
    assert asked[3] <= 3
    assert asked[4] == 0
    with pytest.raises(ModelError) as caught:
        Panel(
            Brightness("1" * 64),
            mode="affine",
            mask=ALL,
            meaning=Meaning(layer="colours", prototypes=first, grid=(4, 6), temperature=0.1),
        )
    assert caught.value.error_id == "loss.prototypes"


def test_black_pictures_are_an_answer_and_broken_teachers_are_none(tmp_path: Path) -> None:
    panel = Panel(Brightness(), mode="affine", mask=Validity())
    cache = KnowledgeCache(tmp_path, panel, size=(96, 64), features=(DOUBT,), feature_grid=NO_LIMIT)
    known = cache.get(np.zeros((64, 96, 3), np.uint8))
    assert not np.isfinite(known.map).any()
    assert np.isfinite(known.features[DOUBT]).all()
    with pytest.raises(InputError) as caught:
        Panel(Brightness(hole=64), mode="affine", mask=ALL).predict(picture())
    assert caught.value.error_id == "knowledge.not-finite"


def test_the_terms_follow_their_settings() -> None:
    generator = torch.Generator().manual_seed(0)
    disparity = torch.rand(2, 1, 64, 64, generator=generator) + 0.5
    teacher = torch.rand(2, 1, 64, 64, generator=generator) + 0.5
    mask = torch.ones_like(disparity, dtype=torch.bool)
    mask[..., :9, :] = False

    def found(**settings: object) -> dict[str, torch.Tensor]:
        return TrinityTerms(Trinity(**settings), settings.get("mode", "scale"))((disparity,), teacher, mask)

    windows = [canonical(values, mask, windows=4) for values in (disparity, teacher)]
    local = found(windows=4, keep=0.5)
    torch.testing.assert_close(local["spatial"], spatial(*windows, mask, keep=0.5))
    assert not torch.isclose(local["spatial"], found(keep=0.5)["spatial"])
    torch.testing.assert_close(local["gradient"], found()["gradient"])
    maps = [canonical(values, mask) for values in (disparity, teacher)]
    for form, options in (("amplitude", {"form": "amplitude"}), ("wavelet", {"transform": "haar"})):
        torch.testing.assert_close(found(spectral_form=form)["spectral"], spectral(*maps, mask, **options))
    shifted = TrinityTerms(Trinity(), "affine")((3.7 * teacher + 0.02,), teacher, mask)
    assert max(float(term) for term in shifted.values()) < 1e-4
    assert float(found()["spatial"]) > 0.01
    nothing = TrinityTerms(Trinity(weight=0.0), "scale")((disparity,), teacher, mask)
    assert all(float(term) == 0 for term in nothing.values())
