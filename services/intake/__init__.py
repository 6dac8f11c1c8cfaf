"""The door: takes what sources and buyers send, and lets in only what is typed, normalised and deduplicated."""
