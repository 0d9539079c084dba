"""The recipe is a package of the scripts, not of what is installed: it is found by its folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
