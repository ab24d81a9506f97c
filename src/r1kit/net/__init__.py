"""Parts that r1kit's servers share: checks on requests, bounds on bodies and time, addresses. Needs the extra `web`."""
