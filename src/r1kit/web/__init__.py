"""Pages in a browser, served from this machine (extra `web`): `app` for a `curate.review` queue, `watch` for runs."""
