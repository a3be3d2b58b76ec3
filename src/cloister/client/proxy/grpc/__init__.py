"""The gRPC form of the inference protocol on the proxy (extra ``grpc``).

``inference.proto`` is the interface and ``inference.binpb`` the same compiled, ``messages`` loads it, ``raw`` takes
tensors' bytes out of a message and puts them in without a copy of its own, ``contents`` is for tensors that come typed,
``translate`` turns calls into the HTTP form and answers back, ``service`` and ``listen`` serve them.
"""
