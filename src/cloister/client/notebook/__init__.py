"""How a notebook shows what the SDK returns: HTML of tags and escaped text, no script, readable without its style.

Text and background are the notebook's own, so that it is readable on light and dark; meaning is in words and signs,
never in colour alone. Names of models and classes are strangers' words: they are shown as text, whatever they are.
"""
