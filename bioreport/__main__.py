"""``python -m bioreport``."""

import sys

from bioreport.cli import main

sys.exit(main())
