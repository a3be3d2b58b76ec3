"""Codes: sealed models and vaults."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Sealed models and vaults",
    about="The package, the maker's signature, and the keys.",
    codes=(
        Code(
            name="digest_mismatch",
            cause="ciphertext differs from what was sealed",
            fix="copy the package again",
            who=Who.BORROWER,
            example="weights.bin: digest_mismatch (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="drift_too_large",
            cause="the mark of a variant moves outputs or accuracy by more than was allowed",
            fix="choose a lower `--trace-strength`, or allow more",
            who=Who.CUSTODIAN,
            example="variant: drift_too_large (got 0.12, want at most 0.05)",
        ),
        Code(
            name="file_missing",
            cause="a file that the maker signed is not in the model",
            fix="get the whole model",
            who=Who.MAKER,
            example="tokenizer.json: file_missing",
        ),
        Code(
            name="file_unsigned",
            cause="a file of the model that its maker did not sign",
            fix="take it out, or have the model signed with it",
            who=Who.MAKER,
            example="weights.bin: file_unsigned",
        ),
        Code(
            name="model_missing",
            cause="no package for a model of the loan",
            fix="give the sealed folder with `--model`",
            who=Who.BORROWER,
            example="model digits: model_missing (got no such package, want 81c1b7aa…)",
        ),
        Code(
            name="model_unsigned",
            cause="a model without its maker's signature, where one is wanted",
            fix="have it signed and sealed with `--maker`; or leave the demand out",
            who=Who.MAKER,
            example="model digits: model_unsigned",
        ),
        Code(
            name="model_withdrawn",
            cause="the model was withdrawn",
            fix="publish and lend another version",
            who=Who.CUSTODIAN,
            example="model: model_withdrawn",
        ),
        Code(
            name="no_such_key",
            cause="the key service has no key of that name",
            fix="see which keys it has: [vaults](vaults.md)",
            who=Who.CUSTODIAN,
            example="pkcs11 token: no_such_key",
        ),
        Code(
            name="not_of_the_package",
            cause="a folder holds what is no part of the sealed model",
            fix="remove it, or copy the package again",
            who=Who.BORROWER,
            example="notes.txt: not_of_the_package",
        ),
        Code(
            name="oversized",
            cause="a file is longer than the manifest says",
            fix="copy the package again",
            who=Who.BORROWER,
            example="weights.bin: oversized (got 1048593 bytes, want 1048576)",
        ),
        Code(
            name="second_signature_missing",
            cause="a manifest without the second signature that it names, or that was pinned",
            fix="get the whole package; or seal the model anew",
            who=Who.BORROWER,
            example="manifest: second_signature_missing (got nothing, want a signature of 81c1b7aa…)",
        ),
        Code(
            name="service_denied",
            cause="the key service refuses: PIN, credentials, policy, or a disabled key",
            fix="mend what it names: [vaults](vaults.md)",
            who=Who.CUSTODIAN,
            example="pkcs11 token: service_denied (got a wrong PIN, want the PIN of the token's user)",
        ),
        Code(
            name="signed_otherwise",
            cause="a file is not what the model's maker signed",
            fix="get the file again, from its maker",
            who=Who.MAKER,
            example="weights.bin: signed_otherwise (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="unsupported_signature",
            cause="a model signature of a kind that is not read: keyless, shards, another hash",
            fix="have the model signed by key or certificate: [model signature](../spec/model-signature.md)",
            who=Who.MAKER,
            example="model signature: unsupported_signature (got keyless, want a key or chain)",
        ),
        Code(
            name="wrong_key",
            cause="the key does not open this",
            fix="use the key, passphrase or vault it was locked with",
            who=Who.CALLER,
            example="model digits: wrong_key",
        ),
        Code(
            name="wrong_model",
            cause="an envelope or manifest of another model",
            fix="copy the whole package again",
            who=Who.BORROWER,
            example="envelope: wrong_model (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="wrong_share",
            cause="shares of another vault file or split, the same one twice, or one that was altered",
            fix=(
                "leave out the shares that are named, or where none is named try others in turn; after the vault was "
                "locked anew, use newer ones"
            ),
            who=Who.CALLER,
            example="shares: wrong_share (got parts of several secrets, or altered, want one secret)",
        ),
    ),
)
