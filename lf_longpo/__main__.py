"""`python -m lf_longpo`: the command line where the `longpo` script is not on the path."""

import sys

from lf_longpo.cli import main

sys.exit(main())
