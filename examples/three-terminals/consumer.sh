#!/bin/sh
# The consumer asks, and takes nobody's word for where its question goes. See ../README.md.
set -eu
. "$(dirname "$0")/steps.sh"
enter consumer

say "Four scans nobody else may see."
python3 "$examples/digits.py" scans .

await url
await clinic.token
cp "$handover/clinic.token" "$handover/root.pub.json" "$handover/custodian-ca.pem" .
chmod 600 clinic.token
url=$(cat "$handover/url")

say "Reference values of its own: measured from its own installation, not taken from the custodian."
run cloister enclave measure --tee simulated --insecure-simulated-root root.pub.json --policy mine.json

say "Write down whom it trusts, and why something is not compared."
run cloister trust new --policy mine.json --insecure-simulated-root root.pub.json \
  --custodian-url "https://localhost:$custodian_port" --custodian-key "$(cat "$handover/custodian.key")" \
  --custodian-ca custodian-ca.pem --operator "General Hospital" --model "digits=$(cat "$handover/digest")" \
  --any-tls "everything is on this machine" --out trust.json

say "Verify the enclave by fresh evidence. Costs nothing, asks nothing."
whom="--trust trust.json --token-file clinic.token --insecure-simulated-root root.pub.json"
# shellcheck disable=SC2086 # the options are words
run cloister verify "$url" $whom

say "Ask: two scans by command, one from Python."
# shellcheck disable=SC2086
run cloister infer "$url" --model digits --input scan-0.png --input scan-1.png $whom
run python3 "$examples/consumer.py" "$url" digits scan-2.png

say "A fourth question: the enclave itself refuses (exit code 4)."
code=0
# shellcheck disable=SC2086
run cloister infer "$url" --model digits --input scan-3.png $whom || code=$?
[ "$code" -eq 4 ]
tell exhausted "$code"

say "Ask again and wait until the custodian has approved more."
# shellcheck disable=SC2086
run cloister infer "$url" --model digits --input scan-3.png --receipt scan-3.receipt --wait 90 $whom
tell answered scan-3.png

await ended
say "The custodian blocked the loan, the enclave ended: nobody answers (exit code 5)."
code=0
# shellcheck disable=SC2086
run cloister verify "$url" $whom || code=$?
[ "$code" -eq 5 ]
say "The consumer is done."
