"""`python -m r1kit` is `r1kit`."""

from r1kit.cli import main

raise SystemExit(main())
