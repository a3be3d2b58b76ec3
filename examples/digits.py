"""Make the input of the examples: python examples/digits.py model|scans FOLDER.

``model`` trains a small network on 1,347 scans of handwritten digits and writes ``digits.onnx`` and its card;
``scans`` writes four scans that it never saw as PNG files. Needs the extra: pip install 'cloister[demo]'.
"""

import json
import sys
from pathlib import Path

from cloister.cli.demo.digits import CARD, train

what, folder = sys.argv[1], Path(sys.argv[2])
digits = train()
if what == "model":
    (folder / "digits.onnx").write_bytes(digits.onnx)
    (folder / "card.json").write_text(json.dumps(CARD, indent=2))
    print(f"digits.onnx: right on {digits.accuracy:.1%} of 450 scans it never saw")
else:
    for index in range(4):
        truth = digits.write_image(index, folder / f"scan-{index}.png")
        print(f"scan-{index}.png is a {truth}")
