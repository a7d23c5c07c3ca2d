"""What is minimised on snippets of video, and the networks beside the depth network that it takes.

Source: AF-SfMLearner (Shao et al., Medical Image Analysis 2022), DARES (Zeinoddin et al., 2024), EndoDAC (Cui et al.,
MICCAI 2024), Monodepth2 (Godard et al., ICCV 2019).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from endolux.errors import UsageError
from endolux.losses.appearance import refined_target, transform_constraint, transform_smoothness
from endolux.losses.photometric import auto_mask, minimum_reprojection, photometric_distance
from endolux.losses.smoothness import disparity_smoothness, edge_aware_smoothness
from endolux.losses.visibility import masked_mean, visibility
from endolux.losses.warp import resize, warp_by_depth, warp_by_flow
from endolux.models.motion import transformation
from endolux.models.pose_flow import PoseNetwork, joint_intrinsics
from endolux.train.odometry import translation_unit
from endolux.train.recipe import Video
from endolux.train.task import Tensors, Update
from endolux.train.video_networks import video_networks


class VideoLosses:
    """The two losses of a training on video: of optical flow (A), and of depth, motion and appearance (B).

    The networks see the pictures with changed colours; warps and losses use them as they are. In A only the optical
    flow is in training mode, in B everything else: BatchNorm statistics move only in networks that are trained.

    Args:
        settings: section of a recipe.
        pose: two pictures (source, target) to axis-angle and translation.
        flow: two pictures to flows, finest first; None without.
        appearance: registered source and target to changes of brightness, finest first; None without.
        intrinsics: head on the maps of ``pose``; None where they are known.
        unit: what a unit of translation is, in units of depth.

    Attributes:
        autocast: context for calls of networks; the task sets it to its own.

    Example:
        >>> from endolux.train.recipe import Video
        >>> losses = VideoLosses.from_settings(Video(appearance=False, flow=False, pose={"kind": "convolutions"}))
        >>> sorted(losses.networks()), losses.depth_networks, losses.flow_update()
        (['pose'], ('pose',), None)
    """

    def __init__(
        self,
        settings: Video,
        *,
        pose: nn.Module,
        flow: nn.Module | None = None,
        appearance: nn.Module | None = None,
        intrinsics: nn.Module | None = None,
        unit: float = 1.0,
    ) -> None:
        self._settings, self._unit = settings, unit
        self._pose, self._flow, self._appearance, self._intrinsics = pose, flow, appearance, intrinsics
        self.autocast: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext

    @classmethod
    def from_settings(cls, settings: Video, *, depth_range: tuple[float, float] = (0.1, 150.0)) -> VideoLosses:
        """Build the networks, and load what the section names.

        Args:
            settings: section of a recipe.
            depth_range: of the depth network; decides the unit of translation where the section does not.

        Raises:
            UsageError: ``recipe.video`` for sections that contradict each other.
            InputError, ModelError: weights that cannot be had.
        """
        networks = video_networks(settings)
        unit = translation_unit(settings.pose.unit, depth_range)
        return cls(
            settings,
            pose=networks["pose"],
            flow=networks.get("flow"),
            appearance=networks.get("appearance"),
            intrinsics=networks.get("intrinsics"),
            unit=unit,
        )

    def networks(self) -> dict[str, nn.Module]:
        """All of them, by the names that updates and checkpoints use."""
        every = {
            "pose": self._pose,
            "flow": self._flow,
            "appearance": self._appearance,
            "intrinsics": self._intrinsics,
        }
        return {name: network for name, network in every.items() if network is not None}

    @property
    def depth_networks(self) -> tuple[str, ...]:
        """Those that are trained together with the depth network."""
        return tuple(name for name in self.networks() if name != "flow")

    def flow_update(self) -> Update | None:
        """The update of the optical flow, which comes before that of depth; None without optical flow."""
        if self._flow is None:
            return None
        return Update(name="flow", networks=("flow",), loss=self.flow_losses, optimiser=self._settings.flow_optimiser)

    def flow_losses(self, tensors: Tensors) -> dict[str, Tensor]:
        """Loss A: registered sources against the target lit as they are.

        Args:
            tensors: ``image`` (with changed colours) and ``target`` N x 3 x H x W, ``neighbours`` and
                ``neighbours_seen`` N x F x 3 x H x W, as :func:`snippet_tensors` makes them.

        Returns:
            ``total`` and the unweighted ``registration`` and ``flow_smoothness``.
        """
        if self._flow is None:
            raise TypeError("there is no optical flow to train")
        tensors = snippet_tensors(tensors)
        settings, target = self._settings, tensors["target"]
        sources, seen = tensors["neighbours"].unbind(1), tensors["neighbours_seen"].unbind(1)
        registration = smoothness = target.new_zeros(())
        count = 0
        for source, source_seen in zip(sources, seen, strict=True):
            with self.autocast():
                flows = self._flow(source_seen, tensors["image"])[: settings.scales]
                back = self._flow(tensors["image"], source_seen)[0]
            visible = self._visible(back, target)
            finest = self._registered(source, flows[0])
            lit = self._lit(target, finest.detach(), visible, len(flows))
            for scale, flow in enumerate(flows):
                moved = finest if scale == 0 else self._registered(source, flow)
                distance = self._distance(moved, lit[scale].detach())
                registration = registration + masked_mean(distance, visible)
                picture = _shrunk(target, flow)
                smoothness = smoothness + edge_aware_smoothness(flow, picture) / 2**scale
                count += 1
        registration, smoothness = registration / count, smoothness / count
        return {
            "total": registration + settings.flow_smoothness * smoothness,
            "registration": registration.detach(),
            "flow_smoothness": smoothness.detach(),
        }

    def depth_losses(self, disparities: Sequence[Tensor], tensors: Tensors) -> dict[str, Tensor]:
        """Loss B: sources rebuilt through depth and motion against the target.

        Args:
            disparities: of ``image``, in 1 / unit of depth, finest first.
            tensors: as for :meth:`flow_losses`, with ``intrinsics`` N x 3 x 3.

        Returns:
            ``total`` and the unweighted ``reprojection``, ``disparity_smoothness`` and, with appearance flow,
            ``transform_constraint`` and ``transform_smoothness``; ``counted``, the share of pixels that take part.
        """
        tensors = snippet_tensors(tensors)
        settings, target = self._settings, tensors["target"]
        sources = tensors["neighbours"].unbind(1)
        scales = min(len(disparities), settings.scales)
        size = _size(target)
        motions, k = self.motions(tensors)
        explained = [
            self._explained(target, source, seen, tensors["image"], scales)
            for source, seen in zip(sources, tensors["neighbours_seen"].unbind(1), strict=True)
        ]
        unmoved = [self._distance(source, target) for source in sources] if settings.auto_mask else []
        zero = target.new_zeros(())
        parts = dict.fromkeys(("reprojection", "disparity_smoothness"), zero)
        if self._appearance is not None:
            parts |= dict.fromkeys(("transform_constraint", "transform_smoothness"), zero)
        counted = zero
        for scale in range(scales):
            depth = 1.0 / resize(disparities[scale].float(), size, align_corners=settings.align_corners)
            distances, masks = [], []
            for source, motion, (visible, lit, changes, registered) in zip(sources, motions, explained, strict=True):
                rebuilt, inside = warp_by_depth(source, depth, k, motion)
                distances.append(self._distance(rebuilt, lit[scale]))
                masks.append(visible * inside if settings.in_view else visible)
                if registered is not None and changes is not None:
                    parts["transform_constraint"] = parts["transform_constraint"] + transform_constraint(
                        lit[scale], registered[0], visible
                    ) / len(sources)
                    parts["transform_smoothness"] = parts["transform_smoothness"] + transform_smoothness(
                        changes[scale], target, registered[scale], visible
                    ) / len(sources)
            value, share = self._reprojection(distances, masks, unmoved)
            parts["reprojection"] = parts["reprojection"] + value
            counted = counted + share
            small = _shrunk(target, disparities[scale])
            smooth = disparity_smoothness(disparities[scale], small) / 2**scale
            parts["disparity_smoothness"] = parts["disparity_smoothness"] + smooth
        parts = {name: value / scales for name, value in parts.items()}
        total = parts["reprojection"] + settings.disparity_smoothness * parts["disparity_smoothness"]
        if self._appearance is not None:
            total = total + settings.transform_constraint * parts["transform_constraint"]
            total = total + settings.transform_smoothness * parts["transform_smoothness"]
        logged = {name: value.detach() for name, value in parts.items()}
        return {"total": total, **logged, "counted": (counted / scales).detach()}

    def motions(self, tensors: Tensors) -> tuple[list[Tensor], Tensor]:
        """The motion of each neighbour, N x 4 x 4, target-camera points to source-camera points, and K, N x 3 x 3."""
        tensors = snippet_tensors(tensors)
        found, matrices = [], []
        for seen in tensors["neighbours_seen"].unbind(1):
            with self.autocast():
                if self._intrinsics is not None and isinstance(self._pose, PoseNetwork):
                    axisangle, translation, maps = self._pose.with_features(seen, tensors["image"])
                    size = (seen.shape[-1], seen.shape[-2])
                    matrices.append(self._intrinsics(maps, size=size).float())
                else:
                    axisangle, translation = self._pose(seen, tensors["image"])
            reproduce = self._settings.pose.rotation == "reproduce"
            found.append(transformation(axisangle.float(), translation.float() * self._unit, reproduce=reproduce))
        if not matrices:
            return found, tensors["intrinsics"]
        return found, joint_intrinsics(matrices, reproduce=self._settings.intrinsics.joint == "last")

    def _explained(
        self, target: Tensor, source: Tensor, seen: Tensor, image: Tensor, scales: int
    ) -> tuple[Tensor, list[Tensor], list[Tensor] | None, list[Tensor] | None]:
        """Visibility, the target lit as the source at each scale, changes of brightness, registered sources."""
        if self._flow is None:
            return torch.ones_like(target[:, :1]), [target] * scales, None, None
        with evaluating(self._flow), self.autocast():
            flows = self._flow(seen, image)[:scales]
            back = self._flow(image, seen)[0]
        visible = self._visible(back, target)
        with torch.no_grad():
            registered = [self._registered(source, flow) for flow in flows]
        registered += [registered[-1]] * (scales - len(registered))
        if self._appearance is None:
            return visible, [target] * scales, None, registered
        with self.autocast():
            changes = list(self._appearance(registered[0], target))
        changes += [changes[-1]] * (scales - len(changes))
        full = [resize(c.float(), _size(target), align_corners=self._settings.align_corners) for c in changes]
        return visible, [refined_target(target, change, visible) for change in full[:scales]], full[:scales], registered

    def _lit(self, target: Tensor, registered: Tensor, visible: Tensor, scales: int) -> list[Tensor]:
        if self._appearance is None:
            return [target] * scales
        with evaluating(self._appearance), self.autocast():
            changes = list(self._appearance(registered, target))
        changes += [changes[-1]] * (scales - len(changes))
        full = [resize(c.float(), _size(target), align_corners=self._settings.align_corners) for c in changes]
        return [refined_target(target, change, visible) for change in full[:scales]]

    def _registered(self, source: Tensor, flow: Tensor) -> Tensor:
        flow = resize(flow.float(), _size(source), align_corners=self._settings.align_corners)
        return warp_by_flow(source, flow, align_corners=self._settings.flow_warp == "correct")

    def _visible(self, back: Tensor, like: Tensor) -> Tensor:
        flow = resize(back.detach().float(), _size(like), align_corners=self._settings.align_corners)
        return visibility(flow, threshold=self._settings.visible_above)

    def _distance(self, one: Tensor, other: Tensor) -> Tensor:
        return photometric_distance(
            one, other, kind=self._settings.photometric.kind, mode=self._settings.photometric.mode
        )

    def _reprojection(
        self, distances: list[Tensor], masks: list[Tensor], unmoved: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The mean over what counts, and its share of the pixels."""
        if self._settings.reprojection == "minimum":
            # What no source shows takes no part, and what only one shows is that one's.
            hidden = [torch.where(mask > 0, one, torch.inf) for one, mask in zip(distances, masks, strict=True)]
            smallest = minimum_reprojection(hidden)
            mask = torch.isfinite(smallest).to(smallest.dtype)
            if unmoved:
                mask = mask * auto_mask(smallest, minimum_reprojection(unmoved))
            return masked_mean(torch.where(mask > 0, smallest, 0.0), mask), mask.mean()
        if unmoved:
            masks = [m * auto_mask(d, u) for m, d, u in zip(masks, distances, unmoved, strict=True)]
        values = [masked_mean(one, mask) for one, mask in zip(distances, masks, strict=True)]
        return torch.stack(values).mean(), torch.stack([mask.mean() for mask in masks]).mean()


