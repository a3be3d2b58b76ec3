"""The channel from the consumer into the enclave: binary HTTP, chunked Oblivious HTTP, attested keyset. Sans-io."""
