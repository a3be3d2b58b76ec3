"""The main job in one terminal: lend, ask unseen, count, stop."""
