"""Short hashes of what decides a result."""

import hashlib
import json
from typing import Any


def fingerprint(value: Any) -> str:
    """Return a short hash of anything that JSON can hold."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
