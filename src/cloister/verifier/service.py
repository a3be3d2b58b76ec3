"""The two models of RATS (RFC 9334 section 5), over one procedure.

Passport: the attester takes a challenge, sends evidence over it, and carries the result to whom it likes. Background
check: a Relying Party sends evidence over a nonce of its own. A nonce is used up before anything is verified.

What says no about evidence, ``Rejected`` by the verifier, may be wanted as a token too. Bytes that do not parse, a
nonce that is not good, a policy or an audience that is not to be had, and what could not be decided are problems
always: they say nothing about the evidence.

Not done here: how often somebody may ask (``limits``), bytes (``requests``, ``app``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cloister.attest.ear import ear_claims, refused_claims
from cloister.attest.endorse.gather import gather
from cloister.attest.policy import Policy
from cloister.attest.rats import TrustTier
from cloister.errors import Rejected, Unavailable
from cloister.verifier.logs import LOG, Event
from cloister.verifier.requests import Detail, OnRefusal
from cloister.verifier.subject import subject_of
from cloister.verifier.tokens import CLAIMS, Identity, issue
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from cloister.attest.endorse import Endorsements
    from cloister.attest.rats import AttestationResult, Nonce
    from cloister.attest.verifier import Verifier
    from cloister.verifier.challenges import Challenges
    from cloister.verifier.keyfile import KeyFile
    from cloister.verifier.policies import NamedPolicy, Policies
    from cloister.verifier.requests import Asked
    from cloister.verifier.results import Results
    from cloister.verifier.tokens import Issued
    from cloister.wire import Json

__all__ = ["AttestationService"]

_ID_BYTES = 16
_UNJUDGED = frozenset({"unsupported_format", "unsupported_tee"})  # nobody here can read it: no verdict


class AttestationService:
    """A running attestation service without its HTTP face."""

    def __init__(
        self,
        *,
        issuer: str,
        verifier: Verifier,
        endorsements: Endorsements,
        policies: Policies,
        keys: KeyFile,
        challenges: Challenges,
        results: Results,
        clock: Callable[[], datetime],
        rng: Callable[[int], bytes],
    ) -> None:
        """Put the parts together."""
        self.issuer, self.policies, self.keys, self.results = issuer, policies, keys, results
        self._verifier, self._endorsements, self._challenges = verifier, endorsements, challenges
        self.now, self._rng = clock, rng

    @property
    def path(self) -> str:
        """Return the path below which the service is reached: empty, or where another server has mounted it."""
        return urlsplit(self.issuer).path

    def challenge(self) -> tuple[Nonce, datetime]:
        """Return a nonce that is good once, and its end."""
        return self._challenges.give(self.now())

    def attest(self, asked: Asked) -> Issued:
        """Return the result of evidence over a challenge of this service (passport model)."""
        self._challenges.take(asked.binding.nonce, self.now())
        return self._appraise(asked, self._policy(asked))

    def verify(self, asked: Asked) -> Issued:
        """Return the result of evidence over a nonce of the Relying Party that asks (background-check model).

        Whether the nonce is fresh is the Relying Party's to know: the token repeats it.
        """
        return self._appraise(asked, self._policy(asked))

    def demand_ready(self) -> None:
        """Prove that a result can be signed and that there is a policy. Raises ``Unavailable``, ``Malformed``, ..."""
        if not self.policies.by_id:
            msg = "attestation service: no policy"
            raise Unavailable(msg)
        now = self.now()
        for algorithm in self.policies.algorithms:
            self.keys.signing(algorithm, now)

    def discovery(self) -> Json:
        """Return the metadata that systems of workload identity read (OpenID Connect Discovery 1.0 section 3)."""
        return {
            "claims_supported": list(CLAIMS),
            "id_token_signing_alg_values_supported": sorted(self.policies.algorithms),
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/.well-known/jwks.json",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
        }

    def _policy(self, asked: Asked) -> NamedPolicy:
        own = asked.policy if isinstance(asked.policy, Policy) else None
        policy = self.policies.own(own) if own is not None else self.policies.named(_id_of(asked))
        if asked.audience is not None:
            policy.demand_audience(asked.audience)
        return policy

    def _appraise(self, asked: Asked, policy: NamedPolicy) -> Issued:
        try:
            result = self._result(asked, policy)
        except Rejected as refusal:
            if refusal.code in _UNJUDGED:
                raise
            LOG.write(Event.EVIDENCE_REFUSED, tee=asked.evidence.tee, code=refusal.code)
            return self._refused(asked, policy, refusal)
        identity = None
        if asked.audience is not None:
            policy.demand_tier(result)
            identity = Identity(subject=subject_of(result, policy.id), audience=asked.audience)
        claims = ear_claims(result, brief=asked.detail is Detail.BRIEF)
        LOG.write(Event.RESULT_ISSUED, tee=result.tee, result=result.tier.value)
        return self._issue(claims, policy, tier=result.tier, identity=identity)

    def _result(self, asked: Asked, policy: NamedPolicy) -> AttestationResult:
        """Return what the verifier finds. For a TEE that the policy does not name nobody is asked anything."""
        now, devices = self.now(), asked.binding.devices
        found: Mapping[str, bytes] = {}
        if asked.evidence.tee in policy.policy.tees:
            found = gather(self._verifier, self._endorsements, asked.evidence, devices, now)
        return self._verifier.verify(asked.evidence, asked.binding, policy.policy, now, found)

    def _refused(self, asked: Asked, policy: NamedPolicy, refusal: Rejected) -> Issued:
        """Return a token that says no: without subject and audience, so that nobody takes it for an identity."""
        if asked.on_refusal is OnRefusal.PROBLEM:
            raise refusal
        claims = refused_claims(
            refusal, tee=asked.evidence.tee, policy_digest=policy.policy.digest, nonce=asked.binding.nonce
        )
        return self._issue(claims, policy, tier=TrustTier.CONTRAINDICATED, identity=None)

    def _issue(
        self, claims: Mapping[str, Json], policy: NamedPolicy, *, tier: TrustTier, identity: Identity | None
    ) -> Issued:
        now = self.now()
        issued = issue(
            claims,
            tier=tier,
            identity=identity,
            key=self.keys.signing(policy.algorithm, now),
            issuer=self.issuer,
            result_id=dump_b64u(self._rng(_ID_BYTES)),
            now=now,
            ttl=policy.ttl,
        )
        self.results.keep(issued)
        return issued


def _id_of(asked: Asked) -> str | None:
    return asked.policy if isinstance(asked.policy, str) else None
