"""`python -m lf_longpo.cli`: the same as `longpo`."""

import sys

from lf_longpo.cli import main

sys.exit(main())
