"""What ``seal_open.py`` measures of our own: copies, sealing and opening between memory and disk."""
