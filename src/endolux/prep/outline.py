"""Outlines of a picture in black surround: circle, ellipse, cut corners, straight bars."""

from __future__ import annotations

import math
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from endolux.prep.area import Box, ContentArea, Points, corner_distances

Plane: TypeAlias = npt.NDArray[np.uint8]
_RAYS = 180


class OutlineFit:
    """Fits the outlines to the lit cells of one image."""

    def __init__(self, plane: Plane, grid: Plane, lit: Plane, *, level: float, black: float) -> None:
        self.plane = plane
        self.lit = lit
        self.grid = grid
        self.dark = grid <= level
        self.level, self.black = level, black
        self.rows, self.columns = lit.shape
        self.sx, self.sy = plane.shape[1] / self.columns, plane.shape[0] / self.rows
        contours, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        outline = cv2.convexHull(np.concatenate(contours))
        hull = np.zeros_like(lit)
        cv2.fillPoly(hull, [outline], 1)
        self.hull = hull
        x, y, w, h = cv2.boundingRect(outline)
        self.left, self.top, self.right, self.bottom = x, y, x + w - 1, y + h - 1

    def area(self) -> ContentArea | None:
        """The best outline, refined at full resolution; None where the dark cells have no outline of a surround."""
        points = self._outline()
        on_side = (
            (points[:, 0] <= self.left + 1.5)
            | (points[:, 0] >= self.right - 1.5)
            | (points[:, 1] <= self.top + 1.5)
            | (points[:, 1] >= self.bottom - 1.5)
        )
        free = points[~on_side]
        size = (self.plane.shape[1], self.plane.shape[0])
        if len(free) >= 0.06 * _RAYS:
            ellipse, ellipse_error = self._ellipse(points, free)
            cuts, cut_error = self._cuts(free)
            if ellipse is not None and ellipse_error <= 1.1 * cut_error:
                ellipse = self._refine_ellipse(ellipse)
                bbox = self._ellipse_box(ellipse)
                insets = self._insets(ContentArea(shape="circle", bbox=bbox, size=size, ellipse=ellipse))
                return ContentArea(shape="circle", bbox=bbox, size=size, ellipse=ellipse, insets=insets)
            if cuts is not None:
                bbox = self._box()
                full_cuts = tuple(self._refine_cut(corner, cut, bbox) for corner, cut in enumerate(cuts))
                insets = self._insets(ContentArea(shape="octagon", bbox=bbox, size=size, cuts=full_cuts))
                return ContentArea(shape="octagon", bbox=bbox, size=size, cuts=full_cuts, insets=insets)
        area = ContentArea(shape="rectangle", bbox=self._box(), size=size)
        # Bars explain the dark cells, or there were hardly any beside them.
        explained = area.mask(self.columns, self.rows) & (self.hull == 0)
        return area if np.count_nonzero(explained) < 0.08 * self.hull.size else None

    def surround_is_black(self, area: ContentArea) -> bool:
        """Whether what ``area`` leaves out is much darker than the threshold: dim tissue is not, a surround is."""
        outside = (~area.mask(self.columns, self.rows)).astype(np.uint8)
        # Three cells of halation and compression noise along the edge do not count.
        outside = cv2.erode(outside, np.ones((7, 7), np.uint8), borderValue=1)
        values = self.grid[outside > 0]
        return values.size == 0 or float(np.percentile(values, 80)) <= self.black + 0.6 * (self.level - self.black)

    def _outline(self) -> Points:
        """Hull boundary seen from its centre along evenly spread rays, N x 2 in cells."""
        cx, cy = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        angles = np.arange(_RAYS) * (2 * math.pi / _RAYS)
        reach = np.arange(0, math.hypot(self.columns, self.rows), 0.5)
        px = cx + np.outer(np.cos(angles), reach)
        py = cy + np.outer(np.sin(angles), reach)
        ix, iy = np.rint(px).astype(int), np.rint(py).astype(int)
        inside = (ix >= 0) & (ix < self.columns) & (iy >= 0) & (iy < self.rows)
        hit = np.zeros(ix.shape, bool)
        hit[inside] = self.hull[iy[inside], ix[inside]] > 0
        last = len(reach) - 1 - np.argmax(hit[:, ::-1], axis=1)
        row = np.arange(_RAYS)
        return np.stack([px[row, last], py[row, last]], axis=1)

    def _ellipse(self, points: Points, free: Points) -> tuple[tuple[float, float, float, float] | None, float]:
        """Circle (or upright ellipse) through the free outline points, and its typical error in cells."""
        best = _robust_circle(free, max_radius=1.5 * max(self.rows, self.columns))
        candidates: list[tuple[float, float, float, float]] = []
        if best is not None:
            candidates.append((best[0], best[1], best[2], best[2]))
        upright = _upright_ellipse(free)
        # Only an outline seen nearly all round determines two radii.
        if upright is not None and len(free) >= 0.5 * len(points) and 0.6 < upright[2] / upright[3] < 1.67:
            candidates.append(upright)
        chosen, chosen_error = None, math.inf
        for ellipse in candidates:
            error = np.abs(_ellipse_distance(free, ellipse))
            typical = float(np.percentile(error, 60))
            if not (0 <= ellipse[0] < self.columns and 0 <= ellipse[1] < self.rows):
                continue  # no optic images its centre outside the sensor
            tolerance = max(1.0, 0.01 * ellipse[2])
            agree = np.count_nonzero(error <= 2 * tolerance) / len(free)
            if (
                typical <= tolerance
                and agree >= 0.65
                and _widest_gap(free[error <= 2 * tolerance], ellipse) <= 1.25 * math.pi
                and self._overlap(ellipse) >= 0.96
                and typical < 0.7 * chosen_error
            ):
                chosen, chosen_error = ellipse, typical
        return chosen, chosen_error

    def _overlap(self, ellipse: tuple[float, float, float, float]) -> float:
        x = np.arange(self.left, self.right + 1, dtype=np.float64)[None, :]
        y = np.arange(self.top, self.bottom + 1, dtype=np.float64)[:, None]
        model = ((x - ellipse[0]) / ellipse[2]) ** 2 + ((y - ellipse[1]) / ellipse[3]) ** 2 <= 1
        hull = self.hull[self.top : self.bottom + 1, self.left : self.right + 1] > 0
        return float(np.count_nonzero(model & hull) / max(1, int(np.count_nonzero(model | hull))))

    def _cuts(self, free: Points) -> tuple[tuple[tuple[float, float], ...] | None, float]:
        """Lengths cut off the four corners in cells, and the typical error in cells; None if it is no octagon."""
        width, height = self.right - self.left + 1, self.bottom - self.top + 1
        box = (self.left, self.top, width, height)
        cuts: list[tuple[float, float]] = []
        errors: list[npt.NDArray[np.float64]] = []
        for dx, dy in corner_distances(box, free[:, 0], free[:, 1]):
            near = (dx < 0.5 * width) & (dy < 0.5 * height)
            if np.count_nonzero(near) < 4:
                cuts.append((0.0, 0.0))
                continue
            line = cv2.fitLine(np.stack([dx[near], dy[near]], 1).astype(np.float32), cv2.DIST_HUBER, 0, 0.01, 0.01)
            vx, vy, x0, y0 = (float(value) for value in np.ravel(line))
            if vx * vy >= -1e-3:
                cuts.append((0.0, 0.0))
                continue
            cuts.append((x0 - vx / vy * y0, y0 - vy / vx * x0))
            errors.append(np.abs(-vy * (dx[near] - x0) + vx * (dy[near] - y0)))
        sizes = np.array([math.sqrt(max(0.0, a) * max(0.0, b)) for a, b in cuts])
        real = sizes[sizes > 2]
        # A dark corner of tissue cuts one corner of the hull; an instrument's mask cuts them alike.
        if len(real) < 3 or real.max() > 2.0 * real.min():
            return None, math.inf
        typical = float(np.percentile(np.concatenate(errors), 60))
        if typical > max(1.5, 0.01 * max(width, height)):
            return None, math.inf
        # Dark tissue or an inset makes a cut look longer than it is, text shorter; the second shortest is trusted.
        trusted = int(np.argsort(np.where(sizes > 2, sizes, np.inf))[1])
        alike = [
            cuts[trusted] if not 0.88 <= size / sizes[trusted] <= 1.12 else cut
            for cut, size in zip(cuts, sizes, strict=True)
        ]
        return tuple((max(0.0, a), max(0.0, b)) for a, b in alike), typical

    def _refine_cut(self, corner: int, cut: tuple[float, float], bbox: Box) -> tuple[float, float]:
        """One cut in pixels, moved onto the edge seen at full resolution."""
        cut_x, cut_y = cut[0] * self.sx, cut[1] * self.sy
        if min(cut_x, cut_y) < 4:
            return cut_x, cut_y
        along = np.linspace(0.1, 0.9, 96)[:, None]
        length = math.hypot(cut_x, cut_y)
        spread = 5.0 * max(self.sx, self.sy)
        offsets = np.arange(-spread, spread + 1.0)[None, :]
        dx = along * cut_x + offsets * (cut_y / length)
        dy = (1 - along) * cut_y + offsets * (cut_x / length)
        px = bbox[0] + dx if corner in (0, 3) else bbox[0] + bbox[2] - 1 - dx
        py = bbox[1] + dy if corner in (0, 1) else bbox[1] + bbox[3] - 1 - dy
        ix, iy = np.rint(px).astype(int), np.rint(py).astype(int)
        inside = (ix >= 0) & (ix < self.plane.shape[1]) & (iy >= 0) & (iy < self.plane.shape[0])
        bright = np.zeros(ix.shape, bool)
        bright[inside] = self.plane[iy[inside], ix[inside]] > self.level
        edge = bright[:, -1] & ~bright[:, 0]
        if np.count_nonzero(edge) < 24:
            return cut_x, cut_y
        first = np.argmax(bright, axis=1)[edge]
        at = np.stack([dx[edge, first], dy[edge, first]], axis=1).astype(np.float32)
        vx, vy, x0, y0 = (float(value) for value in np.ravel(cv2.fitLine(at, cv2.DIST_HUBER, 0, 0.01, 0.01)))
        if vx * vy >= -1e-3:
            return cut_x, cut_y
        refined = x0 - vx / vy * y0 + 1.0, y0 - vy / vx * x0 + 1.0
        alike = all(0.7 <= new / old <= 1.4 for new, old in zip(refined, (cut_x, cut_y), strict=True))
        return refined if alike else (cut_x, cut_y)

    def _box(self) -> Box:
        """The bars around the picture, each only where its edge is straight; exact to the pixel."""
        height, width = self.plane.shape
        middle_y = slice(int(self.top * self.sy), max(int(self.top * self.sy) + 1, int((self.bottom + 1) * self.sy)))
        middle_x = slice(int(self.left * self.sx), max(int(self.left * self.sx) + 1, int((self.right + 1) * self.sx)))
        rows = self.lit[self.top : self.bottom + 1]
        columns = self.lit[:, self.left : self.right + 1].T
        x0 = self._side(rows, self.left, self.sx, self.plane[middle_y])
        x1 = width - self._side(rows[:, ::-1], self.columns - 1 - self.right, self.sx, self.plane[middle_y, ::-1])
        y0 = self._side(columns, self.top, self.sy, self.plane[:, middle_x].T)
        y1 = height - self._side(columns[:, ::-1], self.rows - 1 - self.bottom, self.sy, self.plane[::-1, middle_x].T)
        return x0, y0, max(1, x1 - x0), max(1, y1 - y0)

    def _side(self, lit: npt.NDArray[np.uint8], edge: int, scale: float, plane: npt.NDArray[np.uint8]) -> int:
        """Width in pixels of the black bar before ``edge`` (cells), with the side seen as the left one."""
        if edge == 0 and scale == 1.0:
            return 0
        central = lit[len(lit) // 5 : max(len(lit) // 5 + 1, len(lit) * 4 // 5)]
        seen = central.any(axis=1)
        if not seen.any():
            return 0
        starts = np.argmax(central[seen] > 0, axis=1)
        if np.count_nonzero(starts <= edge + 2) < 0.5 * len(starts):
            return 0
        first = max(0, int((edge - 2) * scale))
        step = max(1, len(plane) // 200)
        strip = plane[len(plane) // 5 : max(len(plane) // 5 + 1, len(plane) * 4 // 5) : step]
        strip = strip[:, first : int((edge + 3) * scale) + 1]
        share = np.mean(strip > self.level, axis=0)
        bright = np.nonzero(share >= 0.5 * share.max())[0] if share.max() > 0.2 else np.array([0])
        return first + int(bright[0])

    def _ellipse_box(self, ellipse: tuple[float, float, float, float]) -> Box:
        """Bounding box of the ellipse within the image and within the sides that truncate it."""
        height, width = self.plane.shape
        cx, cy, rx, ry = ellipse
        x0, y0, x1, y1 = 0, 0, width, height
        box = self._box()
        slack_x, slack_y = 2.5 * self.sx, 2.5 * self.sy
        if cx - rx < box[0] - slack_x:
            x0 = box[0]
        if cy - ry < box[1] - slack_y:
            y0 = box[1]
        if cx + rx > box[0] + box[2] - 1 + slack_x:
            x1 = box[0] + box[2]
        if cy + ry > box[1] + box[3] - 1 + slack_y:
            y1 = box[1] + box[3]
        x0, y0 = max(x0, math.ceil(cx - rx)), max(y0, math.ceil(cy - ry))
        x1, y1 = min(x1, math.floor(cx + rx) + 1), min(y1, math.floor(cy + ry) + 1)
        return x0, y0, max(1, x1 - x0), max(1, y1 - y0)

    def _refine_ellipse(self, ellipse: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """The ellipse in pixels, moved onto the edge seen at full resolution, with a small margin inwards."""
        cx, cy = (ellipse[0] + 0.5) * self.sx - 0.5, (ellipse[1] + 0.5) * self.sy - 0.5
        rx, ry = ellipse[2] * self.sx, ellipse[3] * self.sy
        angles = np.arange(2 * _RAYS) * (math.pi / _RAYS)
        spread = 4.0 * max(self.sx, self.sy)
        offsets = np.arange(-spread, spread + 1.0)
        px = cx + np.cos(angles)[:, None] * (rx + offsets)
        py = cy + np.sin(angles)[:, None] * (ry + offsets)
        ix, iy = np.rint(px).astype(int), np.rint(py).astype(int)
        inside = (ix >= 0) & (ix < self.plane.shape[1]) & (iy >= 0) & (iy < self.plane.shape[0])
        whole = inside.all(axis=1)
        bright = np.zeros(ix.shape, bool)
        bright[whole] = self.plane[iy[whole], ix[whole]] > self.level
        # An edge: bright at the inner end, dark at the outer end of the ray.
        edge = whole & bright[:, 0] & ~bright[:, -1]
        if np.count_nonzero(edge) >= 12:
            last = bright.shape[1] - 1 - np.argmax(bright[:, ::-1], axis=1)
            at = np.stack([px[edge, last[edge]], py[edge, last[edge]]], axis=1)
            if ellipse[2] == ellipse[3]:
                stretched = at * (1.0, self.sx / self.sy)  # the grid's cells are not exactly square
                circle = _robust_circle(stretched, max_radius=3.0 * max(self.plane.shape))
                if circle is not None and abs(circle[2] - rx) < 0.1 * rx:
                    ratio = self.sy / self.sx
                    cx, cy, rx, ry = circle[0], circle[1] * ratio, circle[2], circle[2] * ratio
            else:
                upright = _upright_ellipse(at)
                if upright is not None and abs(upright[2] - rx) < 0.1 * rx:
                    cx, cy, rx, ry = upright
        margin = 0.5 + 0.003 * max(rx, ry)
        return cx, cy, max(1.0, rx - margin), max(1.0, ry - margin)

    def _insets(self, area: ContentArea) -> tuple[Box, ...]:
        """Black rectangles that sit in a corner of the picture."""
        inside = area.mask(self.columns, self.rows)
        left, top, width, height = area.scaled_bbox(self.columns, self.rows)
        candidates = (inside & self.dark).astype(np.uint8)
        candidates = cv2.morphologyEx(candidates, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(candidates, connectivity=4)
        boxes: list[Box] = []
        for label in range(1, count):
            x, y, w, h, cells = (int(value) for value in stats[label])
            in_box = inside[y : y + h, x : x + w]
            corner = (x <= left + 2 or x + w >= left + width - 2) and (y <= top + 2 or y + h >= top + height - 2)
            if corner and cells >= 0.01 * width * height and cells >= 0.92 * np.count_nonzero(in_box):
                # Straight edges: both sides that face the picture are full.
                part = labels[y : y + h, x : x + w] == label
                if min(part.any(0).mean(), part.any(1).mean()) > 0.99:
                    x0, y0 = int(x * self.sx), int(y * self.sy)
                    boxes.append((x0, y0, math.ceil((x + w + 1) * self.sx) - x0, math.ceil((y + h) * self.sy) - y0))
        return tuple(boxes)


def _widest_gap(points: Points, ellipse: tuple[float, float, float, float]) -> float:
    """Largest angle in radians, seen from the centre, without a point: one side alone is no evidence of a circle."""
    angles = np.sort(np.arctan2(points[:, 1] - ellipse[1], points[:, 0] - ellipse[0]))
    if len(angles) < 2:
        return 2 * math.pi
    return float(max(np.diff(angles).max(), angles[0] + 2 * math.pi - angles[-1]))


def _ellipse_distance(points: Points, ellipse: tuple[float, float, float, float]) -> npt.NDArray[np.float64]:
    """Signed radial distance of points from an upright ellipse, positive outside."""
    dx, dy = points[:, 0] - ellipse[0], points[:, 1] - ellipse[1]
    reach = np.hypot(dx, dy)
    unit = np.hypot(dx / ellipse[2], dy / ellipse[3])
    distance: npt.NDArray[np.float64] = reach - reach / np.maximum(unit, 1e-9)
    return distance


def _circle(points: Points) -> tuple[float, float, float] | None:
    """Least-squares circle (Kasa 1976)."""
    if len(points) < 3:
        return None
    origin = points.mean(axis=0)
    x, y = (points - origin).T
    solution, _, rank, _ = np.linalg.lstsq(np.stack([2 * x, 2 * y, np.ones_like(x)], axis=1), x * x + y * y, rcond=None)
    square = solution[2] + solution[0] ** 2 + solution[1] ** 2
    if rank < 3 or square <= 0:
        return None
    return float(solution[0] + origin[0]), float(solution[1] + origin[1]), math.sqrt(square)


def _robust_circle(points: Points, *, max_radius: float) -> tuple[float, float, float] | None:
    """Circle that most points agree on: fixed triples vote, then least squares on those that agree."""
    count = len(points)
    if count < 6:
        return None
    generator = np.random.default_rng(0)
    triples = points[generator.integers(0, count, (200, 3))]
    ax, ay, bx, by, cx, cy = (triples[:, i, j] for i in range(3) for j in range(2))
    d = 2 * (ax * (by - cy) + bx * (cy - ay) + cx * (ay - by))
    usable = np.abs(d) > 1e-6
    a2, b2, c2 = ax * ax + ay * ay, bx * bx + by * by, cx * cx + cy * cy
    safe = np.where(usable, d, 1.0)
    ux = (a2 * (by - cy) + b2 * (cy - ay) + c2 * (ay - by)) / safe
    uy = (a2 * (cx - bx) + b2 * (ax - cx) + c2 * (bx - ax)) / safe
    radius = np.hypot(ax - ux, ay - uy)
    usable &= (radius <= max_radius) & (radius >= 4)
    if not usable.any():
        return None
    ux, uy, radius = ux[usable], uy[usable], radius[usable]
    error = np.abs(np.hypot(points[:, 0] - ux[:, None], points[:, 1] - uy[:, None]) - radius[:, None])
    # Four hundredths of an octant's sagitta separate a circle from a polygon; one per cent of the radius is well below.
    votes = np.count_nonzero(error <= np.maximum(1.0, 0.01 * radius)[:, None], axis=1)
    best = int(np.argmax(votes))
    agree = error[best] <= max(1.0, 0.01 * radius[best])
    fitted: tuple[float, float, float] | None = None
    for _ in range(3):
        fitted = _circle(points[agree])
        if fitted is None or fitted[2] > max_radius:
            return None
        residual = np.abs(np.hypot(points[:, 0] - fitted[0], points[:, 1] - fitted[1]) - fitted[2])
        agree = residual <= max(1.0, 0.01 * fitted[2])
        if np.count_nonzero(agree) < 6:
            return None
    return fitted


def _upright_ellipse(points: Points) -> tuple[float, float, float, float] | None:
    """Least-squares ellipse with upright axes: A x^2 + B y^2 + C x + D y = 1."""
    if len(points) < 8:
        return None
    keep = np.ones(len(points), bool)
    result: tuple[float, float, float, float] | None = None
    for _ in range(3):
        origin = points[keep].mean(axis=0)
        x, y = (points[keep] - origin).T
        design = np.stack([x * x, y * y, x, y], axis=1)
        (a, b, c, d), _, rank, _ = np.linalg.lstsq(design, np.ones_like(x), rcond=None)
        if rank < 4 or a <= 0 or b <= 0:
            return None
        constant = 1 + c * c / (4 * a) + d * d / (4 * b)
        result = (
            float(origin[0] - c / (2 * a)),
            float(origin[1] - d / (2 * b)),
            math.sqrt(constant / a),
            math.sqrt(constant / b),
        )
        error = np.abs(_ellipse_distance(points, result))
        keep = error <= max(1.0, 2 * float(np.median(error)))
        if np.count_nonzero(keep) < 8:
            return None
    return result
