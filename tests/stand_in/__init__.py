"""A provider that is none: an OpenAI-shaped server on loopback, for tests, benchmarks and the demo.

Its answers are made-up words that follow from the request alone. It says that it is one in its models, in the field
`system_fingerprint` of every answer and in the header `server`.
"""
