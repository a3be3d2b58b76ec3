"""The live consoles: ``custodian top``, ``enclave top``, ``loan watch`` (docs/reference/consoles.md).

A *view* is pure: from what was last heard, a size and the time it makes the lines of a frame. A *feed* hears, in
threads of its own. ``screen`` draws a view on a terminal and takes keys; without a terminal one frame is printed.
"""
