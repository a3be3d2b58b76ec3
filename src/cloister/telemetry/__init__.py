"""What every server of ours tells about itself: numbers for a monitoring system (docs/reference/observability.md).

``registry`` holds the values, ``exposition`` writes them, ``listener`` shows them on an address of their own. Each
server keeps the table of its metrics in its own room. Nothing here can carry content: a label has a closed set of
values, and another one is an error.
"""
