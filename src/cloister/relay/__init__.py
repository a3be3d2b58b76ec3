"""An Oblivious HTTP relay (RFC 9458 section 6.2): between consumers who are not to be known and one gateway.

It sees who asks and not what; the gateway sees what is asked and not by whom. That holds only while the two are run by
parties that do not tell each other. ``forward`` is what passes and in which form, ``serve`` runs it.
"""
