"""Lets the test files share `zoo_cases`: pytest imports each file on its own."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
