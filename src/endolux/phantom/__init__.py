"""The synthetic endoscopy world: procedural anatomy, a scope's light and camera, exact ground truth.

Needs the ``phantom`` extra (embreex, numba). The pieces, from geometry to pixels:

* ``fields`` random fields, ``vessels`` vessel trees, ``tissue`` surface textures,
* ``lumen`` and ``polyp`` geometry, ``scene`` the registry of anatomies,
* ``scope`` camera, lights and sensor of one instrument, ``pose`` where it is held,
* ``raycast`` rays to surface points, ``shade`` surface points to light, ``sensor`` light to pixels,
* ``render`` one frame with its ground truth, ``world`` streams of frames, ``write`` files.
"""
