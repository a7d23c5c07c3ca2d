"""The synthetic endoscopy world: procedural anatomy, a scope's light and camera, exact ground truth.

Needs the ``phantom`` extra (embreex, numba). The pieces, from geometry to pixels:

* ``fields`` random fields, ``vessels`` vessel trees, ``tissue`` mucosa, ``looks`` and ``organs`` every other surface,
* ``lumen`` tubes with folds, ``solids`` seamless bodies and their skin, ``isosurface`` smooth unions,
* ``polyp``, ``things``, ``tools`` what grows, lies and works there; ``litter`` scatters it, ``assembly`` joins it,
* ``anatomy`` one scene and the registry; ``hollow``, ``stomach``, ``bowel``, ``airway``, ``liver``, ``laparoscopy``
  and ``heart`` fill it, ``scene`` builds by name,
* ``labels`` classes, ``landmarks`` lines on the liver, ``smoke`` a veil,
* ``scope`` camera, lights and sensor of one instrument, ``pose`` where it is held,
* ``raycast`` rays to surface points, ``shade`` surface points to light, ``sensor`` light to pixels,
* ``render`` one frame with its ground truth, ``world`` streams of frames, ``write`` files.
"""
