"""The enclave's web server: HTTP/1.1 and HTTP/2 over one small application interface (ADR 0038).

``exchange`` is that interface, ``http1`` and ``http2`` speak the protocols, ``listener`` holds the connections, their
deadlines and TLS, ``asgi`` is the same application for any ASGI server. Sockets stay in here; the application sees
heads, bodies and answers, and decides before a body is read.
"""
