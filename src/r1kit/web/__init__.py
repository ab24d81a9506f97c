"""The review page: samples of a `curate.review` queue in a browser, served from this machine (extra `review`)."""
