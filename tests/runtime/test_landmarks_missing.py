"""What a user sees where no model of landmarks is installed."""

from __future__ import annotations

import pytest

from endolux.errors import ModelError
from endolux.runtime import landmarks


def test_a_missing_default_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarks, "list_bundles", lambda: ("repdepth",))
    with pytest.raises(ModelError, match="no trained model of landmarks") as caught:
        landmarks.load_landmarks()
    assert caught.value.error_id == "model.missing"
    assert "--model" in caught.value.fix
