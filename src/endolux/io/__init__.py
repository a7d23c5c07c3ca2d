"""Files and video to nouns, and back."""
