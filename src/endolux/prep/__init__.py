"""From raw pixels to network input: content area, highlights, the one preprocessing function."""
