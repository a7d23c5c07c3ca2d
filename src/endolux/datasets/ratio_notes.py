"""What a reader has to know of protocols for networks of ratios, which Leve and GuideDepth are."""

RATIO_NOTES = (
    "The network sees the whole picture: no content area is looked for, and every pixel counts.",
    "A ratio r of 0 or below is for the bundle to turn into depth, not for the protocol: as published it is the "
    "nearest depth (and none at exactly 0) in a bundle that was imported with 'endolux models import --reproduce', "
    "and the farthest depth in any other. The result says which it was.",
    "Whether the original's shrinking of pictures was antialiased depends on the release of torchvision that ran it "
    "and is not reproduced: a bundle resizes in 8 bits with its own filter.",
)
