"""What kinds of surface look like: liver, fat, serosa, muscle, silicone, fluids, metal and plastic."""

from __future__ import annotations

import dataclasses

Colour = tuple[float, float, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What a kind of surface may look like; ranges are (low, high).

    Attributes:
        colours: linear RGB albedos to choose from.
        spread: deviation of the logarithm of a colour.
        mottling: relative deviation of brightness over the surface.
        hue: deviation of the hue over the surface, towards pale or red.
        vessels: strength of vessels.
        trees: number of vessel trunks on a texture.
        trunk_mm: width of a trunk.
        spots: probability of spots.
        spot: colour of the spots.
        relief_mm: amplitude of the relief.
        relief_length_mm: its length.
        roughness: of the wet layer.
        specular: reflectance at normal incidence.
    """

    colours: tuple[Colour, ...]
    spread: float = 0.15
    mottling: tuple[float, float] = (0.03, 0.2)
    hue: tuple[float, float] = (0.0, 0.2)
    vessels: tuple[float, float] = (0.0, 0.8)
    trees: tuple[int, int] = (3, 20)
    trunk_mm: tuple[float, float] = (0.5, 1.4)
    spots: float = 0.0
    spot: Colour = (0.6, 0.45, 0.2)
    relief_mm: tuple[float, float] = (0.02, 0.15)
    relief_length_mm: tuple[float, float] = (2.0, 8.0)
    roughness: tuple[float, float] = (0.12, 0.4)
    specular: tuple[float, float] = (0.015, 0.06)


LOOKS: dict[str, Look] = {
    "liver": Look(
        colours=(
            (0.20, 0.045, 0.035),
            (0.13, 0.035, 0.03),
            (0.25, 0.07, 0.05),
            (0.16, 0.04, 0.04),
            (0.28, 0.09, 0.06),
            (0.20, 0.09, 0.06),
            (0.16, 0.09, 0.08),
            (0.34, 0.16, 0.08),
        ),
        mottling=(0.04, 0.22),
        vessels=(0.0, 0.25),
        trees=(0, 6),
        spots=0.25,
        relief_mm=(0.01, 0.10),
        relief_length_mm=(1.5, 6.0),
        roughness=(0.12, 0.35),
    ),
    "gallbladder": Look(
        colours=((0.62, 0.50, 0.30), (0.45, 0.47, 0.42), (0.66, 0.44, 0.30), (0.40, 0.42, 0.28), (0.60, 0.34, 0.28)),
        mottling=(0.03, 0.12),
        hue=(0.05, 0.35),
        vessels=(0.3, 1.2),
        trees=(4, 16),
        trunk_mm=(0.5, 1.2),
        relief_mm=(0.01, 0.06),
        roughness=(0.15, 0.35),
    ),
    "fat": Look(
        colours=((0.78, 0.36, 0.07), (0.80, 0.42, 0.12), (0.74, 0.28, 0.08), (0.82, 0.52, 0.24), (0.70, 0.26, 0.12)),
        mottling=(0.04, 0.16),
        hue=(0.02, 0.16),
        vessels=(0.3, 1.3),
        trees=(5, 26),
        trunk_mm=(0.5, 1.5),
        relief_mm=(0.02, 0.2),
        relief_length_mm=(1.5, 6.0),
        roughness=(0.12, 0.4),
    ),
    "bowel": Look(
        colours=((0.70, 0.36, 0.28), (0.66, 0.42, 0.36), (0.58, 0.26, 0.20), (0.72, 0.46, 0.30)),
        vessels=(0.2, 1.0),
        trees=(8, 30),
        trunk_mm=(0.3, 0.9),
        relief_mm=(0.01, 0.08),
    ),
    "stomach": Look(
        colours=((0.66, 0.36, 0.28), (0.60, 0.42, 0.36), (0.70, 0.48, 0.34)),
        vessels=(0.1, 0.8),
        trees=(4, 18),
        relief_mm=(0.01, 0.08),
    ),
    "abdominal-wall": Look(
        colours=((0.46, 0.20, 0.13), (0.60, 0.34, 0.22), (0.36, 0.14, 0.10), (0.64, 0.36, 0.14), (0.56, 0.30, 0.26)),
        mottling=(0.04, 0.18),
        hue=(0.05, 0.3),
        vessels=(0.2, 1.2),
        trees=(6, 26),
        relief_mm=(0.03, 0.25),
        relief_length_mm=(3.0, 12.0),
        roughness=(0.2, 0.5),
    ),
    "ligament": Look(
        colours=((0.72, 0.50, 0.36), (0.78, 0.55, 0.28), (0.66, 0.38, 0.30), (0.76, 0.66, 0.58)),
        hue=(0.1, 0.5),
        vessels=(0.2, 1.0),
        trees=(6, 22),
        trunk_mm=(0.3, 0.9),
        relief_mm=(0.05, 0.3),
    ),
    "heart": Look(
        colours=((0.74, 0.66, 0.34), (0.80, 0.74, 0.46), (0.50, 0.18, 0.12), (0.62, 0.34, 0.20), (0.70, 0.44, 0.26)),
        mottling=(0.05, 0.25),
        hue=(0.02, 0.2),
        vessels=(0.2, 1.3),
        trees=(3, 14),
        trunk_mm=(0.8, 2.5),
        relief_mm=(0.02, 0.2),
    ),
    "mucosa": Look(
        colours=(
            (0.62, 0.26, 0.20),
            (0.70, 0.40, 0.34),
            (0.55, 0.16, 0.11),
            (0.74, 0.50, 0.42),
            (0.66, 0.34, 0.18),
            (0.50, 0.20, 0.20),
        ),
        mottling=(0.02, 0.2),
        hue=(0.02, 0.3),
        vessels=(0.0, 1.0),
        trees=(4, 24),
        trunk_mm=(0.15, 0.5),
        relief_mm=(0.005, 0.05),
        relief_length_mm=(0.8, 4.0),
        specular=(0.02, 0.06),
    ),
    "lesion": Look(
        colours=((0.60, 0.20, 0.16), (0.70, 0.34, 0.28), (0.55, 0.14, 0.10), (0.74, 0.46, 0.38), (0.42, 0.12, 0.10)),
        mottling=(0.05, 0.3),
        hue=(0.05, 0.5),
        vessels=(0.0, 1.0),
        trees=(4, 24),
        trunk_mm=(0.15, 0.5),
        spots=0.35,
        spot=(0.75, 0.66, 0.5),
        relief_mm=(0.01, 0.12),
        relief_length_mm=(0.8, 4.0),
    ),
    "spleen": Look(
        colours=((0.16, 0.06, 0.09), (0.20, 0.07, 0.07), (0.24, 0.12, 0.14)),
        mottling=(0.03, 0.2),
        vessels=(0.0, 0.2),
        trees=(0, 5),
    ),
    "silicone": Look(
        colours=(
            (0.62, 0.30, 0.24),
            (0.70, 0.36, 0.30),
            (0.56, 0.22, 0.17),
            (0.72, 0.46, 0.36),
            (0.68, 0.30, 0.20),
            (0.75, 0.60, 0.50),
        ),
        spread=0.1,
        mottling=(0.0, 0.03),
        hue=(0.0, 0.04),
        vessels=(0.0, 0.0),
        relief_mm=(0.0, 0.04),
        roughness=(0.12, 0.3),
        specular=(0.02, 0.06),
    ),
    "any": Look(
        colours=(
            (0.8, 0.8, 0.8),
            (0.3, 0.3, 0.3),
            (0.08, 0.08, 0.08),
            (0.5, 0.35, 0.2),
            (0.2, 0.3, 0.45),
            (0.25, 0.4, 0.25),
            (0.7, 0.2, 0.2),
        ),
        spread=0.4,
        mottling=(0.0, 0.3),
        hue=(0.0, 0.5),
        vessels=(0.0, 0.8),
        specular=(0.0, 0.08),
    ),
    "blood": Look(
        colours=((0.26, 0.012, 0.01), (0.16, 0.01, 0.01), (0.40, 0.03, 0.02)),
        mottling=(0.0, 0.15),
        vessels=(0.0, 0.0),
        relief_mm=(0.0, 0.04),
        roughness=(0.06, 0.2),
        specular=(0.03, 0.06),
    ),
    "stool": Look(
        colours=((0.30, 0.20, 0.04), (0.20, 0.12, 0.03), (0.45, 0.36, 0.08), (0.5, 0.45, 0.2)),
        mottling=(0.1, 0.4),
        hue=(0.0, 0.4),
        vessels=(0.0, 0.0),
        relief_mm=(0.05, 0.4),
        relief_length_mm=(0.8, 3.0),
        roughness=(0.15, 0.5),
    ),
    "mucus": Look(
        colours=((0.75, 0.68, 0.42), (0.8, 0.76, 0.66), (0.6, 0.55, 0.2)),
        mottling=(0.0, 0.2),
        vessels=(0.0, 0.0),
        roughness=(0.08, 0.25),
        specular=(0.03, 0.07),
    ),
    "metal": Look(
        colours=((0.20, 0.205, 0.22), (0.10, 0.10, 0.11), (0.30, 0.295, 0.29)),
        spread=0.1,
        mottling=(0.0, 0.1),
        hue=(0.0, 0.0),
        vessels=(0.0, 0.0),
        relief_mm=(0.0, 0.01),
        roughness=(0.14, 0.4),
        specular=(0.35, 0.65),
    ),
    "plastic": Look(
        colours=(
            (0.015, 0.015, 0.016),
            (0.02, 0.02, 0.02),
            (0.012, 0.012, 0.014),
            (0.025, 0.025, 0.03),
            (0.03, 0.03, 0.035),
            (0.10, 0.10, 0.11),
            (0.75, 0.75, 0.72),
            (0.05, 0.12, 0.35),
            (0.55, 0.02, 0.03),
            (0.8, 0.35, 0.45),
            (0.1, 0.35, 0.15),
            (0.65, 0.5, 0.05),
        ),
        spread=0.2,
        mottling=(0.0, 0.05),
        hue=(0.0, 0.0),
        vessels=(0.0, 0.0),
        relief_mm=(0.0, 0.01),
        roughness=(0.15, 0.5),
        specular=(0.03, 0.06),
    ),
}