def snippet_tensors(tensors: Tensors) -> Tensors:
    """Pictures as float N x 3 x H x W in [0, 1] (neighbours N x F x 3 x H x W), from the bytes of a batch.

    What is float already stays as it is. Without ``target`` and ``neighbours_seen`` the networks see what the losses
    do.

    Raises:
        UsageError: ``video.snippets`` where a batch holds single pictures.
    """
    if "neighbours" not in tensors:
        raise UsageError(
            "A batch of single pictures for losses on video",
            why="They need each picture's neighbours.",
            fix="Add the section 'video' to the recipe ('video: {}').",
            error_id="video.snippets",
        )
    changed = dict(tensors)
    changed.setdefault("target", tensors["image"])
    changed.setdefault("neighbours_seen", tensors["neighbours"])
    for name in ("target", "neighbours", "neighbours_seen"):
        values = changed[name]
        if values.dtype == torch.uint8:
            changed[name] = values.movedim(-1, -3).float() / 255.0
    return changed


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def _shrunk(picture: Tensor, like: Tensor) -> Tensor:
    """The picture at the resolution of a side output, by means over areas."""
    if picture.shape[-2:] == like.shape[-2:]:
        return picture
    return torch.nn.functional.adaptive_avg_pool2d(picture, _size(like))


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """A network that is asked and not trained: no gradient, and no change of its statistics."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)
