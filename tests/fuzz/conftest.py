"""Where the targets find the synthetic files of other tests."""

import fuzz_targets  # noqa: F401  (extends the path)
