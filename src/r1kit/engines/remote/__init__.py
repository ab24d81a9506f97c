"""Engines that live elsewhere: servers that sample for a training stage and take its weights, vLLM's or r1kit's own.

`pool.ServerPool` is the engine, `server.Server` the client of one server, and `vllm_worker` what a server of vLLM loads
beside its own code. Nothing here is imported before a stage names servers.
"""
